"""Training on sequences beside PyTorch: `python -m benchmarks.sequences` writes sequences/DATE.json and .md.

A step of a character transformer. Every contender takes its turn in one process, one thread each, so that all meet the
same machine; a figure is the median of the turns' processor times, and a ratio the median of those within the turns.
"""

import argparse
import datetime
import json
import os
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

if __name__ == "__main__":  # read when the libraries are loaded
    from benchmarks import machine

    os.environ.update(machine.threads(1))

import numpy as np

from benchmarks import machine
from benchmarks.images import Turn, beside, timed, training
from xpnet.files.writer import write_text

HERE = Path(__file__).resolve().parent / "sequences"
TOKENS, STEPS = 96, 2


class Size(NamedTuple):
    """How large a transformer is: blocks, features, heads, positions; and a batch."""

    blocks: int
    n: int
    heads: int
    length: int
    batch: int

    def __str__(self) -> str:
        return f"{self.blocks} blocks, n = {self.n}, T = {self.length}, batch {self.batch}"


SIZES = Size(2, 64, 4, 64, 64), Size(4, 128, 4, 128, 32)


def data(size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens, and those that come next."""
    text = np.random.default_rng(0).integers(0, TOKENS, (STEPS * size.batch, size.length + 1)).astype(np.int32)
    return text[:, :-1], text[:, 1:]


def xpnet(name: str, size: Size) -> Turn:
    """Return some steps of xpnet's training on a backend; `numpy` is without Numba, `numpy+fast` with it."""
    import xpnet as xn

    blocks = [xn.TransformerBlock(size.n, size.heads, causal=True) for _ in range(size.blocks)]
    first = xn.Embedding(TOKENS, size.n, scale=0.02), xn.Positions(size.length, size.n)
    net = xn.Tied(*first, *blocks, xn.LayerNorm(size.n))
    return training(net, name, data(size), size.batch)


def pytorch(size: Size) -> Turn:
    """Return the same steps of PyTorch, eager, with its own fused attention and Adam."""
    import torch

    torch.set_num_threads(1)
    n, functional, (_, d, heads, length, _) = torch.nn, torch.nn.functional, size

    class Block(n.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.second = n.LayerNorm(d), n.LayerNorm(d)
            self.qkv, self.out, self.wide, self.narrow = (
                n.Linear(d, k * d) if k > 0 else n.Linear(-k * d, d) for k in (3, 1, 4, -4)
            )

        def forward(self, x: Any) -> Any:
            parts = self.qkv(self.norm(x)).view(*x.shape[:2], 3, heads, d // heads).permute(2, 0, 3, 1, 4)
            read = functional.scaled_dot_product_attention(*parts, is_causal=True)
            x = x + self.out(read.transpose(1, 2).reshape(x.shape))
            return x + self.narrow(functional.gelu(self.wide(self.second(x)), approximate="tanh"))

    class Net(n.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.places = n.Embedding(TOKENS, d), n.Parameter(0.02 * torch.randn(length, d))
            self.blocks, self.norm = n.Sequential(*(Block() for _ in range(size.blocks))), n.LayerNorm(d)
            n.init.normal_(self.table.weight, std=0.02)

        def forward(self, x: Any) -> Any:
            return self.norm(self.blocks(self.table(x) + self.places)) @ self.table.weight.T

    net, (x, y) = Net(), map(torch.from_numpy, data(size))
    x, y = x.long(), y.long()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, fused=True)

    def turn() -> None:
        for start in range(0, len(x), size.batch):
            index = torch.arange(start, start + size.batch)
            optimizer.zero_grad()
            functional.cross_entropy(net(x[index]).reshape(-1, TOKENS), y[index].reshape(-1)).backward()
            optimizer.step()

    return turn


def measure(repeats: int) -> dict[str, Any]:
    """Measure all, and return ratios and medians."""
    from xpnet.backends.host import keep_memory

    keep_memory()
    names, bar = ("numpy", "numpy+fast", "torch", "jax"), "PyTorch"
    report: dict[str, Any] = {}
    for size in SIZES:
        turns = {name: xpnet(name, size) for name in names} | {bar: pytorch(size)}
        found = timed(turns, repeats)
        report[str(size)] = {
            "milliseconds": {name: median(seconds) * 1e3 / STEPS for name, seconds in found.items()},
            "ratios": {name: beside(found, name, bar) for name in names},
        }
    return report


def page(report: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    text = "one thread each, processor time, medians; ratios to PyTorch eager with its fused attention and Adam."
    lines = ["# Training on sequences", "", f"One step of a character transformer, {text}"]
    for size, found in report.items():
        lines += ["", f"| {size} | ms | ratio |", "| --- | --: | --: |"]
        for name, value in found["milliseconds"].items():
            lines.append(f"| {name} | {value:.0f} | {found['ratios'].get(name, 1.0):.2f} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sequences", description=__doc__)
    parser.add_argument("--repeats", type=int, default=7, help="turns of each contender, the first not counted")
    args = parser.parse_args()
    report = measure(args.repeats)
    HERE.mkdir(exist_ok=True)
    path = HERE / f"{datetime.date.today().isoformat()}.json"
    write_text(path, json.dumps({"machine": machine.describe(1), **report}, indent=1, ensure_ascii=False) + "\n")
    write_text(path.with_suffix(".md"), page(report))
    print(page(report))


if __name__ == "__main__":
    main()
