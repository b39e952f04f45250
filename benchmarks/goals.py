"""The goals, each a figure of one run: `goals(results)` returns what was reached beside what was aimed at."""

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from benchmarks.settings import PRECISIONS
from benchmarks.summary import (
    against,
    fastest,
    figures,
    goal_of,
    growth_slopes,
    kind,
    memory,
    microseconds,
    of_kind,
    precision,
    pytorch,
    suffix,
)

Goal = tuple[str, float | None, float]
SMALLEST, SMALL, LARGE = "784-32-10", "784-128-10", "784-1024-1024-10"


def goals(results: dict[str, Any]) -> list[Goal]:
    """Return (what, reached, limit) for every goal that this kind of run can tell; reached is None if not measured."""
    if results["kind"] == "gpu":
        return list(gpu_goals(results))
    return [*epoch_goals(results), *other_goals(results)]


def find(results: dict[str, Any], net: str, batch: int = 128, products: str = "float32") -> dict[str, Any]:
    """Return the case of a net with Adam, an empty one if it was not measured."""
    wanted = (net, batch, "adam", products)
    for case in results.get("epochs", []):
        if (case["net"], case["batch"], case["optimizer"], precision(case)) == wanted:
            return case
    return {"contenders": {}}


def epoch_goals(results: dict[str, Any]) -> Iterator[Goal]:
    """Epoch times on a CPU."""
    for net in (SMALLEST, SMALL, LARGE):
        case = find(results, net)
        best, peer = (fastest(case, of_kind(case, which)) for which in ("xpnet", "peer"))
        yield f"{net}: the best xpnet backend against the fastest peer", against(case, best, peer), 1.0
    for net, limit in ((SMALLEST, 0.85), (SMALL, 1.0)):
        case = find(results, net)
        yield f"{net}: numpy against PyTorch", against(case, "xpnet-numpy", pytorch(case)), limit
    case = find(results, SMALL)
    yield f"{SMALL}: numpy + fast against PyTorch", against(case, "xpnet-fast", pytorch(case)), 0.7
    yield f"{SMALL}: numpy + fast against JAX scan", against(case, "xpnet-fast", "jax-scan"), 1.4
    yield f"{SMALL}: xpnet on JAX against JAX scan", against(case, "xpnet-jax", "jax-scan"), 1.05
    best = fastest(case, of_kind(case, "xpnet"))
    yield f"{SMALL}: the best xpnet backend against scikit-learn", against(case, best, "sklearn"), 0.45
    yield f"{SMALL}: peak memory of numpy over data + 4 θ + activations", memory(case, "xpnet-numpy"), 1.3
    case = find(results, LARGE)
    yield f"{LARGE}: numpy + fast against PyTorch", against(case, "xpnet-fast", pytorch(case)), 1.0
    yield f"{LARGE}: numpy + fast against the products alone", against(case, "xpnet-fast", floor(case)), 1.35
    yield f"{LARGE}: xpnet on JAX against JAX scan", against(case, "xpnet-jax", "jax-scan"), 0.95


def floor(case: dict[str, Any]) -> str | None:
    """Return the faster of the floors."""
    return fastest(case, of_kind(case, "floor"))


def other_goals(results: dict[str, Any]) -> Iterator[Goal]:
    """A busy machine, the whole process, growth."""
    for name in ("xpnet-numpy", "xpnet-fast"):
        times = results.get("busy", {}).get(name)
        reached = median(times["busy"]) / median(times["quiet"]) if times else None
        yield f"{SMALL}: {name.replace('xpnet-', '')}, one core busy against quiet", reached, 1.6
    yield f"process start to {goal_of(results)}: the best xpnet backend against the fastest peer", start(results), 0.8
    for name, axes in results.get("growth", {}).items():
        for what in ("samples", "width"):
            if name.startswith("xpnet") and what in axes:
                against_what = "parameters" if what == "width" else what
                yield f"{name}: epoch time over {against_what}, slope", growth_slopes(axes[what])[0], 1.05


def start(results: dict[str, Any], theirs: Sequence[str] = ()) -> float | None:
    """Return the seconds from process start to the goal of the best xpnet over those of the fastest peer."""
    medians = {name: median(one["seconds"]) for name, one in results.get("start", {}).items()}
    ours = [value for name, value in medians.items() if kind(name) == "xpnet"]
    peers = [value for name, value in medians.items() if kind(name) == "peer" and (not theirs or name in theirs)]
    return min(ours) / min(peers) if ours and peers else None


def gpu_goals(results: dict[str, Any]) -> Iterator[Goal]:
    """Epoch times on a GPU, in each precision that was measured; the whole process."""
    ours = "xpnet-compiled"
    measured = {precision(case) for case in results.get("epochs", [])}
    for one in [one for one in PRECISIONS if one in measured] or ["float32"]:
        yield from small_goals(find(results, SMALL, products=one), suffix({"precision": one}))
        large, name = find(results, LARGE, 1024, one), f"{LARGE}, batch 1024{suffix({'precision': one})}: compiled"
        yield f"{name} against PyTorch eager", against(large, ours, "torch"), 0.7
        yield f"{name} against the fastest peer", against(large, ours, fastest(large, of_kind(large, "peer"))), 1.0
    huge = find(results, "784-4096-4096-10", 8192, "tf32")
    yield "784-4096-4096-10, batch 8192, TF32: compiled against the products alone", against(huge, ours, "floor"), 1.15
    for batch in (128, 1024):
        cnn = find(results, "cnn", batch, "tf32")
        yield f"cnn, batch {batch}, TF32: compiled against PyTorch eager, cuDNN", against(cnn, ours, "torch"), 1.0
    goal, one = goal_of(results), results.get("start", {}).get(ours)
    yield f"seconds of training to {goal}: compiled", median(one["training"]) if one else None, 0.3
    yield f"seconds from process start to {goal}: compiled", median(one["seconds"]) if one else None, 4.0
    yield f"process start to {goal}: xpnet against PyTorch", start(results, ("torch",)), 0.5


def small_goals(case: dict[str, Any], how: str) -> Iterator[Goal]:
    """Those of the small net, of which it is seen how long what is around the products takes."""
    ours, name = "xpnet-compiled", f"{SMALL}, batch 128{how}"
    yield f"{name}: compiled against PyTorch eager", against(case, ours, "torch"), 0.15
    fast = fastest(case, ("torch-compile", "jax-scan"))
    yield f"{name}: compiled against torch.compile and JAX scan", against(case, ours, fast), 0.8
    nodes, share = figures(case, ours)
    yield f"{name}: nodes of a step's graph", nodes, 12
    yield f"{name}: microseconds of a step", microseconds(case, ours), 35
    yield f"{name}: share of an epoch in which the device waits", None if share is None else 1 - share, 0.05
    yield f"{name}: eager against PyTorch eager", against(case, "xpnet-eager", "torch"), 1.0
