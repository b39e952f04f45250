"""Prediction beside PyTorch eager: `python -m benchmarks.predict`, of one image and of 10,000, raw bytes to scores.

Each in a process of its own, with its own threads, by turns; medians of the rounds, and what they are to each other.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import cache
from multiprocessing import get_context
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

SIZES = (784, 128, 10)
CALLS = {1: 400, 10_000: 3}
"""Calls of a round, by the number of images."""


@cache
def images() -> np.ndarray:
    """Return 10,000 images of random bytes."""
    return np.random.default_rng(0).integers(0, 256, (10_000, SIZES[0]), np.uint8)


@cache
def contender(name: str) -> Any:
    """Return what predicts: PyTorch, or xpnet on a backend of that name."""
    if name == "PyTorch eager":
        import torch
        from torch.nn import Linear, ReLU, Sequential

        net = Sequential(Linear(*SIZES[:2]), ReLU(), Linear(*SIZES[1:]))

        @torch.inference_mode()
        def predict(some: np.ndarray) -> np.ndarray:
            return net(torch.from_numpy(some).to(torch.float32) * (1 / 255)).numpy()

        return predict
    import xpnet as xn
    from benchmarks.peers.xpnet_nets import dense

    model = xn.Model(dense(SIZES), xn.cross_entropy, xn.Adam(), backend=name)
    model.fit(images(), np.zeros(10_000, np.int32), 1, progress=False)
    return model.predict


def seconds(name: str, count: int) -> float:
    """Return how long a prediction of so many images takes."""
    predict, some = contender(name), images()[:count]
    predict(some)
    start = perf_counter()
    for _ in range(CALLS[count]):
        predict(some)
    return (perf_counter() - start) / CALLS[count]


def main() -> None:
    """Predict, and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.predict", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--rounds", type=int, default=21)
    args = parser.parse_args()
    names = args.backend, "PyTorch eager"
    print(f"| images | xpnet on {args.backend}, µs | {names[1]}, µs | ratio |\n| --: | --: | --: | --: |")
    with ExitStack() as stack:
        pools = [stack.enter_context(ProcessPoolExecutor(1, get_context("spawn"))) for _ in names]

        def turn(count: int) -> list[float]:
            return [pool.submit(seconds, name, count).result() for pool, name in zip(pools, names, strict=True)]

        for count in CALLS:
            turn(count)
            ours, theirs = (
                median(column) * 1e6 for column in zip(*(turn(count) for _ in range(args.rounds)), strict=True)
            )
            print(f"| {count:,} | {ours:.1f} | {theirs:.1f} | {ours / theirs:.2f} |")


if __name__ == "__main__":
    main()
