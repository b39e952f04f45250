"""What a GPU did in an epoch: nodes of a step's graph, and the seconds in which it was at work."""

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Any


def figures(epoch: Callable[[], Any]) -> dict[str, Any]:
    """Return `nodes`, of the graph that a contender made for a step, and `busy`, seconds an epoch; None: not known."""
    nodes = getattr(epoch, "nodes", lambda: None)
    return {"nodes": nodes(), "busy": busy(epoch)}


def busy(epoch: Callable[[], Any]) -> float | None:
    """Return the seconds of an epoch in which a kernel or a copy ran, those within graphs as well.

    PyTorch's profiler asks CUPTI for them, whoever launches them in this process. An epoch that is watched takes longer
    between the kernels, so its own wall clock is of no use: compare with epochs that are not. None where PyTorch or a
    GPU is missing, or nothing was seen.
    """
    if find_spec("torch") is None:
        return None
    import torch
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    if not torch.cuda.is_available():
        return None
    torch.cuda.init()
    with profile(activities=[ProfilerActivity.CUDA]) as watched:
        epoch()
        torch.cuda.synchronize()
    spans = [event.time_range for event in watched.events() if event.device_type == DeviceType.CUDA]
    return covered((span.start, span.end) for span in spans) * 1e-6 or None


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return how much of a line these pieces cover; where they lie on each other it counts once."""
    total, last = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, last))
        last = max(last, end)
    return total
