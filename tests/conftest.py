import os
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# The backend fixture is one object for all examples of a test, on purpose.
settings.register_profile(
    "xpnet",
    deadline=None,
    max_examples=25,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.register_profile("long", settings.get_profile("xpnet"), max_examples=800)
settings.load_profile("xpnet")


SOON = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)
"""Has XLA compile soon rather than well; at a flag that it does not know it ends the process."""
TRIED = (0, 6), (0, 11)
"""From which version of JAX on these flags are known, and before which one."""


def compile_soon():
    """Let JAX compile the tests' thousands of tiny programs quickly; `xpnet selfcheck` is tested as users have it."""
    try:
        found = tuple(map(int, version("jax").split(".")[:2]))
    except (PackageNotFoundError, ValueError):
        return
    if TRIED[0] <= found < TRIED[1]:
        os.environ.setdefault("XLA_FLAGS", SOON)


def pytest_addoption(parser):
    text = "run what takes a backend on the real CuPy, its CUDA driver played by the CPU: see tests/standin"
    parser.addoption("--stand-in", action="store_true", help=text)


def pytest_configure(config):
    """Let JAX compile soon and keep it; install the stand-in, if it was asked for, and choose the tests it is for."""
    compile_soon()
    if hasattr(config, "cache"):
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(config.cache.mkdir("jax")))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    if config.getoption("--stand-in"):
        import standin

        try:
            standin.install()
        except standin.build.MissingError as problem:
            raise pytest.UsageError(f"--stand-in: {problem}") from None
        config.option.backends = config.option.backends or ["cupy"]
        config.option.markexpr = config.option.markexpr or "gpu"


def pytest_ignore_collect(collection_path, config):
    """Leave the stand-in's own tests to `--stand-in`."""
    return True if collection_path.name == "standin" and not config.getoption("--stand-in") else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Skip on the stand-in what needs a sort: CuPy's is in libraries that NVIDIA's compiler has made already."""
    try:
        return (yield)
    except Exception as error:
        if item.config.getoption("--stand-in") and "failed inside CUB" in str(error):
            pytest.skip("needs CuPy's sort, compiled code of CUB, which only a GPU can run")
        raise


def pytest_sessionfinish(session):
    """Fail if NVIDIA's compiler refused a kernel that ran on the stand-in."""
    if session.config.getoption("--stand-in"):
        from standin import kernels

        for refused in kernels.verdicts():
            print(f"\n{refused}")
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def _no_misuse(request):
    """Fail a test in which the stand-in saw something that a real device would not have survived."""
    yield
    if request.config.getoption("--stand-in"):
        import standin

        assert standin.misuses() == []


def pytest_collection_modifyitems(items):
    """Run the tests that fork this process first: libraries that are imported later start threads."""
    items.sort(key=lambda item: item.get_closest_marker("forks") is None)
    if os.name == "nt":
        skip = pytest.mark.skip(reason="needs what Windows has not: pyproject.toml says what at the marker `posix`")
        for item in items:
            if item.get_closest_marker("posix") or item.get_closest_marker("forks"):
                item.add_marker(skip)


@pytest.fixture
def rng():
    return np.random.default_rng(1234)


@pytest.fixture
def gpu():
    """The CuPy backend, where there is a device; its own sentence says why not."""
    import xpnet as xn

    try:
        return xn.backend("cupy")
    except xn.BackendError as problem:
        pytest.skip(str(problem))
