"""Plant faults in copies of xpnet, one at a time, and see whether the tests notice: `python tests/mutants.py`.

The faults are data (mutants.toml). Libraries are imported once; each fault is tried in a process forked from there, on
NumPy and array-api-strict, by the test files named beside it, until the first failure. Numba is left out. Those of the
CUDA backend (standin/mutants.toml) are tried on the real CuPy: `python tests/mutants.py --stand-in`.
"""

import argparse
import importlib
import importlib.util
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import tomllib
import traceback
from pathlib import Path
from typing import Any, NamedTuple

TESTS = Path(__file__).resolve().parent
PACKAGE = TESTS.parent / "xpnet"
LIBRARIES = ["numpy", "array_api_compat.numpy", "array_api_strict", "hypothesis", "hypothesis.extra.numpy", "pytest"]
LIBRARIES += ["hypothesis.internal.conjecture.engine", "scipy.special", "torch", "tqdm"]
LIMIT = 300.0
"""Seconds after which a fault counts as not noticed: a suite that hangs says nothing."""


class Fault(NamedTuple):
    path: str
    what: str
    old: str
    new: str
    tests: tuple[str, ...]


def faults(stand_in: bool = False) -> list[Fault]:
    """Read the faults; ValueError names one whose text does not occur exactly once in its file."""
    found, lost = [], []
    where = TESTS / "standin" if stand_in else TESTS
    for file in tomllib.loads((where / "mutants.toml").read_text())["file"]:
        source = (PACKAGE / file["path"]).read_text()
        for what, old, new in file["faults"]:
            if source.count(old) != 1 or old == new:
                lost.append(f"{file['path']}: {what}: its text occurs {source.count(old)} times, not once: {old}")
            tests = (Path(name) for name in file["tests"].split())
            named = tuple(str(name.with_name(f"test_{name.name}")) for name in tests)
            found.append(Fault(file["path"], what, old, new, named))
    if lost:
        raise ValueError("\n".join(lost))
    return found


def spread(count: int, among: list[Fault], seed: int = 0) -> list[Fault]:
    """Choose some faults, evenly spread over the list, others for another seed."""
    return [among[(k * len(among) // count + seed) % len(among)] for k in range(count)]


def plant(fault: Fault, folder: Path) -> None:
    """Copy the package there, with the fault."""
    shutil.copytree(PACKAGE, folder / "xpnet", ignore=shutil.ignore_patterns("mnist", "*.nb?*"))
    os.symlink(PACKAGE / "data" / "datasets" / "mnist", folder / "xpnet" / "data" / "datasets" / "mnist")
    file = folder / "xpnet" / fault.path
    file.write_text(file.read_text().replace(fault.old, fault.new))


def start(fault: Fault, folder: Path, stand_in: bool) -> int:
    """Run the tests on the faulty copy in a process of its own; return its number."""
    plant(fault, folder)
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        os.setpgid(0, 0)
        with (folder / "output").open("w") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        sys.path.insert(0, str(folder))
        sys.dont_write_bytecode = True
        sys.modules["numba"] = None  # type: ignore[assignment]
        os.chdir(folder)
        import pytest

        assert Path(str(importlib.util.find_spec("xpnet").origin)).is_relative_to(folder)
        words = ["-x", "-q", "--tb=line", "-p", "no:cacheprovider"]
        words += ["--stand-in"] if stand_in else ["--backends=numpy,strict", "-m", "not slow"]
        words += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        words += [f"--rootdir={TESTS.parent}", f"-c={TESTS.parent / 'pyproject.toml'}", f"--basetemp={folder / 'tmp'}"]
        code = int(pytest.main([*words, *(str(TESTS / f"{name}.py") for name in fault.tests)]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def outcome(code: int, output: str) -> str:
    """Say how it went: caught, and by which test; survived; or why the fault is no fault."""
    if code == 1:
        failed = [line.removeprefix("FAILED ") for line in output.splitlines() if line.startswith("FAILED ")]
        return f"caught by {Path(failed[0].partition(' - ')[0]).name if failed else 'a test'}"
    if code == 0:
        return "survived"
    if code == -signal.SIGKILL:
        return "survived: the tests hang"
    return f"broken, not faulty: {output[-300:]}" if code > 0 else f"caught by {signal.Signals(-code).name}"


def try_all(chosen: list[Fault], workers: int = 2, stand_in: bool = False) -> list[dict[str, Any]]:
    """Try the faults, some at a time; return for each what it was and how it went."""
    if stand_in:
        import standin

        standin.install()
    for name in LIBRARIES:
        try:
            importlib.import_module(name)
        except ImportError:
            print(f"missing: {name}", file=sys.stderr)
    waiting, running, results = list(enumerate(chosen)), {}, {}
    with tempfile.TemporaryDirectory() as top:
        while waiting or running:
            while waiting and len(running) < workers:
                k, fault = waiting.pop(0)
                folder = Path(top) / str(k)
                folder.mkdir()
                running[start(fault, folder, stand_in)] = (k, fault, folder, time.monotonic())
            time.sleep(0.01)
            for child, (k, fault, folder, began) in list(running.items()):
                ended, status = os.waitpid(child, os.WNOHANG)
                seconds = time.monotonic() - began
                if not ended and seconds > LIMIT:
                    os.kill(child, signal.SIGKILL)
                    continue
                if ended:
                    del running[child]
                    said = outcome(os.waitstatus_to_exitcode(status), (folder / "output").read_text())
                    results[k] = {
                        "file": fault.path,
                        "fault": fault.what,
                        "outcome": said,
                        "seconds": round(seconds, 1),
                    }
                    print(f"{seconds:5.1f} s  {fault.path}: {fault.what}: {said}", file=sys.stderr, flush=True)
                    shutil.rmtree(folder, ignore_errors=True)
    return [results[k] for k in sorted(results)]


def main() -> None:
    """Try them all, or `--count` of them, and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="faults whose file or description has this in it")
    parser.add_argument("--stand-in", action="store_true", help="those of the CUDA backend")
    args = parser.parse_args()
    chosen = [fault for fault in faults(args.stand_in) if args.only in f"{fault.path}: {fault.what}"]
    results = try_all(spread(args.count, chosen, args.seed) if args.count else chosen, stand_in=args.stand_in)
    print(json.dumps(results, ensure_ascii=False))
    sys.exit(any(not str(result["outcome"]).startswith("caught") for result in results))


if __name__ == "__main__":
    main()
