"""Starting the contenders, asking them in turn, and collecting what they answer."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.contenders import Contender, find
from benchmarks.settings import Settings, write_mnist

ROOT = Path(__file__).parent.parent
PAUSE = 0.1
ERROR = re.compile(r"[\w.]*(Error|Exception|Interrupt)\b")
"""How the line of a traceback begins that says what went wrong; lines of advice may follow it."""
"""Seconds between two turns, in which the threads of the last one stop spinning."""
MOST_EPOCHS = 40
TASK = ("net", "batch", "optimizer", "samples", "precision", "expected_bytes")
"""Of the settings, what the results keep."""


class WorkerError(Exception):
    """A contender gave no answer; the message is its last line."""


class Worker:
    """A contender's process."""

    def __init__(self, contender: Contender, settings: Settings, python: str, environment: dict[str, str]) -> None:
        settings = replace(settings, options=contender.options)
        imports = [",".join(contender.modules), ",".join(contender.hidden)]
        command = [python, "-m", "benchmarks.worker", contender.peer, settings.to_json(), *imports]
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  (closed in `close`)
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | environment | contender.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )

    def ask(self, command: str) -> dict[str, Any]:
        """Send a command and wait for its answer; WorkerError if the process ends instead."""
        try:
            print(command, file=self.process.stdin, flush=True)
        except BrokenPipeError:
            line = ""
        else:
            line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            lines = self.errors.read().strip().splitlines() or [f"exit status {self.process.returncode}"]
            said = [line for line in lines if ERROR.match(line)] or lines
            raise WorkerError(said[-1][:200])
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process and wait for that."""
        try:
            self.process.communicate()  # closing stdin is the sign to end
        except BrokenPipeError:
            self.process.wait()
        self.errors.close()


@dataclass
class Bench:
    """The contenders that are here, where their Pythons are, the data, and what is missing."""

    contenders: list[Contender]
    where: dict[str, str]
    missing: dict[str, str]
    data: str
    environment: dict[str, str] = field(default_factory=dict)
    log: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)

    def start(self, contender: Contender, settings: Settings) -> Worker:
        """Start a contender's process."""
        settings = replace(settings, data=self.data)
        return Worker(contender, settings, self.where[contender.name], self.environment)

    def present(self, names: Sequence[str] = ()) -> list[Contender]:
        """Return the contenders that can run, of these names if any are given."""
        here = [contender for contender in self.contenders if contender.name in self.where]
        return [contender for contender in here if not names or contender.name in names]

    def drop(self, contender: Contender, reason: str) -> None:
        """Name a contender as missing, and go on without it."""
        self.missing[contender.name] = reason
        self.where.pop(contender.name, None)
        self.log(f"  {contender.name}: missing, {reason}")


@contextmanager
def bench(contenders: list[Contender], pythons: list[str], environment: dict[str, str]) -> Iterator[Bench]:
    """Find the contenders and lay out the data."""
    where, missing = find(contenders, pythons)
    with tempfile.TemporaryDirectory() as data:
        write_mnist(data)
        yield Bench(contenders, where, missing, data, environment)


def epochs(
    bench: Bench,
    settings: Settings,
    repeats: int,
    budget: float,
    least: int = 3,
    names: Sequence[str] = (),
    together: bool = False,
    figured: Sequence[str] = (),
) -> dict[str, Any]:
    """Train all contenders in turn, A B C A B C …, an epoch a turn; return their times, losses and memory.

    The first epoch is apart: it compiles and warms up. A contender that has been measured for `budget` seconds rests,
    after `least` epochs. One that fails is named as missing. With `together` all processes start before the first turn,
    so that they import and load at once. Those in `figured` tell figures of the device in the end.
    """
    results: dict[str, Any] = {}
    with ExitStack() as stack:
        workers: dict[Contender, Worker] = {}

        def start(contender: Contender) -> None:
            workers[contender] = bench.start(contender, settings)
            stack.callback(workers[contender].close)

        for contender in bench.present(names) if together else ():
            start(contender)
        for _ in range(1 + repeats):
            for contender in bench.present(names):
                if contender not in workers:
                    start(contender)
                result = results.setdefault(contender.name, {"first": None, "seconds": [], "losses": []})
                if len(result["seconds"]) >= least and sum(result["seconds"]) >= budget:
                    continue
                time.sleep(PAUSE)
                try:
                    take_turn(workers[contender], result)
                except WorkerError as failure:
                    bench.drop(contender, str(failure))
                    del results[contender.name]
        for contender in bench.present(figured):
            results[contender.name]["figures"] = figures(bench, workers[contender])
    for name, result in results.items():
        bench.log(f"  {name:14} {median(result['seconds']):8.3f} s")
    return {key: getattr(settings, key) for key in TASK} | {"contenders": results}


def figures(bench: Bench, worker: Worker) -> dict[str, Any]:
    """Return what a contender tells of the device, nothing if it fails: its times count all the same."""
    try:
        return worker.ask("figures")
    except WorkerError as failure:
        bench.log(f"  no figures: {failure}")
        return {}


def take_turn(worker: Worker, result: dict[str, Any]) -> None:
    """Let a contender train one epoch, and write down how that went."""
    one = worker.ask("epoch")
    if result["first"] is None:
        result["first"] = one["seconds"]
    else:
        result["seconds"].append(one["seconds"])
    result["losses"].append(one["loss"])
    result["memory"] = {"peak": one["peak"], "baseline": one["baseline"]}


def start_to_goal(
    bench: Bench, settings: Settings, goal: float, seeds: int, names: Sequence[str] = ()
) -> dict[str, Any]:
    """Return, by contender, the seconds from the start of its process to its end, having reached the goal on the test.

    `training` are the seconds of its epochs alone, the first with all that it compiles; judging is not among them.
    """
    results: dict[str, Any] = {}
    for seed in range(seeds):
        for contender in (one for one in bench.present(names) if one.kind != "floor"):
            time.sleep(PAUSE)
            begun = time.perf_counter()
            worker = bench.start(contender, replace(settings, seed=seed))
            try:
                answer = worker.ask(f"until {goal} {MOST_EPOCHS}")
            except WorkerError as failure:
                bench.drop(contender, str(failure))
                continue
            finally:
                worker.close()
            answer["seconds"] = time.perf_counter() - begun
            columns = results.setdefault(contender.name, {"seconds": [], "training": [], "epochs": [], "accuracy": []})
            for key, column in columns.items():
                column.append(answer[key])
    return results
