"""The processes that train one model together.

    model = xn.Model(..., world="mpi")       mpiexec -n 4 python train.py
    XPNET_WORLD=mpi mpiexec -n 4 python train.py
    model = xn.Model(..., world=comm)        some ranks: a communicator of mpi4py

θ is one vector, so ranks are joined by one sum: of gradient, loss and metrics, between backward pass and update.
"""

import os
import sys
import warnings
from contextlib import suppress
from functools import cache
from typing import Any

from xpnet.checks import shown
from xpnet.errors import BackendError, DataWarning
from xpnet.world.alone import World, tree

__all__ = ["World", "find", "tree"]

LAUNCHED = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
"""Where mpiexec and srun say how many processes they started."""
RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID")


def find(world: Any = None) -> World:
    """Return the world that is named: `"mpi"`, a communicator of mpi4py, `"alone"`; else XPNET_WORLD's, else alone.

    BackendError if there is no such world, or no MPI here.
    """
    if isinstance(world, World):
        return world
    if world is None:
        named = os.environ.get("XPNET_WORLD")
        if not named:
            _warn_of_others()
        world = named or "alone"
    if world == "alone":
        return World()
    if world == "mpi":
        return _mpi()
    if hasattr(world, "Get_rank"):
        return _of(world)
    raise BackendError(f'unknown world {shown(world)}: choose "mpi", a communicator of mpi4py, or "alone"')


@cache
def _mpi() -> World:
    """Return the world of all processes: always the same one."""
    found = _of(None)
    if found.size == 1:
        text = 'world="mpi" has one rank, this process: start it by mpiexec -n 2 python …'
        warnings.warn(text, DataWarning, stacklevel=4)
    return found


def _of(comm: Any) -> World:
    """Return the world of a communicator, None for all processes; of a single one there is nothing to ask."""
    from xpnet.world.mpi import MPIWorld, library

    comm = library().COMM_WORLD if comm is None else comm
    return MPIWorld(comm) if comm.size > 1 else World()


def _launched() -> int:
    """Return how many processes mpiexec started, as far as it says so."""
    return max(int(os.environ.get(name) or 1) for name in LAUNCHED)


@cache
def _warn_of_others() -> None:
    """Say once, on the first of several processes, that each of them trains by itself."""
    first = all(os.environ.get(name, "0") == "0" for name in RANKS)
    if (size := _launched()) > 1 and first:
        text = f'{size} processes were started, and each trains alone: pass world="mpi", or set XPNET_WORLD=mpi'
        warnings.warn(text + '; world="alone" says that it is meant so', DataWarning, stacklevel=4)


def _guard() -> None:
    """Let an error before the first model end all ranks: others would wait for this one, where MPI starts."""
    hook, process = sys.excepthook, os.getpid()

    def uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        hook(kind, error, trace)
        if os.getpid() == process and not _mpi.cache_info().currsize:
            from xpnet.world.meeting import end
            from xpnet.world.mpi import library

            with suppress(BackendError):
                end(library().COMM_WORLD, error)

    sys.excepthook = uncaught


if os.environ.get("XPNET_WORLD") == "mpi" and _launched() > 1 and "XPNET_WORLD_GUARDED" not in os.environ:
    os.environ["XPNET_WORLD_GUARDED"] = "1"  # programs that this one starts are no ranks
    _guard()
