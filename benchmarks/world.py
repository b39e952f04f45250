"""Ranks of MPI beside one process and beside PyTorch's: `python -m benchmarks.world` writes world.json and world.md.

training    steps on one rank and on two, of shards, of DistributedDataParallel on gloo, of one process with two threads
reduction   what adding up costs, in shared windows, by messages, by MPI's own Allreduce; a message's latency and rate

    python -m benchmarks.world --mpi /path/to/python --mpi /path/to/another/python

measures other MPI libraries too: those which lie beside mpi4py in other Pythons. What more ranks would gain on a
network is computed: see scaling.py.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import machine
from benchmarks.ranks import BATCH, CALLS, LAYERS, QUIET, SIZES, STEPS
from benchmarks.scaling import paper
from xpnet.files.writer import write_text

HERE = Path(__file__).resolve().parent
Turns = dict[str, list[list[float]]]
RATIOS = (
    ("two ranks against one", "one rank", "two ranks", "≥ 1.8"),
    ("two ranks against DDP", "DDP", "two ranks", "≥ 1.2"),
    ("two ranks against one process with two threads", "one rank, two threads", "two ranks", ""),
    ("two ranks: windows against messages", "two ranks, by messages", "two ranks", ""),
    ("one rank: 2 shards cost", "one rank, 2 shards", "one rank", "≤ 1.2"),
    ("one rank: 8 shards cost", "one rank, 8 shards", "one rank", "≤ 1.2"),
    ("two ranks: 2 shards cost", "two ranks, 2 shards", "two ranks", "≤ 1.2"),
    ("two ranks: 8 shards cost", "two ranks, 8 shards", "two ranks", "≤ 1.2"),
)
"""What is divided by what, and what is to be reached."""

# Measuring


def ranks(python: str, part: str, minutes: float, enough: int, number: int = 2) -> Any:
    """Do a part on ranks of one thread under the MPI library of a Python."""
    launcher = Path(python).parent / "mpiexec"
    others = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_osc": "^ucx"}
    others |= {
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "PRTE_MCA_hwloc_default_binding_policy": "none",
    }
    others |= {"I_MPI_PIN": "0", "PYTHONPATH": str(HERE.parent)}
    words = ["-m", "benchmarks.ranks", part, f"--minutes={minutes}", f"--enough={enough}"]
    environment = os.environ | machine.threads(1) | others
    command = [str(launcher), "-n", str(number), python, *words]
    done = subprocess.run(command, cwd=HERE.parent, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def ratio(turns: Turns, over: str, under: str) -> dict[str, Any]:
    """Return medians over cycles, of seconds by seconds in those that were quiet, of processor times in all; and the
    least seconds by the least.
    """
    pairs = list(zip(turns[over], turns[under], strict=True))
    quiet = [a[0] / b[0] for a, b in pairs if max(a[2], b[2]) < QUIET]
    found = {"processor": median(a[1] / b[1] for a, b in pairs), "quiet": len(quiet), "cycles": len(pairs)}
    least = min(a[0] for a, _ in pairs) / min(b[0] for _, b in pairs)
    return found | {"wall": median(quiet) if quiet else None, "least": least}


def composed(turns: Turns, sums: dict[str, Any]) -> float:
    """Return T(1)/T(2) of processor times: a batch on one rank, by half of it with its update, and the fastest sum."""
    whole, half = (median(turn[1] for turn in turns[name]) for name in ("one rank", "one rank, half the batch"))
    return whole / (half + sums[str(SIZES[-1])]["windows"][0] / 1e6)


# Page


def page(report: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    about = report["machine"]
    lines = ["# Two ranks of MPI", "", f"{about['processor']}, {about['cores']} cores; NumPy, a thread a rank, "]
    lines[-1] += f"{'-'.join(map(str, LAYERS))}, batch {BATCH}, Adam, contenders in turn. Wall time is of cycles in "
    lines[-1] += f"which other programs took less than {QUIET:.0%} of a core; processor time of all cycles, of the "
    lines[-1] += "busiest rank, its waiting for others included."
    for name, found in report["training"].items():
        lines += ["", f"## {name}", "", *training(found, report["reduction"][name]["sums"])]
    lines += ["", "## Adding up over two ranks", "", *reduction(report["reduction"])]
    return "\n".join([*lines, "", "## On paper", "", *paper(report["works"], report["reduction"]), ""])


def training(found: dict[str, Any], sums: dict[str, Any]) -> list[str]:
    """Return what was found under one library."""
    turns = found["turns"]
    lines = ["| ratio | wall, quiet cycles | of the least | processor time | goal |", "| --- | --: | --: | --: | --: |"]
    for title, over, under, goal in RATIOS:
        if over in turns:
            one = ratio(turns, over, under)
            wall = f"{shown(one['wall'], 2)} ({one['quiet']} of {one['cycles']})"
            lines.append(f"| {title} | {wall} | {one['least']:.2f} | {one['processor']:.2f} | {goal} |")
    lines += ["", "Two ranks against one, composed of processor times (half the batch on one rank, with the update of "]
    lines[-1] += f"θ, and the fastest sum in windows): {composed(turns, sums):.2f}."
    head = "| ms a step | quiet turns | the least | processor | other programs, cores |"
    lines += ["", head, "| --- | --: | --: | --: | --: |"]
    for name, each in turns.items():
        quiet = [turn[0] * 1e3 for turn in each if turn[2] < QUIET]
        used, others = (median(turn[k] for turn in each) for k in (1, 2))
        wall, least = shown(median(quiet) if quiet else None, 1), min(turn[0] for turn in each) * 1e3
        lines.append(f"| {name} | {wall} | {least:.1f} | {used * 1e3:.1f} | {others:.2f} |")
    if "best" in found:
        lines += ["", f"DDP is PyTorch's DistributedDataParallel on gloo, with {found['best']}: the fastest of "]
        lines[-1] += f"{len(found['settings of DDP'])} settings. From the same θ, losses of the first {STEPS} steps "
        lines[-1] += f"differ by {found['losses']:.0e}, relatively."
    return lines


def shown(value: float | None, digits: int) -> str:
    """Return a figure, or what stands for none."""
    return "–" if value is None else f"{value:.{digits}f}"


def reduction(libraries: dict[str, Any]) -> list[str]:
    """Return what sums and messages cost."""
    ways = list(next(iter(libraries.values()))["sums"][str(SIZES[-1])])
    lines = [f"Microseconds, least and median of {CALLS} calls, the ways in turn.", ""]
    lines += [f"| library | float32 | {' | '.join(ways)} |", "| --- | --: |" + " --: |" * len(ways)]
    for name, found in libraries.items():
        for n in SIZES:
            figures = (found["sums"][str(n)][way] for way in ways)
            cells = " | ".join(f"{least:.0f}, {middle:.0f}" for least, middle in figures)
            lines.append(f"| {name} | {n:,} | {cells} |")
    lines += ["", "| messages of | α, µs | β, ns a byte | GB/s |", "| --- | --: | --: | --: |"]
    for name, found in libraries.items():
        alpha, beta = line(found["messages"])
        lines.append(f"| {name} | {alpha * 1e6:.1f} | {beta * 1e9:.2f} | {1e-9 / beta:.1f} |")
    return lines


def line(messages: dict[str, list[float]]) -> tuple[float, float]:
    """Return α and β of the fastest messages: half the time of there and back; β of the two largest."""
    times = {int(n): least / 2e6 for n, (least, _) in messages.items()}
    *_, second, largest = sorted(times)
    return times[min(times)], (times[largest] - times[second]) / (largest - second)


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.world", description=__doc__)
    parser.add_argument("--mpi", action="append", default=[], help="a Python with another MPI library beside it")
    parser.add_argument(
        "--minutes", type=float, default=8.0, help="at most, for training; a third under each other library"
    )
    parser.add_argument("--enough", type=int, default=20, help="quiet turns of each contender")
    parser.add_argument("--page", action="store_true", help="only write the page of what was measured before")
    args = parser.parse_args()
    path = HERE / "world.json"
    if not args.page:
        report: dict[str, Any] = {"machine": machine.describe(1), "training": {}, "reduction": {}}
        for python in [sys.executable, *args.mpi]:
            found = ranks(python, "reduction", args.minutes, args.enough)
            report["reduction"][found["library"]] = found
            minutes = args.minutes / (1 if python == sys.executable else 3)
            report["training"][found["library"]] = ranks(python, "training", minutes, args.enough)
        report["works"] = ranks(sys.executable, "works", args.minutes, args.enough, 1)
        write_text(path, json.dumps(report, indent=1) + "\n")
    report = json.loads(path.read_text())
    write_text(path.with_suffix(".md"), page(report))
    print(page(report))


if __name__ == "__main__":
    main()
