"""The samples that an estimator was given, as its model reads them: arrays on its device, or a sparse matrix's rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import issparse

from xpnet import Backend, Rows
from xpnet.arrays import Array
from xpnet.interop.objective import scaled


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
    def inputs(self) -> Any:
        """X, as `Model.predict` takes it."""
        return Rows(self.x) if issparse(self.x) else self.x

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
        return Given(*(backend.xp.take(part, there, axis=0) for part in (self.x, self.target)), weights)


@dataclass(frozen=True, eq=False)
class InOrder:
    """A loader of samples that are not shuffled."""

    parts: tuple[Any, ...]
    size: int

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Yield the batches of an epoch; what is sparse becomes dense."""
        for start in range(0, self.parts[0].shape[0], self.size):
            stop = min(start + self.size, self.parts[0].shape[0])
            rows = (part[start:stop] for part in self.parts)
            yield tuple(part.toarray() if issparse(part) else part for part in rows)
