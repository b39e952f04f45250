"""From raw times to figures: medians, spreads, ratios in the same run, slopes."""

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

Case = dict[str, Any]


def title(case: dict[str, Any]) -> str:
    """Return what was trained, in a few words."""
    rule = {"adam": "Adam", "momentum": "SGD with momentum"}[case["optimizer"]]
    samples = "" if case["samples"] == 60000 else f", {case['samples']} samples"
    return f"{case['net']}, batch {case['batch']}, {rule}{samples}{suffix(case)}"


def precision(case: dict[str, Any]) -> str:
    """Return to what products were rounded; runs from before there were three have `tf32`, yes or no."""
    found: str = case.get("precision") or ("tf32" if case.get("tf32") else "float32")
    return found


def goal_of(results: dict[str, Any]) -> str:
    """Return the accuracy that `start` trained to; runs from before it was written down had one."""
    return f"{100 * results.get('goal', 0.975):g} %"


def suffix(case: dict[str, Any]) -> str:
    """Return the precision as the last words of a title, nothing for the usual one."""
    return {"float32": "", "tf32": ", TF32", "bfloat16": ", bfloat16"}[precision(case)]


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Return the least and the greatest."""
    return min(values), max(values)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return how long ours takes in terms of theirs: the median over the rounds, each divided by its own neighbour."""
    return median(a / b for a, b in zip(ours, theirs, strict=False))


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return k of y ∝ xᵏ by least squares on the logarithms; NaN if there is no such line."""
    logs = [(math.log(x), math.log(y)) for x, y in points if x > 0 and y > 0]
    if len(logs) < 2 or len({x for x, _ in logs}) < 2:
        return math.nan
    mx, my = (sum(column) / len(logs) for column in zip(*logs, strict=True))
    return sum((x - mx) * (y - my) for x, y in logs) / sum((x - mx) ** 2 for x, _ in logs)


def kind(name: str) -> str:
    """Return `xpnet`, `floor` or `peer`, and `tuned` for what is not as it comes."""
    if name.endswith("avx512"):
        return "tuned"
    head = name.partition("-")[0]
    return head if head in ("xpnet", "floor") else "peer"


def seconds(case: Case, name: str) -> list[float]:
    """Return a contender's steady epochs, nothing if it did not take part."""
    found: list[float] = case["contenders"].get(name, {}).get("seconds", [])
    return found


def fastest(case: Case, names: Sequence[str]) -> str | None:
    """Return who of these has the smallest median."""
    present = [name for name in names if seconds(case, name)]
    return min(present, key=lambda name: median(seconds(case, name)), default=None)


def of_kind(case: Case, wanted: str) -> list[str]:
    """Return the contenders of one kind."""
    return [name for name in case["contenders"] if kind(name) == wanted]


def pytorch(case: Case) -> str | None:
    """Return PyTorch, flushed or not, whichever is faster: the peer that the others are compared with."""
    return fastest(case, ("torch-flush", "torch"))


def against(case: Case, ours: str | None, theirs: str | None) -> float | None:
    """Return the ratio of two contenders of a case, None if one is missing."""
    if ours is None or theirs is None or not seconds(case, ours) or not seconds(case, theirs):
        return None
    return ratio(seconds(case, ours), seconds(case, theirs))


def suspicious(case: Case) -> list[str]:
    """Return whose training loss is far from the others' after the same number of epochs: not the same training.

    Of the convolutional net, whose loss comes so near to 0 that the last one is mostly chance, it is their mean.
    """
    losses = {name: result["losses"] for name, result in case["contenders"].items() if kind(name) != "floor"}
    count = min(map(len, losses.values()), default=0)
    if not count:
        return []
    first = 0 if case["net"] == "cnn" else count - 1
    told = {name: sum(loss[first:count]) / (count - first) for name, loss in losses.items()}
    middle = median(told.values())
    return [name for name, loss in told.items() if not middle / 1.5 <= loss <= middle * 1.5]


def memory(case: Case, name: str) -> float | None:
    """Return the peak of memory above the imports, in terms of what the task must hold."""
    found, expected = case["contenders"].get(name, {}).get("memory"), case.get("expected_bytes")
    return (found["peak"] - found["baseline"]) / expected if found and expected else None


def microseconds(case: Case, name: str) -> float | None:
    """Return the microseconds of a step, None if a contender did not take part."""
    steps, times = math.ceil(case.get("samples", 0) / case.get("batch", 1)), seconds(case, name)
    return 1e6 * median(times) / steps if times else None


def figures(case: Case, name: str) -> tuple[float | None, float | None]:
    """Return nodes of a step's graph, and the share of an epoch in which the device was at work; None: not known."""
    found = case["contenders"].get(name, {}).get("figures") or {}
    busy = found.get("busy")
    return found.get("nodes"), busy / median(seconds(case, name)) if busy else None


def growth_slopes(points: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Return the slopes of epoch time and of memory."""
    return (
        slope([(p["x"], median(p["seconds"])) for p in points]),
        slope([(p["x"], p["bytes"]) for p in points]),
    )
