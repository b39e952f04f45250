"""Training on images beside PyTorch and hand-written JAX: `python -m benchmarks.images` writes images/DATE.json, .md.

Every contender takes its turn in one process, one thread each, so that all meet the same machine; a figure is the
median of the turns' processor times, and a ratio the median of the ratios within the turns.
"""

import argparse
import datetime
import json
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

if __name__ == "__main__":  # read when the libraries are loaded
    from benchmarks import machine

    os.environ.update(machine.threads(1))

import numpy as np

from benchmarks import machine
from xpnet.files.writer import write_text

HERE = Path(__file__).resolve().parent / "images"
BATCH, STEPS = 128, 2
WIDTHS = (32, 64, 128)
LAYERS = {
    "14², 32→64": (14, 32, 64, 1, 1),
    "7², 64→128": (7, 64, 128, 1, 1),
    "32², 64→64": (32, 64, 64, 1, 1),
    "14², 32→64, stride 2": (14, 32, 64, 2, 1),
    "14², 64, depthwise": (14, 64, 64, 1, 64),
}
"""Height, channels in and out, stride, groups: kernels of 3 × 3."""

Turn = Callable[[], Any]


def data() -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels of some batches."""
    rng = np.random.default_rng(0)
    count = STEPS * BATCH
    return rng.random((count, 28, 28, 1), dtype=np.float32), rng.integers(0, 10, count).astype(np.int32)


def xpnet(name: str) -> Turn:
    """Return some steps of xpnet's training on a backend; `numpy` is without Numba, `numpy+fast` with it."""
    import xpnet as xn

    def part(nin: int, nout: int) -> tuple[Any, ...]:
        return xn.Conv2d(nin, nout, 3, padding=1, bias=False), xn.BatchNorm(nout), xn.ReLU()

    a, b, c = WIDTHS
    head = xn.Flatten(), xn.Dropout(0.3), xn.Linear(49 * c, 10)
    net = xn.Sequential(*part(1, a), xn.MaxPool2d(2), *part(a, b), xn.MaxPool2d(2), *part(b, c), *head)
    return training(net, name, data(), BATCH)


def training(net: Any, name: str, arrays: tuple[np.ndarray, np.ndarray], batch: int) -> Turn:
    """Return all the steps that some samples make, by a network with cross-entropy and Adam on a backend."""
    import xpnet as xn
    from xpnet.backends import fused

    library, _, fast = name.partition("+")
    model = xn.Model(net, xn.cross_entropy, xn.Adam(1e-3), backend=library)
    backend, state = model.backend, [model.state]
    parts = tuple(map(backend.asarray, arrays))
    block, available = np.arange(len(arrays[1]), dtype=np.int32).reshape(-1, batch), fused.fused_available

    def turn() -> None:
        fused.fused_available = available if fast or library != "numpy" else lambda: False
        state[0] = model.step.many(state[0], parts, block).state
        fused.fused_available = available

    return turn


def pytorch(last: bool) -> Turn:
    """Return the same steps of PyTorch, eager; the channels last in memory, or first."""
    import torch

    torch.set_num_threads(1)
    n, layout = torch.nn, torch.channels_last if last else torch.contiguous_format

    def part(nin: int, nout: int) -> tuple[Any, ...]:
        return n.Conv2d(nin, nout, 3, padding=1, bias=False), n.BatchNorm2d(nout), n.ReLU()

    a, b, c = WIDTHS
    head = n.Flatten(), n.Dropout(0.3), n.Linear(49 * c, 10)
    net = n.Sequential(*part(1, a), n.MaxPool2d(2), *part(a, b), n.MaxPool2d(2), *part(b, c), *head)
    net = net.to(memory_format=layout)
    x, y = map(torch.from_numpy, data())
    x, y = x.permute(0, 3, 1, 2).contiguous(memory_format=layout), y.long()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, fused=True)

    def turn() -> None:
        for start in range(0, len(x), BATCH):
            index = torch.arange(start, start + BATCH)
            optimizer.zero_grad()
            n.functional.cross_entropy(net(x[index]), y[index]).backward()
            optimizer.step()

    return turn


def by_hand() -> Turn:
    """Return the same steps in JAX written for this net alone, its gradient by JAX, K steps a scan.

    Pools by reshaping, and patchesᵀ dy for dW, since XLA's own gradient of a convolution is slow within a scan. It is
    the fastest of ten: with threefry or rbg for dropout, convolutions and dx by lax or by patches, pools by slices, by
    maximum or by max, means as products or sums.
    """
    import jax
    import jax.numpy as jnp

    def patches(x: Any) -> Any:
        padded, size = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), x.shape[1]
        taps = [padded[:, i : i + size, j : j + size] for i in range(3) for j in range(3)]
        return jnp.concatenate(taps, -1).reshape(-1, 9 * x.shape[3])

    def product(x: Any, w: Any) -> Any:
        return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    @jax.custom_vjp
    def convolution(x: Any, w: Any) -> Any:
        return product(x, w)

    def back(kept: Any, dy: Any) -> Any:
        x, w = kept
        dw = (patches(x).T @ dy.reshape(-1, dy.shape[3])).reshape(w.shape)
        return product(dy, jnp.flip(w, (0, 1)).transpose(0, 1, 3, 2)), dw

    convolution.defvjp(lambda x, w: (product(x, w), (x, w)), back)

    def norm(x: Any, gamma: Any, beta: Any) -> Any:
        rows = x.reshape(-1, x.shape[-1])
        ones = jnp.full((1, len(rows)), 1 / len(rows), x.dtype)
        d = rows - ones @ rows
        return (d * (gamma / jnp.sqrt(ones @ (d * d) + 1e-5)) + beta).reshape(x.shape)

    def pool(x: Any) -> Any:
        n, h, w, c = x.shape
        return x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))

    def loss(theta: Any, x: Any, y: Any, key: Any) -> Any:
        for k, (w, gamma, beta) in enumerate(theta[:-1]):
            x = jnp.maximum(norm(convolution(x, w), gamma, beta), 0)
            x = pool(x) if k < 2 else x.reshape(len(x), -1)
        x = x * jax.random.bernoulli(key, 0.7, x.shape) / 0.7
        scores = x @ theta[-1][0] + theta[-1][1]
        return -jnp.mean(jax.nn.log_softmax(scores)[jnp.arange(len(y)), y])

    def step(carry: Any, xs: Any) -> Any:
        theta, m, v, t = carry
        index, key = xs
        value, g = jax.value_and_grad(loss)(theta, x_all[index], y_all[index], key)
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        one, two = 1 - 0.9 ** (t + 1), 1 - 0.999 ** (t + 1)
        theta = jax.tree.map(lambda p, m, v: p - 1e-3 * (m / one) / (jnp.sqrt(v / two) + 1e-8), theta, m, v)
        return (theta, m, v, t + 1), value

    x_all, y_all = map(jnp.asarray, data())
    rng, nin, theta = np.random.default_rng(0), 1, []
    for nout in WIDTHS:
        w = rng.normal(size=(3, 3, nin, nout)).astype("float32") * np.float32((2 / (9 * nin)) ** 0.5)
        theta, nin = [*theta, (jnp.asarray(w), jnp.ones(nout), jnp.zeros(nout))], nout
    theta.append((jnp.asarray(rng.normal(size=(49 * nin, 10)).astype("float32") / 80), jnp.zeros(10)))
    zeros = jax.tree.map(jnp.zeros_like, theta)
    carry = [(theta, zeros, jax.tree.map(jnp.zeros_like, theta), jnp.float32(0))]
    scan = jax.jit(lambda carry, xs: jax.lax.scan(step, carry, xs), donate_argnums=0)
    index = jnp.arange(STEPS * BATCH).reshape(STEPS, BATCH)

    def turn() -> None:
        carry[0], values = scan(carry[0], (index, jax.random.split(jax.random.key(0, impl="unsafe_rbg"), STEPS)))
        values.block_until_ready()

    return turn


def layer(size: int, nin: int, nout: int, stride: int, groups: int) -> dict[str, Turn]:
    """Return a convolution forward and backward on NumPy, and in PyTorch, eager."""
    import torch

    import xpnet as xn
    from xpnet.layers.context import Context

    rng, backend = np.random.default_rng(0), xn.backend("numpy")
    conv = xn.Conv2d(nin, nout, 3, stride, 1, groups=groups, bias=False)
    params, context = (conv.init(0, "numpy").reshape(conv.parameters()[0].shape),), Context(backend)
    x = rng.random((BATCH, size, size, nin), dtype=np.float32)
    dy = rng.random(conv.output_shape(x.shape), dtype=np.float32)
    other = torch.nn.Conv2d(nin, nout, 3, stride, 1, groups=groups, bias=False)
    tx, tdy = (torch.from_numpy(a).permute(0, 3, 1, 2).contiguous() for a in (x, dy))

    def theirs() -> None:
        other.weight.grad = None
        other(tx.detach().requires_grad_()).backward(tdy)

    def ours() -> tuple[Any, Any]:
        y, backward = conv.forward(params, x, context)
        return y, backward(dy)

    return {"xpnet": ours, "PyTorch": theirs}


def timed(turns: dict[str, Turn], repeats: int) -> dict[str, list[float]]:
    """Let all take turns, and return the processor seconds of each turn; the first, which warms up, is left out."""
    found: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(repeats + 1):
        for name, turn in turns.items():
            begun = time.process_time()
            turn()
            found[name].append(time.process_time() - begun)
    return {name: seconds[1:] for name, seconds in found.items()}


def beside(found: dict[str, list[float]], name: str, bar: str) -> float:
    """Return the median of the ratios within the turns."""
    return median(a / b for a, b in zip(found[name], found[bar], strict=True))


def memory() -> float:
    """Return the most memory that a convolution takes forward and backward on NumPy, in x + y."""
    size, nin, nout = 32, 64, 64
    turn = layer(size, nin, nout, 1, 1)["xpnet"]
    turn()
    tracemalloc.start()
    turn()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / (4.0 * BATCH * size * size * (nin + nout))


def measure(repeats: int) -> dict[str, Any]:
    """Measure all, and return ratios and medians."""
    from xpnet.backends.host import keep_memory

    keep_memory()
    first, last, hand = "PyTorch, channels first", "PyTorch, channels last", "JAX by hand"
    names = ("numpy", "numpy+fast", "torch", "jax")
    turns = {name: xpnet(name) for name in names} | {first: pytorch(False), last: pytorch(True), hand: by_hand()}
    found = timed(turns, repeats)
    bars = {"numpy": first, "numpy+fast": first, "torch": last, "jax": hand}
    steps = {name: median(seconds) * 1e3 / STEPS for name, seconds in found.items()}
    single = {name: beside(timed(layer(*sizes), repeats), "xpnet", "PyTorch") for name, sizes in LAYERS.items()}
    ratios = {f"{name} / {bar}": beside(found, name, bar) for name, bar in bars.items()}
    return {
        "milliseconds of a step": steps,
        "ratios of a step": ratios,
        "ratios of a layer": single,
        "memory": memory(),
    }


def page(report: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    text = "a convolutional net, batch 128, one thread each, processor time, medians; below 1 xpnet is faster."
    lines = ["# Training on images", "", f"One step of {text}", "", "| step | ms |", "| --- | --: |"]
    lines += [f"| {name} | {value:.0f} |" for name, value in report["milliseconds of a step"].items()]
    lines += ["", "| step | ratio |", "| --- | --: |"]
    lines += [f"| {name} | {value:.2f} |" for name, value in report["ratios of a step"].items()]
    lines += ["", "| one 3 × 3 layer, NumPy / PyTorch channels first | ratio |", "| --- | --: |"]
    lines += [f"| {name} | {value:.2f} |" for name, value in report["ratios of a layer"].items()]
    lines += ["", f"Peak memory of a layer at 32², 64→64, forward and backward: {report['memory']:.2f} × (x + y).", ""]
    return "\n".join(lines)


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.images", description=__doc__)
    parser.add_argument("--repeats", type=int, default=7, help="turns of each contender, the first not counted")
    args = parser.parse_args()
    report = {"machine": machine.describe(1), **measure(args.repeats)}
    HERE.mkdir(exist_ok=True)
    path = HERE / f"{datetime.date.today().isoformat()}.json"
    write_text(path, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    write_text(path.with_suffix(".md"), page(report))
    print(page(report))


if __name__ == "__main__":
    main()
