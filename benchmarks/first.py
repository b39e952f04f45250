"""The first run on a GPU, in four commands of under ten minutes each: does it work, and how fast is it?

    python -m benchmarks.first prove --out FOLDER     doctor, probes, selfchecks, sanitizers, tests
    python -m benchmarks.first small --out FOLDER     the benchmark of 784-128-10, and MNIST to an accuracy
    python -m benchmarks.first large --out FOLDER     the benchmark of the two large networks
    python -m benchmarks.first nets --out FOLDER      the benchmark of the convolutional net and the transformer
    python -m benchmarks.first why --out FOLDER       what failed first, again and slowly; the first wrong number
    python -m benchmarks.first merge --out FOLDER     at home: all of it into benchmarks/gpu/ and benchmarks/selfcheck/,
                                                      of several commands with an --out for each

From the repository's root; xpnet need not be installed, array-api-compat must be. Each part is a process with a limit
of its own: one that fails or hangs stops no other. `--through "python -m standin"` rehearses on the stand-in of
tests/standin all but what needs a device's speed. FOLDER gets a report (`first-MODE.json`, written after every part), a
log, and what the parts write: at most eight files a command.
"""

import argparse
import ast
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.runner import LIMIT, PEERS, ROOT, Part, Runner
from xpnet.files.writer import write_text

SANITIZER = ("compute-sanitizer", "--error-exitcode", "9", "--tool")
PROBES = {"libraries": 60, "net": 60, "epilogues": 90, "nan": 40, "graphs": 90, "replays": 40, "bits": 50, "memory": 50}


# What is run


def probe(name: str, limit: float, **rest: Any) -> Part:
    """Return a probe as a part."""
    return Part(name, limit, ("-m", "benchmarks.probes", name), **rest)


def prove(out: Path) -> list[Part]:
    """Return what tells whether it works, the cheapest first."""
    query = "--query-gpu=name,driver_version,memory.total,clocks.sm"
    selfcheck = ("-m", "xpnet", "selfcheck", "--backend", "cupy", "--json")
    return [
        Part("gpu", 20, program=("nvidia-smi", query, "--format=csv,noheader")),
        Part("doctor", 90, ("-m", "xpnet", "doctor")),
        *(probe(name, limit) for name, limit in PROBES.items()),
        Part("selfcheck-quick", 120, (*selfcheck, str(out / "selfcheck-quick.json"), "--quick")),
        Part("selfcheck", 150, (*selfcheck, str(out / "selfcheck.json")), fast=True),
        probe("clock", 60, fast=True),
        probe("memcheck", 100, program=(*SANITIZER, "memcheck")),
        probe("racecheck", 60, program=(*SANITIZER, "racecheck")),
        tests(300),
    ]


def tests(limit: float) -> Part:
    """Return the tests that take a backend, on CuPy, of the files that find what they import."""
    files = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests").glob("test_*.py")) if not absent(path)]
    options = ("-q", "-p", "no:cacheprovider", "-p", "pytest_xpnet", "-m", "gpu", "--backends", "cupy")
    words = ("-m", "pytest", *options, "--maxfail", "20", "--continue-on-collection-errors", *files)
    return Part("tests", limit, words, modules=("pytest", "hypothesis"))


def absent(path: Path) -> list[str]:
    """Return what a test file imports at its top and is not installed."""
    beside = {one.stem for one in path.parent.iterdir()}
    return [name for name in imported(path) if name not in beside and find_spec(name) is None]


@cache
def imported(path: Path) -> tuple[str, ...]:
    """Return what a file imports at its top."""
    found = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module or ""]
    return tuple(dict.fromkeys(name.partition(".")[0] for name in found))


def bench(name: str, limit: float, out: Path, *words: str) -> Part:
    """Return a benchmark as a part."""
    path = str(out / f"bench-{name}.json")
    return Part(name, limit, ("-m", "benchmarks", "gpu", *words, "--json", path), fast=True)


def small(out: Path) -> list[Part]:
    """Return the benchmarks of the small network; the first part fills the cache of kernels."""
    return [
        probe("clock", 60, fast=True),
        bench("small", 330, out, "--parts", "epochs", "--nets", "784-128-10", "--repeats", "9"),
        bench("start", 180, out, "--parts", "accuracy", "start", "--seeds", "3"),
    ]


def large(out: Path) -> list[Part]:
    """Return the benchmarks of the large networks; of the largest the goal is the products alone."""
    some = ("xpnet-compiled", "xpnet-eager", "torch", "jax-scan", "floor")
    return [
        probe("clock", 60, fast=True),
        bench("middle", 330, out, "--parts", "epochs", "--nets", "784-1024-1024-10", "--repeats", "7"),
        bench(
            *("huge", 180, out, "--parts", "epochs", "--nets", "784-4096-4096-10", "--repeats", "5"),
            *("--contenders", *some),
        ),
    ]


def nets(out: Path) -> list[Part]:
    """Return the benchmarks of the other networks; TF32 first, of which the goal is."""
    how = ("--parts", "epochs", "--precisions", "tf32", "bfloat16", "--repeats", "5")
    return [
        bench("cnn", 330, out, "--nets", "cnn", *how),
        bench("transformer", 200, out, "--nets", "transformer", *how),
    ]


def why(out: Path) -> list[Part]:
    """Return what failed first in `prove`, one call at a time, and the search for the first wrong number."""
    table = prove(out)
    report = out / "first-prove.json"
    past = json.loads(report.read_text(encoding="utf-8"))["parts"] if report.exists() else []
    failed = [one["name"] for one in past if one["state"] in ("failed", "timed out")]
    again = [part for part in table if part.name in failed[:1]]
    parts = [*again, probe("numbers", 150), probe("numbers", 200, program=(*SANITIZER, "memcheck"))]
    slow = {"CUDA_LAUNCH_BLOCKING": "1", "CUBLASLT_LOG_LEVEL": "2"}
    labels = [f"{part.name}-{Path(part.program[0]).name}" if part.program else part.name for part in parts]
    return [
        Part(
            *(label, part.limit, part.words, part.program, part.modules),
            environment=slow | {"CUBLASLT_LOG_FILE": str(out / f"lt-{label}.txt")},
        )
        for label, part in zip(labels, parts, strict=True)
    ]


MODES: dict[str, Callable[[Path], list[Part]]] = {one.__name__: one for one in (prove, small, large, nets, why)}


# At home


def merge(folders: Sequence[Path], home: Path) -> list[Path]:
    """Put what a GPU has said where the site and the README look for it; return the files.

    Commands of one mode, each with a folder of its own, become one report; of two selfchecks the last is taken.
    ValueError for a rehearsal, of which nothing may stand there, and for reports that do not belong together.
    """
    reports: dict[str, list[dict[str, Any]]] = {}
    for path in (path for folder in folders for path in sorted(folder.glob("first-*.json"))):
        report = json.loads(path.read_text(encoding="utf-8"))
        if through := report["through"]:
            raise ValueError(f"{path.name} is a rehearsal ({through}), no GPU's report: merge a folder without it")
        reports.setdefault(path.name.removeprefix("first-"), []).append(report)
    whole = [(home / "gpu" / "first" / name, one_report(several)) for name, several in reports.items()]
    written = [write(path, report) for path, report in whole]
    for path in named("selfcheck.json", folders)[-1:]:
        written.append(copy(path, home / "selfcheck" / "cupy.json"))
    parts = [json.loads(path.read_text(encoding="utf-8")) for name in BENCHES for path in named(name, folders)]
    if parts:
        from benchmarks import report as pages

        path = write(home / "gpu" / f"{parts[0]['date']}.json", joined(parts))
        written += [path, *pages.write(path, path.with_name("README.md"))]
    return written


def write(path: Path, content: dict[str, Any]) -> Path:
    """Write JSON, its folder made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return path


def named(name: str, folders: Sequence[Path]) -> list[Path]:
    """Return the files of this name."""
    return [folder / name for folder in folders if (folder / name).exists()]


def one_report(several: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the reports of commands of one mode as one. ValueError if their devices or libraries differ."""
    if len(several) == 1:
        return several[0]
    first = several[0]
    if any((one["versions"], gpu(one)) != (first["versions"], gpu(first)) for one in several):
        raise ValueError(f"the reports of {first['mode']} are of different GPUs or libraries: merge each alone")
    return {
        **first,
        "commands": [{"date": one["date"], "seconds": one["seconds"]} for one in several],
        "seconds": round(sum(one["seconds"] for one in several), 1),
        "answers": {question: answer for one in several for question, answer in one["answers"].items()},
        "parts": [part for one in several for part in one["parts"]],
    }


def gpu(results: dict[str, Any]) -> str:
    """Return the GPU on which something ran, empty where that was not written down."""
    return str(results["machine"].get("gpu", ""))


BENCHES = tuple(f"bench-{name}.json" for name in ("small", "start", "middle", "huge", "cnn", "transformer"))


def joined(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the results of several benchmark runs as those of one. ValueError if they ran on different GPUs."""
    gpus = set(map(gpu, parts))
    if len(gpus) > 1:
        raise ValueError(f"these ran on different GPUs ({', '.join(sorted(gpus))}): merge each alone")
    whole = {**parts[0], "epochs": [], "missing": {}}
    for part in parts:
        whole["epochs"] += part.get("epochs", [])
        whole["missing"] |= part["missing"]
        whole["versions"] = whole["versions"] | part["versions"]
        whole |= {key: part[key] for key in ("goal", "start", "accuracy", "imports") if key in part}
    return whole


def copy(source: Path, target: Path) -> Path:
    """Copy a file, its folder made if need be."""
    target.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(source, target))


# The command line


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first", description="The first run on a GPU.")
    parser.add_argument("mode", choices=[*MODES, "merge"])
    out = parser.add_argument("--out", type=Path, required=True, action="append", metavar="FOLDER")
    out.help = "for the report and all else; merge takes several"
    parser.add_argument("--through", default="", metavar="WORDS", help='what stands for a GPU: "python -m standin"')
    parser.add_argument("--parts", nargs="+", default=[], metavar="NAME", help="only these")
    parser.add_argument("--seconds", type=float, default=LIMIT, help=f"for the whole command (default: {LIMIT:g})")
    return parser.parse_args(words)


def chosen(mode: str, out: Path, names: Sequence[str]) -> list[Part]:
    """Return the parts of a mode, of these names if any are given; ValueError for a name that no part has."""
    parts = MODES[mode](out)
    if unknown := sorted(set(names) - {part.name for part in parts}):
        known = ", ".join(part.name for part in parts)
        raise ValueError(f"{mode} has no part {', '.join(unknown)}: choose among {known}")
    return [part for part in parts if not names or part.name in names]


def main(words: Sequence[str] | None = None) -> int | str:
    """Do what the command line says; return the exit status, or what is wrong."""
    args = arguments(words)
    out = args.out[-1].resolve()
    try:
        if args.mode == "merge":
            written = merge(args.out, ROOT / "benchmarks")
            for path in written:
                print(path.relative_to(ROOT))
            return 0 if written else f"{out.name} holds no result: name the folder that was --out on the GPU's machine"
        if len(args.out) > 1:
            return f"{args.mode} writes to one folder: give --out once"
        parts = chosen(args.mode, out, args.parts)
    except ValueError as problem:
        return str(problem)
    if not args.through and not machine.gpus():
        return 'no CUDA device answered on this machine: rehearse with --through "python -m standin"'
    missing = [name for name in PEERS if find_spec(name) is None]
    if missing:
        print(f"missing: {', '.join(missing)}: the benchmarks go without these peers", flush=True)
    left_out = {root for path in (ROOT / "tests").glob("test_*.py") for root in absent(path)}
    if args.mode == "prove" and left_out:
        print(f"missing: {', '.join(sorted(left_out))}: test files that need them are left out", flush=True)
    return Runner(args.mode, out, tuple(shlex.split(args.through)), args.seconds).run(parts)


if __name__ == "__main__":
    sys.exit(main())
