"""The error function, which the array API standard lacks, by rational functions that are right to the last bits.

W. J. Cody, "Rational Chebyshev approximations for the error function", Mathematics of Computation 1969: three ranges,
whose coefficients, highest power first, are those of the paper.
"""

from collections.abc import Sequence

from xpnet.arrays import Array, Namespace

SMALL, LARGE = 0.46875, 4.0
NEAR = (
    (1.85777706184603153e-1, 3.16112374387056560, 113.864154151050156, 377.485237685302021, 3209.37758913846947),
    (1.0, 23.6012909523441209, 244.024637934444173, 1282.61652607737228, 2844.23683343917062),
)
"""erf(x)/x in x², up to SMALL."""
MIDDLE = (
    (
        *(2.15311535474403846e-8, 0.564188496988670089, 8.88314979438837594, 66.1191906371416295, 298.635138197400131),
        *(881.952221241769090, 1712.04761263407058, 2051.07837782607147, 1230.33935479799725),
    ),
    (
        *(1.0, 15.7449261107098347, 117.693950891312499, 537.181101862009858, 1621.38957456669019),
        *(3290.79923573345963, 4362.61909014324716, 3439.36767414372164, 1230.33935480374942),
    ),
)
"""erfc(x) e^x² in x, up to LARGE."""
FAR = (
    (
        *(1.63153871373020978e-2, 0.305326634961232344, 0.360344899949804439, 0.125781726111229246),
        *(1.60837851487422766e-2, 6.58749161529837803e-4),
    ),
    (
        *(1.0, 2.56852019228982242, 1.87295284992346725, 0.527905102951428412),
        *(6.05183413124413191e-2, 2.33520497626869185e-3),
    ),
)
"""(1/√π − x erfc(x) e^x²) x² in 1/x², beyond."""
ROOT = 0.564189583547756287
"""1/√π"""


def erf(xp: Namespace, x: Array) -> Array:
    """Return 2/√π ∫₀ˣ e^−t² dt."""
    size = xp.abs(x)
    near, far = xp.minimum(size, SMALL), xp.minimum(xp.maximum(size, LARGE), 10.0)  # erf(10) is 1 in any precision
    middle = xp.minimum(xp.maximum(size, SMALL), LARGE)
    small = near * _ratio(near * near, NEAR)
    inverse = 1.0 / (far * far)
    beyond = (ROOT - inverse * _ratio(inverse, FAR)) / far
    rest = xp.where(size > LARGE, xp.exp(-far * far) * beyond, xp.exp(-middle * middle) * _ratio(middle, MIDDLE))
    y = xp.where(size > SMALL, 1.0 - rest, small)
    return xp.where(x < 0, -y, y)


def _ratio(x: Array, coefficients: tuple[Sequence[float], Sequence[float]]) -> Array:
    """Return one polynomial over another, by Horner's rule."""
    top, bottom = (x * 0.0 + first for first in (coefficients[0][0], coefficients[1][0]))
    for a, b in zip(coefficients[0][1:], coefficients[1][1:], strict=True):
        top = top * x + a
        bottom = bottom * x + b
    return top / bottom
