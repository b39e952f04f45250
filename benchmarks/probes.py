"""What no machine without a GPU can know, a probe a process: `python -m benchmarks.probes NAME`.

A probe returns its figures, which are printed as JSON behind `FIGURES`, the last line. "answers" among them are
questions with an answer in words; "wrong", if it is not empty, makes the exit status 1.
"""

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

import xpnet as xn
from benchmarks import isolate
from xpnet.backends import Backend
from xpnet.backends.cuda import cublaslt as lt
from xpnet.backends.cuda.graph import Graph
from xpnet.backends.cuda.products import Products, alignment

MARK = "FIGURES "
Figures = dict[str, Any]

NAMES = {
    lt.EPILOGUE_DEFAULT: "plain",
    lt.EPILOGUE_BIAS: "bias",
    lt.EPILOGUE_RELU_BIAS: "relu+bias",
    lt.EPILOGUE_BGRADA: "bias gradient",
}
ALLOWED = {("float32", "float32"): 5e-5, ("tf32", "float32"): 4e-3, ("bfloat16", "float32"): 3e-2}
ALLOWED |= {("float32", "float64"): 1e-13}
"""How products may be made, of which dtype, and how far they may be off in units of their largest number."""
USUAL = (128, 784, 128), (128, 128, 10), (96, 784, 128), (16, 1024, 10)
SIZES = (*USUAL, (1, 7, 5), (5, 9, 7), (3, 129, 1), (16, 1, 130))
"""Rows, inputs and outputs of the products."""
OFFSETS = (0, 4, 2, 1)
"""Numbers by which windows lie behind a boundary of 512 bytes."""
UNALIGNED = "Do the epilogues take a bias that is not aligned to 16 bytes?"
TEN = "Do the epilogues take 10 columns?"
ABSENT = "there is no such algorithm"
NAN = "Does the ReLU epilogue keep NaN, as NumPy's maximum does?"


# What is there


def libraries() -> Figures:
    """Device, versions, and which of CUDA's libraries were loaded."""
    from cuda import pathfinder

    backend, found = xn.backend("cupy"), {}
    for name in ("cublasLt", "nvrtc", "cudart"):
        try:
            found[name] = str(pathfinder.load_nvidia_dynamic_lib(name).abs_path).rpartition("/")[2]
        except Exception as error:  # pathfinder raises what it likes
            found[name] = f"{type(error).__name__}: {error}".partition("\n")[0]
    return {"device": backend.describe(), "versions": backend.versions() | {"cupy": backend.version}, "found": found}


# Trainings


def small_data(n: int = 72) -> tuple[np.ndarray, np.ndarray]:
    """Return bytes (n, 6) and five classes."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, 6)).astype(np.uint8), rng.integers(0, 5, n).astype(np.int32)


def small_net(*middle: xn.Layer) -> xn.Sequential:
    """Return a network for them."""
    return xn.Sequential(xn.Scale(1 / 255), xn.Linear(6, 13), *middle, xn.Linear(13, 5))


def net() -> Figures:
    """The smallest fit that has a warm-up, a capture and launches, against NumPy."""
    x, y = small_data()
    thetas, losses, nodes = [], {}, None
    for name in ("numpy", "cupy"):
        layers = small_net(xn.ReLU(), xn.Dropout(0.3), xn.Linear(13, 13), xn.ReLU())
        model = xn.Model(layers, xn.cross_entropy, xn.AdamW(1e-2), seed=3, backend=name)
        losses[name] = model.fit(x, y, 5, 16, progress=False)["loss"]
        thetas.append(np.array(model.backend.asnumpy(model.theta)))
        nodes = getattr(model.step.run, "nodes_per_step", None)
    off = float(np.max(np.abs(thetas[0] - thetas[1])) / np.max(np.abs(thetas[0])))
    wrong = [] if off < 1e-4 else [f"θ is off by {off:.1e} after five epochs"]
    wrong += [] if nodes else ["the steps are no graph"]
    return {"losses": losses, "nodes per step": nodes, "theta off by": off, "wrong": wrong}


def graphs() -> Figures:
    """Every loss, optimizer and activation is captured, not refused."""
    rng, refused = np.random.default_rng(0), {}
    x, labels = small_data(64)
    shares = rng.random((64, 5)).astype("float32")
    signs = np.sign(shares - 0.5)
    activations = (xn.ReLU(), xn.LeakyReLU(), xn.Tanh(), xn.Sigmoid(), xn.GELU(), xn.SiLU(), xn.Dropout(0.5))
    optimizers = (xn.SGD(0.1), xn.SGD(0.1, momentum=0.9), xn.RMSProp(), xn.AdamW(clip_norm=1.0, weight_decay=0.1))
    losses: list[Any] = [(xn.cross_entropy, labels), (xn.negative_log_likelihood, labels)]
    losses += [(f, shares) for f in (xn.mean_squared_error, xn.mean_absolute_error, xn.huber, xn.binary_cross_entropy)]
    losses += [(f, signs) for f in (xn.hinge, xn.perceptron)]
    runs: list[Any] = [(type(a).__name__, a, xn.Adam(), xn.cross_entropy, labels) for a in activations]
    runs += [(str(rule), xn.ReLU(), rule, xn.cross_entropy, labels) for rule in optimizers]
    runs += [(loss.__name__, xn.ReLU(), xn.Adam(), loss, target) for loss, target in losses]
    for name, activation, rule, loss, target in runs:
        last = (xn.Softmax(),) if loss is xn.negative_log_likelihood else ()
        model = xn.Model(xn.Sequential(*small_net(activation).layers, *last), loss, rule, backend="cupy")
        if why := refusal(model, x, target):
            refused[name] = why
    return {"captured": len(runs) - len(refused), "refused": refused, "wrong": sorted(refused)}


def refusal(model: xn.Model, x: np.ndarray, target: np.ndarray) -> str:
    """Train for three epochs; return why there is no graph, nothing if there is one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        model.fit(x, target, 3, 16, progress=False)
    run: Any = model.step.run
    return run.refused or ("" if run.nodes_per_step else "no graph was made")


def replays() -> Figures:
    """fit(epochs=1) again and again, as the benchmark does, comes to plain launches of one graph."""
    backend, found = xn.backend("cupy"), {}
    x, y = map(backend.asarray, small_data(128))
    for dtype in ("int32", "uint8"):
        labels = backend.xp.astype(y, getattr(backend.xp, dtype))
        model = xn.Model(small_net(xn.ReLU()), xn.cross_entropy, xn.Adam(), backend=backend)
        kinds = [mock.patch.object(Graph, name, autospec=True, side_effect=getattr(Graph, name)) for name in KINDS]
        with kinds[0] as warm_up, kinds[1] as capture, kinds[2] as call:
            for _ in range(5):
                model.fit(x, labels, 1, 16, progress=False)
        found[dtype] = [warm_up.call_count, capture.call_count, call.call_count]
    wrong = [f"{dtype} labels: {counts}, not [1, 1, 5]" for dtype, counts in found.items() if counts != [1, 1, 5]]
    return {"warm-ups, captures, calls": found, "wrong": wrong}


KINDS = ("warm_up", "capture", "__call__")


def bits() -> Figures:
    """Three runs of one training, each with graphs of its own, give the same bits."""
    from xpnet.selfcheck import training

    first, *others = (training.trained(training.model(xn.backend("cupy")), 6)[0] for _ in range(3))
    same = [bool(np.array_equal(first, other)) for other in others]
    return {"same": same, "wrong": [] if all(same) else ["two runs differ"]}


def memory() -> Figures:
    """Fits on data that are uploaded anew leave nothing behind."""
    rng, backend = np.random.default_rng(0), xn.backend("cupy")
    x, y = rng.integers(0, 256, (512, 784)).astype("uint8"), rng.integers(0, 10, 512).astype("int32")
    layers = xn.Sequential(xn.Scale(1 / 255), xn.Linear(784, 128), xn.ReLU(), xn.Linear(128, 10))
    model = xn.Model(layers, xn.cross_entropy, xn.Adam(), backend=backend)
    used = []
    for _ in range(8):
        model.fit(x, y, 2, 64, progress=False)
        used.append(int(backend.cupy.get_default_memory_pool().used_bytes()))
    growth = [later - earlier for earlier, later in pairwise(used)]
    wrong = [f"{sum(growth[3:])} bytes more in the last four fits"] if sum(growth[3:]) > 0 else []
    return {"bytes more with each fit": growth, "held": backend.memory(), "wrong": wrong}


def clock() -> Figures:
    """Epochs of MNIST: the first, captured, launched; and step by step."""
    (images, labels), _ = xn.datasets.mnist()
    backend, found = xn.backend("cupy"), {}
    x, y = backend.asarray(images), backend.asarray(labels.astype("int32"))
    for precision in ("float32", "tf32"):
        one = backend.with_matmul(precision)
        layers = xn.Flatten(), xn.Scale(1 / 255), xn.Linear(784, 128, initializer="he"), xn.ReLU(), xn.Linear(128, 10)
        model = xn.Model(xn.Sequential(*layers), xn.cross_entropy, xn.Adam(1e-3), backend=one)
        found[f"{precision}: seconds of an epoch"] = [timed(model, x, y) for _ in range(8)]
        found[f"{precision}: nodes per step"] = model.step.run.nodes_per_step
        model.step = replace(model.step, compiled=Backend.compile(one, model.step.one))
        found[f"{precision}: seconds step by step"] = timed(model, x, y)
        found[f"{precision}: accuracy"] = float(np.mean(model.predict(images).argmax(axis=1) == labels))
    return found


def timed(model: xn.Model, x: Any, y: Any) -> float:
    """Train for an epoch; return the seconds."""
    begun = time.perf_counter()
    model.fit(x, y, 1, 128, progress=False)
    return round(time.perf_counter() - begun, 4)


# Products


class Tried(NamedTuple):
    """One epilogue, tried: `error` is in units of the largest number; None if cuBLASLt has no algorithm."""

    epilogue: str
    precision: str
    dtype: str
    sizes: tuple[int, int, int]
    aligned: int
    """Bytes to which weight and bias are."""
    error: float | None

    @property
    def state(self) -> str:
        """`right`, `wrong` or `none`."""
        if self.error is None:
            return "none"
        return "right" if self.error < ALLOWED[self.precision, self.dtype] else "wrong"

    @property
    def kind(self) -> str:
        """What was asked for, without sizes and alignment."""
        return f"{self.epilogue}, {self.dtype if self.precision == 'float32' else self.precision}"


class Trial:
    """Products of one kind and size whose weight and bias lie some numbers behind a boundary."""

    def __init__(self, products: Products, dtype: str, sizes: tuple[int, int, int], offset: int) -> None:
        self.products, self.cupy, self.dtype, self.offset = products, products.cupy, dtype, offset
        n, i, o = sizes
        rng = np.random.default_rng(0)
        shapes = ((n, i), (i, o), (o,), (n, o))
        self.x, self.w, self.b, self.dy = (rng.normal(size=s).astype(dtype) for s in shapes)

    def window(self, host: np.ndarray, offset: int | None = None) -> Any:
        """Return a copy on the device, as far behind a boundary as a window of θ may lie."""
        offset = self.offset if offset is None else offset
        flat = self.cupy.zeros(host.size + offset, dtype=self.dtype)
        view = flat[offset:].reshape(host.shape)
        view[...] = self.cupy.asarray(host)
        return view

    def off(self, *pairs: tuple[Any, np.ndarray]) -> float | None:
        """Return the largest error of arrays that were made; None if cuBLASLt made none."""
        if pairs[0][0] is None:
            return None
        errors = [0.0]
        for made, wanted in pairs:
            error = np.max(np.abs(self.cupy.asnumpy(made) - wanted), initial=0.0)
            errors.append(float(error / (np.max(np.abs(wanted), initial=0.0) or 1.0)))
        return float("inf") if np.isnan(errors).any() else max(errors)

    def __iter__(self) -> Iterator[tuple[int, float | None]]:
        """Yield each epilogue and its error, forward and backward."""
        multiply, x, w, b = self.products.multiply, self.window(self.x, 0), self.window(self.w), self.window(self.b)
        product = self.x.astype(np.float64) @ self.w
        yield lt.EPILOGUE_DEFAULT, self.off((multiply(x, w), product))
        yield lt.EPILOGUE_BIAS, self.off((multiply(x, w, None, lt.EPILOGUE_BIAS, b), product + self.b))
        y = multiply(x, w, None, lt.EPILOGUE_RELU_BIAS, b)
        yield lt.EPILOGUE_RELU_BIAS, self.off((y, np.maximum(product + self.b, 0)))
        dw, db = self.window(0 * self.w), self.window(0 * self.b)
        dy = self.dy.astype(np.float64)
        made = multiply(x.T, self.window(self.dy, 0), dw, lt.EPILOGUE_BGRADA, db)
        yield lt.EPILOGUE_BGRADA, self.off((made, self.x.T @ dy), (db, dy.sum(axis=0)))


def try_all(cupy: Any) -> Iterator[Tried]:
    """Try every epilogue at every size and alignment, in every precision."""
    for precision, dtype in ALLOWED:
        products = Products(cupy, precision)
        for sizes in SIZES:
            for offset in OFFSETS:
                aligned = alignment((offset * np.dtype(dtype).itemsize) or 256)
                for epilogue, error in Trial(products, dtype, sizes, offset):
                    yield Tried(NAMES[epilogue], precision, dtype, sizes, aligned, error)


def verdict(tried: Sequence[Tried]) -> str:
    """Answer in words whether these epilogues are there and right."""
    kinds = {state: [one for one in tried if one.state == state] for state in ("right", "none", "wrong")}
    if not tried:
        return "not tried"
    says = f"{len(kinds['right'])} of {len(tried)} are right"
    if kinds["wrong"]:
        one = kinds["wrong"][0]
        where = f"{one.kind}, {'×'.join(map(str, one.sizes))}, aligned to {one.aligned} bytes, off by {one.error:.1e}"
        return f"NO, {len(kinds['wrong'])} give wrong numbers: {says}; the first wrong one: {where}"
    if kinds["none"]:
        lacking = ", ".join(dict.fromkeys(one.kind for one in kinds["none"]))
        return f"in part: {says}, for the others there is no algorithm, and xpnet does without ({lacking})"
    return f"yes: {says}"


def epilogues() -> Figures:
    """Which epilogues have an algorithm and are right, for windows at every alignment and for 10 columns."""
    tried = list(try_all(xn.backend("cupy").cupy))
    table = {}
    for kind in dict.fromkeys(one.kind for one in tried):
        own = [one for one in tried if one.kind == kind]
        counts = {state: sum(one.state == state for one in own) for state in ("right", "none", "wrong")}
        table[kind] = counts | {"worst": max((one.error for one in own if one.error is not None), default=None)}
        print(f"{kind:40} {table[kind]}")
    fused = [one for one in tried if one.epilogue != "plain"]
    answers = {UNALIGNED: verdict([one for one in fused if one.aligned < 16])}
    answers[TEN] = verdict([one for one in fused if one.sizes[2] == 10])
    return {"table": table, "answers": answers, "wrong": [one._asdict() for one in tried if one.state == "wrong"][:20]}


def nan() -> Figures:
    """What the ReLU epilogue makes of NaN; a training on NaN is refused whatever it makes."""
    cupy, kept = xn.backend("cupy").cupy, {}
    for precision, dtype in ALLOWED:
        for sizes in ((128, 784, 128), (5, 9, 7)):
            trial = Trial(Products(cupy, precision), dtype, sizes, 0)
            trial.x[3, 2] = np.nan
            x, w, b = trial.window(trial.x), trial.window(trial.w), trial.window(trial.b)
            y = trial.products.multiply(x, w, None, lt.EPILOGUE_RELU_BIAS, b)
            name = f"{dtype if precision == 'float32' else precision}, {'×'.join(map(str, sizes))}"
            kept[name] = ABSENT if y is None else nan_in_words(cupy.asnumpy(y)[3])
    refused = refuses_nan()
    return {
        "kept": kept,
        "training on NaN": refused or "no error",
        "answers": {NAN: f"{once(kept.values())}; a training on NaN ends with: {refused or 'NO ERROR'}"},
        "wrong": [] if refused else ["training on NaN went on"],
    }


def once(kept: Iterable[str]) -> str:
    """Say it once for all products that have the epilogue."""
    said = [text for text in dict.fromkeys(kept) if text != ABSENT]
    return ", elsewhere: ".join(said) or ABSENT


def nan_in_words(row: np.ndarray) -> str:
    """Say what became of a row that should be NaN."""
    lost = row[~np.isnan(row)]
    if not lost.size:
        return "yes, it stays NaN"
    return "no, it becomes 0" if not lost.any() else f"no, {lost.size} of {row.size} become numbers such as {lost[0]}"


def refuses_nan() -> str:
    """Train on data that hold NaN; return the error, nothing if there is none."""
    x, y = small_data(16)
    bad = x.astype("float32")
    bad[3, 2] = np.nan
    model = xn.Model(small_net(xn.ReLU()), xn.cross_entropy, xn.SGD(0.1), backend="cupy")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", xn.DataWarning)
            model.fit(bad, y, 1, 8, progress=False)
    except (xn.NonFiniteError, xn.DataError) as error:
        return str(error)[:160]
    return ""


# Under a sanitizer, and where the first wrong number is


def checks(*names: str) -> Figures:
    """Run some of the selfcheck's checks in which no graph is captured."""
    from xpnet.selfcheck import numbers

    backend, found = xn.backend("cupy"), {}
    with np.errstate(all="ignore"):
        for name in names:
            found[name] = getattr(numbers, name)(backend, True)
            print(name, found[name], flush=True)
    return found


def memcheck() -> Figures:
    """Kernels and products, every allocation one of the driver's own: a step over its edge is seen."""
    xn.backend("cupy").cupy.cuda.set_allocator(None)
    return checks("all_losses", "limits", "rules", "masks", "batches", "layers")


def racecheck() -> Figures:
    """The kernels whose threads share memory."""
    return checks("limits", "batches")


def numbers() -> Figures:
    """The first wrong number of a training, layer by layer, then step by step, then compiled."""
    return isolate.isolate(xn.backend("cupy"))


PROBES: dict[str, Callable[[], Figures]] = {
    one.__name__: one
    for one in (libraries, net, epilogues, nan, graphs, replays, bits, memory, clock, memcheck, racecheck, numbers)
}


def main(words: Sequence[str]) -> int:
    """Run a probe and print its figures; return the exit status."""
    if len(words) != 1 or words[0] not in PROBES:
        print(f"python -m benchmarks.probes takes one of {', '.join(PROBES)}, got {' '.join(words) or 'nothing'}")
        return 2
    warnings.simplefilter("error", RuntimeWarning)  # a graph that was refused
    figures = PROBES[words[0]]()
    print(MARK + json.dumps(figures, default=str, ensure_ascii=False), flush=True)
    return int(bool(figures.get("wrong")))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
