"""Are two arrays equal, as far as their precision can tell?"""

from typing import Any

import numpy as np

from xpnet.arrays import Array, describe
from xpnet.backends import Backend

KINDS = {"b": "a boolean", "i": "an integer", "u": "an integer", "f": "a real", "c": "a complex"}


def assert_close(
    backend: Backend,
    actual: Array,
    expected: Any,
    *,
    dtype: Any = None,
    multiple: float = 16.0,
    scale: float | None = None,
    what: str = "",
) -> None:
    """Assert |actual − expected| ≤ multiple · eps · scale everywhere, eps that of `actual`'s dtype.

    `actual` must be an array of this backend, on its device, and of this `dtype` ("float32", `x.dtype`) if it is given.
    `expected` is an array there, or a host array, or Python numbers: of the same shape and kind, and, if it has a
    precision of its own, of no lower one. `scale` is the size of the numbers that were added up: the largest finite
    |expected| if it is left out, and 1 if that is 0. NaN and infinities must be the same; integers and booleans equal.
    """
    who = f"{what} on {backend.name}".strip()
    assert backend.owns(actual), f"{who}: expected an array on {backend.device}, got {describe(actual)}"
    wanted = getattr(backend.xp, dtype) if isinstance(dtype, str) else dtype
    assert wanted is None or actual.dtype == wanted, f"{who}: expected {dtype}, got {actual.dtype}"
    a, e = (np.asarray(backend.asnumpy(x) if backend.owns(x) else x) for x in (actual, expected))
    assert a.shape == e.shape, f"{who}: expected shape {e.shape}, got {a.shape}"
    if not hasattr(expected, "dtype") and e.dtype.kind in "iuf" and a.dtype.kind in "fc":
        e = e.astype(np.result_type(e, a))  # Python numbers take the kind of the array beside them
    kind = KINDS.get(e.dtype.kind)
    assert kind == KINDS.get(a.dtype.kind), f"{who}: expected {kind} dtype, got {a.dtype}"
    inexact = a.dtype.kind in "fc"
    assert not inexact or a.itemsize <= e.itemsize, f"{who}: expected {e.dtype}, got the wider {a.dtype}"
    if scale is None:
        scale = float(np.max(np.abs(e), initial=0.0, where=np.isfinite(e))) or 1.0
    tolerance = multiple * float(np.finfo(a.dtype).eps) * scale if inexact else 0.0
    error, wrong = _compare(a, e, tolerance)
    if np.any(wrong):
        at = np.unravel_index(int(np.argmax(np.where(wrong, error + 1.0, 0.0))), e.shape)
        raise AssertionError(
            f"{who} at {[int(k) for k in at]}: expected {e[at]!s}, got {a[at]!s} "
            f"({np.count_nonzero(wrong)} of {e.size} differ by more than {tolerance:.1e})"
        )


def _compare(a: np.ndarray, e: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Return |a − e|, infinite where it cannot be told, and where it is more than the tolerance."""
    if a.dtype.kind not in "fc":
        return np.abs(a.astype(np.float64) - e.astype(np.float64)), a != e
    finite = np.isfinite(e)
    with np.errstate(all="ignore"):
        error = np.nan_to_num(np.abs(a - e), nan=np.inf, posinf=np.inf)
    same = (a == e) | (np.isnan(a) & np.isnan(e))
    return error, np.where(finite, ~(error <= tolerance), ~same)
