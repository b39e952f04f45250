"""Model: a network, a loss and an optimizer that train together. The only object with state."""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np

from xpnet.arrays import Array, inputs
from xpnet.backends import Backend
from xpnet.backends import backend as find_backend
from xpnet.backends.base import at_work
from xpnet.data import door
from xpnet.data.source import Samples, Validation
from xpnet.data.stream import is_source, is_whole
from xpnet.errors import DataError
from xpnet.files import checkpoint
from xpnet.layers import Layer
from xpnet.losses import Loss
from xpnet.optimizers import Optimizer
from xpnet.training import evaluation, joining, parts, trial
from xpnet.training.assembly import Assembly
from xpnet.training.callbacks import Callback, Callbacks
from xpnet.training.feeding import Feeding, is_iterable, read_inputs
from xpnet.training.history import History
from xpnet.training.holder import Holder
from xpnet.training.joining import jointly
from xpnet.training.loop import Loop
from xpnet.training.probabilities import probabilities
from xpnet.training.progress import Progress, screen
from xpnet.training.state import Run, State
from xpnet.training.step import Step
from xpnet.world import find as find_world


class Model(Assembly):
    """A network, a loss and an optimizer, with θ and the optimizer's state on one device.

        model = xn.Model(net, xn.cross_entropy, xn.Adam(1e-3), metrics=["accuracy"])
        history = model.fit(x, labels, epochs=5, batch_size=128, validation=0.1)

    `seed` decides the first θ, the order of the samples and the dropout masks; `backend` the library and device;
    `dtype`, "float32" or "float64", the precision of θ and of all that is computed: data of another precision are
    converted. `metrics` are names from `xn.metrics` or functions, or a dict of functions by name.
    `frozen` are patterns of parameters that keep their bits, such as `["0.*", "*.bias"]`.

    With `world="mpi"` the processes that mpiexec started train together, each on its rows of every minibatch; a
    communicator of mpi4py names some of them, and left out XPNET_WORLD says. `shards` cuts every minibatch into so many
    parts, a power of two, which are added up in one order: the same bits on as many processes as divide it.

    `net`, `loss`, `optimizer`, `metrics`, `frozen` and `theta` can be assigned between calls of `fit`. A new optimizer
    starts with a fresh state; `adjust(lr=…)` changes the settings of the one there is and keeps what it remembers.
    """

    def __init__(
        self,
        net: Layer,
        loss: Loss,
        optimizer: Optimizer,
        seed: int = 0,
        backend: str | Backend | None = None,
        metrics: parts.Metrics = (),
        dtype: str = "float32",
        frozen: Sequence[str] = (),
        world: Any = None,
        shards: int | None = None,
    ) -> None:
        if isinstance(seed, (list, tuple, Mapping)):
            raise TypeError(f"seed must be an integer, got {seed!r}: metrics are passed by name, metrics={seed!r}")
        together, chosen = find_world(world), find_backend(backend)
        named, patterns = parts.named(metrics), parts.patterns(frozen)
        parts.check(net, loss, optimizer)
        step = Step(net, loss, optimizer, named, seed, chosen, dtype, patterns, world=together, shards=shards)
        self.holder = Holder(step, step.start(net.init(step.seed, chosen, step.dtype)))
        trial.check_parts(net, loss)

    @classmethod
    def of(cls, step: Step, state: State, run: Run | None = None) -> "Model":
        """Return the model that has this step, state and run."""
        model = cls.__new__(cls)
        model.holder = Holder(step, state, run)
        return model

    # Training

    def fit(
        self,
        x: Any,
        y: Any = None,
        epochs: int = 1,
        batch_size: int = 128,
        validation: Validation = None,
        callbacks: Sequence[Callback] = (),
        progress: Progress = None,
        checkpoint: str | PathLike[str] | None = None,
        every: int | None = None,
        accumulate: int = 1,
        sample_weight: Any = None,
        class_weight: Any = None,
        steps_per_epoch: int | None = None,
    ) -> History:
        """Train for some epochs on x (N, …) and y (N, …), and return their History. Where the network begins with
        `Parallel`, x may be a tuple of inputs.

        Each epoch visits the samples in a new random order, in minibatches, the last short one included. Arrays of the
        model's own library and device stay where they are; NumPy arrays and lists are copied there once. `validation`
        is a pair (x, y), with weights (x, y, weights), or what else x may be; or a share or a number of samples held
        out at random, or as an `xn.HoldOut` says. Ctrl-C stops after the steps under way and keeps the model; a second
        one raises KeyboardInterrupt. `progress` is "bar", "lines" or False. True, or left out, it is a bar on a
        terminal or in a notebook, there with curves, else lines on stderr: for the first 20 epochs and the last, and
        between them one in two seconds at most.

        Without y, x is a source, `len()` and `x[rows] -> (x, y)` or `(x, y, weights)`, such as `xn.Rows`, which is read
        a block at a time: its order is that of arrays, to the same bits. Or x gives batches one after the other: a
        loader, a generator, a list of pairs. They come as they are, `batch_size` or not, unshuffled, and `resume`
        skips those that the epoch has seen. `steps_per_epoch` batches make an epoch then; left out, all there are.

        `sample_weight` w (N,), 0 or more: losses and metrics are means Σ w·l / Σ w, of each batch and of all in the
        history; 0 leaves a sample out. `class_weight`, {class: weight} or "balanced", n / (C · n_c) for n_c samples of
        a class, multiplies it by what a sample's class counts, in the training: the validation is as it is.

        `checkpoint` is a file to which the model is saved after each epoch, and within it after every `every` steps or
        a few more. If training is cut off, `xn.load(checkpoint).resume(x, y)` goes on, to the same bits.

        `accumulate` K makes one step of K batches, whose gradients are added up: the step of a batch K times as large,
        in the memory of one. Losses are weighed by samples, so one that leaves some out (`ignore_index`) is their mean.
        BatchNorm sees each of the K by itself; so it is with what each of several processes computes, and each shard.

        DataError, ShapeError, TypeError for data that does not fit; NonFiniteError, naming step and layer, as soon as a
        loss, a gradient or a rate is not finite: θ is then what it was before that step, and `resume` begins there.
        """
        epochs, batch_size = door.check_settings(epochs, batch_size)
        run = Run(self.epoch, self.epoch + epochs, batch_size, door.count("accumulate", accumulate))
        data = (x, y, sample_weight, steps_per_epoch), class_weight
        return self._train(run, data, validation, callbacks, progress, checkpoint, every)

    def resume(
        self,
        x: Any,
        y: Any = None,
        validation: Validation = None,
        callbacks: Sequence[Callback] = (),
        progress: Progress = None,
        checkpoint: str | PathLike[str] | None = None,
        every: int | None = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        steps_per_epoch: int | None = None,
    ) -> History:
        """Go on with the call of `fit` that was cut off, to its last epoch; the History begins with its first.

        Data, their weights, validation and callbacks are those that `fit` was given: they are not in the file. The
        outcome has the same bits as without the interruption, on the same machine and backend, where the library is
        deterministic; of batches that come one after the other if they are the same ones, which nothing can tell.
        DataError if there is nothing to go on with, or the data or the callbacks are others.
        """
        run = self.underway
        if run is None:
            raise DataError("there is nothing to resume, the training was finished: call fit for more epochs")
        data = (x, y, sample_weight, steps_per_epoch), class_weight
        return self._train(run, data, validation, callbacks, progress, checkpoint, every)

    @jointly
    @at_work
    def _train(
        self,
        run: Run,
        data: tuple[tuple[Any, ...], Any],
        validation: Validation,
        callbacks: Sequence[Callback],
        progress: Progress,
        path: str | PathLike[str] | None,
        every: int | None,
    ) -> History:
        """Go on with a run, saving to `path`."""
        (given, class_weight), feeding = data, Feeding(self.step)
        source, held = feeding.held(feeding.samples(*given), validation, self.seed)
        source = feeding.weighed(source, class_weight)
        run.batch_size = source.check(run.until - run.first, run.batch_size)
        step, sizes = self.step, (source.count or run.batch_size, run.batch_size)
        trial.check_batches(self.net, source.like, *sizes, step.shards or step.world.size)
        joining.check(step, self.state, run, source, held)
        keep = self._keeper(run, source, path, every)
        called, shown = Callbacks(callbacks, self), screen(progress, self.backend, step.world.rank)
        with self.holder as holder:
            if holder.training:
                raise RuntimeError("this model is being trained already: wait until that fit is over, or train a copy")
            holder.training = True
        try:
            holder.run = run
            return Loop(holder, run, source, held, called, shown, keep).train()
        finally:
            holder.training = False

    def _keeper(
        self, run: Run, source: Samples, path: str | PathLike[str] | None, every: int | None
    ) -> Callable[[bool], None]:
        """Return what saves the run; DataError if it was trained on other data."""
        if path is None and run.data is None:
            return lambda now: None
        digest = source.digest()
        if digest is not None and run.data not in (None, digest):
            raise DataError("the data are not those that this run was trained on: pass the same x, y and validation")
        run.data = digest
        if path is None or self.step.world.rank:  # the first rank writes what all have
            return lambda now: None
        return checkpoint.Keeper(path, every, self.holder)

    # Without training

    @at_work
    def predict(self, x: Any, batch_size: int | None = None) -> Array:
        """Return the network's output for x (N, …), computed in batches: NumPy for host data, else on the device.

        `batch_size` left out is 4096, or fewer where the outputs of layers are large images. x may be a source, or
        batches one after the other, x alone or (x, y, …): then the output is NumPy's.
        """
        batch_size = None if batch_size is None else door.count("batch_size", batch_size)
        read = not is_whole(x) and (is_source(x) or is_iterable(x))
        if read:
            placed, n, home = read_inputs(self.step, x, batch_size), len(x) if is_source(x) else None, True
        else:
            whole = door.place_inputs(x, self.net, self.backend, self.dtype)
            placed, n = evaluation.pieces(whole, batch_size or self.step.samples(whole)), inputs(whole)[0].shape[0]
            home = not all(map(self.backend.owns, inputs(x)))
        with self.holder as holder:
            return evaluation.predict(self.step, holder.state, placed, n, home)

    def predict_proba(self, x: Any, batch_size: int | None = None) -> Array:
        """Return the probabilities (N, C) of the classes, or of each of several labels (N, L), as `predict` its output.

        Softmax of the scores for a loss of classes, the sigmoid for `binary_cross_entropy`, of which one column p
        becomes two, 1 − p and p; a network that ends in Softmax or Sigmoid gives them itself. DataError for other
        losses.
        """
        return probabilities(self.net, self.loss, self.predict(x, batch_size))

    @jointly
    @at_work
    def evaluate(
        self, x: Any, y: Any = None, batch_size: int | None = None, sample_weight: Any = None, class_weight: Any = None
    ) -> dict[str, float]:
        """Return the loss and the metrics over all of x and y: `{"loss": …, "accuracy": …}`.

        x may be a source, or batches one after the other, and samples may be weighed, as in `fit`. Of several processes
        each judges a part, and all must call it.
        """
        batch_size = None if batch_size is None else door.count("batch_size", batch_size)
        feeding = Feeding(self.step)
        source = feeding.weighed(feeding.samples(x, y, sample_weight), class_weight)
        self.step.world.check({"the data": source.digest})
        with self.holder as holder:
            return evaluation.score(self.step, holder.state, source, batch_size)

    @at_work
    def objective(self, x: Any, y: Any = None, sample_weight: Any = None) -> Callable[[Any], tuple[float, np.ndarray]]:
        """Return the loss on x and y as a function of a host vector θ, with its gradient: what SciPy minimizes.

            found = scipy.optimize.minimize(model.objective(x, y), theta, jac=True, method="L-BFGS-B")
            model.theta = model.backend.asarray(found.x, dtype=model.dtype)

        Value and gradient are float64, computed in the model's precision over all samples, in batches as large as those
        of `evaluate`; x may be a source, and samples may be weighed, as in `fit`. Dropout is off, and the optimizer's
        weight decay is no part of it. The model itself stays as it is.
        """
        return evaluation.objective(self.step, self.state, Feeding(self.step).samples(x, y, sample_weight))

    # Files and copies

    def save(self, path: str | PathLike[str]) -> None:
        """Write everything to one file, without pickle; `xn.load(path)` reads it, on any backend.

        It can be called from another thread while `fit` runs: what is saved then stands between two calls of K steps.
        """
        with self.holder as holder:
            checkpoint.save(path, holder)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle is made of: arrays travel by the host, the backend by its name."""
        with self.holder as holder:
            return checkpoint.to_host(holder)

    def __setstate__(self, host: dict[str, Any]) -> None:
        self.holder = Holder(*checkpoint.from_host(host))


def load(
    path: str | PathLike[str],
    backend: str | Backend | None = None,
    custom: Sequence[type | Callable[..., Any]] = (),
    world: Any = None,
) -> Model:
    """Return the model that `Model.save` wrote, on any backend. `custom` holds layers and functions of your own;
    `world` is who trains it further, as of a Model: as many processes as before or not.

    CheckpointError if the file is damaged, is no checkpoint, or needs a custom object that was not handed in.
    """
    return Model.of(*checkpoint.load(path, find_backend(backend), custom, find_world(world)))
