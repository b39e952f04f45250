import operator
import subprocess
import sys

import numpy as np
import pytest

import xpnet as xn
from xpnet.testing.backends import ReadOnlyNumpy, SyncError, open_backend

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
