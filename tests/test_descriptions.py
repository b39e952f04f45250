"""What goes into a description comes back as it was, and what would not is refused by name."""

import json
import math
from dataclasses import dataclass, field
from enum import Enum
from functools import partial

import numpy as np
import pytest

import xpnet as xn
from xpnet.errors import CheckpointError
from xpnet.files import description


@dataclass(frozen=True)
class Held(xn.Layer):
    value: object = None

    def forward(self, params, x, ctx):
        return x, lambda dy, need_dx=True, out=(): (dy, ())


@dataclass(frozen=True)
class Twice(Held):
    double: object = field(init=False, default=None)

    def __post_init__(self):
        object.__setattr__(self, "double", 2 * self.value)


class Tagged(Held):
    def __init__(self, value, tag="none"):
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "tag", tag)
        object.__setattr__(self, "_cache", object())


class Square(xn.Sequential):
    def __init__(self, n):
        super().__init__(xn.Linear(n, n), xn.ReLU())


class Named(xn.Sequential):
    pass


@dataclass(frozen=True)
class Wide(xn.Sequential):
    pass


class Linear(Held):
    """Not xpnet's."""


class Mode(Enum):
    FAST = 1


def own(prediction, target):
    return prediction


CUSTOM = [Held, Twice, Tagged, Named, Wide, Linear, own, np.tanh]


def local():
    def inner():
        pass

    return inner


def back(value):
    return description.from_data(json.loads(json.dumps(description.to_data(value), allow_nan=False)), CUSTOM)


@pytest.mark.parametrize(
    "value",
    [
        partial(xn.huber, delta=2.0), partial(own, 1, more=(1, "two")), partial(xn.metrics.r2), own, np.tanh,
        Held([1, (2, [3.5])]), Held((xn.ReLU(), xn.cosine(0.1, 5))), Held(partial(own, [1])), Held(xn.huber),
        Held(True),
        Twice(3), Tagged(2), Named(xn.ReLU(), Named()), Wide((xn.Linear(2, 2), Held("x"))), Linear(1), xn.Linear(1, 2),
        xn.Sequential(xn.Residual(Named(Held(2)))), xn.SGD(partial(own, 2)), None, 2.5, "text", True, 2**70,
    ],
    ids=str,
)  # fmt: skip
def test_what_can_be_described_comes_back_as_it_was(value):
    found = back(value)
    assert type(found) is type(value)
    assert description.to_data(found) == description.to_data(value)
    if isinstance(value, partial):
        assert (found.func, found.args, found.keywords) == (value.func, value.args, value.keywords)
    elif "partial" not in str(value):  # one partial never equals another
        assert found == value


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "uint8", "bool", ">f8"])
@pytest.mark.parametrize("shape", [(3,), (2, 3), (), (0, 2)])
def test_arrays_as_settings_come_back_to_the_last_bit(dtype, shape):
    array = np.asarray(np.random.default_rng(0).normal(0, 50, shape)).astype(dtype)
    found = back(Held(array)).value
    assert np.array_equal(found, array)
    assert (found.shape, found.dtype) == (array.shape, array.dtype.newbyteorder("="))


@pytest.mark.parametrize(
    ("number", "plain"),
    [
        (np.float32(0.1), float(np.float32(0.1))),
        (np.int8(3), 3),
        (np.bool_(True), True),
        (np.float64(1), 1.0),
        (np.str_("ü"), "ü"),
    ],
)
def test_numpys_numbers_become_plain_ones(number, plain):
    found = back(Held(number)).value
    assert found == plain
    assert type(found) is type(plain)


def broken(value):
    made = Twice(1)
    object.__setattr__(made, "double", value)
    return made


FROZEN = "a frozen dataclass all of whose fields __init__ takes"
REFUSED = {
    "lambda": (
        lambda: xn.Linear(2, 3, initializer=lambda rng, shape: 0),
        r"^Linear\.initializer: a lambda cannot be saved: define it with def"
    ),
    "rate": (lambda: xn.SGD(lambda step: 0.1), r"^SGD\.lr: a lambda cannot be saved"),
    "loss": (lambda: lambda a, b: 0, "^a lambda cannot be saved: define it with def at the top of a module"),
    "local": (local, "^inner, a function within a function, cannot be saved: define it with def"),
    "partial": (lambda: partial(local()), "^inner, a function within a function, cannot"),
    "setting of a partial": (lambda: partial(own, by={}), r"^partial\.by: a dict cannot be saved"),
    "method": (lambda: Held().forward, "^the method forward of an object cannot be saved"),
    "class": (
        lambda: Held(xn.ReLU),
        r"^Held\.value: the class ReLU cannot be saved, an instance can: add \(\)$"
    ),
    "dict": (lambda: Held({1: 2}), r"^Held\.value: a dict cannot be saved: give a tuple, of pairs if need be$"),
    "set": (lambda: Held((1, {1})), r"^Held\.value: a set cannot be saved"),
    "enum": (lambda: Held(Mode.FAST), r"^Held\.value: Mode\.FAST cannot be saved: give its value$"),
    "complex": (lambda: Held(1j), r"^Held\.value: 1j cannot be saved: a setting is a real number, a text"),
    "NumPy's complex": (lambda: Held(np.complex64(1)), r"cannot be saved: a setting is a real number"),
    "time": (lambda: Held(np.datetime64("2020")), r"cannot be saved: a setting is a real number"),
    "bytes": (lambda: Held(b"x"), r"cannot be saved: a setting is a real number"),
    "NaN": (
        lambda: Held(math.nan),
        r"^Held\.value: nan cannot be saved: give a finite number, or None for no limit$"
    ),
    "infinity": (lambda: Held(np.float32("inf")), r"^Held\.value: inf cannot be saved"),
    "NaN in an array": (
        lambda: Held(np.array([1.0, np.nan])),
        r"^Held\.value: an array with NaN or infinity cannot"
    ),
    "large": (
        lambda: Held(np.ones(10_001)),
        r"^Held\.value: an array of 10001 numbers is too large for a setting"
    ),
    "array of objects": (lambda: Held(np.array([None])), r"^Held\.value: an array of object cannot be saved"),
    "mask": (
        lambda: Held(np.ma.masked_equal([1, 2], 2)),
        r"^Held\.value: an array of int64 cannot be saved: give a plain one"
    ),
    "own __init__": (
        lambda: xn.Sequential(Square(3)),
        rf"^Square cannot be built back \(.*missing 1 required positional argument: 'n'\): "
        rf"make it {FROZEN}, or a function that returns a Sequential$"
    ),
    "lost attribute": (
        lambda: Tagged(1, "some"),
        rf"^Tagged\.tag would not come back from a file: make Tagged {FROZEN}$"
    ),
    "lost field": (lambda: broken(7), rf"^Twice\.double would not come back from a file: make Twice {FROZEN}$"),
    "inside": (lambda: xn.Residual(Held(broken(7))), r"^Twice\.double would not come back"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_would_not_come_back_is_refused_by_name(what):
    make, text = REFUSED[what]
    with pytest.raises(CheckpointError, match=text) as caught:
        description.to_data(make())
    assert "\n" not in str(caught.value)


def test_what_would_not_come_back_is_not_saved(tmp_path):
    model = xn.Model(xn.Sequential(Square(3)), xn.mean_squared_error, xn.SGD(0.1), backend="numpy")
    with pytest.raises(CheckpointError, match="Square cannot be built back"):
        model.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_two_things_of_one_name_are_refused():
    def other():
        pass

    other.__name__, other.__qualname__ = "own", "own"
    with pytest.raises(CheckpointError, match=r'^two things are called "own": give one of them another name$'):
        description.describe(loss=own, metrics=(other,))
    assert description.describe(loss=own, metrics=(own,)) == {
        "loss": {"is": "custom.own"},
        "metrics": [{"is": "custom.own"}],
    }
    with pytest.raises(ValueError, match=r'^custom holds two things called "own"'):
        description.from_data({"is": "custom.own"}, [own, other])
    with pytest.raises(ValueError, match=r"^custom must hold classes and functions, got 3$"):
        description.from_data({"is": "custom.own"}, [own, 3])


def test_an_array_that_is_described_falsely_is_refused():
    good = description.to_data(np.ones((2, 3)))
    for key, value in {"dtype": "object", "shape": [4], "of": [1.0]}.items():
        with pytest.raises(ValueError, match=r"array"):
            description.from_data(good | {key: value})
