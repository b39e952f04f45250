"""The figure that pictures are drawn on. It imports matplotlib, so it is imported when something is drawn."""

from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure


class Drawing(Figure):
    """A figure that a notebook shows once, also where it is the last line of a cell."""

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """Let pyplot go of what is going to be shown here, so that the end of the cell does not show it again."""
        if not self.canvas.required_interactive_framework:
            plt.close(self)
        return {}
