"""`xpnet selfcheck`: does this backend compute what NumPy computes, here, today?

Every check compares with NumPy or with central differences, or a thing with itself done another way, and gives the
worst error that it found beside the tolerance. What is written to a file says which sources it covers.
"""

import hashlib
import json
import platform
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import array_api_compat
import numpy as np

from xpnet.backends import Backend
from xpnet.errors import BackendError, DataError
from xpnet.files import storage
from xpnet.selfcheck import numbers, training
from xpnet.testing.backends import open_backend
from xpnet.training.interrupt import Interrupt
from xpnet.version import __version__

CHECKS = (*numbers.CHECKS, *training.CHECKS)
ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = ("look", "interop", "cli.py", "__main__.py", "testing/capabilities.py")
"""What a selfcheck says nothing about."""
STAND_IN = "stand-in"
"""What a device's name holds where CUDA is played by the CPU (tests/standin)."""
LEFT_OUT = ("left out", "not measured")
"""How a check's figures begin where it looked at nothing."""


def sources() -> str:
    """Return a hash of the sources that a selfcheck covers."""
    digest = hashlib.sha256()
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(OUTSIDE):
            digest.update(f"{name}\n{path.read_text(encoding='utf-8')}".encode())
    return digest.hexdigest()[:16]


def run(name: str, quick: bool = False, show: bool = True) -> dict[str, Any]:
    """Run every check on a backend by its name; return what was found. `quick` leaves out the long ones and MNIST."""
    with open_backend("strict:device1" if name == "strict" else name) as backend:
        return examine(backend, quick, show)


def examine(backend: Backend, quick: bool = False, show: bool = True) -> dict[str, Any]:
    """Run every check on a backend; return what was found, on what, with what, and when.

    KeyboardInterrupt: after Ctrl-C, when the check that runs is over, or at once after a second one. Numba's compiler
    loses an exception that comes while it is at work, or ends the process.
    """
    if not __debug__:
        raise BackendError("python -O takes the checks out: run the selfcheck without it")
    begun = time.perf_counter()
    done = []
    with np.errstate(all="ignore"), Interrupt() as interrupt:
        for check in CHECKS:
            done.append(one(check, backend, quick, show))
            if interrupt.asked:
                raise KeyboardInterrupt
    return {
        "backend": backend.name,
        **about(backend),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "sources": sources(),
        "seconds": round(time.perf_counter() - begun, 1),
        "passed": all(result["passed"] is not False for result in done),
        **count(done),
        "checks": done,
    }


def one(check: Any, backend: Backend, quick: bool, show: bool) -> dict[str, Any]:
    """Run one check and say how it went: one that raises has failed, one that was left out has neither passed."""
    begun, result = time.perf_counter(), {"name": check.__name__, "what": check.__doc__.partition("\n")[0]}
    try:
        figures = check(backend, quick)
        result |= {"passed": None if left_out(figures) else True, "figures": figures}
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        result |= {"passed": False, "error": f"{type(error).__name__} at {place}: {error}"}
    result["seconds"] = round(time.perf_counter() - begun, 2)
    if show:
        text = result.get("error") or ", ".join(f"{k} {v}" for k, v in result["figures"].items())
        state = {True: "ok", False: "FAILED", None: "left out"}[result["passed"]]
        print(f"{state:8} {check.__name__:14} {result['seconds']:6.1f} s  {text}", flush=True)
    return result


def left_out(figures: dict[str, Any]) -> bool:
    """Whether a check looked at nothing: --quick left it out, or this backend cannot be measured."""
    return any(isinstance(figure, str) and figure.startswith(LEFT_OUT) for figure in figures.values())


def count(checks: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return how many checks ran, passed and were left out; results of older versions say of these that they passed."""
    ran = [check for check in checks if not left_out(check.get("figures", {}))]
    return {"ran": len(ran), "succeeded": sum(check["passed"] for check in ran), "left_out": len(checks) - len(ran)}


def tally(checks: Sequence[dict[str, Any]]) -> str:
    """Say it in words: `13 of 13 checks passed, 2 left out`."""
    ran, succeeded, left = count(checks).values()
    return f"{succeeded} of {ran} checks passed" + (f", {left} left out" if left else "")


def about(backend: Backend) -> dict[str, Any]:
    """Return the device and the versions of all that took part."""
    versions: dict[str, str | None] = {"xpnet": __version__, "numpy": np.__version__}
    versions["array-api-compat"] = array_api_compat.__version__
    versions |= {"python": platform.python_version(), backend.name: backend.version}
    return {"device": backend.describe(), "machine": platform.platform(), "versions": versions | backend.versions()}


def reserve(path: str) -> None:
    """Make the folder of a result that will be saved; CheckpointError, in one line, if it cannot be saved there."""
    with suppress(OSError):  # of which the check speaks
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    storage.check(path)


def save(result: dict[str, Any], path: str) -> None:
    """Write a result as JSON."""
    reserve(path)
    storage.write_text(path, json.dumps(result, indent=2) + "\n")


def table(paths: Sequence[str | Path]) -> str:
    """Return the rows of the README's table of what was verified, from results that were saved."""
    return "\n".join(_row(path) for path in sorted(map(Path, paths)))


def _row(path: Path) -> str:
    """Return one row; DataError, in one line, if this is no result of a selfcheck."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
        what = f"selfcheck{' --quick' if result['quick'] else ''}: {tally(result['checks'])}"
        device = result["device"]
        named = device.partition(", memory ")[0]  # how much of it was free then is no part of a name
        row = f"| {result['backend']} | {named} | {versions} | {result['date'][:10]} | {what} |"
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        came = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise DataError(f"{path} is not what `xpnet selfcheck --json` writes ({came})") from None
    if STAND_IN in device:
        raise DataError(f"{path} was not made on a GPU but on its {STAND_IN}: it is no row of this table")
    return row
