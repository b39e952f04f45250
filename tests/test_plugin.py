import operator
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import array_api_strict  # noqa: F401  (pytester forgets what is imported in its tests, and the backend would remember)
import numpy as np
import pytest

import pytest_xpnet
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


@pytest.fixture
def missing(monkeypatch):
    """Make a library one that is not installed."""

    def missing(library):
        def connect(name):
            if name.startswith(library):
                raise xn.BackendError(f"{library} is not installed: install it")
            return xn.backend(name)

        monkeypatch.setattr("xpnet.testing.backends.backend", connect)

    return missing


@pytest.mark.parametrize("library", ["torch", "jax", "cupy"])
def test_what_is_missing_is_skipped_by_name_and_fails_where_it_was_asked_for(pytester, missing, library):
    missing(library)
    pytester.makepyfile(TEST, test_plain="def test_plain(): pass")
    others = ["-k", " and ".join(f"not {name}" for name in {"torch", "jax", "cupy"} - {library})]
    for standing in ("", f"xpnet_backends = numpy, strict {library}"):
        pytester.makeini(f"[pytest]\n{standing}")
        result = pytester.runpytest("-rs", *others)
        result.assert_outcomes(passed=4, skipped=1, deselected=0 if standing else 2)
        result.stdout.fnmatch_lines([f"*SKIPPED*: {library}: {library} is not installed: install it"])
    result = pytester.runpytest("-rE", "--backends", f"numpy,{library}")
    result.assert_outcomes(passed=3, errors=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [f"{library}: {library} is not installed: install it", f"ERROR *test_it[[]{library}[]]*"]
    )


def test_a_backend_can_be_required_in_the_standing_choice_too(pytester, missing):
    missing("torch")
    pytester.makepyfile(TEST)
    for standing, outcomes in [
        ("numpy torch!", {"passed": 2, "errors": 1}),
        ("numpy! torch", {"passed": 2, "skipped": 1}),
        ("torch, torch!", {"errors": 1}),
    ]:
        pytester.makeini(f"[pytest]\nxpnet_backends = {standing}")
        result = pytester.runpytest("-rE")
        result.assert_outcomes(**outcomes)
        assert result.ret == (pytest.ExitCode.TESTS_FAILED if "errors" in outcomes else 0)
    result = pytester.runpytest("--backends", "numpy,torch!")
    result.assert_outcomes(passed=2, errors=1)
    assert "During handling" not in "\n".join(result.outlines)
    pytester.makeini("[pytest]")
    result = pytester.runpytest("--backends", "keras!")
    result.stderr.fnmatch_lines(['*unknown backend "keras!", choose from numpy, *'])


def test_strict_is_never_skipped(pytester, missing):
    missing("strict")
    pytester.makepyfile(TEST)
    pytester.makeini("[pytest]\nxpnet_backends = strict")
    result = pytester.runpytest()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["strict:device1: strict is not installed: install it"])


@pytest.mark.parametrize("name", ["numpy:9", "torch:cuda:7", "torch:meta", "strict:device9"])
def test_a_device_that_is_not_there_is_refused_alike(pytester, name):
    library = name.partition(":")[0]
    if library != "strict" and not find_spec(library):
        pytest.skip(f"{library} is not installed")
    pytester.makepyfile(TEST)
    result = pytester.runpytest_subprocess("--backends", name)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f'{name}: * has no device "{name.partition(":")[2]}" here* choose one of *'])


def test_choices_add_up_and_replace_the_standing_one(pytester):
    pytester.makepyfile(TEST)
    pytester.makeini("[pytest]\nxpnet_backends = strict numpy-readonly")
    for options, ids in [
        ([], ["numpy-readonly", "strict:device1"]),
        (
            ["--backends", "numpy-readonly", "--backends", "strict:CPU_DEVICE,jax"],
            ["numpy-readonly", "jax", "strict:CPU_DEVICE"],
        ),
        (["--backends=torch"], ["torch"]),
    ]:
        lines = pytester.runpytest("--collect-only", "-q", *options).outlines
        assert [line.partition("test_it")[2] for line in lines if "test_it" in line] == [f"[{name}]" for name in ids]
    pytester.makepyprojecttoml("[tool.pytest.ini_options]\nxpnet_backends = ['numpy', 'strict']")
    (pytester.path / "tox.ini").unlink()
    pytester.runpytest().assert_outcomes(passed=3)
    pytester.makepyprojecttoml("[tool.pytest.ini_options]\nxpnet_backends = ['keras']")
    result = pytester.runpytest()
    result.stderr.fnmatch_lines(['*xpnet_backends: unknown backend "keras", choose from numpy, *'])
    assert result.ret == pytest.ExitCode.USAGE_ERROR


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
    result = pytester.runpytest_subprocess("-v", "--backends", chosen)
    result.stdout.fnmatch_lines(["*test_it[[]strict:CPU_DEVICE[]] PASSED*", "numpy:9: NumPy has no device *"])
    assert sum(result.parseoutcomes().values()) == 3
    outcomes = pytester.runpytest_subprocess("-m", "not gpu", "--backends", chosen).parseoutcomes()
    assert outcomes == {"passed": 1, "errors": 1, "deselected": 1}


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


# From fixtures of any scope


SCOPED = """
import pytest
MADE = []
@pytest.fixture(scope="{scope}")
def table(xp, device, backend):
    x = xp.asarray([3.0, -1.0], device=device)
    MADE.append(backend.name)
    return x[x > 0] if backend.name == "strict" else x  # not held to what one test needs
@pytest.fixture
def held(xp, table):
    return xp.asarray(table, copy=True)
class TestTable:
    def test_one(self, backend, table, xp):
        assert backend.owns(table) and table.dtype == xp.float64
        assert backend.name != "strict" or table.shape == (1,)
    def test_two(self, table, held):
        pass
    @pytest.mark.needs("boolean_indexing", reason="picks by a mask")
    def test_three(self, table):
        table[table > 0]
    def test_four(self, table, backend):
        if backend.name == "strict":
            with pytest.raises(RuntimeError, match="boolean_indexing"):
                table[table > 0]
            with pytest.raises(AssertionError, match="the host must wait"):
                float(table[0])
"""


@pytest.mark.parametrize(("scope", "made"), [("class", 1), ("module", 1), ("package", 1), ("session", 1)])
def test_a_fixture_of_any_scope_may_ask_for_a_backend_and_is_made_once(pytester, scope, made):
    after = "def test_after(): assert len(MADE) == COUNT\n"
    free = """
def test_free():
    import array_api_strict as xp
    assert xp.get_array_api_strict_flags()["boolean_indexing"] and float(xp.asarray(1.0)) == 1.0
"""
    pytester.makepyfile(
        test_a=SCOPED.format(scope=scope) + free,
        test_b="from test_a import MADE\nCOUNT = " + str(3 * made) + "\n" + after,
    )
    pytester.runpytest("--backends", "numpy,strict").assert_outcomes(passed=3 * 4 + 2)


def test_a_long_lived_backend_has_float64_on_jax(pytester):
    pytest.importorskip("jax")
    pytester.makepyfile("""
import pytest
@pytest.fixture(scope="module")
def table(xp, device):
    return xp.ones(2, dtype=xp.float64, device=device)
def test_one(table, xp): assert table.dtype == (table + xp.zeros(2)).dtype == xp.float64
def test_two(table, backend): assert backend.asarray([1.0]).dtype == table.dtype
""")
    pytester.makepyfile(test_z="import jax\ndef test_off(): assert not jax.config.jax_enable_x64")
    pytester.runpytest_subprocess("--backends", "jax").assert_outcomes(passed=3)


def test_what_is_missing_fails_in_a_long_lived_fixture_too(pytester):
    pytester.makepyfile("""
import pytest
@pytest.fixture(scope="module")
def table(xp): return xp.ones(2)
def test_one(table): pass
def test_two(table): pass
""")
    pytester.makeini("[pytest]\nxpnet_backends = numpy:9 numpy")
    pytester.runpytest().assert_outcomes(passed=4, skipped=2)
    pytester.runpytest("--backends", "numpy:9,numpy").assert_outcomes(passed=4, errors=2)


def test_tests_without_a_long_lived_fixture_stay_in_the_order_of_the_file(pytester):
    pytester.makepyfile("def test_a(xp): pass\ndef test_b(): pass\ndef test_c(backend): pass")
    lines = pytester.runpytest("--collect-only", "-q", "--backends", "numpy,strict").outlines
    ids = [f"[{name}]" for name in ("numpy", "numpy-readonly", "strict:device1")]
    expected = [f"test_a{i}" for i in ids] + ["test_b"] + [f"test_c{i}" for i in ids]
    assert [line.rpartition("::")[2] for line in lines if "::" in line] == expected


def test_hypothesis_finds_nothing_wrong_with_the_fixtures(pytester):
    pytester.makepyfile("""
from hypothesis import given, strategies as st
@given(st.integers(0, 3))
def test_it(backend, xp, device, n):
    assert xp.ones(n, device=device).shape == (n,)
""")
    pytester.runpytest_subprocess("-W", "error", "--backends", "numpy,strict").assert_outcomes(passed=3)


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


ONCE = """
import importlib.metadata, pathlib, sys
import pytest
found = importlib.metadata.distributions
def distributions(**options):
    own = importlib.metadata.PathDistribution(pathlib.Path("mine-1.dist-info").resolve())
    return [own, *(d for d in found(**options) if d.name != "xpnet")]
importlib.metadata.distributions = distributions
sys.exit(pytest.main(sys.argv[1:]))
"""


CONFTEST = 'pytest_plugins = ["pytest_xpnet"]'


@pytest.mark.parametrize(
    ("options", "conftest"),
    [([], ""), (["-p", "pytest_xpnet"], ""), (["-p", "pytest_xpnet"], CONFTEST), (["-p", "no:xpnet"], "")],
    ids=["by itself", "by name", "by name and in conftest", "left out"],
)
def test_the_plugin_may_be_asked_for_by_name_too(pytester, monkeypatch, options, conftest):
    """The entry point has the module's own name, so that pytest knows it again."""
    pytester.makeconftest(conftest)
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    entries = [f"{name} = {module}" for name, module in project["entry-points"]["pytest11"].items()]
    folder = pytester.mkdir("mine-1.dist-info")
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    (folder / "entry_points.txt").write_text("\n".join(["[pytest11]", *entries]))
    monkeypatch.setenv("PYTHONPATH", str(Path(pytest_xpnet.__file__).parent))
    pytester.makepyfile(TEST, once=ONCE)
    done = pytester.run(sys.executable, "once.py", *options, *([] if "no:xpnet" in options else ["--backends=numpy"]))
    done.assert_outcomes(**({"errors": 1} if "no:xpnet" in options else {"passed": 2}))


def test_the_plugin_imports_neither_xpnet_nor_numpy_before_a_test_asks():
    code = (
        "import sys, pytest; before = set(sys.modules); import pytest_xpnet; print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['pytest_xpnet']"
