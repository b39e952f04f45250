"""Linear layers in a row on NumPy: bias and ReLU where the product stands, gradients into their windows."""

import numpy as np

from xpnet.arrays import Array
from xpnet.backends.dense import Dense
from xpnet.backends.native import loops


class NumpyDense(Dense):
    """`Dense` that makes no array but the product's, and goes over it once where Numba is."""

    scales = True

    def forward(self, x: Array, weight: Array, bias: Array, relu: bool, factor: float = 1.0) -> tuple[Array, Array]:
        """Return y, of factor · x, and y again as the mask."""
        y = self.backend.matmul(x, weight)
        if not loops.finish(y, bias, factor, relu):
            if factor != 1.0:
                y *= factor
            y += bias
            if relu:
                np.maximum(y, 0.0, out=y)
        return y, y if relu else None

    def gradients(
        self, x: Array, ds: Array, out: tuple[Array, ...], dbias: Array = None, factor: float = 1.0
    ) -> tuple[Array, Array]:
        """Return dW, of factor · x, and db, in `out`."""
        if dbias is None:
            dbias = np.add.reduce(ds, axis=0, out=out[1])
        return self.backend.matmul(x.T, ds if factor == 1.0 else ds * factor, out=out[0]), dbias

    def both(
        self, x: Array, ds: Array, weight: Array, mask: Array, out: tuple[Array, ...], dbias: Array, before: Array
    ) -> tuple[tuple[Array, Array], Array, Array]:
        """Return dW and db, in `out`, dx where y > 0, and its sum over rows in `before` if it is made here."""
        gradients = self.gradients(x, ds, out, dbias)
        dx = self.backend.matmul(ds, weight.T)
        if mask is None:
            return gradients, dx, None
        sums = np.empty(dx.shape[1:], dx.dtype) if before is None else before
        if loops.rectify(dx, mask, sums):
            return gradients, dx, sums
        dx *= mask > 0
        return gradients, dx, None
