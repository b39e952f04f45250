import os
import subprocess
import sys

import numpy as np
import pytest

import xpnet as xn
from xpnet import backends
from xpnet.backends import backend_of
from xpnet.backends.base import Backend
from xpnet.errors import BackendError
from xpnet.parameters import Parameter, lay_out
from xpnet.testing import assert_close


@pytest.fixture(autouse=True)
def no_choice_yet(monkeypatch):
    """As in a fresh process: nothing in use, nothing in the environment."""
    monkeypatch.delenv("XPNET_BACKEND", raising=False)
    monkeypatch.setattr(backends, "_process", (None,))


def gpu_answers():
    return "cupy" in xn.available_backends()


# The switch


def test_use_as_a_statement():
    xn.use("strict")
    assert xn.backend().name == "strict"
    xn.use("numpy")
    assert xn.backend().name == "numpy"


def test_use_as_a_block_puts_back_what_was_before():
    xn.use("numpy")
    with xn.use("strict:device1") as inner:
        assert xn.backend() is inner
        assert str(inner.device).find("device1") >= 0
        with xn.use("numpy"):
            assert xn.backend().name == "numpy"
        assert xn.backend().name == "strict"
    assert xn.backend().name == "numpy"
    with pytest.raises(KeyError), xn.use("strict"):
        raise KeyError
    assert xn.backend().name == "numpy"


def test_use_takes_a_backend(backend):
    with xn.use(backend):
        assert xn.backend() is backend
        assert backend.owns(xn.Linear(2, 2).init())


def test_a_bad_name_leaves_the_choice_alone():
    xn.use("strict")
    with pytest.raises(BackendError):
        xn.use("keras")
    assert xn.backend().name == "strict"


def test_the_environment_chooses_below_use_and_backend(monkeypatch):
    monkeypatch.setenv("XPNET_BACKEND", "strict:device2")
    assert xn.backend().name == "strict"
    assert xn.backend("numpy").name == "numpy"
    with xn.use("numpy"):
        assert xn.backend().name == "numpy"
    monkeypatch.setenv("XPNET_BACKEND", "keras")
    with pytest.raises(BackendError, match="unknown backend"):
        xn.backend()


def test_auto_says_what_it_chose_and_why():
    chosen = xn.backend("auto")
    assert chosen.name == ("cupy" if gpu_answers() else "numpy")
    assert chosen.reason.startswith("chosen by auto, because ")
    assert chosen.reason in repr(chosen)
    assert xn.backend().reason == chosen.reason
    assert xn.backend("numpy").reason == "asked for by name"


def test_an_unknown_name_lists_the_known():
    with pytest.raises(BackendError) as caught:
        xn.backend("tensorflow")
    assert str(caught.value) == 'unknown backend "tensorflow": choose one of auto, numpy, cupy, torch, jax, strict'


@pytest.mark.parametrize("name", ["cupy", "cuda", "gpu", "cupy:0"])
def test_a_name_never_falls_back(name):
    if gpu_answers():
        assert xn.backend(name).name == "cupy"
        return
    with pytest.raises(BackendError) as caught:
        xn.backend(name)
    assert any(remedy in str(caught.value) for remedy in ("pip install", "install NVIDIA's driver", "nvidia-smi"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("numpy:cuda", 'NumPy has no device "cuda" here: choose one of'),
        ("strict:device9", 'array-api-strict has no device "device9" here: choose one of'),
        ("torch:cuda:99", 'PyTorch has no device "cuda:99" here'),
        ("torch:toaster", 'PyTorch has no device "toaster" here'),
        ("torch:meta", 'PyTorch has no device "meta" here (Cannot copy out of meta tensor; no data!): choose'),
        ("jax:tpu:99", 'JAX has no device "tpu:99" here: choose one of'),
        ("jax:cpu:x", 'JAX has no device "cpu:x" here: choose one of'),
    ],
)
def test_a_device_that_is_not_there(name, text):
    library = name.partition(":")[0]
    if library not in xn.available_backends():
        pytest.skip(f"{library} is not installed")
    with pytest.raises(BackendError) as caught:
        xn.backend(name)
    assert str(caught.value).startswith(text)


def test_a_device_may_follow_the_name(backend):
    for device in xn.available_backends()[backend.name]:
        named = xn.backend(f"{backend.name}:{device}")
        assert named.name == backend.name
        assert named.owns(named.asarray([1.0]))


def test_available_backends_are_those_that_open():
    found = xn.available_backends()
    assert found["numpy"] == ["cpu"]
    assert found["strict"] == ["CPU_DEVICE", "device1", "device2"]
    for name, devices in found.items():
        assert devices
        assert xn.backend(name).name == name


def test_a_missing_library_says_how_to_get_it():
    code = (
        "import sys\n"
        "for name in ('torch', 'jax', 'cupy', 'array_api_strict'): sys.modules[name] = None\n"
        "import xpnet as xn\n"
        "print(xn.available_backends(), xn.backend().name)\n"
        "for name in ('torch', 'jax', 'cupy', 'strict'):\n"
        "    try: xn.backend(name)\n"
        "    except xn.BackendError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "{'numpy': ['cpu']} numpy"
    for line, name in zip(lines[1:], ("PyTorch", "JAX", "CuPy", "array-api-strict"), strict=True):
        assert line.startswith(f"{name} is not installed: pip install 'xpnet[")


BROKEN = {
    "torch": "raise OSError('libc10.so: cannot open shared object file\\nand more')",
    "jax": "raise ImportError('this jax needs another jaxlib')",
    "cupy": "raise RuntimeError('\\n=====\\nFailed to import CuPy.\\n=====')",
    "array_api_strict": "1 / 0",
}


def test_a_broken_library_is_reported_and_breaks_nothing_else(tmp_path):
    for library, code in BROKEN.items():
        (tmp_path / library).mkdir()
        (tmp_path / library / "__init__.py").write_text(code)
    code = (
        "import xpnet as xn\n"
        "print(xn.available_backends(), xn.backend())\n"
        "for name in ('torch', 'jax', 'cupy', 'strict'):\n"
        "    try: xn.backend(name)\n"
        "    except xn.BackendError as error: print(error)\n"
        "from xpnet.cli import main\n"
        "main(['doctor'])\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": path}
    )
    first, *lines = done.stdout.splitlines()
    reasons = (
        "OSError: libc10.so: cannot open shared object file",
        "ImportError: this jax needs another jaxlib",
        "RuntimeError: Failed to import CuPy.",
        "ZeroDivisionError: division by zero",
    )
    expected = [
        f"{library} is installed, but does not work here ({reason}): reinstall it, or use another backend"
        for library, reason in zip(("torch", "jax", "cupy", "strict"), reasons, strict=True)
    ]
    assert first == f"{{'numpy': ['cpu']}} <xpnet backend numpy on cpu: chosen by auto, because {expected[2]}>"
    assert lines[:4] == expected
    assert all(any(reason in line for line in lines[4:]) for reason in reasons)


# Arrays in and out


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint8", "bool"])
def test_there_and_back(backend, dtype):
    host = np.asarray([[0, 1, 2], [3, 4, 5]]).astype(dtype)
    array = backend.asarray(host)
    assert backend.owns(array)
    assert array.dtype == getattr(backend.xp, dtype)
    home = backend.asnumpy(array)
    assert isinstance(home, np.ndarray)
    assert home.dtype == host.dtype
    assert np.array_equal(home, host)


@pytest.mark.parametrize(
    "host", [np.zeros((2, 3))[:, ::2], np.zeros((3, 2)).T, np.float64(3.0), np.zeros((0, 4)), [1, 2]]
)
def test_any_host_data_is_taken(backend, host):
    array = backend.asarray(host)
    assert tuple(array.shape) == np.shape(host)
    assert_close(backend, array, np.asarray(host))


def test_asarray_casts_and_copies_on_demand(backend):
    host = np.asarray([1.0, 2.0])
    assert backend.asarray(host, dtype="float32").dtype == backend.xp.float32
    own = backend.asarray(host, copy=True)
    own *= 0.0
    assert host.tolist() == [1.0, 2.0]
    fixed = host.copy()
    fixed.flags.writeable = False
    assert_close(backend, backend.asarray(fixed), [1.0, 2.0])


def test_owns_its_own_arrays_alone(backend):
    other = xn.backend("strict" if backend.name == "numpy" else "numpy")
    assert not backend.owns(other.asarray([1.0]))
    assert not backend.owns([1.0])
    if backend.name == "strict":
        assert not backend.owns(xn.backend("strict:device2").asarray([1.0]))


def test_backend_of_an_array(backend):
    array = backend.asarray([1.0])
    found = backend_of(array)
    assert found.name == backend.name
    assert found.device == backend.device
    assert found.owns(array)
    backend.synchronize()
    with pytest.raises(TypeError, match=r"expected an array, got a list: make one with backend\.asarray"):
        backend_of([1.0])


def test_any_library_of_the_standard_has_the_plain_backend():
    """array-api-strict, hidden behind another name, stands for a library that xpnet does not know."""
    strict = xn.backend("strict")
    plain = Backend("unknown", strict.xp, strict.device)
    assert plain.owns(plain.asarray([1.0]))
    assert plain.asnumpy(plain.asarray([1.0, 2.0])).tolist() == [1.0, 2.0]
    net = xn.Sequential(xn.Linear(2, 3), xn.Tanh())
    y, backward = net(net.init(0, plain, "float64"), plain.asarray([[1.0, 2.0]]), backend=plain)
    assert backward(y).shape == (net.size,)


def test_jax_without_64_bit_types_says_so():
    if "jax" not in xn.available_backends():
        pytest.skip("jax is not installed")
    code = (
        "import numpy as np, xpnet as xn\n"
        "jax = xn.backend('jax')\n"
        "print(jax.asarray(np.arange(3)).dtype, jax.asarray([1.5], dtype='float32').dtype)\n"
        "for call in (lambda: jax.asarray([1.5]), lambda: jax.asarray([1], dtype='int64')):\n"
        "    try: call()\n"
        "    except TypeError as error: print(error)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "JAX_ENABLE_X64"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines() == [
        "int32 float32",
        "JAX makes float32 of float64: pass float32, or set jax.config.update('jax_enable_x64', True)",
        "jax made int32 of int64: switch 64-bit types on first",
    ]


# The seams


def test_matmul(backend, rng):
    a, b = rng.normal(size=(3, 4)), rng.normal(size=(4, 2))
    out = backend.asarray(np.zeros((3, 2)), copy=True)
    for given in (None, out):
        y = backend.matmul(backend.asarray(a), backend.asarray(b), out=given)
        assert_close(backend, y, a @ b)
        assert y is out or not backend.asnumpy(out).any() or given is None


def test_join_makes_one_vector_of_gradients(backend):
    windows = lay_out([Parameter("w", (2, 3)), Parameter("b", (3,))])
    theta = backend.asarray(np.zeros(9), dtype="float32", copy=True)
    outs, finish = backend.join(theta, windows)
    assert len(outs) == 2
    w, b = (backend.asarray(h, dtype="float32") for h in (np.arange(6).reshape(2, 3), [6, 7, 8]))
    if outs[0] is not None:  # one gradient written into its window, the other the layer's own array
        outs[0][...] = w
        w = outs[0]
    vector = finish((w, b))
    assert_close(backend, vector, np.arange(9.0), multiple=0)
    assert vector.dtype == theta.dtype
    assert_close(backend, theta, np.zeros(9), multiple=0)
    outs, finish = backend.join(theta[:0], ())
    assert finish(()).shape == (0,)


def rule(xp, theta, v, g, rate):
    v += g
    theta -= rate * v
    return theta, v


def test_map_is_made_once_for_each_rule(backend):
    """Also by the backend that an array itself leads to: else JAX would compile anew at every step."""
    assert backend.map(rule) is backend.map(rule)
    first, second = (backend_of(backend.asarray([1.0])) for _ in range(2))
    assert first is second
    assert first.map(rule) is second.map(rule)


@pytest.mark.parametrize("gate", [None, True, False])
def test_map_leaves_all_as_it_was_where_the_gate_is_shut(backend, gate):
    state = tuple(backend.asarray([1.0, 2.0], copy=True) for _ in range(2))
    door = None if gate is None else backend.asarray(np.asarray(gate))
    theta, v = backend.map(rule)(state, (backend.asarray([1.0, 1.0]),), (0.5,), door)
    assert_close(backend, theta, [1.0, 2.0] if gate is False else [0.0, 0.5], multiple=0)
    assert_close(backend, v, [1.0, 2.0] if gate is False else [2.0, 3.0], multiple=0)


def test_compile_does_k_steps(backend):
    """`xs` holds an array on the device, a list of integers and a list of rows of numbers, each of length K."""
    xp = backend.xp

    def step(carry, fixed, x):
        theta, count = carry
        shift, number, (rate, twice) = x
        theta = theta - rate * (theta - fixed) + twice * shift
        return (theta, count + number), (xp.sum(theta), xp.astype(count, theta.dtype))

    shifts = np.asarray([[0.5, 1.0], [0.0, 0.25], [2.0, -1.0]], dtype="float32")
    xs = (backend.asarray(shifts), [0, 1, 2], [(0.125, 2.0), (0.25, 2.0), (0.5, 4.0)])

    def start():
        count = backend.asarray(np.asarray(0, dtype="int32"), copy=True)
        return backend.asarray([1.0, 5.0], dtype="float32", copy=True), count

    fixed = backend.asarray([2.0, 2.0], dtype="float32")
    (theta, count), (sums, counts) = backend.compile(step)(start(), fixed, xs)

    carry, results = start(), []
    for k in range(3):
        carry, result = step(carry, fixed, (xs[0][k, :], xs[1][k], xs[2][k]))
        results.append(float(backend.asnumpy(result[0])))
    assert theta.dtype == sums.dtype == xp.float32
    assert_close(backend, theta, backend.asnumpy(carry[0]), multiple=4)
    assert_close(backend, sums, results, multiple=4)
    assert_close(backend, counts, [0.0, 0.0, 1.0])
    assert backend.asnumpy(count) == 3


def test_an_old_array_api_compat_is_named_where_pytorch_needs_a_newer(monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    from xpnet.backends import torch

    def maximum(a, b):
        raise TypeError("maximum(): argument 'other' (position 2) must be Tensor, not float")

    monkeypatch.setattr(torch.xp, "maximum", maximum)
    with pytest.raises(BackendError, match=r"^PyTorch needs array-api-compat 1\.16: pip install -U array-api-compat$"):
        torch.connect("")


def test_jax_refuses_integers_that_it_would_wrap():
    pytest.importorskip("jax", reason="JAX is not installed")
    code = "import numpy as np, xpnet as xn; xn.backend('jax').asarray(np.asarray([0, 2**32]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.endswith("TypeError: JAX makes int32 of int64, which cannot hold 0..4294967296\n")


def test_strict_says_which_of_its_devices_computes():
    assert [xn.backend(f"strict:{name}").describe() for name in ("CPU_DEVICE", "device2")] == ["CPU_DEVICE", "device2"]
