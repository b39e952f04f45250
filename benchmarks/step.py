"""Where the time of a step goes: `python -m benchmarks.step`, the own time of every part, which add up to the step.

Layers, seams and the loop's own functions are timed from within a running `fit`, each less the parts that it calls.
Timing costs about a microsecond a call, so what was watched is slower than what was not: both are given.
"""

import argparse
import functools
from collections import Counter
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

import numpy as np

import xpnet as xn
from benchmarks.cpu import sizes
from benchmarks.peers.xpnet_nets import dense
from benchmarks.settings import Settings
from xpnet import layers
from xpnet.layers.fused import Chain
from xpnet.training.step import Step

LAYERS = (layers.Linear, layers.ReLU, layers.Scale, layers.Flatten, Chain, layers.Sequential)
PARTS = ("many", "one", "gradient", "batch", "update")


class Clock:
    """Adds up own times by name: the time of a part less that of the parts it calls."""

    def __init__(self) -> None:
        self.own: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.inner = [0]

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, timed under a name."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            start = perf_counter_ns()
            self.inner.append(0)
            try:
                return function(*args, **kwargs)
            finally:
                took = perf_counter_ns() - start
                self.own[name] += took - self.inner.pop()
                self.calls[name] += 1
                self.inner[-1] += took

        return call

    def watch(self, backend: Any) -> None:
        """Time the seams of a backend, the layers and the step from now on."""
        for layer in LAYERS:
            layer.forward = self._both(layer.__name__, layer.forward)  # type: ignore[method-assign]
        layers.Layer._admit = self.timed("x admitted", layers.Layer._admit)  # type: ignore[method-assign]
        for part in PARTS:
            setattr(Step, part, self.timed(f"step: {part}", getattr(Step, part)))
        dense, native, mapped = backend.dense, backend.native, backend.map
        for one in ("forward", "gradients", "back"):
            setattr(dense, one, self.timed(f"dense: {one}", getattr(dense, one)))
        backend.matmul = self.timed("product", backend.matmul)
        backend.native = lambda function: self.timed(function.__name__, native(function))
        backend.map = lambda rule: self.timed(rule.__name__, mapped(rule))

    def _both(self, name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        timed = self.timed(f"{name}, forward", forward)

        @functools.wraps(forward)
        def call(*args: Any) -> Any:
            y, pullback = timed(*args)
            return y, self.timed(f"{name}, backward", pullback)

        return call


def main() -> None:
    """Train twice, unwatched and watched, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--net", type=sizes, default="784-128-10", metavar="784-128-10")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--samples", type=int, default=60000)
    parser.add_argument("--epochs", type=int, default=9)
    args = parser.parse_args()
    task = Settings(args.net, args.batch, samples=args.samples)
    try:
        backend, rng = xn.backend(args.backend), np.random.default_rng(0)
    except xn.BackendError as error:
        parser.error(str(error))
    if not backend.eager:
        parser.error(f"{backend.name} makes one program of a step, whose parts cannot be timed from outside")
    x, y = rng.integers(0, 256, (args.samples, task.sizes[0]), np.uint8), rng.integers(0, task.sizes[-1], args.samples)
    model = xn.Model(dense(task.sizes), xn.cross_entropy, xn.Adam(), backend=backend)

    def seconds() -> float:
        return float(np.median(model.fit(x, y, args.epochs, args.batch, progress=False)["seconds"]))

    model.fit(x, y, 1, args.batch, progress=False)
    plain, clock = seconds(), Clock()
    clock.watch(backend)
    model = xn.Model(dense(task.sizes), xn.cross_entropy, xn.Adam(), backend=backend)
    model.fit(x, y, 1, args.batch, progress=False)
    clock.own.clear()
    clock.calls.clear()
    watched, steps = seconds(), args.epochs * task.steps
    print(f"| {task.net}, batch {task.batch}, {backend.name} | calls a step | µs a step |\n| --- | --: | --: |")
    for name, spent in clock.own.most_common():
        print(f"| {name} | {clock.calls[name] / steps:.2f} | {spent / steps / 1e3:.1f} |")
    print(f"| together | | {sum(clock.own.values()) / steps / 1e3:.1f} |")
    print(f"| median, watched | | {watched / task.steps * 1e6:.1f} |\n| unwatched | | {plain / task.steps * 1e6:.1f} |")


if __name__ == "__main__":
    main()
