import operator
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import xpnet as xn
from xpnet.testing.backends import ReadOnlyNumpy, SyncError, open_backend
from xpnet.testing.capabilities import PROBES, has

pytest_plugins = ["pytester"]


# The backends of the tests


READS = [
    float,
    bool,
    int,
    complex,
    operator.index,
    np.asarray,
    np.from_dlpack,
    lambda x: "if" if x else "else",
    lambda x: [0, 1][x],
]


@pytest.mark.parametrize("read", READS)
def test_reading_a_value_from_the_strict_device_is_a_sync_error(read):
    with open_backend("strict:device1") as backend:
        x = backend.asarray(np.asarray(1))
        with pytest.raises(SyncError, match="the host must wait for it: keep it an array"):
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
    xp = backend.xp
    with pytest.raises(ValueError, match="read-only"):
        xp.asarray(host, device=backend.device)[0] = 1.0
    xp.asarray(host, copy=True)[0] = 1.0
    (xp.asarray(host) + 1.0)[0] = 5.0
    host[0] = 2.0
    assert xp.__name__ == xn.backend("numpy").xp.__name__


def test_what_a_test_needs_is_switched_on_in_strict():
    needs = ("boolean_indexing", "data_dependent_shapes", "linalg", "fft", "sync")
    with open_backend("strict:device1", needs) as backend:
        x = backend.asarray(np.asarray([1.0, 2.0]))
        assert all(has(backend, what) for what in needs)
        assert backend.asnumpy(x[x > 1]).tolist() == [2.0]
        assert backend.xp.nonzero(x)[0].shape == (2,)
        assert float(backend.xp.linalg.vector_norm(x)) == np.sqrt(5.0)
    with open_backend("strict:device1") as backend:
        assert not any(has(backend, what) for what in needs)


def test_values_can_be_read_on_the_cpu_device_of_strict():
    with open_backend("strict:CPU_DEVICE") as backend:
        assert float(backend.asarray(1.5)) == 1.5
        assert backend.asnumpy(backend.asarray([1.0])) == [1.0]


KNOWN = {
    "numpy": ({"float64", "uint32", "boolean_indexing", "linalg", "mutable", "sync"}, {"jit", "gpu"}),
    "numpy-readonly": ({"float64", "uint32", "boolean_indexing", "linalg", "mutable", "sync"}, {"jit", "gpu"}),
    "strict": ({"float64", "uint32", "mutable"}, {"jit", "gpu", "boolean_indexing", "linalg", "sync"}),
    "torch": ({"float64", "boolean_indexing", "data_dependent_shapes", "fft", "mutable"}, {"uint32", "jit"}),
    "jax": ({"float64", "uint32", "linalg", "jit"}, {"mutable", "data_dependent_shapes"}),
    "cupy": ({"float64", "mutable", "gpu", "sync"}, {"jit"}),
}


def test_capabilities_are_found_by_trying(backend):
    there, missing = KNOWN["numpy-readonly" if isinstance(backend, ReadOnlyNumpy) else backend.name]
    assert {what for what in there | missing if has(backend, what)} == there
    assert all(isinstance(has(backend, what), bool) for what in PROBES)


def test_a_dtype_must_be_listed_and_made_on_the_device_and_a_gpu_has_other_memory():
    def zeros(shape, dtype=None, device=None):
        if dtype == "double":
            raise TypeError("this device has no float64")
        return SimpleNamespace(dtype="single", __dlpack_device__=lambda: (2, 0))

    info = SimpleNamespace(dtypes=lambda device: {"float32": "single", "float64": "double", "int64": "long"})
    xp = SimpleNamespace(zeros=zeros, float32="single", float64="double", int64="long")
    xp.__array_namespace_info__ = lambda: info
    backend = SimpleNamespace(xp=xp, device="gpu")
    names = ("float32", "float64", "int64", "int8", "gpu")
    assert [has(backend, name) for name in names] == [True, False, False, False, True]


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
    for name in ("numpy", "numpy-readonly", "strict:device1"):
        result.stdout.fnmatch_lines([f"*test_it[[]{name}[]] PASSED*"])
    if "skipped" in outcomes:
        result.stdout.fnmatch_lines(["*SKIPPED*cupy: *"])


def test_xp_and_device_come_from_the_backend_and_a_test_runs_once_for_each(pytester):
    pytester.makepyfile("""
import pytest
def test_one(xp): pass
def test_two(device): pass
@pytest.mark.parametrize("n", [1, 2])
def test_all(n, device, xp, backend, xpnet_backend):
    x = xp.ones(n, device=device)
    assert backend is xpnet_backend and backend.owns(x) and backend.xp is xp and backend.device == device
def test_none(): pass
""")
    result = pytester.runpytest("-v", "--backends", "strict,numpy")
    result.assert_outcomes(passed=3 + 3 + 6 + 1)
    for name in ("one[[]strict:device1[]]", "two[[]numpy-readonly[]]", "all[[]2-numpy[]]", "none"):
        result.stdout.fnmatch_lines([f"*::test_{name} PASSED*"])


def test_all_backends_are_there_if_none_is_chosen_and_devices_can_be_named(pytester):
    pytester.makepyfile(TEST)
    collected = pytester.runpytest("--collect-only", "-q").outlines
    ids = ["numpy", "numpy-readonly", "strict:device1", "torch", "jax", "cupy"]
    assert [line.partition("test_it")[2] for line in collected if "test_it" in line] == [f"[{name}]" for name in ids]
    chosen = "torch:cuda:0, strict:CPU_DEVICE,numpy:9,strict:CPU_DEVICE"
    result = pytester.runpytest_subprocess("-v", "-rs", "--backends", chosen)
    result.stdout.fnmatch_lines(
        ["*test_it[[]strict:CPU_DEVICE[]] PASSED*", '*numpy:9: NumPy has the device "cpu" alone*']
    )
    assert sum(result.parseoutcomes().values()) == 3
    outcomes = pytester.runpytest_subprocess("-m", "not gpu", "--backends", chosen).parseoutcomes()
    assert outcomes == {"passed": 1, "skipped": 1, "deselected": 1}


@pytest.mark.parametrize("word", ["keras", "torch:", "numpy-writable", ":cpu"])
def test_unknown_backends_are_an_error(pytester, word):
    pytester.makepyfile(TEST)
    result = pytester.runpytest("--backends", f"numpy,{word}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = f'*unknown backend "{word}", choose from numpy, numpy-readonly, strict:device1, torch*'
    result.stderr.fnmatch_lines([text])


def test_gpu_mark_leaves_cupy_out(pytester):
    pytester.makepyfile(TEST)
    outcomes = pytester.runpytest("-m", "not gpu", "--backends", "numpy,cupy").parseoutcomes()
    assert outcomes == {"passed": 2, "deselected": 1}


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


# Its markers


def test_a_test_is_skipped_or_expected_to_fail_on_the_backends_that_are_named(pytester):
    pytester.makepyfile("""
import pytest
@pytest.mark.skip_backend("strict", "numpy-readonly", reason="calls np.interp")
def test_skip(xp): pass
@pytest.mark.skip_backend("numpy", reason="is the reference")
def test_skip_library(backend): pass
@pytest.mark.xfail_backend("numpy-readonly", raises=ValueError, strict=True, reason="writes into x")
def test_fail(xp):
    xp.asarray([1.0])[0] = 2.0
@pytest.mark.skip_backend("numpy", reason="has no backend")
def test_plain(): pass
""")
    result = pytester.runpytest("-rsx", "-v", "--strict-markers", "--backends", "numpy,strict")
    result.assert_outcomes(passed=1 + 1 + 2 + 1, skipped=2 + 2, xfailed=1)
    lines = [
        "*strict:device1: calls np.interp*",
        "*numpy-readonly: is the reference*",
        "*numpy-readonly: writes into x*",
    ]
    for line in lines:
        result.stdout.fnmatch_lines([line])


def test_an_expected_failure_that_passes_is_a_failure_if_it_is_strict(pytester):
    pytester.makepyfile("""
import pytest
@pytest.mark.xfail_backend("numpy", strict=True, reason="was wrong once")
def test_fail(xp): pass
""")
    pytester.runpytest("--backends", "numpy,strict").assert_outcomes(passed=1, failed=2)


def test_a_test_is_skipped_where_the_backend_lacks_what_it_needs(pytester):
    pytester.makepyfile("""
import pytest
pytestmark = pytest.mark.needs("float64", reason="compares with a table of 15 digits")
@pytest.mark.needs("jit", reason="counts compilations")
def test_jit(backend): pass
@pytest.mark.needs("mutable", "boolean_indexing", reason="x[x < 0] = 0")
def test_mask(xp, device):
    x = xp.asarray([-1.0, 2.0], device=device, copy=True)
    x[x < 0] = 0.0
@pytest.mark.needs("sync", reason="iterates until it has converged")
def test_sync(xp, device):
    assert float(xp.ones((), device=device)) == 1.0
""")
    result = pytester.runpytest("-rs", "--strict-markers", "--backends", "numpy,strict")
    result.assert_outcomes(passed=6, skipped=3)
    for name in ("numpy", "numpy-readonly", "strict:device1"):
        result.stdout.fnmatch_lines([f"*{name} lacks jit: counts compilations*"])


@pytest.mark.parametrize(
    ("mark", "text"),
    [
        ('skip_backend("keras", reason="x")', 'skip_backend: unknown backend "keras", choose from numpy, *cuda:0'),
        ('skip_backend(reason="x")', 'skip_backend: unknown backend "", choose from numpy, *'),
        ('skip_backend("torch")', 'skip_backend has no reason: add reason="…", which the report shows'),
        ('xfail_backend("numpy", reason=" ")', "xfail_backend has no reason: add *"),
        ('xfail_backend("numpy", reason="x", condition=True)', "xfail_backend: unknown option condition"),
        ('needs("float16", reason="x")', 'needs: unknown capability "float16", choose from bool, int8, *, sync'),
        ('needs("jit")', "needs has no reason: add *"),
        ('needs("jit", because="x")', "needs: unknown option because"),
    ],
)
def test_a_marker_that_is_wrong_is_a_usage_error_in_one_line(pytester, mark, text):
    pytester.makepyfile(
        test_mine=f"""
import pytest
@pytest.mark.{mark}
def test_it(xp): pass
"""
    )
    result = pytester.runpytest("--backends", "numpy")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: test_mine.py::test_it[[]numpy[]]: {text}"])
    assert len([line for line in result.errlines if line]) == 1


# Beside what a project has of its own


def test_a_projects_own_fixtures_are_left_alone(pytester):
    pytester.makepyfile("""
import pytest
@pytest.fixture(params=["mine"])
def backend(request):
    return request.param
@pytest.fixture
def xp():
    return "own"
@pytest.fixture
def device():
    return "phone"
def test_mine(backend, xp, device):
    assert (backend, xp, device) == ("mine", "own", "phone")
def test_both(backend, xpnet_backend):
    assert backend == "mine" and xpnet_backend.name == "numpy"
""")
    pytester.runpytest("--backends", "numpy").assert_outcomes(passed=3)


def test_a_projects_own_markers_are_left_alone(pytester):
    pytester.makepyfile("""
import pytest
@pytest.mark.needs("a database")
@pytest.mark.skip_backend("sqlite")
def test_mine(): pass
""")
    pytester.runpytest().assert_outcomes(passed=1)


def test_a_projects_own_option_can_have_the_place_of_ours(pytester):
    pytester.makeconftest("def pytest_addoption(parser): parser.addoption('--backends', default='own')")
    pytester.makepyfile("def test_mine(pytestconfig): assert pytestconfig.getoption('--backends') == 'own'")
    pytester.runpytest("-p", "no:xpnet").assert_outcomes(passed=1)


def test_the_plugin_imports_neither_xpnet_nor_numpy_before_a_test_asks():
    code = (
        "import sys, pytest; before = set(sys.modules); import pytest_xpnet; print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['pytest_xpnet']"
