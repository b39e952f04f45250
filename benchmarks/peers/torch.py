"""PyTorch: data on the device, indexed by a permutation; the fused optimizer; the loss summed without waiting.

Products in bfloat16 are autocast's: forward and loss within it, parameters and optimizer in float32.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.peers.torch_nets import data, network, numbers
from benchmarks.settings import Settings


def optimizer(settings: Settings, net: nn.Module) -> torch.optim.Optimizer:
    """Adam, or SGD with momentum, fused."""
    if settings.optimizer == "adam":
        return torch.optim.Adam(net.parameters(), settings.rate, fused=True)
    return torch.optim.SGD(net.parameters(), settings.rate, settings.momentum, fused=True)


def configure(settings: Settings) -> None:
    """Seed, precision of products and convolutions, cuDNN's search for the fastest, subnormals."""
    torch.manual_seed(settings.seed)
    torch.set_float32_matmul_precision("highest" if settings.precision == "float32" else "high")
    torch.backends.cudnn.allow_tf32 = settings.precision != "float32"
    torch.backends.cudnn.benchmark = True
    torch.set_flush_denormal(settings.options.get("flush", False))


def prepare(settings: Settings):
    """Return `epoch` and `predict`; the options are `flush` (subnormals) and `compile`, a mode of torch.compile."""
    configure(settings)
    device, mode = torch.device(settings.device), settings.options.get("compile")
    x, y = data(settings, device)
    net = network(settings).to(device)
    rule, half = optimizer(settings, net), settings.precision == "bfloat16"

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            return functional.cross_entropy(net(x).flatten(0, -2), y.flatten())

    forward = torch.compile(loss_of, mode=mode, dynamic=False) if mode else loss_of

    def epoch() -> float:
        net.train()
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
        net.eval()
        return net(numbers(settings, images, device)).argmax(dim=1).cpu().numpy()

    return epoch, predict
