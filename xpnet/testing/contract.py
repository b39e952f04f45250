"""What every layer promises, in one call."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xpnet.arrays import inputs, shape_of
from xpnet.backends import Backend
from xpnet.backends import backend as find_backend
from xpnet.errors import ShapeError
from xpnet.layers import Layer
from xpnet.testing.compare import assert_close
from xpnet.testing.gradcheck import gradcheck
from xpnet.testing.trial import Trial, draw_trial


def check_layer(
    layer: Layer,
    input_shape: Sequence[Any],
    *,
    backend: str | Backend | None = None,
    seed: int = 0,
    training: bool = False,
    key: int = 0,
    buffers: Mapping[str, Any] | None = None,
    tolerance: float | None = None,
) -> float:
    """Check a layer's gradient and all that a layer promises; return what gradcheck returns.

    The shape is the one announced, for batches of 0, 1 and N, of which a layer may refuse to train on the smaller ones;
    dtype and device follow the input; no argument is modified; two calls give the same bits; the pullback is linear,
    gives the same gradients without dx and into given windows; the door takes θ flat or in windows, and its pullback
    once. Buffers, by path as in Context, are rebound in training alone, to arrays of the same shape and precision.
    AssertionError names what is broken.
    """
    how: dict[str, Any] = {"seed": seed, "training": training, "key": key, "buffers": buffers}
    chosen = find_backend(backend)
    several = isinstance(input_shape[0], Sequence)
    whole = (input_shape[0] if several else input_shape)[0]
    for dtype in ("float32", "float64"):
        for n in dict.fromkeys((0, 1, whole)):
            shape = [(n, *one[1:]) for one in input_shape] if several else (n, *input_shape[1:])
            trial = draw_trial(layer, shape, chosen, dtype, **how)
            if n == whole or not refused(trial):
                for check in CHECKS:
                    check(trial)
    return gradcheck(layer, input_shape, backend=chosen, tolerance=tolerance, **how)


def refused(t: Trial) -> bool:
    """Whether a layer says of a smaller batch, in training, that it is too small."""
    try:
        t.output()
    except ShapeError:
        return t.training
    return False


def same(t: Trial, actual: Sequence[Any], expected: Sequence[Any], what: str, multiple: float = 0.0) -> None:
    """Assert that two tuples of arrays are equal, up to a multiple of eps."""
    assert len(actual) == len(expected), f"{t.layer}: {what} are {len(actual)} arrays, not {len(expected)}"
    for a, e in zip(actual, expected, strict=True):
        assert_close(t.backend, a, e, multiple=multiple, what=f"{t.layer}: {what}")


def rounding(t: Trial) -> float:
    """Return how many eps the sums may be off that are added up in another order."""
    return 64.0 * float(max(1, *(n for x in inputs(t.x) for n in x.shape)))


def check_arguments(t: Trial) -> None:
    """x, the parameters, dy and buffers are as they were. (The first check: a second call may change nothing more.)"""
    arguments = {**t.arguments(), "dy": t.dy, **t.buffers}
    before = {name: np.array(t.backend.asnumpy(array)) for name, array in arguments.items()}
    t.gradients(t.dy)
    for name, array in arguments.items():
        after = t.backend.asnumpy(array)
        assert np.array_equal(after, before[name], equal_nan=True), f"{t.layer} modified its argument {name}"


def check_buffers(t: Trial) -> None:
    """Buffers stay what they are in inference, and in training become arrays of the same shape, precision, device."""
    after = dict(t.buffers)
    t.forward(*t.arguments().values(), buffers=after)
    assert after.keys() == t.buffers.keys(), f"{t.layer}: buffers are {sorted(t.buffers)} before, {sorted(after)} after"
    for path, old in t.buffers.items():
        new = after[path]
        assert t.training or new is old, f"{t.layer}: buffer {path} was rebound, but this is not training"
        assert t.backend.owns(new), f"{t.layer}: buffer {path} lies elsewhere after a forward pass"
        assert (new.shape, new.dtype) == (old.shape, old.dtype), (
            f"{t.layer}: buffer {path} is {old.dtype} {tuple(old.shape)} before, {new.dtype} {tuple(new.shape)} after"
        )


def check_shapes(t: Trial) -> None:
    """Every array has the shape that was announced, the input's precision, and lies on the input's device."""
    y, gradients, likes = t.output(), t.gradients(t.dy), t.arguments()
    came = len(gradients) - t.moving
    assert len(gradients) == len(likes), f"{t.layer}: {came} gradients for {len(t.params)} parameters"
    names = ("output", *(f"gradient of {name}" for name in likes))
    for name, array, like in zip(names, (y, *gradients), (t.dy, *likes.values()), strict=True):
        what = f"{t.layer}: {name} for input {shape_of(t.x)} {t.dy.dtype}"
        assert array.shape == like.shape, f"{what} has shape {tuple(array.shape)}, expected {tuple(like.shape)}"
        assert array.dtype == t.dy.dtype, f"{what} is {array.dtype}"
        assert t.backend.owns(array), f"{what} lies elsewhere"


def check_stateless(t: Trial) -> None:
    """Two calls give the same bits."""
    same(t, (t.output(),), (t.output(),), "the output of a second call")
    first = t.gradients(t.dy)
    same(t, t.gradients(t.dy), first, "the gradients of a second call")


def check_linear(t: Trial) -> None:
    """The pullback of 2 dy + dy², elementwise, is twice that of dy plus that of dy²."""
    other = t.dy * t.dy
    expected = [2.0 * a + b for a, b in zip(t.gradients(t.dy), t.gradients(other), strict=True)]
    same(t, t.gradients(2.0 * t.dy + other), expected, "the pullback is not linear:", rounding(t))


def check_need_dx(t: Trial) -> None:
    """Without need_dx the gradients are the same to rounding, and a layer with parameters computes no dx."""
    count = t.moving
    made = t.gradients(t.dy, need_dx=False)
    same(t, made[count:], t.gradients(t.dy)[count:], "the gradients without need_dx", rounding(t))
    assert not count or made[0] is None or not t.params, f"{t.layer}: need_dx=False, but a dx was computed"


def check_windows(t: Trial) -> None:
    """Given windows to write into, the pullback returns the same gradients, there or elsewhere."""
    outs, finish = t.backend.join(t.theta, t.layer.layout)
    expected, gradients = t.gradients(t.dy)[t.moving :], t.gradients(t.dy, out=outs)[t.moving :]
    same(t, gradients, expected, "the gradients returned for given windows", rounding(t))
    vector = t.backend.split(finish(gradients), t.layer.layout)
    same(t, vector, expected, "the gradients in given windows", rounding(t))


def check_door(t: Trial) -> None:
    """θ flat and θ in windows give the same; a pullback can be called once."""
    (y, backward), (y2, backward2) = (
        t.layer(theta, t.x, t.training, key=t.key, buffers=dict(t.buffers), backend=t.backend)
        for theta in (t.theta, t.params)
    )
    same(t, (y2,), (y,), "the output for θ in windows")
    flat = backward(t.dy)
    assert flat.shape == t.theta.shape, f"{t.layer}: dθ has shape {tuple(flat.shape)}, θ {tuple(t.theta.shape)}"
    same(t, backward2(t.dy), t.backend.split(flat, t.layer.layout), "dθ for θ in windows", rounding(t))
    for again in (backward, backward2):
        try:
            again(t.dy)
        except RuntimeError:
            continue
        raise AssertionError(f"{t.layer}: its pullback could be called twice")


CHECKS = (
    check_arguments,
    check_buffers,
    check_shapes,
    check_stateless,
    check_linear,
    check_need_dx,
    check_windows,
    check_door,
)
