"""Parts of a long command, each a process with a limit of its own, and a report that is whole after every part."""

import datetime
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import machine
from xpnet.files.writer import write_text

ROOT = Path(__file__).resolve().parent.parent
MARK = "FIGURES "
LIMIT, LEAST, GRACE = 575.0, 15.0, 5.0
"""Seconds of a whole command; that must be left to begin a part; that a part is given to end when it is told to."""
LINES, WIDTH, LOG = 30, 300, 4 * 2**20
"""Of what a part said the report keeps the last lines; of cuBLASLt's log the first bytes."""
PEERS = ("torch", "jax")
LIBRARIES = ("numpy", "cupy-cuda13x", "array-api-compat", "cuda-pathfinder", *PEERS, "pytest", "hypothesis")


@dataclass(frozen=True)
class Part:
    """A process with a limit: words for Python, or a program; `modules` and a `program` must be there."""

    name: str
    limit: float
    words: tuple[str, ...] = ()
    program: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    fast: bool = False
    """Whether it needs a device's speed."""

    def command(self, through: Sequence[str]) -> list[str]:
        """Return the command, Python's words run by what stands for a device, if anything does."""
        return [*self.program, *((*(through or (sys.executable,)), *self.words) if self.words else ())]

    def lacking(self, through: Sequence[str]) -> str:
        """Return why it is left out, nothing if it can run."""
        if through and (self.fast or self.program):
            return f"{self.program[0]} needs a GPU" if self.program else "it needs a device's speed"
        if self.program and shutil.which(self.program[0]) is None:
            return f"{self.program[0]} is not on this machine"
        missing = [module for module in self.modules if find_spec(module) is None]
        return f"not installed: {', '.join(missing)}" if missing else ""


@dataclass
class Result:
    """How a part went: `passed`, `failed`, `timed out` or `left out`."""

    name: str
    command: str
    state: str
    seconds: float = 0.0
    status: int | None = None
    lines: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass
class Runner:
    """Runs parts one after the other, in what is left of the time, and keeps the report."""

    mode: str
    out: Path
    through: tuple[str, ...] = ()
    limit: float = LIMIT
    grace: float = GRACE
    results: list[Result] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    def run(self, parts: Sequence[Part]) -> int:
        """Run the parts; return the exit status: 1 if one failed, or none passed."""
        self.out.mkdir(parents=True, exist_ok=True)
        log = self.out / f"first-{self.mode}.log"
        log.write_bytes(b"")
        self.write()
        for part in parts:
            self.results.append(self.one(part, log))
            self.write()
            print(self.line(self.results[-1]), flush=True)
            trim(part)
        print(self.last_line())
        return int(not self.count("passed") or bool(self.count("failed") + self.count("timed out")))

    def one(self, part: Part, log: Path) -> Result:
        """Run a part if it can run and there is time."""
        command = part.command(self.through)
        result = Result(part.name, self.clean(shlex.join(command)), "left out")
        left = self.limit - (time.monotonic() - self.begun)
        lacking = part.lacking(self.through)
        if lacking or left < min(LEAST, part.limit):
            result.lines = [lacking or f"no time: {max(left, 0.0):.0f} s are left"]
            return result
        start, begun = log.stat().st_size, time.monotonic()
        with log.open("ab") as file:
            file.write(f"\n==== {part.name}: {result.command}\n".encode())
            file.flush()
            result.status = self.wait(command, part, file, min(part.limit, left))
        result.seconds = round(time.monotonic() - begun, 1)
        result.state = {None: "timed out", 0: "passed"}.get(result.status, "failed")
        with log.open("rb") as file:
            file.seek(start)
            text = file.read().decode(errors="replace")
        result.lines, result.figures = self.said(text)
        return result

    def wait(self, command: Sequence[str], part: Part, log: Any, limit: float) -> int | None:
        """Return a process's exit status, None if it had to be ended, with all that it had started."""
        settings = os.environ | environment(bool(self.through)) | part.environment
        group: dict[str, Any] = {"process_group": 0} if os.name == "posix" else {}
        try:
            process = subprocess.Popen(
                command, cwd=ROOT, env=settings, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **group
            )
        except OSError as error:
            log.write(f"{error}\n".encode())
            return 127
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            end(process, self.grace)

    def said(self, text: str) -> tuple[list[str], dict[str, Any]]:
        """Return the last lines of what a part said, and its figures if it gave any."""
        lines, figures = [], {}
        for line in filter(str.strip, text.splitlines()[2:]):
            if line.startswith(MARK):
                try:
                    figures = json.loads(line.removeprefix(MARK))
                    continue
                except ValueError:
                    pass
            lines.append(self.clean(line)[:WIDTH])
        return lines[-LINES:], figures

    def clean(self, text: str) -> str:
        """Leave out of a text where things lie on this machine."""
        for place, name in ((f"{self.out}{os.sep}", "OUT/"), (f"{ROOT}{os.sep}", ""), (sys.executable, "python")):
            text = text.replace(place, name)
        return text.replace(f"{sys.prefix}{os.sep}", "")

    # The report

    def count(self, state: str) -> int:
        """Return how many parts are in a state."""
        return sum(result.state == state for result in self.results)

    def line(self, result: Result) -> str:
        """Say in a line how a part went."""
        answers = "; ".join(f"{question} {answer}" for question, answer in result.figures.get("answers", {}).items())
        failures = [line for line in result.lines if line.startswith("FAILED")]
        last = "" if result.state == "passed" else [*failures, *result.lines[-1:], "it said nothing"][0]
        wrong = result.figures.get("wrong") or []
        said = answers or (str(wrong[0]) if wrong else last)
        return f"{result.name:18} {result.state:9} {result.seconds:6.1f} s  {said}".rstrip()

    def last_line(self) -> str:
        """Say what passed."""
        states = ("passed", "failed", "timed out", "left out")
        named = [[result.name for result in self.results if result.state == state] for state in states]
        total = ", ".join(
            f"{len(names)} {state}" + (f" ({', '.join(names)})" if state != "passed" else "")
            for names, state in zip(named, states, strict=True)
            if names or state == "passed"
        )
        seconds = f"{time.monotonic() - self.begun:.0f} s"
        return f"{self.mode}: {total}; {seconds}; report: {self.out.name}/first-{self.mode}.json"

    def write(self) -> None:
        """Write the report as it stands; a reader finds the old one or the new one whole."""
        found = {name: installed(name) for name in LIBRARIES}
        report = {
            "mode": self.mode,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "through": shlex.join(self.through),
            "machine": machine.describe() | ({} if self.through else {"gpu": ", ".join(machine.gpus())}),
            "versions": {name: number for name, number in found.items() if number},
            "missing": [name for name, number in found.items() if not number],
            "seconds": round(time.monotonic() - self.begun, 1),
            "answers": {k: v for result in self.results for k, v in result.figures.get("answers", {}).items()},
            "parts": [asdict(result) for result in self.results],
        }
        path = self.out / f"first-{self.mode}.json"
        new = path.with_suffix(".new")
        write_text(new, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        new.replace(path)


def installed(name: str) -> str | None:
    """Return a library's version, None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def environment(through: bool) -> dict[str, str]:
    """Return what every part is given: the repository to import from, output at once, memory left to the others."""
    places = [str(ROOT), *([str(ROOT / "tests")] * through), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "PYTHONPATH": os.pathsep.join(places),
        "PYTHONUNBUFFERED": "1",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }


def end(process: "subprocess.Popen[bytes]", grace: float) -> None:
    """End a process and all that it started; one that is over already may have left some."""

    def tell(number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number) if os.name == "posix" else process.kill()

    if process.poll() is None:
        tell(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    tell(getattr(signal, "SIGKILL", signal.SIGTERM))
    process.wait()


def trim(part: Part) -> None:
    """Keep the beginning of cuBLASLt's log of a part: it has a line for every call."""
    path = Path(part.environment.get("CUBLASLT_LOG_FILE", ""))
    if path.is_file() and path.stat().st_size > LOG:
        os.truncate(path, LOG)
