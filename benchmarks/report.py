"""The Markdown of a run, written from its JSON: `python -m benchmarks report PATH`. No figure is ever typed."""

import json
import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.contenders import CPU, GPU
from benchmarks.figure import draw
from benchmarks.goals import goals
from benchmarks.summary import (
    against,
    fastest,
    figures,
    goal_of,
    growth_slopes,
    kind,
    memory,
    microseconds,
    of_kind,
    pytorch,
    seconds,
    spread,
    suspicious,
    title,
)
from xpnet.files.writer import write_text

MARKS = {
    "cpu": ("<!-- benchmarks -->", "<!-- /benchmarks -->"),
    "gpu": ("<!-- benchmarks gpu -->", "<!-- /benchmarks gpu -->"),
}
"""Between which the README has the last run on each kind of device."""
AT_WORK = (
    "Device at work: the time that kernels and copies cover in an epoch that is watched, over the epochs that are not."
)
LABELS = {"cpu": {c.name: c.label for c in CPU}, "gpu": {c.name: c.label for c in GPU}}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; all but the first column stand to the right."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def time(value: float) -> str:
    """Write seconds with three digits."""
    if value < 0.1:
        return f"{1000 * value:.1f} ms"
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


def times(value: float | None) -> str:
    """Write a ratio, a dash if there is none."""
    return "–" if value is None or math.isnan(value) else f"{value:.2f} ×"


def bold(name: str, text: str) -> str:
    """Make xpnet's own rows stand out."""
    return f"**{text}**" if kind(name) == "xpnet" else text


def reference(case: dict[str, Any]) -> str | None:
    """Return who the others are compared with: PyTorch, else the fastest peer."""
    return pytorch(case) or fastest(case, of_kind(case, "peer"))


def epoch_table(case: dict[str, Any], labels: dict[str, str]) -> str:
    """Return one case, the fastest first."""
    beside, rows = reference(case), []
    measured = [name for name in case["contenders"] if seconds(case, name)]
    for name in sorted(measured, key=lambda name: median(seconds(case, name))):
        result, (low, high) = case["contenders"][name], spread(seconds(case, name))
        loss = result["losses"][-1]
        row = [labels.get(name, name), time(median(seconds(case, name))), f"{time(low)} – {time(high)}"]
        row += [times(against(case, name, beside)), time(result["first"]), times(memory(case, name))]
        row += ["–" if loss is None else f"{loss:.4f} ({len(result['losses'])})"]
        rows.append([bold(name, cell) for cell in row])
    head = ["contender", "epoch, median", "least – greatest", f"against {labels.get(beside or '', 'the fastest')}"]
    text = table([*head, "first epoch", "memory", "loss (after epochs)"], rows)
    odd = suspicious(case)
    return text + (f"\n\nNot the same training, by their loss: {', '.join(odd)}." if odd else "")


def overview(results: dict[str, Any], labels: dict[str, str]) -> str:
    """Return all cases in one table: median seconds of an epoch."""
    cases = results.get("epochs", [])
    names = [name for name in labels if any(seconds(case, name) for case in cases)]
    rows = []
    for name in names:
        cells = [time(median(seconds(case, name))) if seconds(case, name) else "–" for case in cases]
        rows.append([bold(name, cell) for cell in (labels.get(name, name), *cells)])
    return table(["one epoch", *map(title, cases)], rows)


def start_table(results: dict[str, Any], labels: dict[str, str]) -> str:
    """Return the seconds from process start to the goal; of newer runs those of the epochs alone, too."""
    found, rows = results.get("start", {}), []
    apart = all("training" in one for one in found.values())
    for name in sorted(found, key=lambda name: median(found[name]["seconds"])):
        one, (low, high) = found[name], spread(found[name]["seconds"])
        row = [labels.get(name, name), time(median(one["seconds"])), f"{time(low)} – {time(high)}"]
        row += [time(median(one["training"]))] if apart else []
        row += [f"{median(one['epochs']):g}", f"{100 * median(one['accuracy']):.2f} %"]
        rows.append([bold(name, cell) for cell in row])
    head = [f"process start to {goal_of(results)}", "median", "least – greatest", *["training"] * apart]
    return table([*head, "epochs", "test accuracy"], rows)


def figure_table(results: dict[str, Any], labels: dict[str, str]) -> str:
    """Return what the contenders told of the device, nothing if none did."""
    rows = []
    for case in results.get("epochs", []):
        for name in (name for name, one in case["contenders"].items() if one.get("figures") and seconds(case, name)):
            nodes, share = figures(case, name)
            row = [f"{title(case)}: {labels.get(name, name)}", f"{microseconds(case, name):.1f}"]
            row += ["–" if nodes is None else f"{nodes:.1f}", "–" if share is None else f"{100 * share:.0f} %"]
            rows.append(row)
    return table(["a step", "microseconds", "nodes of its graph", "device at work"], rows) if rows else ""


def accuracy_table(results: dict[str, Any]) -> str:
    """Return the seconds of training to an accuracy, the medians of the seeds that reached it."""
    rows = []
    for one in (one for one in results["accuracy"].values() if one["runs"]):
        runs = one["runs"]
        met = [run for run in runs if run["epochs"] is not None]
        row = [f"`{one['command']}`", f"{100 * one['goal']:g} %"]
        row += [time(median(run["training"] for run in met)) if met else "–"]
        row += [f"{median(run['epochs'] for run in met):g}" if met else "–", f"{len(met)} of {len(runs)}"]
        row += [f"{100 * median(run['accuracy'] for run in runs):.2f} %"]
        rows.append([*row, *(time(median(run[key] for run in runs)) for key in ("whole training", "seconds"))])
    head = ["MNIST by", "goal", "training to it", "epochs", "seeds that reached it", "accuracy in the end"]
    return table([*head, "training in all", "whole command"], rows)


def goal_table(results: dict[str, Any]) -> str:
    """Return every goal with what was reached."""
    rows = []
    for what, reached, limit in goals(results):
        verdict = "not measured" if reached is None else "yes" if reached <= limit else "**no**"
        rows.append([what, "–" if reached is None else f"{reached:.2f}", f"≤ {limit:g}", verdict])
    return table(["figure", "reached", "goal", "met"], rows)


def small_tables(results: dict[str, Any], labels: dict[str, str]) -> list[str]:
    """Return what has two or three columns: imports, sizes, growth, a busy machine."""
    parts = []
    if found := results.get("imports"):
        rows = [[f"`{what}`", time(median(one["seconds"]))] for what, one in found.items()]
        parts += ["## Start Python and import", table(["what", "median"], rows)]
    if found := results.get("install"):
        rows = [[what, f"{one['bytes'] / 2**20:.0f} MiB", str(one["distributions"])] for what, one in found.items()]
        parts += ["## Installed, with all that it depends on", table(["what", "size", "distributions"], rows)]
    if found := results.get("growth"):
        rows = []
        for name, axes in found.items():
            for what, points in axes.items():
                line = " → ".join(time(median(point["seconds"])) for point in points)
                values = "parameters" if what == "width" else what
                slopes = [f"{slope:.2f}" for slope in growth_slopes(points)]
                rows.append([labels.get(name, name), f"{values} {points[0]['x']} → {points[-1]['x']}", line, *slopes])
        head = ["contender", "grows", "epoch", "slope of time", "slope of memory"]
        parts += ["## How time and memory grow (log-log slopes)", table(head, rows)]
    if found := results.get("busy"):
        rows = []
        for name, one in found.items():
            quiet, loaded = median(one["quiet"]), median(one["busy"])
            rows.append(
                [
                    bold(name, cell)
                    for cell in (labels.get(name, name), time(quiet), time(loaded), times(loaded / quiet))
                ]
            )
        parts += ["## Another process keeps one core busy", table(["contender", "quiet", "busy", "ratio"], rows)]
    return parts


def machine(results: dict[str, Any]) -> str:
    """Return where and with what it was measured."""
    facts = ", ".join(f"{key}: {value}" for key, value in results["machine"].items())
    found = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    missing = "; ".join(f"{name} ({reason})" for name, reason in results["missing"].items())
    return f"{results['date']}. {facts}.\n\nVersions: {found}." + (f"\n\nMissing: {missing}." if missing else "")


def page(results: dict[str, Any], picture: str) -> str:
    """Return the whole report."""
    labels = LABELS[results["kind"]]
    head = f"# Benchmarks, {results['kind'].upper()}" + ", a quick trial: no measurement" * results.get("quick", False)
    parts = [head, machine(results), f"![Seconds of one epoch]({picture})"]
    parts += ["## Goals", goal_table(results)]
    for case in results.get("epochs", []):
        parts += [f"## {title(case)}", epoch_table(case, labels)]
    if results.get("start"):
        parts += ["## The whole process", start_table(results, labels)]
    if found := figure_table(results, labels):
        parts += ["## A step on the device", found, AT_WORK]
    if results.get("accuracy"):
        parts += ["## Training to an accuracy", accuracy_table(results)]
    return "\n\n".join([*parts, *small_tables(results, labels)]) + "\n"


def excerpt(results: dict[str, Any], whole: str) -> str:
    """Return the part for the README: of three nets xpnet's three fastest, the fastest peer and PyTorch."""
    every, facts = results.get("epochs", []), results["machine"]
    cases = [case for k, case in enumerate(every) if case["net"] not in [one["net"] for one in every[:k]]][:3]
    device = facts.get("gpu") or f"{facts['processor']}, {facts['cores']} cores"
    line = f"{device}, {results['date']}; each column in one run, in turn, medians ([everything]({whole}))."
    if not cases:
        return line
    first = cases[0]
    ours = [name for name in of_kind(first, "xpnet") if seconds(first, name)]
    ours = sorted(ours, key=lambda name: median(seconds(first, name)))[:3]
    names = {*ours, fastest(first, of_kind(first, "peer")), pytorch(first)}
    labels = {name: label for name, label in LABELS[results["kind"]].items() if name in names}
    return f"{line}\n\n{overview({**results, 'epochs': cases}, labels)}"


def replace_part(text: str, part: str, kind: str) -> str:
    """Return the text with what stands between the two markers replaced; as it was if they are not there."""
    first, last = MARKS[kind]
    before, start, rest = text.partition(first)
    _, end, after = rest.partition(last)
    return f"{before}{first}\n\n{part}\n\n{last}{after}" if start and end else text


def write(path: Path, readme: Path) -> list[Path]:
    """Write the page and the picture beside the JSON, and the README's part; return what was written.

    Where matplotlib is missing there is no picture, and the README stays: `python -m benchmarks report` does the rest.
    """
    results = json.loads(path.read_text(encoding="utf-8"))
    markdown, picture = path.with_suffix(".md"), path.with_suffix(".png")
    write_text(markdown, page(results, picture.name))
    if find_spec("matplotlib") is None:
        return [markdown]
    draw(results, LABELS[results["kind"]], picture)
    written = [markdown, picture]
    folder = readme.parent.resolve()
    if readme.exists() and path.resolve().is_relative_to(folder):
        old = readme.read_text(encoding="utf-8")
        whole = markdown.resolve().relative_to(folder).as_posix()
        if (new := replace_part(old, excerpt(results, whole), results["kind"])) != old:
            write_text(readme, new)
            written.append(readme)
    return written
