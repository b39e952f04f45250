"""What the estimators let in: host data as scikit-learn checks them, arrays of other libraries where they lie."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import is_regressor
from sklearn.utils.validation import _check_sample_weight, column_or_1d, validate_data

from xpnet import Backend
from xpnet import backend as find_backend
from xpnet.arrays import Array
from xpnet.backends import LIBRARIES, backend_of, library_of
from xpnet.data import door, scan
from xpnet.interop.given import Given
from xpnet.interop.settings import Settings


def on_device(array: Any) -> bool:
    """Whether this is an array of a library other than NumPy, to be left where it is."""
    return library_of(array) in LIBRARIES and library_of(array) != "numpy"


def home(array: Any) -> Any:
    """Return a device array on the host, and all else as it is."""
    return backend_of(array).asnumpy(array) if on_device(array) else array


class Admission(Settings, ABC):
    """Checks data and brings them to the backend; a subclass says how targets become numbers."""

    _dtype: str
    """The precision that is computed in."""
    n_features_in_: int
    n_outputs_: int
    out_activation_: str

    @abstractmethod
    def _encode(self, y: Any, reset: bool) -> Any:
        """Return targets as the loss takes them; `reset` forgets what earlier ones were like.

        It says how many outputs the network has, `self.n_outputs_`, and of which kind, `self.out_activation_`.
        """

    def _weights(self, y: Any, sample_weight: Any) -> np.ndarray | None:
        """Return host weights (N,), or None if all samples weigh the same."""
        if sample_weight is None:
            return None
        rows = np.empty((y.shape[0], 1))
        return np.asarray(_check_sample_weight(home(sample_weight), rows, ensure_non_negative=True))

    def _backend(self, X: Any) -> Backend:
        """Return the backend that was asked for; if none was, that of a device array."""
        if self.backend is None and on_device(X):
            return backend_of(X)
        return find_backend(f"{self.backend}:{self.device}" if self.device else self.backend)

    def _admit(
        self, X: Any, y: Any, sample_weight: Any, reset: bool, reset_y: bool | None = None
    ) -> tuple[Backend, Given]:
        """Return the backend and the samples, X and the encoded y on its device; or ValueError.

        A sparse X stays on the host, and y beside it.
        """
        backend = self._backend(X)
        if on_device(X):
            y = self._beside(X, y, reset)
        else:
            wanted = self.dtype or (["float64", "float32"] if reset else self._dtype)
            how = {"dtype": wanted, "accept_sparse": "csr", "multi_output": True, "y_numeric": is_regressor(self)}
            X, y = validate_data(self, X, home(y), reset=reset, **how)
        if reset or self.dtype is not None:
            self._dtype = self.dtype or ("float32" if str(X.dtype).endswith("float32") else "float64")
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0] if on_device(y) else column_or_1d(y, warn=True)
        target, weights = self._encode(y, reset if reset_y is None else reset_y), self._weights(y, sample_weight)
        if issparse(X):
            return backend, Given(X, np.asarray(target), weights)
        x, target = (door.place(*named, backend, self._dtype) for named in (("X", X), ("y", target)))
        return backend, Given(x, target, weights)

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
        if xp.isdtype(X.dtype, "real floating") and 0 not in X.shape and not scan.finite(*scan.extremes(X, backend)):
            raise ValueError("Input X contains NaN or infinity: clean the data")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
