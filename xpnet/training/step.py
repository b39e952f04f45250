"""One training step, and K of them: batch, forward, loss, backward, update; and where a bad one went wrong."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from xpnet import metrics, random
from xpnet.arrays import Array, Vector, each
from xpnet.backends import Backend
from xpnet.backends.base import at_work
from xpnet.checks import precision, seed, settle
from xpnet.data.source import Parts, Samples
from xpnet.layers import Layer
from xpnet.losses import Loss
from xpnet.metrics import Metric
from xpnet.optimizers import Groups, Optimizer
from xpnet.parameters import Parts as Windows
from xpnet.parameters import check_patterns, choose, matches
from xpnet.training.diagnosis import NORM, RULE, SLOWER, diagnose, told, word
from xpnet.training.gathering import Gathering
from xpnet.training.judging import Judging
from xpnet.training.sharing import Sharing, shards
from xpnet.training.sizing import Sizing
from xpnet.training.state import State
from xpnet.training.trial import fitting_metrics
from xpnet.world import World


class Outcome(NamedTuple):
    """What K steps gave: the state after the good ones, their numbers (·, K), and what was wrong with the next."""

    state: State
    values: np.ndarray
    """Loss, gradient norm and metrics of each step; a metric of several numbers has a row for each."""
    sizes: np.ndarray
    """What each step's batch counts, (K,): its samples, or the sum of their weights."""
    shapes: list[tuple[int, ...]]
    """Of the numbers of each metric."""
    problem: str | None = None


@dataclass(frozen=True, eq=False)
class Step(Judging, Gathering, Sharing, Sizing):
    """What a step is made of; it holds no state. Change a part by `dataclasses.replace`."""

    net: Layer
    loss: Loss
    optimizer: Optimizer
    metrics: Mapping[str, Metric]
    seed: int
    backend: Backend
    dtype: str
    frozen: tuple[str, ...] = ()
    """Patterns of the parameters that keep their bits, such as `"0.*"`."""
    micro: int | None = None
    """Samples that go forward and backward together, if not the whole batch: gradients are added up over all."""
    world: World = field(default_factory=World)
    """The processes that train together, each on its rows of a batch."""
    shards: int | None = None
    """Parts into which every batch is cut, whatever the number of ranks, so that all numbers give the same bits."""
    compiled: Callable[..., Any] | None = field(default=None, repr=False)
    """K steps as the backend compiles them, if another step has them already."""
    measures: Mapping[str, Metric] | None = field(default=None, repr=False)
    """The metrics as they are computed on certain data: see `on`."""

    def __post_init__(self) -> None:
        settle(self, seed=seed(self.seed), dtype=precision("Model", self.dtype))
        if self.shards is not None:
            settle(self, shards=shards("Model", self.shards, self.world))
        if self.world.threads is not None:
            self.backend.use_threads(self.world.threads)
        self.optimizer.check(self.backend.xp.finfo(getattr(self.backend.xp, self.dtype)))
        check_patterns("frozen", self.frozen, self.net.layout)
        self.optimizer.check_patterns(self.net.layout)

    @cached_property
    def run(self) -> Callable[..., Any]:
        """K steps, compiled: `run(carry, fixed, xs) -> carry, results`."""
        if self.compiled:
            return self.compiled
        if self.communicator is not None:
            return self.communicator.compile(self.shared)  # type: ignore[no-any-return]
        shared = self.world.size > 1 or self.shards is not None
        compile = self.backend.one_by_one if shared else self.backend.compile
        return compile(self.shared if shared else self.one, lambda fixed: self.extent(fixed[0]))

    @cached_property
    def native_loss(self) -> Loss:
        """The loss as this library does it, of samples that are not weighed."""
        return self.backend.native(self.loss)

    @cached_property
    def live(self) -> Windows | None:
        """The parts of θ that are trained; None for all."""
        if not self.frozen:
            return None
        kind = self.optimizer.kind
        return choose(self.net.layout, lambda w: not matches(w.name, self.frozen) and kind(w), self.backend.flat)

    @cached_property
    def decayed(self) -> Windows | Groups:
        """What the optimizer treats apart; if some parameters are frozen, its numbers among those that are not."""
        layout, flat = self.net.layout, self.backend.flat
        if self.live is None:
            return self.optimizer.treated(layout, flat)
        starts = {window.start: window for window in layout}
        first = [starts[place.start] if flat else layout[place] for place in self.live.places]
        return self.optimizer.treated(first, flat=False)

    # Vectors like θ

    def carried(self, vector: Array) -> Vector:
        """Return a flat vector in the form that the backend's compiled steps carry."""
        if self.backend.flat:
            return vector
        return self.backend.jit(lambda flat: self.backend.split(flat, self.net.layout))(vector)

    @at_work
    def flat(self, vector: Vector) -> Array:
        """Return a vector as one flat array of its own."""
        xp = self.backend.xp
        if self.backend.flat:
            return xp.asarray(vector, copy=True)
        return xp.concat([xp.reshape(window, (-1,)) for window in vector])

    @at_work
    def start(self, theta: Array, epoch: int = 0) -> State:
        """Return the state before the first step of an optimizer, at this θ, which becomes the state's own."""
        vector = self.carried(theta)
        buffers = self.net.init_buffers(self.backend, self.dtype)
        slots = self.optimizer.init(vector, self.decayed).slots
        return State(vector, slots, buffers, self.backend.asarray(True), 0, epoch)

    # Steps

    def one(self, carry: Any, fixed: Any, x: Any) -> tuple[Any, tuple[Array, ...]]:
        """Do one step, as the backend compiles it: gather, forward, loss, backward, update."""
        (theta, _, buffers, _), (index, key, row) = carry, x
        carried, find = dict(buffers), self.gradient if self.micro is None else self.accumulated
        found = find(theta, carried, fixed, index, key)
        made = self.update(carry, row, found, carried)
        if self._forgets:
            self.backend.reuse()
        return made

    @cached_property
    def _forgets(self) -> bool:
        """Whether an update is known to keep nothing of its gradient: one of a user's own may."""
        return type(self.optimizer).update is Optimizer.update

    def gradient(
        self,
        theta: Vector,
        buffers: dict[str, Array],
        fixed: Parts,
        index: Array,
        key: Any,
        first: Any = 0,
        whole: int | None = None,
    ) -> list[Any]:
        """Return the gradient of some samples' loss, loss, metrics and, if they are weighed, the sum of their weights;
        buffers are rebound.

        Of samples that are a part, and begin at number `first` of a `whole`, all is multiplied by what they count:
        their share of its samples, or their weight.
        """
        batch, target, *weights = self.batch(fixed, index)
        how: dict[str, Any] = {"buffers": buffers, "backend": self.backend, "row": first, "total": self.total}
        prediction, backward = self.net(theta, batch, True, key=key, **how)
        how = {"weights": weights[0]} if weights else {}
        loss = self.loss if weights else self.native_loss
        value, dprediction = loss(prediction, target, **how)
        values = [value, *(metric(prediction, target, **how) for metric in self.measured.values())]
        total = [self.backend.xp.sum(weights[0])] if weights else []
        if whole is not None:
            counted = total[0] if total else index.shape[0] / whole
            dprediction, values = dprediction * counted, [value * counted for value in values]
        return [backward(dprediction), *values, *total]

    def update(
        self, carry: Any, row: Sequence[Any], found: Sequence[Any], carried: dict[str, Array]
    ) -> tuple[Any, tuple[Array, ...]]:
        """Return what is carried on after the optimizer's step on all that is not frozen, and the step's numbers."""
        (theta, slots, buffers, alive), (gradient, loss, *values) = carry, found
        optimizer, live = self.optimizer, self.live
        if live is None:
            made = optimizer.update(theta, gradient, slots, row, alive, self.backend, loss, self.decayed)
            theta, slots = made.theta, made.slots
        else:
            old = [live.of(vector) for vector in (theta, *slots)]
            part, (own, *others) = live.of(gradient), old
            made = optimizer.update(own, part, tuple(others), row, alive, self.backend, loss, self.decayed)
            new = zip((theta, *slots), old, (made.theta, *made.slots), strict=True)
            theta, *whole = (live.put(self.backend.xp, *trio) for trio in new)
            slots = tuple(whole)
        if buffers:
            buffers = {name: self.backend.xp.where(made.alive, new, buffers[name]) for name, new in carried.items()}
        return (theta, slots, buffers, made.alive), (loss, made.norm, *values)

    @at_work
    def many(
        self, state: State, fixed: Parts, block: np.ndarray, meanwhile: Callable[[], None] = lambda: None
    ) -> Outcome:
        """Do K steps on the batches of rows (K, B) of what is on the device, up to the first that is not sound.

        `meanwhile` is called while a device other than the host is at work.
        """
        keys = [random.step_key(self.seed, state.t + k) for k in range(len(block))]
        rows, problem = self._rows(state, len(block))
        if not rows:
            return Outcome(state, np.zeros((0, 0)), np.zeros(0), [], problem)
        xs = (self.backend.asarray(block[: len(rows)]), keys[: len(rows)], rows)
        with self.steadily(), np.errstate(all="ignore"):  # what is not finite is found below
            carry, results = self.run(state[:4], fixed, xs)
        if not self.backend.reads_free:
            meanwhile()
        columns = [self.backend.asnumpy(result) for result in results]  # (K,) or, of a metric, (K, …)
        values = np.concatenate([column.reshape(len(column), -1).T for column in columns], dtype=np.float64)
        sizes = np.full(values.shape[1], float(block.shape[1]))
        if len(fixed) > 2:
            values, sizes = values[:-1], values[-1]
        shapes = [column.shape[1:] for column in columns[2 : 2 + len(self.metrics)]]
        finite: np.ndarray = np.logical_and.reduce(np.isfinite(values[:2]))
        good = len(finite) if finite.all() else int(np.argmin(finite))  # nothing changes from the first bad step on
        theta, slots, buffers, alive = carry
        new = State(theta, slots, buffers, alive, state.t + good, state.epoch)
        if good == len(finite):
            return Outcome(new, values, sizes, shapes, problem)
        new = new._replace(alive=self.backend.asarray(True))
        place, remedy = self._diagnosed(new, fixed, block[good], keys[good])
        problem = told(float(values[0, good]), float(values[1, good]), _place(new), place, remedy)
        return Outcome(new, values[:, :good], sizes[:good], shapes, problem)

    def _diagnosed(self, state: State, fixed: Parts, rows: np.ndarray, key: int) -> tuple[str, str]:
        """Return where a batch that is not sound first went wrong, and a remedy."""
        found = RULE, SLOWER
        for low, high in self.pieces(len(rows)):
            batch = self.batch(fixed, self.backend.asarray(rows[low:high]))
            how = state.theta, state.buffers, batch, key, self.backend
            found = diagnose(self.net, self.loss, *how, low)
            if found[0] not in (NORM, RULE):
                break
        every = self.world.gather(found)
        return next((one for one in every if one[0] not in (NORM, RULE)), found)

    def _rows(self, state: State, count: int) -> tuple[list[tuple[float, ...]], str | None]:
        """Return the numbers of each step, up to the first whose rate is not usable, and what is wrong with that."""
        rows: list[tuple[float, ...]] = []
        varies = callable(self.optimizer.lr)
        for t in range(state.t, state.t + count):
            if varies and not 0.0 <= (rate := self.optimizer.rate(t)) <= self._fastest:
                return rows, (
                    f"the learning rate became {word(rate)} at {_place(state._replace(t=t))}: 0 to "
                    f"{self._fastest:.3g} is expected; theta is as it was before: mend the schedule"
                )
            rows.append(self.optimizer.row(t, self.decayed))
        return rows, None

    @cached_property
    def _fastest(self) -> float:
        return self.optimizer.fastest(self.backend.xp.finfo(getattr(self.backend.xp, self.dtype)))

    @at_work
    def ahead(self, state: State, gradient: Vector) -> Vector:
        """Return θ after one more step of the optimizer at its last rate, done on copies."""

        def copy(vector: Vector) -> Vector:
            return each(lambda array: self.backend.xp.asarray(array, copy=True), vector)

        row = self.optimizer.row(max(state.t - 1, 0), self.decayed)
        slots = tuple(map(copy, state.slots))
        carry: Any = copy(state.theta), slots, {}, None
        return self.update(carry, row, [copy(gradient), None], {})[0][0]

    def on(self, source: Samples, micro: int | None = None) -> "Step":
        """Return the step for certain data: its metrics begin at the network's own threshold, and R² knows the targets.

        The same targets, and as many samples at a time, give the same step, with all that was compiled for it.
        """
        measures = self._fitting
        if metrics.r2 in measures.values():
            measures = {name: metrics.for_data(metric, *source.targets) for name, metric in measures.items()}
        if measures == self.metrics and micro == self.micro:
            return self
        if (measures, micro) not in (known := [(step.measures, step.micro) for step in self._others]):
            other = replace(self, measures=measures, micro=micro, compiled=None)  # what is compiled has others
            self._others.append(other)
            return self._others[-1]
        return self._others[known.index((measures, micro))]

    @cached_property
    def _fitting(self) -> Mapping[str, Metric]:
        return fitting_metrics(self.net, self.metrics)

    @cached_property
    def _others(self) -> list["Step"]:
        return []


def _place(state: State) -> str:
    return f"step {state.t + 1} (epoch {state.epoch + 1})"
