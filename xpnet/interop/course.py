"""How the estimators' training goes from epoch to epoch, as scikit-learn's: the rate, the best so far, when to stop."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet import Callback, History, Model
from xpnet.arrays import Array


@dataclass
class Rate:
    """η = lr, which a Course changes between epochs"""

    lr: float

    def __call__(self, step: int) -> float:
        return self.lr


def report(settings: Any, history: History, score: float | None = None) -> None:
    """Print how an iteration went, if `verbose` says so, in scikit-learn's words."""
    if settings.verbose:
        print(f"Iteration {len(history['loss'])}, loss = {history['loss'][-1]:.8f}", flush=True)
        if score is not None:
            print(f"Validation score: {score:f}", flush=True)


class Course(Callback):
    """Stop when the loss, or `score(model)` if given, has not got better by tol for more than n_iter_no_change epochs.

    invscaling: η = learning_rate_init / (t + 1)^power_t, t the samples seen so far. adaptive: η is cut to a fifth where
    training would be stopped, until it is 1e-6. With a score, the θ of the best is put back.
    """

    def __init__(self, settings: Any, lr: float, samples: int, score: Callable[[Model], float] | None = None) -> None:
        self.settings, self.rate, self.samples, self.score = settings, Rate(lr), samples, score
        self.kind = settings.learning_rate if settings.solver == "sgd" else "constant"
        self.t, self.waited, self.best, self.scores = 0, 0, -np.inf, list[float]()
        self.theta: Array | None = None

    def go_on(self, t: int, waited: int, best: float | None, theta: Array) -> None:
        """Begin where an earlier course has ended: at that θ, with what was best there."""
        self.t, self.waited = t, waited
        if best is not None:
            self.best, self.theta = best, None if self.score is None else theta

    @contextmanager
    def rates(self, model: Model) -> Iterator[None]:
        """Let the model train at rates that change, and keep the last."""
        if self.kind != "constant":
            model.adjust(lr=self.rate)
        try:
            yield
        finally:
            if self.kind != "constant":
                model.adjust(lr=self.rate.lr)

    def on_epoch_end(self, model: Model, history: History) -> bool:
        """Compare with the best so far, which is the largest, and set the next rate."""
        settings = self.settings
        value = -history["loss"][-1]
        if self.score is not None:
            value = self.score(model)
            self.scores.append(value)
        report(settings, history, None if self.score is None else value)
        self.waited = self.waited + 1 if value < self.best + settings.tol else 0
        if value > self.best:
            self.best, self.theta = value, None if self.score is None else model.theta
        self.t += self.samples
        if self.kind == "invscaling":
            self.rate.lr = float(settings.learning_rate_init / (self.t + 1.0) ** settings.power_t)
        if self.waited <= settings.n_iter_no_change:
            return False
        if self.kind == "adaptive" and self.rate.lr > 1e-6:
            self.rate.lr, self.waited = self.rate.lr / 5.0, 0
            return False
        what = "training loss" if self.score is None else "validation score"
        reason = f"did not get better by tol={settings.tol} for more than {settings.n_iter_no_change} epochs"
        history.stopped = f"the {what} {reason}"
        if settings.verbose:
            print(history.stopped, flush=True)
        return True

    def on_train_end(self, model: Model, history: History) -> None:
        """Put the best θ back."""
        if self.theta is not None:
            model.theta = self.theta
