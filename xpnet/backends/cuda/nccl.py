"""Sums over the GPUs of several processes, by NVIDIA's NCCL: on the device, in a stream's order, in a captured graph.

MPI brings the ranks together and NCCL adds up what they have. It is believed only after it has added something, and
used only if that went well on all ranks: else all go by way of the host, and one warning says why.
"""

import platform
import warnings
from importlib import import_module
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from xpnet.arrays import Array
from xpnet.backends.base import Run, Step
from xpnet.backends.cuda.graph import Steps
from xpnet.errors import BackendError

if TYPE_CHECKING:
    from xpnet.world import World


class Offer(NamedTuple):
    """What a rank tells the others: what keeps it from NCCL, which GPU it has, and the first one a name for all."""

    problem: str = ""
    place: str = ""
    name: bytes = b""


class Communicator:
    """The GPUs of a world's ranks, one each. All ranks make one at the same time, and ask alike for sums."""

    def __init__(self, backend: Any, world: "World", name: bytes) -> None:
        self.backend, self.world, self.nccl = backend, world, library(backend.cupy)
        self.ranks = self.nccl.NcclCommunicator(world.size, name, world.rank)

    def add(self, arrays: list[Array]) -> list[Array]:
        """Return the sums of arrays over all ranks, in the type of the first: windows of one vector, added up at once.

        Nothing is waited for. The order of a sum is NCCL's, the same on all ranks for as many numbers and ranks, and
        another for others: `shards=`, whose bits depend on no number of ranks, goes by way of the host.
        """
        cupy, dtype = self.backend.cupy, arrays[0].dtype
        stops = list(accumulate(array.size for array in arrays))
        total = cupy.empty(stops[-1], dtype=dtype)
        windows = [total[stop - a.size : stop].reshape(a.shape) for stop, a in zip(stops, arrays, strict=True)]
        for window, array in zip(windows, arrays, strict=True):
            window[...] = array
        kind = {"float32": self.nccl.NCCL_FLOAT32, "float64": self.nccl.NCCL_FLOAT64}[dtype.name]
        place, stream = total.data.ptr, cupy.cuda.get_current_stream().ptr
        self.ranks.allReduce(place, place, total.size, kind, self.nccl.NCCL_SUM, stream)
        return windows

    def compile(self, step: Step) -> Run:
        """Make K steps in which ranks add up one CUDA graph, captured and launched by all of them at the same time."""
        return Steps(self.backend, step, self.world)


def connect(backend: Any, world: "World") -> Communicator | None:
    """Return what adds up on the GPUs of a world; None, with a warning, if that fails on one rank. All ranks ask."""
    made, offers = None, world.gather(_offer(backend, world.rank == 0))
    why = _refused(offers)
    if not why:
        try:
            made = _tried(Communicator(backend, world, offers[0].name))
            problem = ""
        except (RuntimeError, BackendError) as error:  # NCCL's own are RuntimeErrors
            problem = str(error)
        why = _refused([Offer(one) for one in world.gather(problem)])
    if not why:
        return made
    if world.rank == 0:
        text = f"{world.size} ranks add up by way of the host, a step at a time, not by NCCL: {why}"
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    return None


def library(cupy: Any) -> Any:
    """Return CuPy's NCCL; BackendError says what to install."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy says the same, in eight lines
        nccl = import_module("cupy.cuda.nccl")
    if not nccl.available:
        major = cupy.cuda.runtime.runtimeGetVersion() // 1000
        raise BackendError(f"NCCL is not installed: pip install nvidia-nccl-cu{major}")
    return nccl


def describe(cupy: Any) -> str:
    """Say in a line what adds up over several GPUs."""
    try:
        number = library(cupy).get_version()
    except BackendError as error:
        return f"several GPUs add up by way of the host: {error}"
    return f"several GPUs add up by NCCL {number // 10000}.{number // 100 % 100}.{number % 100}"


def _offer(backend: Any, first: bool) -> Offer:
    """Return what a rank has; the first of them has a name under which all find each other."""
    try:
        name = library(backend.cupy).get_unique_id() if first else b""
    except (RuntimeError, BackendError) as error:
        return Offer(str(error))
    return Offer("", f"{backend.device.pci_bus_id} of {platform.node()}", name)


def _refused(offers: list[Offer]) -> str:
    """Return why ranks cannot add up by NCCL, which takes one rank for each GPU; nothing if they can."""
    for rank, offer in enumerate(offers):
        if offer.problem:
            return f"rank {rank}: {offer.problem}"
        other = next(k for k, one in enumerate(offers) if one.place == offer.place)
        if offer.place and other != rank:
            return f"rank {other} and rank {rank} are on one GPU, {offer.place}"
    return ""


def _tried(made: Communicator) -> Communicator:
    """Return a communicator that added something up."""
    backend, size = made.backend, made.world.size
    (found,) = made.add([backend.asarray([1.0, 2.0], "float32")])
    if backend.asnumpy(found).tolist() != [size, 2.0 * size]:
        raise BackendError(f"NCCL came to {backend.asnumpy(found)} for {size} times [1. 2.]")
    return made
