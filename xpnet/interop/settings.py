"""What both scikit-learn estimators can be told, and which values they take."""

from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

from numpy import inf
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, Options, StrOptions

from xpnet import Backend, Layer, checks
from xpnet.interop.fitting import ACTIVATIONS

POSITIVE = Interval(Real, 0, None, closed="neither")
NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
BELOW_ONE = Interval(Real, 0, 1, closed="left")
COUNT = Interval(Integral, 1, None, closed="left")


@dataclass(eq=False, repr=False)
class Settings(BaseEstimator):  # type: ignore[misc]
    """The arguments of scikit-learn's networks, in their order, then our own."""

    loss: Any = "squared_error"
    hidden_layer_sizes: Any = (100,)
    activation: Any = "relu"
    _: KW_ONLY
    solver: str = "adam"
    alpha: float = 1e-4
    batch_size: int | str = "auto"
    learning_rate: str = "constant"
    learning_rate_init: float = 1e-3
    power_t: float = 0.5
    max_iter: int = 200
    shuffle: bool = True
    random_state: Any = None
    tol: float = 1e-4
    verbose: bool = False
    warm_start: bool = False
    momentum: float = 0.9
    nesterovs_momentum: bool = True
    early_stopping: bool = False
    validation_fraction: float = 0.1
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    n_iter_no_change: float = 10
    max_fun: int = 15000
    dropout: Any = 0.0
    callbacks: Sequence[Any] = ()
    backend: str | None = None
    device: str | None = None
    dtype: str | None = "float32"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "hidden_layer_sizes": ["array-like", COUNT],
        "activation": [StrOptions(set(ACTIVATIONS)), Layer, "array-like"],
        "solver": [StrOptions({"adam", "sgd", "lbfgs"})],
        "alpha": [NOT_NEGATIVE],
        "batch_size": [StrOptions({"auto"}), COUNT],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [POSITIVE],
        "power_t": [NOT_NEGATIVE],
        "max_iter": [COUNT],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [NOT_NEGATIVE],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [BELOW_ONE],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [BELOW_ONE],
        "beta_1": [BELOW_ONE],
        "beta_2": [BELOW_ONE],
        "epsilon": [POSITIVE],
        "n_iter_no_change": [COUNT, Options(Real, {inf})],
        "max_fun": [COUNT],
        "dropout": [BELOW_ONE, "array-like"],
        "callbacks": [list, tuple],
        "backend": [str, Backend, None],
        "device": [str, None],
        "dtype": [StrOptions({"float32", "float64"}), None],
    }
    """What scikit-learn checks settings by."""

    def _check_settings(self) -> None:
        """Raise ValueError for a setting that is out of its range."""
        self._validate_params()
        if self.device is not None and self.backend is None:
            raise ValueError(f"device={self.device!r} needs its library too: backend='torch' for one")
        drops = self.dropout if isinstance(self.dropout, (list, tuple)) else [self.dropout]
        if self.solver == "lbfgs" and (self.callbacks or any(drops)):
            wrong = "callbacks go" if self.callbacks else "dropout goes"
            raise ValueError(f'{wrong} with solver="adam" or "sgd": L-BFGS has no epochs and no minibatches')

    def _sizes(self) -> list[int]:
        """Return the sizes of the hidden layers; ValueError if one is no positive integer."""
        sizes = self.hidden_layer_sizes
        each = sizes if isinstance(sizes, Iterable) else [sizes]
        return [checks.integer(type(self).__name__, "hidden_layer_sizes", size) for size in each]

    def _batch(self, n: int) -> int:
        """Return the size of a batch, of n samples."""
        return min(200 if self.batch_size == "auto" else int(self.batch_size), n)
