"""What `fit`, `evaluate` and `predict` are handed, made samples: arrays, rows of a source, batches one by one."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xpnet import losses
from xpnet.arrays import describe, each, shape_of
from xpnet.data import door, scan, weighing
from xpnet.data.iterated import Batches, at_home
from xpnet.data.source import Arrays, Parts, Samples, Validation
from xpnet.data.stream import Stream, is_source, whole
from xpnet.data.targets import check_labels, check_of
from xpnet.errors import DataError
from xpnet.training import trial
from xpnet.training.step import Step

NUMBERS = (losses.mean_squared_error, losses.mean_absolute_error, losses.huber, losses.poisson, losses.kl_divergence)
"""Losses whose targets are no classes."""


@dataclass(frozen=True)
class Feeding:
    """How a step's data become samples, whose weights are given, or come from their classes."""

    step: Step
    class_weight: Any = None
    steps_per_epoch: int | None = None

    def settled(self, x: Any, y: Any) -> "Feeding":
        """Return the same with the weight of each class as a number: "balanced" is by these data."""
        if self.class_weight is None:
            return self
        loss = getattr(self.step.loss, "func", self.step.loss)
        if any(loss is one for one in NUMBERS):
            raise DataError(f"class_weight is for classes, and {loss.__name__} has none: pass sample_weight")

        def labels() -> np.ndarray:
            with scan.silent():
                return self.step.backend.asnumpy(replace(self, class_weight=None).samples(x, y).targets[0])

        return replace(self, class_weight=weighing.of_classes(self.class_weight, labels))

    def samples(self, x: Any, y: Any = None, weights: Any = None) -> Samples:
        """Return the samples, checked; DataError, ShapeError or TypeError, in a line, for what cannot be trained on."""
        backend, steps = self.step.backend, self.steps_per_epoch
        if y is not None or not (is_source(x) or is_iterable(x)):
            if steps is not None:
                raise DataError(f"steps_per_epoch is for batches that come one after the other, got {describe(x)}")
            return self.arrays(x, y, weights)
        if weights is not None:
            raise DataError("a source gives its own weights, (x, y, weights): sample_weight goes with arrays")
        if is_iterable(x):
            return self._tried(
                Batches(x, self.examine, backend, None if steps is None else door.count("steps_per_epoch", steps))
            )
        return self._tried(Stream(x, self.examine, backend))

    def examine(self, x: Any, y: Any, weights: Any = None) -> Parts:
        """Return samples as the door lets them in, where they lie, and their weights, if they have any."""
        step = self.step
        x, y = door.examine(x, y, step.net, step.loss, step.backend, step.dtype)
        home = door.home(y, step.backend)
        if weights is not None:
            weights = weighing.check(weights, y.shape[0], step.backend, step.dtype)
            if not home.owns(weights):
                weights = home.asarray(door.home(weights, step.backend).asnumpy(weights))
        if self.class_weight is not None:
            weights = weighing.weigh(weights, self.class_weight, y, step.dtype, home)
        return (x, y) if weights is None else (x, y, weights)

    def arrays(self, x: Any, y: Any, weights: Any = None) -> Arrays:
        """Return arrays as samples, checked."""
        samples = self._arrays(x, y, weights)
        self._tried(samples)
        return samples

    def held(self, samples: Samples, validation: Validation, seed: int) -> tuple[Samples, Samples | None]:
        """Return samples for training and those for validation: given ones, or some that are held out."""
        if validation is None:
            return samples, None
        if isinstance(validation, tuple) and len(validation) in (2, 3):
            return samples, replace(self, steps_per_epoch=None).samples(*validation)
        if is_source(validation) or is_iterable(validation):
            if isinstance(validation, Iterator):
                raise DataError("validation is read after each epoch, and a generator can be read once: pass a loader")
            return samples, replace(self, steps_per_epoch=None).samples(validation)
        return samples.hold_out(validation, seed)

    def _arrays(self, x: Any, y: Any, weights: Any) -> Arrays:
        """Return arrays on the device."""
        backend = self.step.backend
        parts = self.examine(x, y, weights)
        if len(parts) > 2 and scan.extremes(parts[2], door.home(parts[2], backend))[1] == 0:
            raise DataError("the weights leave no sample any weight: one must be above 0")
        return Arrays(tuple(each(lambda part: door.put(part, backend), part) for part in parts), backend)

    def _tried(self, samples: Samples) -> Samples:
        """Return the samples, if functions of the user's own get along with them."""
        step, first = self.step, samples.first
        trial.try_parts(step.net, step.loss, step.metrics, first, step.backend, step.dtype)
        if (
            isinstance(self.class_weight, Mapping)
            and getattr(check_of(step.loss), "func", check_of(step.loss)) is check_labels
        ):
            classes = step.net.output_shape(shape_of(first[0]))[-1]
            wrong = next((label for label in self.class_weight if label not in range(classes)), None)
            if wrong is not None:
                raise DataError(f"class_weight names the class {wrong:g}: the network has 0..{classes - 1}")
        return samples


def is_iterable(data: Any) -> bool:
    """Whether data are batches one after the other: a loader, a generator, a list of pairs."""
    if isinstance(data, list):
        return bool(data) and all(isinstance(batch, tuple) and len(batch) in (2, 3) for batch in data)
    array = any(hasattr(data, name) for name in ("shape", "__array__", "dtype", "columns", "column_names", "keys"))
    return (
        isinstance(data, Iterable) and not array and not isinstance(data, (str, bytes, tuple)) and not is_source(data)
    )


def read_inputs(step: Step, x: Any, size: int) -> Iterator[Any]:
    """Yield what a network is to read, on the device: of a source `size` samples at a time, of batches one by one."""
    came: Iterator[Any] = whole(x, size) if is_source(x) else iter(x)
    for part in came:
        first = part[0] if isinstance(part, (tuple, list)) else part
        yield door.place_inputs(
            each(lambda array: at_home(array, step.backend), first), step.net, step.backend, step.dtype
        )
