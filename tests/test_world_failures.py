"""Whatever goes wrong on one of several ranks: none hangs, the reason is said, and no file is damaged."""

import re
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest
from failing import CASES, STALL, Case
from launching import Ended, launched, mpiexec

import xpnet as xn
from xpnet.world import mpi

pytestmark = pytest.mark.skipif(mpiexec() is None, reason="needs mpiexec and mpi4py")

PROGRAM = Path(__file__).with_name("failing.py")
SIMILAR = {"exception", "sys_exit_outside", "sigsegv", "sigterm", "sigstop"}
"""What others show as well: `python -m benchmarks.world_failures` tries these too."""


class Seen(NamedTuple):
    """How a case ended, and what it left behind."""

    ended: Ended
    parts: int
    """Files that were not finished."""
    damage: str
    """What is wrong with the checkpoint."""


def look(name: str, folder: Path) -> Seen:
    """Run a case under mpiexec."""
    one, damage, path = CASES[name], "", folder / "run.xpn"
    interrupt = (folder / "ready", one.signal) if one.signal else None
    how = {"XPNET_WORLD": "mpi", "XPNET_WORLD_TIMEOUT": str(one.timeout)}
    ended = launched([str(PROGRAM), name, str(folder)], one.ranks, interrupt, **how)
    try:
        if path.is_file():
            with warnings.catch_warnings(action="ignore"):  # it may be of another machine's bits
                xn.load(path, "numpy")
    except xn.CheckpointError as error:
        damage = str(error)
    return Seen(ended, len(list(folder.glob("*.part"))), damage)


def faults(one: Case, seen: Seen) -> list[str]:
    """Return what is not as it must be."""
    code, out, err, seconds = seen.ended
    wrong = {
        f"it hung: {err}": code is None,
        f"the exit code is {code}: {err}": one.ends and code is not None and bool(one.says) != bool(code),
        f"{one.says} is not said: {err}": not re.search(one.says, out + err),
        f"it took {seconds:.0f} s: {err}": seconds > STALL / 2,
        f"the checkpoint: {seen.damage}": bool(seen.damage),
        "the part of a file stays": bool(seen.parts) and not one.leaves,
    }
    return [text for text, so in wrong.items() if so]


@pytest.mark.parametrize("name", [name for name in CASES if name not in SIMILAR])
def test_ranks_end_together(name, tmp_path):
    assert faults(CASES[name], look(name, tmp_path)) == []


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan"])
def test_a_timeout_is_seconds(monkeypatch, text):
    monkeypatch.setenv("XPNET_WORLD_TIMEOUT", text)
    with pytest.raises(xn.BackendError, match=f"XPNET_WORLD_TIMEOUT must be seconds, more than 0, got '{text}'"):
        mpi.timeout()
