"""Arrays of any library, lists and tables as NumPy arrays, and what a picture needs of them: labels, scores, names."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet.arrays import Array
from xpnet.backends import LIBRARIES, backend_of, library_of
from xpnet.errors import DataError, ShapeError

SUM = 1e-2
"""How far probabilities may be from the sum 1: those of float16 are rounded so much."""


def host(array: Array, what: str = "the data") -> np.ndarray:
    """Return an array of any library, a list, a tuple or a table as a NumPy array; DataError if it holds no numbers."""
    known = library_of(array) in LIBRARIES or hasattr(array, "__array_namespace__")
    try:
        found = np.asarray(backend_of(array).asnumpy(array) if known else array)
        if array is None:
            raise TypeError("there is nothing")
        if found.dtype.kind not in "biuf":
            found = found.astype(np.float64)
    except (TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{what} must be numbers in rows of one length, got {type(array).__name__}: {reason}") from None
    return found


def class_numbers(labels: Any, samples: int, who: str, classes: int | None = None) -> np.ndarray:
    """Return labels as whole numbers (N,), one a sample, in 0..C − 1 if C is given; DataError says which is not.

    −1 and +1, or targets (N, 1), become 0 and 1.
    """
    numbers = host(labels, f"{who}: labels").reshape(-1)
    if len(numbers) != samples:
        raise DataError(f"{who} needs a label for each of the {samples} samples, got {len(numbers)}")
    if numbers.min(initial=0) < 0:
        numbers = numbers > 0
    with np.errstate(invalid="ignore"):
        whole = numbers.astype(np.int64)
    wrong = np.flatnonzero((whole != numbers) | (whole >= (classes or whole.max(initial=0) + 1)))
    if wrong.size:
        known = f" in 0..{classes - 1}" if classes else ""
        raise DataError(f"{who}: labels must be integers{known}, got {numbers[wrong[0]]} at row {wrong[0]}")
    return whole


def class_names(who: str, names: Sequence[object] | None, classes: int) -> list[str]:
    """Return a name for each class, its number if it has no other."""
    found = [str(name) for name in (range(classes) if names is None else names)]
    if len(found) != classes:
        raise DataError(f"{who}: {len(found)} names for {classes} classes: pass a name for each")
    return found


def class_scores(who: str, prediction: Array) -> np.ndarray:
    """Return scores (N, C) as numbers of some precision; one score a sample becomes two columns, 0 and the score."""
    scores = host(prediction, f"{who}: prediction")
    scores = scores if scores.dtype.kind == "f" else scores.astype(np.float64)
    if scores.ndim == 1 and scores.size and scores.max() > 1 and np.array_equal(scores, np.rint(scores)):
        raise DataError(f"{who} needs scores (N, C), got what look like class numbers: pass model.predict(x) as it is")
    if scores.ndim == 1 or scores.shape[1:] == (1,):
        scores = np.stack([np.zeros(len(scores), scores.dtype), scores.reshape(-1)], axis=1)
    if scores.ndim != 2 or not len(scores):
        raise ShapeError(f"{who} needs a prediction (N, C) for at least one sample, got {scores.shape}")
    return scores


def class_probabilities(who: str, prediction: Array) -> np.ndarray:
    """Return probabilities (N, C) in float64; one a sample, p of class 1, becomes two columns, 1 − p and p.

    DataError for what is no probability, such as the scores of a network that ends in Linear.
    """
    p = host(prediction, f"{who}: probabilities").astype(np.float64)
    if p.ndim == 1 or p.shape[1:] == (1,):
        p = np.stack([1.0 - p.reshape(-1), p.reshape(-1)], axis=1)
    if p.ndim != 2 or not len(p):
        raise ShapeError(f"{who} needs probabilities (N, C) for at least one sample, got {p.shape}")
    wrong = np.flatnonzero(~((p >= 0) & (p <= 1)).all(axis=1) | (np.abs(p.sum(axis=1) - 1.0) > SUM))
    if wrong.size:
        row = ", ".join(f"{value:.4g}" for value in p[wrong[0], :4]) + (", …" if p.shape[1] > 4 else "")
        raise DataError(
            f"{who} needs probabilities, in 0..1 and of the sum 1, got {row} at row {wrong[0]}: "
            "pass model.predict_proba(x)"
        )
    return p


def complete(who: str, what: str, values: np.ndarray) -> np.ndarray:
    """Return the values; DataError names the first row that holds NaN."""
    if (wrong := np.flatnonzero(np.isnan(values).any(axis=tuple(range(1, values.ndim))))).size:
        raise DataError(f"{who}: {what} holds NaN, first at row {wrong[0]}: leave those samples out")
    return values
