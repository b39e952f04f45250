"""Model: a network, a loss and an optimizer that train together. The only object with state."""

import sys
import warnings
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any

import numpy as np

from xpnet import metrics, random
from xpnet.arrays import Array, Vector
from xpnet.backends import Backend
from xpnet.backends import backend as find_backend
from xpnet.data import batches, door
from xpnet.errors import DataError, DataWarning, NonFiniteError, ShapeError
from xpnet.files import checkpoint
from xpnet.layers import Layer, Sequential, Softmax
from xpnet.losses import Loss, cross_entropy
from xpnet.metrics import Metric
from xpnet.optimizers import Optimizer, State
from xpnet.parameters import split
from xpnet.training.callbacks import Callback
from xpnet.training.diagnosis import diagnose
from xpnet.training.history import History
from xpnet.training.loop import Run, train
from xpnet.training.progress import shown


class Model:
    """A network, a loss and an optimizer, with θ and the optimizer's state on one device.

        model = xn.Model(net, xn.cross_entropy, xn.Adam(1e-3), metrics=["accuracy"])
        history = model.fit(x, labels, epochs=5, batch_size=128, validation=0.1)

    `seed` decides the first θ, the order of the samples and the dropout masks; `backend` the library and device;
    `dtype` the precision of θ and of all that is computed. `metrics` are names from `xn.metrics`, or functions.
    """

    def __init__(
        self,
        net: Layer,
        loss: Loss,
        optimizer: Optimizer,
        seed: int = 0,
        backend: str | Backend | None = None,
        metrics: Sequence[Metric | str] = (),
        dtype: str = "float32",
    ) -> None:
        expected = {
            "net": (net, Layer, "a layer"),
            "optimizer": (optimizer, Optimizer, "an optimizer, such as xn.Adam()"),
        }
        for name, (value, kind, what) in expected.items():
            if not isinstance(value, kind):
                raise TypeError(f"{name} must be {what}, got {value!r}")
        if not callable(loss):
            raise TypeError(f"loss must be a function, such as xn.cross_entropy, got {loss!r}")
        self.net, self.loss, self.optimizer, self.seed, self.dtype = net, loss, optimizer, seed, dtype
        self.backend = find_backend(backend)
        self.metrics = dict(map(_named, metrics))
        self.epoch = 0
        self.buffers: dict[str, Array] = {}
        self._theta = self._carried(net.init(seed, self.backend, dtype))
        decayed = self._carried(net.decayed(self.backend, dtype)) if optimizer.weight_decay else None
        xp, jit = self.backend.xp, self.backend.jit
        self.state = optimizer.init(self._theta, decayed)
        self.underway: Run | None = None
        self._alive = self.backend.asarray(True)
        self._run = self.backend.compile(self._step)
        self._infer = jit(lambda theta, x, buffers: net(theta, x, buffers=buffers, backend=self.backend)[0])
        self._judge = jit(lambda *pair: [loss(*pair)[0], *(metric(*pair) for metric in self.metrics.values())])
        self._largest = jit(lambda matrices: [xp.max(xp.abs(matrix)) for matrix in matrices])
        if loss is cross_entropy and isinstance(_last(net), Softmax):
            text = (
                "cross_entropy takes scores, but the network ends in Softmax: drop it, or use negative_log_likelihood"
            )
            warnings.warn(text, DataWarning, stacklevel=2)

    @property
    def theta(self) -> Array:
        """θ, one flat array on the device. What is assigned must have its length, type and device, and is copied."""
        return self._joined(self._theta)

    @theta.setter
    def theta(self, theta: Array) -> None:
        dtype = getattr(self.backend.xp, self.dtype)
        if not self.backend.owns(theta) or theta.shape != (self.net.size,) or theta.dtype != dtype:
            raise ShapeError(f"theta must be a {self.backend.name} {self.dtype} vector of {self.net.size} numbers")
        self._theta = self._carried(self.backend.xp.asarray(theta, copy=True))  # training overwrites it

    def _carried(self, vector: Array) -> Vector:
        """Return a vector like θ in the form that the backend's compiled steps carry."""
        if self.backend.flat:
            return vector
        return self.backend.jit(lambda flat: split(self.backend.xp, flat, self.net.layout))(vector)

    def _joined(self, vector: Vector) -> Array:
        """Return a vector like θ as one flat array, whatever form the backend carries."""
        if self.backend.flat:
            return vector
        return self.backend.xp.concat([self.backend.xp.reshape(window, (-1,)) for window in vector])

    def fit(
        self,
        x: Any,
        y: Any,
        epochs: int = 1,
        batch_size: int = 128,
        validation: batches.Validation = None,
        callbacks: Sequence[Callback] = (),
        progress: bool | None = None,
        checkpoint: str | PathLike[str] | None = None,
        every: int | None = None,
    ) -> History:
        """Train for some epochs on x (N, …) and y (N, …), and return their History.

        Each epoch visits the samples in a new random order, in minibatches, the last short one included. Arrays of the
        model's own library and device stay where they are; NumPy arrays and lists are copied there once. `validation`
        is a pair (x, y), a share or a number of samples held out at random. `progress` shows a bar: by default on a
        terminal. Ctrl-C stops after the steps under way and keeps the model; a second one raises KeyboardInterrupt.

        `checkpoint` is a file to which the model is saved after each epoch, and within it after every `every` steps or
        a few more. If training is cut off, `xn.load(checkpoint).resume(x, y)` goes on, to the same bits.

        DataError, ShapeError, TypeError for data that does not fit; NonFiniteError, naming step and layer, as soon as a
        loss or gradient is not finite: θ is then what it was before that step.
        """
        door.check_settings(epochs, batch_size)
        x, y = door.admit(x, y, self.net, self.loss, self.backend, self.dtype)
        self.underway = Run(self.epoch, self.epoch + epochs, batch_size)
        return self._train(x, y, validation, callbacks, progress, checkpoint, every)

    def resume(
        self,
        x: Any,
        y: Any,
        validation: batches.Validation = None,
        callbacks: Sequence[Callback] = (),
        progress: bool | None = None,
        checkpoint: str | PathLike[str] | None = None,
        every: int | None = None,
    ) -> History:
        """Go on with the call of `fit` that was cut off, to its last epoch; the History begins with its first.

        Data, validation and callbacks are those that `fit` was given: they are not in the file. The outcome has the
        same bits as without the interruption, on the same machine and backend, where the library is deterministic.
        DataError if there is nothing to go on with, or the data are others.
        """
        if self.underway is None:
            raise DataError("there is nothing to resume, the training was finished: call fit for more epochs")
        x, y = door.admit(x, y, self.net, self.loss, self.backend, self.dtype)
        if self.underway.callbacks and len(self.underway.callbacks) != len(callbacks):
            raise DataError(
                f"the run has {len(self.underway.callbacks)} callbacks, got {len(callbacks)}: pass the same ones"
            )
        return self._train(x, y, validation, callbacks, progress, checkpoint, every)

    def _train(
        self,
        x: Array,
        y: Array,
        validation: batches.Validation,
        callbacks: Sequence[Callback],
        progress: bool | None,
        path: str | PathLike[str] | None,
        every: int | None,
    ) -> History:
        """Go on with `self.underway` on data that were admitted, saving to `path`."""
        held: tuple[Array, Array] | None = None
        if isinstance(validation, tuple) and len(validation) == 2:
            held = door.admit(*validation, self.net, self.loss, self.backend, self.dtype)
        elif validation is not None:
            x, y, *pair = batches.hold_out(x, y, validation, self.seed, self.backend)
            held = (pair[0], pair[1])
        run, show = self.underway, shown(progress)
        assert run is not None
        if path is not None or run.data is not None:
            digest = batches.digest(x, y, self.backend)
            if run.data not in (None, digest):
                raise DataError(
                    "the data are not those that this run was trained on: pass the same x, y and validation"
                )
            run.data = digest
        if show:
            print(f"training on {self.backend.name} {self.backend.device}, {self.backend.reason}", file=sys.stderr)
        keeper = checkpoint.Keeper(self, path, every) if path is not None else lambda now: None
        return train(self, run, x, y, held, callbacks, show, keeper)

    def _steps(self, x: Array, y: Array, block: np.ndarray) -> np.ndarray:
        """Do K steps on the batches of indices (K, B); return loss, gradient norm and metrics of each, (·, K)."""
        first = self.state.t
        steps = range(first, first + block.shape[0])
        keys = [random.step_key(self.seed, t) for t in steps]
        scalars = [self.optimizer.scalars(t) for t in steps]
        carry = (self._theta, self.state.slots, self.buffers, self._alive)
        with np.errstate(all="ignore"):  # what is not finite is found below
            carry, results = self._run(carry, (x, y), (self.backend.asarray(block), keys, scalars))
        self._theta, slots, self.buffers, self._alive = carry
        values = np.stack([self.backend.asnumpy(result) for result in results]).astype(np.float64)
        finite = np.isfinite(values[0]) & np.isfinite(values[1])
        good = len(finite) if finite.all() else int(np.argmin(finite))  # nothing changes from the first bad step on
        self.state = State(first + good, slots)
        if good < len(finite):
            self._alive = self.backend.asarray(True)
            batch = self._batch((x, y), self.backend.asarray(block[good]))
            place = diagnose(self.net, self.loss, self._theta, *batch, keys[good], self.backend)
            loss, norm = values[:2, good]
            what = f"the gradient's norm became {_word(norm)}" if np.isfinite(loss) else f"loss became {_word(loss)}"
            raise NonFiniteError(
                f"{what} at step {first + good + 1} (epoch {self.epoch + 1}): first non-finite value in {place}; "
                "theta is as it was before: lower the learning rate, scale the input, or set clip_norm"
            )
        return values

    def _batch(self, fixed: tuple[Array, Array], index: Array) -> tuple[Array, Array]:
        """Gather one minibatch of inputs and targets."""
        gather: Callable[..., tuple[Array, Array]] = self.backend.native(batches.gather)
        return gather(self.backend.xp, *fixed, index, self.dtype)

    def _step(self, carry: Any, fixed: Any, x: Any) -> tuple[Any, tuple[Array, ...]]:
        """One training step, as the backend compiles it: forward, loss, backward, update."""
        (theta, slots, buffers, alive), (index, key, scalars) = carry, x
        buffers, (batch, target) = dict(buffers), self._batch(fixed, index)
        prediction, backward = self.net(theta, batch, True, key=key, buffers=buffers, backend=self.backend)
        loss, dprediction = self.backend.native(self.loss)(prediction, target)
        new = self.optimizer.update(theta, backward(dprediction), slots, scalars, alive, self.backend, loss)
        values = [metric(prediction, target) for metric in self.metrics.values()]
        return (new.theta, new.slots, buffers, new.alive), (loss, new.norm, *values)

    def predict(self, x: Any, batch_size: int = 4096) -> Array:
        """Return the network's output for x (N, …), computed in batches: NumPy for host data, else on the device."""
        door.check_settings(1, batch_size)
        here = self.backend.owns(x)
        prediction = self._forward(door.place("x", x, self.backend, self.dtype), batch_size)
        return prediction if here else self.backend.asnumpy(prediction)

    def evaluate(self, x: Any, y: Any, batch_size: int = 4096) -> dict[str, float]:
        """Return the loss and the metrics over all of x and y: `{"loss": …, "accuracy": …}`."""
        door.check_settings(1, batch_size)
        return self.score(*door.admit(x, y, self.net, self.loss, self.backend, self.dtype), batch_size)

    def objective(self, x: Any, y: Any) -> Callable[[Any], tuple[float, np.ndarray]]:
        """Return the loss on x and y as a function of a host vector θ, with its gradient: what SciPy minimizes.

            found = scipy.optimize.minimize(model.objective(x, y), theta, jac=True, method="L-BFGS-B")
            model.theta = model.backend.asarray(found.x, dtype=model.dtype)

        Value and gradient are float64, computed in the model's precision over all samples at once; dropout is off, and
        the optimizer's weight decay is no part of it. The model itself stays as it is.
        """
        x, y = door.admit(x, y, self.net, self.loss, self.backend, self.dtype)

        def value_and_gradient(theta: Any) -> tuple[float, np.ndarray]:
            if np.shape(theta) != (self.net.size,):
                raise ShapeError(f"theta must be a vector of {self.net.size} numbers, got shape {np.shape(theta)}")
            vector = self._carried(self.backend.asarray(theta, dtype=self.dtype))
            prediction, backward = self.net(vector, x, buffers=self.buffers, backend=self.backend)
            loss, dprediction = self.loss(prediction, y)
            gradient = self.backend.asnumpy(self._joined(backward(dprediction)))
            return float(self.backend.asnumpy(loss)), gradient.astype(np.float64)

        return value_and_gradient

    def _forward(self, x: Array, batch_size: int) -> Array:
        n = x.shape[0]
        slices = (x[start : min(start + batch_size, n), ...] for start in range(0, n, batch_size))
        parts = [self._infer(self._theta, part, self.buffers) for part in slices]
        return parts[0] if len(parts) == 1 else self.backend.xp.concat(parts)

    def score(self, x: Array, y: Array, batch_size: int = 4096) -> dict[str, float]:
        """Return the loss and the metrics over data that lie on the device and were checked before."""
        values = self._judge(self._forward(x, batch_size), y)
        return {
            name: float(self.backend.asnumpy(value))
            for name, value in zip(("loss", *self.metrics), values, strict=True)
        }

    def max_weight(self) -> float:
        """Return the largest absolute value in any matrix, 0 if there is none."""
        matrices = [window for window in self.net.windows(self._theta).values() if window.ndim >= 2]
        return max((float(self.backend.asnumpy(value)) for value in self._largest(matrices)), default=0.0)

    def save(self, path: str | PathLike[str]) -> None:
        """Write everything to one file, without pickle; `xn.load(path)` reads it, on any backend."""
        checkpoint.save(self, path)


def load(
    path: str | PathLike[str],
    backend: str | Backend | None = None,
    custom: Sequence[type | Callable[..., Any]] = (),
) -> Model:
    """Return the model that `Model.save` wrote, on any backend. `custom` holds layers and functions of your own.

    CheckpointError if the file is damaged, is no checkpoint, or needs a custom object that was not handed in.
    """
    return checkpoint.load(Model, path, find_backend(backend), custom)


def _word(value: float) -> str:
    return "NaN" if np.isnan(value) else str(value)


def _named(metric: Metric | str) -> tuple[str, Metric]:
    """Return the name and the function of a metric; confusion_matrix is none, for it is not one number."""
    known = ("accuracy", "zero_one", "mean_absolute_error", "r2")
    if metric is metrics.confusion_matrix or not (callable(metric) or metric in known):
        raise ValueError(f"unknown metric {metric!r}: choose one of {', '.join(known)}, or pass a function")
    if not callable(metric):
        return metric, getattr(metrics, metric)
    return getattr(metric, "__name__", type(metric).__name__), metric


def _last(net: Layer) -> Layer:
    """The layer that the output comes from."""
    while type(net) is Sequential and net.layers:
        net = net.layers[-1]
    return net
