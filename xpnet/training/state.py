"""What training changes: the state that a step takes and gives, and where a run stands."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from xpnet.arrays import Array, Vector
from xpnet.training.history import History


class State(NamedTuple):
    """All that a step changes: a value, exchanged whole. Libraries whose arrays can be written overwrite the old one.

    θ and the optimizer's slots are in the form that the backend's compiled steps carry: one flat array, or windows.
    """

    theta: Vector
    slots: tuple[Vector, ...]
    """The optimizer's vectors."""
    buffers: dict[str, Array]
    """Running statistics of the layers, by path."""
    alive: Array
    """Whether every step of this call was sound: True between calls."""
    t: int = 0
    """Steps done with this optimizer."""
    epoch: int = 0
    """Epochs done."""


@dataclass
class Run:
    """A call of `fit` under way. With the state it is all that is needed to go on, to the same bits."""

    first: int
    """Epochs that were done before it."""
    until: int
    """Epochs that will be done after it."""
    batch_size: int
    accumulate: int = 1
    """Batches whose gradients make one step."""
    data: str | None = None
    """The digest of the training data, where a checkpoint is kept."""
    position: int = 0
    """Samples of the current epoch that were trained on."""
    sums: list[float] = field(default_factory=list)
    """Of loss, gradient norm and metrics, over those samples."""
    weights: list[float] = field(default_factory=list)
    """What the samples count in each sum: their number, or the sum of their weights."""
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    """Of the numbers of each metric, whose sums stand one after the other."""
    seconds: float = 0.0
    """Spent on them."""
    history: History = field(default_factory=History)
    callbacks: list[dict[str, Any]] = field(default_factory=list)
    """What each callback needs to go on."""
    kinds: list[str] = field(default_factory=list)
    """The class of each callback, by which it is found again."""

    def __post_init__(self) -> None:
        if self.sums and not self.weights:  # a file from before samples had weights
            self.weights, self.shapes = [float(self.position)] * len(self.sums), [()] * (len(self.sums) - 2)
