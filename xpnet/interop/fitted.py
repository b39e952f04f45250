"""What is left of an estimator's training: its weights, its outputs, and how it travels."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted, validate_data

from xpnet import BackendError, History, Model, ShapeError
from xpnet import backend as find_backend
from xpnet.arrays import Array
from xpnet.files import checkpoint
from xpnet.interop.admission import Admission, home, on_device
from xpnet.interop.given import predict
from xpnet.parameters import Window


class Weights(list[Array]):
    """Arrays of a network in a list, of which one can be exchanged: `coefs_[0] = array` changes θ.

    What is written into an array of NumPy would be lost, so it is read-only.
    """

    def __init__(self, arrays: Iterable[Array], put: Callable[[list[Any]], None]) -> None:
        super().__init__(arrays)
        self._put = put
        for array in self:
            if isinstance(array, np.ndarray):
                array.flags.writeable = False

    def __setitem__(self, k: Any, array: Any) -> None:
        arrays: list[Any] = list(self)
        arrays[k] = array
        self._put(arrays)
        super().__setitem__(k, array)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as a list."""
        return list, (list(self),)


class Fitted(Admission):
    """An estimator once its model is trained."""

    model_: Model
    history_: History
    t_: int
    loss_curve_: list[float]
    best_loss_: float | None
    validation_scores_: list[float] | None
    best_validation_score_: float | None
    loss_: float
    n_iter_: int
    n_layers_: int
    _waited: int

    @property
    def coefs_(self) -> list[Array]:
        """The weight matrices, (inputs, outputs), on the model's device. What is assigned, list or item, changes θ."""
        return self._weights_of("weight")

    @coefs_.setter
    def coefs_(self, arrays: Iterable[Any]) -> None:
        self._exchange("weight", arrays)

    @property
    def intercepts_(self) -> list[Array]:
        """The biases, on the model's device. What is assigned, list or item, changes θ."""
        return self._weights_of("bias")

    @intercepts_.setter
    def intercepts_(self, arrays: Iterable[Any]) -> None:
        self._exchange("bias", arrays)

    def _weights_of(self, kind: str) -> list[Array]:
        arrays = self._model.net.windows(self._model.theta)
        found = (arrays[window.name] for window in self._windows(kind))
        return Weights(found, lambda arrays: self._exchange(kind, arrays))

    def _windows(self, kind: str) -> list[Window]:
        """Return where the weights or biases of the linear layers lie; layers of activation may have their own."""
        layout = self._model.net.layout
        return [window for window in layout if window.name.endswith(kind) and window.decayed == (kind == "weight")]

    def _exchange(self, kind: str, arrays: Iterable[Any]) -> None:
        """Put arrays in the place of weights or biases; ShapeError, or DataError, for those that do not fit."""
        model, new = self._model, [np.asarray(home(array)) for array in arrays]
        windows = self._windows(kind)
        expected, came = [window.shape for window in windows], [array.shape for array in new]
        if expected != came:
            name = "coefs_" if kind == "weight" else "intercepts_"
            raise ShapeError(f"{name} must be {len(expected)} arrays of the shapes {expected}, got {came}")
        theta = model.backend.asnumpy(model.theta).copy()
        for window, array in zip(windows, new, strict=True):
            theta[window.place] = array.reshape(-1)
        model.theta = model.backend.asarray(theta, dtype=model.dtype)

    @property
    def _model(self) -> Model:
        if "model_" not in vars(self):
            raise AttributeError(f"this {type(self).__name__} has no weights yet: call fit first")
        return self.model_

    def _outputs(self, X: Any) -> Array:
        """Return the network's output: on the device for a device array, else on the host."""
        check_is_fitted(self)
        if on_device(X):
            self._check_on_device(X, reset=False)
        else:
            X = validate_data(self, X, accept_sparse="csr", dtype=self._dtype, reset=False)
        return predict(self.model_, X)

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
