"""Activations: elementwise functions between the linear layers, and softmax. None has parameters."""

import math
from dataclasses import dataclass

from xpnet.arrays import Array, exp_shifted, sigmoid
from xpnet.checks import number, settle
from xpnet.layers.base import Context, Layer, Params, Pullback


@dataclass(frozen=True)
class ReLU(Layer):
    """y = max(x, 0)        dx = dy where y > 0, else 0        (Glorot, Bordes & Bengio, AISTATS 2011)"""

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return max(x, 0) and its pullback."""
        xp = ctx.xp
        y = xp.maximum(x, 0.0)

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array, Params]:
            dx = xp.astype(y > 0, dy.dtype)
            dx *= dy
            return dx, ()

        return y, backward


@dataclass(frozen=True)
class LeakyReLU(Layer):
    """y = x where x > 0, else slope·x        dx = dy where x > 0, else slope·dy        (Maas et al., ICML 2013)"""

    slope: float = 0.01

    def __post_init__(self) -> None:
        settle(self, slope=number("LeakyReLU", "slope", self.slope))

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return x, its negative part scaled down, and the pullback."""
        xp = ctx.xp
        positive = x > 0

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array, Params]:
            return xp.where(positive, dy, self.slope * dy), ()

        return xp.where(positive, x, self.slope * x), backward


@dataclass(frozen=True)
class Tanh(Layer):
    """y = tanh x        dx = dy (1 − y²)        (LeCun et al., "Efficient BackProp", 1998)"""

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return tanh x and its pullback."""
        y = ctx.xp.tanh(x)

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array, Params]:
            return dy * (1.0 - y * y), ()

        return y, backward


@dataclass(frozen=True)
class Sigmoid(Layer):
    """y = σ(x) = 1 / (1 + e^−x)        dx = dy y (1 − y)        (Rumelhart, Hinton & Williams, Nature 1986)"""

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return σ(x) and its pullback."""
        y = sigmoid(ctx.xp, x)

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array, Params]:
            return dy * (y * (1.0 - y)), ()

        return y, backward


@dataclass(frozen=True)
class SiLU(Layer):
    """y = x σ(x)        dx = dy (σ + y (1 − σ))        (Elfwing, Uchibe & Doya, Neural Networks 2018)"""

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return x σ(x) and its pullback."""
        xp, far = ctx.xp, 1e4  # σ(−far) is 0 and σ(far) is 1 in any precision; beyond, ∞ · 0 would give NaN
        gate = sigmoid(xp, x)
        y = xp.maximum(x, -far) * gate

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array, Params]:
            return dy * (gate + xp.minimum(y, far) * (1.0 - gate)), ()

        return y, backward


@dataclass(frozen=True)
class GELU(Layer):
    """y = ½ x (1 + t),  t = tanh(c (x + k x³)),  c = √(2/π),  k = 0.044715

    dx = dy (½ (1 + t) + ½ x (1 − t²) c (1 + 3 k x²))        (Hendrycks & Gimpel, 2016: the tanh form)
    """

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return the value and its pullback."""
        xp, c, k = ctx.xp, math.sqrt(2.0 / math.pi), 0.044715
        far = 1e2  # beyond ±far, t is ±1 in any precision
        low = xp.maximum(x, -far)
        near = xp.minimum(low, far)
        square = near * near
        t = xp.tanh(c * (near * (1.0 + k * square)))

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array, Params]:
            slope = (1.0 - t * t) * (c * (1.0 + 3.0 * k * square))
            return dy * (0.5 * (1.0 + t + near * slope)), ()

        return 0.5 * low * (1.0 + t), backward


@dataclass(frozen=True)
class Softmax(Layer):
    """yᵢ = e^xᵢ / Σⱼ e^xⱼ along the last axis        dx = y (dy − Σⱼ dyⱼ yⱼ)        (Bridle, 1990)

    Goes with `negative_log_likelihood`, as in the lesson; `cross_entropy` takes scores and needs no Softmax.
    """

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return the probabilities and the pullback."""
        xp = ctx.xp
        _, exp, total = exp_shifted(xp, x)
        y = exp / total

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array, Params]:
            return y * (dy - xp.sum(dy * y, axis=-1, keepdims=True)), ()

        return y, backward
