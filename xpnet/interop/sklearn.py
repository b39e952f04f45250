"""Multi-layer perceptrons as scikit-learn estimators, on any backend: `pip install xpnet[sklearn]`.

    from xpnet.interop.sklearn import MLPClassifier

    search = GridSearchCV(make_pipeline(StandardScaler(), MLPClassifier()), {"mlpclassifier__alpha": [1e-4, 1e-2]})
    MLPClassifier((512, 256), dropout=0.2, backend="cupy").fit(X, y)

Names and meanings are those of `sklearn.neural_network`. What those have not: `backend`, `device`, `dropout`, `loss` as
a function, an activation (name or layer) for each hidden layer, `callbacks`, class weights, a validation set of one's
own (`fit(X, y, X_val=…, y_val=…)`), and `history_`, with `val_loss`. Arrays of CuPy, PyTorch or JAX stay on their
device, and predictions are born there; only class labels come home, to be sorted, and in early stopping the predictions
that are scored.

    what                        scikit-learn                            here
    precision                   that of X                               `dtype`: float32, or float64
    solver                      adam, sgd, lbfgs                        adam, sgd; for L-BFGS: `Model.objective`
    initial weights, biases     Glorot's bound                          the same; other numbers for a seed
    shuffle                     True or False                           always
    alpha, last short batch     ½ α ‖W‖² / size of that batch           ½ α ‖W‖² / batch_size
    loss_, loss_curve_          with the L2 penalty                     without
    loss_ of many outputs       the mean over them                      the sum; the gradient is the same
    momentum, varying rate      v ← μ v − η g;  θ ← θ + v               v ← μ v + g;  θ ← θ − η v, as in PyTorch
    Adam's epsilon              added to √v                             added to √v̂, as in the paper
    loss                        poisson too                             squared_error, absolute_error, huber, a function
    sparse X                    accepted                                refused: use X.toarray()
    max_fun                     for lbfgs                               not there
    a batch_size above N        warns                                   is N
"""

from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from xpnet import losses
from xpnet.arrays import Array, exp_shifted, namespace, sigmoid
from xpnet.backends import backend_of
from xpnet.interop.estimator import Estimator, home, on_device
from xpnet.interop.fitting import LOSSES, Objective


class MLPClassifier(ClassifierMixin, Estimator):  # type: ignore[misc]
    """A network that tells classes apart, of any labels; or, for a 0/1 matrix y (N, L), which of L labels apply.

    `loss` is "log_loss" or a function (scores, labels) -> (value, gradient): scores (N, C) and labels 0..C−1, or for a
    matrix y two of its shape.
    """

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 1e-4,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 1e-3,
        power_t: float = 0.5,
        max_iter: int = 200,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        loss: Any = "log_loss",
        class_weight: Any = None,
        dropout: Any = 0.0,
        callbacks: Any = (),
        backend: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
    ) -> None:
        self._keep(locals())

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train for one epoch on some of the data; the first call needs all `classes`."""
        if not hasattr(self, "classes_"):
            if classes is None:
                raise ValueError("classes must be passed on the first call to partial_fit")
            self.classes_ = np.unique(np.asarray(home(classes)))
        elif classes is not None and not np.array_equal(np.unique(np.asarray(home(classes))), self.classes_):
            raise ValueError(f"classes must be those of the first call to partial_fit, {self.classes_}, got {classes}")
        return self._partial_fit(X, y, sample_weight, reset=False)

    def predict(self, X: Any) -> Array:
        """Return the class of each sample; on the device for a device array, unless classes are no numbers."""
        chosen = self._decide(self._outputs(X))
        if self.multilabel_:
            return chosen
        if on_device(chosen) and self.classes_.dtype.kind in "biuf":
            backend = backend_of(chosen)
            return backend.xp.take(backend.asarray(self.classes_), chosen)
        return self.classes_[home(chosen)]

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class (N, C), or of each label (N, L)."""
        scores = self._outputs(X)
        xp = namespace(scores=scores)
        if scores.shape[1] > 1 and not self.multilabel_:
            _, exp, total = exp_shifted(xp, scores)
            return exp / total
        p = sigmoid(xp, scores)
        return p if self.multilabel_ else xp.concat([1.0 - p, p], axis=1)

    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithm of `predict_proba`."""
        p = self.predict_proba(X)
        xp = namespace(p=p)
        return xp.log(xp.maximum(p, float(xp.finfo(p.dtype).smallest_normal)))

    def _decide(self, scores: Array) -> Array:
        """Return class numbers (N,), or for a matrix of labels its 0s and 1s."""
        xp = namespace(scores=scores)
        if scores.shape[1] > 1 and not self.multilabel_:
            return xp.argmax(scores, axis=1)
        chosen = xp.astype(scores > 0, xp.int64)
        return chosen if self.multilabel_ else chosen[:, 0]

    def _score(self, prediction: np.ndarray, target: np.ndarray, weights: np.ndarray | None) -> float:
        true = target if self.multilabel_ else target.reshape(-1)
        return float(accuracy_score(true, self._decide(prediction), sample_weight=weights))

    @property
    def _binary(self) -> bool:
        """Whether one score is enough."""
        return self.loss == "log_loss" and self.classes_.size == 2 and not self.multilabel_

    def _encode(self, y: Any, reset: bool) -> np.ndarray:
        y = home(y)
        check_classification_targets(y)
        kind = type_of_target(y)
        if kind == "multiclass-multioutput":
            raise ValueError(f"y must be labels (N,) or a 0/1 matrix (N, L), got {kind} of the shape {y.shape}")
        self.multilabel_ = kind == "multilabel-indicator"
        came = np.arange(y.shape[1]) if self.multilabel_ else np.unique(y)
        if reset:
            self.classes_ = came
        new = came[~np.isin(came, self.classes_)]
        if new.size:
            raise ValueError(f"y has the classes {new}, which are not among those of the first call, {self.classes_}")
        if self.multilabel_:
            return np.asarray(y, dtype=self.dtype)
        if self.classes_.size < 2:
            raise ValueError(f"MLPClassifier needs at least 2 classes, got 1 class: {self.classes_[0]!r}")
        labels = np.searchsorted(self.classes_, y).astype(np.int32)
        return np.asarray(labels[:, None], dtype=self.dtype) if self._binary else labels

    def _objective(self) -> Objective:
        if self.loss != "log_loss" and not callable(self.loss):
            raise ValueError(f'loss must be "log_loss" or a function, got {self.loss!r}')
        count = self.classes_.size
        self.n_outputs_ = 1 if self._binary else count
        self.out_activation_ = "logistic" if self._binary or self.multilabel_ else "softmax"
        if callable(self.loss):
            return Objective(self.loss, count if self.multilabel_ else 0)
        if self.out_activation_ == "softmax":
            return Objective(losses.cross_entropy, 0)
        return Objective(losses.binary_cross_entropy, self.n_outputs_, factor=self.n_outputs_)

    def _weights(self, y: Any, sample_weight: Any) -> np.ndarray | None:
        weights = super()._weights(y, sample_weight)
        if self.class_weight is None:
            return weights
        balance = compute_sample_weight(self.class_weight, home(y))
        return np.asarray(balance if weights is None else balance * weights)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MLPRegressor(RegressorMixin, Estimator):  # type: ignore[misc]
    """A network that predicts one number a sample, or for y (N, O) several.

    `loss` is "squared_error" (½ e²), "absolute_error", "huber", or a function of prediction and target.
    """

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 1e-4,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 1e-3,
        power_t: float = 0.5,
        max_iter: int = 200,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        loss: Any = "squared_error",
        dropout: Any = 0.0,
        callbacks: Any = (),
        backend: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
    ) -> None:
        self._keep(locals())

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one epoch on some of the data."""
        return self._partial_fit(X, y, sample_weight)

    def predict(self, X: Any) -> Array:
        """Return the prediction, (N,) or (N, O); on the device for a device array."""
        values = self._outputs(X)
        return values[:, 0] if self._flat else values

    def _score(self, prediction: np.ndarray, target: np.ndarray, weights: np.ndarray | None) -> float:
        return float(r2_score(target, prediction, sample_weight=weights))

    def _encode(self, y: Any, reset: bool) -> Array:
        if reset:
            self._flat, self.n_outputs_ = y.ndim == 1, 1 if y.ndim == 1 else y.shape[1]
        if (1 if y.ndim == 1 else y.shape[1]) != self.n_outputs_:
            raise ValueError(f"y has the shape {tuple(y.shape)}, but the first call had {self.n_outputs_} outputs")
        xp = namespace(y=y)
        return xp.astype(xp.reshape(y, (-1, self.n_outputs_)), getattr(xp, self.dtype))

    def _objective(self) -> Objective:
        self.out_activation_ = "identity"
        if callable(self.loss):
            return Objective(self.loss, self.n_outputs_)
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)} or a function, got {self.loss!r}")
        half = 0.5 if self.loss == "squared_error" else 1.0
        return Objective(LOSSES[self.loss], self.n_outputs_, factor=half * self.n_outputs_)
