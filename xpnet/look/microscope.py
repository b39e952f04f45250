"""The training microscope: what happens inside each layer, epoch by epoch, in numbers and in words."""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from weakref import ref

from xpnet.arrays import Array, Namespace, shape_of
from xpnet.data import door
from xpnet.errors import DataError
from xpnet.layers import Layer, ReLU, Sigmoid, Tanh
from xpnet.training.callbacks import Callback
from xpnet.training.history import History

if TYPE_CHECKING:
    from xpnet.model import Model

QUANTITIES = ("max_weight", "gradient_norm", "update_ratio", "dead", "saturated")

FLAT = 0.975
"""|tanh x| above which its slope, 1 − tanh²x, is below 5 % of the steepest; the same point of σ is |2σ − 1|."""

DEAD, SATURATED = 0.10, 0.50
"""Shares of the units, or of the outputs, from which on they are worth a sentence."""

FAINT, SURGE = 0.01, 100.0
"""A gradient below this part of the last layer's, or above this multiple of its own first, is worth a sentence."""

LEAP, CREEP, GROWTH = 0.10, 1e-5, 30.0
"""Update ratios above and below which, and a growth of max |W| above which, the weights are worth a sentence."""


class Microscope(Callback):
    """Records, before the first epoch and after each, what goes on in every layer; `fit(..., callbacks=[scope])`.

        scope = Microscope(x[:512], labels[:512])
        model.fit(x, labels, epochs=5, callbacks=[scope])
        scope.of("dead")        # {"1": [0.0, 0.31, 0.38, …]}, a number for each of scope.epochs
        print(scope)            # the same in words

    All is measured on the samples handed in, by one forward and one backward pass in inference mode (no dropout):

        max_weight      max |W| of each matrix
        gradient_norm   ‖∂L/∂W‖₂
        update_ratio    ‖ΔW‖₂ / ‖W‖₂ of the step that the optimizer would do now, at its last rate; 10⁻³ is healthy
        dead            for each ReLU, the share of units, of images the channels, that are 0 on every sample
        saturated       for each tanh or sigmoid, the share of outputs whose slope is below 5 % of the steepest

    The model is only read, so training gives the same bits with a microscope as without. At the end of training
    `say` is called with what was found, in words; None for silence.
    """

    def __init__(self, x: Any, y: Any, say: Callable[[str], object] | None = print) -> None:
        self.x, self.y, self.say = x, y, say
        self.epochs: list[int] = []
        self.records: dict[str, dict[str, list[float]]] = {}
        self._model: Callable[[], Model | None] = lambda: None

    def on_train_begin(self, model: "Model") -> None:
        """Look at the model as it is; records of an earlier call of fit on the same model are continued."""
        self._probe = door.admit(self.x, self.y, model.net, model.loss, model.backend, model.dtype)
        walk = model.net.walk(shape_of(self._probe[0]))
        self._layers: dict[str, Layer] = {path: layer for path, layer, _ in walk}
        if self._model() is not model:
            self._model, self.epochs, self.records = ref(model), [], {name: {} for name in QUANTITIES}
        if not self.epochs or self.epochs[-1] != model.epoch:
            self._look(model)

    def on_epoch_end(self, model: "Model", history: History) -> None:
        """Look again."""
        self._look(model)

    def on_train_end(self, model: "Model", history: History) -> None:
        """Say what was seen."""
        if self.say is not None:
            self.say(str(self))

    def of(self, name: str) -> dict[str, list[float]]:
        """Return one quantity by path of layer or parameter, a number for each of `epochs`."""
        if name not in QUANTITIES:
            raise DataError(f'a microscope does not record "{name}": choose one of {", ".join(QUANTITIES)}')
        if not self.epochs:
            raise DataError("the microscope has seen nothing yet: pass callbacks=[microscope] to fit")
        return self.records[name]

    def findings(self) -> list[str]:
        """Return what is worth saying, a sentence each."""
        return [*self._activations(), *self._gradients(), *self._weights()]

    def __str__(self) -> str:
        return "\n".join(self.findings()) or "nothing unusual: gradients reach every layer and the units are alive"

    def _look(self, model: "Model") -> None:
        """Measure everything once, reading the model only."""
        xp, state = model.backend.xp, model.state
        x, y = self._probe
        outputs: dict[str, Array] = {}
        prediction, backward = model.net(
            state.theta, x, buffers=dict(state.buffers), watch=outputs.__setitem__, backend=model.backend
        )
        gradient = backward(model.loss(prediction, y)[1])
        ahead = model.step.ahead(state, gradient)

        def home(value: Array) -> float:
            return float(model.backend.asnumpy(value))

        found: dict[str, dict[str, float]] = {name: {} for name in QUANTITIES}
        weights, gradients, later = (model.net.windows(vector) for vector in (state.theta, gradient, ahead))
        for path, w in weights.items():
            if w.ndim >= 2:
                size = home(_norm(xp, w))
                found["max_weight"][path] = home(xp.max(xp.abs(w)))
                found["gradient_norm"][path] = home(_norm(xp, gradients[path]))
                found["update_ratio"][path] = home(_norm(xp, later[path] - w)) / size if size else math.inf
        for path, output in outputs.items():
            layer = self._layers.get(path)
            if isinstance(layer, ReLU):
                most = xp.max(output, axis=tuple(range(output.ndim - 1)))  # of images, over all their pixels
                found["dead"][path] = home(_share(xp, most <= 0))
            elif isinstance(layer, (Tanh, Sigmoid)):
                bent = output if isinstance(layer, Tanh) else 2.0 * output - 1.0
                found["saturated"][path] = home(_share(xp, xp.abs(bent) > FLAT))
        self.epochs.append(model.epoch)
        for name, values in found.items():
            for path, value in values.items():
                self.records[name].setdefault(path, []).append(value)

    def _activations(self) -> Iterator[str]:
        """Speak of units that no longer learn."""
        for path, shares in self.of("dead").items():
            if shares[-1] >= DEAD:
                yield (
                    f"layer {path}: {_percent(shares[-1])} of the ReLUs are dead {self._since(shares, DEAD)}; "
                    "lower the learning rate or use He initialisation"
                )
        for path, shares in self.of("saturated").items():
            if shares[-1] >= SATURATED:
                kind = type(self._layers[path]).__name__.lower()
                yield (
                    f"layer {path}: {_percent(shares[-1])} of the {kind} outputs are saturated "
                    f"{self._since(shares, SATURATED)}; scale the input, lower the learning rate or start from Glorot"
                )

    def _gradients(self) -> Iterator[str]:
        """Speak of gradients that fade on their way back, or grow."""
        norms = self.of("gradient_norm")
        nearest = next(reversed(norms.values()), [0.0])[-1]
        for path, values in norms.items():
            first, last = values[0], values[-1]
            if last < FAINT * nearest:
                yield (
                    f"layer {_layer(path)}: its gradient is {_percent(last / nearest)} of the last layer's, so it "
                    "hardly learns; use ReLU with He initialisation, or fewer layers"
                )
            if last > SURGE * first > 0:
                yield (
                    f"layer {_layer(path)}: its gradient norm grew from {first:.2g} to {last:.2g}; "
                    "lower the learning rate or set clip_norm"
                )

    def _weights(self) -> Iterator[str]:
        """Speak of weights that leap, creep, or grow without bound."""
        for path, ratios in self.of("update_ratio").items():
            if LEAP <= ratios[-1] < math.inf:
                yield (
                    f"layer {_layer(path)}: one step changes the weights by {_percent(ratios[-1])}, "
                    "about 0.1 % is healthy; lower the learning rate"
                )
            elif max(ratios) < CREEP:
                yield (
                    f"layer {_layer(path)}: no step changes the weights by more than {_percent(max(ratios))}, "
                    "about 0.1 % is healthy; raise the learning rate"
                )
        for path, sizes in self.of("max_weight").items():
            if sizes[-1] > GROWTH * sizes[0] > 0:
                yield (
                    f"layer {_layer(path)}: max |W| grew from {sizes[0]:.2g} to {sizes[-1]:.2g}; "
                    "use weight_decay or lower the learning rate"
                )

    def _since(self, values: list[float], threshold: float) -> str:
        """Say from which epoch on the values have stayed at or above the threshold."""
        first = len(values)
        while first > 0 and values[first - 1] >= threshold:
            first -= 1
        return f"since epoch {self.epochs[first]}" if first else "from the start"


def _norm(xp: Namespace, array: Array) -> Array:
    return xp.sqrt(xp.sum(array * array))


def _share(xp: Namespace, mask: Array) -> Array:
    return xp.mean(xp.astype(mask, xp.float32))


def _layer(path: str) -> str:
    """Return the layer of a parameter: `0.weight` belongs to layer 0."""
    return path.rpartition(".")[0] or path


def _percent(share: float) -> str:
    """0.38 -> 38 %, 0.0042 -> 0.42 %."""
    return f"{100.0 * share:.2g} %" if share < 0.995 else "100 %"
