"""What layers look for and what they find, as images: weights, kernels, feature maps."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.arrays import Array
from xpnet.data import door
from xpnet.errors import DataError, ShapeError
from xpnet.look.plot.canvas import Axes, Sheet, colour, mix, panels, positive, pyplot, ramp
from xpnet.look.plot.images import as_pictures, show
from xpnet.look.plot.numbers import host

if TYPE_CHECKING:
    from xpnet.model import Model


def weights(
    source: "Model | Array",
    shape: tuple[int, int] | None = None,
    count: int = 24,
    titles: Sequence[object] = (),
    figure: Sheet | None = None,
) -> Sheet:
    """Draw the weights of the first units of the first layer as images: blue below zero, orange above.

    `source` is a Model, or a matrix W (I, O); `shape` is the image's, height times width being I; a square if left out.
    """
    matrix = _first_matrix(source) if hasattr(source, "net") else host(source, "weights: the matrix")
    if matrix.ndim != 2 or not matrix.size:
        raise ShapeError(f"weights needs a matrix (I, O), got {matrix.shape}: pass a Model or one matrix")
    inputs, units = matrix.shape
    side = math.isqrt(inputs)
    height, width = (side, side) if shape is None else _pair("weights: shape", shape)
    if height * width != inputs:
        raise ShapeError(f"weights: {inputs} inputs are no image of {height} x {width}: pass shape=(height, width)")
    count = min(positive(count), units)
    titles = list(titles)
    figure, cells = panels(count, figure, (height, width))
    drawn = _signed(matrix[:, :count])
    for unit, ax in enumerate(cells):
        picture = ax.imshow(matrix[:, unit].reshape(height, width), **drawn)
        _title(ax, titles[unit] if unit < len(titles) else f"unit {unit}")
    figure.colorbar(picture, ax=cells, label="weight", shrink=0.8, extend="both")
    return figure


def filters(
    source: "Model | Array",
    layer: int | str | None = None,
    count: int = 24,
    figure: Sheet | None = None,
) -> Sheet:
    """Draw the first kernels of a convolution as images: blue below zero, orange above.

    `source` is a Model, or a weight W (K, L, I, O); `layer` the path of one of the model's convolutions, such as 4 or
    "2.0", left out the first whose kernel is larger than 1×1. A kernel of one channel is one image; one of three, as
    colour pictures have, is drawn in colours, grey being zero; one of more is an image for each channel, row by row.
    """
    weight = _kernels(source, "filters", layer)[1] if hasattr(source, "net") else host(source, "filters: the weight")
    if weight.ndim != 4 or not weight.size:
        raise ShapeError(f"filters needs a weight (K, L, I, O), got {weight.shape}: pass a Model or one weight")
    count = min(positive(count), weight.shape[3])
    kernels, colourful = weight[..., :count], weight.shape[2] == 3
    drawn, columns = _signed(kernels), 1 if colourful else _columns(weight.shape)
    tiled = [kernels[..., k] if colourful else _side_by_side(kernels[..., k], columns) for k in range(count)]
    figure, cells = panels(count, figure, tiled[0].shape)
    for k, ax in enumerate(cells):
        if colourful:
            ax.imshow(np.clip(0.5 + 0.5 * np.nan_to_num(tiled[k]) / drawn["vmax"], 0.0, 1.0))
        else:
            picture = ax.imshow(tiled[k], **drawn)
        _frame(ax, weight.shape, 1 if colourful else weight.shape[2], columns)
        _title(ax, f"filter {k}")
    if not colourful:
        figure.colorbar(picture, ax=cells, label="weight", shrink=0.8, extend="both")
    return figure


def feature_maps(
    model: "Model",
    image: Array,
    layer: int | str | None = None,
    count: int = 23,
    figure: Sheet | None = None,
) -> Sheet:
    """Draw an image, and what the first channels of a layer make of it: blue below zero, orange above.

    `image` is one sample as the network reads it, without the batch axis: (H, W) or (H, W, C). `layer` is a path, such
    as 4 or "2.0", of a layer that gives images; left out, the first convolution whose kernel is larger than 1×1.
    """
    path, maps = _maps(model, image, layer)
    original = host(image)[None, ...]
    seen = original.ndim == 3 or (original.ndim == 4 and original.shape[3] in (1, 3))
    figure, cells = panels(min(positive(count), maps.shape[2]) + seen, figure, maps.shape)
    if seen:
        show([cells[0]], as_pictures("feature_maps", original), ["image"])
    drawn = _signed(maps[..., : len(cells) - seen])
    for k, ax in enumerate(cells[seen:]):
        picture = ax.imshow(maps[..., k], **drawn)
        _frame(ax, maps.shape)
        _title(ax, f"channel {k}")
    figure.colorbar(picture, ax=cells, label=f"output of layer {path}" if path else "output", shrink=0.8, extend="both")
    return figure


def _title(ax: Axes, title: object) -> None:
    ax.set_title(str(title), fontsize="small", pad=3)


def _signed(values: np.ndarray) -> dict[str, Any]:
    """Return how images of both signs are drawn, on one scale: zero is the paper, the few largest are cut off."""
    sizes = np.abs(values[np.isfinite(values)])
    limit = (float(np.quantile(sizes, 0.998)) if sizes.size else 0.0) or 1.0
    shades = ramp("signed", colour(0), pyplot().rcParams["axes.facecolor"], colour(1))
    return {"cmap": shades, "vmin": -limit, "vmax": limit}


def _columns(shape: tuple[int, ...]) -> int:
    """Return how many images of a kernel (K, L, I, …), one for each channel, stand in a row: few gaps, about square."""
    count, square = shape[2], math.sqrt(shape[2] * shape[0] / shape[1])
    return max(range(1, count + 1), key=lambda n: (-(-count % n) / count - abs(math.log(n / square)), n))


def _side_by_side(kernel: np.ndarray, columns: int) -> np.ndarray:
    """Return a kernel (K, L, I) as one image, that of each channel beside the last, row by row."""
    height, width, channels = kernel.shape
    image = np.full((math.ceil(channels / columns) * height, columns * width), np.nan)
    for k in range(channels):
        i, j = k // columns * height, k % columns * width
        image[i : i + height, j : j + width] = kernel[..., k]
    return image


def _frame(ax: Axes, shape: tuple[int, ...], count: int = 1, columns: int = 1) -> None:
    """Draw a line around each of the images of this height and width: what is zero has the colour of the paper."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    params, (height, width) = pyplot().rcParams, shape[:2]
    boxes = [Rectangle((k % columns * width - 0.5, k // columns * height - 0.5), width, height) for k in range(count)]
    line = mix(params["axes.facecolor"], params["text.color"], 0.5)
    lines = PatchCollection(boxes, facecolor="none", edgecolor=line, linewidth=0.6, clip_on=False)
    ax.add_collection(lines, autolim=False)


def _pair(who: str, pair: object) -> tuple[int, int]:
    """Return two whole numbers; ValueError if they are no such."""
    numbers = host(pair, who)
    if numbers.shape != (2,) or numbers.dtype.kind not in "iu":
        raise ValueError(f"{who} must be two integers, got {pair!r}")
    return int(numbers[0]), int(numbers[1])


def _first_matrix(model: "Model") -> np.ndarray:
    for window in model.net.windows(model.theta).values():
        if window.ndim == 2:
            return host(window)
    raise DataError("weights: the network has no matrix of weights")


def _kernels(model: "Model", who: str, layer: int | str | None) -> tuple[str, np.ndarray]:
    """Return the path of a convolution and its weight; DataError says which there are."""
    windows = model.net.windows(model.theta).items()
    kernels = {name.rpartition(".")[0]: window for name, window in windows if window.ndim == 4}
    path = next((p for p, w in kernels.items() if max(w.shape[:2]) > 1), None) if layer is None else str(layer)
    if path is None:
        raise DataError(f"{who}: the network has no convolution with a kernel above 1×1")
    if path not in kernels:
        raise DataError(f'{who}: layer "{path}" is no convolution: choose {_choice(kernels)}')
    return path, host(kernels[path])


def _maps(model: "Model", image: Array, layer: int | str | None) -> tuple[str, np.ndarray]:
    """Return the path of a layer and what it gives for an image, (H, W, C); DataError says which layers there are."""
    path = _kernels(model, "feature_maps", None)[0] if layer is None else str(layer)
    backend, seen = model.backend, dict[str, Array]()
    x = backend.xp.expand_dims(door.place("image", image, backend, model.dtype), axis=0)
    y, _ = model.net(model.theta, x, buffers=model.buffers, watch=seen.__setitem__, backend=backend)
    seen = seen or {"": y}  # a network that is one layer
    maps = {place: array for place, array in seen.items() if array.ndim == 4}
    if path not in maps:
        gives = f"gives {tuple(seen[path].shape)}, no images (1, H, W, C)" if path in seen else "does not exist"
        raise DataError(f'feature_maps: layer "{path}" {gives}: choose {_choice(maps)}')
    return path, host(maps[path])[0]


def _choice(paths: Any) -> str:
    """Name the paths that can be chosen."""
    return "one of " + ", ".join(f'"{path}"' for path in paths) if paths else "another network, this one has none"
