"""What the ranks of a measurement do: `mpiexec -n 2 python -m benchmarks.ranks PART`; the first prints the figures.

Contenders take turns of some steps, and a turn notes its seconds, the processor time of all ranks, and how much of the
machine's other programs did meanwhile: turns count where that was next to nothing.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from itertools import count, pairwise
from typing import Any, NamedTuple

import numpy as np

from benchmarks.scaling import works

LAYERS, BATCH, STEPS = (784, 1024, 1024, 10), 1024, 2
SIZES = (1, 1000, 101_770, 1_863_690)
"""Float32 numbers that are added up: the last are the parameters of nets of 784-128-10 and 784-1024-1024-10."""
MESSAGES = (8, 1 << 10, 1 << 16, 1 << 20, 1 << 23)
"""Bytes."""
CALLS = 300
PAUSE = 0.05
"""Seconds between turns, in which threads of the last one stop spinning."""
GLANCE, PATIENCE, LEAST = 0.2, 2.0, 5
"""Seconds for which other programs are to rest before a cycle of turns, and for which that is waited for; cycles that
are done even if the time is over.
"""
BUCKETS = (1, 4, 25)
"""Megabytes of gradients that DistributedDataParallel sends at a time."""
QUIET = 0.06
"""Of a core, what other programs may use in a turn that counts."""

Turn = Callable[[], Any]


class Contender(NamedTuple):
    """Some steps of training, done by all ranks, or by the first while others sleep."""

    turn: Turn
    alone: bool


# Training


def data() -> tuple[np.ndarray, np.ndarray]:
    """Return samples and labels of some batches."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((STEPS * BATCH, LAYERS[0]), dtype=np.float32)
    return x, rng.integers(0, LAYERS[-1], len(x)).astype(np.int32)


def order(batch: int) -> np.ndarray:
    """Return rows of the samples in a random order, a batch a step."""
    return np.random.default_rng(1).permutation(STEPS * BATCH)[: STEPS * batch].reshape(STEPS, batch).astype(np.int32)


def model(**how: Any) -> Any:
    """Return xpnet's model."""
    import xpnet as xn

    layers: list[Any] = []
    for nin, nout in pairwise(LAYERS):
        layers += [xn.Linear(nin, nout, initializer="he"), xn.ReLU()]
    return xn.Model(xn.Sequential(*layers[:-1]), xn.cross_entropy, xn.Adam(1e-3), backend="numpy", **how)


def xpnet(batch: int = BATCH, **how: Any) -> Turn:
    """Return steps of xpnet; a turn returns their losses."""
    made = model(**how)
    state, block = [made.state], order(batch)
    parts = data()

    def turn() -> Any:
        outcome = made.step.many(state[0], parts, block)
        state[0] = outcome.state
        return outcome.values[0]

    return turn


def threaded(turn: Turn, number: int) -> Turn:
    """Return the same turn with so many threads of BLAS."""
    from threadpoolctl import threadpool_limits

    def more() -> Any:
        with threadpool_limits(number, user_api="blas"):
            return turn()

    return more


def ddp(comm: Any, megabytes: float, fused: bool) -> Turn:
    """Return the same steps of PyTorch's DistributedDataParallel on gloo, each rank's data being tensors; Adam in one
    fused loop, or one operation for all parameters (`foreach`). θ begins as xpnet's does.
    """
    import torch
    from torch.nn.parallel import DistributedDataParallel

    made, modules = model(world="alone"), []
    for k, (nin, nout) in enumerate(pairwise(LAYERS)):
        modules += [torch.nn.Linear(nin, nout), torch.nn.ReLU()]
        windows = made.net.windows(made.theta)
        with torch.no_grad():
            modules[-2].weight.copy_(torch.from_numpy(np.array(windows[f"{2 * k}.weight"].T)))
            modules[-2].bias.copy_(torch.from_numpy(np.array(windows[f"{2 * k}.bias"])))
    settings = {"bucket_cap_mb": megabytes, "gradient_as_bucket_view": True, "static_graph": True}
    net = DistributedDataParallel(torch.nn.Sequential(*modules[:-1]), **settings)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, fused=fused, foreach=not fused)
    x, y = map(torch.from_numpy, data())
    y = y.long()
    low, high = BATCH * comm.rank // comm.size, BATCH * (comm.rank + 1) // comm.size
    blocks = torch.from_numpy(order(BATCH)[:, low:high].copy()).long()

    def turn() -> Any:
        losses = []
        for index in blocks:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(x[index]), y[index])
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return np.asarray([float(loss) for loss in losses])

    return turn


def joined(comm: Any) -> bool:
    """Join the ranks by gloo too; whether PyTorch is here."""
    try:
        import torch
        import torch.distributed as distributed
    except ImportError:
        return False
    torch.set_num_threads(1)
    path = comm.bcast(f"/tmp/xpnet-benchmark-{os.getpid()}")
    distributed.init_process_group("gloo", init_method=f"file://{path}", rank=comm.rank, world_size=comm.size)
    return True


def busy() -> float:
    """Return the seconds that the machine's cores have worked, all programs together."""
    with open("/proc/stat", encoding="utf-8") as file:
        user, nice, system, _, _, *other = map(int, file.readline().split()[1:9])
    return (user + nice + system + sum(other)) / os.sysconf("SC_CLK_TCK")


def asleep(comm: Any) -> None:
    """Wait for all ranks without keeping a core from the others."""
    request = comm.Ibarrier()
    while not request.Test():
        time.sleep(0.002)


def timed(comm: Any, contenders: dict[str, Contender], minutes: float, enough: int) -> dict[str, list[list[float]]]:
    """Let contenders take turns until each had `enough` quiet ones, or the time is over.

    Return of each turn the seconds of a step, the processor's, and of a core what other programs took.
    """
    found: dict[str, list[list[float]]] = {name: [] for name in contenders}
    end, names = time.monotonic() + 60 * minutes, list(contenders)
    for cycle in count():
        rest(comm)
        for name in names[cycle % len(names) :] + names[: cycle % len(names)]:
            figures = _turn(comm, contenders[name])
            if cycle:  # the first compiles
                found[name].append(figures)
        quiet = [sum(turn[2] < QUIET for turn in turns) for turns in found.values()]
        if comm.bcast(min(quiet) >= enough or (time.monotonic() > end and cycle >= LEAST)):
            break
    return found


def rest(comm: Any) -> None:
    """Sleep until other programs rest, but not for long."""
    end = time.monotonic() + PATIENCE
    while comm.rank == 0 and time.monotonic() < end:
        worked = busy()
        time.sleep(GLANCE)
        if busy() - worked < QUIET * GLANCE:
            break
    asleep(comm)


def _turn(comm: Any, contender: Contender) -> list[float]:
    asleep(comm)
    time.sleep(PAUSE)
    comm.Barrier()
    worked, start, own = busy(), time.perf_counter(), time.process_time()
    if comm.rank == 0 or not contender.alone:
        contender.turn()
    seconds, used = time.perf_counter() - start, time.process_time() - own
    asleep(comm)
    passed, every = time.perf_counter() - start, comm.allgather((seconds, used, time.process_time() - own))
    others = busy() - worked - sum(one[2] for one in every)
    return [max(one[0] for one in every) / STEPS, max(one[1] for one in every) / STEPS, max(0.0, others / passed)]


def training(comm: Any, minutes: float, enough: int) -> dict[str, Any]:
    """Return the turns of one rank and of two, of shards, and of DistributedDataParallel at its best settings."""
    from xpnet.world.mpi import MPIWorld

    world, messages = MPIWorld(comm), MPIWorld(comm)
    messages.windows = None
    contenders = {"two ranks": Contender(xpnet(world=world), False)}
    contenders["two ranks, by messages"] = Contender(xpnet(world=messages), False)
    contenders["one rank"] = Contender(xpnet(world="alone"), True)
    contenders["one rank, half the batch"] = Contender(xpnet(BATCH // 2, world="alone"), True)
    for shards in (2, 8):
        contenders[f"one rank, {shards} shards"] = Contender(xpnet(world="alone", shards=shards), True)
        contenders[f"two ranks, {shards} shards"] = Contender(xpnet(world=world, shards=shards), False)
    report: dict[str, Any] = {}
    if joined(comm):
        contenders["one rank, two threads"] = Contender(threaded(xpnet(world="alone"), 2), True)
        settings = {
            f"buckets of {size} MB, {'fused' if fused else 'foreach'}": Contender(ddp(comm, size, fused), False)
            for size in BUCKETS
            for fused in (True, False)
        }
        tried = timed(comm, settings, minutes / 4, max(5, enough // 3))
        medians = {name: statistics.median(turn[0] for turn in turns) for name, turns in tried.items()}
        best = comm.bcast(min(medians, key=lambda name: medians[name]))
        report = {"settings of DDP": medians, "best": best, "losses": losses(comm)}
        contenders["DDP"] = settings[best]
    return report | {"turns": timed(comm, contenders, minutes, enough)}


def losses(comm: Any) -> float:
    """Return by how much the losses of the first steps of xpnet and DistributedDataParallel differ, relatively."""
    ours, theirs = xpnet(world="alone"), ddp(comm, BUCKETS[0], True)
    return float(np.max(np.abs(ours() / np.mean(comm.allgather(theirs()), axis=0) - 1)))


# Messages


def reduction(comm: Any, *_: Any) -> dict[str, Any]:
    """Return microseconds, least and median of many, of each way to add up, and of messages from rank to rank."""
    from mpi4py import MPI

    from xpnet.world.mpi import MPIWorld, halving

    world, messages = MPIWorld(comm), MPIWorld(comm)
    messages.windows = None
    name, version = MPI.get_vendor()
    report: dict[str, Any] = {"library": f"{name} {'.'.join(map(str, version))}", "sums": {}}
    for n in reversed(SIZES):
        numbers = np.zeros(n, np.float32)
        ways = {
            "windows": lambda numbers=numbers: world.add([numbers]),
            "messages": lambda numbers=numbers: messages.add([numbers]),
            "Sendrecv tree": lambda numbers=numbers: halving(comm, numbers),
            "Allreduce": lambda numbers=numbers: comm.Allreduce(MPI.IN_PLACE, numbers),
            "meeting": world.meeting.meet,
        }
        report["sums"][n] = calls(comm, ways)
    report["messages"] = {n: calls(comm, {"": ping_pong(comm, n)})[""] for n in MESSAGES}
    one, other = np.zeros(SIZES[-1], np.float32), np.zeros(SIZES[-1], np.float32)
    own = {"adding": lambda: np.add(one, other, out=one), "copying": lambda: np.concatenate([one])}
    return report | calls(comm, own)


def ping_pong(comm: Any, n: int) -> Turn:
    """Return a message of n bytes from the first rank to the second and back."""
    message, other = np.zeros(n, np.uint8), 1 - comm.rank

    def turn() -> None:
        if comm.rank == 0:
            comm.Send(message, other)
            comm.Recv(message, other)
        else:
            comm.Recv(message, other)
            comm.Send(message, other)

    return turn


def calls(comm: Any, ways: dict[str, Turn]) -> dict[str, list[float]]:
    """Call each way in turn, many times over; return the least and the median microseconds of a call."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(CALLS):
        for name, way in ways.items():
            comm.Barrier()
            start = time.perf_counter()
            way()
            times[name].append((time.perf_counter() - start) * 1e6)
    return {name: [min(each), statistics.median(each)] for name, each in times.items()}


PARTS = {"training": training, "reduction": reduction, "works": works}


def main() -> None:
    """Do a part; the first rank prints what was found."""
    from mpi4py import MPI

    from xpnet.backends.host import keep_memory

    keep_memory()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ranks", description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--enough", type=int, default=20)
    args = parser.parse_args()
    found = PARTS[args.part](MPI.COMM_WORLD, args.minutes, args.enough)
    if MPI.COMM_WORLD.rank == 0:
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
