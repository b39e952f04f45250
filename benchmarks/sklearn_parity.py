"""xpnet's estimators beside scikit-learn's own, on data sets that scikit-learn brings along: as good, and how fast?

`python -m benchmarks.sklearn_parity --seeds 10` writes benchmarks/sklearn/DATE.json and DATE.md. Both have default
settings, the same split and scaling for a seed, and take turns, so that a busy moment hits both.
"""

import argparse
import datetime
import json
import math
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, median, stdev
from time import perf_counter
from typing import Any

import numpy as np
from scipy.stats import t
from sklearn import datasets
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

from benchmarks import machine
from xpnet.files.writer import write_text
from xpnet.interop import sklearn as ours

HERE = Path(__file__).parent
PAIRS = {"accuracy": (ours.MLPClassifier, MLPClassifier), "R²": (ours.MLPRegressor, MLPRegressor)}

Load = Callable[[int], tuple[Any, Any]]
SETS: dict[str, tuple[str, Load]] = {
    "iris": ("accuracy", lambda seed: datasets.load_iris(return_X_y=True)),
    "wine": ("accuracy", lambda seed: datasets.load_wine(return_X_y=True)),
    "breast cancer": ("accuracy", lambda seed: datasets.load_breast_cancer(return_X_y=True)),
    "digits": ("accuracy", lambda seed: datasets.load_digits(return_X_y=True)),
    "moons": ("accuracy", lambda seed: datasets.make_moons(1000, noise=0.25, random_state=seed)),
    "classification": (
        "accuracy",
        lambda seed: datasets.make_classification(2000, 20, n_informative=10, n_classes=4, random_state=seed),
    ),
    "diabetes": ("R²", lambda seed: datasets.load_diabetes(return_X_y=True)),
    "friedman": ("R²", lambda seed: datasets.make_friedman1(1000, noise=1.0, random_state=seed)),
}
"""Those that come with scikit-learn or are made by it; not linnerud, whose 20 rows tell nothing of a network."""


def prepared(kind: str, load: Load, seed: int) -> list[np.ndarray]:
    """Return train x, test x, train y, test y, standardized by the training part."""
    x, y = load(seed)
    split = train_test_split(x, y, test_size=0.3, random_state=seed, stratify=y if kind == "accuracy" else None)
    x_train, x_test, y_train, y_test = split
    scaler = StandardScaler().fit(x_train)
    if kind == "R²":
        mean, std = y_train.mean(), y_train.std()
        y_train, y_test = (y_train - mean) / std, (y_test - mean) / std
    return [scaler.transform(x_train), scaler.transform(x_test), y_train, y_test]


def once(estimator: Any, data: list[np.ndarray]) -> dict[str, float]:
    """Fit and score."""
    x_train, x_test, y_train, y_test = data
    start = perf_counter()
    estimator.fit(x_train, y_train)
    seconds = perf_counter() - start
    return {"score": float(estimator.score(x_test, y_test)), "seconds": seconds, "epochs": int(estimator.n_iter_)}


def compare(name: str, seeds: int) -> dict[str, Any]:
    """Fit both on one data set for each seed, now one first and now the other."""
    kind, load = SETS[name]
    runs: dict[str, list[dict[str, float]]] = {"xpnet": [], "scikit-learn": []}
    for seed in range(seeds):
        data = prepared(kind, load, seed)
        turns = list(zip(runs, PAIRS[kind], strict=True))
        for who, cls in turns[:: 1 if seed % 2 else -1]:
            runs[who].append(once(cls(random_state=seed), data))
    return {"metric": kind, "runs": runs} | verdict(runs)


def verdict(runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Say whether ours is worse beyond noise, and how long it takes.

    That is, by a one-sided paired t-test at 5 % for all the data sets together: 5 % / their number for each.
    """
    pairs = list(zip(runs["xpnet"], runs["scikit-learn"], strict=True))
    gains = [a["score"] - b["score"] for a, b in pairs]
    error = stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.inf
    return {
        "scores": {who: fmean(run["score"] for run in own) for who, own in runs.items()},
        "gain": fmean(gains),
        "standard error": error if math.isfinite(error) else None,
        "not worse": len(gains) < 2 or fmean(gains) >= -error * float(t.ppf(1 - 0.05 / len(SETS), len(gains) - 1)),
        "time ratio": median(a["seconds"] / b["seconds"] for a, b in pairs),
        "epoch time ratio": median(a["seconds"] / a["epochs"] / (b["seconds"] / b["epochs"]) for a, b in pairs),
        "seconds": {who: median(run["seconds"] for run in own) for who, own in runs.items()},
    }


def table(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    about, versions = results["machine"], results["versions"]
    lines = [
        "# xpnet's estimators beside scikit-learn's",
        "",
        f"{results['date']}, {about['processor']}, {about['cores']} cores, threads: {about['threads']}; "
        + ", ".join(f"{name} {number}" for name, number in versions.items())
        + f". Default settings, {results['seeds']} seeds; score on held-out 30 %; ± is the standard error of the "
        "paired differences; worse means "
        "beyond noise, at 5 % for all sets together (paired t-test); a ratio below 1 means that xpnet is faster.",
        "",
        "| data | metric | xpnet | scikit-learn | difference | not worse | time of fit | time of an epoch |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, case in results["data"].items():
        error = "" if case["standard error"] is None else f" ± {case['standard error']:.4f}"
        cells = [name, case["metric"], *(f"{case['scores'][who]:.4f}" for who in ("xpnet", "scikit-learn"))]
        cells += [f"{case['gain']:+.4f}{error}", "yes" if case["not worse"] else "**no**"]
        cells += [f"{case['time ratio']:.2f} ×", f"{case['epoch time ratio']:.2f} ×"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--data", nargs="+", default=list(SETS), choices=list(SETS), metavar="NAME")
    parser.add_argument("--out", type=Path, default=HERE / "sklearn", help="where the two files go")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # that 200 epochs are over is no news
    date = datetime.date.today().isoformat()
    libraries = ("xpnet", "scikit-learn", "numpy")
    results: dict[str, Any] = {"date": date, "seeds": args.seeds, "machine": machine.describe()}
    results |= {"versions": {name: version(name) for name in libraries}, "data": {}}
    for kind, name in (("accuracy", "iris"), ("R²", "diabetes")):  # first calls compile and load
        for cls in PAIRS[kind]:
            once(cls(max_iter=3), prepared(kind, SETS[name][1], 0))
    for name in args.data:
        results["data"][name] = compare(name, args.seeds)
        print(table(results).splitlines()[-1], flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    write_text(args.out / f"{date}.json", json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    write_text(args.out / f"{date}.md", table(results))


if __name__ == "__main__":
    main()
