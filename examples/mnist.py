"""Train a multi-layer perceptron on MNIST: `python examples/mnist.py`, or with `--backend cupy` on a GPU."""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

started = time.perf_counter()

import xpnet as xn  # noqa: E402
from xpnet.files.writer import check, write_text  # noqa: E402

ACTIVATIONS = {"relu": xn.ReLU, "leaky_relu": xn.LeakyReLU, "tanh": xn.Tanh, "sigmoid": xn.Sigmoid}
ACTIVATIONS |= {"gelu": xn.GELU, "silu": xn.SiLU}
OPTIMIZERS = {"sgd": xn.SGD, "momentum": xn.SGD, "rmsprop": xn.RMSProp, "adam": xn.Adam, "adamw": xn.AdamW}
OPTIMIZERS |= {"adagrad": xn.Adagrad, "nadam": xn.NAdam, "lion": xn.Lion}
PEAK_RATES = {"sgd": 0.3, "momentum": 0.1, "rmsprop": 2e-3, "adam": 4e-3, "adamw": 4e-3}
PEAK_RATES |= {"adagrad": 2e-2, "nadam": 4e-3, "lion": 4e-4}


def arguments() -> argparse.Namespace:
    parser = common_arguments(__doc__, epochs=8, optimizer="adam")
    parser.add_argument("--layers", type=sizes, default="784,128,10", help="the sizes of the layers, input to output")
    parser.add_argument("--activation", choices=ACTIVATIONS, default="relu", help="between the linear layers")
    return parser.parse_args()


def common_arguments(description: str | None, epochs: int, optimizer: str) -> argparse.ArgumentParser:
    """Return a parser of what every network on MNIST can be told; `images.py` adds its own to it as well."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--backend", help="auto, numpy, cupy, torch, jax or strict, perhaps with a device: cupy:1")
    parser.add_argument("--world", help="mpi: train on all processes that mpiexec started")
    named = ", ".join(OPTIMIZERS)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default=optimizer, metavar="NAME", help=named)
    parser.add_argument(
        "--lr", type=above_zero, help="the highest learning rate of a one-cycle schedule (default: by optimizer)"
    )
    parser.add_argument("--epochs", type=positive, default=epochs)
    parser.add_argument("--batch-size", type=positive, default=128)
    parser.add_argument("--seed", type=natural, default=0)
    parser.add_argument(
        "--save", type=writable, metavar="PATH", help="write the trained model here; xn.load(PATH) reads it"
    )
    parser.add_argument("--checkpoint", type=writable, metavar="PATH", help="save here while training, every epoch")
    parser.add_argument("--every", type=positive, metavar="STEPS", help="and within the epoch after so many steps")
    parser.add_argument("--resume", metavar="PATH", help="go on from a checkpoint, with the settings it was begun with")
    parser.add_argument("--json", type=writable, metavar="PATH", help="write settings, history and results here")
    return parser


def sizes(text: str) -> list[int]:
    """Read `784,128,10`."""
    numbers = [int(part) for part in text.split(",")]
    if len(numbers) < 2 or numbers[0] != 784 or numbers[-1] != 10 or min(numbers) < 1:
        raise argparse.ArgumentTypeError("MNIST needs 784 inputs and 10 outputs: 784,128,10 for example")
    return numbers


def positive(text: str) -> int:
    """Read an integer of at least 1."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def natural(text: str) -> int:
    """Read an integer of at least 0."""
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError("must be at least 0")
    return number


def above_zero(text: str) -> float:
    """Read a number above 0."""
    if not 0 < (number := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0")
    return number


def writable(text: str) -> str:
    """Read the path of a file that can be written, before hours of training find out that it cannot."""
    try:
        check(text)
    except xn.CheckpointError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def network(layers: list[int], activation: str) -> xn.Sequential:
    """Bytes to numbers in 0..1, then linear layers with the activation between them."""
    initializer = "glorot" if activation in ("tanh", "sigmoid") else "he"
    net: list[xn.Layer] = [xn.Flatten(), xn.Scale(1 / 255)]
    for nin, nout in pairwise(layers):
        net += [xn.Linear(nin, nout, initializer=initializer), ACTIVATIONS[activation]()]
    return xn.Sequential(*net[:-1])


def new_model(args: argparse.Namespace, net: xn.Layer, samples: int, **settings: Any) -> xn.Model:
    """Return an untrained model; its learning rate rises and falls once over all the steps."""
    schedule = xn.one_cycle(args.lr, steps=args.epochs * -(-samples // args.batch_size))
    settings |= {"momentum": 0.9} if args.optimizer == "momentum" else {}
    optimizer = OPTIMIZERS[args.optimizer](schedule, **settings)
    where = {"backend": args.backend, "world": args.world}
    return xn.Model(net, xn.cross_entropy, optimizer, seed=args.seed, metrics=["accuracy"], **where)


def train(args: argparse.Namespace, net: xn.Layer, **settings: Any) -> None:
    """Train a network, or go on from a checkpoint, with these settings of its optimizer; report, save."""
    args.lr = args.lr or PEAK_RATES[args.optimizer]
    (images, labels), (test_images, test_labels) = xn.datasets.mnist()
    if args.resume:
        model = xn.load(args.resume, args.backend, world=args.world)
    else:
        model = new_model(args, net, len(images), **settings)
    introduce(model, (None, 28, 28))

    begun = time.perf_counter()
    how = {"validation": (test_images, test_labels), "checkpoint": args.checkpoint or args.resume, "every": args.every}
    if args.resume:
        history = model.resume(images, labels, **how)
    else:
        history = model.fit(images, labels, args.epochs, args.batch_size, **how)
    model.backend.synchronize()
    train_seconds = time.perf_counter() - begun
    test = model.evaluate(test_images, test_labels)
    if model.world.rank:
        return
    print(f"test accuracy {100 * test['accuracy']:.2f} % after {model.epoch} epochs, {train_seconds:.1f} s")

    if args.save:
        model.save(args.save)
    if args.json:
        report(args, model, history, {"test_accuracy": test["accuracy"], "train_seconds": train_seconds})


def introduce(model: xn.Model, shape: tuple[int | None, ...]) -> None:
    """Say what trains, and where; of several processes the first does."""
    backend, world = model.backend, model.world
    if world.rank == 0:
        ranks = f", {world.size} processes" if world.size > 1 else ""
        print(f"{backend.name} on {backend.device}: {backend.reason}{ranks}")
        print(model.net.summary(shape))


def report(args: argparse.Namespace, model: xn.Model, history: xn.History, found: dict[str, float]) -> None:
    """Write settings, versions, history and results as JSON."""
    backend = model.backend
    result = {
        "backend": backend.name,
        "device": str(backend.device),
        "processes": model.world.size,
        "versions": {"python": platform.python_version(), "xpnet": xn.__version__, backend.name: backend.version},
        "settings": vars(args),
        "history": history,
        **found,
        "total_seconds": time.perf_counter() - started,
    }
    write_text(args.json, json.dumps(result, indent=2, default=str))


def main(program: Callable[[], None]) -> None:
    """Run a program; end with one line for what went wrong with its input, its device or its numbers."""
    sys.stdout.reconfigure(errors="backslashreplace")  # not every encoding has the → of a summary
    try:
        program()
    except KeyboardInterrupt:
        sys.exit(130)
    except (xn.BackendError, xn.DataError, xn.ShapeError, xn.NonFiniteError, xn.CheckpointError, OSError) as error:
        sys.exit(f"error: {error}")


def program() -> None:
    args = arguments()
    train(args, network(args.layers, args.activation))


if __name__ == "__main__":
    main(program)
