"""`python -m benchmarks gpu`: xpnet and its peers on one GPU, the data on the device."""

from argparse import Namespace
from collections.abc import Callable
from typing import Any

from benchmarks import harness, measures
from benchmarks.cpu import BUDGET
from benchmarks.harness import Bench
from benchmarks.settings import Settings

NETS = (((784, 128, 10), 128), ((784, 1024, 1024, 10), 1024), ((784, 4096, 4096, 10), 8192))
PARTS = ("epochs", "start", "imports")
STARTERS = ("xpnet-compiled", "torch", "jax-scan")


def environment(tf32: bool) -> dict[str, str]:
    """Return what makes every library multiply alike, and leaves memory to the others."""
    exact = {"NVIDIA_TF32_OVERRIDE": "0"}
    return {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **({"CUPY_TF32": "1"} if tf32 else exact)}


def measure(bench: Bench, args: Namespace, results: dict[str, Any], save: Callable[[], None]) -> None:
    """Fill in the results: every net in float32 and in TF32, then the whole process."""
    samples, repeats = (6000 if args.quick else 60000), args.repeats or (2 if args.quick else 9)
    usual = dict(bench.environment)
    for tf32 in (False, True) if "epochs" in args.parts else ():
        bench.environment = usual | environment(tf32)
        for sizes, batch in NETS[:1] if args.quick else NETS:
            task = Settings(sizes, batch, samples=samples, device=args.device, tf32=tf32)
            if args.nets and task.net not in args.nets:
                continue
            bench.log(f"epochs: {task.net}, batch {batch}, {'TF32' if tf32 else 'float32'}")
            results.setdefault("epochs", []).append(harness.epochs(bench, task, repeats, BUDGET, min(5, repeats)))
            save()
    bench.environment = usual | environment(False)
    if "start" in args.parts:
        bench.log("start: process start to 97.5 %")
        task = Settings(device=args.device)
        seeds = args.seeds or (1 if args.quick else 5)
        results["start"] = harness.start_to_goal(bench, task, seeds, args.contenders or STARTERS)
        save()
    if "imports" in args.parts:
        results["imports"] = measures.import_times(bench, min(repeats, 5))
        save()
