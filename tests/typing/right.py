"""What a user writes: mypy --strict has nothing to say. (tests/test_typing.py; this file is checked, not run.)"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, assert_type

import numpy as np

import xpnet as xn
from xpnet.arrays import Array
from xpnet.layers import Params, Pullback
from xpnet.parameters import Shape
from xpnet.testing import assert_close

(images, labels), test = xn.datasets.mnist()
backend = xn.backend("numpy")
x, y = backend.asarray(images[:128]), backend.asarray(labels[:128])

net = xn.Sequential(xn.Flatten(), xn.Scale(1 / 255), xn.Linear(784, 128), xn.ReLU(), xn.Linear(128, 10))
theta = net.init(seed=0, backend=backend)
for _ in range(50):
    scores, backward = net(theta, x)
    loss, dscores = xn.cross_entropy(scores, y)
    theta -= 0.1 * backward(dscores)

adam = xn.AdamW(lr=xn.warmup(xn.cosine(1e-3, steps=5000), steps=500), weight_decay=0.1, clip_norm=1.0)
state = adam.init(theta, net.decayed())
theta, state = adam.step(theta, backward(dscores), state)
assert_type(state.t, int)
assert_type(net.size, int)
fine = xn.NAdam(
    xn.warm_restarts(1e-3, epochs=2.5, growth=2), rates={"0.*": 0.1}, decays=[("*.bias", 1)], weight_decay=0.1
)
state = fine.init(theta, fine.treated(net.layout))
lion, adagrad, amsgrad = xn.Lion(1e-4), xn.Adagrad(xn.polynomial(0.1, 100, power=2)), xn.Adam(amsgrad=True)
slower: list[xn.Callback] = [xn.ReduceOnPlateau("loss", factor=0.5), xn.ExponentialMovingAverage(0.9, assign=False)]
assert_type(net.summary((None, 28, 28)), str)
assert_type(net.windows(theta), dict[str, Any])


@dataclass(frozen=True)
class Square(xn.Layer):
    """y = (a x)²: a layer of one's own."""

    start: float = 1.0

    def parameters(self) -> tuple[xn.Parameter, ...]:
        return (xn.Parameter("gain", (1,), lambda rng, shape: np.full(shape, self.start)),)

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def forward(self, params: Params, x: Array, ctx: xn.Context) -> tuple[Array, Pullback]:
        y = params[0] * x

        def backward(dy: Array, need_dx: bool = True, out: Params = (None,)) -> tuple[Array | None, Params]:
            slope = 2.0 * y * dy
            gain = ctx.xp.reshape(ctx.xp.sum(slope * x), (1,))
            return slope * params[0] if need_dx else None, (gain,)

        return y * y, backward


assert_type(xn.testing.check_layer(Square(), (3, 4), backend="strict"), float)
assert_close(backend, theta, theta, dtype="float32")


def half_squared(prediction: Array, target: Array) -> tuple[Array, Array]:
    """A loss of one's own."""
    error = prediction - target
    return 0.5 * (error * error).mean(), error / error.size


def worst(prediction: Array, target: Array) -> Array:
    """A metric of one's own."""
    return abs(prediction - target).max()


def decay(step: int) -> float:
    """A schedule of one's own."""
    return 0.1 / (1 + step)


class Printer(xn.Callback):
    """A callback of one's own."""

    def on_epoch_end(self, model: xn.Model, history: xn.History) -> None:
        print(history["loss"][-1], history.last(), model.epoch)


class Impatient(xn.Callback):
    """One that stops."""

    def on_epoch_end(self, model: xn.Model, history: xn.History) -> bool:
        return history["loss"][-1] < 0.1


own = xn.Model(xn.Sequential(Square(), xn.Residual(xn.Tanh())), half_squared, xn.SGD(decay, momentum=0.9), seed=1)
model = xn.Model(net, xn.cross_entropy, xn.Adam(1e-3), metrics=["accuracy", worst], backend="torch:cuda:0")
history = model.fit(images, labels, epochs=2, batch_size=128, validation=test, callbacks=[Printer(), Impatient()])
history = model.fit(images.tolist(), labels, validation=0.1, callbacks=(xn.EarlyStopping("val_accuracy"),))
history = model.fit(images, labels, progress="lines")
found = xn.find_rate(model, images, labels)
model.adjust(lr=found.best)
history = model.resume(images, labels, validation=1000, checkpoint="run.safetensors", every=100)
assert_type(history["loss"], list[float])
assert_type(history.stopped, str | None)
assert_type(model.evaluate(*test), dict[str, float])
assert_type(model.evaluate(*test)["accuracy"], float)
assert_type(model.objective(images, labels), Callable[[Any], tuple[float, np.ndarray]])
prediction = model.predict(test[0], batch_size=100)
model.save("mnist.safetensors")
again = xn.load("mnist.safetensors", backend=backend, custom=[Square, half_squared])
assert_type(again, xn.Model)

xn.use("cupy")
with xn.use("jax") as current:
    assert_type(current, xn.Backend)
assert_type(xn.available_backends(), dict[str, list[str]])
assert_type(xn.__version__, str)
microscope = xn.Microscope(images[:100], labels[:100], say=None)
assert_type(microscope.findings(), list[str])
xn.plot.history(history)
xn.export_onnx(model, "mnist.onnx")
