"""Are two arrays equal, as far as their precision can tell?"""

from typing import Any

import numpy as np

from xpnet.arrays import Array
from xpnet.backends import Backend


def assert_close(
    backend: Backend,
    actual: Array,
    expected: Any,
    *,
    multiple: float = 16.0,
    scale: float | None = None,
    what: str = "",
) -> None:
    """Assert |actual − expected| ≤ multiple · eps · scale everywhere, eps that of `actual`'s dtype.

    `scale` is the size of the numbers that were added up: the largest finite |expected| if it is left out, and 1 if
    that is 0. NaN and infinities must be the same; integers and booleans exactly equal. `expected` may be a host array.
    """
    a, e = (backend.asnumpy(x) if backend.owns(x) else np.asarray(x) for x in (actual, expected))
    assert a.shape == e.shape, f"{what} expected shape {e.shape}, got {a.shape}".strip()
    if a.dtype.kind != "f":
        assert np.array_equal(a, e), f"{what} expected {e}, got {a}".strip()
        return
    e = e.astype(np.result_type(a.dtype, e.dtype))
    finite = np.isfinite(e)
    if scale is None:
        scale = float(np.max(np.abs(e), initial=0.0, where=finite)) or 1.0
    tolerance = multiple * float(np.finfo(a.dtype).eps) * scale
    error = np.zeros(e.shape)
    np.subtract(a, e, out=error, where=finite)
    wrong = np.where(finite, ~(np.abs(error) <= tolerance), (a != e) & ~(np.isnan(a) & np.isnan(e)))
    if np.any(wrong):
        at = np.unravel_index(
            int(np.argmax(np.where(wrong, np.nan_to_num(np.abs(error), nan=np.inf) + 1.0, 0.0))), e.shape
        )
        place = [int(k) for k in at]
        raise AssertionError(
            f"{what} on {backend.name} at {place}: expected {e[at]!s}, got {a[at]!s} "
            f"({np.count_nonzero(wrong)} of {e.size} differ by more than {tolerance:.1e})".strip()
        )
