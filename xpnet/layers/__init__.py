"""The layers, each a function that returns its value and its pullback."""

from xpnet.layers.activations import GELU, LeakyReLU, ReLU, Sigmoid, SiLU, Softmax, Tanh
from xpnet.layers.affine import RandomAffine, RandomRotate
from xpnet.layers.augmentation import Cutout, RandomCrop, RandomFlip, RandomShift
from xpnet.layers.base import Context, Layer, Params, Pullback
from xpnet.layers.compose import Residual, Sequential
from xpnet.layers.convolution import Conv1d, Conv2d, ConvTranspose2d
from xpnet.layers.dropout import Dropout, Dropout2d
from xpnet.layers.linear import Linear
from xpnet.layers.normalization import BatchNorm, GroupNorm, LayerNorm, RMSNorm
from xpnet.layers.pooling import AvgPool2d, GlobalAvgPool2d, MaxPool2d, Upsample
from xpnet.layers.shape import Channels, Flatten, Scale

__all__ = [
    "GELU",
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
    "Flatten",
    "GlobalAvgPool2d",
    "GroupNorm",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "MaxPool2d",
    "Params",
    "Pullback",
    "RMSNorm",
    "RandomAffine",
    "RandomCrop",
    "RandomFlip",
    "RandomRotate",
    "RandomShift",
    "ReLU",
    "Residual",
    "Scale",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "Upsample",
]
