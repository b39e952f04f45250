"""What else is measured: import time, install size, growth with the work, and a machine that is busy elsewhere."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from benchmarks.harness import PAUSE, ROOT, Bench, WorkerError
from benchmarks.settings import Settings


def import_times(bench: Bench, repeats: int) -> dict[str, Any]:
    """Return the seconds that Python needs to start and import, by what is imported; `pass` is Python alone."""
    wanted: dict[str, list[Any]] = {"pass": [[sys.executable, "-c", "pass"], {}]}
    for contender in (c for c in bench.present() if c.imports):
        key = " ".join([*(f"{k}={v}" for k, v in contender.environment.items()), contender.imports])
        wanted[key] = [[bench.where[contender.name], "-c", contender.imports], contender.environment]
    times: dict[str, list[float]] = {key: [] for key in wanted}
    for turn in range(1 + repeats):
        for key, (command, environment) in wanted.items():
            begun = time.perf_counter()
            subprocess.run(command, cwd=ROOT, env=os.environ | bench.environment | environment, check=True)
            if turn:  # the first one fills the disk's cache
                times[key].append(time.perf_counter() - begun)
    return {key: {"seconds": seconds} for key, seconds in times.items()}


def install_sizes(bench: Bench) -> dict[str, Any]:
    """Return the bytes of what a user installs, with all it depends on."""
    sizes: dict[str, Any] = {}
    for contender in (c for c in bench.present() if c.requires and " + ".join(c.requires) not in sizes):
        command = [bench.where[contender.name], "-m", "benchmarks.install", *contender.requires]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            sizes[" + ".join(contender.requires)] = json.loads(done.stdout)
        else:
            bench.log(f"  {contender.name}: {done.stderr.strip().splitlines()[-1]}")
    return sizes


def versions(bench: Bench) -> dict[str, str]:
    """Return the version of everything that takes part."""
    found: dict[str, str] = {}
    names = {}
    for contender in bench.present():
        for requirement in contender.requires:
            names[requirement.partition("[")[0]] = contender
            extra = {"xpnet[fast]": ["numba", "threadpoolctl"], "xpnet": ["numpy"]}.get(requirement, [])
            names |= dict.fromkeys(extra, contender)
    code = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"
    for name, contender in names.items():
        command = [bench.where[contender.name], "-c", code, name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            found[name] = done.stdout.strip()
    return dict(sorted(found.items()))


GROWTH: dict[str, list[Settings]] = {
    "samples": [Settings(samples=n) for n in (7500, 15000, 30000, 60000)],
    "batch": [Settings(batch=b, samples=15360) for b in (32, 64, 128, 256, 512, 1024)],
    "width": [Settings((784, w, w, 10), samples=3840) for w in (256, 512, 1024, 2048)],
}
"""What grows, while everything else stays; the width is told as the number of parameters."""


def growth(bench: Bench, names: Sequence[str], repeats: int = 3, share: float = 1.0) -> dict[str, Any]:
    """Return epoch time and memory against the number of samples, the batch, and the parameters of a wider net."""
    results: dict[str, Any] = {}
    for contender in bench.present(names):
        for what, tasks in GROWTH.items():
            points = []
            for task in (replace(task, samples=int(share * task.samples)) for task in tasks):
                worker = bench.start(contender, task)
                try:
                    answers = [worker.ask("epoch") for _ in range(1 + repeats)][1:]
                except WorkerError as failure:
                    bench.drop(contender, str(failure))
                    return results
                finally:
                    worker.close()
                x = task.parameters if what == "width" else getattr(task, what)
                seconds = [answer["seconds"] for answer in answers]
                points.append({"x": x, "seconds": seconds, "bytes": answers[-1]["peak"] - answers[-1]["baseline"]})
            results.setdefault(contender.name, {})[what] = points
    return results


@contextmanager
def spinning() -> Iterator[None]:
    """Keep one core busy, as another program would; the system decides which."""
    spinner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(5 * PAUSE)
        yield
    finally:
        spinner.kill()
        spinner.wait()


def busy(bench: Bench, settings: Settings, names: Sequence[str], repeats: int) -> dict[str, Any]:
    """Return epoch times when nothing else runs and when another process keeps one core busy, in turn."""
    results: dict[str, Any] = {}
    for contender in bench.present(names):
        worker = bench.start(contender, settings)
        try:
            worker.ask("epoch")
            times: dict[str, list[float]] = {"quiet": [], "busy": []}
            for _ in range(repeats):
                time.sleep(PAUSE)
                times["quiet"].append(worker.ask("epoch")["seconds"])
                with spinning():
                    times["busy"].append(worker.ask("epoch")["seconds"])
            results[contender.name] = times
        except WorkerError as failure:
            bench.drop(contender, str(failure))
        finally:
            worker.close()
    return results
