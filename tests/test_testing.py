import math
import operator
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

import xpnet as xn
from xpnet.layers import Layer
from xpnet.parameters import Parameter
from xpnet.testing import assert_close, check_gradient, check_layer, gradcheck, gradcheck_loss
from xpnet.testing.backends import ReadOnlyNumpy, SyncError, open_backend

pytest_plugins = ["pytester"]


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
    ("changes x", "modified its argument x"),
    ("changes dy", "modified its argument dy"),
    ("fails for a batch of 0", "no samples"),
    ("garbage in out", "given windows"),  # the last: array-api-strict is given no windows to write into
]


@pytest.mark.parametrize(("name", "fault", "text"), [("numpy", *f) for f in FAULTS] + [("strict:device1", *f) for f in FAULTS[:-1]])
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
    with pytest.raises(ValueError, match="use a batch of at least 1"):
        gradcheck(xn.ReLU(), (0, 3), backend="numpy")


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


# The backends of the tests


READS = [float, bool, int, complex, operator.index, np.asarray, np.from_dlpack, lambda x: "if" if x else "else", lambda x: [0, 1][x]]


@pytest.mark.parametrize("read", READS)
def test_reading_a_value_from_the_strict_device_is_a_sync_error(read):
    with open_backend("strict:device1") as backend:
        x = backend.asarray(np.asarray(1))
        with pytest.raises(SyncError, match="a step must not read values from the device"):
            read(x)
        assert backend.asnumpy(x) == 1
    home = xn.backend("strict").asarray(np.asarray(1))
    assert int(home) == 1


def test_strict_flags_are_off_for_the_test_alone():
    xp = pytest.importorskip("array_api_strict")
    before, read = xp.get_array_api_strict_flags(), xp._array_object.Array.__float__
    with open_backend("strict:device1") as backend:
        x = backend.asarray(np.asarray([1.0, 2.0]))
        with pytest.raises(RuntimeError, match="boolean_indexing"):
            x[x > 1]
        assert xp.get_array_api_strict_flags()["api_version"] == "2024.12"
    assert xp.get_array_api_strict_flags() == before
    assert xp._array_object.Array.__float__ is read


def test_read_only_numpy_gives_an_array_of_its_own_on_demand():
    backend = ReadOnlyNumpy()
    host = np.zeros(3)
    with pytest.raises(ValueError, match="read-only"):
        backend.asarray(host)[0] = 1.0
    own = backend.asarray(host, copy=True)
    own[0] = 1.0
    assert host[0] == 0.0


def test_every_backend_has_float64(backend):
    assert backend.asnumpy(backend.asarray(np.zeros(2)) + 1).dtype == np.float64


# The plugin


TEST = """
def test_it(backend):
    assert backend.asnumpy(backend.asarray([1.0]) + 1.0) == 2.0
"""


def test_the_fixture_runs_every_backend_and_skips_by_name(pytester):
    pytester.makepyfile(TEST)
    result = pytester.runpytest("-rs", "-v", "--backends", "numpy,strict:device1,cupy")
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] + outcomes.get("skipped", 0) == 4
    assert outcomes["deselected"] == 2
    for name in ("numpy", "numpy-readonly", "strict:device1"):
        result.stdout.fnmatch_lines([f"*test_it[[]{name}[]] PASSED*"])
    if "skipped" in outcomes:
        result.stdout.fnmatch_lines(["*SKIPPED*cupy: *"])


def test_unknown_backends_are_an_error(pytester):
    pytester.makepyfile(TEST)
    result = pytester.runpytest("--backends", "numpy,keras")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(['*unknown backend "keras", choose from numpy, numpy-readonly, strict:device1, torch*'])


def test_gpu_mark_leaves_cupy_out(pytester):
    pytester.makepyfile(TEST)
    outcomes = pytester.runpytest("-m", "not gpu", "--backends", "numpy,cupy").parseoutcomes()
    assert outcomes == {"passed": 2, "deselected": 4}


def test_strict_is_never_skipped(pytester):
    pytester.makeconftest("""
import pytest
@pytest.fixture(autouse=True)
def no_strict(monkeypatch):
    import xpnet.backends.strict as room
    from xpnet.backends import _open
    _open.cache_clear()
    monkeypatch.setattr(room, "xp", None)
""")
    pytester.makepyfile(TEST)
    result = pytester.runpytest("--backends", "strict")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*array-api-strict is not installed*"])


def test_a_projects_own_backend_fixture_is_left_alone(pytester):
    pytester.makepyfile("""
import pytest
@pytest.fixture(params=["mine"])
def backend(request):
    return request.param
def test_mine(backend):
    assert backend == "mine"
""")
    pytester.runpytest("--backends", "numpy").assert_outcomes(passed=1)


def test_the_plugin_imports_no_array_library_before_a_test_asks():
    code = (
        "import sys, xpnet.testing.plugin\n"
        "print(sorted({'torch', 'jax', 'cupy', 'array_api_strict'} & {m.partition('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
