"""What `fit`, `evaluate` and `predict` are handed, made samples: arrays, rows of a source, batches one by one."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from xpnet import losses
from xpnet.arrays import Array, describe, each, shape_of
from xpnet.data import door, scan, weighing
from xpnet.data.iterated import Batches
from xpnet.data.source import Arrays, Parts, Samples, Validation
from xpnet.data.stream import Stream, at_home, is_source, is_whole, whole
from xpnet.data.targets import check_binary, check_labels, check_of, check_signs
from xpnet.errors import DataError
from xpnet.training import trial
from xpnet.training.step import Step

NUMBERS = (losses.mean_squared_error, losses.mean_absolute_error, losses.huber, losses.poisson, losses.kl_divergence)
"""Losses whose targets are no classes."""


@dataclass(frozen=True)
class Feeding:
    """How a step's data become samples."""

    step: Step

    def samples(self, x: Any, y: Any = None, weights: Any = None, steps_per_epoch: int | None = None) -> Samples:
        """Return the samples, checked; DataError, ShapeError or TypeError, in a line, for what cannot be trained on."""
        if is_iterable(x) and y is None:
            steps = None if steps_per_epoch is None else door.count("steps_per_epoch", steps_per_epoch)
            samples: Samples = Batches(x, self.examine, self.step.backend, steps)
        elif steps_per_epoch is not None:
            raise DataError(f"steps_per_epoch is for batches that come one after the other, got {describe(x)}")
        elif is_source(x):
            if y is not None:
                remedy = f"epochs={y}?" if isinstance(y, int) else "leave y out, or make both one source, xn.Rows(x, y)"
                raise DataError(f"a source gives x and y together, got a y as well: {remedy}")
            samples = Stream(x, self.examine, self.step.backend)
        else:
            return self.arrays(x, y, weights)
        if weights is not None:
            raise DataError("a source gives its own weights, (x, y, weights): sample_weight goes with arrays")
        return self._tried(samples)

    def arrays(self, x: Any, y: Any, weights: Any = None) -> Arrays:
        """Return arrays as samples on the device, checked."""
        backend = self.step.backend
        if y is None:
            raise DataError("y is missing: pass an array, one sample a row, or a source of both, xn.Rows(x, y)")
        parts = self.examine(x, y, weights, "sample_weight")
        if len(parts) > 2 and scan.extremes(parts[2], door.home(parts[2], backend))[1] == 0:
            raise DataError("sample_weight leaves no sample any weight: one must be above 0")
        samples = Arrays(tuple(each(lambda part: door.put(part, backend), part) for part in parts), backend)
        self._tried(samples)
        return samples

    def examine(self, x: Any, y: Any, weights: Any = None, name: str = "weights") -> Parts:
        """Return samples as the door lets them in, where they lie, and their weights, if they have any."""
        step = self.step
        x, y = door.examine(x, y, step.net, step.loss, step.backend, step.dtype)
        if weights is None:
            return x, y
        home, weights = door.home(y, step.backend), weighing.check(name, weights, y.shape[0], step.backend, step.dtype)
        if not home.owns(weights):
            weights = home.asarray(door.home(weights, step.backend).asnumpy(weights))
        return x, y, weights

    def held(self, samples: Samples, validation: Validation, seed: int) -> tuple[Samples, Samples | None]:
        """Return samples for training and those for validation: given ones, or some that are held out."""
        if validation is None:
            return samples, None
        if isinstance(validation, tuple) and len(validation) in (2, 3):
            return samples, self.samples(*validation)
        if is_source(validation) or is_iterable(validation):
            if isinstance(validation, Iterator):
                raise DataError("validation is read after each epoch, and a generator can be read once: pass a loader")
            return samples, self.samples(validation)
        wanted: Any = validation
        return samples.hold_out(wanted, seed)

    def weighed(self, samples: Samples, class_weight: Any) -> Samples:
        """Return the samples weighed by what their classes count, "balanced" among them; DataError for what is none."""
        step = self.step
        if class_weight is None:
            return samples
        loss = getattr(step.loss, "func", step.loss)
        if any(loss is one for one in NUMBERS):
            raise DataError(f"class_weight is for classes, and {loss.__name__} has none: pass sample_weight")
        classes = weighing.of_classes(class_weight, lambda: step.backend.asnumpy(samples.targets[0]))
        known = self._classes(samples)
        wrong = next((label for label in classes if known and label not in known), None)
        if wrong is not None:
            raise DataError(f"class_weight names the class {wrong:g}: {loss.__name__} has {', '.join(map(str, known))}")

        def weigh(y: Array, weights: Array | None = None) -> Array:
            return weighing.weigh(weights, classes, y, step.dtype, door.home(y, step.backend))

        return self._tried(samples.weighed(weigh))

    def _classes(self, samples: Samples) -> Sequence[int]:
        """Return the classes of the loss, none if it is one of the user's own."""
        check: Any = check_of(self.step.loss)
        check = getattr(check, "func", check)
        if check is check_labels:
            return range(self.step.net.output_shape(shape_of(samples.like))[-1])
        return {check_binary: (0, 1), check_signs: (-1, 1)}.get(check, ())

    def _tried(self, samples: Samples) -> Samples:
        """Return the samples, if functions of the user's own get along with them."""
        step = self.step
        trial.try_parts(step.net, step.loss, step.metrics, samples.first, step.backend, step.dtype)
        return samples


def is_iterable(data: Any) -> bool:
    """Whether data are batches one after the other: a loader, a generator, a list of pairs."""
    if isinstance(data, list):
        return bool(data) and all(isinstance(batch, tuple) and len(batch) in (2, 3) for batch in data)
    return (
        isinstance(data, Iterable)
        and not is_whole(data)
        and not isinstance(data, (str, bytes, tuple))
        and not is_source(data)
    )


def read_inputs(step: Step, x: Any, size: int | None) -> Iterator[Any]:
    """Yield what a network is to read, on the device: of a source `size` samples at a time, of batches one by one."""
    if is_source(x) and size is None and len(x):
        size = step.samples(next(read_inputs(step, x, 1)))
    came: Iterator[Any] = whole(x, size or 1) if is_source(x) else iter(x)
    for part in came:
        first = part[0] if isinstance(part, (tuple, list)) else part
        yield door.place_inputs(
            each(lambda array: at_home(array, step.backend), first), step.net, step.backend, step.dtype
        )
