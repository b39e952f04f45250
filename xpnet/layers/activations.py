"""Activations: elementwise functions between the linear layers, and softmax. PReLU alone has a parameter."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from xpnet.arrays import Array, exp_shifted, sigmoid, softplus, sum_rows
from xpnet.backends import Backend
from xpnet.checks import integer, number, settle, shown
from xpnet.errors import ShapeError
from xpnet.layers.base import Layer, Params, Pullback
from xpnet.layers.context import Context
from xpnet.layers.erf import erf
from xpnet.parameters import Constant, Parameter, Shape


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
    """y = ½ x (1 + t),  t = tanh(c (x + k x³)),  c = √(2/π),  k = 0.044715;  with approximate="none": t = erf(x/√2)

    dx = dy (½ (1 + t) + ½ x t′),  t′ = (1 − t²) c (1 + 3 k x²),  exactly: √(2/π) e^(−x²/2)

    Hendrycks & Gimpel, 2016: x times the probability that a normal number is below it, in their tanh form, which is
    the default here, or exactly, which is PyTorch's.
    """

    approximate: str = "tanh"

    def __post_init__(self) -> None:
        if self.approximate not in ("tanh", "none"):
            raise ValueError(f'GELU: approximate must be "tanh" or "none", got {shown(self.approximate)}')

    def __str__(self) -> str:
        return "GELU()" if self.approximate == "tanh" else 'GELU("none")'

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return the value and its pullback."""
        y, back = ctx.backend.native(gelu)(ctx.backend, x, self.approximate == "none")
        return y, lambda dy, need_dx=True, out=(): (back(dy), ())


def gelu(backend: Backend, x: Array, exact: bool) -> tuple[Array, Callable[[Array], Array]]:
    """Return GELU, exactly or in its tanh form, and `dx(dy)`."""
    xp, c, k = backend.xp, math.sqrt(2.0 / math.pi), 0.044715
    far = 1e2  # beyond ±far, t is ±1 in any precision
    low = xp.maximum(x, -far)
    near = xp.minimum(low, far)
    square = near * near
    t = backend.native(erf)(xp, near * math.sqrt(0.5)) if exact else xp.tanh(c * (near * (1.0 + k * square)))

    def back(dy: Array) -> Array:
        slope = c * xp.exp(-0.5 * square) if exact else (1.0 - t * t) * (c * (1.0 + 3.0 * k * square))
        return dy * (0.5 * (1.0 + t + near * slope))

    return 0.5 * low * (1.0 + t), back


@dataclass(frozen=True)
class ELU(Layer):
    """y = x where x > 0, else α (e^x − 1)        dx = dy where x > 0, else dy (y + α)    (Clevert et al., ICLR 2016)"""

    alpha: float = 1.0

    def __post_init__(self) -> None:
        settle(self, alpha=number("ELU", "alpha", self.alpha))

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return the value and its pullback."""
        xp, positive = ctx.xp, x > 0
        bent = self.alpha * xp.expm1(xp.minimum(x, 0.0))

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array, Params]:
            return dy * xp.where(positive, 1.0, bent + self.alpha), ()

        return xp.where(positive, x, bent), backward


@dataclass(frozen=True)
class Softplus(Layer):
    """y = log(1 + e^βx) / β        dx = dy σ(βx)        (Dugas et al., NIPS 2000)"""

    beta: float = 1.0

    def __post_init__(self) -> None:
        settle(self, beta=number("Softplus", "beta", self.beta, above=0))

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return the value and its pullback."""
        xp, steep = ctx.xp, self.beta * x

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array, Params]:
            return dy * sigmoid(xp, steep), ()

        return softplus(xp, steep) * (1.0 / self.beta), backward


@dataclass(frozen=True)
class Mish(Layer):
    """y = x t,  t = tanh(log(1 + e^x))        dx = dy (t + x (1 − t²) σ(x))        (Misra, BMVC 2020)"""

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return the value and its pullback."""
        xp, far = ctx.xp, 1e4  # t is 0 below −far and 1 above far in any precision; beyond, ∞ · 0 would give NaN
        low = xp.maximum(x, -far)
        t = xp.tanh(softplus(xp, x))

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array, Params]:
            return dy * (t + xp.minimum(low, far) * ((1.0 - t * t) * sigmoid(xp, x))), ()

        return low * t, backward


@dataclass(frozen=True)
class Hardswish(Layer):
    """y = x min(max(x + 3, 0), 6) / 6        dx = dy times 0 below −3, 1 above 3, else (2x + 3) / 6

    Howard et al., "Searching for MobileNetV3", ICCV 2019.
    """

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return the value and its pullback."""
        xp = ctx.xp
        low = xp.maximum(x, -3.0)
        near = xp.minimum(low, 3.0)

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array, Params]:
            slope = xp.where(x < -3, 0.0, xp.where(x > 3, 1.0, (2.0 * near + 3.0) * (1.0 / 6.0)))
            return dy * slope, ()

        return low * ((near + 3.0) * (1.0 / 6.0)), backward


@dataclass(frozen=True)
class PReLU(Layer):
    """y = x where x > 0, else a x        a (C,), or (1,) for all channels

    dx = dy where x > 0, else a dy,  da = Σ x dy where x ≤ 0     (He et al., ICCV 2015)

    The slope a is learned; it starts at `slope`. Channels come last.
    """

    n: int = 1
    slope: float = 0.25

    def __post_init__(self) -> None:
        settle(self, n=integer("PReLU", "n", self.n), slope=number("PReLU", "slope", self.slope))

    def parameters(self) -> tuple[Parameter, ...]:
        """a (C,)."""
        return (Parameter("weight", (self.n,), Constant(self.slope)),)

    def output_shape(self, shape: Shape) -> Shape:
        """Return the same shape."""
        if self.n > 1 and (len(shape) < 2 or shape[-1] != self.n):
            raise ShapeError(f"expects {self.n} channels in the last axis, got {shape}", who=str(self))
        return shape

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return x, its negative part scaled, and the pullback."""
        xp, (slope,), positive = ctx.xp, params, x > 0

        def backward(dy: Array, need_dx: bool = True, out: Params = (None,)) -> tuple[Array | None, Params]:
            each = ctx.backend.native(sum_rows)(xp, xp.where(positive, 0.0, x) * dy)
            dslope = each if self.n > 1 else xp.reshape(xp.sum(each), (1,))
            return dy * xp.where(positive, 1.0, slope) if need_dx else None, (dslope,)

        return xp.where(positive, x, slope * x), backward


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


@dataclass(frozen=True)
class LogSoftmax(Layer):
    """yᵢ = xᵢ − log Σⱼ e^xⱼ along the last axis        dx = dy − e^y Σⱼ dyⱼ        (Bridle, 1990)"""

    def forward(self, params: Params, x: Array, ctx: Context) -> tuple[Array, Pullback]:
        """Return the logarithms of the probabilities and the pullback."""
        xp = ctx.xp
        shifted, exp, total = exp_shifted(xp, x)

        def backward(dy: Array, need_dx: bool = True, out: Params = ()) -> tuple[Array, Params]:
            return dy - exp / total * xp.sum(dy, axis=-1, keepdims=True), ()

        return shifted - xp.log(total), backward
