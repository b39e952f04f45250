"""A step and the state it works on, put together: each part can be looked at, and exchanged between calls of fit."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from xpnet.arrays import Array
from xpnet.backends import Backend
from xpnet.backends.base import at_work
from xpnet.errors import DataError, ShapeError
from xpnet.layers import Layer
from xpnet.losses import Loss
from xpnet.metrics import Metric
from xpnet.optimizers import Optimizer
from xpnet.training import parts
from xpnet.training.holder import Holder
from xpnet.training.state import Run, State
from xpnet.training.step import Step
from xpnet.world import World


class Assembly:
    """Holds a step, which is exchanged whole when one of its parts is, and the state, likewise."""

    holder: Holder

    def __repr__(self) -> str:
        step, state = self.step, self.state
        return (
            f"{type(self).__name__}({step.net}, {step.net.size:,} parameters in {step.dtype}, {parts.name(step.loss)}, "
            f"{step.optimizer}, on {step.backend.name} {step.backend.device}, {state.epoch} epochs done)"
        )

    def _repr_html_(self) -> str:
        """Return the layers as a table, for a notebook."""
        from xpnet.training.html import table  # which training itself has no use for

        return table(repr(self).replace(f"{self.net}, ", "", 1), self.net, self.step.shape)

    @property
    def step(self) -> Step:
        """One training step, as it is put together now."""
        return self.holder.step

    @step.setter
    def step(self, step: Step) -> None:
        with self.holder as holder:
            holder.step = step

    # What it is made of

    @property
    def net(self) -> Layer:
        """The network. What is assigned must have the same parameters: θ and the optimizer's state stay."""
        return self.step.net

    @net.setter
    def net(self, net: Layer) -> None:
        parts.check(net, self.loss, self.optimizer)
        for what, of in (("parameters", parts.layout), ("buffers", parts.carried)):
            if of(net) != of(self.net):
                difference = f"the new network has the {what} {of(net)}, the model's are {of(self.net)}"
                raise ShapeError(f"{difference}: make a new Model")
        self._remake(net=net)

    @property
    def loss(self) -> Loss:
        """The loss that is trained on and evaluated."""
        return self.step.loss

    @loss.setter
    def loss(self, loss: Loss) -> None:
        parts.check(self.net, loss, self.optimizer)
        self._remake(loss=loss)

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer. One that is assigned starts with a fresh state; `adjust` changes a setting and keeps it."""
        return self.step.optimizer

    @optimizer.setter
    @at_work
    def optimizer(self, optimizer: Optimizer) -> None:
        parts.check(self.net, self.loss, optimizer)
        with self.holder as holder:
            self._remake(optimizer=optimizer)
            holder.state = self.step.start(self.step.flat(holder.state.theta), holder.state.epoch)._replace(
                buffers=holder.state.buffers
            )

    def adjust(self, **settings: Any) -> None:
        """Change settings of the optimizer and keep what it remembers: `model.adjust(lr=1e-4, clip_norm=1.0)`.

        ValueError for a setting that it has not, or that changes what is remembered: assign `optimizer` for that.
        """
        old = self.optimizer
        try:
            new = replace(old, **settings)
        except TypeError:
            have = ", ".join(vars(old))
            raise ValueError(f"{type(old).__name__} has the settings {have}, got {', '.join(settings)}") from None
        if new.moments != old.moments or new.rule is not old.rule:
            raise ValueError(f"{type(old).__name__}: {', '.join(settings)} changes the rule: assign model.optimizer")
        self._remake(optimizer=new, compiled=self.step.run if set(settings) == {"lr"} else None)

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metrics by name."""
        return dict(self.step.metrics)

    @metrics.setter
    def metrics(self, metrics: parts.Metrics) -> None:
        self._remake(metrics=parts.named(metrics))

    @property
    def frozen(self) -> tuple[str, ...]:
        """Patterns of the parameters that keep their bits, whatever the optimizer remembers of them."""
        return self.step.frozen

    @frozen.setter
    def frozen(self, frozen: Sequence[str]) -> None:
        self._remake(frozen=parts.patterns(frozen))

    def _remake(self, compiled: Any = None, **changed: Any) -> None:
        """Make the step anew with other parts: a compiled step never keeps an old one."""
        with self.holder as holder:
            if holder.run is not None and "metrics" in changed and list(changed["metrics"]) != list(self.step.metrics):
                holder.run = None  # its sums are those of other metrics
            self.step = replace(self.step, **changed, compiled=compiled)

    # What it holds

    @property
    def seed(self) -> int:
        """What decides the first θ, the order of the samples and the dropout masks."""
        return self.step.seed

    @property
    def dtype(self) -> str:
        """The precision of θ and of all that is computed."""
        return self.step.dtype

    @property
    def backend(self) -> Backend:
        """The library and device."""
        return self.step.backend

    @property
    def world(self) -> World:
        """The processes that train together: `world.rank` is this one's number, of `world.size`."""
        return self.step.world

    @property
    def state(self) -> State:
        """All that training changes. Training may overwrite its arrays: `theta` gives a copy."""
        return self.holder.state

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self.holder.state.epoch

    @property
    def underway(self) -> Run | None:
        """The call of `fit` that was cut off and can be resumed, or that is running; None if there is none."""
        return self.holder.run

    @property
    def theta(self) -> Array:
        """A copy of θ, one flat array on the device. What is assigned must have its length, type and device."""
        with self.holder as holder:
            return self.step.flat(holder.state.theta)

    @theta.setter
    @at_work
    def theta(self, theta: Array) -> None:
        xp = self.backend.xp
        dtype = getattr(xp, self.dtype)
        if not self.backend.owns(theta) or theta.shape != (self.net.size,) or theta.dtype != dtype:
            raise ShapeError(f"theta must be a {self.backend.name} {self.dtype} vector of {self.net.size} numbers")
        with np.errstate(invalid="ignore"):
            finite = np.isfinite(self.backend.asnumpy(xp.sum(theta * 0.0)))
        if not finite:
            raise DataError("theta must be finite, got NaN or infinity")
        with self.holder as holder:
            own = self.step.carried(xp.asarray(theta, copy=True))
            holder.state = holder.state._replace(theta=own)

    @property
    def buffers(self) -> dict[str, Array]:
        """A copy of what the network carries, such as running statistics, by path; empty for most networks.

        What is assigned must hold the same names, each with an array of its shape, type and device.
        """
        with self.holder as holder, self.backend.working():
            held, names = holder.state.buffers, parts.carried(self.net)  # compiled steps sort the names
            return {name: self.backend.xp.asarray(held[name], copy=True) for name in names}

    @buffers.setter
    @at_work
    def buffers(self, buffers: Mapping[str, Array]) -> None:
        xp, expected = self.backend.xp, parts.carried(self.net)
        if buffers.keys() != expected.keys():
            names = ", ".join(expected) or "nothing"
            raise ShapeError(f"buffers must hold {names}, got {', '.join(buffers) or 'nothing'}")
        for name, array in buffers.items():
            right = self.backend.owns(array) and array.dtype == getattr(xp, self.dtype)
            if not right or array.shape != expected[name]:
                raise ShapeError(f'buffer "{name}" must be a {self.backend.name} {self.dtype} array {expected[name]}')
            if not np.isfinite(self.backend.asnumpy(array)).all():
                raise DataError(f'buffer "{name}" must be finite, got NaN or infinity')
        own = {name: xp.asarray(buffers[name], copy=True) for name in expected}
        with self.holder as holder:
            holder.state = holder.state._replace(buffers=own)
