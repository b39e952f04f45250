"""PyTorch: data on the device, indexed by a permutation; the fused optimizer; the loss summed without waiting."""

from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.settings import Settings


def network(sizes: tuple[int, ...]) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for nin, nout in pairwise(sizes):
        layers += [nn.Linear(nin, nout), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def optimizer(settings: Settings, net: nn.Module) -> torch.optim.Optimizer:
    """Adam, or SGD with momentum, fused."""
    if settings.optimizer == "adam":
        return torch.optim.Adam(net.parameters(), settings.rate, fused=True)
    return torch.optim.SGD(net.parameters(), settings.rate, settings.momentum, fused=True)


def prepare(settings: Settings):
    """Return `epoch` and `predict`; the options are `flush` (subnormals) and `compile`, a mode of torch.compile."""
    torch.manual_seed(settings.seed)
    torch.set_float32_matmul_precision("high" if settings.tf32 else "highest")
    torch.set_flush_denormal(settings.options.get("flush", False))
    device, mode = torch.device(settings.device), settings.options.get("compile")
    images, labels = settings.train()
    x, y = torch.from_numpy(images).to(device).float().div_(255), torch.from_numpy(labels).to(device).long()
    net = network(settings.sizes).to(device)
    rule = optimizer(settings, net)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(net(x), y)

    forward = torch.compile(loss_of, mode=mode, dynamic=False) if mode else loss_of

    def epoch() -> float:
        total = torch.zeros((), device=device)
        for index in torch.randperm(len(x), device=device).split(settings.batch):
            if mode:
                torch.compiler.cudagraph_mark_step_begin()
            loss = forward(x[index], y[index])
            loss.backward()
            rule.step()
            rule.zero_grad()
            total.add_(loss.detach(), alpha=len(index))
        return total.item() / len(x)

    @torch.inference_mode()
    def predict(images: np.ndarray) -> np.ndarray:
        return net(torch.from_numpy(images).to(device).float().div_(255)).argmax(dim=1).cpu().numpy()

    return epoch, predict
