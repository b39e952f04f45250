"""The floor: all the products of one epoch of a dense net, with their results in place, and nothing else.

Their operands lie as in every training of such a net: x and W by rows, x W as it is, xᵀ dy and dy Wᵀ by views, which
the library reads transposed; no array is copied. On a GPU each is done by cuBLAS or cuBLASLt, whichever is faster here,
and a step is one CUDA graph, so that the host does not count. For bfloat16 operands and results are arrays of bfloat16:
fewer bytes to move than for any training whose parameters are float32, and nothing to convert.
"""

from collections.abc import Callable
from itertools import pairwise

from benchmarks.settings import Settings


def prepare(settings: Settings):
    """Return `epoch`, which trains nothing and has no loss; the option `threads` limits NumPy's BLAS."""
    pairs = list(pairwise(settings.sizes))
    new, matmul, together, wait = library(settings)
    weights = [new(nin, nout) for nin, nout in pairs]
    gradients = [new(nin, nout) for nin, nout in pairs]

    def products(batch: int) -> Callable[[], None]:
        arrays, deltas = ([new(batch, size) for size in settings.sizes] for _ in range(2))
        operands = [(arrays[k], weight, arrays[k + 1]) for k, weight in enumerate(weights)]
        for k in reversed(range(len(weights))):
            operands.append((arrays[k].T, deltas[k + 1], gradients[k]))
            if k:
                operands.append((deltas[k + 1], weights[k].T, deltas[k]))
        return together([lambda a=a, b=b, out=out: matmul(a, b, out=out) for a, b, out in operands])

    whole, rest = divmod(settings.samples, settings.batch)
    steps = [products(settings.batch)] * whole + ([products(rest)] if rest else [])

    def epoch() -> None:
        for step in steps:
            step()
        wait()

    return epoch, None


def library(settings: Settings):
    """Return how to make an array, to multiply, to make one step of products, and to wait."""
    if settings.device == "cpu":
        import numpy as np

        if threads := settings.options.get("threads"):
            from threadpoolctl import threadpool_limits

            threadpool_limits(limits=threads, user_api="blas")
        rng = np.random.default_rng(0)
        return lambda *shape: rng.random(shape, np.float32), np.matmul, in_turn, lambda: None
    import torch

    torch.set_float32_matmul_precision("highest" if settings.precision == "float32" else "high")
    dtype = torch.bfloat16 if settings.precision == "bfloat16" else torch.float32
    device = torch.device(settings.device)
    return lambda *shape: torch.rand(*shape, device=device, dtype=dtype), torch.matmul, captured, torch.cuda.synchronize


def in_turn(products: list[Callable[[], None]]) -> Callable[[], None]:
    """Return what does one after the other."""

    def step() -> None:
        for product in products:
            product()

    return step


def captured(products: list[Callable[[], None]]) -> Callable[[], None]:
    """Return a CUDA graph of the products, each by the library that is the fastest for it."""
    import torch

    graph, aside = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.cuda.stream(aside):  # where it is captured, the libraries must have been before
        chosen = [
            (min(("cublas", "cublaslt"), key=lambda name, p=product: duration(name, p)), product)
            for product in products
        ]
    with torch.cuda.graph(graph, stream=aside):
        for name, product in chosen:
            torch.backends.cuda.preferred_blas_library(name)
            product()
    return graph.replay


def duration(name: str, product: Callable[[], None], repeats: int = 20) -> float:
    """Return the milliseconds of a product, many in a row, by a library."""
    import torch

    torch.backends.cuda.preferred_blas_library(name)
    begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(3):
        product()
    begun.record()
    for _ in range(repeats):
        product()
    ended.record()
    torch.cuda.synchronize()
    return begun.elapsed_time(ended)
