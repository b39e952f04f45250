"""Linear layers in a row, computed as one where the backend does bias and ReLU on the way out of a product."""

from dataclasses import dataclass
from typing import TypeAlias

from xpnet.arrays import Array
from xpnet.layers.activations import ReLU
from xpnet.layers.base import Layer, Params, Pullback, by_rows
from xpnet.layers.context import Context
from xpnet.layers.linear import Linear
from xpnet.layers.shape import Scale

Slot: TypeAlias = tuple[int, Layer, slice]
"""A child's number, the child, and which of the parameters are its own."""

MODEST = 2.0**16
"""How far from 1 a factor may be that a product is multiplied by: what is further off brings x into range before."""


@dataclass(frozen=True)
class Chain(Layer):
    """hₖ = max(hₖ₋₁ Wₖ + bₖ, 0), the maximum where `relu` says so        the numbers of Linear and ReLU one by one

    dsₖ₋₁ = (dsₖ Wₖᵀ where hₖ₋₁ > 0), dWₖ = hₖ₋₁ᵀ dsₖ, dbₖ = Σₙ dsₖ: each a product that does its neighbours' work
    (`backend.dense`). The first layer's is of factor · x, as after Scale.
    """

    relu: tuple[bool, ...]
    factor: float = 1.0

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return what the last layer gives, and the pullback of them all; params are W₁, b₁, W₂, b₂, …"""
        if x.ndim > 2:
            return by_rows(self, params, x, ctx)
        dense, inputs, masks = ctx.backend.dense, [x], []
        scaled = () if self.factor == 1.0 else (self.factor,)
        for k, relu in enumerate(self.relu):
            y, mask = dense.forward(inputs[k], params[2 * k], params[2 * k + 1], relu, *(() if k else scaled))
            inputs.append(y)
            masks.append(mask)

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array | None, Params]:
            out = out or (None,) * len(params)
            gradients: Params = ()
            ds, dbias, y, _ = dy, None, inputs.pop(), masks.pop()
            if self.relu[-1]:
                ds = ctx.xp.astype(y > 0, dy.dtype)
                ds *= dy
            for k in range(len(self.relu) - 1, 0, -1):
                windows, before = out[2 * k : 2 * k + 2], out[2 * k - 1]
                own, ds, dbias = dense.both(inputs.pop(), ds, params[2 * k], masks.pop(), windows, dbias, before)
                gradients = own + gradients
            gradients = dense.gradients(inputs.pop(), ds, out[:2], dbias, *scaled) + gradients
            dx = dense.back(ds, params[0], None, None)[0] if need_dx else None
            return (dx if dx is None or not scaled else dx * self.factor), gradients

        return inputs[-1], backward


def fuse(slots: tuple[Slot, ...], scales: bool = False) -> tuple[Slot, ...]:
    """Return the children of a network with every run of Linear (with a bias) and ReLU as one Chain.

    If the backend `scales`, a Scale by one modest number that comes before is part of it.
    """
    fused: list[Slot] = []
    for k, layer, own in slots:
        before = fused[-1][1] if fused else None
        chain = before if isinstance(before, Chain) else Chain(())
        if type(layer) is Linear and layer.bias:
            if scales and type(before) is Scale and before.by_one_number and 1 / MODEST <= abs(before.factor) <= MODEST:
                chain = Chain((), before.factor)
            first, _, part = fused.pop() if chain != Chain(()) else (k, None, own)
            fused.append((first, Chain((*chain.relu, False), chain.factor), slice(part.start, own.stop)))
        elif type(layer) is ReLU and chain.relu and not chain.relu[-1]:
            first, _, part = fused.pop()
            fused.append((first, Chain((*chain.relu[:-1], True), chain.factor), part))
        else:
            fused.append((k, layer, own))
    return tuple(fused)
