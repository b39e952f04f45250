"""xpnet: neural networks whose backpropagation is written once and runs on NumPy, CuPy, PyTorch and JAX."""

from typing import TYPE_CHECKING

from xpnet import metrics, schedules
from xpnet.arrays import softmax
from xpnet.backends import Backend, available_backends, backend, use
from xpnet.data import datasets
from xpnet.data.holdout import HoldOut
from xpnet.data.rows import Rows
from xpnet.errors import (
    BackendError,
    CheckpointError,
    DataError,
    DataWarning,
    NonFiniteError,
    ShapeError,
)
from xpnet.generation import generate
from xpnet.layers import (
    ELU,
    GELU,
    GRU,
    LSTM,
    RNN,
    AvgPool2d,
    BatchNorm,
    Channels,
    Context,
    Conv1d,
    Conv2d,
    ConvTranspose2d,
    Cutout,
    Dropout,
    Dropout2d,
    Embedding,
    Flatten,
    GlobalAvgPool2d,
    GroupNorm,
    Hardswish,
    Layer,
    LayerNorm,
    LeakyReLU,
    Linear,
    LogSoftmax,
    Masked,
    MaxPool2d,
    Mish,
    MultiHeadAttention,
    Parallel,
    Pooled,
    Positions,
    PReLU,
    RandomAffine,
    RandomCrop,
    RandomFlip,
    RandomRotate,
    RandomShift,
    Recompute,
    ReLU,
    Residual,
    RMSNorm,
    Scale,
    Sequential,
    Shared,
    Sigmoid,
    SiLU,
    Sinusoidal,
    Softmax,
    Softplus,
    Standardize,
    Tanh,
    Tied,
    TransformerBlock,
    Upsample,
)
from xpnet.losses import (
    binary_cross_entropy,
    cross_entropy,
    focal,
    hinge,
    huber,
    kl_divergence,
    mean_absolute_error,
    mean_squared_error,
    negative_log_likelihood,
    perceptron,
    poisson,
)
from xpnet.model import Model, load
from xpnet.optimizers import SGD, Adagrad, Adam, AdamW, Lion, NAdam, Optimizer, RMSProp
from xpnet.parameters import Parameter
from xpnet.rate_finder import find_rate
from xpnet.schedules import constant, cosine, one_cycle, polynomial, step_decay, warm_restarts, warmup
from xpnet.training.averaging import ExponentialMovingAverage
from xpnet.training.callbacks import Callback
from xpnet.training.history import History
from xpnet.training.monitors import EarlyStopping, ModelCheckpoint, ReduceOnPlateau
from xpnet.version import __version__ as __version__

__all__ = [
    "ELU",
    "GELU",
    "GRU",
    "LSTM",
    "RNN",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "AvgPool2d",
    "Backend",
    "BackendError",
    "BatchNorm",
    "Callback",
    "Channels",
    "CheckpointError",
    "Context",
    "Conv1d",
    "Conv2d",
    "ConvTranspose2d",
    "Cutout",
    "DataError",
    "DataWarning",
    "Dropout",
    "Dropout2d",
    "EarlyStopping",
    "Embedding",
    "ExponentialMovingAverage",
    "Flatten",
    "GlobalAvgPool2d",
    "GroupNorm",
    "Hardswish",
    "History",
    "HoldOut",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "Lion",
    "Live",
    "LogSoftmax",
    "Masked",
    "MaxPool2d",
    "Microscope",
    "Mish",
    "Model",
    "ModelCheckpoint",
    "Movie",
    "MultiHeadAttention",
    "NAdam",
    "NonFiniteError",
    "Optimizer",
    "PReLU",
    "Parallel",
    "Parameter",
    "Pooled",
    "Positions",
    "RMSNorm",
    "RMSProp",
    "RandomAffine",
    "RandomCrop",
    "RandomFlip",
    "RandomRotate",
    "RandomShift",
    "ReLU",
    "Recompute",
    "ReduceOnPlateau",
    "Residual",
    "Rows",
    "Scale",
    "Sequential",
    "ShapeError",
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
    "available_backends",
    "backend",
    "binary_cross_entropy",
    "constant",
    "cosine",
    "cross_entropy",
    "datasets",
    "export_onnx",
    "find_rate",
    "focal",
    "generate",
    "hinge",
    "huber",
    "kl_divergence",
    "load",
    "loggers",
    "mean_absolute_error",
    "mean_squared_error",
    "metrics",
    "negative_log_likelihood",
    "one_cycle",
    "perceptron",
    "plot",
    "poisson",
    "polynomial",
    "schedules",
    "softmax",
    "step_decay",
    "testing",
    "use",
    "warm_restarts",
    "warmup",
]


if TYPE_CHECKING:
    from xpnet import loggers, testing
    from xpnet.interop.onnx import export_onnx
    from xpnet.look import plot
    from xpnet.look.live import Live, Movie
    from xpnet.look.microscope import Microscope

LATER = {"Live": "xpnet.look.live", "Movie": "xpnet.look.live", "Microscope": "xpnet.look.microscope"}
LATER |= {"export_onnx": "xpnet.interop.onnx", "plot": "xpnet.look.plot", "testing": "xpnet.testing"}
LATER |= {"loggers": "xpnet.loggers"}

if not TYPE_CHECKING:  # or a type checker would take every name for one that is here

    def __getattr__(name: str) -> object:
        """Import what training needs not when it is first asked for."""
        if name not in LATER:
            raise AttributeError(f"module 'xpnet' has no attribute {name!r}")
        from importlib import import_module

        module = import_module(LATER[name])
        return getattr(module, name, module)

    def __dir__() -> list[str]:
        """List what is here and what is imported when it is first asked for."""
        return sorted({*globals(), *__all__})
