"""The layers, each a function that returns its value and its pullback."""

from xpnet.layers.activations import (
    ELU,
    GELU,
    Hardswish,
    LeakyReLU,
    LogSoftmax,
    Mish,
    PReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from xpnet.layers.affine import RandomAffine, RandomRotate
from xpnet.layers.attention import MultiHeadAttention, TransformerBlock
from xpnet.layers.augmentation import Cutout, RandomCrop, RandomFlip, RandomShift
from xpnet.layers.base import Layer, Params, Pullback
from xpnet.layers.compose import Residual, Sequential
from xpnet.layers.context import Context
from xpnet.layers.convolution import Conv1d, Conv2d, ConvTranspose2d
from xpnet.layers.dropout import Dropout, Dropout2d
from xpnet.layers.embedding import Embedding, Positions, Sinusoidal, Tied
from xpnet.layers.graphs import Parallel, Shared
from xpnet.layers.linear import Linear
from xpnet.layers.normalization import BatchNorm, GroupNorm, LayerNorm, RMSNorm
from xpnet.layers.pooling import AvgPool2d, GlobalAvgPool2d, MaxPool2d, Upsample
from xpnet.layers.recompute import Recompute
from xpnet.layers.recurrent import GRU, LSTM, RNN
from xpnet.layers.sequences import Masked, Pooled
from xpnet.layers.shape import Channels, Flatten, Scale
from xpnet.layers.standardize import Standardize

__all__ = [
    "ELU",
    "GELU",
    "GRU",
    "LSTM",
    "RNN",
    "AvgPool2d",
    "BatchNorm",
    "Channels",
    "Context",
    "Conv1d",
    "Conv2d",
    "ConvTranspose2d",
    "Cutout",
    "Dropout",
    "Dropout2d",
    "Embedding",
    "Flatten",
    "GlobalAvgPool2d",
    "GroupNorm",
    "Hardswish",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "Masked",
    "MaxPool2d",
    "Mish",
    "MultiHeadAttention",
    "PReLU",
    "Parallel",
    "Params",
    "Pooled",
    "Positions",
    "Pullback",
    "RMSNorm",
    "RandomAffine",
    "RandomCrop",
    "RandomFlip",
    "RandomRotate",
    "RandomShift",
    "ReLU",
    "Recompute",
    "Residual",
    "Scale",
    "Sequential",
    "Shared",
    "SiLU",
    "Sigmoid",
    "Sinusoidal",
    "Softmax",
    "Softplus",
    "Standardize",
    "Tanh",
    "Tied",
    "TransformerBlock",
    "Upsample",
]
