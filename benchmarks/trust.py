"""The long forms of the tests that bite, in one command: `python -m benchmarks.trust` writes trust.json and trust.md.

Each part is a process of its own; two run at a time, except that saving is timed alone. About an hour on two cores.
"""

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import machine
from xpnet.files.writer import write_text

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent / "tests"
LIBRARIES = ("xpnet", "numpy", "array_api_strict", "torch", "jax", "numba", "hypothesis", "mpmath", "pytest")
Result = dict[str, Any]


def faults() -> Result:
    """Planted faults that the tests catch."""
    import mutants

    results = mutants.try_all(mutants.faults(), workers=1)
    return _caught(results) | {"ok": all(map(_is_caught, results)) and len(results) >= 60}


def cuda() -> Result:
    """Planted faults of the CUDA backend that the real CuPy on the stand-in driver catches."""
    import mutants

    results = mutants.try_all(mutants.faults(stand_in=True), workers=1, stand_in=True)
    caught = sum(map(_is_caught, results))
    done = _caught(results) | {"ok": caught >= 0.95 * len(results) and len(results) >= 40}
    return done | {"list": [f"{r['file'].removeprefix('backends/')}: {r['fault']}: {r['outcome']}" for r in results]}


def _is_caught(result: Result) -> bool:
    return str(result["outcome"]).startswith("caught")


def _caught(results: list[Result]) -> Result:
    """Return how many planted faults were caught, and which were not."""
    missed = [f"{r['file']}: {r['fault']}: {r['outcome']}" for r in results if not _is_caught(r)]
    slowest = max(float(r["seconds"]) for r in results)
    return {"planted": len(results), "caught": len(results) - len(missed), "missed": missed, "slowest, s": slowest}


def fuzz() -> Result:
    """Damaged and lying files: sound results or one clean error, each in 256 MiB more and a second of the processor."""
    import test_fuzz

    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        done = {kind: test_fuzz.fuzz(Path(folder), kind, count, seed=1) for kind, count in FUZZED.items()}
    total, most = sum(one["inputs"] for one in done.values()), max(one["most memory, MB"] for one in done.values())
    found = {"inputs": total, "crashes": 0, "hangs": 0, "other errors": 0, "most memory, MB": most}
    return found | done | {"ok": total >= 1_000_000 and most <= 512}


FUZZED = {
    "damaged": 200_000,
    "lied": 60_000,
    "weights damaged": 200_000,
    "weights lied": 150_000,
    "IDX": 200_000,
    "IDX lied": 150_000,
    "descriptions": 60_000,
}
"""How many inputs of each kind."""


def _memory() -> str | None:
    """Return a folder that takes no time for the disk, if there is one."""
    return "/dev/shm" if os.path.isdir("/dev/shm") else None


def kills() -> Result:
    """SIGKILL, half of the times while saving, to a link's file of mode 0640; the training then goes on."""
    import test_long

    with tempfile.TemporaryDirectory() as folder:
        done: Result = test_long.kills(Path(folder), 520, seed=1)
    fine = done["kills"] >= 500 and 2 * done["while saving"] >= done["kills"]
    return done | {"ok": fine and not any(done[what] for what in test_long.LOST)}


def refusals() -> Result:
    """System calls refused, cut short, killed or interrupted while a file is saved, each in every way."""
    import crashes

    with tempfile.TemporaryDirectory() as folder:
        done = crashes.campaign(Path(folder), quick=False)
    return done | {"ok": done["injected"] >= 500 and not done["wrong"]}


def schedules() -> Result:
    """Two writers and a reader of one file, their system calls in random orders."""
    import test_writers

    done: Result = test_writers.schedules(10_000)
    return done | {"ok": done["schedules"] >= 10_000}


def gradients() -> Result:
    """Backward passes against central differences, float64."""
    import numpy as np
    import test_layers
    import test_losses

    from xpnet.testing import gradcheck, gradcheck_loss
    from xpnet.testing.backends import open_backend

    checks: Result = {}
    failing, worst = [], 0.0
    for name in ("numpy", "strict:device1", "torch", "jax"):
        jobs: list[Callable[[Any], float]] = []
        few = name == "jax"
        for layer, shape in test_layers.SMALL:
            for batch in (2,) if few else (1, 2, 5):
                for training in (False, True):
                    jobs.append(
                        lambda b, layer=layer, shape=(batch, *shape), on=training: gradcheck(
                            layer, shape, backend=b, training=on, key=7, seed=len(shape) + on
                        )
                    )
        for layer, shape in test_layers.LARGE:
            jobs.append(lambda b, layer=layer, shape=(3, *shape): gradcheck(layer, shape, backend=b, training=True))
        for loss, prediction, target in test_losses.CASES:
            jobs.append(lambda b, loss=loss, p=prediction, t=target: gradcheck_loss(loss, p, t, backend=b))
        for seed in range(0 if few else 12):
            rng = np.random.default_rng(seed)
            for loss, kind in test_losses.SAMPLES:
                n, c = int(rng.integers(1, 6)), int(rng.integers(2, 7))
                p = (test_losses.probabilities((n, c), rng) + 0.5) / (
                    1.0 + 0.5 * c
                )  # differences of log p err by h²/3p²
                p = p if loss.__name__ == "negative_log_likelihood" else rng.normal(size=(n, c)) * 3
                t = rng.integers(0, c, n) if kind == "labels" else np.where(rng.random((n, c)) < 0.5, 0.0, 1.0)
                t = 2 * t - 1 if loss.__name__ in ("hinge", "perceptron") else t
                jobs.append(lambda b, loss=loss, p=p, t=t: gradcheck_loss(loss, p, t, backend=b))
        with open_backend(name) as backend:
            for job in jobs:
                try:
                    worst = max(worst, job(backend))
                except AssertionError as error:
                    failing.append(str(error))
        checks[name] = len(jobs)
    total = sum(checks.values())
    done = {"checks": total, "failing": failing, "worst relative error": worst, "on": checks}
    return done | {"ok": total >= 1000 and not failing}


def _pytest(*words: str) -> tuple[int, str]:
    words = ("-q", "-p", "no:cacheprovider", *words)
    done = subprocess.run([sys.executable, "-m", "pytest", *words], cwd=TESTS.parent, capture_output=True, text=True)
    return done.returncode, done.stdout


def properties() -> Result:
    """Hypothesis: shapes, batches of 0 and 1, precisions, labels, files."""
    files = [str(file) for file in sorted(TESTS.glob("test_*.py")) if "@given" in file.read_text()]
    settings = ("--backends=numpy,strict", "--hypothesis-profile=long", "--hypothesis-show-statistics")
    code, output = _pytest(*settings, "-k", PROPERTIES, *files)
    counts = re.findall(r"(\d+) passing, (\d+) failing", output)
    passing, failed = (sum(int(pair[k]) for pair in counts) for k in (0, 1))
    done = {"examples": passing, "failing": failed, "properties": len(counts), "pytest": output.splitlines()[-1]}
    return done | {"ok": code == 0 and passing >= 20_000}


def parity() -> Result:
    """PyTorch: every layer, loss, optimizer (100 steps) and schedule in float64, within 1e-10."""
    names = ("pytorch", "parity", "optimizers", "schedules")
    files = [str(TESTS / f"test_{name}.py") for name in names]
    code, output = _pytest("--backends=numpy,strict", "-k", "pytorch or torch", *files)
    return {"pytest": output.splitlines()[-1], "ok": code == 0}


def numbers() -> Result:
    """Losses and activations at ±1e4, ±1e18, ±∞ and tiny numbers, float32 and float64, beside mpmath."""
    code, output = _pytest(str(TESTS / "test_numbers.py"))
    return {"pytest": output.splitlines()[-1], "ok": code == 0}


def steps() -> Result:
    """A million steps of a tiny net: memory and time."""
    import test_long

    done: Result = test_long.steps(1_000_000, epochs=100)
    growth, ratio = done["memory growth, bytes"], done["last / first"]
    return done | {"ok": done["steps"] >= 1_000_000 and growth < 4 << 20 and ratio < 1.25}


def saving() -> Result:
    """Saving 10 M parameters with Adam's state, beside writing the same bytes with fsync."""
    import test_long

    done: Result = test_long.saving(10_000_000, repeats=5)
    return done | {"ok": done["ratio"] <= 2.0}


PARTS: dict[str, Callable[[], Result]] = {
    part.__name__: part
    for part in (faults, cuda, steps, fuzz, properties, kills, refusals, schedules, gradients, parity, numbers, saving)
}
ALONE = ("saving",)
PROPERTIES = "not (resume or long)"


def measure(name: str) -> Result:
    """Do one part here; what goes wrong is its result."""
    sys.path.insert(0, str(TESTS))
    began = time.perf_counter()
    try:
        done = PARTS[name]()
    except Exception as error:
        done = {"ok": False, "error": f"{type(error).__name__}: {error}"}
    return {"what": (PARTS[name].__doc__ or "").strip()} | done | {"seconds": round(time.perf_counter() - began, 1)}


def run(names: list[str], lanes: int = 2) -> dict[str, Result]:
    """Do the parts in processes of their own, so many at a time."""
    waiting, running, results = list(names), {}, {}
    environment = os.environ | machine.threads(1)
    while waiting or running:
        free = lanes - len(running)
        if waiting and free and not (waiting[0] in ALONE and running):
            name = waiting.pop(0)
            words = [sys.executable, "-m", "benchmarks.trust", "--part", name]
            with tempfile.NamedTemporaryFile("w", encoding="utf-8", delete=False) as output:
                process = subprocess.Popen(words, cwd=HERE.parent, env=environment, stdout=output)
            running[name] = (process, Path(output.name))
            continue
        time.sleep(0.2)
        for name, (process, output) in list(running.items()):
            if process.poll() is not None:
                del running[name]
                lines = output.read_text().splitlines()
                output.unlink()
                results[name] = (
                    json.loads(lines[-1]) if lines else {"ok": False, "error": f"ended: {process.returncode}"}
                )
                print(f"{name}: {json.dumps(results[name], ensure_ascii=False)}", file=sys.stderr, flush=True)
    return {name: results[name] for name in names}


def versions() -> dict[str, str]:
    """Return the versions of what took part."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def page(report: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    system = ", ".join(f"{key} {value}" for key, value in report["machine"].items() if isinstance(value, (str, int)))
    rows = ["| part | figures | met | s |", "| --- | --- | --- | --- |"]
    for name, done in report["parts"].items():
        hidden = ("what", "ok", "seconds", "list")
        figures = "; ".join(f"{key} {shown(value)}" for key, value in done.items() if key not in hidden)
        met = "yes" if done["ok"] else "NO"
        rows.append(f"| **{name}**: {done.get('what', '')} | {figures} | {met} | {done.get('seconds')} |")
    return "\n".join(
        [
            "# What can be trusted, in figures",
            "",
            f"`python -m benchmarks.trust`, {report['date']}; {system}.",
            "Versions: " + ", ".join(f"{name} {version}" for name, version in report["versions"].items()) + ".",
            "",
            *rows,
            "",
            "## Faults planted in the CUDA backend",
            "",
            *(f"- {line}" for line in report["parts"].get("cuda", {}).get("list", [])),
            "",
        ]
    )


def shown(value: Any) -> str:
    """Return a figure as text for a table."""
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {shown(one)}" for key, one in value.items()) + ")"
    if isinstance(value, list):
        return "0" if not value else f"{len(value)}: " + " / ".join(map(str, value)).replace("|", "\\|")
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Do all parts, or those named, and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trust", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="NAME", help=", ".join(PARTS))
    parser.add_argument("--part", choices=PARTS, metavar="NAME", help="do this one here and print its result")
    args = parser.parse_args()
    if args.part:
        print(json.dumps(measure(args.part), ensure_ascii=False))
        return
    path = HERE / "trust.json"
    report: dict[str, Any] = {"date": datetime.date.today().isoformat()}
    report |= {"machine": machine.describe(1), "versions": versions(), "parts": {}}
    if path.exists() and set(args.parts) != set(PARTS):
        report["parts"] = json.loads(path.read_text())["parts"]
    report["parts"] |= run(args.parts)
    write_text(path, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    write_text(path.with_suffix(".md"), page(report))
    sys.exit(not all(done["ok"] for done in report["parts"].values()))


if __name__ == "__main__":
    main()
