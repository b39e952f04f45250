"""Write what PyTorch tests its own functions with, and what they give, to a file: `python tests/torch_samples.py FILE`.

A process of its own, since PyTorch's test machinery changes settings of the whole library when it is imported.
"""

import pickle
import sys

import torch
from torch.testing._internal.common_methods_invocations import op_db

NAMES = ("conv1d", "conv2d", "conv_transpose2d", "max_pool2d", "avg_pool2d", "batch_norm", "layer_norm", "group_norm")
NAMES += ("rms_norm", "interpolate", "upsample_nearest")


def plain(value):
    """Return NumPy's array for a tensor, a tuple for a size, and all else as it is."""
    if isinstance(value, torch.Tensor):
        return value.detach().numpy().copy()
    return tuple(value) if isinstance(value, torch.Size) else value


def fresh(value):
    """Return a tensor's copy, which asks for a gradient if it did, and all else as it is."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    return value


def tried(function, sample):
    """Return a sample's arguments, their gradients, what they are after the call, the output and a gradient of it."""
    given, count = [sample.input, *sample.args, *sample.kwargs.values()], 1 + len(sample.args)
    own = [fresh(value) for value in given]
    y = function(*own[:count], **dict(zip(sample.kwargs, own[count:], strict=True)))
    y = y[0] if isinstance(y, tuple) else y
    dy = torch.randn(y.shape, dtype=y.dtype)
    leaves = [value for value in own if isinstance(value, torch.Tensor) and value.requires_grad]
    found = dict(zip(map(id, leaves), torch.autograd.grad(y, leaves, dy, allow_unused=True), strict=True))
    return {
        "names": list(sample.kwargs),
        "given": [plain(value) for value in given],
        "after": [plain(value) for value in own],
        "gradients": [plain(found.get(id(value))) for value in own],
        "y": plain(y),
        "dy": plain(dy),
    }


def main(path):
    torch.manual_seed(0)
    chosen = {}
    for op in op_db:
        name = op.name.removeprefix("nn.functional.")
        if name in NAMES and op.variant_test_name in ("", "nearest"):
            samples = op.sample_inputs("cpu", torch.float64, requires_grad=True)
            chosen[name] = [tried(op.op, sample) for sample in samples]
    with open(path, "wb") as file:
        pickle.dump(chosen, file)


if __name__ == "__main__":
    main(sys.argv[1])
