import math
from dataclasses import dataclass

import numpy as np
import pytest

import xpnet as xn
from xpnet.layers import Layer
from xpnet.parameters import Parameter
from xpnet.testing import assert_close, check_gradient, check_layer, gradcheck, gradcheck_loss
from xpnet.testing.backends import ReadOnlyNumpy, open_backend


@dataclass(frozen=True)
class Wrong(xn.Linear):
    """A linear layer, right but for the one fault it is named after."""

    fault: str = ""

    def forward(self, params, x, ctx):
        xp, fault, (w, b) = ctx.xp, self.fault, params
        y = x @ w
        if fault == "changes x" and x.shape[0]:
            x[0, 0] = 7.0
        if fault == "changes dtype":
            y = xp.astype(y, xp.float64)
        if fault == "keeps state":
            SEEN.append(0)
            y = y * len(SEEN)
        y = y + b
        if fault == "output_shape":
            y = y[:, :1] if y.shape[1] == 2 else y

        def backward(dy, need_dx=True, out=(None, None)):
            if fault == "fails for a batch of 0":
                assert dy.shape[0], "no samples"
            dx = dy @ w.T if need_dx or fault == "ignores need_dx" else None
            dw, db = x.T @ dy, xp.sum(dy, axis=0)
            if fault == "sign":
                dw = -dw
            elif fault == "mean over the batch":
                db = db * (1.0 / max(dy.shape[0], 1))
            elif fault == "transposed":
                dw = xp.reshape(xp.matrix_transpose(dw), dw.shape)
            elif fault == "missing bias":
                db = xp.zeros_like(db)
            elif fault == "dx without need_dx differs" and not need_dx:
                dw = dw * 2.0
            elif fault == "changes dy":
                dy *= 2.0
            elif fault == "not linear":
                dw = dw * dw
            elif fault == "one entry":
                dw = dw * xp.astype(xp.reshape(xp.arange(dw.size, device=ctx.device), dw.shape) != 0, dw.dtype)
            elif fault == "gradient missing":
                return dx, (dw,)
            elif fault == "gradients swapped":
                return dx, (db, dw)
            elif fault == "garbage in out" and out[0] is not None:
                out[0][...] = 1.0
                dw = out[0]
            elif fault == "dx":
                dx = None if dx is None else dx * 1.001
            return dx, (dw, db)

        return y, backward


SEEN: list[int] = []

FAULTS = [
    ("sign", "∂output"),
    ("mean over the batch", "0.25 by backward"),
    ("transposed", "∂output"),
    ("missing bias", "∂bias"),
    ("one entry", "∂weight[0, 0]"),
    ("dx", "∂input"),
    ("gradients swapped", "shape"),
    ("gradient missing", "1 gradients for 2 parameters"),
    ("not linear", "not linear"),
    ("ignores need_dx", "need_dx=False, but a dx was computed"),
    ("dx without need_dx differs", "the gradients without need_dx"),
    ("output_shape", "has shape"),
    ("changes dtype", "output for input (0, 3)"),
    ("keeps state", "a second call"),
    ("changes x", "modified its argument input"),
    ("changes dy", "modified its argument dy"),
    ("fails for a batch of 0", "no samples"),
    ("garbage in out", "given windows"),  # the last: array-api-strict is given no windows to write into
]


@pytest.mark.parametrize(
    ("name", "fault", "text"), [("numpy", *f) for f in FAULTS] + [("strict:device1", *f) for f in FAULTS[:-1]]
)
def test_check_layer_catches_a_planted_fault(name, fault, text):
    with open_backend(name) as backend, pytest.raises(AssertionError) as caught:
        check_layer(Wrong(3, 2, fault=fault), (4, 3), backend=backend)
    assert text in str(caught.value)


@pytest.mark.parametrize("fault", ["changes x", "changes dy"])
def test_read_only_numpy_stops_a_write_to_an_argument(fault):
    with pytest.raises(ValueError, match="read-only"):
        check_layer(Wrong(3, 2, fault=fault), (4, 3), backend=ReadOnlyNumpy())


@pytest.mark.parametrize("fault", ["sign", "transposed", "missing bias", "dx", "mean over the batch"])
def test_random_directions_catch_a_planted_fault_in_a_large_layer(fault):
    with pytest.raises(AssertionError, match="along random direction"):
        gradcheck(Wrong(200, 100, fault=fault), (8, 200), backend="numpy")
    assert gradcheck(Wrong(200, 100), (8, 200), backend="numpy") < 1e-9


def test_the_layer_without_a_fault_passes(backend):
    assert check_layer(Wrong(3, 2), (4, 3), backend=backend) < 1e-9


@dataclass(frozen=True)
class WrongDropout(xn.Dropout):
    """Draws another mask on the way back."""

    def forward(self, params, x, ctx):
        y, _ = super().forward(params, x, ctx)
        ctx.key += 1
        return y, super().forward(params, x, ctx)[1]


@dataclass(frozen=True)
class Wish(Layer):
    """Asks for a parameter that it reads, but whose gradient is not a number."""

    def parameters(self):
        return (Parameter("gain", (1,), lambda rng, shape: np.ones(shape)),)

    def forward(self, params, x, ctx):
        return x * params[0], lambda dy, need_dx=True, out=(None,): (dy * params[0], (params[0] * math.nan,))


def test_a_wrong_mask_and_a_nan_are_caught():
    with pytest.raises(AssertionError, match="∂input"):
        gradcheck(WrongDropout(0.5), (2, 8), backend="numpy", training=True)
    with pytest.raises(AssertionError, match=r"Wish\(\) on numpy: ∂output\[0, 0\]/∂gain\[0\] is nan by backward"):
        gradcheck(Wish(), (2, 3), backend="numpy")


def test_a_wrong_loss_is_caught():
    def summed(p, t):
        value, gradient = xn.mean_squared_error(p, t)
        return value * 2.0, gradient

    with pytest.raises(AssertionError, match=r"summed on numpy: ∂output/∂prediction\[1\] is"):
        gradcheck_loss(summed, [1.0, 5.0], [0.5, 0.25], backend="numpy")


def test_gradcheck_says_where_and_both_values():
    def function(a):
        return a * a, lambda dy: (3.0 * a * dy,)

    with pytest.raises(AssertionError) as caught:
        check_gradient(function, {"a": np.asarray([0.0, 2.0])}, backend="numpy", who="square")
    assert "square on numpy: ∂output[1]/∂a[1] is 6 by backward and 4" in str(caught.value)
    assert "tolerance 3.7e-09" in str(caught.value)
    assert "off by 5.0e-01 of this entry, and by 5.0e-01 of the largest entry or output" in str(caught.value)
    with pytest.raises(ValueError, match="use a batch of at least 1"):
        gradcheck(xn.ReLU(), (0, 3), backend="numpy")


def test_gradcheck_tells_a_small_entrys_own_error_from_the_one_that_the_tolerance_is_for():
    """Half of an entry that is a hundredth of the largest: 50 % of the entry, 0.5 % of the largest."""

    def function(a):
        slope = np.asarray([1.0, 100.0])
        return a * slope, lambda dy: (dy * slope * np.asarray([0.5, 1.0]),)

    with pytest.raises(AssertionError) as caught:
        check_gradient(function, {"a": np.ones(2)}, backend="numpy")
    assert "is 0.5 by backward and 1 by central differences: off by 5.0e-01 of this entry" in str(caught.value)
    assert "and by 5.0e-03 of the largest entry or output (tolerance 3.7e-09)" in str(caught.value)


def test_random_directions_name_the_unit_of_their_error():
    with pytest.raises(AssertionError, match="of the gradient's norm or the largest output \\(tolerance"):
        gradcheck(Wrong(200, 100, fault="sign"), (8, 200), backend="numpy")


def test_an_entry_that_should_be_zero_is_infinitely_far_off():
    with pytest.raises(AssertionError, match="is 1 by backward and 0 by central differences: off by inf of this entry"):
        check_gradient(lambda a: (a * 0.0, lambda dy: (dy,)), {"a": np.ones(1)}, backend="numpy")


def test_a_gradient_of_another_shape_is_named():
    for size in (2, 2000):  # the whole Jacobian, random directions
        with pytest.raises(AssertionError, match=rf"^the gradient of a has shape \(1, {size}\), not \({size},\)$"):
            check_gradient(lambda a: (a, lambda dy: (dy[None, :],)), {"a": np.ones(size)}, backend="numpy")


# Layers that carry buffers


@dataclass(frozen=True)
class Centered(Layer):
    """y = x − μ with μ the batch's mean in training and the running one else, as a layer of running statistics does."""

    fault: str = ""

    def buffers(self):
        return (Parameter("mean", (3,)),)

    def forward(self, params, x, ctx):
        xp, running = ctx.xp, ctx.buffers["mean"]
        mean = xp.mean(x, axis=0) if ctx.training and x.shape[0] else running
        if self.fault == "writes into the buffer":
            running += 1.0
        if self.fault == "rebinds in inference" or ctx.training:
            ctx.buffers["mean"] = 0.9 * running + 0.1 * mean
        if self.fault == "another precision":
            ctx.buffers["mean"] = xp.astype(mean, xp.float64)
        if self.fault == "another shape":
            ctx.buffers["mean"] = mean[None, :]
        if self.fault == "another name":
            ctx.buffers["means"] = mean
        batch = ctx.training and x.shape[0]

        def backward(dy, need_dx=True, out=()):
            return dy - xp.mean(dy, axis=0) if batch else dy, ()

        return x - mean, backward


@pytest.mark.parametrize("training", [False, True])
def test_buffers_are_the_same_at_every_forward_pass(training, backend):
    buffers = {"mean": np.asarray([1.0, 2.0, 3.0])}
    assert check_layer(Centered(), (4, 3), backend=backend, training=training, buffers=buffers) < 1e-9
    here = {"mean": backend.asarray(buffers["mean"])}
    assert gradcheck(Centered(), (4, 3), backend=backend, training=training, buffers=here) < 1e-9
    assert buffers["mean"].tolist() == backend.asnumpy(here["mean"]).tolist() == [1.0, 2.0, 3.0]


BUFFER_FAULTS = [
    ("writes into the buffer", True, "modified its argument mean"),
    ("rebinds in inference", False, "buffer mean was rebound, but this is not training"),
    ("another precision", True, r"buffer mean is \S*float32 \(3,\) before, \S*float64 \(3,\) after"),
    ("another shape", True, r"buffer mean is \S*float32 \(3,\) before, \S*float32 \(1, 3\) after"),
    ("another name", True, r"buffers are \['mean'\] before, \['mean', 'means'\] after"),
]


@pytest.mark.parametrize("name", ["numpy", "strict:device1"])
@pytest.mark.parametrize(("fault", "training", "text"), BUFFER_FAULTS)
def test_a_fault_with_buffers_is_caught(name, fault, training, text):
    with open_backend(name) as backend, pytest.raises(AssertionError, match=text):
        check_layer(Centered(fault), (4, 3), backend=backend, training=training, buffers={"mean": np.zeros(3)})


# Sizes that come from arrays


@dataclass(frozen=True)
class Gain(Layer):
    """y = x · g        x (N, I)   g (I,)"""

    nin: int

    def parameters(self):
        return (Parameter("gain", (self.nin,), lambda rng, shape: np.ones(shape)),)

    def output_shape(self, shape):
        if shape[1:] != (self.nin,):
            raise xn.ShapeError(f"expects input (N, {self.nin}), got {shape}", who="Gain")
        return shape

    def forward(self, params, x, ctx):
        (gain,) = params

        def backward(dy, need_dx=True, out=(None,)):
            return dy * gain if need_dx else None, (ctx.xp.sum(dy * x, axis=0),)

        return x * gain, backward


@pytest.mark.parametrize("shape", [(np.int64(4), np.int32(3)), [4, 3], np.asarray([4, 3]), np.zeros((4, 3)).shape])
def test_sizes_may_be_integers_of_any_kind(shape, backend):
    assert check_layer(Gain(np.int64(3)), shape, backend=backend) < 1e-9
    assert gradcheck(Gain(3), shape, backend=backend) < 1e-9


# assert_close


def test_assert_close_allows_a_few_eps(backend):
    one = backend.asarray([1.0, 100.0], dtype="float32")
    eps = float(np.finfo("float32").eps)
    assert_close(backend, one, [1.0 + 900 * eps, 100.0], multiple=10)
    with pytest.raises(AssertionError, match=r"loss on \w+ at \[0\]: expected .* \(1 of 2 differ by more than"):
        assert_close(backend, one, [1.0 + 1100 * eps, 100.0], multiple=10, what="loss")


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        ([1.0, math.nan], [1.0, 2.0]),
        ([1.0, 2.0], [1.0, math.nan]),
        ([1.0, math.inf], [1.0, 2.0]),
        ([1.0, math.inf], [1.0, -math.inf]),
        ([1.0, 2.0], [1.0, math.inf]),
        ([1.0, 2.0], [[1.0, 2.0]]),
        ([1, 2], [1, 3]),
    ],
)
def test_assert_close_sees_what_differs(backend, actual, expected):
    with pytest.raises(AssertionError):
        assert_close(backend, backend.asarray(actual), expected)


def test_assert_close_takes_equal_infinities_nans_and_integers(backend):
    inf, nan = math.inf, math.nan
    assert_close(backend, backend.asarray([inf, -inf, nan, 1.0]), [inf, -inf, nan, 1.0], multiple=0)
    assert_close(backend, backend.asarray([1, 2]), [1, 2])
    assert_close(backend, backend.asarray(np.zeros((0, 3))), np.zeros((0, 3)))


def test_assert_close_takes_python_numbers_booleans_and_complex(backend):
    assert_close(backend, backend.asarray([1.0, 2.0], dtype="float32"), [1, 2], dtype="float32")
    assert_close(backend, backend.asarray(3.0), 3)
    assert_close(backend, backend.asarray([True, False]), [True, False], dtype=backend.xp.bool)
    with pytest.raises(AssertionError, match=r"at \[1\]: expected True, got False \(1 of 2 differ"):
        assert_close(backend, backend.asarray([True, False]), [True, True])
    z = np.asarray([3.0 + 4.0j, complex(math.nan, 0.0)])
    eps = float(np.finfo("float32").eps)
    assert_close(backend, backend.asarray(z, dtype="complex64"), z * (1.0 + eps))
    with pytest.raises(AssertionError, match=r"at \[0\]: expected .* \(1 of 2 differ by more than"):
        assert_close(backend, backend.asarray(z, dtype="complex64"), z * (1.0 + 100.0 * eps))


@pytest.mark.parametrize(
    ("actual", "expected", "dtype", "text"),
    [
        ("float64", [0.5, 1.0], "float32", "expected float32, got .*float64"),
        ("float64", np.asarray([0.5, 1.0], dtype="float32"), None, "expected float32, got the wider float64"),
        ("int32", np.asarray([1.0, 2.0]), None, "expected a real dtype, got int32"),
        ("int32", [1.0, 2.0], None, "expected a real dtype, got int32"),
        ("float32", np.asarray([1, 2]), None, "expected an integer dtype, got float32"),
        ("int32", [True, True], None, "expected a boolean dtype, got int32"),
        ("float32", 1.0, None, r"expected shape \(\), got \(2,\)"),
    ],
)
def test_assert_close_is_strict_about_dtype_kind_and_shape(backend, actual, expected, dtype, text):
    array = backend.asarray(np.asarray([1.0, 2.0]), dtype=actual)
    with pytest.raises(AssertionError, match=rf"^f on {backend.name}: {text}(\n|$)"):
        assert_close(backend, array, expected, dtype=dtype, what="f")


def test_assert_close_wants_an_array_of_the_backend():
    home, device = xn.backend("strict:CPU_DEVICE"), xn.backend("strict:device1")
    with pytest.raises(AssertionError, match=r"on strict: expected an array on .*device1.*, got .* on .*CPU_DEVICE"):
        assert_close(device, home.asarray([1.0]), [1.0])
    for stray in (1.0, np.ones(1), [1.0]):
        with pytest.raises(AssertionError, match=r"on strict: expected .* on .*device1.*, got a (float|list|numpy)"):
            assert_close(device, stray, stray)


def test_assert_close_names_the_worst_element():
    backend = xn.backend("numpy")
    with pytest.raises(AssertionError, match=r"at \[1, 0\]: expected 3.0, got 5.0 \(2 of 4 differ"):
        assert_close(backend, np.asarray([[1.5, 2.0], [5.0, 4.0]]), [[1, 2], [3, 4]])
    with pytest.raises(AssertionError, match=r"at \[1\]: expected 9, got 2 \(2 of 2 differ"):
        assert_close(backend, np.asarray([1, 2]), [2, 9])
    with pytest.raises(AssertionError, match=r"at \[1\]: expected 2.0, got nan"):
        assert_close(backend, np.asarray([9.0, np.nan]), [1, 2])
    assert_close(backend, np.asarray([1e-9]), [0.0], scale=1e9)
    with pytest.raises(AssertionError, match=r"differ by more than 0\.0e"):
        assert_close(backend, np.asarray([1e-30]), [0.0], scale=0.0)
