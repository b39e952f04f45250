"""Ordinary mistakes: on each line that says so, mypy --strict finds that error, and none elsewhere."""

from dataclasses import dataclass
from typing import Any

import xpnet as xn
from xpnet.testing import assert_close, check_layer

(images, labels), test = xn.datasets.mnist()
x, y = images, labels
net = xn.Sequential(xn.Linear(784, 10), xn.ReLU())
theta = net.init()
model = xn.Model(net, xn.cross_entropy, xn.Adam())

# Layers
xn.Linear("784", 10)  # error: arg-type
xn.Linear(784)  # error: call-arg
xn.Linear(784, 10, activation="relu")  # error: call-arg
xn.Liner(784, 10)  # error: attr-defined
xn.Dropout("half")  # error: arg-type
xn.Sequential([xn.Linear(784, 10), xn.ReLU()])  # error: arg-type
xn.Sequential(xn.Linear(784, 10), xn.ReLU)  # error: arg-type
xn.Parameter("weight", 3)  # error: arg-type
net.init("0")  # error: arg-type
net.init(seed=0, backend=3)  # error: arg-type
net(theta)  # error: call-arg
net(theta, x, train=True)  # error: call-arg
scores, backward, loss = net(theta, x)  # error: misc
net(theta, x).shape  # error: attr-defined
net.windows(theta).weight  # error: attr-defined

# Losses, optimizers, schedules
xn.cross_entropy(theta)  # error: call-arg
value: float = xn.cross_entropy(theta, y)  # error: assignment
xn.huber(theta, theta, delta="1")  # error: arg-type
xn.metrics.acuracy(theta, y)  # error: attr-defined
xn.Adam(lr="fast")  # error: arg-type
xn.Adam(learning_rate=1e-3)  # error: call-arg
xn.SGD()  # error: call-arg
xn.SGD(0.1, nesterov=0.9)  # error: arg-type
xn.SGD(lambda step: "fast")  # error: arg-type return-value
xn.SGD(lambda: 0.1)  # error: arg-type misc
xn.warmup("1e-3", steps=10)  # error: arg-type
xn.Adam().step(theta, theta)  # error: call-arg

# Model
xn.Model(net, xn.Adam(), xn.cross_entropy)  # error: arg-type
xn.Model(net, xn.cross_entropy)  # error: call-arg
xn.Model(net, xn.cross_entropy, xn.Adam)  # error: arg-type
xn.Model(net, "cross_entropy", xn.Adam())  # error: arg-type
xn.Model([net], xn.cross_entropy, xn.Adam())  # error: arg-type
xn.Model(net, xn.cross_entropy, xn.Adam(), metrics=[0.5])  # error: list-item
model.fit()  # error: call-arg
model.fit(x, y, epoch=3)  # error: call-arg
model.fit(x, y, epochs="3")  # error: arg-type
model.fit(x, y, batch_size=0.5)  # error: arg-type
model.fit(x, y, validation="test")  # error: arg-type
model.fit(x, y, validation=(x,))  # error: arg-type
model.fit(x, y, progress="dots")  # error: arg-type
model.fit(x, y, callbacks=xn.EarlyStopping())  # error: arg-type
model.fit(x, y, callbacks=[xn.EarlyStopping])  # error: list-item
model.fit(x, y, checkpoint=True)  # error: arg-type
model.train(x, y)  # error: attr-defined
model.fit(x, y).loss  # error: attr-defined
model.fit(x, y)["loss"] < 0.1  # error: operator
score: float = model.evaluate(x, y)  # error: assignment
round(model.evaluate(x, y), 3)  # error: call-overload
model.evaluate(x, y).accuracy  # error: attr-defined
model.predict()  # error: call-arg
model.save()  # error: call-arg
xn.load(3)  # error: arg-type
xn.load("mnist.safetensors").predict()  # error: call-arg
xn.EarlyStopping(patience="3")  # error: arg-type

# Backends, data, testing
xn.use(3)  # error: arg-type
xn.backend(["numpy"])  # error: arg-type
xn.backend("numpy").to_numpy(x)  # error: attr-defined
xn.available_backends().torch  # error: attr-defined
inputs, targets = xn.datasets.mnist()
inputs.shape  # error: attr-defined
check_layer(xn.ReLU, (3, 4))  # error: arg-type
check_layer(xn.ReLU(), 4)  # error: arg-type
assert_close(theta, theta)  # error: call-arg
xn.something_that_is_not_there  # error: attr-defined


# What one writes oneself
@dataclass(frozen=True)
class Unfinished(xn.Layer):
    """Has no forward."""


Unfinished()  # error: abstract


class Swapped(xn.Layer):
    """Takes its arguments the wrong way round."""

    def forward(self, x: str, params: int) -> Any:  # error: override
        return x


class Loud(xn.Callback):
    """Wants one argument more."""

    def on_epoch_end(self, model: xn.Model, history: xn.History, epoch: int) -> None:  # error: override
        print(epoch)


def no_gradient(prediction: Any, target: Any) -> float:
    """A loss that returns its value alone."""
    return 0.0


xn.Model(net, no_gradient, xn.Adam())  # error: arg-type
