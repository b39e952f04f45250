"""Linear layers in a row, computed as one where the backend does bias and ReLU on the way out of a product."""

from dataclasses import dataclass
from typing import TypeAlias

from xpnet.arrays import Array
from xpnet.layers.activations import ReLU
from xpnet.layers.base import Layer, Params, Pullback, by_rows
from xpnet.layers.context import Context
from xpnet.layers.linear import Linear

Slot: TypeAlias = tuple[int, Layer, slice]
"""A child's number, the child, and which of the parameters are its own."""


@dataclass(frozen=True)
class Chain(Layer):
    """hₖ = max(hₖ₋₁ Wₖ + bₖ, 0), the maximum where `relu` says so        the numbers of Linear and ReLU one by one

    dsₖ₋₁ = (dsₖ Wₖᵀ where hₖ₋₁ > 0), dWₖ = hₖ₋₁ᵀ dsₖ, dbₖ = Σₙ dsₖ: each a product that does its neighbours' work
    (`backend.dense`).
    """

    relu: tuple[bool, ...]

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return what the last layer gives, and the pullback of them all; params are W₁, b₁, W₂, b₂, …"""
        if x.ndim > 2:
            return by_rows(self, params, x, ctx)
        dense, inputs, masks = ctx.backend.dense, [x], []
        for k, relu in enumerate(self.relu):
            y, mask = dense.forward(inputs[k], params[2 * k], params[2 * k + 1], relu)
            inputs.append(y)
            masks.append(mask)

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array | None, Params]:
            out = out or (None,) * len(params)
            gradients: Params = ()
            ds, dbias, y, _ = dy, None, inputs.pop(), masks.pop()
            if self.relu[-1]:
                ds = ctx.xp.astype(y > 0, dy.dtype)
                ds *= dy
            for k in range(len(self.relu) - 1, -1, -1):
                own = dense.gradients(inputs.pop(), ds, out[2 * k : 2 * k + 2], dbias)
                gradients = own + gradients
                if k:
                    ds, dbias = dense.back(ds, params[2 * k], masks.pop(), out[2 * k - 1])
            return dense.back(ds, params[0], None, None)[0] if need_dx else None, gradients

        return inputs[-1], backward


def fuse(slots: tuple[Slot, ...]) -> tuple[Slot, ...]:
    """Return the children of a network with every run of Linear (with a bias) and ReLU as one Chain."""
    fused: list[Slot] = []
    for k, layer, own in slots:
        before = fused[-1][1] if fused else None
        relu = before.relu if isinstance(before, Chain) else ()
        if type(layer) is Linear and layer.bias:
            first, _, part = fused.pop() if relu else (k, None, own)
            fused.append((first, Chain((*relu, False)), slice(part.start, own.stop)))
        elif type(layer) is ReLU and relu and not relu[-1]:
            first, _, part = fused.pop()
            fused.append((first, Chain((*relu[:-1], True)), part))
        else:
            fused.append((k, layer, own))
    return tuple(fused)
