"""Linear layers in a row on NumPy: bias and ReLU where the product stands, gradients into their windows."""

import numpy as np

from xpnet.arrays import Array
from xpnet.backends.dense import Dense


class NumpyDense(Dense):
    """`Dense` that makes no array but the product's: the same bits."""

    def forward(self, x: Array, weight: Array, bias: Array, relu: bool) -> tuple[Array, Array]:
        """Return y, and y again as the mask."""
        y = self.backend.matmul(x, weight)
        y += bias
        if not relu:
            return y, None
        np.maximum(y, 0.0, out=y)
        return y, y

    def gradients(self, x: Array, ds: Array, out: tuple[Array, ...], dbias: Array = None) -> tuple[Array, Array]:
        """Return dW and db, in `out`."""
        return self.backend.matmul(x.T, ds, out=out[0]), np.add.reduce(ds, axis=0, out=out[1])

    def both(
        self, x: Array, ds: Array, weight: Array, mask: Array, out: tuple[Array, ...], dbias: Array, before: Array
    ) -> tuple[tuple[Array, Array], Array, Array]:
        """Return dW and db, in `out`, and dx where y is above 0."""
        gradients = self.gradients(x, ds, out)
        dx = self.backend.matmul(ds, weight.T)
        if mask is not None:
            dx *= mask > 0
        return gradients, dx, None
