"""A file is saved while a system call goes wrong, or the process is killed there: call by call, in every way.

`campaign(folder)` builds `refusals.c` and runs this program under it. After each trial the file must be the old one or
the new one, whole, its mode kept and its link intact, and what the error says must be true.
"""

import ctypes
import errno
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import xpnet
from xpnet.errors import CheckpointError
from xpnet.files import storage, writer

ONCE, FROM_HERE_ON, DONE_AND_REFUSED, SHORT, SIGNAL_BEFORE, SIGNAL_AFTER = range(6)
ERRORS = ("ENOSPC", "EIO", "EINVAL", "EINTR", "EACCES", "EROFS", "EMFILE", "ESTALE", "EDQUOT", "ENOLCK")
QUICK = ("EIO",)
BY_PYTHON = "File or stream is not seekable.|it is a link that cannot be followed"
"""What is said where Python keeps the reason for itself."""
OLD, MODE = b"old " * 1000, 0o640
TOLD = {
    "untouched": r"cannot write {path}: {why}; what was there is untouched",
    "written": r"{path} is written, but a power cut may bring back the old one: cannot sync its folder: {why}",
}
LEFT = "file.12345678.part"
"""What a killed writer left behind long ago."""
OTHERS = ("file.part", "notes")


class Fault(NamedTuple):
    """What the call at a place meets."""

    name: str
    number: int
    how: int


class Place:
    """A folder in which a file is written by way of a link: there before, or not."""

    def __init__(self, folder: Path, there: bool) -> None:
        self.folder, self.there = folder / "files", there
        self.path, self.target = folder / "link", self.folder / "file"

    def lay_out(self) -> None:
        """Make all as it is before."""
        if self.folder.is_dir():
            for left in self.folder.iterdir():
                left.unlink()
        else:
            self.folder.mkdir()
            self.path.symlink_to(self.target)
        for name in (LEFT, *OTHERS):
            (self.folder / name).write_bytes(b"")
        os.utime(self.folder / LEFT, (time.time() - 10 * writer.STALE,) * 2)
        if self.there:
            self.target.write_bytes(OLD)
            self.target.chmod(MODE)

    def content(self) -> bytes | None:
        """Return what is there now."""
        return self.target.read_bytes() if self.target.exists() else None

    def left(self) -> set[str]:
        """Return which parts are there now that this writer made."""
        return set(os.listdir(self.folder)) - {LEFT, "file", *OTHERS}


def new() -> list[tuple[int, bytes]]:
    """Return the pieces of a checkpoint."""
    arrays = {"0.weight": np.arange(6000, dtype="float32"), "0.bias": np.ones(7, "float32")}
    return [(place, bytes(piece)) for place, piece in storage.encode("{}", arrays)]


PIECES = new()


def whole() -> bytes:
    """Return what they make."""
    content = bytearray()
    for start, piece in PIECES:
        content[start : start + len(piece)] = piece
    return bytes(content)


NEW = whole()


def attempt(place: Place, shim: Any, at: int, fault: Fault) -> tuple[str, list[str], bool]:
    """Write with a fault; return what was raised, the calls that were made, and whether another error came out."""
    raised, wrong = "", False
    shim.arm(at, fault.number, fault.how)
    try:
        storage.write(place.path, PIECES)
    except CheckpointError as error:
        raised = str(error)
    except KeyboardInterrupt:
        raised = "KeyboardInterrupt"
    except BaseException as error:
        raised, wrong = f"{type(error).__name__}: {error}", True
    finally:
        calls = shim.disarm().decode().split()
    return raised, calls, wrong


def problems(place: Place, fault: Fault, call: str, raised: str) -> list[str]:
    """Return what is not as it must be after a trial."""
    found, content, old = [], place.content(), OLD if place.there else None
    if content not in (old, NEW):
        found.append("the file is lost")
    if not place.path.is_symlink():
        found.append("the link is lost")
    if any(not (place.folder / name).exists() for name in OTHERS):
        found.append("somebody else's file is lost")
    killed = fault.number == signal.SIGKILL
    if not raised and not killed and content != NEW:
        found.append("nothing was raised, and nothing written")
    if raised and raised != "KeyboardInterrupt":
        why = f"({os.strerror(fault.number)}|{BY_PYTHON})" if fault.how <= DONE_AND_REFUSED else "[^;:]+"
        path = re.escape(str(place.path))
        said = [which for which, text in TOLD.items() if re.fullmatch(text.format(path=path, why=why), raised)]
        if not said or content != {"untouched": old, "written": NEW}[said[0]]:
            found.append(f"a false sentence: {raised}")
    if place.there:
        mode = stat.S_IMODE(place.target.stat().st_mode)
        refused = fault.how <= DONE_AND_REFUSED and call in ("fchmod", "fchown", "getxattr")
        if (mode != MODE and not (refused or fault.how == FROM_HERE_ON)) or mode & ~MODE:
            found.append(f"the mode is {mode:o}")
    ours = place.left()
    if len(ours) > (killed or fault.how == FROM_HERE_ON or call == "unlink"):
        found.append(f"left behind: {sorted(ours)}")
    return found


def swept(place: Place) -> list[str]:
    """Return what is not as it must be when the next writer has come, long after."""
    for name in place.left():
        os.utime(place.folder / name, (time.time() - 10 * writer.STALE,) * 2)
    storage.write(place.path, PIECES)
    mode = stat.S_IMODE(place.target.stat().st_mode)
    bad = place.content() != NEW or place.left() or (place.folder / LEFT).exists() or (place.there and mode & ~MODE)
    return ["the next writer finds no way"] if bad else []


def trial(place: Place, shim: Any, at: int, fault: Fault) -> tuple[str, list[str]]:
    """Do one: return the call that met the fault, and what was wrong afterwards."""
    place.lay_out()
    handles = len(os.listdir("/proc/self/fd"))
    if fault.number == signal.SIGKILL:
        child = os.fork()
        if not child:
            attempt(place, shim, at, fault)
            os._exit(0)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        raised, call, wrong = "", "any", ended != -signal.SIGKILL
    else:
        raised, calls, wrong = attempt(place, shim, at, fault)
        call = calls[at]
    bad = problems(place, fault, call, raised)
    if wrong:
        bad.append(f"ended otherwise: {raised}")
    lets_go = raised == "KeyboardInterrupt" and call == "open"  # it came before Python knew of the open file
    if len(os.listdir("/proc/self/fd")) != handles and not lets_go:
        bad.append("a file stays open")
    return call, bad + swept(place)


def faults(call: str, quick: bool) -> list[Fault]:
    """Return what a call may meet."""
    found = [Fault(name, getattr(errno, name), ONCE) for name in (QUICK if quick else ERRORS)]
    found += [Fault(f"{name} from there on", getattr(errno, name), FROM_HERE_ON) for name in ("ENOSPC", "EIO")[quick:]]
    found += [Fault("Ctrl-C after it", signal.SIGINT, SIGNAL_AFTER), Fault("killed", signal.SIGKILL, SIGNAL_BEFORE)]
    if not quick:
        found.append(Fault("Ctrl-C before it", signal.SIGINT, SIGNAL_BEFORE))
    if call == "write":
        found.append(Fault("half of it", 0, SHORT))
    if call in ("rename", "close", "unlink"):
        found.append(Fault("done, the answer lost", errno.EIO, DONE_AND_REFUSED))
    return found


def run(folder: Path, quick: bool) -> dict[str, Any]:
    """Try every call, with a file there before and without, in every way; return what was tried and what was wrong."""
    shim = ctypes.CDLL(None)
    shim.disarm.restype = ctypes.c_char_p
    warnings.simplefilter("ignore")
    wrong, calls_met, kinds, places = [], Counter(), Counter(), 0
    for there in (True, False):
        (home := folder / f"there-{there}").mkdir()
        place = Place(home, there)
        place.lay_out()
        _, calls, _ = attempt(place, shim, -1, Fault("none", 0, ONCE))
        places += len(calls)
        for at in range(len(calls)):
            for fault in faults(calls[at], quick):
                _, bad = trial(place, shim, at, fault)
                calls_met[calls[at]] += 1
                kinds[fault.name] += 1
                wrong += [f"{fault.name} at {calls[at]} ({at}), there {there}: {one}" for one in bad]
    return {
        "injected": sum(kinds.values()),
        "places": places,
        "files lost": sum("is lost" in one for one in wrong),
        "false sentences": sum("sentence" in one for one in wrong),
        "wrong": wrong,
        "by call": dict(calls_met),
        "by kind": dict(kinds),
    }


def campaign(folder: Path, quick: bool) -> dict[str, Any]:
    """Compile the shim and run all under it; FileNotFoundError where there is no C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise FileNotFoundError("no C compiler")
    shim, here = folder / "refusals.so", Path(__file__)
    source = str(here.with_name("refusals.c"))
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(shim), source, "-ldl", "-lpthread"], check=True)
    words = [sys.executable, str(here), str(folder), *(["--quick"] if quick else [])]
    paths = os.pathsep.join([str(Path(xpnet.__file__).parents[1]), *sys.path])
    environment = os.environ | {"LD_PRELOAD": str(shim), "PYTHONPATH": paths}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=3000)
    if done.returncode:
        raise RuntimeError(done.stderr or f"ended with {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]), "--quick" in sys.argv)))
