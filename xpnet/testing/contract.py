"""What every layer promises, in one call."""

from typing import Any, NamedTuple

import numpy as np

from xpnet.arrays import Array
from xpnet.backends import Backend
from xpnet.backends import backend as find_backend
from xpnet.layers import Context, Layer
from xpnet.layers.base import Params
from xpnet.parameters import Shape, draw, split
from xpnet.random import generator
from xpnet.testing.compare import assert_close
from xpnet.testing.gradcheck import gradcheck


class Trial(NamedTuple):
    """A layer with arrays to try it on: θ flat and in windows, x, and a dy of the output's shape."""

    layer: Layer
    backend: Backend
    theta: Array
    params: Params
    x: Array
    dy: Array
    context: dict[str, Any]

    def forward(self) -> tuple[Array, Any]:
        """Return the value and the pullback."""
        return self.layer.forward(self.params, self.x, Context(self.backend, **self.context))

    def gradients(self, dy: Array, need_dx: bool = True, out: Params | None = None) -> tuple[Array, Params]:
        """Return dx and the parameters' gradients."""
        pullback = self.forward()[1]
        dx, gradients = pullback(dy, need_dx, (None,) * len(self.params) if out is None else out)
        return dx, tuple(gradients)

    def same(self, actual: Any, expected: Any, what: str, multiple: float = 0.0) -> None:
        """Assert that two tuples of arrays are equal, up to a multiple of eps."""
        assert len(actual) == len(expected), f"{self.layer}: {what} are {len(actual)} arrays, not {len(expected)}"
        for a, e in zip(actual, expected, strict=True):
            assert_close(self.backend, a, e, multiple=multiple, what=f"{self.layer}: {what}")


def check_layer(
    layer: Layer,
    input_shape: Shape,
    *,
    backend: str | Backend | None = None,
    seed: int = 0,
    training: bool = False,
    key: int = 0,
    tolerance: float | None = None,
) -> float:
    """Check a layer's gradient and all that a layer promises; return gradcheck's worst relative error.

    The shape is the one announced, for batches of 0, 1 and N; dtype and device follow the input; no argument is
    modified; two calls give the same bits; the pullback is linear, gives the same gradients without dx and into given
    windows; the door takes θ flat or in windows, and its pullback once. AssertionError names what is broken.
    """
    chosen = find_backend(backend)
    context = {"training": training, "key": key}
    for dtype in ("float32", "float64"):
        for n in dict.fromkeys((0, 1, input_shape[0])):
            trial = _trial(layer, (n, *input_shape[1:]), chosen, dtype, seed, context)
            for check in CHECKS:
                check(trial)
    return gradcheck(layer, input_shape, backend=chosen, seed=seed, training=training, key=key, tolerance=tolerance)


def _trial(layer: Layer, shape: Shape, backend: Backend, dtype: str, seed: int, context: dict[str, Any]) -> Trial:
    rng = generator(seed, "check_layer")
    x = backend.asarray(rng.normal(size=shape), dtype=dtype)
    theta = backend.asarray(draw(layer.layout, seed) + rng.normal(0.0, 0.1, layer.size), dtype=dtype)
    dy = backend.asarray(rng.normal(size=layer.output_shape(shape)), dtype=dtype)
    return Trial(layer, backend, theta, split(backend.xp, theta, layer.layout), x, dy, context)


def check_shapes(t: Trial) -> None:
    """Every array has the shape that was announced, the input's precision, and lies on the input's device."""
    y, _ = t.forward()
    dx, gradients = t.gradients(t.dy)
    assert len(gradients) == len(t.params), f"{t.layer}: {len(gradients)} gradients for {len(t.params)} parameters"
    names = ("output", "dx", *(f"gradient of {w.name}" for w in t.layer.layout))
    for name, array, like in zip(names, (y, dx, *gradients), (t.dy, t.x, *t.params), strict=True):
        what = f"{t.layer}: {name} for input {tuple(t.x.shape)} {t.x.dtype}"
        assert array.shape == like.shape, f"{what} has shape {tuple(array.shape)}, expected {tuple(like.shape)}"
        assert array.dtype == t.x.dtype, f"{what} is {array.dtype}"
        assert t.backend.owns(array), f"{what} lies elsewhere"


def check_arguments(t: Trial) -> None:
    """x, the parameters and dy are as they were. (The first check: a second call may change nothing any more.)"""
    arguments = {"x": t.x, "dy": t.dy, **{w.name: p for w, p in zip(t.layer.layout, t.params, strict=True)}}
    before = {name: np.array(t.backend.asnumpy(array)) for name, array in arguments.items()}
    t.gradients(t.dy)
    for name, array in arguments.items():
        after = t.backend.asnumpy(array)
        assert np.array_equal(after, before[name], equal_nan=True), f"{t.layer} modified its argument {name}"


def check_stateless(t: Trial) -> None:
    """Two calls give the same bits."""
    t.same((t.forward()[0],), (t.forward()[0],), "the output of a second call")
    (dx, gradients), (again, gradients_again) = t.gradients(t.dy), t.gradients(t.dy)
    t.same((again, *gradients_again), (dx, *gradients), "the gradients of a second call")


def check_linear(t: Trial) -> None:
    """The pullback of 2 dy + dy², elementwise, is twice that of dy plus that of dy²."""
    other = t.dy * t.dy
    (dx, gradients), (dx2, gradients2) = t.gradients(t.dy), t.gradients(other)
    expected = tuple(2.0 * a + b for a, b in zip((dx, *gradients), (dx2, *gradients2), strict=True))
    both, together = t.gradients(2.0 * t.dy + other)
    t.same((both, *together), expected, "the pullback is not linear:", multiple=64.0 * max(1, *t.x.shape))


def check_need_dx(t: Trial) -> None:
    """Without need_dx the gradients are the same, and a layer with parameters computes no dx."""
    dx, gradients = t.gradients(t.dy, need_dx=False)
    t.same(gradients, t.gradients(t.dy)[1], "the gradients without need_dx")
    assert dx is None or not t.params, f"{t.layer}: need_dx=False, but a dx was computed"


def check_windows(t: Trial) -> None:
    """Given windows to write into, the pullback returns the same gradients, there or elsewhere."""
    outs, finish = t.backend.join(t.theta, t.layer.layout)
    expected = t.gradients(t.dy)[1]
    gradients = t.gradients(t.dy, out=outs)[1]
    multiple = 64.0 * max(1, *t.x.shape)
    t.same(gradients, expected, "the gradients returned for given windows", multiple)
    vector = split(t.backend.xp, finish(gradients), t.layer.layout)
    t.same(vector, expected, "the gradients in given windows", multiple)


def check_door(t: Trial) -> None:
    """θ flat and θ in windows give the same; a pullback can be called once."""
    training, key = t.context["training"], t.context["key"]
    y, backward = t.layer(t.theta, t.x, training, key=key, backend=t.backend)
    y2, backward2 = t.layer(t.params, t.x, training, key=key, backend=t.backend)
    t.same((y2,), (y,), "the output for θ in windows")
    flat = backward(t.dy)
    assert flat.shape == t.theta.shape, f"{t.layer}: dθ has shape {tuple(flat.shape)}, θ {tuple(t.theta.shape)}"
    expected = split(t.backend.xp, flat, t.layer.layout)
    t.same(tuple(backward2(t.dy)), expected, "dθ for θ in windows", 64.0 * max(1, *t.x.shape))
    for again in (backward, backward2):
        try:
            again(t.dy)
        except RuntimeError:
            continue
        raise AssertionError(f"{t.layer}: its pullback could be called twice")


CHECKS = (check_arguments, check_shapes, check_stateless, check_linear, check_need_dx, check_windows, check_door)
