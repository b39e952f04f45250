"""The errors and warnings that xpnet raises itself; each message says what was expected, what came, and what to do."""


class BackendError(RuntimeError):
    """A backend was asked for that cannot be used here."""


class ShapeError(ValueError):
    """An array has a shape that a layer, a loss or the model cannot take.

    A layer names itself in `who`; the containers around it add the path to it.
    """

    def __init__(self, problem: str, who: str = "", path: str = "") -> None:
        super().__init__(problem)
        self.problem, self.who, self.path = problem, who, path

    def inside(self, k: int) -> "ShapeError":
        """Return the same error as seen from one container further out."""
        return ShapeError(self.problem, self.who, f"{k}.{self.path}" if self.path else str(k))

    def __str__(self) -> str:
        place = f" at layer {self.path}" if self.path else ""
        return f"{self.who}{place} {self.problem}".strip()


class DataError(ValueError):
    """Data that cannot be trained on: wrong labels, an empty set, a batch size below one."""


class DataWarning(UserWarning):
    """Data that can be trained on, but hardly is what was meant."""


class NonFiniteError(FloatingPointError):
    """A loss or gradient became NaN or infinite; θ is still the last good one."""


class CheckpointError(ValueError):
    """A file that cannot be written, or that is not a sound checkpoint."""
