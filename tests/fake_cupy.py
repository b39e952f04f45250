"""A CuPy without a GPU: NumPy behind CuPy's rules, with streams and graphs.

It enforces what CuPy enforces: no implicit conversion, no array of another library or GPU in an operation, reductions
stay 0-d arrays, integer indices wrap; and what is too slow there or widens without a word is refused. While a stream is
capturing nothing is computed: what is asked for goes on a tape, results hold NaN, host copies and stock products are
refused; `Graph.launch` plays the tape. Kernels are the real C++ text, run on the CPU (`cuda_host`); cuBLASLt is played
by NumPy, column by column, at the addresses that it is given.
"""

import ctypes
import re
from contextlib import contextmanager
from functools import cached_property
from types import SimpleNamespace

import array_api_compat.numpy as np_xp
import cuda_host
import numpy as np

from xpnet.backends.cuda import cublaslt
from xpnet.backends.cuda.products import Products
from xpnet.backends.cupy import NATIVE, CupyBackend

tape = None  # what the capturing stream was asked, None if none is capturing


class OutOfMemoryError(MemoryError):
    pass


class Device:
    """A GPU. Operations are done on the current one, and take no arrays of another."""

    current = 0

    def __init__(self, id=None):
        self.id = Device.current if id is None else id
        self.before = []

    def __eq__(self, other):
        return isinstance(other, Device) and self.id == other.id

    __hash__ = None

    def use(self):
        Device.current = self.id

    def __enter__(self):
        self.before.append(Device.current)
        self.use()
        return self

    def __exit__(self, *exception):
        Device.current = self.before.pop()

    def __repr__(self):
        return f"<CUDA Device {self.id}>"

    def synchronize(self):
        refuse("a synchronisation")


def refuse(what):
    if tape is not None:
        raise RuntimeError(f"the current stream is capturing, so {what} is disallowed")


class Tape(list):
    """What a graph does, and the memory it does it in, which stays: the private pool of a real graph sees to that."""

    def __init__(self):
        super().__init__()
        self.memory = []


class ndarray:
    __array_priority__ = 1000

    def __init__(self, host, device=None):
        if tape is not None:
            tape.memory.append(host)
        self.host, self.device = host, Device(device)
        self.shape, self.dtype, self.ndim, self.size = host.shape, host.dtype, host.ndim, host.size
        self.strides, self.flags = host.strides, host.flags
        self.data = SimpleNamespace(ptr=host.__array_interface__["data"][0] if host.size else 0)

    def __array_namespace__(self, api_version=None):
        return xp

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __index__(self):
        raise TypeError("a device array is no index")

    def _read(self):
        refuse("reading a value")
        return self.host

    def __bool__(self):
        return bool(self._read())

    def __float__(self):
        return float(self._read())

    def __int__(self):
        return int(self._read())

    def __len__(self):
        return len(self.host)

    @property
    def T(self):  # noqa: N802
        return ndarray(self.host.T, self.device.id)

    def reshape(self, *shape):
        return xp.reshape(self, shape[0] if isinstance(shape[0], tuple) else shape)

    def astype(self, dtype, copy=True):
        return xp.astype(self, np.dtype(dtype), copy=copy)

    def copy(self):
        return operate(np.array, self)

    def __getitem__(self, key):
        keys = key if isinstance(key, tuple) else (key,)
        assert not any(isinstance(k, np.ndarray) for k in keys), "a host array as an index"
        return ndarray(self.host[(*keys, ...) if ... not in keys else key], self.device.id)  # a view, also a 0-d one

    def __setitem__(self, key, value):
        assert not isinstance(value, np.ndarray), "a host array cannot be assigned to a device array"
        source, target = (value.host if isinstance(value, ndarray) else value), self.host
        ask(lambda: target.__setitem__(key, source))


def ask(work):
    """Do something on the current stream: now, or when the graph is launched."""
    if tape is None:
        work()
    else:
        tape.append(work)


def here(*arguments):
    """See that all arrays are on the current GPU."""
    for a in arguments:
        assert not isinstance(a, ndarray) or a.device.id == Device.current, f"{a.device} is not {Device()}, the current"


def arithmetic(function):
    """Refuse what would turn float32 into float64 on CuPy: an array of integers, be it 0-d, beside one of floats."""

    def checked(a, b):
        kinds = {array.dtype.kind for array in (a, b) if isinstance(array, ndarray)}
        assert not ("f" in kinds and kinds & {"i", "u"}), "float32 and integers give float64"
        return function(a, b)

    return checked


def operate(function, *arguments, **keywords):
    """Call a NumPy function on device arrays; the result is a new array, or a view of an argument."""
    hosts = [a.host if isinstance(a, ndarray) else a for a in arguments]
    here(*(arguments[0] if isinstance(arguments[0], (list, tuple)) else arguments))
    mixed = [a for a in arguments if isinstance(a, (np.ndarray, np.generic))]
    if mixed:
        raise TypeError(f"Unsupported type {type(mixed[0])}")
    if isinstance(arguments[0], (list, tuple)):
        hosts = [[a.host for a in arguments[0]], *hosts[1:]]
    with np.errstate(all="ignore"):
        result = np.asarray(function(*hosts, **keywords))
    if any(isinstance(h, np.ndarray) and result.size and np.shares_memory(result, h) for h in hosts):
        return ndarray(result)
    if tape is not None:
        result = np.array(result)  # memory of its own, which holds nothing until the graph runs
        if result.dtype.kind == "f":
            result.fill(np.nan)

        def work():
            with np.errstate(all="ignore"):
                result[...] = function(*hosts, **keywords)

        tape.append(work)
    return ndarray(result)


OPERATORS = {"add": "+", "sub": "-", "mul": "*", "truediv": "/", "pow": "**", "and": "&", "or": "|", "xor": "^"}
OPERATORS |= {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=", "rshift": ">>"}


def _add_operators():
    for name, sign in OPERATORS.items():
        forward = eval(f"lambda a, b: a {sign} b")
        setattr(ndarray, f"__{name}__", arithmetic(lambda a, b, f=forward: operate(f, a, b)))
        setattr(ndarray, f"__r{name}__", arithmetic(lambda a, b, f=forward: operate(lambda x, y: f(y, x), a, b)))
        if name in ("add", "sub", "mul", "truediv", "xor"):
            in_place = eval(f"lambda a, b: a.__i{name}__(b)")

            def augmented(a, b, f=in_place):
                source, target = (b.host if isinstance(b, ndarray) else b), a.host
                ask(lambda: f(target, source))
                return a

            setattr(ndarray, f"__i{name}__", arithmetic(augmented))
    ndarray.__neg__ = lambda a: operate(np.negative, a)
    ndarray.__invert__ = lambda a: operate(np.invert, a)
    ndarray.__matmul__ = lambda a, b: matmul(a, b)
    ndarray.__hash__ = None


_add_operators()


class Namespace:
    """The array API functions."""

    def __getattr__(self, name):
        assert name not in ("any", "all", "count_nonzero", "sign"), f"CuPy compiles for seconds, or waits, at xp.{name}"
        found = getattr(np_xp, name)
        if not callable(found) or isinstance(found, type) or name in ("isdtype", "finfo", "iinfo"):
            return found
        return lambda *arguments, **keywords: self.call(found, arguments, keywords)

    def call(self, found, arguments, keywords):
        keywords.pop("device", None)
        if found.__name__ == "asarray" and not isinstance(arguments[0], ndarray):
            return asarray(np.asarray(*arguments, **keywords))
        if found.__name__ in ("full", "ones", "zeros"):
            return asarray(getattr(np, found.__name__)(*arguments, **keywords))
        if found.__name__ == "take" and keywords.get("axis") == 0:
            return operate(lambda x, k: np.take(x, k, axis=0, mode="wrap"), *arguments)
        return operate(found, *arguments, **keywords)


xp = Namespace()


def empty(shape, dtype=float):
    return ndarray(np.full(shape, 77, dtype=dtype))  # what uninitialised memory holds, nobody knows


def zeros(shape, dtype=float):
    array = empty(shape, dtype)
    array[...] = 0
    return array


def ones(shape, dtype=float):
    array = empty(shape, dtype)
    array[...] = 1
    return array


def asarray(host):
    refuse("a copy from the host")
    return ndarray(np.array(host, order="C"))


def asnumpy(array):
    refuse("a copy to the host")
    return np.array(array.host)


copies = []  # what was copied so that it lies in one piece


def ascontiguousarray(array, dtype=None):
    if array.flags.c_contiguous and dtype in (None, array.dtype):
        return array
    copies.append(array.shape)
    return operate(np.array, array, order="C", dtype=dtype)


def broadcast_to(array, shape):
    return ndarray(np.broadcast_to(array.host, shape), array.device.id)


def matmul(a, b, out=None):
    if tape is not None:
        raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
    result = operate(np.matmul, a, b)
    if out is None:
        return result
    out[...] = result
    return out


def pointer(array):
    return ctypes.c_void_p(array.data.ptr)


class RawModule:
    def __init__(self, code):
        self.code = code

    def get_function(self, name):
        run = cuda_host.kernel(self.code, name)
        kinds = {"int64": ctypes.c_longlong, "int32": ctypes.c_int}
        kinds |= {"float64": ctypes.c_double, "float32": ctypes.c_float}

        def launch(grid, block, arguments):
            here(*arguments)
            values = [pointer(a) if isinstance(a, ndarray) else kinds[a.dtype.name](a) for a in arguments]
            sizes = [ctypes.c_uint(n) for n in (grid[0], (*grid, 1)[1], block[0])]
            ask(lambda: run(*sizes, *values))

        return launch


class ElementwiseKernel:
    def __init__(self, read, written, operation, name, no_return=False):
        assert re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII), f"{name} is no name in C++"
        self.parameters, self.operation = [], operation
        for texts, kind in ((read, "in"), (written, "out")):
            for words in (text.split() for text in texts.split(",")):
                self.parameters.append((words[-2], words[-1], "raw" if "raw" in words else kind))

    def __call__(self, *arguments, size=-1):
        assert len(arguments) == len(self.parameters)
        here(*arguments)
        given = list(zip(self.parameters, arguments, strict=True))
        kinds = {a.dtype.name for (dtype, _, _), a in given if dtype == "T" and isinstance(a, ndarray)}
        assert len(kinds) <= 1, f"T is {kinds}"
        number = {"T": ctypes.c_double if kinds == {"float64"} else ctypes.c_float}
        shapes = {a.shape for (_, _, kind), a in given if isinstance(a, ndarray) and kind != "raw"}
        assert len(shapes) == 1 or size > 0, shapes
        n = size if size > 0 else int(np.prod(shapes.pop()))
        parameters, values = [], []
        for (dtype, name, kind), a in given:
            assert dtype == "T" or not isinstance(a, ndarray) or a.dtype == dtype, f"{name} is {a.dtype}"
            assert not isinstance(a, ndarray) or a.flags.c_contiguous
            parameters.append((dtype, name, kind if isinstance(a, ndarray) else "scalar"))
            values.append(pointer(a) if isinstance(a, ndarray) else number.get(dtype, ctypes.c_int)(a))
        run = cuda_host.elementwise(tuple(parameters), self.operation, (kinds or {"float32"}).pop())
        ask(lambda: run(ctypes.c_longlong(n), *values))


class Stream:
    def __init__(self, non_blocking=False):
        self.ptr = id(self) if non_blocking else 0

    def __enter__(self):
        streams.append(self)
        return self

    def __exit__(self, *exception):
        streams.pop()

    def record(self):
        refuse("an event on another stream")
        return self

    def is_capturing(self):
        return tape is not None

    def wait_event(self, event):
        waits.append((self, event))

    def synchronize(self):
        refuse("a synchronisation")

    def begin_capture(self):
        global tape
        assert tape is None, "this stream is capturing already"
        assert self.ptr, "cannot capture on the default (legacy) stream"
        tape = Tape()

    def end_capture(self):
        global tape
        done, tape = tape, None
        return Graph(done)


class Graph:
    def __init__(self, tape):
        self.tape, self.launches = tape, 0

    def launch(self):
        assert tape is None
        self.launches += 1
        for work in self.tape:
            work()


class MemoryPool:
    def __init__(self, allocator=None):
        self.freed = False

    def malloc(self, size):
        return SimpleNamespace(ptr=0, size=size)

    def set_limit(self, size):
        pass

    def free_all_blocks(self):
        self.freed = True

    def total_bytes(self):
        return 3 * 2**20

    def used_bytes(self):
        return 2**20


@contextmanager
def using_allocator(allocator):
    yield


streams = [Stream()]
waits = []  # (stream, the stream it waits for)
pool = MemoryPool()


def get_default_memory_pool():
    return pool


class CUDARuntimeError(RuntimeError):
    pass


runtime = SimpleNamespace(
    driverGetVersion=lambda: 13000,
    runtimeGetVersion=lambda: 13020,
    getDeviceCount=lambda: 1,
    getDevice=lambda: Device.current,
    memGetInfo=lambda: (80 * 2**30, 80 * 2**30),
    CUDARuntimeError=CUDARuntimeError,
)
cuda = SimpleNamespace(
    Device=Device,
    Stream=Stream,
    MemoryPool=MemoryPool,
    using_allocator=using_allocator,
    get_current_stream=lambda: streams[-1],
    alloc=lambda size: empty(size, "uint8").data,
    runtime=runtime,
)


class FakeLt:
    """cuBLASLt's semantics by NumPy: matrices column by column at their addresses, epilogues on the way out."""

    version = 131000

    def __init__(self, lacks=()):
        self.lacks = lacks  # epilogues that no algorithm can do

    def plan(self, product, vector=0):
        return None if product.epilogue in self.lacks else cublaslt.Plan(product, None, (), None, 64, None, None)

    def run(self, plan, a, b, d, workspace, stream, vector=0, factor=1.0):
        assert workspace
        assert stream == streams[-1].ptr
        for pointer, promised in zip((a, b, d, vector), plan.product.alignment, strict=False):
            assert pointer % promised == 0, "an algorithm for another alignment"
        ask(lambda: play(plan.product, a, b, d, vector, factor))


def at(address, count, dtype):
    kind = {"float32": ctypes.c_float, "float64": ctypes.c_double}[dtype]
    return np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(kind)), (count,))


def by_columns(address, rows, columns, ld, dtype):
    assert ld >= rows
    flat = at(address, ld * (columns - 1) + rows, dtype)
    return np.lib.stride_tricks.as_strided(flat, (rows, columns), (flat.itemsize, ld * flat.itemsize))


def play(p, a, b, d, vector, factor):
    """D = factor op(A) op(B), then the epilogue, in the order in which cublasLt.h describes it; a batch one by one."""
    if p.batch > 1:
        steps = [step * np.dtype(p.dtype).itemsize for step in p.steps]
        for k in range(p.batch):
            play(p._replace(batch=1), *(x + k * step for x, step in zip((a, b, d), steps, strict=True)), vector, factor)
        return
    first, second, out = (by_columns(x, *sizes, p.dtype) for x, sizes in zip((a, b, d), p.layouts(), strict=True))
    first, second = (first.T if p.transpose_a else first), (second.T if p.transpose_b else second)
    assert (first.shape, second.shape) == ((p.m, p.k), (p.k, p.n))
    with np.errstate(all="ignore"):
        result = factor * (np.ascontiguousarray(first) @ np.ascontiguousarray(second))
    if p.epilogue in (cublaslt.EPILOGUE_BIAS, cublaslt.EPILOGUE_RELU_BIAS):
        result += at(vector, p.m, p.dtype)[:, None]
    if p.epilogue == cublaslt.EPILOGUE_RELU_BIAS:
        result = np.maximum(result, 0)
    if p.epilogue == cublaslt.EPILOGUE_BGRADA:
        at(vector, p.m, p.dtype)[...] = first.sum(axis=1)
    out[...] = result


def plain(room):
    """Return what leaves all of a room's functions to the plain forms."""
    names = (name.removeprefix(room) for name in NATIVE.values() if name.startswith(room))
    return SimpleNamespace(**dict.fromkeys(names, lambda *arguments: None))


class FakeBackend(CupyBackend):
    """A CupyBackend on the fake. `lt=False`: cuBLASLt could not be loaded; `lacks`: epilogues that it cannot do."""

    lt, lacks = True, ()

    @cached_property
    def products(self):
        return Products(self.cupy, self.precision, FakeLt(self.lacks)) if self.lt else None

    @cached_property
    def images(self):
        """No kernels for images: the plain forms serve. The stand-in driver runs the kernels."""
        return plain("images.")

    @cached_property
    def sequences(self):
        """Nor for sequences."""
        return plain("sequences.")

    def describe(self):
        return "a fake GPU"


def fake_backend(lt=True, lacks=()):
    import fake_cupy

    backend = FakeBackend(Device(0), library=fake_cupy, namespace=xp)
    backend.lt, backend.lacks = lt, lacks
    return backend
