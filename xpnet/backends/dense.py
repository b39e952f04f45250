"""The seam for linear layers in a row: product, bias and ReLU forward, and what the chain rule makes of them.

A library that can do the bias, ReLU, its derivative and the bias gradient on the way out of a product overrides
`Dense`; these plain forms serve the rest, and the others are tested against them.
"""

from typing import Any

from xpnet.arrays import Array


class Dense:
    """y = max(x W + b, 0)        x (N, I)   W (I, O)   b (O,)   y (N, O)"""

    scales = False
    """Whether x may be multiplied by a `factor` on the way, which `forward` and `gradients` then take."""

    def __init__(self, backend: Any) -> None:
        self.backend, self.xp = backend, backend.xp

    def forward(self, x: Array, weight: Array, bias: Array, relu: bool) -> tuple[Array, Array]:
        """Return y, with or without the maximum, and a mask of y > 0 that `back` understands (None without it)."""
        y = self.backend.matmul(x, weight)
        y += bias
        if not relu:
            return y, None
        y = self.xp.maximum(y, 0.0)
        return y, y

    def gradients(self, x: Array, ds: Array, out: tuple[Array, ...], dbias: Array = None) -> tuple[Array, Array]:
        """Return dW = xᵀ ds and db = Σₙ ds, in `out` if the library can; a `dbias` that `back` found is passed on."""
        dweight = self.backend.matmul(x.T, ds, out=out[0])
        return dweight, self.xp.sum(ds, axis=0) if dbias is None else dbias

    def back(self, ds: Array, weight: Array, mask: Array, out: Array) -> tuple[Array, Array]:
        """Return dx = ds Wᵀ where the mask says so, else 0, and its sum over the rows if that comes for free, or None.

        The sum is the gradient of the bias before the mask; `out` is its window.
        """
        dx = self.backend.matmul(ds, weight.T)
        if mask is not None:
            dx *= self.xp.astype(mask > 0, dx.dtype)
        return dx, None

    def both(
        self, x: Array, ds: Array, weight: Array, mask: Array, out: tuple[Array, ...], dbias: Array, before: Array
    ) -> tuple[tuple[Array, Array], Array, Array]:
        """Return what `gradients` returns, then what `back` returns: two products of the same ds.

        `out` are the windows of dW and db, `before` that of the bias before the mask.
        """
        return self.gradients(x, ds, out, dbias), *self.back(ds, weight, mask, before)
