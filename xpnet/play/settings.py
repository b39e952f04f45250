"""What can be chosen in the playground: closed lists, against which all that a page sends is checked."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from xpnet.checks import shown
from xpnet.errors import DataError

PLANE = ("gaussians", "circles", "xor", "spirals", "own")
"""Data of two numbers a sample; "own" are the points that were drawn."""

ACTIVATIONS = {"tanh": "Tanh", "relu": "ReLU", "leaky relu": "LeakyReLU", "sigmoid": "Sigmoid"}
ACTIVATIONS |= {"elu": "ELU", "gelu": "GELU", "silu": "SiLU"}

LOSSES = {
    "cross-entropy": ("cross_entropy", "labels"),
    "focal": ("focal", "labels"),
    "logistic, a class each": ("binary_cross_entropy", "0 and 1"),
    "squared error": ("mean_squared_error", "0 and 1"),
    "absolute error": ("mean_absolute_error", "0 and 1"),
    "huber": ("huber", "0 and 1"),
    "hinge": ("hinge", "−1 and 1"),
    "perceptron": ("perceptron", "−1 and 1"),
}
"""The name in xpnet, and what stands for a sample's class: its number, or an output each."""

OPTIMIZERS: dict[str, tuple[str, dict[str, float]]] = {
    "SGD": ("SGD", {}),
    "SGD, momentum 0.9": ("SGD", {"momentum": 0.9}),
    "RMSProp": ("RMSProp", {}),
    "Adagrad": ("Adagrad", {}),
    "Adam": ("Adam", {}),
    "AdamW": ("AdamW", {}),
    "NAdam": ("NAdam", {}),
    "Lion": ("Lion", {}),
}

CHOICES: dict[str, tuple[Any, ...]] = {
    "data": (*PLANE, "mnist"),
    "classes": (2, 3, 4),
    "noise": (0.0, 0.02, 0.05, 0.1, 0.2, 0.3),
    "samples": (100, 200, 300, 500, 1000, 5000, 10000),
    "activation": tuple(ACTIVATIONS),
    "dropout": (0.0, 0.1, 0.2, 0.5),
    "loss": tuple(LOSSES),
    "optimizer": tuple(OPTIMIZERS),
    "rate": (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
    "decay": (0.0, 0.0001, 0.001, 0.01, 0.1),
    "batch": (1, 5, 10, 20, 50, 100, 500, 1000),
    "speed": (1, 5, 20, 100, 0),
}
"""`speed` is epochs a second, 0 as many as there can be."""

MOST_LAYERS, MOST_UNITS, MOST_POINTS, MOST_SEED = 4, 32, 600, 9999
EXTENT = 1.25
"""The plane is drawn, and can be drawn on, from −EXTENT to EXTENT along both axes."""

LIMITS = {"plane": (100, 1000, 1), "mnist": (1000, 10000, 10)}
"""Of each kind of data the fewest and the most samples, and the smallest batch, so that an epoch takes moments."""


class Point(NamedTuple):
    """A point that was drawn, and its class."""

    x: float
    y: float
    label: int


@dataclass(frozen=True)
class Settings:
    """All that was chosen; with a number of epochs it says what θ is."""

    data: str = "spirals"
    classes: int = 2
    noise: float = 0.02
    samples: int = 300
    hidden: tuple[int, ...] = (8, 8)
    activation: str = "tanh"
    dropout: float = 0.0
    loss: str = "cross-entropy"
    optimizer: str = "Adam"
    rate: float = 0.03
    decay: float = 0.0
    batch: int = 10
    seed: int = 0
    backend: str = "numpy"
    speed: int = 20
    points: tuple[Point, ...] = ()

    @property
    def kind(self) -> str:
        """What a sample is: a point in the plane, or an image."""
        return "mnist" if self.data == "mnist" else "plane"

    @property
    def outputs(self) -> int:
        """How many classes there are."""
        return {"mnist": 10, "xor": 2}.get(self.data, self.classes)

    def continues(self, other: "Settings") -> bool:
        """Whether what was learned with other settings can be trained further with these."""
        free = {name: getattr(self, name) for name in ("rate", "decay", "batch", "speed", "points")}
        return replace(other, **free) == self


DEFAULTS = {
    **{data: Settings(data=data) for data in PLANE},
    "gaussians": Settings(data="gaussians", noise=0.1, hidden=(4,)),
    "circles": Settings(data="circles", noise=0.05, hidden=(4,)),
    "xor": Settings(data="xor", noise=0.05, hidden=(4,)),
    "own": Settings(data="own", hidden=(8,)),
    "mnist": Settings(
        data="mnist",
        noise=0.0,
        samples=5000,
        hidden=(24,),
        activation="relu",
        rate=0.003,
        decay=0.001,
        batch=50,
        speed=0,
    ),
}
"""Where each kind of data starts: settings that learn it."""


def read(given: Any, backends: tuple[str, ...]) -> Settings:
    """Return the settings that a page has sent; DataError, in a line, if one is missing, unknown or not on its list."""
    names = [field.name for field in fields(Settings)]
    if not isinstance(given, Mapping) or set(given) != set(names):
        raise DataError(f"settings must be an object with {', '.join(names)}, got {shown(given)}")
    chosen = {name: _listed(name, given[name], allowed) for name, allowed in CHOICES.items()}
    chosen["backend"] = _listed("backend", given["backend"], backends)
    chosen["seed"] = _whole("seed", given["seed"], 0, MOST_SEED)
    hidden = _list("hidden", given["hidden"], MOST_LAYERS)
    chosen["hidden"] = tuple(_whole("units of a layer", units, 1, MOST_UNITS) for units in hidden)
    chosen["points"] = tuple(_point(point) for point in _list("points", given["points"], MOST_POINTS))
    settings = Settings(**chosen)
    fewest, most, batch = LIMITS[settings.kind]
    if not fewest <= settings.samples <= most or settings.batch < batch:
        limits = f"{fewest} to {most} samples and batches of at least {batch}"
        raise DataError(f"{settings.data} takes {limits}, got {settings.samples} and {settings.batch}")
    if settings.data == "own" and any(point.label >= settings.classes for point in settings.points):
        raise DataError(f"classes must be more than {settings.classes}: a point of a higher one was drawn")
    return settings


def _listed(name: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    """Return the one of the allowed values that was named: 1 and 1.0 are the same, True is neither."""
    if isinstance(value, (str, int, float)) and not isinstance(value, bool) and value in allowed:
        return allowed[allowed.index(value)]
    raise DataError(f"{name} must be one of {', '.join(map(str, allowed))}, got {shown(value)}")


def _whole(name: str, value: Any, least: int, most: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    raise DataError(f"{name} must be an integer in {least}..{most}, got {shown(value)}")


def _list(name: str, value: Any, most: int) -> list[Any]:
    if isinstance(value, list) and len(value) <= most:
        return value
    raise DataError(f"{name} must be a list of at most {most}, got {shown(value)}")


def _point(value: Any) -> Point:
    """Return [x, y, class] as a point."""
    match value:
        case [int() | float() as x, int() | float() as y, int() as label] if not isinstance(label, bool):
            if abs(x) <= EXTENT and abs(y) <= EXTENT and 0 <= label < CHOICES["classes"][-1]:
                return Point(round(float(x), 3), round(float(y), 3), label)
    limit = f"within {-EXTENT}..{EXTENT}, and a class in 0..{CHOICES['classes'][-1] - 1}"
    raise DataError(f"a point must be [x, y, class], {limit}, got {shown(value)}")
