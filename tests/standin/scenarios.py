"""Trainings that are small and reach everything: each takes a backend and a dtype and returns arrays on the host."""

from itertools import pairwise

import numpy as np

import xpnet as xn
from xpnet.backends.base import Backend
from xpnet.data import stream


def bytes_and_labels(n=72, features=6, classes=5, seed=0):
    """Return data as uint8 and labels as int32."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, features)).astype(np.uint8), rng.integers(0, classes, n).astype(np.int32)


def home(model):
    """Return θ on the host."""
    return np.array(model.backend.asnumpy(model.theta))


def deep(dropout=0.0):
    """Return layers with and without ReLU and dropout between them, of sizes that are no multiple of anything."""
    middle = [xn.Dropout(dropout)] if dropout else []
    return xn.Sequential(
        *(xn.Scale(1 / 255), xn.Linear(6, 13), xn.ReLU(), *middle, xn.Linear(13, 9), xn.ReLU()),
        *(xn.Linear(9, 5), xn.ReLU(), xn.Linear(5, 5)),
    )


def dropout(backend, dtype):
    """One model, data of two sizes, θ changed from outside, evaluated."""
    model = xn.Model(
        *(deep(0.3), xn.cross_entropy, xn.AdamW(1e-2)), seed=3, backend=backend, metrics=["accuracy"], dtype=dtype
    )
    x, y = bytes_and_labels()
    other, _ = bytes_and_labels(seed=1)
    found = [np.array(model.fit(x, y, 1, 16)["loss"]) for _ in range(3)]
    history = model.fit(other, y, 3, 16)
    found += [np.array(history["loss"]), np.array(history["gradient_norm"])]
    model.theta = backend.asarray(home(model) * np.asarray(0.5, dtype))
    model.fit(other, y, 2, 16)
    model.fit(x, y, 2, 12)
    return [*found, home(model), np.array(list(model.evaluate(x, y).values())), np.array(model.predict(x))]


def two_models(backend, dtype):
    """Two models in turn: their graphs lie in one device's memory, and on one stream."""
    wide = xn.Sequential(xn.Scale(1 / 255), xn.Linear(6, 130), xn.ReLU(), xn.Linear(130, 5))
    models = [
        xn.Model(deep(), xn.cross_entropy, xn.Adam(1e-2, clip_norm=1.0), seed=3, backend=backend, dtype=dtype),
        xn.Model(wide, xn.cross_entropy, xn.SGD(0.1, momentum=0.9), seed=4, backend=backend, dtype=dtype),
    ]
    x, y = bytes_and_labels()
    on_device = backend.asarray(x), backend.asarray(y)
    found = []
    for _ in range(4):
        found += [np.array(model.fit(*on_device, 2, 16)["loss"]) for model in models]
    return found + [home(model) for model in models]


def carries(backend, dtype):
    """Three compiled steps in turn, whose carries and intermediate results must not share memory."""

    def make():
        def step(carry, fixed, x):
            doubled = carry["n"] * 2.0
            moved = doubled + x[0]
            e = moved * moved - moved * (moved - 1.0)
            return {"n": e + 0.0 * fixed[0][0], "m": carry["m"] + e}, (e, carry["m"])

        return backend.compile(step) if backend.name == "cupy" else Backend.compile(backend, step)

    def number(value):
        return backend.asarray(np.asarray(value, dtype), copy=True)

    steps, fixed = [make() for _ in range(3)], (backend.asarray(np.ones(3, dtype)),)
    carry = [{"n": number(0.0), "m": number(float(k))} for k in range(3)]
    found = []
    for turn in range(9):
        for k in range(min(3, 1 + turn // 2)):
            x = backend.asarray(np.full(3, 0.5 / (turn + k + 1), dtype), copy=True)
            carry[k], results = steps[k](carry[k], fixed, (x,))
            found += [x, *results]  # looked at when later calls are done
    return [np.array(backend.asnumpy(one)) for one in (*found, *(one[name] for one in carry for name in ("m", "n")))]


def regression(backend, dtype):
    """Losses of regression and of binary classes, each with another optimizer and activation."""
    rng = np.random.default_rng(5)
    x, t = rng.normal(size=(40, 3)).astype(dtype), rng.random((40, 2)).astype(dtype)
    losses = xn.mean_squared_error, xn.mean_absolute_error, xn.huber, xn.binary_cross_entropy
    optimizers = xn.SGD(0.05, weight_decay=0.01), xn.RMSProp(0.01), xn.AdamW(0.01, amsgrad=True), xn.Lion(0.01)
    activations = xn.Tanh(), xn.Sigmoid(), xn.GELU(), xn.SiLU()
    found = []
    for loss, optimizer, activation in zip(losses, optimizers, activations, strict=True):
        net = xn.Sequential(xn.Linear(3, 7), activation, xn.Linear(7, 2))
        model = xn.Model(net, loss, optimizer, seed=2, backend=backend, dtype=dtype)
        model.fit(x, t, epochs=4, batch_size=8)
        found.append(home(model))
    return found


def convolutional():
    """Return layers for images (N, 9, 8): every kind of convolution, pool and norm, what BatchNorm carries, dropout."""
    narrow = xn.Sequential(xn.Conv2d(6, 6, 3, padding="same", groups=6), xn.GroupNorm(2, 6), xn.PReLU(6))
    return xn.Sequential(
        *(xn.Scale(1 / 255), xn.Channels(), xn.Conv2d(1, 6, 3, padding=1, bias=False), xn.BatchNorm(6), xn.ReLU()),
        *(
            xn.MaxPool2d(3, 2, 1),
            xn.Residual(narrow),
            xn.Parallel(xn.Conv2d(6, 10, 1), xn.Conv2d(6, 10, (1, 3), 1, (0, 1))),
        ),
        *(xn.Dropout2d(0.2), xn.AvgPool2d(2, 1), xn.RMSNorm(10), xn.ConvTranspose2d(10, 12, 2, 2), xn.Upsample(2)),
        *(xn.Conv2d(12, 10, 3, 2, dilation=2, groups=2), xn.LayerNorm(10), xn.GlobalAvgPool2d(), xn.BatchNorm(10)),
        *(xn.Dropout(0.2), xn.Linear(10, 5)),
    )


def images(backend, dtype):
    """A convolutional network on data of two addresses, its running statistics, evaluated."""
    optimizer = xn.SGD(0.05, momentum=0.9)  # Adam would make steps of the rounding of gradients that are 0
    model = xn.Model(convolutional(), xn.cross_entropy, optimizer, seed=3, backend=backend, dtype=dtype)
    x, y = bytes_and_labels(16, 72)
    other, _ = bytes_and_labels(16, 72, seed=1)
    found = [np.array(model.fit(data.reshape(-1, 9, 8), y, k, 8)["loss"]) for k, data in ((3, x), (1, other))]
    carried = [np.array(backend.asnumpy(value)) for _, value in sorted(model.buffers.items())]
    return [*found, home(model), *carried, np.array(model.predict(x.reshape(-1, 9, 8)))]


def two_inputs(backend, dtype):
    """Two sequences through one tower, and rows beside them."""
    tower = xn.Shared(
        "tower", xn.Sequential(xn.Conv1d(3, 4, 3, padding=1, stride=2), xn.BatchNorm(4), xn.Tanh(), xn.Flatten())
    )
    net = xn.Sequential(
        xn.Parallel(tower, tower, xn.Sequential(xn.Linear(2, 4), xn.Mish()), join="concat"), xn.Linear(28, 3)
    )
    rng = np.random.default_rng(6)
    x = tuple(rng.normal(size=(16, *shape)).astype(dtype) for shape in ((6, 3), (6, 3), (2,)))
    model = xn.Model(net, xn.mean_squared_error, xn.SGD(0.05, momentum=0.9), seed=1, backend=backend, dtype=dtype)
    found = [np.array(model.fit(x, rng.normal(size=(16, 3)).astype(dtype), 2, 8)["loss"]) for _ in range(2)]
    return [*found, home(model), np.array(model.predict(x))]


def characters(backend, dtype):
    """A transformer that predicts the next token, with dropout, on data of two addresses."""
    block = xn.Recompute(xn.TransformerBlock(8, 2, causal=True, dropout=0.2))
    net = xn.Tied(xn.Embedding(11, 8), xn.Positions(9, 8), block, xn.LayerNorm(8))
    text = np.random.default_rng(7).integers(0, 11, (2, 16, 7)).astype(np.uint8)
    model = xn.Model(net, xn.cross_entropy, xn.SGD(0.05, momentum=0.9), seed=3, backend=backend, dtype=dtype)
    found = [np.array(model.fit(x[:, :-1], x[:, 1:], k, 8)["loss"]) for k, x in zip((3, 1), text, strict=True)]
    return [*found, home(model), np.array(model.predict(text[0][:, :-1]))]


def padded(backend, dtype):
    """Classes of sequences of several lengths, some of them empty, whose positions are turns and waves."""
    block = xn.TransformerBlock(8, 2, dropout=0.2, rotary=True, hidden=12)
    net = xn.Masked(xn.Embedding(11, 8), xn.Sinusoidal(), block, xn.Pooled(), xn.Linear(8, 3))
    rng = np.random.default_rng(8)
    x, mask = rng.integers(0, 11, (16, 6)), np.arange(6) < rng.integers(0, 7, 16)[:, None]
    model = xn.Model(net, xn.cross_entropy, xn.SGD(0.05, momentum=0.9), seed=3, backend=backend, dtype=dtype)
    loss = model.fit((x, mask), rng.integers(0, 3, 16), 3, 8)["loss"]
    return [np.array(loss), home(model), np.array(model.predict((x, mask)))]


def source(backend, dtype):
    """Samples that are read in blocks, into the same memory, weighed; metrics of one number and of several."""
    net = xn.Sequential(xn.Scale(1 / 255), xn.Linear(6, 13), xn.ReLU(), xn.Linear(13, 5))
    model = xn.Model(
        *(net, xn.cross_entropy, xn.Adam(1e-2)), seed=3, backend=backend, metrics=["accuracy", "f1"], dtype=dtype
    )
    x, y = bytes_and_labels(136)
    weights = np.random.default_rng(2).random(136).astype(dtype)
    before, stream.BYTES = stream.BYTES, 32 * (6 + 4 + weights.itemsize)
    try:
        history = model.fit(xn.Rows(x, y, weights), epochs=3, batch_size=16)
    finally:
        stream.BYTES = before
    found = [np.array(history[name]) for name in ("loss", "gradient_norm", "accuracy", "f1")]
    return [*found, home(model), np.array(list(model.evaluate(xn.Rows(x, y)).values()))]


ALL = {"dropout": dropout, "two models": two_models, "carries": carries, "regression": regression}
ALL |= {"images": images, "two inputs": two_inputs, "characters": characters, "padded": padded, "source": source}
FEW = {"images": 5, "characters": 3, "padded": 3, "source": 6}
"""Those that take a second or so, and in how many orders they are tried."""


def random_network(backend, seed):
    """Train a small network of random form in float64 for a few epochs; return θ."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 20, rng.integers(2, 5)).tolist()
    layers = []
    for nin, nout in pairwise(sizes):
        layers += [xn.Linear(nin, nout, bias=bool(rng.random() < 0.8))]
        layers += [[xn.ReLU(), xn.Tanh(), xn.Dropout(0.25), xn.LeakyReLU()][rng.integers(4)]]
    classes = int(rng.integers(2, 6))
    net = xn.Sequential(*layers, xn.Linear(sizes[-1], classes))
    optimizer = [xn.SGD(0.1), xn.SGD(0.05, momentum=0.9), xn.Adam(0.01), xn.AdamW(0.01, clip_norm=1.0)][rng.integers(4)]
    n, batch = int(rng.integers(8, 20)), int(rng.integers(2, 9))
    x, y = rng.normal(size=(n, sizes[0])), rng.integers(0, classes, n).astype(np.int32)
    model = xn.Model(net, xn.cross_entropy, optimizer, seed=seed, backend=backend, dtype="float64")
    model.fit(x, y, epochs=3, batch_size=batch)
    return home(model)
