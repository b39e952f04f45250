"""PyTorch as an array library: its arrays and devices, none of its autograd."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import cache, cached_property, lru_cache
from textwrap import shorten
from typing import Any

try:
    import array_api_compat.torch as xp
    import torch

    from xpnet.backends.native.torch import FORMS, TorchDense, on_host
except ImportError as error:
    torch, WHY = None, error

import numpy as np

from xpnet.arrays import Array
from xpnet.backends.base import Apply, Gate, Numbers, Rule, Run, Step, Vectors, WorkOf, absent
from xpnet.backends.dense import Dense
from xpnet.backends.host import Counted, calmly, keep_memory
from xpnet.backends.in_place import InPlaceBackend
from xpnet.backends.native import choose
from xpnet.backends.numpy import NumpyBackend
from xpnet.backends.openblas import one_blas_thread
from xpnet.errors import BackendError
from xpnet.parameters import Window


class TorchBackend(InPlaceBackend):
    """PyTorch on any of its devices."""

    def __init__(self, device: Any, reason: str = "asked for by name") -> None:
        super().__init__("torch", xp, device, reason)
        self.reads_free = self.fuses = device.type == "cpu"

    def _place(self, host: np.ndarray, copy: bool | None) -> Array:
        if copy or not host.flags.writeable:
            host = host.copy()
        return torch.from_numpy(np.ascontiguousarray(host)).reshape(host.shape).to(self.device)

    def asnumpy(self, array: Array) -> np.ndarray:
        """Bring a tensor home, without its gradient."""
        home: np.ndarray = array.detach().cpu().numpy()
        return home

    def owns(self, array: Array) -> bool:
        """Whether this is a tensor on this device."""
        return isinstance(array, torch.Tensor) and array.device == self.device

    def adopt(self, host: np.ndarray) -> Array:
        """Return a tensor in the same memory, on the CPU."""
        return torch.from_numpy(host).to(self.device)

    def plain(self, array: Array) -> Array:
        """Return the tensor without its gradient, in the same memory."""
        return array.detach() if array.requires_grad else array

    def synchronize(self) -> None:
        """Wait for the accelerator, if there is one."""
        if self.device.type != "cpu":
            getattr(torch, self.device.type).synchronize(self.device)

    def bits(self) -> dict[str, str]:
        """Return what the last bits depend on: on the CPU also how rules are run, subnormals, and threads."""
        if self.device.type != "cpu":
            return super().bits()
        own = {"threads": str(torch.get_num_threads()), "kernels": torch.backends.cpu.get_cpu_capability()}
        return NumpyBackend().bits() | own | super().bits()

    def use_threads(self, most: int) -> None:
        """Let PyTorch take no more threads than that."""
        torch.set_num_threads(min(torch.get_num_threads(), most))

    def one_thread(self) -> AbstractContextManager[Any]:
        """Return the context of one thread, NumPy's products and sums included."""
        stack = ExitStack()
        stack.enter_context(_one_thread()())
        stack.enter_context(one_blas_thread())
        return stack

    def native(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return PyTorch's own form of a function, on the CPU."""
        return choose(FORMS, function) if self.device.type == "cpu" else function

    @cached_property
    def dense(self) -> Dense:
        """Linear layers in a row, with no array but the products'."""
        return TorchDense(self)

    def cut(self, theta: Array, windows: Sequence[Window]) -> tuple[Array, ...]:
        """Return the windows of a flat vector as new views."""
        sizes = [window.stop - window.start for window in windows]
        *parts, _ = theta.split_with_sizes([*sizes, theta.shape[0] - sum(sizes)])
        return tuple([part.view(window.shape) for part, window in zip(parts, windows, strict=True)])

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """Return a @ b, in `out` if one is given."""
        return torch.matmul(a, b, out=out)

    def _map(self, rule: Rule) -> Apply:
        if self.device.type != "cpu":
            return super()._map(rule)
        blocks = NumpyBackend().map(
            rule
        )  # on the same memory: NumPy's blocks, or one loop, beat a call for each operation

        def apply(state: Vectors, inputs: Vectors, scalars: Numbers, gate: Gate = None) -> Vectors:
            if gate is None or bool(gate):
                blocks(tuple(map(on_host, state)), tuple(map(on_host, inputs)), scalars)
            return state

        return apply

    def jit(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function itself; on the CPU memory that it frees stays with the process."""
        if self.device.type == "cpu":
            keep_memory()
        return function

    def compile(self, step: Step, work: WorkOf | None = None) -> Run:
        """Run the steps one by one; on the CPU, small ones on one thread."""
        run = super().compile(step)
        if self.device.type != "cpu":
            return run
        return calmly(run, self.one_thread, work)


@cache
def _one_thread() -> Counted:
    return Counted(torch.get_num_threads, torch.set_num_threads, apart=True)


def connect(device: str) -> TorchBackend:
    """Return the backend for a PyTorch device, `cpu` if none is named, after a trial."""
    if torch is None:
        raise absent(WHY, "torch", "PyTorch is not installed: pip install 'xpnet[torch]'")
    try:
        xp.maximum(torch.zeros(1), 0.0)
    except TypeError:
        raise BackendError("PyTorch needs array-api-compat 1.16: pip install -U array-api-compat") from None
    try:
        found = torch.empty(0, device=device or "cpu").device
        (torch.ones(2, 2, device=found) @ torch.ones(2, 2, device=found)).cpu()  # "meta" holds nothing to bring home
    except (RuntimeError, AssertionError) as error:
        why = shorten(str(error).partition("\n")[0], 80, placeholder=" …")
        raise BackendError(f'PyTorch has no device "{device}" here ({why}): choose one of {devices()}') from None
    return TorchBackend(found)


def of(array: Array) -> TorchBackend:
    """Return the backend of a tensor."""
    return _on(array.device)


@lru_cache
def _on(device: Any) -> TorchBackend:
    """Return one backend for a device, always the same, since it keeps its mapped rules."""
    return TorchBackend(device, "the array's own library")


def devices() -> list[str]:
    """Return the devices that can be used."""
    if torch is None:
        raise absent(WHY, "torch", "PyTorch is not installed: pip install 'xpnet[torch]'")
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *(f"cuda:{k}" for k in range(torch.cuda.device_count())), *mps]
