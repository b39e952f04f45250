"""The lab of the lesson: 1, 2 and 3 layers on MNIST with ReLU, tanh and sigmoid, several seeds, and a report of it.

python examples/lab.py             five seeds, 20 epochs: five minutes; writes examples/lab/README.md and its pictures
python examples/lab.py --quick     two seeds, three epochs, in a minute; writes examples/lab-quick/
"""

import argparse
import datetime
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mnist
import numpy as np
from tqdm import tqdm

import xpnet as xn
from xpnet import plot
from xpnet.files.writer import check, write_text

ACTIVATIONS = {"ReLU": (xn.ReLU, "he"), "tanh": (xn.Tanh, "glorot"), "sigmoid": (xn.Sigmoid, "glorot")}
"""Each activation with the initializer that goes with it."""

WIDTHS = {1: (), 2: (128,), 3: (128, 64)}
"""Units of the hidden layers, by the number of layers with weights."""

PICTURES = ("accuracy.png", "weights.png", "gradients.png")
BATCH, RATE, HELD_OUT, PROBE = 128, 3e-3, 5000, 1000


@dataclass
class Setup:
    """One network, and what its runs left behind, one entry a seed."""

    layers: int
    activation: str
    histories: list[xn.History] = field(default_factory=list)
    scopes: list[xn.Microscope] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    test: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.layers} layers, {self.activation}" if self.activation else "1 layer"

    def net(self) -> xn.Sequential:
        activation, initializer = ACTIVATIONS[self.activation or "tanh"]
        layers, inputs = [xn.Flatten(), xn.Scale(1 / 255)], 784
        for units in WIDTHS[self.layers]:
            layers += [xn.Linear(inputs, units, initializer=initializer), activation()]
            inputs = units
        return xn.Sequential(*layers, xn.Linear(inputs, 10, initializer="glorot"))

    def curve(self, key: str) -> np.ndarray:
        """One quantity of the histories: (seeds, epochs)."""
        return np.asarray([history[key] for history in self.histories])

    def layerwise(self, key: str) -> dict[str, np.ndarray]:
        """One quantity of the microscopes by path: (seeds, 1 + epochs), the first before training."""
        return {path: np.asarray([scope.of(key)[path] for scope in self.scopes]) for path in self.scopes[0].of(key)}


class Tick(xn.Callback):
    """Moves the progress bar on by an epoch."""

    def __init__(self, bar: Any) -> None:
        self.bar = bar

    def on_epoch_end(self, model: xn.Model, history: xn.History) -> None:
        self.bar.update()


def run(setups: Sequence[Setup], seeds: int, epochs: int, backend: str | None) -> float:
    """Train every network with every seed; return the seconds it took."""
    (images, labels), test = xn.datasets.mnist()
    steps = epochs * -(-(len(images) - HELD_OUT) // BATCH)
    start = time.perf_counter()
    with tqdm(total=len(setups) * seeds * epochs, unit=" epochs") as bar:
        for setup in setups:
            for seed in range(seeds):
                bar.set_description(f"{setup.name}, seed {seed}")
                optimizer = xn.Adam(xn.one_cycle(RATE, steps))
                model = xn.Model(setup.net(), xn.cross_entropy, optimizer, seed, backend, metrics=["accuracy"])
                scope = xn.Microscope(images[:PROBE], labels[:PROBE], say=None)
                callbacks = [scope, Tick(bar)]
                history = model.fit(images, labels, epochs, BATCH, HELD_OUT, callbacks, progress=False)
                setup.histories.append(history)
                setup.scopes.append(scope)
                setup.train.append(model.evaluate(images, labels)["accuracy"])
                setup.test.append(model.evaluate(*test)["accuracy"])
    return time.perf_counter() - start


def percent(values: Any, digits: int = 2) -> str:
    """The mean, and the standard deviation over the seeds: 97.91 ± 0.08 %."""
    values = 100.0 * np.asarray(values)
    spread = f" ± {values.std(ddof=1):.{digits}f}" if values.size > 1 else ""
    return f"{values.mean():.{digits}f}{spread} %"


def table(setups: Sequence[Setup]) -> str:
    """The figures of every network, in Markdown."""
    rows = [
        "| network | parameters | train accuracy | test accuracy | best and worst seed | max \\|W\\| |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for s in setups:
        extremes = f"{max(s.test):.2%} / {min(s.test):.2%}".replace("%", " %")
        rows.append(
            f"| {s.name} | {s.net().size:,} | {percent(s.train)} | {percent(s.test)} | {extremes} "
            f"| {s.curve('max_weight')[:, -1].mean():.2f} |"
        )
    return "\n".join(rows)


def does_the_activation_matter(setups: Sequence[Setup]) -> str:
    """Compare the activations at each depth, at the end and after the first epoch."""
    parts, clear = [], True
    for layers in (2, 3):
        group = sorted((s for s in setups if s.layers == layers), key=lambda s: -np.mean(s.test))
        gap = 100 * (np.mean(group[0].test) - np.mean(group[-1].test))
        clear &= gap > 200 * max(np.std(s.test) for s in group)
        first = ", ".join(f"{s.activation} {percent(s.curve('val_accuracy')[:, 0], 1)}" for s in group)
        end = ", ".join(f"{s.activation} {percent(s.test)}" for s in group)
        parts.append(
            f"with {layers} layers the test accuracy is {end}, {gap:.2f} points from first to last; "
            f"after one epoch the validation accuracy is {first}"
        )
    return f"{'Yes' if clear else 'Hardly'}: {'; '.join(parts)}."


def are_more_layers_needed(setups: Sequence[Setup]) -> str:
    """Compare the best network of each depth."""
    one, two, three = (max((s for s in setups if s.layers == k), key=lambda s: np.mean(s.test)) for k in (1, 2, 3))
    second, third = (100 * (np.mean(b.test) - np.mean(a.test)) for a, b in ((one, two), (two, three)))
    verdict = "more" if third > 200 * max(np.std(two.test), np.std(three.test)) else "no more"
    return (
        f"The second layer takes the test accuracy from {percent(one.test)} to {percent(two.test)} ({two.activation}), "
        f"{second:+.2f} points, and the third to {percent(three.test)} ({three.activation}), {third:+.2f} points, "
        f"{verdict} than twice the spread of the seeds."
    )


def was_training_hard(setups: Sequence[Setup]) -> str:
    """Tell of failures, of the gradient that reaches the first layer, of the microscopes' words and of overfitting."""
    gaps = {s.name: 100 * (np.mean(s.train) - np.mean(s.test)) for s in setups}
    fading = []
    for s in (s for s in setups if s.layers == 3):
        norms = list(s.layerwise("gradient_norm").values())
        start, later = (float(np.mean(norms[0][:, k] / norms[-1][:, k])) for k in (0, 1))
        fading.append(f"{s.activation} {start:.2f} at the start and {later:.2f} after one epoch")
    dead = max(values[:, -1].mean() for s in setups for values in s.layerwise("dead").values())
    words = [f"{s.name}, {finding}" for s in setups for scope in s.scopes for finding in scope.findings()]
    said = f'{len(words)} times something to warn of, such as "{words[0]}"' if words else "nothing to warn of"
    return (
        f"The worst run has a test accuracy of {percent(min(setups[0].test))} with one layer and "
        f"{percent(min(min(s.test) for s in setups[1:]))} with more. The microscope found {said}; at the end no layer "
        f"has more than {percent(dead, 1)} dead ReLUs. The gradient of the first of three layers, as a "
        f"multiple of the last one's, is {'; '.join(fading)}. Overfitting, train minus test accuracy in points, is "
        f"{', '.join(f'{gap:.2f} ({name})' for name, gap in gaps.items())}."
    )


def how_do_the_weights_behave(setups: Sequence[Setup]) -> str:
    """Tell how max |W| grows, and in which layer most."""
    growth = []
    for s in setups:
        start, end = (np.max([v[:, k] for v in s.layerwise("max_weight").values()], axis=0).mean() for k in (0, -1))
        growth.append(f"{start:.2f} to {end:.2f} ({s.name})")
    relu = next(s for s in setups if s.name == "3 layers, ReLU").layerwise("max_weight").values()
    by_layer = ", ".join(f"{v[:, 0].mean():.2f} to {v[:, -1].mean():.2f} in layer {k}" for k, v in enumerate(relu, 1))
    return (
        f"Over the training max |W| goes from {', '.join(growth)}. With three layers and ReLU it goes from {by_layer}."
    )


def panel(ax: Any, curves: dict[str, np.ndarray], ylabel: str, first: int = 1, dash: str = "-") -> None:
    """Draw mean curves over the seeds, and the range of the seeds as a band."""
    for k, (label, values) in enumerate(curves.items()):
        epochs = np.arange(first, first + values.shape[1])
        ax.plot(
            epochs,
            values.mean(axis=0),
            dash,
            color=plot.colour(k),
            label=label if dash == "-" else None,
            linewidth=1.8,
            marker=".",
        )
        ax.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=plot.colour(k), alpha=0.18, linewidth=0)
    ax.set(xlabel="epoch", ylabel=ylabel)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.25)
    if dash == "-":
        ax.legend(fontsize="small")


def pictures(setups: Sequence[Setup], out: Path) -> None:
    """Write the three pictures of the report: by depth the accuracy and max |W|, and the gradients of three layers."""
    import matplotlib.pyplot as plt

    sheets = {name: plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained", sharey=True) for name in PICTURES}
    accuracy, weights, gradients = (axes for _, axes in sheets.values())
    for k, layers in enumerate(WIDTHS):
        group = {s.activation or "1 layer": s for s in setups if s.layers == layers}
        for key, dash in (("accuracy", ":"), ("val_accuracy", "-")):
            curves = {label: 100 * s.curve(key) for label, s in group.items()}
            panel(accuracy[k], curves, "accuracy (% of samples)", dash=dash)
        panel(weights[k], {label: s.curve("max_weight") for label, s in group.items()}, "max |W|")
        for sheet in (accuracy, weights):
            sheet[k].set_title(f"{layers} layer{'s' * (layers > 1)}")
    accuracy[0].set_ylim(85, 100.3)
    for ax, s in zip(gradients, (s for s in setups if s.layers == 3), strict=True):
        norms = s.layerwise("gradient_norm").values()
        panel(ax, {f"layer {k}": v for k, v in enumerate(norms, 1)}, "gradient norm ‖∂L/∂W‖₂", first=0)
        ax.set(title=s.name, yscale="log")
    for name, (figure, _) in sheets.items():
        figure.savefig(out / name, dpi=100)
        plt.close(figure)


def report(setups: Sequence[Setup], seeds: int, epochs: int, seconds: float, device: str, quick: str) -> str:
    """The whole report, in Markdown."""
    machine = f"{os.cpu_count()}-core {platform.machine().replace('_', '-')}, {device}"
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}, xpnet {xn.__version__}"
    return f"""# The lab: how many layers, and which activation?

MNIST, {seeds} seeds, {epochs} epochs of batches of {BATCH}; Adam with a one-cycle learning rate up to {RATE}.
Hidden layers of {WIDTHS[2][0]} units (two layers), {WIDTHS[3][0]} and {WIDTHS[3][1]} (three); He initialisation for
ReLU, Glorot for the others. {HELD_OUT:,} of the 60,000 training images are held out for validation, and the test
images are looked at once, at the end. ± is the standard deviation over the seeds.

Made by `python examples/lab.py{quick}` on {datetime.date.today()} in {seconds / 60:.1f} minutes:
{machine}; {versions}.

{table(setups)}

![Accuracy against the epoch](accuracy.png)

Validation accuracy (solid) and training accuracy (dotted): the mean over the seeds, in a band from the lowest to the
highest.

## Does the activation between the layers affect performance?

{does_the_activation_matter(setups)}

## Are 2 or 3 layers needed for this task?

{are_more_layers_needed(setups)}

## Were there problems training the network, more so with more layers?

{was_training_hard(setups)}

![Gradient norm of each layer against the epoch](gradients.png)

## How do the weights behave while training?

{how_do_the_weights_behave(setups)}

![max |W| against the epoch](weights.png)
"""


def program() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two seeds, three epochs")
    parser.add_argument("--seeds", type=mnist.positive, help="how often each network is trained (5)")
    parser.add_argument("--epochs", type=mnist.positive, help="epochs of each training run (20)")
    parser.add_argument("--backend", help="where to train: auto, numpy, cupy, torch, jax")
    parser.add_argument("--out", type=Path, help="the folder of the report")
    options = parser.parse_args()
    seeds, epochs = options.seeds or (2 if options.quick else 5), options.epochs or (3 if options.quick else 20)
    out = options.out or Path(__file__).with_name("lab-quick" if options.quick else "lab")
    setups = [Setup(1, ""), *(Setup(k, activation) for k in (2, 3) for activation in ACTIVATIONS)]
    chosen = xn.backend(options.backend)
    out.mkdir(parents=True, exist_ok=True)
    check(out / "README.md")  # before minutes of training
    seconds = run(setups, seeds, epochs, options.backend)
    pictures(setups, out)
    device, quick = f"{chosen.name} on {chosen.device}", " --quick" * options.quick
    write_text(out / "README.md", report(setups, seeds, epochs, seconds, device, quick))
    print(table(setups), f"\n\nThe report is in {out}/README.md")


if __name__ == "__main__":
    mnist.main(program)
