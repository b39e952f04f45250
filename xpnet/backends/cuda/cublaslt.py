"""cuBLASLt by ctypes: as much of it as a network needs, and nothing that knows of arrays.

Stock CuPy refuses cuBLAS while a graph is captured. Here are a handle of our own, algorithms that are chosen before
capture, and epilogues that add a bias, apply ReLU, or its derivative, on the way out of a product. Names and values
are those of `cublasLt.h` and `cublas_api.h`; a test compares them with the headers. (NVIDIA, "cuBLAS", chapter 3)
"""

import ctypes
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

from xpnet.errors import BackendError

COMPUTE_32F, COMPUTE_64F, COMPUTE_32F_FAST_16BF, COMPUTE_32F_FAST_TF32 = 68, 70, 75, 77
R_32F, R_64F = 0, 1
OP_N, OP_T = 0, 1
LAYOUT_BATCH_COUNT, LAYOUT_STRIDED_BATCH_OFFSET = 5, 6
DESC_TRANSA, DESC_TRANSB, DESC_EPILOGUE, DESC_BIAS_POINTER = 3, 4, 7, 8
PREF_MAX_WORKSPACE_BYTES, PREF_REDUCTION_SCHEME_MASK = 1, 3
PREF_MIN_ALIGNMENT_A_BYTES, PREF_MIN_ALIGNMENT_B_BYTES = 5, 6
PREF_MIN_ALIGNMENT_C_BYTES, PREF_MIN_ALIGNMENT_D_BYTES = 7, 8
REDUCTION_SCHEME_NONE, REDUCTION_SCHEME_COMPUTE_TYPE = 0, 2
EPILOGUE_DEFAULT, EPILOGUE_BIAS, EPILOGUE_RELU_BIAS, EPILOGUE_BGRADA = 1, 4, 2 | 4, 256

WORKSPACE = 32 * 2**20
"""Bytes of device memory that an algorithm may use; NVIDIA advises 32 MiB on Hopper."""

TYPES = {"float32": (R_32F, ctypes.c_float), "float64": (R_64F, ctypes.c_double)}
COMPUTE = {"float32": COMPUTE_32F, "tf32": COMPUTE_32F_FAST_TF32, "bfloat16": COMPUTE_32F_FAST_16BF}
"""How float32 matrices may be multiplied; θ and all sums stay float32. float64 is always multiplied as float64."""


class Algorithm(ctypes.Structure):
    """`cublasLtMatmulAlgo_t`: an algorithm and its settings, opaque."""

    _fields_ = (("data", ctypes.c_uint64 * 8),)


class Heuristic(ctypes.Structure):
    """`cublasLtMatmulHeuristicResult_t`: an algorithm that was proposed."""

    _fields_ = (
        ("algorithm", Algorithm),
        ("workspace", ctypes.c_size_t),
        ("state", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )


class Product(NamedTuple):
    """D (m, n) = op(A) op(B), all of them column by column in memory, and what happens on the way out.

    Or a `batch` of so many products: from one A, B and D to the next are `steps` elements, 0 if all share it.
    """

    m: int
    n: int
    k: int
    transpose_a: bool
    transpose_b: bool
    lda: int
    ldb: int
    ldd: int
    dtype: str = "float32"
    precision: str = "float32"
    epilogue: int = EPILOGUE_DEFAULT
    alignment: tuple[int, ...] = (256, 256, 256)
    """Of A, B and D, and where there is one of the bias, in bytes: windows of θ may lie at any multiple of 4.

    cuBLASLt has no word for the bias, and what it does with the bias it may do as with D: so D's is no more than that.
    """
    batch: int = 1
    steps: tuple[int, int, int] = (0, 0, 0)

    def layouts(self) -> tuple[tuple[int, int, int], ...]:
        """Return rows, columns and leading dimension of A, B and D, as they lie in memory."""
        a = (self.k, self.m) if self.transpose_a else (self.m, self.k)
        b = (self.n, self.k) if self.transpose_b else (self.k, self.n)
        return (*a, self.lda), (*b, self.ldb), (self.m, self.n, self.ldd)


class Plan(NamedTuple):
    """A product with its descriptors and its algorithm."""

    product: Product
    operation: ctypes.c_void_p
    layouts: tuple[ctypes.c_void_p, ...]
    algorithm: Algorithm
    workspace: int
    """Bytes of device memory that the algorithm uses."""
    one: Any
    zero: Any


class CublasLt:
    """The library. `handle` is made for the current device, when the first plan is."""

    def __init__(self, library: Any = None) -> None:
        self.library = library or find_library()
        self.library.cublasLtGetVersion.restype = ctypes.c_size_t
        self.library.cublasLtGetStatusName.restype = ctypes.c_char_p
        pointer, size, matmul = ctypes.c_void_p, ctypes.c_size_t, self.library.cublasLtMatmul
        matmul.argtypes = [pointer] * 13 + [pointer, size, pointer]
        self.handle: ctypes.c_void_p | None = None
        self.pointed: dict[int | None, int] = {}
        """Where vector and mask of each operation lie."""

    @property
    def version(self) -> int:
        """As cuBLAS counts: 131000 for 13.1.0."""
        return int(self.library.cublasLtGetVersion())

    def operation(self, product: Product, vector: int = 0) -> ctypes.c_void_p:
        """Describe what is computed. `vector` points to the bias or its gradient."""
        desc = ctypes.c_void_p()
        compute = COMPUTE_64F if product.dtype == "float64" else COMPUTE[product.precision]
        self._call("MatmulDescCreate", ctypes.byref(desc), ctypes.c_int(compute), ctypes.c_int(TYPES[product.dtype][0]))
        for attribute, transposed in ((DESC_TRANSA, product.transpose_a), (DESC_TRANSB, product.transpose_b)):
            self._set("MatmulDesc", desc, attribute, ctypes.c_int32(OP_T if transposed else OP_N))
        self._set("MatmulDesc", desc, DESC_EPILOGUE, ctypes.c_uint32(product.epilogue))
        self.point(desc, vector)
        return desc

    def point(self, operation: ctypes.c_void_p, vector: int = 0) -> None:
        """Say where the epilogue's vector lies; its alignment must stay what it was."""
        if self.pointed.get(operation.value) == vector:
            return
        self.pointed[operation.value] = vector
        if vector:
            self._set("MatmulDesc", operation, DESC_BIAS_POINTER, ctypes.c_void_p(vector))

    def layout(self, dtype: str, rows: int, columns: int, ld: int, batch: int = 1, step: int = 0) -> ctypes.c_void_p:
        """Describe a matrix in memory, column by column, or a batch of them, `step` elements apart."""
        layout = ctypes.c_void_p()
        sizes = ctypes.c_uint64(rows), ctypes.c_uint64(columns), ctypes.c_int64(ld)
        self._call("MatrixLayoutCreate", ctypes.byref(layout), ctypes.c_int(TYPES[dtype][0]), *sizes)
        if batch > 1:
            self._set("MatrixLayout", layout, LAYOUT_BATCH_COUNT, ctypes.c_int32(batch))
            self._set("MatrixLayout", layout, LAYOUT_STRIDED_BATCH_OFFSET, ctypes.c_int64(step))
        return layout

    def preference(self, alignment: tuple[int, ...]) -> ctypes.c_void_p:
        """Describe which algorithms may be used: those that need no more workspace or alignment, and are exact repeats.

        A sum in parts is added up in a separate step, in a fixed order, so that two runs give the same bits.
        """
        preference = ctypes.c_void_p()
        self._call("MatmulPreferenceCreate", ctypes.byref(preference))
        schemes = REDUCTION_SCHEME_NONE | REDUCTION_SCHEME_COMPUTE_TYPE
        settings: list[tuple[int, Any]] = [
            (PREF_MAX_WORKSPACE_BYTES, ctypes.c_uint64(WORKSPACE)),
            (PREF_REDUCTION_SCHEME_MASK, ctypes.c_uint32(schemes)),
            (PREF_MIN_ALIGNMENT_A_BYTES, ctypes.c_uint32(alignment[0])),
            (PREF_MIN_ALIGNMENT_B_BYTES, ctypes.c_uint32(alignment[1])),
            (PREF_MIN_ALIGNMENT_C_BYTES, ctypes.c_uint32(alignment[2])),
            (PREF_MIN_ALIGNMENT_D_BYTES, ctypes.c_uint32(alignment[2])),
        ]
        for attribute, value in settings:
            self._set("MatmulPreference", preference, attribute, value)
        return preference

    def plan(self, product: Product, vector: int = 0) -> Plan | None:
        """Choose an algorithm; None if there is none, which happens for some epilogues. Needs a device."""
        if self.handle is None:
            self.handle = ctypes.c_void_p()
            self._call("Create", ctypes.byref(self.handle))
        operation = self.operation(product, vector)
        layouts = tuple(
            self.layout(product.dtype, *sizes, product.batch, step)
            for sizes, step in zip(product.layouts(), product.steps, strict=True)
        )
        preference, proposals, count = self.preference(product.alignment), (Heuristic * 8)(), ctypes.c_int(0)
        status = self.library.cublasLtMatmulAlgoGetHeuristic(
            *(self.handle, operation, *layouts, layouts[-1], preference),
            *(ctypes.c_int(len(proposals)), proposals, ctypes.byref(count)),
        )
        self._call("MatmulPreferenceDestroy", preference)
        number = TYPES[product.dtype][1]
        for found in proposals[: 0 if status else count.value]:
            if found.state == 0 and found.workspace <= WORKSPACE:
                return Plan(product, operation, layouts, found.algorithm, found.workspace, number(1.0), number(0.0))
        return None

    def run(
        self, plan: Plan, a: int, b: int, d: int, workspace: int, stream: int, vector: int = 0, factor: float = 1.0
    ) -> None:
        """Put the product times a factor on a stream; all but the factor are device pointers."""
        self.point(plan.operation, vector)
        la, lb, ld = plan.layouts
        scale = plan.one if factor == 1.0 else type(plan.one)(factor)
        status = self.library.cublasLtMatmul(
            *(self.handle, plan.operation, ctypes.addressof(scale), a, la, b, lb, ctypes.addressof(plan.zero)),
            *(d, ld, d, ld, ctypes.addressof(plan.algorithm), workspace, plan.workspace, stream),
        )
        self._check("Matmul", status)

    def _set(self, kind: str, target: ctypes.c_void_p, attribute: int, value: Any) -> None:
        size = ctypes.c_size_t(ctypes.sizeof(value))
        self._call(f"{kind}SetAttribute", target, ctypes.c_int(attribute), ctypes.byref(value), size)

    def _call(self, name: str, *arguments: Any) -> None:
        function: Callable[..., int] = getattr(self.library, f"cublasLt{name}")
        self._check(name, function(*arguments))

    def _check(self, name: str, status: int) -> None:
        if status:
            text = self.library.cublasLtGetStatusName(ctypes.c_int(status)).decode()
            raise BackendError(f"cublasLt{name} failed with {text}: run `xpnet doctor`")


def find_library() -> Any:
    """Load cuBLASLt, wherever it is installed; BackendError if it is not."""
    try:
        found = import_module("cuda.pathfinder").load_nvidia_dynamic_lib("cublasLt")
        return ctypes.CDLL(found.abs_path)
    except (ImportError, RuntimeError, OSError) as error:
        first = str(error).partition("\n")[0]
        raise BackendError(f"cuBLASLt could not be loaded ({first}): run `xpnet doctor`") from None
