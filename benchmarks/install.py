"""How much a user installs: `python -m benchmarks.install REQUIREMENT…` adds up what is installed here, as JSON.

The sizes are those that each distribution's RECORD tells, of all that the requirements need; nothing is downloaded.
"""

import json
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

try:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name
except ImportError:
    from pip._vendor.packaging.requirements import Requirement
    from pip._vendor.packaging.utils import canonicalize_name


def closure(requirements: list[str]) -> dict[str, Distribution]:
    """Return by name all distributions that the requirements need, extras and markers respected."""
    found: dict[str, Distribution] = {}
    seen, waiting = set(), [Requirement(text) for text in requirements]
    while waiting:
        wanted = waiting.pop()
        name, extras = canonicalize_name(wanted.name), {"", *wanted.extras}
        found[name] = distribution(name)
        if unknown := set(wanted.extras) - set(found[name].metadata.get_all("Provides-Extra") or []):
            raise LookupError(f"{name} as installed here has no extra {sorted(unknown)}: install it again")
        for extra in extras - {e for n, e in seen if n == name}:
            seen.add((name, extra))
            needed = map(Requirement, found[name].requires or [])
            waiting += [r for r in needed if r.marker is None or r.marker.evaluate({"extra": extra})]
    return found


def size(one: Distribution) -> int:
    """Return the bytes of a distribution's files; of one that is installed for editing, those of its package."""
    origin = json.loads(one.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        folder = Path(origin["url"].removeprefix("file://")) / one.name
        return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return sum(file.size or 0 for file in one.files or [])


def measure(requirements: list[str]) -> dict[str, Any]:
    """Return the bytes altogether, and how many distributions that are."""
    needed = closure(requirements)
    return {"bytes": sum(map(size, needed.values())), "distributions": len(needed)}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1:])))
