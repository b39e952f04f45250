"""The stand-in itself: work waits for its stream, captures refuse what the real ones refuse, misuse is seen."""

import numpy as np
import pytest

import standin
import xpnet as xn
from standin import build, kernels

pytestmark = pytest.mark.gpu

DOUBLE = """
typedef float T;
extern "C" __global__ void twice(const T* x, long long n, double by, T* y) {
  for (long long k = blockIdx.x * blockDim.x + threadIdx.x; k < n; k += gridDim.x * blockDim.x) y[k] = T(by) * x[k];
}
"""


@pytest.fixture
def cupy():
    return xn.backend("cupy").cupy


def seen(pattern):
    """Forget the misuses that the stand-in noted; fail unless there is one that holds this text."""
    found = standin.misuses()
    assert any(pattern in text for text in found), found


def host_view(array):
    """Return a device array's memory as the host would see it, work that waits left waiting."""
    import ctypes

    kind = ctypes.c_float * array.size
    return np.frombuffer(kind.from_address(array.data.ptr), np.float32)


def test_lazy_work_waits_until_someone_does(cupy):
    x = cupy.zeros(3, dtype="float32")
    cupy.cuda.Device().synchronize()
    with standin.order("lazy"):
        x += 1
        assert host_view(x).tolist() == [0, 0, 0]
        assert cupy.asnumpy(x).tolist() == [1, 1, 1]
    with standin.order("eager"):
        x += 1
        assert host_view(x).tolist() == [2, 2, 2]


def test_streams_are_not_ordered_but_by_events(cupy):
    x, y = cupy.zeros(3, dtype="float32"), cupy.zeros(3, dtype="float32")
    one, two = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    with standin.order("lazy"):
        with one:
            x += 1
        with two:
            y += x
        two.synchronize()
        assert host_view(y).tolist() == [0, 0, 0]
        with two:
            two.wait_event(one.record())
            y += x
        two.synchronize()
        assert host_view(y).tolist() == [1, 1, 1]
    one.synchronize()


def test_the_default_stream_and_blocking_streams_wait_for_each_other(cupy):
    x, stream = cupy.zeros(3, dtype="float32"), cupy.cuda.Stream()
    cupy.cuda.Device().synchronize()
    with standin.order("others"):
        x += 1
        with stream:
            x *= 3
        assert host_view(x).tolist() == [3, 3, 3]


def test_random_orders_differ(cupy):
    def ways(seed):
        arrays = [cupy.zeros(1, dtype="float32") for _ in range(8)]
        streams = [cupy.cuda.Stream(non_blocking=True) for _ in arrays]
        cupy.cuda.Device().synchronize()
        with standin.order("random", seed):
            for array, stream in zip(arrays, streams, strict=True):
                with stream:
                    array += 1
            done = tuple(int(host_view(array)[0]) for array in arrays)
        cupy.cuda.Device().synchronize()
        return done

    assert ways(1) == ways(1)
    assert len({ways(seed) for seed in range(10)}) > 2


def test_an_unknown_order_is_refused():
    with pytest.raises(ValueError, match='no order "fast"'), standin.order("fast"):
        pass


def test_a_graph_does_what_was_captured_when_it_is_launched(cupy):
    x, stream = cupy.zeros(3, dtype="float32"), cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    with stream:
        x += 0
        stream.begin_capture()
        x += 1
        graph = stream.end_capture()
        for _ in range(3):
            graph.launch()
    stream.synchronize()
    assert host_view(x).tolist() == [3, 3, 3]


@pytest.mark.parametrize("act", ["synchronize", "wait for outside", "the device"])
def test_what_a_capture_forbids_ends_it(cupy, act):
    stream, other = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True)
    event = other.record()
    acts = {
        "synchronize": stream.synchronize,
        "wait for outside": lambda: stream.wait_event(event),
        "the device": cupy.cuda.Device().synchronize,
    }
    with stream:
        stream.begin_capture()
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="StreamCapture"):
            acts[act]()
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="StreamCaptureInvalidated"):
            stream.end_capture()


def test_a_strict_capture_forbids_allocation(cupy):
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture(cupy.cuda.runtime.streamCaptureModeGlobal)
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="StreamCaptureUnsupported"):
            cupy.cuda.runtime.malloc(512)
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="StreamCaptureInvalidated"):
            stream.end_capture()
    seen("cudaMalloc while a stream is capturing")


def test_the_default_stream_cannot_be_captured(cupy):
    with pytest.raises((RuntimeError, cupy.cuda.runtime.CUDARuntimeError), match=r"legacy|Unsupported"):
        cupy.cuda.Stream.null.begin_capture()


def test_fresh_memory_is_nan_and_freed_memory_is_watched(cupy):
    runtime = cupy.cuda.runtime
    address = runtime.malloc(512)
    memory = cupy.cuda.UnownedMemory(address, 512, None)
    x = cupy.ndarray(4, dtype="float32", memptr=cupy.cuda.MemoryPointer(memory, 0))
    assert np.isnan(cupy.asnumpy(x)).all()
    runtime.free(address)
    _ = x + 1
    cupy.cuda.Device().synchronize()
    seen("uses memory that was freed")
    with pytest.raises(runtime.CUDARuntimeError, match="InvalidValue"):
        runtime.free(address)
    seen("freed before")


def test_what_is_no_address_is_not_taken_for_one(cupy):
    """Behind its first word an argument may hold what was in that memory before: CuPy's CIndexer is not all written."""
    address = cupy.cuda.runtime.malloc(512)
    cupy.cuda.runtime.free(address)
    number = np.asarray([0, address], dtype="int64").view("complex128")[0]
    kernel = cupy.ElementwiseKernel("complex128 z", "float32 y", "y = 1", "takes_a_pair")
    assert cupy.asnumpy(kernel(number, size=3)).tolist() == [1, 1, 1]
    assert standin.misuses() == []


def test_a_full_device_says_so(cupy, monkeypatch):
    monkeypatch.setenv("STANDIN_MEMORY", str(1 << 20))
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="out of memory"):
        cupy.cuda.runtime.malloc(1 << 21)


def test_copies_stay_inside_a_piece_of_memory(cupy):
    runtime = cupy.cuda.runtime
    address = runtime.malloc(512)
    with pytest.raises(runtime.CUDARuntimeError, match="InvalidValue"):
        runtime.memcpy(address, address + 256, 512, runtime.memcpyDeviceToDevice)
    seen("goes beyond")
    runtime.free(address)


@pytest.mark.parametrize(
    "arguments",
    [
        lambda cupy, x, y: (x, np.int32(4), np.float64(2), y),
        lambda cupy, x, y: (x, np.int64(4), np.float32(2), y),
        lambda cupy, x, y: (x, np.int64(4), np.float64(2), y.astype("float64")),
        lambda cupy, x, y: (np.int32(0), np.int64(4), np.float64(2), y),
        lambda cupy, x, y: (x, 4, np.float64(2), y),
        lambda cupy, x, y: (x, np.int64(4), np.float64(2)),
    ],
    ids=["int32 for long long", "float32 for double", "another array", "a null of four bytes", "an int", "too few"],
)
def test_arguments_must_be_what_the_kernel_takes(cupy, arguments):
    x, y = cupy.arange(4, dtype="float32"), cupy.zeros(4, dtype="float32")
    twice = cupy.RawModule(code=DOUBLE).get_function("twice")
    twice((1,), (32,), (x, np.int64(4), np.float64(2), y))
    assert cupy.asnumpy(y).tolist() == [0, 2, 4, 6]
    with pytest.raises(standin.MisuseError, match="kernel twice"):
        twice((1,), (32,), arguments(cupy, x, y))


@pytest.mark.parametrize("block", [(2048,), (1, 1, 65)])
def test_a_launch_has_limits(cupy, block):
    x = cupy.zeros(4, dtype="float32")
    twice = cupy.RawModule(code=DOUBLE).get_function("twice")
    with pytest.raises(cupy.cuda.driver.CUDADriverError):
        twice((1,), block, (x, np.int64(4), np.float64(2), x))


def test_both_compilers_must_take_a_kernel(cupy):
    source = 'extern "C" __global__ void typo(float* x) { x[0] = y; }'
    with pytest.raises(kernels.CompileError, match=r"g\+\+ refused kernel typo"):
        cupy.RawModule(code=source).get_function("typo")((1,), (1,), (cupy.zeros(3, dtype="float32"),))
    source = 'extern "C" __global__ void host_only(float* x) { std::vector<float> all(3); x[0] = all[0]; }'
    cupy.RawModule(code=source).get_function("host_only")((1,), (1,), (cupy.zeros(3, dtype="float32"),))
    refused = [text.partition(":")[0] for text in kernels.verdicts()]
    assert refused == ["NVRTC refused kernel typo", "NVRTC refused kernel host_only"]


def test_what_is_missing_is_said_in_one_line(monkeypatch):
    def missing(*arguments):
        return None

    with monkeypatch.context() as patch:
        patch.setattr(build.shutil, "which", missing)
        with pytest.raises(build.MissingError, match=r"install g\+\+$"):
            build.check()
    with monkeypatch.context() as patch:
        patch.setattr(build, "CUPY", "14.9.9")
        with pytest.raises(build.MissingError, match=r"made for cupy-cuda13x 14.9.9, and 14\.\d\.\d is installed: "):
            build.check()
    with monkeypatch.context() as patch:
        patch.setattr(build, "cuda", lambda: build.HERE)
        with pytest.raises(build.MissingError, match=r"cuda_runtime_api.h is missing: python -m pip install"):
            build.check()


def test_the_device_says_that_it_is_none():
    assert "stand-in, no GPU" in xn.backend("cupy").describe()
