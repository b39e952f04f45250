"""The layers, each a function that returns its value and its pullback."""

from xpnet.layers.activations import GELU, LeakyReLU, ReLU, Sigmoid, SiLU, Softmax, Tanh
from xpnet.layers.base import Context, Layer, Params, Pullback
from xpnet.layers.compose import Residual, Sequential
from xpnet.layers.dropout import Dropout
from xpnet.layers.linear import Linear
from xpnet.layers.shape import Flatten, Scale

__all__ = [
    "GELU",
    "Context",
    "Dropout",
    "Flatten",
    "Layer",
    "LeakyReLU",
    "Linear",
    "Params",
    "Pullback",
    "ReLU",
    "Residual",
    "Scale",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
]
