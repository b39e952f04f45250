"""Optimizers: each is one elementwise rule. `base` says what an optimizer is; then in order of difficulty."""

from xpnet.optimizers.adam import Adam, AdamW
from xpnet.optimizers.base import Memory, Optimizer, Update
from xpnet.optimizers.rmsprop import RMSProp
from xpnet.optimizers.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Memory", "Optimizer", "RMSProp", "Update"]
