"""What both scikit-learn estimators share: training, what is left of it, pickling."""

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state

from xpnet import Backend, History, Model, NonFiniteError
from xpnet.data import scan
from xpnet.interop import fitting, lbfgs
from xpnet.interop.admission import home
from xpnet.interop.course import Course
from xpnet.interop.fitted import Fitted
from xpnet.interop.given import Given, predict
from xpnet.interop.objective import Objective, Penalized, mean_of
from xpnet.training import diagnosis

REMEDIES = {
    diagnosis.SLOWER: "lower learning_rate_init, or scale X and, if they are numbers, the targets with StandardScaler",
    diagnosis.TARGETS: "lower learning_rate_init, scale X and the targets with StandardScaler, or mend your own loss",
    "mend the schedule": "lower learning_rate_init, or alpha",
}
"""What `Model` says should be done, in the words of an estimator's settings."""
ADVICE = "input holds raw bytes"
"""How the advice begins to add a Scale layer, which is not for this user to add."""


@contextmanager
def all_or_nothing(estimator: Any) -> Iterator[None]:
    """Let what is done to an estimator be done whole: after an error or Ctrl-C it is as it was."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


class Estimator(Fitted):
    """A network between scikit-learn's fit and predict; a subclass says how targets become numbers and back."""

    # What a subclass must say

    @abstractmethod
    def _objective(self) -> Objective:
        """Return the loss."""

    @abstractmethod
    def _score(self, prediction: np.ndarray, target: np.ndarray, weights: np.ndarray | None) -> float:
        """Return how good the network's output is, the larger the better."""

    def _check_again(self, target: np.ndarray) -> None:
        """Raise ValueError for encoded targets on which a warm start cannot go on."""

    def _strata(self, target: np.ndarray) -> np.ndarray | None:
        """Return what the validation set should hold as large a share of as the training set; None for nothing."""
        return None

    # Training

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, X_val: Any = None, y_val: Any = None) -> Self:
        """Train on X (N, n_features) and y; a validation set, if given, shows in `history_` and in early stopping.

        If training fails, or Ctrl-C comes before the end of an epoch, the estimator is what it was before.
        """
        self._check_settings()
        with all_or_nothing(self):
            again = bool(self.warm_start and hasattr(self, "model_"))
            backend, given = self._admit(X, y, sample_weight, reset=not again)
            if again:
                self._check_again(home(given.target))
            held = None
            if X_val is not None:
                _, held = self._admit(X_val, y_val, None, reset=False)
            elif self.early_stopping and self.solver != "lbfgs":
                given, held = self._split(backend, given)
            model = self._build(backend, given, self.model_ if again else None)
            train = self._minimize if self.solver == "lbfgs" else self._train
            return train(model, given, held, again)

    def _partial_fit(self, X: Any, y: Any, sample_weight: Any, reset: bool = True) -> Self:
        """Train for one epoch, and go on from there the next time; `reset` lets the first y say what targets are."""
        self._check_settings()
        if self.early_stopping:
            raise ValueError(
                "partial_fit does not support early_stopping=True: it holds no validation set out, use fit"
            )
        with all_or_nothing(self):
            again = hasattr(self, "model_")
            backend, given = self._admit(X, y, sample_weight, reset=not again, reset_y=not again and reset)
            if again and isinstance(step := self.model_.step, Penalized):
                self.model_.step = step.decay(self._decay(step.objective.batch, given.weights))
            model = self.model_ if again else self._build(backend, given)
            return self._train(model, given, None, again, partial=True)

    def _split(self, backend: Backend, given: Given) -> tuple[Given, Given]:
        """Return training and validation parts, drawn as scikit-learn draws them."""
        seed, strata = check_random_state(self.random_state), self._strata(home(given.target))
        rows = np.arange(len(given))
        parts = train_test_split(rows, random_state=seed, test_size=self.validation_fraction, stratify=strata)
        if len(parts[1]) < 2:
            raise ValueError("The validation set is too small: increase validation_fraction or the number of samples")
        return given.some(parts[0], backend), given.some(parts[1], backend)

    def _decay(self, batch: int, weights: np.ndarray | None) -> float:
        """Return λ, with which ½ λ ‖W‖² is scikit-learn's L2 penalty of a batch: α / Σ w, its weights being average."""
        decay, most = self.alpha / mean_of(weights) / batch, float(np.finfo(self._dtype).max) ** 0.5
        if decay > most:
            raise ValueError(
                f"alpha / the sum of a batch's sample_weight is {decay:.3g}, at most {most:.3g} is possible in "
                f"{self._dtype}: scale sample_weight to a mean of 1"
            )
        return float(decay)

    def _build(self, backend: Backend, given: Given, old: Model | None = None) -> Model:
        """Return a new model for these data, at the old one's θ if there is one."""
        n, features = given.x.shape
        batch = n if self.solver == "lbfgs" else self._batch(n)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        net = fitting.network([features, *self._sizes(), self.n_outputs_], self.activation, self.dropout)
        optimizer = fitting.optimizer(self, self._decay(batch, given.weights))
        step = Penalized(net, replace(self._objective(), batch=batch), optimizer, {}, seed, backend, self._dtype)
        theta = fitting.start(net, seed, factor=2.0 if self.activation == "logistic" else 6.0)
        model = Model.of(step, step.start(backend.asarray(theta, dtype=self._dtype)))
        if old is not None:
            model.theta = backend.asarray(old.backend.asnumpy(old.theta), dtype=self._dtype)
        return model

    def _train(self, model: Model, given: Given, held: Given | None, again: bool, partial: bool = False) -> Self:
        """Train the model and keep what scikit-learn's users look for afterwards; `again` goes on with the counts."""
        epochs, batch = 1 if partial else self.max_iter, self._batch(len(given))
        course = Course(self, model.optimizer.rate(0), len(given), self._scorer(held) if self.early_stopping else None)
        if again:
            best = self.best_validation_score_ if course.score else self.best_loss_ and -self.best_loss_
            course.go_on(self.t_, self._waited, best, model.theta)
        x, y, weights = given.arguments if self.shuffle else (given.in_order(batch), None, None)
        validation, called = None if held is None else held.validation, [*self.callbacks, course]
        with scan.unsaid(ADVICE), course.rates(model):
            try:
                history = model.fit(x, y, epochs, batch, validation, called, progress=False, sample_weight=weights)
            except NonFiniteError as error:
                raise _translated(error) from None
        if not history:
            raise KeyboardInterrupt("Ctrl-C in the first epoch")
        early = course.score is not None
        scores = [*(self.validation_scores_ or [] if again else []), *course.scores] if early else None
        self._remember(model, _joined(self.history_, history) if again and partial else history, history["loss"], again)
        self.loss_ = self.loss_curve_[-1]
        self.n_iter_, self.t_, self._waited = len(history["epoch"]), course.t, course.waited
        self.best_loss_, self.validation_scores_ = None if early else -course.best, scores
        self.best_validation_score_ = course.best if early else None
        if history.stopped is None and not partial:
            text = f"max_iter={epochs} epochs are over and training has not converged: raise max_iter or tol"
            warnings.warn(text, ConvergenceWarning, stacklevel=3)
        return self

    def _minimize(self, model: Model, given: Given, held: Given | None, again: bool) -> Self:
        """Let L-BFGS find θ, and keep the same."""
        decay = self._decay(len(given), given.weights)
        with scan.unsaid(ADVICE):
            history, iterations, loss = lbfgs.minimize(self, model, given, held, decay)
        self._remember(model, history, history.get("loss", []), again)
        self.n_iter_, self.t_, self._waited, self.loss_ = iterations, self.t_ if again else 0, 0, loss
        self.best_loss_, self.validation_scores_ = min([*self.loss_curve_, loss]), None
        self.best_validation_score_ = None
        return self

    def _scorer(self, held: Given | None) -> Callable[[Model], float] | None:
        """Return what judges a model on held samples, if there are any."""
        if held is None:
            return None
        true = home(held.target)
        return lambda model: self._score(home(predict(model, held.x)), true, held.weights)

    def _remember(self, model: Model, history: History, losses: list[float], again: bool) -> None:
        """Put what both ways of training leave in place."""
        self.model_, self.history_ = model, history
        self.loss_curve_ = [*(self.loss_curve_ if again else []), *losses]
        self.n_layers_ = len(self.coefs_) + 1


def _translated(error: NonFiniteError) -> NonFiniteError:
    """Return the error with a remedy that an estimator has."""
    what, mark, remedy = str(error).rpartition("theta is as it was before: ")
    return NonFiniteError(what + mark + REMEDIES.get(remedy, remedy))


def _joined(old: History, new: History) -> History:
    """Return one history after the other."""
    return History({name: [*old.get(name, []), *values] for name, values in new.items()})
