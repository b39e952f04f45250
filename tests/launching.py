"""Programs of several ranks under mpiexec, each with a time limit."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import xpnet

LIMIT = 60.0
"""Seconds after which ranks have hung."""
ANY_LAUNCHER = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "I_MPI_PIN": "0",
}
"""More ranks than cores, by whatever user."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Ended(NamedTuple):
    """How mpiexec ended."""

    code: int | None
    """None if it did not, within the limit."""
    out: str
    err: str
    seconds: float


def mpiexec() -> str | None:
    """Return the launcher, that of this Python's environment before others; None if there is none, or no mpi4py."""
    if importlib.util.find_spec("mpi4py") is None:
        return None
    return shutil.which("mpiexec", path=Path(sys.executable).parent) or shutil.which("mpiexec")


def launched(
    program: Sequence[str],
    ranks: int = 2,
    interrupt: tuple[Path, int] | None = None,
    limit: float = LIMIT,
    **environment: str,
) -> Ended:
    """Run `python PROGRAM` on ranks; mpiexec is sent a signal once a file is there, if it is to be interrupted."""
    start = time.monotonic()
    root = str(Path(xpnet.__file__).parents[1])  # the xpnet that is tested here
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    how = os.environ | ANY_LAUNCHER | ONE_THREAD | {"PYTHONPATH": paths} | environment
    words = [mpiexec(), "-n", str(ranks), sys.executable, *program]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(words, **pipes, env=how, text=True, errors="replace", start_new_session=True)
    try:
        while interrupt and process.poll() is None and time.monotonic() - start < limit:
            time.sleep(0.05)
            if interrupt[0].exists():
                process.send_signal(interrupt[1])
                interrupt = None
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # its ranks may hold the pipes
            process.communicate(timeout=5.0)
        return Ended(None, "", "", time.monotonic() - start)
    return Ended(process.returncode, out, err, time.monotonic() - start)
