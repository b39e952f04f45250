"""What data cost that are read while training runs: `python -m benchmarks.sources` writes sources.json and sources.md.

epochs  an epoch from sources beside one from arrays: CPU seconds, contenders in turn, one thread, each run a process
large   an epoch on a file of 5,000,000 × 100 float32, a tenth held out: anonymous memory, seconds to the first step
chunks  an epoch from HDF5 and zarr in compressed chunks: in the exact order, and by windows
kills   training from a memory map that is killed 50 times
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from xpnet.files.writer import write_text

HERE = Path(__file__).resolve().parent
ROWS, COLUMNS = 5_000_000, 100
ROUNDS = 7
BACKENDS = ("numpy", "torch", "jax")
FEEDS = ("arrays", "rows of arrays", "rows of a memory map", "a source of one's own")


class Own:
    """The least that a source is."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.x[rows], self.y[rows]


def fed(kind: str, path: Path) -> tuple[Any, ...]:
    """Return the data, as arrays or as a source."""
    import xpnet as xn

    y = np.load(path / "y.npy")
    if kind == "rows of a memory map":
        return (xn.Rows(np.load(path / "x.npy", mmap_mode="r"), y),)
    x = np.load(path / "x.npy")
    if kind == "arrays":
        return x, y
    return (xn.Rows(x, y),) if kind == "rows of arrays" else (Own(x, y),)


def epoch(backend: str, path: Path) -> dict[str, Any]:
    """Train for an epoch from each kind of data, in turn, some times over; return CPU seconds and the digests of θ."""
    import xpnet as xn

    net = xn.Sequential(xn.Scale(1 / 255), xn.Linear(784, 128), xn.ReLU(), xn.Linear(128, 10))
    data = {kind: fed(kind, path) for kind in FEEDS}
    seconds: dict[str, list[float]] = {kind: [] for kind in FEEDS}
    thetas = set()
    for turn in range(ROUNDS + 1):  # the first compiles
        for kind in FEEDS[turn % len(FEEDS) :] + FEEDS[: turn % len(FEEDS)]:
            model = models(net, backend, kind)
            began = time.process_time()
            model.fit(*data[kind], epochs=1, batch_size=128)
            if turn:
                seconds[kind].append(time.process_time() - began)
            thetas.add(sha256(model.backend.asnumpy(model.theta).tobytes()).hexdigest())
    return {"seconds": seconds, "different thetas": len(thetas)}


KEPT: dict[str, Any] = {}


def models(net: Any, backend: str, kind: str) -> Any:
    """Return a model as it was when it was new, whose steps are compiled already."""
    import xpnet as xn

    model = KEPT.get(kind) or xn.Model(net, xn.cross_entropy, xn.Adam(1e-3), backend=backend, metrics=["accuracy"])
    fresh = xn.Model(net, xn.cross_entropy, xn.Adam(1e-3), backend=backend, metrics=["accuracy"])
    KEPT[kind] = model
    model.holder.state = fresh.holder.state
    return model


def anonymous() -> int:
    """Return this process's anonymous memory, in kB."""
    with open("/proc/self/status", encoding="utf-8") as status:
        return int(next(line for line in status if line.startswith("RssAnon")).split()[1])


def large(path: Path) -> dict[str, float]:
    """Train for an epoch on a large file; return the most anonymous memory, in MB, and seconds."""
    import xpnet as xn
    from xpnet.training.step import Step

    x, y = np.load(path / "large.npy", mmap_mode="r"), np.load(path / "labels.npy", mmap_mode="r")
    net = xn.Sequential(xn.Linear(COLUMNS, 64), xn.ReLU(), xn.Linear(64, 10))
    model = xn.Model(net, xn.cross_entropy, xn.Adam(1e-3), backend="numpy", metrics=["accuracy"])
    model.fit(x[:1024], y[:1024])  # what is imported at the first call is no part of it
    most, ended, first, many = anonymous(), threading.Event(), [], Step.many

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.005):
            most = max(most, anonymous())

    def noting(self: Any, state: Any, fixed: Any, block: Any) -> Any:
        if first:
            return many(self, state, fixed, block)
        done = many(self, state, fixed, block[:1])
        first.append(time.perf_counter() - began)
        return done._replace(state=state) if len(block) == 1 else many(self, state, fixed, block)

    Step.many = noting  # type: ignore[method-assign]
    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    model.fit(xn.Rows(x, y), epochs=1, batch_size=1024, validation=0.1)
    seconds = time.perf_counter() - began
    ended.set()
    watcher.join()
    return {"anonymous MB": most / 1024, "first step s": first[0], "epoch s": seconds}


def chunks(path: Path) -> dict[str, float]:
    """Train for an epoch from files in compressed chunks of 512 rows; return seconds."""
    import h5py
    import zarr

    import xpnet as xn

    x, y = np.load(path / "x.npy"), np.load(path / "y.npy")
    file = h5py.File(path / "x.h5", "w")
    file.create_dataset("x", data=x, chunks=(512, 784), compression="gzip", compression_opts=1)
    store = zarr.create_array(str(path / "x.zarr"), shape=x.shape, dtype=x.dtype, chunks=(512, 784))
    store[:] = x
    net = xn.Sequential(xn.Scale(1 / 255), xn.Linear(784, 128), xn.ReLU(), xn.Linear(128, 10))
    found = {}
    for name, data in {"arrays": x, "HDF5": file["x"], "zarr": store}.items():
        for window in (None, 8192) if name != "arrays" else (None,):
            model = xn.Model(net, xn.cross_entropy, xn.Adam(1e-3), backend="numpy")
            began = time.perf_counter()
            model.fit(xn.Rows(data, y, window=window), epochs=1, batch_size=128)
            found[f"{name}, windows of {window} rows" if window else name] = time.perf_counter() - began
    return found


def kills(path: Path) -> dict[str, Any]:
    """Kill processes that train from a memory map, half of them while they save; return what was lost."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    import test_long

    import xpnet as xn

    def feed(x: np.ndarray, y: np.ndarray) -> tuple[Any, ...]:
        np.save(path / "run-x.npy", x)
        return (xn.Rows(np.load(path / "run-x.npy", mmap_mode="r"), y),)

    done: dict[str, Any] = test_long.kills(path, 50, seed=3, feed=feed)
    return done


def write(path: Path) -> None:
    """Write the data: noise like images, and a large table that is never held as a whole."""
    rng = np.random.default_rng(0)
    np.save(path / "x.npy", rng.integers(0, 256, (60_000, 784), dtype=np.uint8))
    np.save(path / "y.npy", rng.integers(0, 10, 60_000))
    large = np.lib.format.open_memmap(path / "large.npy", "w+", np.float32, (ROWS, COLUMNS))
    for start in range(0, ROWS, 100_000):
        large[start : start + 100_000] = rng.random((100_000, COLUMNS), dtype=np.float32)
    large.flush()
    np.save(path / "labels.npy", rng.integers(0, 10, ROWS).astype(np.int32))


def run(part: str, path: Path, *words: str) -> Any:
    """Do a part in a process of its own, on one thread."""
    environment = os.environ | machine.threads(1) | {"PYTHONPATH": str(HERE.parent)}
    command = [sys.executable, "-m", "benchmarks.sources", "--part", part, "--data", str(path), *words]
    done = subprocess.run(command, cwd=HERE.parent, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def page(report: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = [
        "# What data cost that are read while training runs",
        "",
        f"{report['machine']['processor']}, {report['machine']['cores']} cores, one thread.",
        "",
    ]
    lines += [
        f"An epoch, CPU seconds beside arrays (median of {ROUNDS} pairs), 784-128-10, batch 128, 60,000 samples:",
        "",
    ]
    lines += [f"| | {' | '.join(FEEDS[1:])} | same bits |", "| --- |" + " --: |" * len(FEEDS)]
    for backend, found in report["epochs"].items():
        times = found["seconds"]
        ratios = [
            statistics.median(a / b for a, b in zip(times[kind], times["arrays"], strict=True)) for kind in FEEDS[1:]
        ]
        same = "yes" if found["different thetas"] == 1 else "NO"
        lines.append(f"| {backend} | {' | '.join(f'{ratio:.3f}' for ratio in ratios)} | {same} |")
    big = report["large"]
    lines += ["", f"{ROWS:,} × {COLUMNS} float32 (2 GB), batch 1024, a tenth held out, NumPy: at most "]
    lines[-1] += f"{big['anonymous MB']:.0f} MB of anonymous memory (the whole process), first step after "
    lines[-1] += f"{big['first step s']:.2f} s, the epoch {big['epoch s']:.1f} s."
    lines += ["", "An epoch from chunks of 512 rows, compressed, seconds:", "", "| data | s |", "| --- | --: |"]
    lines += [f"| {name} | {seconds:.2f} |" for name, seconds in report["chunks"].items()]
    lines += ["", "Killed: " + "; ".join(f"{name} {number}" for name, number in report["kills"].items()) + ".", ""]
    return "\n".join(lines)


PARTS = {"large": large, "chunks": chunks, "kills": kills}


def main() -> None:
    """Measure all parts, or some, and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sources", description=__doc__)
    parser.add_argument("--part", choices=("epochs", *PARTS), help="do this one here and print its figures")
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--data", type=Path, help="where the data lie")
    args = parser.parse_args()
    if args.part:
        print(json.dumps(epoch(args.backend, args.data) if args.part == "epochs" else PARTS[args.part](args.data)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        write(path)
        report: dict[str, Any] = {"machine": machine.describe(1)}
        report["epochs"] = {name: run("epochs", path, "--backend", name) for name in BACKENDS}
        report |= {part: run(part, path) for part in PARTS}
    write_text(HERE / "sources.json", json.dumps(report, indent=1) + "\n")
    write_text(HERE / "sources.md", page(report))
    print(page(report))


if __name__ == "__main__":
    main()
