"""xpnet: neural networks whose backpropagation is written once and runs on NumPy, CuPy, PyTorch and JAX."""

from xpnet import schedules
from xpnet.backends import Backend, available_backends, backend, use
from xpnet.layers import (
    GELU, Context, Dropout, Flatten, Layer, LeakyReLU, Linear, ReLU, Residual, Scale, Sequential, Sigmoid, SiLU, Softmax, Tanh,
)
from xpnet.losses import cross_entropy
from xpnet.optimizers import SGD, Adam, AdamW, RMSProp
