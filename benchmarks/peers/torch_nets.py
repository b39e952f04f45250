"""The nets in PyTorch, each with its data on the device, as its users would write them well."""

from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.settings import BLOCKS, FEATURES, HEADS, LENGTH, TOKENS, WIDTH, Settings


def dense(sizes: tuple[int, ...]) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for nin, nout in pairwise(sizes):
        layers += [nn.Linear(nin, nout), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def convolution(nin: int, nout: int, *pool: nn.Module) -> list[nn.Module]:
    """3×3, perhaps a pool, and batch normalisation."""
    return [nn.Conv2d(nin, nout, 3, padding=1, bias=False), *pool, nn.BatchNorm2d(nout)]


class Residual(nn.Module):
    """y = x + f(x)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(x)


def cnn() -> nn.Module:
    """The network of examples/images.py, the channels last in memory."""
    a, b, c = WIDTH, 2 * WIDTH, 4 * WIDTH
    net = nn.Sequential(
        *(*convolution(1, a, nn.MaxPool2d(2)), nn.ReLU(), *convolution(a, b, nn.MaxPool2d(2)), nn.ReLU()),
        *(*convolution(b, c), nn.ReLU(), Residual(*convolution(c, c), nn.ReLU(), *convolution(c, c)), nn.ReLU()),
        *(nn.Flatten(), nn.Dropout(0.3), nn.Linear(49 * c, 10)),
    )
    return net.to(memory_format=torch.channels_last)


class Attention(nn.Module):
    """Causal attention of several heads, fused."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(FEATURES, 3 * FEATURES), nn.Linear(FEATURES, FEATURES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.qkv(x).view(*x.shape[:2], 3, HEADS, FEATURES // HEADS).permute(2, 0, 3, 1, 4)
        read = functional.scaled_dot_product_attention(*parts, is_causal=True)
        return self.out(read.transpose(1, 2).reshape(x.shape))


class Transformer(nn.Module):
    """Blocks that are normalised before each part; one table for what is read and what is predicted."""

    def __init__(self) -> None:
        super().__init__()
        n = FEATURES
        self.table, self.places = nn.Embedding(TOKENS, n), nn.Parameter(0.02 * torch.randn(LENGTH, n))
        nn.init.normal_(self.table.weight, std=0.02)
        layers: list[nn.Module] = []
        for _ in range(BLOCKS):
            wide = nn.Linear(n, 4 * n), nn.GELU("tanh"), nn.Linear(4 * n, n)
            layers += [Residual(nn.LayerNorm(n), Attention()), Residual(nn.LayerNorm(n), *wide)]
        self.layers = nn.Sequential(*layers, nn.LayerNorm(n))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return functional.linear(self.layers(self.table(tokens) + self.places), self.table.weight)


def network(settings: Settings) -> nn.Module:
    """Return the net of a task."""
    if settings.kind == "dense":
        return dense(settings.sizes)
    return cnn() if settings.kind == "cnn" else Transformer()


def numbers(settings: Settings, images: Any, device: torch.device) -> torch.Tensor:
    """Return bytes as numbers in 0..1 on the device; for convolutions with a channel."""
    x = torch.from_numpy(images).to(device).float().div_(255)
    return x.view(-1, 1, 28, 28).contiguous(memory_format=torch.channels_last) if settings.kind == "cnn" else x


def data(settings: Settings, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what is learnt, on the device."""
    if settings.kind == "transformer":
        x, y = (torch.from_numpy(part).to(device).long() for part in settings.text())
        return x, y
    images, labels = settings.train()
    return numbers(settings, images, device), torch.from_numpy(labels).to(device).long()
