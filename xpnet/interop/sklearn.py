"""Multi-layer perceptrons as scikit-learn estimators, on any backend: `pip install xpnet[sklearn]`.

    from xpnet.interop.sklearn import MLPClassifier

    search = GridSearchCV(make_pipeline(StandardScaler(), MLPClassifier()), {"mlpclassifier__alpha": [1e-4, 1e-2]})
    MLPClassifier((512, 256), dropout=0.2, backend="cupy").fit(X, y)

Names and meanings are those of `sklearn.neural_network`. What those have not: `backend`, `device`, `dropout`, `loss` as
a function, an activation (name or layer) for each hidden layer, `callbacks`, class weights, a validation set of one's
own (`fit(X, y, X_val=…, y_val=…)`), and `history_`, with `val_loss`. Arrays of CuPy, PyTorch or JAX stay on their
device, and predictions are born there; only class labels come home, to be sorted, and in early stopping the predictions
that are scored.

    what                        scikit-learn 1.9                        here
    precision                   that of X                               `dtype`: float32, float64, or None: that of X
    initial weights, biases     Glorot's bound                          the same; other numbers for a seed
    alpha, sample weights       ½ α ‖W‖² / Σ w of the batch             ½ α ‖W‖² / (size of the batch · mean of all w)
    loss_curve_, weights        batches count by their samples          by the weights in them
    log loss where p < eps      that of eps                             exact
    predict_log_proba           −∞ where p is 0                         exact
    momentum, varying rate      v ← μ v − η g;  θ ← θ + v               v ← μ v + g;  θ ← θ − η v, as in PyTorch
    momentum = 1                accepted                                refused
    Adam's epsilon              added to √v                             added to √v̂, as in the paper
    loss                        squared_error, poisson                  absolute_error, huber, a function too
    lbfgs, several outputs      the loss is a mean over them, its       both are sums; `loss_` is shown as theirs
                                gradient a sum
    lbfgs                       no loss_curve_, best_loss_              after each iteration
    sparse X, lbfgs             at once                                 dense a batch at a time
    a single class              probabilities (N, 2)                    (N, 1): a column a class
    partial_fit, warm_start     each call needs all classes             those of the first call are enough
    coefs_, intercepts_         arrays that can be written into         a list or an item is assigned, read-only inside
    a batch_size above N        warns                                   is N
    a loss that is not finite   ValueError at the end, or none          NonFiniteError, at once
    a fit that fails            leaves some of it                       leaves the estimator as it was
    callbacks, dropout          not there                               with solver="adam" or "sgd"

`model_.save(path)` keeps the network; `xn.load(path, custom=[Objective])` reads it as a plain `Model`, which goes on
with the weight decay of a whole batch and reports its loss without it.
"""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import compute_class_weight, compute_sample_weight
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from xpnet import losses
from xpnet.arrays import Array, Namespace, exp_shifted, namespace, sigmoid
from xpnet.backends import backend_of
from xpnet.interop.admission import home, on_device
from xpnet.interop.estimator import Estimator, all_or_nothing
from xpnet.interop.objective import LOSSES, Objective, half_poisson_deviance

__all__ = ["MLPClassifier", "MLPRegressor", "Objective", "half_poisson_deviance"]


def _in_pieces(estimator: Estimator) -> bool:
    """Whether an estimator can be trained on some of the data; AttributeError says why not."""
    if estimator.solver == "lbfgs":
        raise AttributeError('partial_fit goes with solver="adam" or "sgd": L-BFGS needs all samples at once')
    return True


@dataclass(eq=False, repr=False)
class MLPClassifier(ClassifierMixin, Estimator):  # type: ignore[misc]
    """A network that tells classes apart, of any labels; or, for a 0/1 matrix y (N, L), which of L labels apply.

    What is other than in scikit-learn 1.9 is in the table of `xpnet.interop.sklearn`.

    `loss` is "log_loss" or a function (scores, labels) -> (value, gradient): scores (N, C) and labels 0..C−1, or for a
    matrix y two of its shape.
    """

    loss: Any = field(default="log_loss", kw_only=True)
    class_weight: Any = field(default=None, kw_only=True)

    _parameter_constraints = Estimator._parameter_constraints | {
        "loss": [StrOptions({"log_loss"}), callable],
        "class_weight": [StrOptions({"balanced"}), dict, list, None],
    }

    @available_if(_in_pieces)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Train for one epoch on some of the data; the first call needs all `classes`."""
        if isinstance(self.class_weight, str):
            raise ValueError(
                f'class_weight="{self.class_weight}" needs all labels, which partial_fit never sees: compute the '
                "weights by sklearn.utils.compute_class_weight and pass them as a dict"
            )
        with all_or_nothing(self):
            if not hasattr(self, "classes_"):
                if classes is None:
                    raise ValueError("classes must be passed on the first call to partial_fit")
                self.classes_ = np.unique(np.asarray(home(classes)))
            elif classes is not None and not np.array_equal(np.unique(np.asarray(home(classes))), self.classes_):
                known = f"classes must be those of the first call to partial_fit, {self.classes_}"
                raise ValueError(f"{known}, got {classes}")
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
        if self.multilabel_:
            return sigmoid(xp, scores)
        if self.classes_.size == 1:
            return xp.ones_like(scores)
        if scores.shape[1] == 1:
            return sigmoid(xp, xp.concat([-scores, scores], axis=1))
        _, exp, total = exp_shifted(xp, scores)
        return exp / total

    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithm of the probabilities, exact for those that are too small for `predict_proba` too."""
        scores = self._outputs(X)
        xp = namespace(scores=scores)
        if self.multilabel_:
            return _log_sigmoid(xp, scores)
        if self.classes_.size == 1:
            return xp.zeros_like(scores)
        if scores.shape[1] == 1:
            return _log_sigmoid(xp, xp.concat([-scores, scores], axis=1))
        shifted, _, total = exp_shifted(xp, scores)
        return shifted - xp.log(total)

    def _decide(self, scores: Array) -> Array:
        """Return class numbers (N,), or for a matrix of labels its 0s and 1s."""
        xp = namespace(scores=scores)
        if scores.shape[1] > 1 and not self.multilabel_:
            return xp.argmax(scores, axis=1)
        chosen = xp.astype(scores > 0, xp.int64)
        return chosen if self.multilabel_ else chosen[:, 0] * min(self.classes_.size - 1, 1)  # or there is but one

    def _score(self, prediction: np.ndarray, target: np.ndarray, weights: np.ndarray | None) -> float:
        true = target if self.multilabel_ else target.reshape(-1)
        return float(accuracy_score(true, self._decide(prediction), sample_weight=weights))

    def _encode(self, y: Any, reset: bool) -> np.ndarray:
        y = home(y)
        check_classification_targets(y)
        kind = type_of_target(y)
        if kind == "multiclass-multioutput":
            raise ValueError(f"y must be labels (N,) or a 0/1 matrix (N, L), got {kind} of the shape {y.shape}")
        multilabel = kind == "multilabel-indicator"
        came = np.arange(y.shape[1]) if multilabel else np.unique(y)
        if reset:
            self.classes_ = came
        elif multilabel != getattr(self, "multilabel_", multilabel) or (multilabel and came.size != self.classes_.size):
            raise ValueError(f"y has the shape {y.shape}, which is not like that of the first call: pass y of one kind")
        new = came[~np.isin(came, self.classes_)]
        if new.size and self.warm_start and "model_" in vars(self):
            raise self._not_again(came)
        if new.size:
            raise ValueError(f"y has the classes {new}, which are not among those of the first call, {self.classes_}")
        self.multilabel_, count = multilabel, self.classes_.size
        binary = self.loss == "log_loss" and count <= 2 and not multilabel  # one score is enough
        if count < 2 and not binary and not multilabel:
            raise ValueError(f"a loss of one's own needs at least 2 classes, got 1 class: {self.classes_[0]!r}")
        self.n_outputs_ = 1 if binary else count
        self.out_activation_ = "logistic" if binary or multilabel else "softmax"
        if multilabel:
            return np.asarray(y, dtype=self._dtype)
        labels = np.searchsorted(self.classes_, y).astype(np.int32)
        return np.asarray(labels[:, None], dtype=self._dtype) if binary else labels

    def _check_again(self, target: np.ndarray) -> None:
        came = self.classes_ if self.multilabel_ else self._labels(np.unique(target))
        if came.size < self.classes_.size:
            raise self._not_again(came)

    def _not_again(self, came: np.ndarray) -> ValueError:
        return ValueError(
            f"warm_start can only be used where y has the same classes as before, {self.classes_}, got {came}"
        )

    def _strata(self, target: np.ndarray) -> np.ndarray | None:
        return self._labels(target.reshape(-1)) if self.n_outputs_ == 1 else None

    def _labels(self, target: np.ndarray) -> np.ndarray:
        """Return the user's labels of class numbers."""
        return np.asarray(self.classes_[target.astype(np.int64)])

    def _objective(self) -> Objective:
        if callable(self.loss):
            return Objective(self.loss)
        if self.out_activation_ == "softmax":
            return Objective(losses.cross_entropy)
        return Objective(losses.binary_cross_entropy, factor=self.n_outputs_)

    def _weights(self, y: Any, sample_weight: Any) -> np.ndarray | None:
        weights = super()._weights(y, sample_weight)
        if self.class_weight is None:
            return weights
        y = home(y)
        if self.multilabel_:
            balance = compute_sample_weight(self.class_weight, y)
        else:  # not by sample: some of the data may lack a class
            by_class = compute_class_weight(self.class_weight, classes=self.classes_, y=y)
            balance = by_class[np.searchsorted(self.classes_, y)]
        return np.asarray(balance if weights is None else balance * weights)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


@dataclass(eq=False, repr=False)
class MLPRegressor(RegressorMixin, Estimator):  # type: ignore[misc]
    """A network that predicts one number a sample, or for y (N, O) several.

    What is other than in scikit-learn 1.9 is in the table of `xpnet.interop.sklearn`.

    `loss` is "squared_error" (½ e²), "absolute_error", "huber", "poisson" (half the deviance of counts y ≥ 0, of which
    the output is the logarithm), or a function of prediction and target.
    """

    _parameter_constraints = Estimator._parameter_constraints | {"loss": [StrOptions(set(LOSSES)), callable]}

    @available_if(_in_pieces)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one epoch on some of the data."""
        return self._partial_fit(X, y, sample_weight)

    def predict(self, X: Any) -> Array:
        """Return the prediction, (N,) or (N, O); on the device for a device array."""
        values = self._decide(self._outputs(X))
        return values[:, 0] if self._flat else values

    def _decide(self, scores: Array) -> Array:
        """Return numbers: of counts the rate, which is e to the output."""
        return namespace(scores=scores).exp(scores) if self.out_activation_ == "exp" else scores

    def _score(self, prediction: np.ndarray, target: np.ndarray, weights: np.ndarray | None) -> float:
        return float(r2_score(target, self._decide(prediction), sample_weight=weights))

    def _encode(self, y: Any, reset: bool) -> Array:
        outputs = 1 if y.ndim == 1 else y.shape[1]
        if self.loss == "poisson" and (least := float(home(namespace(y=y).min(y)))) < 0:
            raise ValueError(f'loss="poisson" is for counts: y must be at least 0, got {least:g}')
        if reset:
            self._flat, self.n_outputs_ = y.ndim == 1, outputs
            self.out_activation_ = "exp" if self.loss == "poisson" else "identity"
        if outputs != self.n_outputs_:
            raise ValueError(f"y has the shape {tuple(y.shape)}, but the first call had {self.n_outputs_} outputs")
        xp = namespace(y=y)
        return xp.astype(xp.reshape(y, (-1, self.n_outputs_)), getattr(xp, self._dtype))

    def _objective(self) -> Objective:
        if callable(self.loss):
            return Objective(self.loss)
        half = 0.5 if self.loss == "squared_error" else 1.0
        shown = 1.0 if self.loss == "poisson" else 1.0 / self.n_outputs_
        return Objective(LOSSES[self.loss], half * self.n_outputs_, shown)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.positive_only = self.loss == "poisson"
        return tags


def _log_sigmoid(xp: Namespace, x: Array) -> Array:
    """log 1 / (1 + e^−x), accurate at both ends."""
    return xp.minimum(x, 0.0) - xp.log1p(xp.exp(-xp.abs(x)))
