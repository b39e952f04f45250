"""Which weights read flattened images: their features are in the order (H, W, C) here, in PyTorch in (C, H, W).

The axes of a convolution's weight say how it is turned. Those of a Linear after Flatten do not: its rows are pixels and
channels, of which the network alone tells how many there are. Here the channels are followed through the network, and
what cannot be told is refused: a weight turned wrongly would give wrong numbers, and no error.
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple, NoReturn

from xpnet.errors import CheckpointError
from xpnet.layers import (
    AvgPool2d,
    BatchNorm,
    Channels,
    Conv1d,
    Conv2d,
    ConvTranspose2d,
    Cutout,
    Dropout,
    Dropout2d,
    Flatten,
    GlobalAvgPool2d,
    GroupNorm,
    Layer,
    LayerNorm,
    Linear,
    MaxPool2d,
    Parallel,
    PReLU,
    RandomAffine,
    RandomCrop,
    RandomFlip,
    RandomRotate,
    RandomShift,
    Residual,
    RMSNorm,
    Scale,
    Sequential,
    Shared,
    Standardize,
    Upsample,
    activations,
)

CONVOLUTIONS = (Conv1d, Conv2d, ConvTranspose2d)
CHANGING = (RandomShift, RandomFlip, RandomCrop, Cutout, RandomRotate, RandomAffine)
KEEPING = (MaxPool2d, AvgPool2d, Upsample, Dropout2d, *CHANGING)
"""Of images make images of as many channels."""
ELEMENTWISE = (Dropout, Scale, Standardize)
IMAGES = (*CONVOLUTIONS, *KEEPING, GlobalAvgPool2d, Channels)
BY_CHANNEL = (BatchNorm, GroupNorm, LayerNorm, RMSNorm, PReLU)
"""Whose parameters belong to one channel each, or to one feature of rows."""
FIRST = (BatchNorm, GroupNorm, PReLU)
"""Of those the ones that in PyTorch take the second axis for the channels, not the last."""
REMEDY = "carry the layers over one by one, and put what reads flattened images in the order (C, H, W) yourself"


class Seen(NamedTuple):
    """What is known of an array on its way."""

    kind: str
    """ "given": the same on both sides; "images": channels last here, first there; "rows": (N, features); "unknown"."""
    channels: int | None = 1
    """Of images; of rows the number of channels that each pixel's features are, None if nobody knows."""
    who: str = ""
    """What made an unknown array."""


SAME = Seen("rows")
"""Rows whose features are in one order on both sides."""


def interleaved(net: Layer) -> dict[str, int]:
    """Return by path the parameters and buffers whose first axis is pixels × channels, and how many channels there are.

    CheckpointError where that cannot be known.
    """
    kinds = {type(layer) for layer in _within(net)}
    images = bool(kinds & set(IMAGES)) or any(len(p.axes) > 2 for p in net.parameters())
    if not images and not kinds & set(FIRST):
        return {}
    found: dict[str, int] = {}
    _follow(net, "", Seen("images", None) if images else Seen("given"), found)
    shared: dict[str, int] = {}
    for p in net.parameters():
        if p.shared and shared.setdefault(p.shared, found.get(p.name, 1)) != found.get(p.name, 1):
            _refuse(f'"{p.shared}" is shared by places that read flattened images and others that do not')
    return found


def held(layer: Any) -> Iterator[Layer]:
    """Yield the layers that are a layer's fields, or in them."""
    values = [getattr(layer, field.name) for field in fields(layer)] if is_dataclass(layer) else []
    for value in values:
        inside = value if isinstance(value, (tuple, list)) else [value]
        yield from (item for item in inside if isinstance(item, Layer))


def _within(layer: Layer) -> Iterator[Layer]:
    """Yield a layer and all that it is made of."""
    yield layer
    for part in held(layer):
        yield from _within(part)


def _refuse(why: str) -> NoReturn:
    raise CheckpointError(f"the order of features in PyTorch cannot be known, {why}: {REMEDY}")


def _follow(layer: Layer, path: str, x: Seen, found: dict[str, int]) -> Seen:
    """Return what a layer makes of an array; what reads flattened images is noted in `found`."""
    kind = type(layer)
    if kind is Shared:
        return _follow(layer.layer, path, x, found)  # type: ignore[attr-defined]
    if kind in (Sequential, Residual, Parallel):
        return _through(layer, path, x, found)  # type: ignore[arg-type]
    name = f"{layer} at layer {path}" if path else str(layer)
    if kind in IMAGES:
        return _of_images(layer, name, x)
    if kind is Flatten:
        return {"images": Seen("rows", x.channels), "given": SAME}.get(x.kind, x)
    if kind is Linear:
        if x.kind == "unknown":
            _refuse(f"{name} reads what {x.who} has made")
        if x.kind == "rows":
            _note(layer, name, path, x, found)
        return SAME
    if kind in ELEMENTWISE or (kind.__module__ == activations.__name__ and getattr(layer, "n", 1) == 1):
        return x
    if kind in BY_CHANNEL:
        return _by_channel(layer, name, path, x, found)
    return _own(layer, name, x)


def _through(net: Sequential, path: str, x: Seen, found: dict[str, int]) -> Seen:
    """Return what a container makes of an array."""
    name = f"{type(net).__name__} at layer {path}" if path else type(net).__name__
    paths = [f"{path}.{k}" if path else str(k) for k in range(len(net.layers))]
    if isinstance(net, Parallel):
        branches = [_follow(layer, p, x, found) for layer, p in zip(net.layers, paths, strict=True)]
        return _met(branches, net.join, name)
    y = x
    for layer, p in zip(net.layers, paths, strict=True):
        y = _follow(layer, p, y, found)
    return _met([x, y], "add", name) if type(net) is Residual else y


def _met(seen: Sequence[Seen], join: Any, name: str) -> Seen:
    """Return what arrays are that were added, or put side by side."""
    kinds = {x.kind for x in seen}
    orders = {x.channels for x in seen if x.kind == "rows"}
    if "unknown" in kinds or callable(join):
        return Seen("unknown", who=name)
    if orders == {1}:
        return SAME  # what is joined with rows is rows
    if orders and (join == "concat" or len(orders) > 1 or len(kinds) > 1):
        _refuse(f"{name} joins flattened images with others")
    if orders or kinds == {"given"}:
        return seen[0]
    counts = [x.channels for x in seen if x.kind == "images"]
    if join == "concat":
        total = sum(counts) if kinds == {"images"} and None not in counts else None  # type: ignore[arg-type]
        return Seen("images", total)
    return Seen("images", next((count for count in counts if count is not None), None))


def _of_images(layer: Layer, name: str, x: Seen) -> Seen:
    """Return what a layer makes that reads images."""
    if x.kind in ("rows", "given"):
        _refuse(f"{name} reads images that were made of rows")
    if type(layer) is GlobalAvgPool2d:
        return SAME
    if isinstance(layer, CONVOLUTIONS):
        return Seen("images", layer.nout)
    if type(layer) is Channels:
        return Seen("images", 1)
    return Seen("images", x.channels if x.kind == "images" else None)


def _by_channel(layer: Any, name: str, path: str, x: Seen, found: dict[str, int]) -> Seen:
    """Return what a layer makes whose n are the channels, or all features of rows."""
    if x.kind == "rows":
        if type(layer) is GroupNorm and x.channels != 1:
            _refuse(f"{name} cuts flattened images into groups")
        _note(layer, name, path, x, found)
        return x
    return x if x.kind == "given" and type(layer) not in FIRST else Seen("images", layer.n)


def _own(layer: Layer, name: str, x: Seen) -> Seen:
    """Return what a layer makes that is not of this package: nothing is known but what its classes say."""
    within = {type(part) for part in _within(layer)}
    linear = Linear in within or any(len(p.axes) == 2 for p in layer.parameters())
    flat = x.kind == "given" or x == SAME
    if x.kind == "rows" and not flat:
        _refuse(f"{name} reads flattened images")
    if flat and (within & set(IMAGES) or (Flatten in within and within & set(FIRST))):
        _refuse(f"{name} makes images of rows")
    if not flat and (linear or Flatten in within):
        _refuse(f"{name} reads images, and may flatten them")
    if flat:
        return Seen("given")
    keeps = type(layer).output_shape is Layer.output_shape and len(within) == 1
    return x if keeps else Seen("unknown", who=name)


def _note(layer: Layer, name: str, path: str, x: Seen, found: dict[str, int]) -> None:
    """Note of a layer's parameters and buffers that their first axis is pixels × channels."""
    for p in (*layer.parameters(), *layer.buffers()):
        if x.channels == 1 or p.shape == (1,) or (type(layer) is Linear and p.name == "bias"):
            continue
        if x.channels is None:
            _refuse(f"{name} reads flattened images whose number of channels no layer tells")
        if p.shape[0] % x.channels:
            raise CheckpointError(f"{name} cannot read flattened images of {x.channels} channels")
        if p.shape[0] > x.channels:
            found[f"{path}.{p.name}" if path else p.name] = x.channels
