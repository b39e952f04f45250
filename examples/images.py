"""Train a convolutional network on MNIST: `python examples/images.py`; a plainer one: `--net plain --no-augment`."""

import argparse

import mnist

import xpnet as xn


def arguments() -> argparse.Namespace:
    parser = mnist.common_arguments(__doc__, epochs=12, optimizer="adamw")
    parser.add_argument("--net", choices=NETS, default="residual")
    parser.add_argument("--width", type=mnist.positive, default=16, help="channels of the first convolution")
    parser.add_argument(
        "--augment", action=argparse.BooleanOptionalAction, default=True, help="turn and move images while training"
    )
    return parser.parse_args()


def convolution(nin: int, nout: int, *pool: xn.Layer) -> list[xn.Layer]:
    """3×3, perhaps a pool, and batch normalisation, whose shift takes the place of a bias."""
    return [xn.Conv2d(nin, nout, 3, padding="same", bias=False), *pool, xn.BatchNorm(nout)]


def plain(width: int) -> list[xn.Layer]:
    """Three convolutions on 28, 14 and 7 pixels. The pools come early: what follows has a quarter of the numbers."""
    return [
        *convolution(1, width, xn.MaxPool2d(2)), xn.ReLU(),
        *convolution(width, 2 * width, xn.MaxPool2d(2)), xn.ReLU(),
        *convolution(2 * width, 4 * width), xn.ReLU(),
        xn.Flatten(), xn.Dropout(0.3), xn.Linear(49 * 4 * width, 10),
    ]  # fmt: skip


def residual(width: int) -> list[xn.Layer]:
    """The same, and two more convolutions around a shortcut before the last layer."""
    *layers, flatten, dropout, linear = plain(width)
    n = 4 * width
    block = xn.Residual(*convolution(n, n), xn.ReLU(), *convolution(n, n))
    return [*layers, block, xn.ReLU(), flatten, dropout, linear]


NETS = {"residual": residual, "plain": plain}


def network(name: str, width: int, augment: bool) -> xn.Sequential:
    """Bytes to images with a channel, numbers in 0..1; changed at random while training; then the layers."""
    changes = [xn.RandomAffine(10, translate=(0.07, 0.07), scale=(0.9, 1.1), shear=5)] if augment else []
    return xn.Sequential(xn.Channels(), xn.Scale(1 / 255), *changes, *NETS[name](width))


def program() -> None:
    args = arguments()
    mnist.train(args, network(args.net, args.width, args.augment), weight_decay=0.01)


if __name__ == "__main__":
    mnist.main(program)
