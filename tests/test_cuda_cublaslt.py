"""cuBLASLt without a GPU: its numbers against NVIDIA's headers, its descriptors, and rows seen as columns."""

import ctypes
import itertools
import re
from pathlib import Path

import fake_cupy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpnet.backends.cuda import cublaslt, products
from xpnet.backends.cuda.cublaslt import CublasLt, Product
from xpnet.errors import BackendError


@pytest.fixture(scope="module")
def headers():
    pathfinder = pytest.importorskip("cuda.pathfinder", reason="cuda-pathfinder is not installed: no CUDA headers here")
    found = pathfinder.find_nvidia_header_directory("cublas")
    if found is None:
        pytest.skip("cuBLAS is not installed: there are no headers to compare with")
    names = ("cublasLt.h", "cublas_api.h", "library_types.h")
    folders = [Path(found), Path(pathfinder.find_nvidia_header_directory("cudart") or found)]
    files = dict.fromkeys(folder / name for folder in folders for name in names if (folder / name).exists())
    return "\n".join(file.read_text() for file in files)


CONSTANTS = [
    *[(f"CUBLAS_{n}", n) for n in vars(cublaslt) if n.startswith(("COMPUTE_", "OP_"))],
    *[(f"CUDA_{n}", n) for n in vars(cublaslt) if n.startswith("R_")],
    *[(f"CUBLASLT_MATMUL_{n}", n) for n in vars(cublaslt) if n.startswith(("DESC_", "PREF_"))],
    *[(f"CUBLASLT_MATRIX_{n}", n) for n in vars(cublaslt) if n.startswith("LAYOUT_")],
    *[(f"CUBLASLT_{n}", n) for n in vars(cublaslt) if n.startswith(("EPILOGUE_", "REDUCTION_"))],
]


def value_of(text, name):
    expression = re.search(rf"\b{name}\s*=\s*([^,/}}]+)", text).group(1)
    words = re.sub(r"[A-Z][A-Z0-9_]{4,}", lambda word: str(value_of(text, word.group(0))), expression)
    return eval(words)  # numbers, |, parentheses


def test_there_are_constants_to_compare():
    assert len(CONSTANTS) > 25


@pytest.mark.parametrize(("official", "ours"), CONSTANTS, ids=lambda name: name)
def test_a_constant_is_that_of_the_header(headers, official, ours):
    assert value_of(headers, official) == getattr(cublaslt, ours)


def test_structures_have_the_size_of_the_header(headers):
    (words,) = re.findall(r"uint64_t data\[(\d+)\];\s*\} cublasLtMatmulAlgo_t;", headers)
    assert ctypes.sizeof(cublaslt.Algorithm) == 8 * int(words)
    start = headers.index("typedef struct {", headers.index("typedef struct {\n  /** Matmul algorithm descriptor"))
    body = headers[start : headers.index("} cublasLtMatmulHeuristicResult_t;")]
    fields = re.findall(r"^  (\w+) (\w+)(?:\[(\d+)\])?;", body, re.MULTILINE)
    assert [(t, int(n or 1)) for t, _, n in fields] == [
        ("cublasLtMatmulAlgo_t", 1),
        ("size_t", 1),
        ("cublasStatus_t", 1),
        ("float", 1),
        ("int", 4),
    ]
    assert ctypes.sizeof(cublaslt.Heuristic) == 96


def test_functions_have_the_arguments_of_the_header(headers):
    counts = {"Matmul": 16, "MatmulAlgoGetHeuristic": 10, "MatmulDescCreate": 3, "MatrixLayoutCreate": 5}
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", headers, flags=re.DOTALL)
    for name, count in counts.items():
        parameters = re.search(rf"cublasStatus_t CUBLASWINAPI cublasLt{name}\(([^)]*)\);", text).group(1)
        assert parameters.count(",") + 1 == count, name


@pytest.fixture(scope="module")
def lt():
    pytest.importorskip("cuda.pathfinder", reason="cuda-pathfinder is not installed: cuBLASLt cannot be found")
    try:
        return CublasLt()
    except BackendError as error:
        pytest.skip(str(error))


PRODUCT = Product(
    130, 64, 784, False, True, 132, 80, 136, "float32", "tf32", cublaslt.EPILOGUE_RELU_BIAS, (4, 16, 256, 4)
)


def test_what_an_operation_says_can_be_read_back(lt):
    operation, written = lt.operation(PRODUCT, vector=0x1004), ctypes.c_size_t()
    expected = {
        cublaslt.DESC_TRANSA: (4, cublaslt.OP_N),
        cublaslt.DESC_TRANSB: (4, cublaslt.OP_T),
        cublaslt.DESC_EPILOGUE: (4, cublaslt.EPILOGUE_RELU_BIAS),
        cublaslt.DESC_BIAS_POINTER: (8, 0x1004),
        0: (4, cublaslt.COMPUTE_32F_FAST_TF32),  # the compute type
        1: (4, cublaslt.R_32F),  # the scale type
    }
    for attribute, (size, value) in expected.items():
        found = ctypes.c_uint64(0)
        arguments = operation, attribute, ctypes.byref(found), ctypes.c_size_t(size), ctypes.byref(written)
        assert lt.library.cublasLtMatmulDescGetAttribute(*arguments) == 0
        assert (written.value, found.value) == (size, value), attribute


@pytest.mark.parametrize(("batch", "step"), [(1, 0), (7, 0), (24, 2**40)])
def test_layouts_can_be_read_back(lt, batch, step):
    for rows, columns, ld in PRODUCT.layouts():
        layout, written = lt.layout("float64", rows, columns, ld, batch, step), ctypes.c_size_t()
        one = (0, 4, cublaslt.R_64F), (2, 8, rows), (3, 8, columns), (4, 8, ld)
        for attribute, size, value in (*one, (5, 4, batch), (6, 8, step)):
            found = ctypes.c_uint64(0)
            arguments = layout, attribute, ctypes.byref(found), ctypes.c_size_t(size), ctypes.byref(written)
            assert lt.library.cublasLtMatrixLayoutGetAttribute(*arguments) == 0
            assert found.value == value


def test_preferences_can_be_read_back(lt):
    preference, written = lt.preference((4, 16, 256)), ctypes.c_size_t()
    for attribute, size, value in ((1, 8, 2**25), (3, 4, 2), (5, 4, 4), (6, 4, 16), (7, 4, 256), (8, 4, 256)):
        found = ctypes.c_uint64(0)
        arguments = preference, attribute, ctypes.byref(found), ctypes.c_size_t(size), ctypes.byref(written)
        assert lt.library.cublasLtMatmulPreferenceGetAttribute(*arguments) == 0
        assert found.value == value


def test_a_library_that_is_not_there_is_one_line(monkeypatch):
    def missing(name):
        raise ImportError("No module named 'cuda'\nmore")

    monkeypatch.setattr(cublaslt, "import_module", missing)
    with pytest.raises(
        BackendError, match=r"cuBLASLt could not be loaded \(No module named 'cuda'\): run `xpnet doctor`$"
    ):
        cublaslt.find_library()


# ---- rows seen as columns: products at addresses, by NumPy in cuBLASLt's place ----


def device(host):
    return fake_cupy.ndarray(host)


def matrix(rng, rows, columns, dtype, transposed, offset, padding):
    """A matrix somewhere in memory: shifted by `offset` elements, its lines `padding` apart, perhaps transposed."""
    lines, length = (columns, rows) if transposed else (rows, columns)
    flat = rng.normal(size=offset + lines * (length + padding)).astype(dtype)
    view = flat[offset:].reshape(lines, length + padding)[:, :length]
    return view.T if transposed else view


SIZE, SHIFT = st.integers(1, 9), st.integers(0, 3)


@given(SIZE, SIZE, SIZE, st.booleans(), st.booleans(), SHIFT, SHIFT, st.sampled_from(["float32", "float64"]))
def test_every_layout_multiplies(n, k, m, ta, tb, offset, padding, dtype):
    rng = np.random.default_rng(n * 100 + k * 10 + m)
    a, b = matrix(rng, n, k, dtype, ta, offset, padding), matrix(rng, k, m, dtype, tb, offset, padding)
    out = matrix(rng, n, m, dtype, False, offset, padding)
    engine = products.Products(fake_cupy, "float32", fake_cupy.FakeLt())
    result = engine.multiply(device(a), device(b), device(out))
    assert result is not None
    np.testing.assert_allclose(out, a @ b, rtol=1e-4, atol=1e-4)
    (what,) = engine.plans
    assert what.alignment[2] == products.alignment(out.__array_interface__["data"][0])


def test_one_engine_keeps_every_layout_apart():
    rng, engine = np.random.default_rng(0), products.Products(fake_cupy, "float32", fake_cupy.FakeLt())
    layouts = list(itertools.product(("float32", "float64"), (False, True), (False, True), (0, 1, 2), (0, 3)))
    for _ in range(2):
        for dtype, ta, tb, offset, padding in layouts:
            for n, k, m in ((3, 4, 5), (4, 3, 5), (1, 4, 4), (4, 4, 1)):
                a, b = matrix(rng, n, k, dtype, ta, offset, padding), matrix(rng, k, m, dtype, tb, 0, padding)
                out = matrix(rng, n, m, dtype, False, offset, padding)
                for to in (None, device(out)):
                    found = engine.multiply(device(a), device(b), to)
                    np.testing.assert_allclose(found.host, a @ b, rtol=1e-4, atol=1e-4)
                bias, wide = np.ones(m + 1, dtype)[offset % 2 :][:m], device(a.astype("float64"))
                found = engine.multiply(device(a), device(b), None, cublaslt.EPILOGUE_BIAS, device(bias))
                np.testing.assert_allclose(found.host, a @ b + 1, rtol=1e-4, atol=1e-4)
                assert (engine.multiply(wide, device(b)) is None) is (dtype == "float32"), "two types"
                engine.multiply(device(a), device(b), None, cublaslt.EPILOGUE_BGRADA, device(bias))
                np.testing.assert_allclose(bias, b.sum(axis=0), rtol=1e-4, atol=1e-4)
    double = np.ones((4, 4))
    single = double.view("float32")[:, ::2]
    assert double.strides == single.strides
    assert engine.multiply(device(double), device(double), device(double)) is not None
    assert engine.multiply(device(single), device(single), device(single)) is None, "its lines are not contiguous"


OPERANDS = {
    "one": lambda a: a[0, 0],
    "one after the other": lambda a: a,
    "heads of a layer": lambda a: a.transpose(0, 2, 1, 3).copy().transpose(0, 2, 1, 3),
    "heads first": lambda a: a.swapaxes(0, 1).copy().swapaxes(0, 1),
    "transposed": lambda a: a.swapaxes(2, 3).copy().swapaxes(2, 3),
    "every other": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "backwards": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "every other column": lambda a: np.repeat(a, 2, axis=3)[..., ::2],
    "the same for all": lambda a: np.broadcast_to(a[:1, :1], a.shape),
    "the same for all samples": lambda a: a[:1],
    "the same for all heads": lambda a: a[:, :1],
    "without samples": lambda a: a[0],
}
"""How matrices (N, H, rows, columns) may lie in memory."""
COPIED = {"heads of a layer", "heads first", "backwards", "every other column"}
COPIED |= {"the same for all samples", "the same for all heads", "without samples"}
ORDINARY = "one after the other"


@pytest.mark.parametrize("left", OPERANDS)
@pytest.mark.parametrize("right", OPERANDS)
def test_a_batch_is_one_product(left, right, monkeypatch):
    rng, copies = np.random.default_rng(0), []
    monkeypatch.setattr(fake_cupy, "copies", copies)
    a, b = OPERANDS[left](rng.normal(size=(3, 2, 4, 5))), OPERANDS[right](rng.normal(size=(3, 2, 5, 6)))
    engine = products.Products(fake_cupy, "float32", fake_cupy.FakeLt())
    found = engine.multiply(device(a), device(b))
    np.testing.assert_allclose(found.host, a @ b, rtol=1e-12)
    assert len(engine.plans) == 1
    if ORDINARY in (left, right):
        assert len(copies) == (left in COPIED) + (right in COPIED)


def test_batches_promise_the_alignment_of_every_matrix():
    engine = products.Products(fake_cupy, "float32", fake_cupy.FakeLt())
    a, b = np.zeros((64, 3, 3), "float32"), np.zeros((64, 3, 4), "float32")
    engine.multiply(device(a), device(b))
    (what,) = engine.plans
    assert (what.batch, what.steps) == (64, (12, 9, 12))
    assert what.alignment[1] == 4
    assert what.alignment[0] <= 16


@pytest.mark.parametrize(
    ("a", "b", "out"),
    [
        ((3, 4, 5), (2, 5, 6), None),
        ((3, 4, 5), (4, 6), None),
        ((3, 4, 5), (5,), None),
        ((0, 4, 5), (5, 6), None),
        ((3, 4, 0), (0, 6), None),
        ((3, 4, 5), (5, 6), (4, 6)),
        ((3, 4, 5), (3, 5, 6), (1, 4, 6)),
    ],
    ids=["batches", "lengths", "a vector", "nothing", "no terms", "one out", "a smaller out"],
)
def test_batches_that_it_leaves_to_cupy(a, b, out):
    engine = products.Products(fake_cupy, "float32", fake_cupy.FakeLt())
    a, b, out = (None if shape is None else device(np.ones(shape)) for shape in (a, b, out))
    assert engine.multiply(a, b, out) is None
    assert not any(engine.plans.values())


def test_batches_go_where_they_are_wanted():
    rng, engine = np.random.default_rng(0), products.Products(fake_cupy, "float32", fake_cupy.FakeLt())
    a, b, room = rng.normal(size=(3, 4, 5)), rng.normal(size=(3, 5, 6)), np.zeros((3, 4, 9))
    assert engine.multiply(device(a), device(b), device(room[:, :, 2:8])) is not None
    np.testing.assert_allclose(room[:, :, 2:8], a @ b, rtol=1e-12)
    assert not room[:, :, [0, 1, 8]].any()
    scattered = np.zeros((2, 3, 4, 6)).swapaxes(0, 1)
    assert engine.multiply(device(np.stack([a, a], 1)), device(np.stack([b, b], 1)), device(scattered)) is None


def test_alignments_are_true():
    assert [products.alignment(p) for p in (4, 8, 12, 256, 4096, 0x1004)] == [4, 8, 4, 256, 256, 4]


def test_what_it_leaves_to_cupy():
    engine = products.Products(fake_cupy, "float32", fake_cupy.FakeLt())
    a = np.ones((4, 6), dtype="float32")
    strided = device(np.ones((4, 12), dtype="float32")[:, ::2])
    for left, right in (
        (a, np.ones((6, 2))),  # two precisions
        (a.astype(int), np.ones((6, 2), dtype=int)),  # integers
        (a[:0], np.ones((6, 2), dtype="float32")),  # nothing
        (a, np.ones(6, dtype="float32")),  # a vector
        (a, np.ones((5, 2), dtype="float32")),  # lengths that do not fit
    ):
        assert engine.multiply(device(left), device(right)) is None
    assert engine.multiply(strided, device(np.ones((6, 2), dtype="float32"))) is None
    assert engine.multiply(device(a), device(a.T), device(np.ones((4, 4), dtype="float32").T)) is None


def test_a_plan_is_made_once_and_threads_take_turns_at_it(monkeypatch):
    engine = products.Products(fake_cupy, "float32", fake_cupy.FakeLt())
    a, b = device(np.ones((4, 6), dtype="float32")), device(np.ones((6, 2), dtype="float32"))
    out = device(np.empty((4, 2), dtype="float32"))
    real, spaces = engine.lt.run, []

    def run(plan, *arguments):
        assert engine.lock.locked(), "another thread may write its bias into the plan"
        spaces.append(arguments[3])
        real(plan, *arguments)

    monkeypatch.setattr(engine.lt, "run", run)
    for _ in range(3):
        engine.multiply(a, b, out)
    assert len(engine.plans) == 1
    assert all(spaces), "each product has a workspace, of the size that its algorithm asks for"


@pytest.mark.parametrize(("offset", "promise"), [(0, 16), (1, 4), (2, 8)])
def test_no_more_is_promised_of_the_result_than_of_the_bias(offset, promise):
    engine = products.Products(fake_cupy, "float32", fake_cupy.FakeLt())
    memory = np.zeros(64, dtype="float32")
    first = -memory.__array_interface__["data"][0] // 4 % 64 % 8 // 4 * 4  # 16 bytes, not 32
    first += 4 if (memory.__array_interface__["data"][0] + 4 * first) % 32 == 0 else 0
    bias = device(memory[first + offset :][:4])
    a, b, out = (device(np.ones(shape, dtype="float32")) for shape in ((4, 6), (6, 4), (4, 4)))
    engine.multiply(a, b, out, cublaslt.EPILOGUE_BIAS, bias)
    (what,) = engine.plans
    assert what.alignment[2] == min(promise, products.alignment(out.data.ptr))
    assert what.alignment[3] == promise
