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
from sklearn.utils.validation import check_is_fitted, validate_data

from xpnet import Backend, BackendError, DataWarning, History, Model, NonFiniteError
from xpnet import backend as find_backend
from xpnet.arrays import Array
from xpnet.files import checkpoint
from xpnet.interop import fitting
from xpnet.interop.admission import Admission, home, on_device
from xpnet.interop.course import Course
from xpnet.interop.objective import Objective, Penalized, mean_of, scaled
from xpnet.training import diagnosis

REMEDIES = {
    diagnosis.SLOWER: "lower learning_rate_init, or scale X and, if they are numbers, the targets with StandardScaler",
    diagnosis.TARGETS: "lower learning_rate_init, scale X and the targets with StandardScaler, or mend your own loss",
    "mend the schedule": "lower learning_rate_init, or alpha",
}
"""What `Model` says should be done, in the words of an estimator's settings."""


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


class Estimator(Admission):
    """A network between scikit-learn's fit and predict; a subclass says how targets become numbers and back."""

    model_: Model
    history_: History
    t_: int
    loss_curve_: list[float]
    best_loss_: float | None
    validation_scores_: list[float] | None
    best_validation_score_: float | None

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
            backend, *train = self._admit(X, y, sample_weight, reset=not again)
            if again:
                self._check_again(backend.asnumpy(train[1]))
            held = None
            if X_val is not None:
                _, *held = self._admit(X_val, y_val, None, reset=False)
            elif self.early_stopping:
                train, held = self._split(backend, *train)
            model = self._build(backend, train, self.model_ if again else None)
            return self._train(model, self.max_iter, train, held, again)

    def _partial_fit(self, X: Any, y: Any, sample_weight: Any, reset: bool = True) -> Self:
        """Train for one epoch, and go on from there the next time; `reset` lets the first y say what targets are."""
        self._check_settings()
        if self.early_stopping:
            raise ValueError(
                "partial_fit does not support early_stopping=True: it holds no validation set out, use fit"
            )
        with all_or_nothing(self):
            again = hasattr(self, "model_")
            backend, *train = self._admit(X, y, sample_weight, reset=not again, reset_y=not again and reset)
            if again and isinstance(step := self.model_.step, Penalized):
                self.model_.step = step.decay(self._decay(step.objective.batch, train[2]))
            model = self.model_ if again else self._build(backend, train)
            return self._train(model, 1, train, None, again, partial=True)

    def _split(self, backend: Backend, x: Array, target: Array, weights: Any) -> tuple[list[Any], list[Any]]:
        """Return training and validation parts, drawn as scikit-learn draws them."""
        n, seed, strata = x.shape[0], check_random_state(self.random_state), self._strata(backend.asnumpy(target))
        parts = train_test_split(np.arange(n), random_state=seed, test_size=self.validation_fraction, stratify=strata)
        if len(parts[1]) < 2:
            raise ValueError("The validation set is too small: increase validation_fraction or the number of samples")
        xp, rows = backend.xp, [backend.asarray(part.astype(np.int32)) for part in parts]
        both = [
            [xp.take(x, row, axis=0), xp.take(target, row, axis=0), None if weights is None else weights[part]]
            for row, part in zip(rows, parts, strict=True)
        ]
        return both[0], both[1]

    def _decay(self, batch: int, weights: np.ndarray | None) -> float:
        """Return λ, with which ½ λ ‖W‖² is scikit-learn's L2 penalty of a batch: α / Σ w, its weights being average."""
        decay, most = self.alpha / mean_of(weights) / batch, float(np.finfo(self.dtype).max) ** 0.5
        if decay > most:
            raise ValueError(
                f"alpha / the sum of a batch's sample_weight is {decay:.3g}, at most {most:.3g} is possible in "
                f"{self.dtype}: scale sample_weight to a mean of 1"
            )
        return float(decay)

    def _build(self, backend: Backend, train: list[Any], old: Model | None = None) -> Model:
        """Return a new model for these data, at the old one's θ if there is one."""
        n, features = train[0].shape
        batch, seed = self._batch(n), int(check_random_state(self.random_state).randint(2**31 - 1))
        net = fitting.network([features, *self._sizes(), self.n_outputs_], self.activation, self.dropout)
        optimizer = fitting.optimizer(self, self._decay(batch, train[2]))
        step = Penalized(net, replace(self._objective(), batch=batch), optimizer, {}, seed, backend, self.dtype)
        theta = fitting.start(net, seed, factor=2.0 if self.activation == "logistic" else 6.0)
        model = Model.of(step, step.start(backend.asarray(theta, dtype=self.dtype)))
        if old is not None:
            model.theta = backend.asarray(old.backend.asnumpy(old.theta), dtype=self.dtype)
        return model

    def _train(
        self, model: Model, epochs: int, train: list[Any], held: list[Any] | None, again: bool, partial: bool = False
    ) -> Self:
        """Train the model and keep what scikit-learn's users look for afterwards; `again` goes on with the counts."""
        (x, target, weights), validation = train, None
        score: Callable[[Model], float] | None = None
        if held is not None:
            validation = tuple(part for part in (*held[:2], scaled(held[2])) if part is not None)
            if self.early_stopping:
                true = model.backend.asnumpy(held[1])

                def score(model: Model) -> float:
                    return self._score(home(model.predict(held[0])), true, held[2])

        course = Course(self, model.optimizer.rate(0), x.shape[0], score)
        if again:
            best = self.best_validation_score_ if score else self.best_loss_ and -self.best_loss_
            course.go_on(self.t_, self._waited, best, model.theta)
        with warnings.catch_warnings(), course.rates(model):  # a Scale layer is not for this user to add
            warnings.filterwarnings("ignore", "input holds raw bytes", DataWarning)
            try:
                history = model.fit(
                    x,
                    target,
                    epochs,
                    self._batch(x.shape[0]),
                    validation,
                    [*self.callbacks, course],
                    progress=bool(self.verbose),
                    sample_weight=scaled(weights),
                )
            except NonFiniteError as error:
                raise _translated(error) from None
        if not history:
            raise KeyboardInterrupt("Ctrl-C in the first epoch")
        self._remember(model, history, course, again, partial)
        if history.stopped is None and not partial:
            text = f"max_iter={epochs} epochs are over and training has not converged: raise max_iter or tol"
            warnings.warn(text, ConvergenceWarning, stacklevel=3)
        return self

    def _remember(self, model: Model, history: History, course: Course, again: bool, partial: bool) -> None:
        """Put the outcome in place."""
        losses, scores = (self.loss_curve_, self.validation_scores_ or []) if again else ([], [])
        self.model_, self.history_ = model, _joined(self.history_, history) if again and partial else history
        self.n_iter_, self.t_, self._waited = len(history["epoch"]), course.t, course.waited
        self.loss_curve_ = [*losses, *history["loss"]]
        self.loss_ = self.loss_curve_[-1]
        self.n_layers_ = len(self.coefs_) + 1
        early = course.score is not None
        self.best_loss_ = None if early else -course.best
        self.validation_scores_ = [*scores, *course.scores] if early else None
        self.best_validation_score_ = course.best if early else None

    # After training

    @property
    def coefs_(self) -> list[Array]:
        """The weight matrices, (inputs, outputs), on the model's device."""
        return [w for name, w in self._windows().items() if name.endswith("weight")]

    @property
    def intercepts_(self) -> list[Array]:
        """The biases, on the model's device."""
        return [b for name, b in self._windows().items() if name.endswith("bias")]

    def _windows(self) -> dict[str, Array]:
        if "model_" not in vars(self):
            raise AttributeError(f"this {type(self).__name__} has no weights yet: call fit first")
        return self.model_.net.windows(self.model_.theta)

    def _outputs(self, X: Any) -> Array:
        """Return the network's output: on the device for a device array, else on the host."""
        check_is_fitted(self)
        if on_device(X):
            self._check_on_device(X, reset=False)
        else:
            X = validate_data(self, X, dtype=self.dtype, reset=False)
        return self.model_.predict(X)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickle and copy, the model's arrays on the host."""
        state = dict(super().__getstate__())
        if "model_" in state:
            state["model_"] = host = state["model_"].__getstate__()
            host["step"]["backend"] = host["step"]["backend"].spec  # by name, for a place where it may be missing
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Put the model back where it was; if no backend was asked for and that one is not here, on the usual one."""
        super().__setstate__(state)
        if "model_" in state:
            try:
                found = checkpoint.from_host(state["model_"], self._backend(None) if self.backend else None)
            except BackendError:
                if self.backend:
                    raise
                found = checkpoint.from_host(state["model_"], find_backend())
            self.model_ = Model.of(*found)


def _translated(error: NonFiniteError) -> NonFiniteError:
    """Return the error with a remedy that an estimator has."""
    what, mark, remedy = str(error).rpartition("theta is as it was before: ")
    return NonFiniteError(what + mark + REMEDIES.get(remedy, remedy))


def _joined(old: History, new: History) -> History:
    """Return one history after the other."""
    return History({name: [*old.get(name, []), *values] for name, values in new.items()})
