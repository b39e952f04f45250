"""NumPy's forms: convolutions, pools and norms in bands that stay in the cache, and loops where Numba is."""

from xpnet.backends.native import Forms, convolution, normalization, pooling

FORMS: Forms = {
    "xpnet.layers.patches.convolve": convolution.convolve,
    "xpnet.layers.patches.convolve_input": convolution.convolve_input,
    "xpnet.layers.patches.convolve_weight": convolution.convolve_weight,
    "xpnet.layers.patches.convolve_gradients": convolution.convolve_gradients,
    "xpnet.layers.pooling.max_pool": pooling.max_pool,
    "xpnet.layers.pooling.average_pool": pooling.average_pool,
    "xpnet.layers.normalization.standardize_rows": normalization.standardize_rows,
}
