"""What a network's graph is made of: boxes one below the other, side by side, and around a shortcut.

Lengths are in boxes: a box is 1 wide, and with its arrow 2.2 high. y grows downwards.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from xpnet.look.plot.canvas import Axes, colour, mix, pyplot

BOX, ARROW, JOIN = 1.2, 1.0, 1.3
"""How high a box is, the arrow below it, and the circle where branches meet, with its arrow."""

HIGHEST, WIDEST = 62.0, 5.5
"""What is drawn at most, about 21 by 16 inches."""

LANE = 0.3
"""How wide the lane of a shortcut is."""

LETTERS = 32


class Block:
    """Part of a graph: `width`, `height` (its last arrow included), `size` (parameters), `out` (the shape it gives)."""

    width: float
    height: float
    size: int
    out: str

    def draw(self, ax: Axes, x: float, y: float) -> None:
        """Draw it below y, its middle at x; the last arrow ends at y + height."""
        raise NotImplementedError


@dataclass
class Box(Block):
    """A layer: its name, its path, how many parameters it has, and below it an arrow with the shape that it gives."""

    name: str
    path: str
    size: int
    out: str
    width, height = 1.0, BOX + ARROW

    def draw(self, ax: Axes, x: float, y: float) -> None:
        from matplotlib.patches import FancyBboxPatch

        ink, paper = pyplot().rcParams["text.color"], ax.get_facecolor()
        fill = mix(paper, colour(0), 0.22) if self.size else mix(paper, ink, 0.06)
        style = "round,pad=0,rounding_size=0.05"
        edge = mix(paper, colour(0) if self.size else ink, 0.7)
        ax.add_patch(
            FancyBboxPatch(
                (x - 0.46, y), 0.92, BOX, boxstyle=style, mutation_aspect=5.0, facecolor=fill, edgecolor=edge
            )
        )
        name = self.name if len(self.name) <= LETTERS else f"{self.name[: LETTERS - 1]}…"
        count = f"{self.size:,} parameters" if self.size else ""
        below = " · ".join(word for word in (self.path, count) if word)
        ax.text(x, y + 0.42, name, ha="center", va="center", fontsize="small", color=ink)
        ax.text(x, y + 0.88, below, ha="center", va="center", fontsize="x-small", color=mix(paper, ink, 0.7))
        arrow(ax, x, y + BOX, y + self.height, self.out)


@dataclass
class Chain(Block):
    """One after the other."""

    blocks: list[Block]

    @cached_property
    def width(self) -> float:  # type: ignore[override]
        """That of the widest."""
        return max((block.width for block in self.blocks), default=1.0)

    @cached_property
    def height(self) -> float:  # type: ignore[override]
        """That of all; of none that of an arrow."""
        return sum(block.height for block in self.blocks) or ARROW

    @cached_property
    def size(self) -> int:  # type: ignore[override]
        """All parameters."""
        return sum(block.size for block in self.blocks)

    @cached_property
    def out(self) -> str:  # type: ignore[override]
        """What the last gives."""
        return self.blocks[-1].out if self.blocks else ""

    def draw(self, ax: Axes, x: float, y: float) -> None:
        if not self.blocks:
            ax.plot((x, x), (y, y + ARROW), color=_line(ax), linewidth=1.0)
        for block in self.blocks:
            block.draw(ax, x, y)
            y += block.height


class Shortcut(Chain):
    """One after the other, and x goes round them and is added to what they give."""

    def __init__(self, blocks: list[Block], shape: str) -> None:
        super().__init__(blocks)
        self.shape = shape

    @cached_property
    def width(self) -> float:  # type: ignore[override]
        """That of the widest, and the lane."""
        return max((block.width for block in self.blocks), default=1.0) + 2 * LANE

    @cached_property
    def height(self) -> float:  # type: ignore[override]
        """That of all, and where the two meet."""
        return 0.4 + (sum(block.height for block in self.blocks) or ARROW) + JOIN

    def draw(self, ax: Axes, x: float, y: float) -> None:
        end, side = y + self.height - JOIN, x + self.width / 2 - LANE / 2
        ax.plot((x, x), (y, y + 0.4), color=_line(ax), linewidth=1.0)
        super().draw(ax, x, y + 0.4)
        ax.plot((x, side, side, x + 0.05), (y + 0.15, y + 0.15, end + 0.2, end + 0.2), color=_line(ax), linewidth=1.0)
        _meet(ax, x, end, "+", self.shape)


class Beside(Block):
    """Side by side, from one x or each from its own, and joined."""

    def __init__(self, blocks: list[Block], join: str, shape: str) -> None:
        self.blocks, self.join, self.out = blocks, join, shape
        self.width = sum(block.width for block in blocks)
        self.inner = max(block.height for block in blocks)
        self.height = 0.6 + self.inner + JOIN
        self.size = sum(block.size for block in blocks)

    def draw(self, ax: Axes, x: float, y: float) -> None:
        left, end, line = x - self.width / 2, y + self.height - JOIN, _line(ax)
        places = []
        for block in self.blocks:
            middle = left + block.width / 2
            left += block.width
            places.append(middle)
            ax.plot((middle, middle), (y + 0.25, y + 0.6), color=line, linewidth=1.0)
            block.draw(ax, middle, y + 0.6)
            ax.plot((middle, middle), (y + 0.6 + block.height, end + 0.2), color=line, linewidth=1.0)
        ax.plot((x, x), (y, y + 0.25), color=line, linewidth=1.0)
        for height in (y + 0.25, end + 0.2):
            ax.plot((places[0], places[-1]), (height, height), color=line, linewidth=1.0)
        _meet(ax, x, end, self.join, self.out)


def arrow(ax: Axes, x: float, start: float, end: float, shape: str) -> None:
    """Draw an arrow down, and what runs along it."""
    style = {"arrowstyle": "-|>", "color": _line(ax), "linewidth": 1.0, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", (x, end), (x, start), arrowprops=style)
    ax.text(x + 0.04, (start + end) / 2, shape, ha="left", va="center", fontsize="x-small")


def _meet(ax: Axes, x: float, y: float, join: str, shape: str) -> None:
    """Draw where branches come together, and the arrow from there."""
    paper = ax.get_facecolor()
    box = {"boxstyle": "round,pad=0.25", "facecolor": mix(paper, colour(3), 0.35), "edgecolor": _line(ax)}
    arrow(ax, x, y + 0.2, y + JOIN, shape)
    ax.text(x, y + 0.2, join, ha="center", va="center", fontsize="x-small", bbox=box)


def _line(ax: Axes) -> Any:
    return mix(ax.get_facecolor(), pyplot().rcParams["text.color"], 0.65)
