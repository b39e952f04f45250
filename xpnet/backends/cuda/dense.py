"""Linear layers in a row with cuBLASLt's epilogues: no kernel of their own for bias, ReLU and their gradients."""

from typing import NamedTuple

from xpnet.arrays import Array
from xpnet.backends.cuda.cublaslt import EPILOGUE_BGRADA, EPILOGUE_BIAS, EPILOGUE_DRELU, EPILOGUE_DRELU_BGRAD
from xpnet.backends.cuda.cublaslt import EPILOGUE_RELU_AUX_BIAS as RELU_AUX_BIAS
from xpnet.backends.dense import Dense


class Mask(NamedTuple):
    """Where ReLU let something through: as cuBLASLt's bits, and as the outputs themselves."""

    bits: Array
    y: Array


class FusedDense(Dense):
    """`Dense` in as few kernels as cuBLASLt has algorithms for; the plain form does the rest."""

    def forward(self, x: Array, weight: Array, bias: Array, relu: bool) -> tuple[Array, Array]:
        """One product with bias, ReLU and its mask."""
        products = self.backend.products
        bits = products.mask(x, weight) if relu else None
        y = products.multiply(x, weight, None, RELU_AUX_BIAS if relu else EPILOGUE_BIAS, bias, bits)
        if y is None:
            y, mask = super().forward(x, weight, bias, relu)
            return y, None if mask is None else Mask(None, y)
        return y, Mask(bits, y) if relu else None

    def gradients(self, x: Array, ds: Array, out: tuple[Array, ...], dbias: Array = None) -> tuple[Array, Array]:
        """One product, and the sum over the rows with it."""
        if dbias is None:
            found = self.backend.cupy.empty(ds.shape[1], dtype=ds.dtype) if out[1] is None else out[1]
            dweight = self.backend.products.multiply(x.T, ds, out[0], EPILOGUE_BGRADA, found)
            if dweight is not None:
                return dweight, found
        return super().gradients(x, ds, out, dbias)

    def back(self, ds: Array, weight: Array, mask: Array, out: Array) -> tuple[Array, Array]:
        """One product with ReLU's derivative, and the sum over the rows with it."""
        if mask is not None and mask.bits is not None:
            multiply = self.backend.products.multiply
            found = self.backend.cupy.empty(weight.shape[0], dtype=ds.dtype) if out is None else out
            dx = multiply(ds, weight.T, None, EPILOGUE_DRELU_BGRAD, found, mask.bits)
            if dx is not None:
                return dx, found
            dx = multiply(ds, weight.T, None, EPILOGUE_DRELU, None, mask.bits)
            if dx is not None:
                return dx, None
        return super().back(ds, weight, None if mask is None else mask.y, out)
