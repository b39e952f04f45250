"""The training loop: epochs and calls of K steps, what they report, and where a run stands, so that it can go on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet import random
from xpnet.arrays import Array
from xpnet.data import batches
from xpnet.training.callbacks import Callback
from xpnet.training.history import History, Stopwatch
from xpnet.training.progress import Bar, Interrupt

if TYPE_CHECKING:
    from xpnet.model import Model


@dataclass
class Run:
    """A call of `fit` under way. With the model it is all that is needed to go on, to the same bits."""

    first: int
    """Epochs that were done before it."""
    until: int
    """Epochs that will be done after it."""
    batch_size: int
    data: str | None = None
    """The digest of the training data, where a checkpoint is kept."""
    position: int = 0
    """Samples of the current epoch that were trained on."""
    sums: list[float] = field(default_factory=list)
    """Of loss, gradient norm and metrics, over those samples."""
    seconds: float = 0.0
    """Spent on them."""
    history: History = field(default_factory=History)
    callbacks: list[dict[str, Any]] = field(default_factory=list)
    """What each callback needs to go on."""


def train(
    model: "Model",
    run: Run,
    x: Array,
    y: Array,
    held: tuple[Array, Array] | None,
    callbacks: Sequence[Callback],
    show: bool,
    keep: Callable[[bool], None],
) -> History:
    """Train until the last epoch, a callback's wish or Ctrl-C; `keep(now)` is called where the model can be saved."""
    history = run.history
    for k, callback in enumerate(callbacks):
        callback.on_train_begin(model)
        if run.callbacks:
            callback.restore(model, run.callbacks[k])
    with Interrupt() as interrupt:
        while model.epoch < run.until and not interrupt.asked:
            with Bar(x.shape[0], f"epoch {model.epoch - run.first + 1}/{run.until - run.first}", show) as bar:
                done = epoch(model, run, x, y, bar, interrupt, lambda: _note(run, callbacks, keep, False))
                if done and held is not None:
                    history.add(**{f"val_{key}": value for key, value in model.score(*held).items()})
                bar.conclude(history.last)
            stops = [
                type(callback).__name__ for callback in callbacks if done and callback.on_epoch_end(model, history)
            ]
            if stops:
                history.stopped = history.stopped or f"{stops[0]} asked for it"
                run.until = model.epoch
            _note(run, callbacks, keep, True)
        if interrupt.asked:
            history.stopped = "Ctrl-C"
    for callback in callbacks:
        callback.on_train_end(model, history)
    if model.epoch >= run.until:
        model.underway = None
        keep(True)
    return history


def _note(run: Run, callbacks: Sequence[Callback], keep: Callable[[bool], None], now: bool) -> None:
    run.callbacks = [callback.state() for callback in callbacks]
    keep(now)


def epoch(
    model: "Model", run: Run, x: Array, y: Array, bar: Bar, interrupt: Interrupt, note: Callable[[], None]
) -> bool:
    """Train over the rest of the epoch's samples; return whether it was finished, and add it to the history if so."""
    n, names = x.shape[0], ("loss", "gradient_norm", *model.metrics)
    order = random.permutation(model.seed, model.epoch, n)
    bar.advance(run.position, {})
    for block in batches.batches(order[run.position :], run.batch_size, model.net.size):
        with Stopwatch() as watch:
            results = model._steps(x, y, block)
        sums = np.asarray(run.sums or [0.0] * len(names)) + results.sum(axis=1) * block.shape[1]
        run.position, run.sums, run.seconds = run.position + block.size, sums.tolist(), run.seconds + watch.seconds
        means = dict(zip(names, (sums / run.position).tolist(), strict=True))
        bar.advance(block.size, means)
        if run.position < n:
            note()
            if interrupt.asked:
                return False
    model.epoch += 1
    rate = model.optimizer.rate(model.state.t - 1)
    weight, seconds = model.max_weight(), run.seconds
    run.history.add(epoch=model.epoch, **means, learning_rate=rate, max_weight=weight, seconds=seconds)
    run.position, run.sums, run.seconds = 0, [], 0.0
    return True
