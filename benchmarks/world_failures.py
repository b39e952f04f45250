"""Whatever goes wrong on one of two ranks, over and over: `python -m benchmarks.world_failures`.

world/failures.json and world/failures.md get a table of the MPI that mpi4py finds, beside those of others; what is
there already counts on. The cases are those of the tests (tests/failing.py); `--resume` tries the killed runs of
tests/test_world_resume.py as well.
"""

import argparse
import importlib
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import machine
from xpnet.files.writer import write_text

HERE = Path(__file__).resolve().parent
TIMES = 20

sys.path.insert(0, str(HERE.parent / "tests"))
cases = importlib.import_module("failing").CASES
tests = importlib.import_module("test_world_failures")
resuming = importlib.import_module("test_world_resume")


def library() -> str:
    """Return name and version of the MPI that answers."""
    words = importlib.import_module("mpi4py.MPI").Get_library_version().replace(",", " ").split()
    number = next(word.strip("v") for word in words if word.strip("v")[:1].isdigit())
    return f"{' '.join(words[: 2 if words[0] in ('Open', 'Intel(R)') else 1]).removesuffix(' Version:')} {number}"


def tried(name: str) -> dict[str, Any]:
    """Run a case; return whether it hung, what else was wrong, and what it left behind."""
    with tempfile.TemporaryDirectory() as folder:
        seen = tests.look(name, Path(folder))
    return {
        "runs": 1,
        "hung": int(seen.ended.code is None),
        "damaged": int(bool(seen.damage)),
        "unfinished": seen.parts,
        "codes": [str(seen.ended.code)],
        "wrong": tests.faults(cases[name], seen),
        "seconds": [round(seen.ended.seconds, 2)],
    }


def resumed(backend: str) -> dict[str, bool]:
    """Kill a run on two ranks; return which numbers of ranks went on to the bits of an uninterrupted one."""
    with tempfile.TemporaryDirectory() as folder:
        return {str(ranks): same for ranks, same in resuming.resumed(Path(folder), backend, (1, 2, 4)).items()}


def page(report: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = ["# What goes wrong on one of two ranks", ""]
    for mpi, found in report.items():
        about = found["machine"]
        lines += [f"## {mpi}", "", f"{about['processor']}, {about['cores']} cores.", ""]
        lines += [
            "| case | runs | hung | files damaged | parts left | exit codes | not as it must be | s, median | most |"
        ]
        lines += ["| --- |" + " --: |" * 8]
        for name, one in found["cases"].items():
            seconds, wrong = one["seconds"], len(one["wrong"])
            numbers = [one[key] for key in ("runs", "hung", "damaged", "unfinished")]
            numbers += [
                ", ".join(sorted(set(one["codes"]))),
                wrong,
                f"{statistics.median(seconds):.1f}",
                f"{max(seconds):.1f}",
            ]
            lines.append(f"| {name.replace('_', ' ')} | {' | '.join(map(str, numbers))} |")
        for backend, same in found.get("resumed", {}).items():
            ranks = ", ".join(f"{number}: {'same bits' if so else 'OTHER BITS'}" for number, so in same.items())
            lines += ["", f"Killed on 2 ranks, gone on with others, {backend}, `shards=8`: {ranks}."]
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Try all cases, or some, and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.world_failures", description=__doc__)
    parser.add_argument("--times", type=int, default=TIMES, help="0 for the page alone")
    parser.add_argument("--case", action="append", choices=tuple(cases), help="this one only; may be repeated")
    parser.add_argument("--resume", action="append", default=[], metavar="BACKEND", help="killed runs on it")
    args = parser.parse_args()
    path = HERE / "world" / "failures.json"
    path.parent.mkdir(exist_ok=True)
    mpi = library()
    report: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    own = report.setdefault(mpi, {"cases": {}}) | {"machine": machine.describe(1)}
    report[mpi] = own
    for name in [name for _ in range(args.times) for name in args.case or cases]:
        found, before = tried(name), own["cases"].get(name)
        own["cases"][name] = {key: before[key] + value for key, value in found.items()} if before else found
        print(name, found, flush=True)
        write_text(path, json.dumps(report, indent=1) + "\n")
    for backend in args.resume:
        own.setdefault("resumed", {})[backend] = resumed(backend)
    write_text(path, json.dumps(report, indent=1) + "\n")
    write_text(path.with_suffix(".md"), page(report))


if __name__ == "__main__":
    main()
