"""What both scikit-learn estimators share: checking settings and data, training, stopping, pickling."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, is_regressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, column_or_1d, validate_data

from xpnet import Backend, BackendError, DataWarning, History, Model
from xpnet import backend as find_backend
from xpnet.arrays import Array
from xpnet.backends import LIBRARIES, backend_of, library_of
from xpnet.data import door
from xpnet.files import checkpoint
from xpnet.interop import fitting

CHOICES = {
    "solver": ("adam", "sgd"),
    "learning_rate": ("constant", "invscaling", "adaptive"),
    "dtype": ("float32", "float64"),
}


def on_device(array: Any) -> bool:
    """Whether this is an array of a library other than NumPy, to be left where it is."""
    return library_of(array) in LIBRARIES and library_of(array) != "numpy"


def home(array: Any) -> Any:
    """Return a device array on the host, and all else as it is."""
    return backend_of(array).asnumpy(array) if on_device(array) else array


class Estimator(BaseEstimator, ABC):  # type: ignore[misc]
    """A network between scikit-learn's fit and predict; a subclass says how targets become numbers and back."""

    model_: Model
    history_: History
    n_outputs_: int

    def _keep(self, settings: dict[str, Any]) -> None:
        """Make each argument of `__init__` an attribute, untouched, as scikit-learn asks."""
        for name, value in settings.items():
            if name != "self":
                setattr(self, name, value)

    # What a subclass must say

    @abstractmethod
    def _encode(self, y: Any, reset: bool) -> Any:
        """Return targets as the loss takes them; `reset` forgets what earlier ones were like."""

    @abstractmethod
    def _objective(self) -> fitting.Objective:
        """Return the loss, and with it how many outputs the network has (`self.n_outputs_`)."""

    @abstractmethod
    def _score(self, prediction: np.ndarray, target: np.ndarray, weights: np.ndarray | None) -> float:
        """Return how good the network's output is, the larger the better."""

    def _weights(self, y: Any, sample_weight: Any) -> np.ndarray | None:
        """Return host weights (N,), or None if all samples weigh the same."""
        if sample_weight is None:
            return None
        rows = np.empty((y.shape[0], 1))
        return np.asarray(_check_sample_weight(home(sample_weight), rows, ensure_non_negative=True))

    # Training

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, X_val: Any = None, y_val: Any = None) -> Self:
        """Train on X (N, n_features) and y; a validation set, if given, shows in `history_` and in early stopping."""
        self._check_settings()
        again = self.warm_start and hasattr(self, "model_")
        backend, *train = self._admit(X, y, sample_weight, reset=not again)
        held = None
        if X_val is not None:
            _, *held = self._admit(X_val, y_val, None, reset=False)
        elif self.early_stopping:
            train, held = self._split(backend, *train)
        model = self._build(backend, train)
        if again:
            model.theta = backend.asarray(self.model_.backend.asnumpy(self.model_.theta))
        self.model_, self.history_, self.t_ = model, History(), 0
        return self._train(self.max_iter, train, held)

    def _partial_fit(self, X: Any, y: Any, sample_weight: Any, reset: bool = True) -> Self:
        """Train for one epoch, and go on from there the next time; `reset` lets the first y say what targets are."""
        self._check_settings()
        if self.early_stopping:
            raise ValueError("partial_fit holds no validation set out: early_stopping=True needs fit")
        first = not hasattr(self, "model_")
        backend, *train = self._admit(X, y, sample_weight, reset=first, reset_y=first and reset)
        if first:
            self.model_, self.history_, self.t_ = self._build(backend, train), History(), 0
        return self._train(1, train, None, partial=True)

    def _check_settings(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        for name in ("batch_size", "max_iter"):
            value = getattr(self, name)
            if (name, value) != ("batch_size", "auto") and not (isinstance(value, (int, np.integer)) and value > 0):
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction must lie between 0 and 1, got {self.validation_fraction!r}")
        if self.device is not None and self.backend is None:
            raise ValueError(f"device={self.device!r} needs its library too: backend='torch' for one")

    def _backend(self, X: Any) -> Backend:
        """Return the backend that was asked for; if none was, that of a device array."""
        if self.backend is None and on_device(X):
            return backend_of(X)
        return find_backend(f"{self.backend}:{self.device}" if self.device else self.backend)

    def _admit(self, X: Any, y: Any, sample_weight: Any, reset: bool, reset_y: bool | None = None) -> tuple[Any, ...]:
        """Return the backend, X and the encoded y on its device, and host weights or None; or ValueError."""
        backend = self._backend(X)
        if on_device(X):
            y = self._beside(X, y, reset)
        else:
            numbers = is_regressor(self)
            X, y = validate_data(self, X, home(y), dtype=self.dtype, multi_output=True, y_numeric=numbers, reset=reset)
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0] if on_device(y) else column_or_1d(y, warn=True)
        target = door.place("y", self._encode(y, reset if reset_y is None else reset_y), backend, self.dtype)
        return backend, door.place("X", X, backend, self.dtype), target, self._weights(y, sample_weight)

    def _beside(self, X: Array, y: Any, reset: bool) -> Any:
        """Check a device array X as scikit-learn checks host data, and return the y beside it."""
        self._check_on_device(X, reset)
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        y = y if on_device(y) else np.asarray(y)
        if y.shape[:1] != X.shape[:1]:
            raise ValueError(f"X has {X.shape[0]} samples, y has the shape {tuple(y.shape)}: they must be as many")
        return y

    def _check_on_device(self, X: Array, reset: bool) -> None:
        backend = backend_of(X)
        xp = backend.xp
        if X.ndim != 2 or X.shape[0] == 0:
            raise ValueError(f"X must be an array (N, features) of at least one sample, got {tuple(X.shape)}")
        if reset:
            self.n_features_in_ = X.shape[1]
        if X.shape[1] != self.n_features_in_:
            name, expected = type(self).__name__, self.n_features_in_
            raise ValueError(f"X has {X.shape[1]} features, but {name} is expecting {expected} features as input")
        if xp.isdtype(X.dtype, "real floating") and not backend.asnumpy(xp.all(xp.isfinite(X))):
            raise ValueError("Input X contains NaN or infinity: clean the data")

    def _split(self, backend: Backend, x: Array, target: Array, weights: Any) -> tuple[list[Any], list[Any]]:
        """Return training and validation parts, drawn as scikit-learn draws them: by class, if there are classes."""
        n, seed = x.shape[0], check_random_state(self.random_state)
        classes = backend.asnumpy(target).reshape(-1) if hasattr(self, "classes_") and target.size == n else None
        parts = train_test_split(np.arange(n), random_state=seed, test_size=self.validation_fraction, stratify=classes)
        if len(parts[1]) < 2:
            raise ValueError("the validation set is too small: increase validation_fraction or the number of samples")
        xp, rows = backend.xp, [backend.asarray(part.astype(np.int32)) for part in parts]
        both = [
            [xp.take(x, row, axis=0), xp.take(target, row, axis=0), None if weights is None else weights[part]]
            for row, part in zip(rows, parts, strict=True)
        ]
        return both[0], both[1]

    def _batch(self, n: int) -> int:
        return min(200 if self.batch_size == "auto" else int(self.batch_size), n)

    def _build(self, backend: Backend, train: list[Any]) -> Model:
        """Return a new model for these data."""
        (n, features), weights = train[0].shape, train[2]
        objective = self._objective()
        sizes = self.hidden_layer_sizes
        sizes = [int(size) for size in (sizes if np.iterable(sizes) else [sizes])]
        net = fitting.network([features, *sizes, self.n_outputs_], self.activation, self.dropout)
        mean = 1.0 if weights is None else float(weights.mean()) or 1.0
        optimizer = fitting.optimizer(self, n, self._batch(n), mean)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        model = Model(net, objective, optimizer, seed, backend, dtype=self.dtype)
        theta = fitting.start(net, seed, factor=2.0 if self.activation == "logistic" else 6.0)
        model.theta = model.backend.asarray(theta, dtype=self.dtype)
        return model

    def _train(self, epochs: int, train: list[Any], held: list[Any] | None, partial: bool = False) -> Self:
        """Train the model and keep what scikit-learn's users look for afterwards."""
        model, (x, target, weights), validation = self.model_, train, None
        score: Callable[[Model], float] | None = None
        if held is not None:
            validation = (held[0], fitting.pack(model.backend, held[1], held[2], self.dtype))
            if self.early_stopping:
                true = model.backend.asnumpy(held[1])

                def score(model: Model) -> float:
                    return self._score(home(model.predict(held[0])), true, held[2])

        rate = model.optimizer.lr if isinstance(model.optimizer.lr, fitting.adaptive) else None
        patience = fitting.Patience(self.tol, self.n_iter_no_change, rate, score)
        with warnings.catch_warnings():  # a Scale layer is not for this user to add
            warnings.filterwarnings("ignore", "input holds raw bytes", DataWarning)
            history = model.fit(
                x,
                fitting.pack(model.backend, target, weights, self.dtype),
                epochs,
                self._batch(x.shape[0]),
                validation,
                [*self.callbacks, *([] if partial else [patience])],
                progress=bool(self.verbose),
            )
        if not history:
            raise KeyboardInterrupt("Ctrl-C in the first epoch")
        for values in zip(*history.values(), strict=True):
            self.history_.add(**dict(zip(history, values, strict=True)))
        self._remember(history, patience, x.shape[0])
        if history.stopped is None and not partial:
            text = f"max_iter={epochs} epochs are over and training has not converged: raise max_iter or tol"
            warnings.warn(text, ConvergenceWarning, stacklevel=3)
        return self

    def _remember(self, history: History, patience: fitting.Patience, n: int) -> None:
        self.history_.stopped = history.stopped
        self.n_iter_ = len(history["epoch"])
        self.t_ += n * self.n_iter_
        self.loss_curve_ = list(self.history_["loss"])
        self.loss_, self.best_loss_ = self.loss_curve_[-1], min(self.loss_curve_)
        self.n_layers_ = len(self.coefs_) + 1
        if self.early_stopping:
            self.validation_scores_, self.best_validation_score_ = patience.scores, patience.best

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
