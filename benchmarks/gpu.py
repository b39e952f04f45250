"""`python -m benchmarks gpu`: xpnet and its peers on one GPU, the data on the device."""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from benchmarks import accuracy, harness, measures
from benchmarks.cpu import BUDGET
from benchmarks.harness import Bench
from benchmarks.settings import PRECISIONS, Settings

TASKS = (
    Settings((784, 128, 10), 128),
    Settings((784, 1024, 1024, 10), 1024),
    Settings((784, 4096, 4096, 10), 8192),
    Settings(batch=128, kind="cnn", samples=12800),
    Settings(batch=1024, kind="cnn", samples=51200),
    Settings(batch=32, kind="transformer", samples=3200),
)
"""Of the last three an epoch is a part of the data: 100 steps, 50 and 100."""
PARTS = ("epochs", "start", "accuracy", "imports")
STARTERS = ("xpnet-compiled", "torch", "jax-scan")
GOAL = 0.98
"""The test accuracy that `start` trains to."""


def environment(precision: str) -> dict[str, str]:
    """Return what makes every library multiply alike, and leaves memory to the others."""
    exact = {"NVIDIA_TF32_OVERRIDE": "0"}
    return {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **(exact if precision == "float32" else {"CUPY_TF32": "1"})}


def tasks(args: Namespace) -> list[Settings]:
    """Return what is trained: all, or of the nets, batches and precisions that were asked for."""
    found = []
    for precision in args.precisions or PRECISIONS:
        for task in TASKS[:1] if args.quick and not args.nets else TASKS:
            if task.net in (args.nets or [task.net]) and task.batch in (args.batches or [task.batch]):
                samples = task.samples // 10 if args.quick else task.samples
                found.append(replace(task, samples=samples, device=args.device, precision=precision))
    return found


def measure(bench: Bench, args: Namespace, results: dict[str, Any], save: Callable[[], None]) -> None:
    """Fill in the results: every net in every precision, then the whole process."""
    repeats = args.repeats or (2 if args.quick else 9)
    usual = dict(bench.environment)
    for task in tasks(args) if "epochs" in args.parts else ():
        bench.environment = usual | environment(task.precision)
        bench.log(f"epochs: {task.net}, batch {task.batch}, {task.precision}")
        names = [c.name for c in bench.contenders if task.kind == "dense" or c.kind != "floor"]
        how: dict[str, Any] = {"names": names, "together": True, "figured": ["xpnet-compiled"]}
        results.setdefault("epochs", []).append(harness.epochs(bench, task, repeats, BUDGET, min(5, repeats), **how))
        save()
    bench.environment = usual | environment("float32")
    seeds = args.seeds or (1 if args.quick else 5)
    if "start" in args.parts:
        bench.log(f"start: process start to {GOAL:.1%}")
        results["goal"] = GOAL
        task = Settings(device=args.device)
        results["start"] = harness.start_to_goal(bench, task, GOAL, seeds, args.contenders or STARTERS)
        save()
    if "accuracy" in args.parts:
        bench.log("accuracy: the examples on MNIST")
        results["accuracy"] = accuracy.measure(bench, "cupy" if args.device == "cuda" else "numpy", seeds)
        save()
    if "imports" in args.parts:
        results["imports"] = measures.import_times(bench, min(repeats, 5))
        save()
