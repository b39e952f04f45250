"""Ranks of MPI: `mpiexec -n 4 python train.py`."""

import faulthandler
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import numpy as np

from xpnet.checks import number
from xpnet.errors import BackendError, DataError
from xpnet.world.alone import World
from xpnet.world.meeting import Meeting
from xpnet.world.windows import Windows, cut

T = TypeVar("T")

TIMEOUT = 600.0
"""Seconds that ranks wait for each other, unless XPNET_WORLD_TIMEOUT says otherwise."""
END = object()
ADDRESS = re.compile(" at 0x[0-9a-fA-F]+")
"""In the text of a function or an object: another one in every process."""


def library() -> Any:
    """Return mpi4py's MPI; BackendError says what is missing and how to get it."""
    seconds = timeout()
    try:
        with _limited(seconds):
            from mpi4py import MPI
    except (Exception, SystemExit) as error:
        raise BackendError(_no_library(error)) from None
    return MPI


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """End this process if MPI takes longer to start: it waits there for all ranks, and hears of none that ended."""
    if "mpi4py.MPI" in sys.modules:  # it has started
        yield
        return
    with suppress(AttributeError, OSError, RuntimeError, ValueError):  # where there is no stderr to write to
        faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def timeout() -> float:
    """Return the seconds that ranks wait for each other."""
    text = os.environ.get("XPNET_WORLD_TIMEOUT") or TIMEOUT
    try:
        return number("world", "XPNET_WORLD_TIMEOUT", float(text), above=0.0)
    except ValueError:
        raise BackendError(f"XPNET_WORLD_TIMEOUT must be seconds, more than 0, got {text!r}") from None


def _no_library(error: BaseException) -> str:
    """Say whether mpi4py is missing, finds no MPI library, or is broken."""
    if isinstance(error, ModuleNotFoundError) and error.name == "mpi4py":
        return "MPI needs mpi4py, which is not installed: pip install 'xpnet[mpi]' mpich"
    first, *rest = str(error).splitlines() or [""]
    if isinstance(error, RuntimeError) or "libmpi" in str(error):
        names = dict.fromkeys(line.partition(":")[0].rpartition("/")[2] for line in rest)
        tried = ", ".join(name for name in names if name) or first
        return f"mpi4py finds no MPI library (tried {tried}): pip install mpich, or load your cluster's MPI module"
    return f"mpi4py is installed, but does not work here ({type(error).__name__}: {first}): reinstall it"


class MPIWorld(World):
    """The ranks of a communicator of MPI, by mpi4py.

    Ranks of one node add up in memory that they share. `nodes` cuts a single node into so many, to try what several do.
    """

    def __init__(self, comm: Any, nodes: int | None = None) -> None:
        self.mpi = mpi = library()
        self.rank, self.size = comm.rank, comm.size
        self.meeting = Meeting(comm, timeout())
        self.comm = self.meeting.comm
        machine = self.comm.Split_type(mpi.COMM_TYPE_SHARED, key=self.rank)
        self.threads = _threads(machine)
        os.environ.setdefault("PJRT_NPROC", str(self.threads))  # read by JAX when it starts
        node = machine if nodes is None else self.comm.Split(self.rank * nodes // self.size, self.rank)
        self.windows = self._windows(node)

    def __repr__(self) -> str:
        return f"<xpnet world of {self.size} ranks, this one is {self.rank}>"

    def _windows(self, node: Any) -> Windows | None:
        """Return the node's shared memory, None where nodes are not alike, or have a rank each."""
        places = self.comm.allgather((node.size, (self.rank - node.rank) % node.size))
        if set(places) != {(node.size, 0)} or node.size == 1:
            return None
        if node.size == self.size:
            return Windows(node, self.meeting.meet, None)
        cross = self.comm.Split(node.rank, self.rank)
        return Windows(node, self.meeting.meet, lambda numbers: self._across(cross, numbers))

    def _across(self, comm: Any, numbers: np.ndarray) -> None:
        """Add up an array over the ranks of a communicator, in place."""
        if comm.size & (comm.size - 1):
            comm.Allreduce(self.mpi.IN_PLACE, numbers)
        else:
            halving(comm, numbers)

    def add(self, parts: list[np.ndarray], lent: int = 0) -> list[np.ndarray]:
        """Return the sums of arrays over all ranks, in the type of the first."""
        dtype = parts[0].dtype
        if self.windows is not None:
            return self.windows.add(parts, dtype, lent)
        total = np.concatenate([np.asarray(part, dtype).reshape(-1) for part in parts])
        self.meeting.meet()
        self._across(self.comm, total)
        return cut(total, parts)

    def gather(self, value: T) -> list[T]:
        """Return what each rank has, in their order."""
        return self.meeting.gather(value)

    def alike(self, blocks: Iterator[T], form: Callable[[T], Any]) -> Iterator[T]:
        """Yield what each rank's iterator gives; DataError, on all of them, as soon as forms or numbers differ."""
        for block in chain(blocks, [END]):
            forms = self.gather("the end" if block is END else str(form(block)))  # type: ignore[arg-type]
            other = next((rank for rank, one in enumerate(forms) if one != forms[0]), None)
            if other is not None:
                raise DataError(
                    f"all ranks must be given the same batches: rank 0 has {forms[0]}, rank {other} has {forms[other]}"
                )
            if block is not END:
                yield block  # type: ignore[misc]

    def check(self, facts: dict[str, Callable[[], Any]]) -> None:
        """Raise DataError, on all ranks, for the first of the facts that differs between them."""
        own = {name: ADDRESS.sub("", str(fact())) for name, fact in facts.items()}
        for rank, others in enumerate(every := self.gather(own)):
            for name, fact in others.items():
                if fact != every[0][name]:
                    shown = f", {every[0][name]} and {fact}" if len(fact) < 64 else ""
                    raise DataError(f"all ranks must train the same: {name} of rank 0 and of rank {rank} differ{shown}")

    def together(self, what: str) -> AbstractContextManager[Any]:
        """Return the context of what all ranks do: an error that not all of them meet ends them all."""
        return self.meeting.together(what)


class Report(NamedTuple):
    """What is known of MPI here."""

    version: str | None
    """Of mpi4py, if it is installed."""
    rank: int = 0
    problem: str | None = None
    line: str = ""


def examine() -> Report:
    """Try MPI: which library answers, how many ranks, threads of each, and whether they share memory. All ranks do."""
    try:
        mpi = library()
    except BackendError as error:
        return Report(library_version(), problem=str(error))
    node = mpi.COMM_WORLD.Split_type(mpi.COMM_TYPE_SHARED)
    name = " ".join(mpi.Get_library_version().partition("\n")[0].replace("Version:", "").split())[:60]
    threads = _threads(node)
    counts = f"{mpi.COMM_WORLD.size} rank{'s' * (mpi.COMM_WORLD.size > 1)}, {threads} thread{'s' * (threads > 1)} each"
    shared = "memory is shared" if _shares(mpi, node) else "no shared memory"
    return Report(library_version(), mpi.COMM_WORLD.rank, None, f"{name}, {counts}, {shared}")


def library_version() -> str | None:
    """Return the version of mpi4py, None if it is not installed."""
    try:
        return version("mpi4py")
    except PackageNotFoundError:
        return None


def _shares(mpi: Any, node: Any) -> bool:
    """Whether the ranks of a node read what the others write."""
    windows = Windows(node, node.Barrier, None)
    try:
        (total,) = windows.add([np.full(3, 1.0 + node.rank)], np.dtype("float64"))
    except mpi.Exception:
        return False
    return bool((total == node.size * (node.size + 1) / 2).all())


def halving(comm: Any, numbers: np.ndarray) -> None:
    """Add up an array over 2ᵏ ranks in place: halves are exchanged with the neighbour, then theirs with the next pair.

    Recursive halving with doubling distance, then the way back: every element is added up as by `tree`.
    (Thakur, Rabenseifner & Gropp, "Optimization of collective communication operations in MPICH", 2005)
    """
    low, high, distance, way = 0, numbers.size, 1, []
    came = np.empty(numbers.size // 2 + 1, numbers.dtype)
    while distance < comm.size:
        middle, other = (low + high) // 2, comm.rank ^ distance
        first, second = slice(low, middle), slice(middle, high)
        keep, give = (second, first) if comm.rank & distance else (first, second)
        theirs = came[: keep.stop - keep.start]
        comm.Sendrecv(numbers[give], other, 0, theirs, other, 0)
        numbers[keep] += theirs
        way.append((keep, give, other))
        low, high, distance = keep.start, keep.stop, distance * 2
    for keep, give, other in reversed(way):
        comm.Sendrecv(numbers[keep], other, 1, numbers[give], other, 1)


def _threads(machine: Any) -> int:
    """Return the cores that each rank of a machine has: those that all may run on, divided by the ranks."""
    own = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    every: set[int] = set().union(*machine.allgather(own))
    ranks: int = machine.size
    return max(1, min(len(own), len(every) // ranks))
