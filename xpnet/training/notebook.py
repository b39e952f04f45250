"""Whether this is a notebook, and the curves that grow there while training runs."""

import sys
import time
from importlib import import_module
from typing import Any

OWN = ("epoch", "learning_rate", "gradient_norm", "max_weight", "seconds")
"""What a history records besides the loss and the metrics: it is not shown."""
REDRAWN = 0.5
"""Seconds between two pictures of a curve that grows, at least."""


def in_notebook() -> bool:
    """Whether this is a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def cell() -> int | None:
    """Return the number of the notebook's cell that runs now; None outside of notebooks."""
    return int(sys.modules["IPython"].get_ipython().execution_count) if in_notebook() else None


class Curve:
    """The curves of a run below its cell, drawn anew after an epoch, but not oftener than twice a second."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._drawn, self._history = 0.0, None

    def draw(self, history: Any) -> None:
        """Draw, if it is time."""
        self._history = history
        if time.monotonic() - self._drawn >= REDRAWN:
            self.close()

    def close(self) -> None:
        """Draw the end."""
        history, self._history = self._history, None
        if history is None:
            return
        notebook = import_module("IPython.display")
        picture = notebook.HTML(history.html())
        if self._handle is None:
            self._handle = notebook.display(picture, display_id=True)
        else:
            self._handle.update(picture)
        self._drawn, history.cell = time.monotonic(), cell()
