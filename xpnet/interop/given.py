"""The samples that an estimator was given, as its model reads them: arrays on its device, or a sparse matrix's rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import issparse

from xpnet import Backend, Model, Rows
from xpnet.arrays import Array
from xpnet.interop.objective import scaled
from xpnet.training.sizing import BATCH

NUMBERS = 1 << 24
"""Of sparse rows, that are dense at a time for a prediction."""


def predict(model: Model, x: Any) -> Array:
    """Return the model's output for X, which may be sparse."""
    if issparse(x):
        return model.predict(Rows(x), min(BATCH, max(1, NUMBERS // x.shape[1])))
    return model.predict(x)


@dataclass(frozen=True, eq=False)
class Given:
    """X on the device, or sparse on the host, where it becomes dense a batch at a time; targets beside it; weights."""

    x: Any
    target: Array
    weights: np.ndarray | None
    """Of the samples, on the host, as they came; None if all weigh the same."""

    def __len__(self) -> int:
        return int(self.x.shape[0])

    @property
    def parts(self) -> tuple[Any, ...]:
        """X, targets and, if there are any, weights of a mean of 1."""
        return tuple(part for part in (self.x, self.target, scaled(self.weights)) if part is not None)

    @property
    def arguments(self) -> tuple[Any, Any, Any]:
        """X, y and weights, as `Model.fit` takes them; a source stands alone."""
        if issparse(self.x):
            return Rows(*self.parts), None, None
        return self.x, self.target, scaled(self.weights)

    @property
    def validation(self) -> Any:
        """The samples, as `Model.fit` takes a validation set."""
        return Rows(*self.parts) if issparse(self.x) else self.parts

    def in_order(self, size: int) -> Any:
        """Return the batches of that size, one after the other as the samples lie."""
        return InOrder(self.parts, size) if issparse(self.x) else list(InOrder(self.parts, size))

    def some(self, rows: np.ndarray, backend: Backend) -> "Given":
        """Return some of the samples."""
        weights = None if self.weights is None else self.weights[rows]
        if issparse(self.x):
            return Given(self.x[rows], self.target[rows], weights)
        there = backend.asarray(rows.astype(np.int32))
        x, target = (backend.xp.take(part, there, axis=0) for part in (self.x, self.target))
        return Given(x, target, weights)


@dataclass(frozen=True, eq=False)
class InOrder:
    """A loader of samples that are not shuffled."""

    parts: tuple[Any, ...]
    size: int

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Yield the batches of an epoch; what is sparse becomes dense."""
        for start in range(0, self.parts[0].shape[0], self.size):
            stop = min(start + self.size, self.parts[0].shape[0])
            rows = slice(start, stop)
            yield tuple(part[rows].toarray() if issparse(part) else part[rows, ...] for part in self.parts)
