"""The floor: all the products of one epoch, with their results in place, and nothing else."""

from itertools import pairwise

from benchmarks.settings import Settings


def prepare(settings: Settings):
    """Return `epoch`, which trains nothing and has no loss; the option `threads` limits NumPy's BLAS."""
    pairs = list(pairwise(settings.sizes))
    new, matmul, wait = library(settings)
    weights = [new(nin, nout) for nin, nout in pairs]
    gradients = [new(nin, nout) for nin, nout in pairs]

    def products(batch: int):
        arrays, deltas = ([new(batch, size) for size in settings.sizes] for _ in range(2))

        def step() -> None:
            for k, weight in enumerate(weights):
                matmul(arrays[k], weight, out=arrays[k + 1])
            for k in reversed(range(len(weights))):
                matmul(arrays[k].T, deltas[k + 1], out=gradients[k])
                if k:
                    matmul(deltas[k + 1], weights[k].T, out=deltas[k])

        return step

    whole, rest = divmod(settings.samples, settings.batch)
    steps = [products(settings.batch)] * whole + [products(rest)] * bool(rest)

    def epoch() -> None:
        for step in steps:
            step()
        wait()

    return epoch, None


def library(settings: Settings):
    """Return how to make an array, to multiply and to wait: NumPy on the CPU, PyTorch elsewhere."""
    if settings.device == "cpu":
        import numpy as np

        if threads := settings.options.get("threads"):
            from threadpoolctl import threadpool_limits

            threadpool_limits(limits=threads, user_api="blas")
        rng = np.random.default_rng(0)
        return lambda *shape: rng.random(shape, np.float32), np.matmul, lambda: None
    import torch

    torch.set_float32_matmul_precision("high" if settings.tf32 else "highest")
    device = torch.device(settings.device)
    return lambda *shape: torch.rand(*shape, device=device), torch.matmul, torch.cuda.synchronize
