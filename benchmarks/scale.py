"""What large models and large data cost in memory: `python -m benchmarks.scale` writes scale.json and scale.md.

Each part is a process of its own, on NumPy without extras; its figure is the most memory that it held beyond what it
had before, in units of θ, of the data or of the predictions, and its time. `--xpnet FOLDER` measures another version
beside this one.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from xpnet.files.writer import write_text

HERE = Path(__file__).resolve().parent
SIDE = 10_000
"""θ has SIDE² parameters, in a square matrix and a bias."""
ROWS, COLUMNS, CLASSES = 1_000_000, 100, 100


def held() -> int:
    """Return the most memory that this process has held so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measured(work: Callable[[], Any], unit: float) -> dict[str, float]:
    """Return what some work took: memory beyond what was held before, in units, and seconds."""
    before, began = held(), time.perf_counter()
    result = work()
    figures = {"memory": (held() - before) / unit, "seconds": time.perf_counter() - began}
    del result
    return figures


def square(optimizer: Any) -> Any:
    """Return a model whose θ is as good as one square matrix."""
    import xpnet as xn

    return xn.Model(xn.Linear(SIDE, SIDE), xn.mean_squared_error, optimizer, backend="numpy")


def step(optimizer: Any) -> dict[str, float]:
    """Make a model and do three steps."""
    x, y = np.ones((3, SIDE), "float32"), np.zeros((3, SIDE), "float32")
    return measured(lambda: square(optimizer).fit(x, y, batch_size=1), 4.0 * SIDE**2)


def adamw() -> dict[str, float]:
    """A model with AdamW and three steps of it, in θ; θ, gradient and two moments are 4."""
    import xpnet as xn

    return step(xn.AdamW())


def clipped() -> dict[str, float]:
    """The same with SGD and a clipped gradient, in θ; θ and gradient are 2."""
    import xpnet as xn

    return step(xn.SGD(0.1, clip_norm=1.0))


def load() -> dict[str, float]:
    """Loading a model with Adam's moments, in θ (the file holds 3), and its time beside that of reading the file."""
    import xpnet as xn

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        subprocess.run([sys.executable, __file__, "--save", str(path)], check=True)
        figures = measured(lambda: xn.load(path, "numpy"), 4.0 * SIDE**2)
        began = time.perf_counter()
        np.fromfile(path, np.uint8)
        reading = time.perf_counter() - began
    return figures | {"beside reading": figures["seconds"] / reading}


def table() -> tuple[Any, np.ndarray, np.ndarray]:
    """Return a small model, and data of many rows."""
    import xpnet as xn

    net = xn.Sequential(xn.Linear(COLUMNS, 4), xn.Tanh(), xn.Linear(4, CLASSES))
    x = np.random.default_rng(0).random((ROWS, COLUMNS), dtype=np.float32)
    y = (np.arange(ROWS) % CLASSES).astype(np.int32)
    return xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend="numpy", metrics=["accuracy"]), x, y


def checked() -> dict[str, float]:
    """An epoch on many rows with a tenth held out, in the data."""
    model, x, y = table()
    return measured(lambda: model.fit(x, y, batch_size=4096, validation=0.1), x.nbytes)


def evaluated() -> dict[str, float]:
    """Evaluating many rows, in the predictions (N, C)."""
    model, x, y = table()
    return measured(lambda: model.evaluate(x, y), 4.0 * ROWS * CLASSES)


def predicted() -> dict[str, float]:
    """Predicting many rows, in the predictions (N, C), which are 1."""
    model, x, _ = table()
    return measured(lambda: model.predict(x), 4.0 * ROWS * CLASSES)


PARTS = {part.__name__: part for part in (load, adamw, clipped, checked, evaluated, predicted)}


def run(name: str, sources: Path) -> dict[str, float]:
    """Do a part in a process of its own, with the xpnet of a folder."""
    environment = os.environ | machine.threads(1) | {"PYTHONPATH": f"{sources}{os.pathsep}{HERE.parent}"}
    words = [sys.executable, __file__, "--part", name]  # by its path: another version may not have it
    done = subprocess.run(words, cwd=sources, env=environment, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def page(report: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    versions = list(report["versions"])
    rows = [f"| what | {' | '.join(versions)} |", f"| --- |{' --: |' * len(versions)}"]
    for name, part in PARTS.items():
        cells = []
        for version in versions:
            figures = report["versions"][version][name]
            beside = f", {figures['beside reading']:.2f} × reading" if "beside reading" in figures else ""
            cells.append(f"{figures['memory']:.2f} ({figures['seconds']:.1f} s{beside})")
        rows.append(f"| **{name}**: {(part.__doc__ or '').strip()} | {' | '.join(cells)} |")
    sizes = f"θ = {SIDE**2 + SIDE:,} float32; data {ROWS:,} × {COLUMNS}, {CLASSES} classes"
    return "\n".join(["# What large models and data cost", "", f"{sizes}; one thread, NumPy.", "", *rows, ""])


def main() -> None:
    """Measure all parts, and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--part", choices=PARTS, metavar="NAME", help="do this one here and print its figures")
    parser.add_argument("--save", type=Path, metavar="PATH", help="only write the model that `load` reads")
    parser.add_argument("--xpnet", type=Path, metavar="FOLDER", help="the sources of another version, to compare with")
    args = parser.parse_args()
    if args.save:
        import xpnet as xn

        square(xn.Adam()).save(args.save)
        return
    if args.part:
        print(json.dumps(PARTS[args.part]()))
        return
    versions = ({"before": args.xpnet.resolve()} if args.xpnet else {}) | {"now": HERE.parent}
    found = {version: {name: run(name, folder) for name in PARTS} for version, folder in versions.items()}
    report = {"machine": machine.describe(1), "versions": found}
    write_text(HERE / "scale.json", json.dumps(report, indent=1) + "\n")
    write_text(HERE / "scale.md", page(report))
    print(page(report))


if __name__ == "__main__":
    main()
