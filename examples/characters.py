"""Train a network that writes, a character at a time: `python examples/characters.py`; a recurrent one: `--net gru`.

It learns Python's own reference, the texts of `help("topics")` (PSF License Version 2), unless `--text` names a file.
What it has learnt is saved with `--save PATH`; `--generate PATH` writes on, and trains nothing.
"""

import argparse
import math
import time
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import mnist
import numpy as np

import xpnet as xn

VOCABULARY = "\n" + "".join(map(chr, range(32, 127)))
"""The characters, whatever the text: a line's end and ASCII's; each other one becomes a question mark."""

PEAK_RATES = mnist.PEAK_RATES | {"adamw": 6e-3}


def arguments() -> argparse.Namespace:
    parser = mnist.common_arguments(__doc__, epochs=12, optimizer="adamw")
    parser.set_defaults(batch_size=32)
    parser.add_argument("--net", choices=NETS, default="transformer")
    parser.add_argument("--blocks", type=mnist.positive, default=2, help="of the transformer, or layers of the GRU")
    parser.add_argument("--features", type=fours, default=128, help="of each position, for 4 heads to share")
    parser.add_argument("--length", type=mnist.positive, default=128, help="characters that are seen at a time")
    parser.add_argument("--dropout", type=share, default=0.1)
    parser.add_argument("--text", type=Path, metavar="PATH", help="learn this text")
    parser.add_argument("--generate", type=Path, metavar="PATH", help="write with this model, and train nothing")
    parser.add_argument("--prompt", default="The ", help="what the writing begins with")
    parser.add_argument("--characters", type=mnist.natural, default=500, help="to write in the end")
    parser.add_argument("--temperature", type=warmth, default=0.8, help="0: the likeliest character; 1: as they come")
    parser.add_argument("--top-k", type=mnist.positive, help="write the k likeliest characters alone")
    return parser.parse_args()


def share(text: str) -> float:
    """Read a share, below 1."""
    if not 0 <= (number := float(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 0 and below 1")
    return number


def warmth(text: str) -> float:
    """Read a temperature."""
    return 0.0 if float(text) == 0 else mnist.above_zero(text)


def fours(text: str) -> int:
    """Read a number that 4 divides."""
    if (number := mnist.positive(text)) % 4:
        raise argparse.ArgumentTypeError("must be a multiple of 4")
    return number


def encode(text: str) -> np.ndarray:
    """Return the number of each character."""
    places = {character: k for k, character in enumerate(VOCABULARY)}
    return np.asarray([places.get(character, places["?"]) for character in text], dtype=np.uint8)


def windows(tokens: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pieces of a text (N, T), each after half of the one before, and what comes next at each position."""
    starts = np.arange(0, len(tokens) - length, max(length // 2, 1))
    if not len(starts):
        raise xn.DataError(f"the text is too short: {len(tokens)} characters for --length {length}")
    pieces = tokens[starts[:, None] + np.arange(length + 1)]
    return pieces[:, :-1], pieces[:, 1:]


def transformer(args: argparse.Namespace) -> xn.Layer:
    """A small GPT: what it reads and what it predicts share a table."""
    n, drop = args.features, args.dropout
    blocks = [xn.TransformerBlock(n, heads=4, causal=True, dropout=drop, rotary=True) for _ in range(args.blocks)]
    return xn.Tied(xn.Embedding(len(VOCABULARY), n, scale=0.1), *blocks, xn.LayerNorm(n))


def gru(args: argparse.Namespace) -> xn.Layer:
    """Recurrent layers, one on the other."""
    n, drop = args.features, args.dropout
    layers = [layer for _ in range(args.blocks) for layer in (xn.GRU(n, n), xn.Dropout(drop))]
    return xn.Sequential(xn.Embedding(len(VOCABULARY), n), *layers, xn.Linear(n, len(VOCABULARY)))


NETS = {"transformer": transformer, "gru": gru}


def bits(scores: Any, labels: Any) -> Any:
    """The cross-entropy in bits a character."""
    return xn.cross_entropy(scores, labels)[0] / math.log(2.0)


class Sample(xn.Callback):
    """Shows after each epoch what the network writes."""

    on_every_rank = False

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args

    def on_epoch_end(self, model: xn.Model, history: xn.History) -> None:
        print(f"epoch {model.epoch}, {history['val_bits'][-1]:.3f} bits: {write(model, self.args, 100)!r}", flush=True)


def write(model: xn.Model, args: argparse.Namespace, count: int) -> str:
    """Return the prompt and `count` characters more."""
    how = {"temperature": args.temperature, "top_k": args.top_k, "seed": args.seed}
    written = xn.generate(model, encode(args.prompt), count, **how)
    return "".join(VOCABULARY[k] for k in written)


def new_model(args: argparse.Namespace, samples: int) -> xn.Model:
    """Return an untrained model; its learning rate rises and falls once over all the steps."""
    schedule = xn.one_cycle(args.lr, rise=0.1, steps=args.epochs * -(-samples // args.batch_size))
    settings = {"momentum": 0.9} if args.optimizer == "momentum" else {}
    settings |= {"weight_decay": 0.01} if args.optimizer == "adamw" else {}
    optimizer = mnist.OPTIMIZERS[args.optimizer](schedule, clip_norm=1.0, **settings)
    where = {"backend": args.backend, "world": args.world}
    return xn.Model(NETS[args.net](args), xn.cross_entropy, optimizer, seed=args.seed, metrics=[bits], **where)


def train(args: argparse.Namespace) -> None:
    """Train, or go on from a checkpoint; write, report, save."""
    text = encode(args.text.read_text(encoding="utf-8", errors="replace") if args.text else "".join(topics.values()))
    cut = len(text) * 9 // 10
    x, y = windows(text[:cut], args.length)
    model = xn.load(args.resume, args.backend, [bits], args.world) if args.resume else new_model(args, len(x))
    mnist.introduce(model, (None, args.length))
    begun = time.perf_counter()
    how: dict[str, Any] = {"checkpoint": args.checkpoint or args.resume, "every": args.every}
    how |= {"validation": windows(text[cut:], args.length), "callbacks": [Sample(args)]}
    history = model.resume(x, y, **how) if args.resume else model.fit(x, y, args.epochs, args.batch_size, **how)
    model.backend.synchronize()
    seconds = time.perf_counter() - begun
    if model.world.rank:
        return
    print(f"{history['val_bits'][-1]:.3f} bits a character after {model.epoch} epochs, {seconds:.1f} s\n")
    print(write(model, args, args.characters))
    if args.save:
        model.save(args.save)
    if args.json:
        mnist.report(args, model, history, {"test_bits": history["val_bits"][-1], "train_seconds": seconds})


def program() -> None:
    args = arguments()
    args.lr = args.lr or PEAK_RATES[args.optimizer]
    if args.generate:
        model = xn.load(args.generate, args.backend, [bits])
        print(f"{model.backend.name} on {model.backend.device}: {model.backend.reason}")
        print(write(model, args, args.characters))
    else:
        train(args)


if __name__ == "__main__":
    mnist.main(program)
