"""`python -m benchmarks cpu`: xpnet and its peers on this machine's processor."""

import re
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

from benchmarks import harness, measures
from benchmarks.harness import Bench
from benchmarks.settings import Settings
from xpnet.backends.openblas import advice

NETS = ("784-32-10", "784-128-10", "784-1024-1024-10")
BATCHES = (32, 128, 1024)
OPTIMIZERS = ("adam", "momentum")
USUAL = [("784-128-10", 128, "adam"), ("784-32-10", 128, "adam"), ("784-1024-1024-10", 128, "adam")]
USUAL += [("784-128-10", 1024, "adam"), ("784-128-10", 128, "momentum")]
PARTS = ("epochs", "start", "imports", "install", "growth", "busy")
LARGE, SHARE = 1_000_000, 3
"""From so many parameters on an epoch is a third of the samples: no step changes, and the run ends sooner."""
BUDGET = 2.5
"""Seconds of steady epochs, after which a contender has been measured enough."""
GOAL = 0.975
"""The test accuracy that `start` trains to."""

STARTERS = (
    "xpnet-numpy",
    "xpnet-fast",
    "xpnet-jax",
    "torch-flush",
    "jax-scan",
    "jax-step",
    "numpy",
    "sklearn",
    "keras-jax",
)
GROWERS = ("xpnet-numpy", "xpnet-fast", "torch-flush")
BUSY = ("xpnet-numpy", "xpnet-fast", "torch-flush")


def sizes(text: str) -> tuple[int, ...]:
    """Read a net such as 784-128-10."""
    if not re.fullmatch(r"[1-9]\d*(-[1-9]\d*)+", text):
        raise ArgumentTypeError(f"must be sizes such as 784-128-10, got {text}")
    return tuple(map(int, text.split("-")))


def tasks(nets: list[str], batches: list[int], optimizers: list[str], full: bool, samples: int) -> list[Settings]:
    """Return the cases: the usual ones, or every combination of what was asked for."""
    wanted: Any = USUAL
    if full:
        wanted = product(nets or NETS, batches or BATCHES, optimizers or OPTIMIZERS)
    elif nets or batches or optimizers:
        wanted = product(nets or NETS, batches or [128], optimizers or ["adam"])
    found = []
    for net, batch, optimizer in wanted:
        task = Settings(sizes(net), batch, optimizer, samples)
        found.append(replace(task, samples=samples // SHARE) if task.parameters > LARGE else task)
    return found


def measure(bench: Bench, args: Namespace, results: dict[str, Any], save: Callable[[], None]) -> None:
    """Fill in the results, part by part."""
    for contender in (c for c in bench.present() if c.kind == "tuned" and not advice()):
        bench.drop(contender, "OpenBLAS uses all that this processor has")
    samples = 6000 if args.quick else 60000
    repeats = args.repeats or (2 if args.quick else 7)
    nets = args.nets or (["784-32-10"] if args.quick else [])
    small = Settings(samples=samples)
    chosen = args.contenders
    if "epochs" in args.parts:
        for task in tasks(nets, args.batches, args.optimizers, args.full, samples):
            bench.log(f"epochs: {task.net}, batch {task.batch}, {task.optimizer}")
            budget = 0.0 if args.quick else BUDGET
            results.setdefault("epochs", []).append(harness.epochs(bench, task, repeats, budget, min(3, repeats)))
            save()
    if "start" in args.parts:
        bench.log("start: process start to 97.5 %")
        seeds = args.seeds or (1 if args.quick else 5)
        results["goal"] = GOAL
        results["start"] = harness.start_to_goal(bench, Settings(), GOAL, seeds, chosen or STARTERS)
        save()
    if "imports" in args.parts:
        bench.log("imports, install")
        results["imports"] = measures.import_times(bench, min(repeats, 5))
    if "install" in args.parts:
        results["install"] = measures.install_sizes(bench)
        save()
    if "growth" in args.parts:
        bench.log("growth: samples, batch, width")
        share = 0.1 if args.quick else 1.0
        results["growth"] = measures.growth(bench, chosen or GROWERS, min(repeats, 3), share)
        save()
    if "busy" in args.parts:
        bench.log("busy: another process keeps one core busy")
        results["busy"] = measures.busy(bench, small, chosen or BUSY, min(repeats, 5))
        save()
