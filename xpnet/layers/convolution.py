"""Convolutions over images and sequences, channels last, and the adjoint of one."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from xpnet.arrays import Array, sum_rows
from xpnet.checks import flag, integer, pair, settle, shown
from xpnet.errors import ShapeError
from xpnet.geometry import Grid, Pair
from xpnet.layers.base import Layer, Params, Pullback
from xpnet.layers.context import Context
from xpnet.layers.patches import convolve, convolve_gradients, convolve_input, convolve_weight
from xpnet.parameters import Initializer, Parameter, Shape, find_initializer


@dataclass(frozen=True)
class Conv2d(Layer):
    """y[n, h, w] = Σᵢⱼ x[n, s h + d i − p, s w + d j − p] W[i, j] + b, x being zero outside of the image

    x (N, H, W, I)   W (K, L, I/G, O)   b (O,)   y (N, H′, W′, O),  H′ = ⌊(H + 2p − d (K − 1) − 1) / s⌋ + 1

    dx: to every pixel, dy Wᵀ of the outputs that have read it;  dW = patchesᵀ dy,  db = Σ dy     (LeCun et al., 1989)

    A convolution is Linear on patches of K·L pixels: W reshaped to (K·L·I, O) is its weight. `kernel`, `stride` s,
    `padding` p and `dilation` d are one number for both axes, or two; `padding` may be "valid" (0) or, at stride 1,
    "same" (H′ = H). `groups` G cuts the channels into parts that see only their own; G = I is a depthwise convolution.
    Names, order and meaning are PyTorch's, the layout is channels last. (Dumoulin & Visin, "A guide to convolution
    arithmetic for deep learning", 2016)

    ValueError for settings that do not go together; ShapeError for images that are too small or have other channels.
    """

    nin: int
    nout: int
    kernel: int | Pair
    stride: int | Pair = 1
    padding: int | Pair | str = 0
    dilation: int | Pair = 1
    groups: int = 1
    bias: bool = True
    initializer: str | Initializer = "he"

    def __post_init__(self) -> None:
        who = type(self).__name__
        _settle(self, who)
        settle(self, padding=_padding(who, self.padding, self.grid.stride))

    def __str__(self) -> str:
        return _shown(self)

    @cached_property
    def grid(self) -> Grid:
        """How the kernel moves."""
        kernel, stride, dilation = (_both(value) for value in (self.kernel, self.stride, self.dilation))
        if self.padding == "same":
            reach = Grid(kernel, dilation=dilation).reach
            before = ((reach[0] - 1) // 2, (reach[1] - 1) // 2)
            after = (reach[0] - 1 - before[0], reach[1] - 1 - before[1])
        else:
            before = after = (0, 0) if isinstance(self.padding, str) else _both(self.padding)
        return Grid(kernel, stride, before, after, dilation, self.groups)

    def parameters(self) -> tuple[Parameter, ...]:
        """W (K, L, I/G, O), in PyTorch (O, I/G, K, L), and, unless it is left out, b (O,), which starts at zero."""
        shape = (*self.grid.kernel, self.nin // self.groups, self.nout)
        weight = Parameter("weight", shape, find_initializer(self.initializer), axes=(3, 2, 0, 1))
        return (weight, Parameter("bias", (self.nout,))) if self.bias else (weight,)

    def output_shape(self, shape: Shape) -> Shape:
        """(N, H, W, I) -> (N, H′, W′, O)."""
        check_images(self, shape, self.nin)
        return (shape[0], *fitting(self, self.grid, shape), self.nout)

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return patches W + b and its pullback."""
        xp, native, weight, grid = ctx.xp, ctx.backend.native, params[0], self.grid
        y = native(convolve)(xp, x, weight, grid)  # (N, H′, W′, O)
        if self.bias:
            y += params[1]

        def backward(dy: Array, need_dx: bool = True, out: Params = (None, None)) -> tuple[Array | None, Params]:
            if need_dx:
                dx, dweight = native(convolve_gradients)(xp, x, dy, weight, grid)  # (N, H, W, I), (K, L, I/G, O)
            else:
                dx, dweight = None, native(convolve_weight)(xp, x, dy, grid)
            return dx, (dweight, native(sum_rows)(xp, dy)) if self.bias else (dweight,)

        return y, backward


@dataclass(frozen=True)
class Conv1d(Layer):
    """y[n, t] = Σᵢ x[n, s t + d i − p] W[i] + b        x (N, T, I)   W (K, I/G, O)   b (O,)   y (N, T′, O)

    T′ = ⌊(T + 2p − d (K − 1) − 1) / s⌋ + 1. The same as `Conv2d` on images of one row, with the same settings (Waibel
    et al., "Phoneme recognition using time-delay neural networks", 1989). In PyTorch W is (O, I/G, K), x (N, I, T).
    """

    nin: int
    nout: int
    kernel: int
    stride: int = 1
    padding: int | str = 0
    dilation: int = 1
    groups: int = 1
    bias: bool = True
    initializer: str | Initializer = "he"

    def __post_init__(self) -> None:
        names = ("kernel", "stride", "dilation")
        settle(self, **{name: integer("Conv1d", name, getattr(self, name)) for name in names})
        if not isinstance(self.padding, str):
            settle(self, padding=integer("Conv1d", "padding", self.padding, least=0))
        _settle(self, "Conv1d")
        settle(self, padding=_padding("Conv1d", self.padding, (1, self.stride)))

    def __str__(self) -> str:
        return _shown(self)

    @cached_property
    def rows(self) -> Conv2d:
        """The same layer, for images of one row."""
        padding = self.padding if isinstance(self.padding, str) else (0, self.padding)
        settings = ((1, self.kernel), (1, self.stride), padding, (1, self.dilation))
        return Conv2d(self.nin, self.nout, *settings, self.groups, self.bias)

    def parameters(self) -> tuple[Parameter, ...]:
        """W (K, I/G, O), in PyTorch (O, I/G, K), and, unless it is left out, b (O,), which starts at zero."""
        shape = (self.kernel, self.nin // self.groups, self.nout)
        weight = Parameter("weight", shape, find_initializer(self.initializer), axes=(2, 1, 0))
        return (weight, Parameter("bias", (self.nout,))) if self.bias else (weight,)

    def output_shape(self, shape: Shape) -> Shape:
        """(N, T, I) -> (N, T′, O)."""
        if len(shape) != 3 or shape[2] != self.nin:
            remedy = _remedy(shape, self.nin, 3, ": give it an axis of channels, x[..., None]")
            raise ShapeError(f"expects sequences (N, T, {self.nin}), got {shape}{remedy}", who=str(self))
        return (shape[0], fitting(self, self.rows.grid, shape)[1], self.nout)

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return patches W + b and its pullback."""
        xp = ctx.xp
        weight, *bias = params
        images = xp.expand_dims(x, axis=1)
        y, pullback = self.rows.forward((xp.expand_dims(weight, axis=0), *bias), images, ctx)

        def backward(dy: Array, need_dx: bool = True, out: Params = (None, None)) -> tuple[Array | None, Params]:
            dx, (dweight, *dbias) = pullback(xp.expand_dims(dy, axis=1), need_dx)
            return xp.squeeze(dx, axis=1) if need_dx else None, (xp.squeeze(dweight, axis=0), *dbias)

        return xp.squeeze(y, axis=1), backward


@dataclass(frozen=True)
class ConvTranspose2d(Layer):
    """y: to every pixel, x Wᵀ of the inputs that would have read it in a convolution, + b

    x (N, H, W, I)   W (K, L, O/G, I)   b (O,)   y (N, H′, W′, O),  H′ = (H − 1) s − 2p + d (K − 1) + r + 1

    dx = convolution of dy with W,  dW = patches(dy)ᵀ x,  db = Σ dy     (Zeiler et al., CVPR 2010)

    The adjoint of `Conv2d(O, I, …)` with the same settings: what there goes back, goes forward here, and makes larger
    images of smaller ones. `output_padding` r < s chooses among the sizes that the convolution would make H of. Names,
    order and meaning are PyTorch's, the layout is channels last; W is (I, O/G, K, L) there.
    """

    nin: int
    nout: int
    kernel: int | Pair
    stride: int | Pair = 1
    padding: int | Pair = 0
    output_padding: int | Pair = 0
    groups: int = 1
    bias: bool = True
    dilation: int | Pair = 1
    initializer: str | Initializer = "he"

    def __post_init__(self) -> None:
        who = "ConvTranspose2d"
        _settle(self, who)
        padding, extra = (pair(who, name, getattr(self, name), 0) for name in ("padding", "output_padding"))
        if any(more >= step for more, step in zip(extra, self.grid.stride, strict=True)):
            raise ValueError(f"{who}: output_padding must be below stride {self.stride}, got {self.output_padding}")
        settle(self, padding=_short(padding), output_padding=_short(extra))

    def __str__(self) -> str:
        return _shown(self)

    @cached_property
    def grid(self) -> Grid:
        """How the kernel of the convolution moves whose adjoint this is."""
        kernel, stride, padding, dilation = map(_both, (self.kernel, self.stride, self.padding, self.dilation))
        return Grid(kernel, stride, padding, padding, dilation, self.groups)

    def parameters(self) -> tuple[Parameter, ...]:
        """W (K, L, O/G, I), in PyTorch (I, O/G, K, L), and, unless it is left out, b (O,), which starts at zero."""
        kernel, init = self.grid.kernel, find_initializer(self.initializer)
        shape, forward = (*kernel, self.nout // self.groups, self.nin), (*kernel, self.nin // self.groups, self.nout)
        weight = Parameter("weight", shape, lambda rng, shape: init(rng, forward).reshape(shape), axes=(3, 2, 0, 1))
        return (weight, Parameter("bias", (self.nout,))) if self.bias else (weight,)

    def output_shape(self, shape: Shape) -> Shape:
        """(N, H, W, I) -> (N, H′, W′, O)."""
        check_images(self, shape, self.nin)
        (h, w), grid = shape[1:3], self.grid
        lost = [1 - n for n in self._size((1, 1))]  # what the smallest image lacks of a pixel
        rows, columns = (1 + max(0, -(-n // step)) for n, step in zip(lost, grid.stride, strict=True))
        if h < rows or w < columns:
            raise ShapeError(f"expects images of at least {rows}×{columns}, got {h}×{w}", who=str(self))
        return (shape[0], *self._size((h, w)), self.nout)

    def _size(self, size: Pair) -> Pair:
        grid, extra = self.grid, _both(self.output_padding)
        h, w = (
            (n - 1) * step - 2 * pad + reach + more
            for n, step, pad, reach, more in zip(size, grid.stride, grid.before, grid.reach, extra, strict=True)
        )
        return h, w

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return the adjoint of a convolution, with the bias added, and its pullback."""
        xp, native, weight, grid = ctx.xp, ctx.backend.native, params[0], self.grid
        y = native(convolve_input)(xp, x, weight, self._size(x.shape[1:3]), grid)  # (N, H′, W′, O)
        if self.bias:
            y = y + params[1]

        def backward(dy: Array, need_dx: bool = True, out: Params = (None, None)) -> tuple[Array | None, Params]:
            dx = native(convolve)(xp, dy, weight, grid) if need_dx else None  # (N, H, W, I)
            dweight = native(convolve_weight)(xp, dy, x, grid)  # (K, L, O/G, I)
            return dx, (dweight, native(sum_rows)(xp, dy)) if self.bias else (dweight,)

        return y, backward


def check_images(layer: Layer, shape: Shape, channels: int) -> None:
    """Raise ShapeError unless this is the shape of images (N, H, W, C) with so many channels; the remedy is said."""
    if len(shape) != 4 or shape[3] != channels:
        grey = ": add Channels() before it, which gives images (N, H, W) their channel axis"
        remedy = _remedy(shape, channels, 4, grey) if len(shape) != 2 else ": give it images, not rows"
        raise ShapeError(f"expects images (N, H, W, {channels}), got {shape}{remedy}", who=str(layer))


def _remedy(shape: Shape, channels: int, axes: int, single: str) -> str:
    """Return the remedy for a shape that should have so many axes: `single` where an axis of one channel is missing."""
    if len(shape) == axes:
        return displaced(shape, channels)
    if len(shape) == axes - 1 and shape[-1] == channels:
        return ": give it a batch, x[None, ...]"
    return single if len(shape) == axes - 1 and channels == 1 else ""


def displaced(shape: Shape, channels: int) -> str:
    """Return the remedy for channels that are not where, or not as many as, they should be."""
    if len(shape) in (3, 4) and shape[1] == channels:
        axes = "0, 2, 3, 1" if len(shape) == 4 else "0, 2, 1"
        return f": the channels come first there, as in PyTorch: move them to the end, x.transpose({axes})"
    return f": the layer before it or the data must have {channels} channels"


def fitting(layer: Layer, grid: Grid, shape: Shape) -> Pair:
    """Return the height and width that a kernel makes of images or sequences; ShapeError if they are too small."""
    h, w = shape[1:3] if len(shape) == 4 else (1, shape[1])
    rows, columns = (max(1, n - p - q) for n, p, q in zip(grid.reach, grid.before, grid.after, strict=True))
    if h < rows or w < columns:
        least = f"images of at least {rows}×{columns}, got {h}×{w}"
        if len(shape) == 3:
            least = f"sequences of at least {columns}, got {w}"
        raise ShapeError(f"expects {least}", who=str(layer))
    return grid.output((h, w))


def _both(value: int | Pair) -> Pair:
    return value if isinstance(value, tuple) else (value, value)


def _short(value: Pair) -> int | Pair:
    """Return one number for two that are equal: settings that mean the same are the same."""
    return value[0] if value[0] == value[1] else value


def _settle(layer: Any, who: str) -> None:
    """Check what all convolutions have in common; ValueError if it is out of range or does not go together."""
    counts = {name: integer(who, name, getattr(layer, name)) for name in ("nin", "nout", "groups")}
    pairs = {name: _short(pair(who, name, getattr(layer, name))) for name in ("kernel", "stride", "dilation")}
    settle(layer, **counts, **pairs, bias=flag(who, "bias", layer.bias))
    find_initializer(layer.initializer)
    if layer.nin % layer.groups or layer.nout % layer.groups:
        raise ValueError(f"{who}: groups must divide {layer.nin} and {layer.nout} channels, got {layer.groups}")


def _padding(who: str, padding: Any, stride: Pair) -> int | Pair | str:
    """Return the padding as a number, two numbers, "same" or "valid"; ValueError for anything else."""
    if isinstance(padding, str) and padding not in ("same", "valid"):
        raise ValueError(f'{who}: padding must be a number, two, "same" or "valid", got {shown(padding)}')
    if padding == "same" and max(stride) > 1:
        raise ValueError(f'{who}: padding="same" is for stride 1, got stride {stride}: pass the number of pixels')
    return padding if isinstance(padding, str) else _short(pair(who, "padding", padding, 0))


def _shown(layer: Any) -> str:
    """Return the layer with its kernel, and the settings that are not the usual ones."""
    usual = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "bias": True, "output_padding": 0}
    others = [f"{name}={getattr(layer, name)}" for name in usual if getattr(layer, name, usual[name]) != usual[name]]
    kernel = "×".join(map(str, layer.grid.kernel)) if hasattr(layer, "grid") else str(layer.kernel)
    return f"{type(layer).__name__}({', '.join([f'{layer.nin}→{layer.nout}', kernel, *others])})"
