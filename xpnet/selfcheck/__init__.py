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
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.selfcheck import numbers, training
from xpnet.testing.backends import open_backend

CHECKS = (*numbers.CHECKS, *training.CHECKS)
ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = ("look", "interop", "cli.py", "__main__.py", "testing/capabilities.py")
"""What a selfcheck says nothing about."""


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
    """Run every check on a backend; return what was found, on what, with what, and when."""
    if not __debug__:
        raise RuntimeError("python -O takes the checks out: run the selfcheck without it")
    begun = time.perf_counter()
    with np.errstate(all="ignore"):
        done = [one(check, backend, quick, show) for check in CHECKS]
    return {
        "backend": backend.name,
        **about(backend),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "sources": sources(),
        "seconds": round(time.perf_counter() - begun, 1),
        "passed": all(result["passed"] for result in done),
        "checks": done,
    }


def one(check: Any, backend: Backend, quick: bool, show: bool) -> dict[str, Any]:
    """Run one check and say how it went; a check that raises has failed."""
    begun, result = time.perf_counter(), {"name": check.__name__, "what": check.__doc__.partition("\n")[0]}
    try:
        result |= {"passed": True, "figures": check(backend, quick)}
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        result |= {"passed": False, "error": f"{type(error).__name__} at {place}: {error}"}
    result["seconds"] = round(time.perf_counter() - begun, 2)
    if show:
        text = result.get("error") or ", ".join(f"{k} {v}" for k, v in result["figures"].items())
        state = "ok" if result["passed"] else "FAILED"
        print(f"{state:6} {check.__name__:14} {result['seconds']:6.1f} s  {text}", flush=True)
    return result


def about(backend: Backend) -> dict[str, Any]:
    """Return the device and the versions of all that took part."""
    versions: dict[str, str | None] = {name: version(name) for name in ("xpnet", "numpy", "array-api-compat")}
    versions |= {"python": platform.python_version(), backend.name: backend.version}
    return {"device": backend.describe(), "machine": platform.platform(), "versions": versions | backend.versions()}


def save(result: dict[str, Any], path: str) -> None:
    """Write a result as JSON."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def table(paths: Sequence[str | Path]) -> str:
    """Return the rows of the README's table of what was verified, from results that were saved."""
    rows = []
    for path in sorted(map(Path, paths)):
        result = json.loads(path.read_text(encoding="utf-8"))
        passed = sum(check["passed"] for check in result["checks"])
        versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
        what = f"selfcheck{' --quick' if result['quick'] else ''}: {passed} of {len(result['checks'])} checks"
        rows.append(f"| {result['backend']} | {result['device']} | {versions} | {result['date'][:10]} | {what} |")
    return "\n".join(rows)
