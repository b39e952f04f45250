"""Seconds of training to an accuracy on the test images of MNIST, by the examples as a reader runs them."""

import json
import os
import subprocess
import sys
import time
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.harness import PAUSE, ROOT, Bench

RECIPES = {
    "dense": (0.98, ("examples/mnist.py",)),
    "cnn": (0.994, ("examples/images.py", "--epochs", "5")),
}
"""What is to be reached, and by what: an example as it is, the second in fewer epochs than its own twelve."""


def measure(bench: Bench, backend: str, seeds: int) -> dict[str, Any]:
    """Return by recipe, for every seed, what `reached` tells, and the seconds of the whole command."""
    results: dict[str, Any] = {}
    for name, (goal, words) in RECIPES.items():
        found = results[name] = {"goal": goal, "command": f"python {' '.join(words)} --backend {backend}", "runs": []}
        for seed in range(seeds):
            time.sleep(PAUSE)
            with TemporaryDirectory() as folder:
                path = Path(folder) / "run.json"
                command = [sys.executable, *words, "--backend", backend, "--seed", str(seed), "--json", str(path)]
                begun = time.perf_counter()
                paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
                settings = os.environ | bench.environment | {"PYTHONPATH": paths}
                done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True)
                seconds = time.perf_counter() - begun
                if done.returncode:
                    bench.log(f"  {name}: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
                    break
                history = json.loads(path.read_text(encoding="utf-8"))["history"]
            found["runs"].append(reached(history, goal) | {"seconds": seconds})
    return results


def reached(history: dict[str, list[float]], goal: float) -> dict[str, Any]:
    """Return after how many epochs and seconds of training the goal was met first, None if never; the last accuracy.

    Judging after each epoch is not among the seconds; what the first epoch compiles is.
    """
    accuracies, totals = history["val_accuracy"], list(accumulate(history["seconds"]))
    first = next((k for k, accuracy in enumerate(accuracies) if accuracy >= goal), None)
    return {
        "epochs": None if first is None else first + 1,
        "training": None if first is None else totals[first],
        "accuracy": accuracies[-1],
        "whole training": totals[-1],
    }
