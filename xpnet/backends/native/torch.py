"""PyTorch's forms, on the CPU: its own products, convolutions, pools, norms and attention, without autograd.

Images stay channels last in memory; PyTorch is shown them with the channels' axis moved to the second place.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from xpnet.arrays import Array, Namespace
from xpnet.backends.dense import Dense
from xpnet.backends.native import Forms, loops, minibatch
from xpnet.backends.numpy import NumpyBackend
from xpnet.geometry import Grid, Pair

HOST = NumpyBackend(reason="works on tensors' memory")
ATEN = torch.ops.aten
Settings = tuple[Any, ...]


class TorchDense(Dense):
    """Linear layers in a row, the bias added and ReLU taken where the product stands."""

    scales = True

    def forward(self, x: Array, weight: Array, bias: Array, relu: bool, factor: float = 1.0) -> tuple[Array, Array]:
        """Return y, of factor · x, and y again as the mask."""
        y = torch.addmm(bias, x, weight, alpha=factor)
        return (y.relu_(), y) if relu else (y, None)

    def gradients(
        self, x: Array, ds: Array, out: tuple[Array, ...], dbias: Array = None, factor: float = 1.0
    ) -> tuple[Array, Array]:
        """Return dW, of factor · x, and db, in `out`."""
        room = ds.new_empty((x.shape[1], ds.shape[1])) if out[0] is None else out[0]
        dbias = torch.sum(ds, 0, out=out[1]) if dbias is None else dbias
        return torch.addmm(room, x.T, ds, beta=0, alpha=factor, out=room), dbias

    def both(
        self, x: Array, ds: Array, weight: Array, mask: Array, out: tuple[Array, ...], dbias: Array, before: Array
    ) -> tuple[tuple[Array, Array], Array, Array]:
        """Return dW and db, in `out`, and dx where y is above 0."""
        dx = torch.mm(ds, weight.T)
        gradients = self.gradients(x, ds, out, dbias)
        if mask is None:
            return gradients, dx, None
        room = dx.new_empty(dx.shape[1:]) if before is None else before
        if loops.rectify(on_host(dx), on_host(mask), on_host(room)):
            return gradients, dx, room
        return gradients, ATEN.threshold_backward(dx, mask, 0), None


def on_host(tensor: Array) -> np.ndarray:
    """Return a tensor of the CPU as NumPy's array of the same memory, by as few calls as can be: each costs some µs."""
    home: np.ndarray = tensor.detach().numpy() if tensor.requires_grad else tensor.numpy()
    return home


def _in(images: Array) -> Array:
    """Return images (N, H, W, C) as (N, C, H, W), the same memory."""
    return images.permute(0, 3, 1, 2)


def _out(images: Array) -> Array:
    return images.permute(0, 2, 3, 1)


def _settings(x: Array, grid: Grid) -> tuple[Array, Settings]:
    """Return what PyTorch is given of images and a grid: unequal padding is added to the images themselves."""
    padding, (p, q), (a, b) = grid.before, grid.before, grid.after
    if grid.before != grid.after:
        x, padding = torch.nn.functional.pad(x, (0, 0, q, b, p, a)), (0, 0)
    return _in(x), (grid.stride, padding, grid.dilation, False, (0, 0), grid.groups)


def _serves(grid: Grid) -> bool:
    """Whether PyTorch is asked: its gradient of a kernel of one pixel writes past its memory at some strides."""
    return grid.kernel != (1, 1) or grid.stride == (1, 1)


def convolve(xp: Namespace, x: Array, weight: Array, grid: Grid) -> Array:
    """y = patches(x) W"""
    images, settings = _settings(x, grid)
    return _out(ATEN.convolution(images, weight.permute(3, 2, 0, 1), None, *settings))


def _backward(x: Array, dy: Array, weight: Array, grid: Grid, dx: bool, dweight: bool) -> tuple[Any, Any]:
    images, settings = _settings(x, grid)
    kernel = weight.permute(3, 2, 0, 1).contiguous()  # some of its backward functions insist
    made = ATEN.convolution_backward(_in(dy), images, kernel, None, *settings, (dx, dweight, False))
    back: Any = _out(made[0]) if dx else None
    if dx and images.shape[2:] != x.shape[1:3]:
        (p, q), (h, w) = grid.before, x.shape[1:3]
        back = back[:, p : p + h, q : q + w, :]
    return back, made[1].permute(2, 3, 1, 0) if dweight else None


def convolve_input(xp: Namespace, dy: Array, weight: Array, size: Pair, grid: Grid) -> Array:
    """dx = spread(dy Wᵀ)"""
    shape = (dy.shape[0], *size, weight.shape[2] * grid.groups)
    return _backward(torch.empty(shape, dtype=dy.dtype), dy, weight, grid, True, False)[0]


def convolve_weight(xp: Namespace, x: Array, dy: Array, grid: Grid) -> Array | None:
    """dW = patches(x)ᵀ dy"""
    if not _serves(grid):
        return None
    weight = torch.empty((*grid.kernel, x.shape[3] // grid.groups, dy.shape[3]), dtype=x.dtype)
    return _backward(x, dy, weight, grid, False, True)[1]


def convolve_gradients(xp: Namespace, x: Array, dy: Array, weight: Array, grid: Grid) -> tuple[Array, Array] | None:
    """dx and dW"""
    if not _serves(grid):
        return None
    return _backward(x, dy, weight, grid, True, True)


def max_pool(xp: Namespace, x: Array, grid: Grid) -> tuple[Array, Callable[[Array], Array]] | None:
    """The largest of each patch, and `dx(dy)`."""
    if grid.before != grid.after or not x.numel():
        return None
    settings = (grid.kernel, grid.stride, grid.before, grid.dilation, False)
    y, index = ATEN.max_pool2d_with_indices(_in(x), *settings)

    def back(dy: Array) -> Array:
        return _out(ATEN.max_pool2d_with_indices_backward(_in(dy), _in(x), *settings, index))

    return _out(y), back


def average_pool(xp: Namespace, x: Array, grid: Grid) -> tuple[Array, Callable[[Array], Array]] | None:
    """The mean of each patch, and `dx(dy)`."""
    if grid.before != grid.after or not x.numel():
        return None
    settings = (grid.kernel, grid.stride, grid.before, False, True, None)

    def back(dy: Array) -> Array:
        return _out(ATEN.avg_pool2d_backward(_in(dy), _in(x), *settings))

    return _out(ATEN.avg_pool2d(_in(x), *settings)), back


def standardize_rows(xp: Namespace, x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Any, ...]:
    """y = γ (x − μ) / √(σ² + ε) + β, μ, σ², and the pullback of y."""
    rows = x.movedim(-1, 1)
    y, mean, scale = ATEN.native_batch_norm(rows, gamma, beta, None, None, True, 0.0, eps)

    def backward(dy: Array, need_dx: bool) -> tuple[Array | None, tuple[Array, Array]]:
        dx, *gradients = ATEN.native_batch_norm_backward(
            dy.movedim(-1, 1), rows, gamma, None, None, mean, scale, True, eps, (need_dx, True, True)
        )
        return dx.movedim(1, -1) if need_dx else None, (gradients[0], gradients[1])

    variance = torch.clamp_min(1.0 / (scale * scale) - eps, 0.0)  # by rounding it could be below
    return y.movedim(1, -1), mean, variance, backward


def standardize_features(backend: Any, x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Any]:
    """y = γ (x − μ) / √(σ² + ε) + β over the last axis, and its pullback."""
    shape = x.shape[-1:]
    y, mean, scale = ATEN.native_layer_norm(x, shape, gamma, beta, eps)

    def backward(dy: Array, need_dx: bool) -> tuple[Array | None, tuple[Array, Array]]:
        made = ATEN.native_layer_norm_backward(dy, x, shape, mean, scale, gamma, beta, (need_dx, True, True))
        return made[0], (made[1], made[2])

    return y, backward


def gelu(backend: Any, x: Array, exact: bool) -> tuple[Array, Callable[[Array], Array]]:
    """GELU, and `dx(dy)`."""
    form, far = "none" if exact else "tanh", 1e2  # beyond ±far it is 0 or x; PyTorch makes NaN of −∞
    y = ATEN.gelu(torch.clamp_min(x, -far), approximate=form)
    return y, lambda dy: ATEN.gelu_backward(dy, torch.clamp(x, -far, far), approximate=form)


def scatter_rows(xp: Namespace, index: Array, rows: Array, count: int) -> Array:
    """E[v] = Σ of the rows whose index is v."""
    return torch.zeros((count, rows.shape[1]), dtype=rows.dtype).index_add_(0, index, rows)


def attention(
    backend: Any, q: Array, k: Array, v: Array, causal: bool, mask: Array | None, keep: Array | None
) -> tuple[Array, Callable[[Array], Any]] | None:
    """y = softmax(q kᵀ / √d) v, and `back(dy) -> dq, dk, dv`, without p in memory."""
    if mask is not None or keep is not None or not q.numel():
        return None
    q, k, v = _side_by_side(q), _side_by_side(k), _side_by_side(v)
    y, total = ATEN._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal)

    def back(dy: Array) -> Any:
        dy = _side_by_side(dy)
        return ATEN._scaled_dot_product_flash_attention_for_cpu_backward(dy, q, k, v, y, total, 0.0, causal)

    return y, back


def _side_by_side(x: Array) -> Array:
    """Return x with the features of a position side by side in memory: attention's kernel looks for them there."""
    return x if x.stride(-1) == 1 else x.contiguous()


def sigmoid(xp: Namespace, x: Array) -> Array:
    """1 / (1 + e^−x)"""
    return torch.sigmoid(x)


def gather(xp: Namespace, x: Array, y: Array, index: Array, dtype: str) -> tuple[Array, Array]:
    """The rows of x and y, by NumPy on the same memory, which copies rows of bytes faster."""
    rows, labels = minibatch.gather(xp, x.numpy(), y.numpy(), index.numpy(), dtype)
    return torch.from_numpy(rows), torch.from_numpy(labels)


def cross_entropy(scores: Array, labels: Array) -> tuple[Array, Array] | None:
    """Value and gradient, by NumPy on the same memory, whose calls on few numbers cost less."""
    if scores.dtype not in (torch.float32, torch.float64):
        return None
    made = minibatch.cross_entropy(on_host(scores), labels.numpy())
    return None if made is None else (_number(made[0]), torch.from_numpy(made[1]))


def measure(xp: Namespace, gradient: Any, alive: Array | None, loss: Array | None) -> tuple[Array, Array] | None:
    """The gradient's 2-norm, and whether it and the loss are finite and `alive` is true, likewise."""
    if isinstance(gradient, tuple):
        return None
    made = minibatch.measure(xp, gradient.numpy(), alive, loss)
    return None if made is None else (_number(made[0]), _number(made[1]))


def _number(scalar: Any) -> Array:
    return torch.from_numpy(np.asarray(scalar))


def scan(backend: Any, step: Any, carry: Any, fixed: Any, xs: Any, reverse: bool) -> tuple[Any, Any]:
    """carry, yₜ = step(carry, fixed, xₜ): by NumPy on the same memory, whose calls on few numbers cost less.

    The lists hold NumPy's arrays.
    """
    state, constants = (tuple(map(on_host, arrays)) for arrays in (carry, fixed))
    columns = [x if isinstance(x, list) else on_host(x) for x in xs]
    ys: list[Any] = []
    for t in reversed(range(len(columns[0]))) if reverse else range(len(columns[0])):
        state, y = step(HOST, state, constants, tuple(column[t] for column in columns))
        ys.append(y)
    return tuple(map(torch.from_numpy, state)), tuple(map(list, zip(*(reversed(ys) if reverse else ys), strict=True)))


def joined(xp: Namespace, column: Any) -> Array:
    """Return what there is at each step as one tensor."""
    return torch.from_numpy(HOST.xp.stack(column))


FORMS: Forms = {
    "xpnet.data.batches.gather": gather,
    "xpnet.losses.classification.cross_entropy": cross_entropy,
    "xpnet.optimizers.finite.measure": measure,
    "xpnet.layers.normalization.standardize_features": standardize_features,
    "xpnet.layers.activations.gelu": gelu,
    "xpnet.arrays.sigmoid": sigmoid,
    "xpnet.layers.embedding.scatter_rows": scatter_rows,
    "xpnet.layers.scan.scan": scan,
    "xpnet.layers.scan.joined": joined,
    "xpnet.layers.attention.attention": attention,
    "xpnet.layers.patches.convolve": convolve,
    "xpnet.layers.patches.convolve_input": convolve_input,
    "xpnet.layers.patches.convolve_weight": convolve_weight,
    "xpnet.layers.patches.convolve_gradients": convolve_gradients,
    "xpnet.layers.pooling.max_pool": max_pool,
    "xpnet.layers.pooling.average_pool": average_pool,
    "xpnet.layers.normalization.standardize_rows": standardize_rows,
}
