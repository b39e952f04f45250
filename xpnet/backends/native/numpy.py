"""NumPy's forms: convolutions, pools, norms and attention in parts that stay in the cache; loops where Numba is."""

from xpnet.backends.native import Forms, activations, convolution, minibatch, normalization, pooling, sequences

FORMS: Forms = {
    "xpnet.data.batches.gather": minibatch.gather,
    "xpnet.losses.classification.cross_entropy": minibatch.cross_entropy,
    "xpnet.optimizers.finite.measure": minibatch.measure,
    "xpnet.arrays.sigmoid": activations.sigmoid,
    "xpnet.layers.patches.convolve": convolution.convolve,
    "xpnet.layers.patches.convolve_input": convolution.convolve_input,
    "xpnet.layers.patches.convolve_weight": convolution.convolve_weight,
    "xpnet.layers.patches.convolve_gradients": convolution.convolve_gradients,
    "xpnet.layers.pooling.max_pool": pooling.max_pool,
    "xpnet.layers.pooling.average_pool": pooling.average_pool,
    "xpnet.layers.normalization.standardize_rows": normalization.standardize_rows,
    "xpnet.layers.normalization.standardize_features": normalization.standardize_features,
    "xpnet.layers.activations.gelu": activations.gelu,
    "xpnet.layers.embedding.scatter_rows": sequences.scatter_rows,
    "xpnet.layers.attention.attention": sequences.attention,
}
