"""Optimizers: each is one elementwise rule. `base` says what an optimizer is; then in order of difficulty."""

from xpnet.optimizers.adagrad import Adagrad
from xpnet.optimizers.adam import Adam, AdamW
from xpnet.optimizers.base import Groups, Memory, Optimizer, Update
from xpnet.optimizers.lion import Lion
from xpnet.optimizers.nadam import NAdam
from xpnet.optimizers.rmsprop import RMSProp
from xpnet.optimizers.sgd import SGD

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Groups", "Lion", "Memory", "NAdam", "Optimizer", "RMSProp", "Update"]
