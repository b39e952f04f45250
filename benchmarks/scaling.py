"""What many ranks would gain on networks that nobody measured here: the model of cost, and what it is fed with."""

import statistics
import time
from math import log2
from typing import Any, NamedTuple

import numpy as np


class Network(NamedTuple):
    """Nodes that send messages of b bytes in α + b β seconds."""

    name: str
    alpha: float
    beta: float


RANKS = (8, 16, 64, 256, 1024)
NETWORKS = (Network("25 Gb/s", 20e-6, 8 / 25e9), Network("100 Gb/s", 2e-6, 8 / 100e9))
"""The rates are the networks' own; the latencies are assumed, of TCP for the one, and of RDMA for the other."""


class Work(NamedTuple):
    """A net, its parameters, the samples of a rank, and the seconds of a step, of any number and for each sample."""

    name: str
    n: int
    samples: int
    fixed: float
    each: float


class Own(NamedTuple):
    """Seconds that a number takes a rank itself: to be added to another, and to be copied for the messages."""

    adding: float
    copying: float


def reducing(n: int, nodes: int, network: Network, own: Own) -> float:
    """Return the seconds that adding up n float32 over 2ᵏ ranks takes, each on a node: a barrier, recursive halving,
    and the way back.

    3 log₂P α + (P − 1)/P · n (2 · 4β + γ) + n δ, where γ is a number's addition, and δ its copy.
    (Thakur, Rabenseifner & Gropp, "Optimization of collective communication operations in MPICH", 2005)
    """
    sent = n * (nodes - 1) / nodes
    return 3 * log2(nodes) * network.alpha + sent * (8 * network.beta + own.adding) + n * own.copying


def efficiency(work: Work, nodes: int, network: Network, own: Own, batch: int | None = None) -> float:
    """Return T(1) / (P T(P)) for a batch, or for one that grows with the ranks, where T(1) is of a rank's samples."""
    adding = reducing(work.n, nodes, network, own)
    if batch is None:
        alone = work.fixed + work.each * work.samples
        return alone / (alone + adding)
    alone, share = work.fixed + work.each * batch, work.each * batch / nodes
    return alone / (nodes * (work.fixed + share + adding))


def works(*_: Any) -> list[list[Any]]:
    """Return name and parameters of some nets, samples of a rank, and of a step on one thread the processor's seconds
    that do not depend on their number, and those of a sample: from a batch of them and half of it, in turn.
    """
    import xpnet as xn

    def image(nin: int, nout: int) -> tuple[Any, ...]:
        return xn.Conv2d(nin, nout, 3, padding=1, bias=False), xn.BatchNorm(nout), xn.ReLU()

    rng, heads = np.random.default_rng(0), (xn.Flatten(), xn.Linear(49 * 128, 10))
    blocks = [xn.TransformerBlock(128, 4, causal=True) for _ in range(4)]
    flat, images = (rng.random((1024, *shape), dtype=np.float32) for shape in ((784,), (28, 28, 1)))
    text, labels = rng.integers(0, 96, (64, 129)), rng.integers(0, 10, 1024)
    pools = xn.MaxPool2d(2), xn.MaxPool2d(2)
    convolutions = *image(1, 32), pools[0], *image(32, 64), pools[1], *image(64, 128), *heads
    wide = xn.Linear(784, 1024), xn.ReLU(), xn.Linear(1024, 1024), xn.ReLU(), xn.Linear(1024, 10)
    nets = {
        "784-128-10": (xn.Sequential(xn.Linear(784, 128), xn.ReLU(), xn.Linear(128, 10)), flat, labels, 128),
        "784-1024-1024-10": (xn.Sequential(*wide), flat, labels, 512),
        "convolutions of 32, 64, 128": (xn.Sequential(*convolutions), images, labels, 128),
        "transformer, 4 blocks of 128": (
            xn.Tied(xn.Embedding(96, 128, scale=0.02), xn.Positions(128, 128), *blocks, xn.LayerNorm(128)),
            text[:, :-1],
            text[:, 1:],
            32,
        ),
    }
    found = []
    for name, (net, x, y, samples) in nets.items():
        made = xn.Model(net, xn.cross_entropy, xn.Adam(1e-3), backend="numpy", world="alone")
        times: dict[int, list[float]] = {samples: [], samples // 2: []}
        for _ in range(8):
            for batch, each in times.items():
                rows, start = np.arange(2 * batch).reshape(2, batch).astype(np.int32), time.process_time()
                made.step.many(made.state, (x, y.astype(np.int32)), rows)
                each.append((time.process_time() - start) / 2)
        whole, half = (statistics.median(each[1:]) for each in times.values())
        found.append([name, net.size, samples, max(0.0, 2 * half - whole), 2 * (whole - half) / samples])
    return found


def paper(works: list[list[Any]], libraries: dict[str, Any]) -> list[str]:
    """Return the table of the model of cost, with what a rank does itself as measured under the first library."""
    found = next(iter(libraries.values()))
    n = max(map(int, found["sums"]))
    own = Own(*(found[way][0] / 1e6 / n for way in ("adding", "copying")))
    lines = [f"| net, its parameters | network | batch | {' | '.join(map(str, RANKS))} |"]
    lines += ["| --- | --- | --: |" + " --: |" * len(RANKS)]
    for work in (Work(*each) for each in works):
        for network in NETWORKS:
            for batch in (None, 8 * work.samples):
                row = " | ".join(f"{efficiency(work, count, network, own, batch):.0%}" for count in RANKS)
                said = f"{work.samples} a rank" if batch is None else str(batch)
                lines.append(f"| {work.name}, {work.n:,} | {network.name} | {said} | {row} |")
    return lines
