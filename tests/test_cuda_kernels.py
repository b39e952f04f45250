"""Kernels without a GPU: rules traced and read back, the C++ run on the CPU, and compiled for GPUs by NVRTC."""

import ctypes
import warnings

import cuda_host
import numpy as np
import pytest

from xpnet import random
from xpnet.backends.cuda import dense_sources, kernels, sources, symbols
from xpnet.losses import cross_entropy
from xpnet.optimizers import adam, decay, lion, nadam, rmsprop, sgd
from xpnet.selfcheck.numbers import RULES

RULE = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
DTYPE = pytest.mark.parametrize("dtype", ["float32", "float64"])


def numbers(rule, dtype, n=101, seed=0):
    rng = np.random.default_rng(seed)
    state, inputs, scalars = RULES[rule]
    arrays = [np.abs(rng.normal(size=n)).astype(dtype) for _ in range(state + inputs)]
    return arrays[:state], arrays[state:], rng.uniform(0.1, 0.9, scalars).tolist()


RULE_NAMES = [
    name for room in (adam, decay, lion, nadam, rmsprop, sgd) for name in vars(room) if name.endswith("_rule")
]


def test_every_rule_is_looked_at():
    assert {r.__name__ for r in RULES} == set(RULE_NAMES)


@RULE
@DTYPE
def test_a_traced_rule_says_what_the_rule_says(rule, dtype):
    state, inputs, scalars = numbers(rule, dtype)
    found = symbols.trace(rule, *RULES[rule]).interpret(state, inputs, scalars)
    expected = rule(np, *(s.copy() for s in state), *inputs, *scalars)
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_array_equal(f, e)


@cuda_host.needs_compiler
@RULE
@DTYPE
@pytest.mark.parametrize("alive", [True, False])
@pytest.mark.parametrize("by_value", [True, False])
def test_the_text_of_a_rule_says_what_the_rule_says(rule, dtype, alive, by_value):
    state, inputs, scalars = numbers(rule, dtype)
    new = [s.copy() for s in state]
    program = symbols.trace(rule, *RULES[rule])
    number = ctypes.c_float if dtype == "float32" else ctypes.c_double
    given = [("T", f"c{k}", "scalar") for k in range(len(scalars))] if by_value else [("T", "scalars", "raw")]
    parameters = [("T", f"x{k}", "in") for k in range(len(inputs))] + [*given, ("bool", "alive", "raw")]
    parameters += [("T", f"s{k}", "out") for k in range(len(state))]
    values = [*map(number, scalars)] if by_value else pointers(np.asarray(scalars, dtype=dtype))
    run = cuda_host.elementwise(tuple(parameters), program.body(by_value), dtype)
    run(ctypes.c_longlong(new[0].size), *pointers(*inputs), *values, *pointers(np.asarray([alive]), *new))
    expected = rule(np, *(s.copy() for s in state), *inputs, *scalars) if alive else state
    for f, e in zip(new, expected, strict=True):
        np.testing.assert_array_equal(f, e)


def all_operations(xp, s, x, c):
    y = -x + xp.where((x > c) & (s <= 2.0) if xp is np else xp.logical_and(x > c, s <= 2.0), xp.maximum(x, s), s / x)
    y = xp.exp(-y * y) + xp.log1p(xp.abs(y)) - xp.tanh(xp.minimum(y, 1.0)) * xp.expm1(-s) + xp.log(s) + xp.sqrt(s)
    return (y + xp.square(x) + (1.0 - 0.999) * x**2,)


@cuda_host.needs_compiler
@DTYPE
def test_every_operation_that_a_rule_may_use(dtype):
    rng = np.random.default_rng(0)
    s, x = rng.uniform(0.5, 2.0, 50).astype(dtype), rng.uniform(0.5, 2.0, 50).astype(dtype)
    program = symbols.trace(all_operations, 1, 1, 1)
    expected = all_operations(np, s, x, np.dtype(dtype).type(0.9))[0]
    (mirrored,) = program.interpret([s], [x], [0.9])
    np.testing.assert_array_equal(mirrored, expected)
    new, c, alive = s.copy(), np.asarray([0.9], dtype=dtype), np.asarray([True])
    kinds = (("T", "x0", "in"), ("T", "scalars", "raw"), ("bool", "alive", "raw"), ("T", "s0", "out"))
    run = cuda_host.elementwise(kinds, program.body(), dtype)
    run(ctypes.c_longlong(50), *(a.ctypes.data_as(ctypes.c_void_p) for a in (x, c, alive, new)))
    np.testing.assert_allclose(new, expected, rtol=16 * np.finfo(dtype).eps)


def test_constants_are_folded_in_double():
    program = symbols.trace(lambda xp, theta, g: (theta - (1.0 - 0.999) * g,), 1, 1, 0)
    assert f"T({1.0 - 0.999!r})" in program.body()
    assert symbols.trace(lambda xp, theta: (theta * xp.sqrt(2.0),), 1, 0, 0).body().count("sqrt") == 0


def test_constants_that_are_not_finite():
    bodies = [symbols.literal(float(x)) for x in ("inf", "-inf", "nan")]
    assert ["7f800000" in b or "ff800000" in b or "7fffffff" in b for b in bodies] == [True] * 3


def branches(xp, theta, g):
    return (theta if g > theta else g,)


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (branches, "a branch on a value"),
        (lambda xp, theta, g: (xp.sort(theta),), "xp.sort"),
        (lambda xp, theta, g: (theta**3,), "a power of 3"),
        (lambda xp, theta, g: (theta, g), "it returns 2 arrays for a state of 1"),
        (lambda xp, theta, g: (theta > g,), "something else than numbers"),
        (lambda xp, theta, g: (theta + "1.0",), "add of a str"),
        (lambda xp, theta, g: (theta.sum(),), "no attribute 'sum'"),
    ],
)
def test_what_cannot_become_a_kernel_says_why(rule, reason):
    with pytest.raises(symbols.TraceError, match=reason.replace("(", r"\(")):
        symbols.trace(rule, 1, 1, 0)


def pointers(*arrays):
    return [a.ctypes.data_as(ctypes.c_void_p) for a in arrays]


@cuda_host.needs_compiler
@DTYPE
@pytest.mark.parametrize(("n", "blocks"), [(1, 1), (100, 1), (10_007, 3)])
def test_the_norm_kernel(dtype, n, blocks):
    g = np.random.default_rng(n).normal(size=n).astype(dtype)
    partial, ticket, norm = np.full(blocks, np.nan, dtype), np.zeros(1, np.uint32), np.zeros((), dtype)
    run, alive = cuda_host.kernel(sources.reductions(dtype), "measure"), np.asarray(False)
    grid = ctypes.c_uint(blocks), ctypes.c_uint(1), ctypes.c_uint(64), *pointers(g), ctypes.c_longlong(n)
    for before, loss, expected in ((True, 1.0, True), (False, 1.0, False), (True, np.inf, False)):
        losses = np.asarray(loss, dtype)
        run(*grid, *pointers(np.asarray(before), losses, partial, ticket, norm, alive))
        np.testing.assert_allclose(norm, np.sqrt(np.sum(g.astype(np.float64) ** 2)), rtol=64 * np.finfo(dtype).eps)
        assert bool(alive) is expected
        assert ticket[0] == 0, "the ticket must be ready for the next launch"
    g[n // 2] = np.nan
    run(*grid, *pointers(np.asarray(True)), None, *pointers(partial, ticket, norm, alive))
    assert not alive
    assert np.isnan(norm)


@cuda_host.needs_compiler
@DTYPE
@pytest.mark.parametrize(("n", "c", "blocks"), [(1, 2, 1), (5, 3, 1), (67, 40, 4)])
def test_the_cross_entropy_kernel(dtype, n, c, blocks):
    rng = np.random.default_rng(n)
    scores, labels = 10 * rng.normal(size=(n, c)).astype(dtype), rng.integers(0, c, n).astype(np.int32)
    gradient, value = np.empty_like(scores), np.zeros((), dtype)
    partial, ticket = np.full(blocks, np.nan, dtype), np.zeros(1, np.uint32)
    run = cuda_host.kernel(sources.reductions(dtype), "cross_entropy")

    def launch():
        sizes = ctypes.c_longlong(n), ctypes.c_int(c), ctypes.c_double(1.0 / n)
        run(ctypes.c_uint(blocks), ctypes.c_uint(1), ctypes.c_uint(64), *pointers(scores, labels), *sizes,
            *pointers(gradient, partial, ticket, value))  # fmt: skip

    launch()
    expected, dexpected = cross_entropy(scores, labels)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(value, expected, rtol=64 * eps)
    np.testing.assert_allclose(gradient, dexpected, atol=64 * eps / n)
    labels[-1] = c
    launch()
    assert np.isnan(value), "a label out of range makes the loss NaN"


@cuda_host.needs_compiler
@pytest.mark.parametrize("key", [0, 7, -(2**31), 2**31 - 1])
@pytest.mark.parametrize("p", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("row", [0, 5])
def test_the_mask_kernel_gives_the_bits_of_every_other_backend(key, p, row):
    kinds = (
        ("int32", "key", "raw"),
        ("int32", "stream", "scalar"),
        ("int32", "threshold", "scalar"),
        ("int64", "first", "scalar"),
        ("bool", "dropped", "out"),
    )
    run = cuda_host.elementwise(kinds, sources.MASK_OPERATION, "float32")
    dropped, keys = np.zeros(10_000, dtype=bool), np.asarray([key], dtype=np.int32)
    stream, threshold = random.digest("2.1", 32) - 2**31, min(round(p * 2**32), 2**32 - 1) - 2**31
    numbers = ctypes.c_int(stream), ctypes.c_int(threshold), ctypes.c_longlong(row)
    run(ctypes.c_longlong(10_000), *pointers(keys), *numbers, *pointers(dropped))
    np.testing.assert_array_equal(dropped, random.bernoulli(np, (10_000,), p, key, "2.1", "cpu", row))


# ---- NVRTC: every kernel for three generations of GPUs; its wheels need no driver ----


@pytest.fixture(scope="module")
def nvrtc():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed: kernels cannot be compiled by NVRTC")
    try:
        from cupy_backends.cuda.libs import nvrtc

        nvrtc.getVersion()
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"NVRTC is not installed: {error}")
    options = (*cupy._core.core.assemble_cupy_compiler_options(()), "-ftz=true", "--device-as-default-execution-space")

    def compile_for(architecture, source):
        program = nvrtc.createProgram(source, "kernel.cu", (), ())
        try:
            nvrtc.compileProgram(program, [*options, f"-arch=sm_{architecture}"])
            return nvrtc.getCUBIN(program)
        except RuntimeError as error:
            raise AssertionError(nvrtc.getProgramLog(program)) from error
        finally:
            nvrtc.destroyProgram(program)

    return compile_for


def cupy_source(read, written, operation, dtype):
    """The source that CuPy makes of an ElementwiseKernel, by CuPy's own generator."""
    import cupy
    from cupy._core import _kernel, core

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kernel = cupy.ElementwiseKernel(read, written, operation, "kernel", no_return=True)
    infos = []
    for p in (*kernel.in_params, *kernel.out_params):
        kind = np.dtype(dtype) if p.dtype is None else p.dtype
        scalar = p.is_const and not p.raw and p.dtype is not None
        which = (3, cupy._core._scalar.CScalar, kind, 0) if scalar else (1, cupy.ndarray, kind, 1)
        infos.append(_kernel._ArgInfo(*which, True, True))
    infos.append(_kernel._ArgInfo(2, cupy._core._carray.Indexer, None, 1, True, True))
    types = _kernel._TypeMap((("T", np.dtype(dtype)),))
    headers = "".join(f"#include <{name}>\n" for name in core._cupy_header_list)
    return headers + _kernel._get_elementwise_kernel_code(tuple(infos), types, kernel.params, operation, "kernel", "")


def elementwise_kernels():
    for rule, counts in RULES.items():
        program = symbols.trace(rule, *counts)
        for by_value in (False, True):
            yield rule.__name__, (*kernels.rule_parameters(program, by_value), program.body(by_value))
    program = symbols.trace(all_operations, 1, 1, 1)
    yield "all_operations", (*kernels.rule_parameters(program), program.body())
    yield "mask", (*kernels.MASK_PARAMETERS, sources.MASK_OPERATION)
    yield "collect", kernels.COLLECT


@pytest.mark.parametrize("architecture", [80, 90, 100])
@DTYPE
def test_nvrtc_compiles_every_elementwise_kernel(nvrtc, architecture, dtype):
    for name, kernel in elementwise_kernels():
        assert len(nvrtc(architecture, cupy_source(*kernel, dtype))) > 1000, name


@pytest.mark.parametrize("architecture", [80, 90, 100])
@DTYPE
def test_nvrtc_compiles_every_other_kernel(nvrtc, architecture, dtype):
    for labels in kernels.LABELS:
        assert len(nvrtc(architecture, sources.reductions(dtype, labels))) > 1000
    assert len(nvrtc(architecture, dense_sources.small_products())) > 1000
    assert len(nvrtc(architecture, dense_sources.relu_back(dtype))) > 1000
    for inputs in sources.TYPES:
        assert len(nvrtc(architecture, sources.gather(dtype, inputs, "int32"))) > 1000
