"""One epoch's line on a screen: a bar and numbers, as many as there is room for. tqdm draws it."""

from collections.abc import Sequence

from tqdm import tqdm
from tqdm.utils import disp_len

COLUMNS = 80
"""Of a screen that does not say how wide it is."""

GAUGE = "{percentage:3.0f}%|{bar}| "


class Line(tqdm):  # type: ignore[misc]
    """An epoch's name, a bar, the numbers, the time left, and how fast it goes.

    It fits the screen. What is left out first is how many samples were done, then the speed, the bar, the metrics from
    the last on, the time left; the loss and the epoch stay. When the epoch is `over`, there is no bar.
    """

    numbers: Sequence[str] = ()
    over = False

    def __str__(self) -> str:
        known = self.format_dict
        columns = max(known["ncols"] or 0, 0) or COLUMNS
        for count in range(len(self._wishes()), -1, -1):
            form = self._form(count)
            if disp_len(self.format_meter(**known | {"bar_format": form, "ncols": None})) <= columns:
                break
        return str(self.format_meter(**known | {"bar_format": form, "ncols": columns}))

    def _wishes(self) -> list[tuple[int, str]]:
        """Return what might stand on the line, the most important first, each with its place."""
        numbers = [(1 + k, number.replace("{", "{{").replace("}", "}}")) for k, number in enumerate(self.numbers)]
        last, speed = len(numbers), "{rate_fmt}"
        if self.over or not self.total:
            return [*numbers, (last + 1, "{elapsed}"), (last + 2, speed), (last + 3, "{n_fmt}")]
        left, done = (last + 1, "{remaining} left"), (last + 3, "{n_fmt}/{total_fmt}")
        return [*numbers[:1], left, *numbers[1:], (0, GAUGE), (last + 2, speed), done]

    def _form(self, count: int) -> str:
        """Return the line with the most important of it, for tqdm to fill in."""
        chosen = sorted(self._wishes()[:count])
        gauge = GAUGE if chosen and chosen[0][0] == 0 else ""
        return f"{{desc}} {gauge}{', '.join(text for place, text in chosen if place)}"
