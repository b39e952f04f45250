"""Which samples are held out to judge by: some at random, the last ones, a share of each class, or whole groups."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xpnet import checks, random
from xpnet.arrays import describe
from xpnet.backends import LIBRARIES, backend_of, library_of
from xpnet.errors import DataError

EXACTLY = 24
"""Groups of which the choice that comes nearest is found by trying all: the last ones, in random order."""

Rows = tuple[np.ndarray, np.ndarray]
"""The rows to train on and the rows held out: int32, ascending."""


@dataclass(frozen=True, eq=False)
class HoldOut:
    """Which samples `fit(validation=…)` holds out: `HoldOut(0.2)` are a fifth, as `validation=0.2`, drawn at random.

        HoldOut(0.2, last=True)            the last fifth, in order: the future of a time series
        HoldOut(0.2, stratify=True)        a fifth of each class
        HoldOut(0.2, groups=patients)      the samples of some patients, a fifth of all as nearly as whole groups allow

    `share` is a share, 0 < share < 1, or a number of samples. What is drawn, is drawn by the model's seed.

    `stratify` takes each class's share by largest remainders, and one at least of every class that has two samples; one
    of each class stays. The targets are integers then, (N,) or (N, 1).

    `groups` has one label a sample, integers or texts, (N,); samples of one label stay together. Up to 24 groups the
    choice is the nearest that there is; of more, those before the last 24 are taken in random order as they fit.

    DataError for a share that is none, and for more than one of `last`, `stratify` and `groups`.
    """

    share: float
    last: bool = False
    stratify: bool = False
    groups: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not _is_amount(self.share):
            raise DataError(f"HoldOut: share must lie between 0 and 1, or be a number of samples, got {self.share!r}")
        checks.settle(self, last=checks.flag("HoldOut", "last", self.last))
        checks.settle(self, stratify=checks.flag("HoldOut", "stratify", self.stratify))
        ways = {"last=True": self.last, "stratify=True": self.stratify, "groups=": self.groups is not None}
        chosen = [way for way, asked in ways.items() if asked]
        if len(chosen) > 1:
            raise DataError(f"HoldOut chooses in one way, got {' and '.join(chosen)}: leave out all but one")
        if self.groups is not None:
            checks.settle(self, groups=_group_labels(self.groups))


def split(n: int, wanted: HoldOut | float, seed: int, labels: Any = None) -> Rows:
    """Return which of n rows are kept and which are held out: `wanted` is a HoldOut, a share or a number of samples.

    `labels` are the targets on the host, for `stratify`. The same seed gives the same rows. DataError if `wanted` is
    none of these, if a part would be empty, or if labels or groups do not fit.
    """
    if isinstance(wanted, HoldOut):
        form = wanted
    elif _is_amount(wanted):
        form = HoldOut(wanted)
    else:
        expected = "a pair (x, y), a share between 0 and 1, a number of samples, or a HoldOut"
        came = describe(wanted) if isinstance(wanted, (tuple, list)) else repr(wanted)
        raise DataError(f"validation must be {expected}, got {came}")
    amount = form.share
    count = round(float(amount) * n) if isinstance(amount, (float, np.floating)) else int(amount)
    if not 0 < count < n:
        raise DataError(f"validation asks for {amount} of {n} samples: take at least one and leave at least one")
    rng = random.generator(seed, "validation")
    if form.last:
        held = np.arange(n) >= n - count
    elif form.stratify:
        held = _of_each_class(_classes(labels, n), count, rng)
    elif form.groups is not None:
        held = _whole_groups(form.groups, n, count, rng)
    else:
        held = np.zeros(n, bool)
        held[rng.permutation(np.arange(n, dtype=np.int32))[:count]] = True
    return np.flatnonzero(~held).astype(np.int32), np.flatnonzero(held).astype(np.int32)


def _is_amount(value: Any) -> bool:
    """Whether this is a share or a number of samples."""
    if isinstance(value, (float, np.floating)):
        return bool(0 < value < 1)
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _home(labels: Any) -> np.ndarray:
    """Return an array of any library, a list or a column of a table as a host array."""
    return backend_of(labels).asnumpy(labels) if library_of(labels) in LIBRARIES else np.asarray(labels)


# A share of each class


def _classes(labels: Any, n: int) -> np.ndarray:
    """Return the class of each sample as 0, 1, …; DataError unless there is an integer for each."""
    if labels is None:
        raise DataError("stratify=True goes by class labels, and there are none: pass y, or leave it out")
    y = _home(labels)
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.dtype.kind not in "biu":
        raise DataError(f"stratify=True goes by class labels, integers, got {y.dtype}: leave it out")
    if y.shape != (n,):
        raise DataError(f"stratify=True goes by one label a sample, ({n},), got the shape {y.shape}: leave it out")
    return np.unique(y, return_inverse=True)[1]


def _of_each_class(classes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return which samples are held out: of each class those that come first in a random order."""
    n, sizes = len(classes), np.bincount(classes)
    least, most = (sizes > 1).astype(np.int64), sizes - 1
    asked = f"stratify=True holds out {count} of {n} samples of {len(sizes)} classes"
    if count < least.sum():
        raise DataError(f"{asked}: take at least {least.sum()}, one of each class that has two")
    if count > most.sum():
        raise DataError(f"{asked}: leave at least {len(sizes)}, one of each class")
    taken = _apportioned(sizes.astype(np.int64) * count, n, least, most)
    order = rng.permutation(np.arange(n, dtype=np.int32))
    by_class = order[np.argsort(classes[order], kind="stable")]
    place = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # of a sample among those of its class
    held = np.zeros(n, bool)
    held[by_class] = place < np.repeat(taken, sizes)
    return held


def _apportioned(parts: np.ndarray, n: int, least: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Return integers near parts / n that add up to Σ parts / n, within bounds: the largest remainders are rounded up.

    (Hamilton's method.) Equal remainders go to the first.
    """
    taken: np.ndarray = np.clip(parts // n, least, most)
    missing = int(parts.sum()) // n - int(taken.sum())
    step, bound = (1, most) if missing > 0 else (-1, least)
    while missing:
        free = np.flatnonzero(taken != bound)
        remainder = step * (parts[free] - taken[free] * n)
        chosen = free[np.argsort(-remainder, kind="stable")[: abs(missing)]]
        taken[chosen] += step
        missing -= step * len(chosen)
    return taken


# Whole groups


def _group_labels(groups: Any) -> np.ndarray:
    """Return groups as 0, 1, …, one a sample; DataError unless they are integers or texts."""
    labels = _home(groups)
    if labels.ndim != 1:
        raise DataError(f"groups must have one label a sample, (N,), got the shape {labels.shape}")
    known = labels.dtype.kind in "biuUST"
    for row, label in () if known else enumerate(labels):
        if not isinstance(label, (str, int, np.integer)):
            raise DataError(f"groups must be integers or texts, got {label!r} at row {row}: name each sample's group")
    try:
        return np.asarray(np.unique(labels, return_inverse=True)[1])
    except TypeError:
        raise DataError("groups must be integers or texts, got both: name the groups alike") from None


def _whole_groups(groups: np.ndarray, n: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return which samples are held out: those of some groups, `count` as nearly as may be."""
    if len(groups) != n:
        raise DataError(f"groups has {len(groups)} labels for {n} samples: give one a sample")
    sizes = np.bincount(groups)
    if len(sizes) == 1:
        raise DataError("groups has one group only, and a part would be empty: leave groups out")
    turn = rng.permutation(len(sizes))
    walked, tried = turn[:-EXACTLY], turn[-EXACTLY:]
    goal = count - int(sizes[tried].sum()) // 2  # what is missing then lies where the last ones have most sums
    chosen, total = [], 0
    for group in walked:
        if total + sizes[group] <= goal:
            chosen.append(group)
            total += int(sizes[group])
    chosen += _nearest(tried, [int(size) for size in sizes[tried]], count - total, total, n)
    return np.asarray(np.isin(np.arange(len(sizes)), chosen)[groups])


def _nearest(groups: np.ndarray, sizes: list[int], wanted: int, taken: int, n: int) -> list[int]:
    """Return the groups whose sizes add up to nearest `wanted`, so that neither `taken` and they nor the rest is empty.

    Bit s of `reach[k]` says whether some of the first k sizes add up to s. (Subset sum by dynamic programming.)
    """
    reach = [1]
    for size in sizes:
        reach.append(reach[-1] | reach[-1] << size)
    sums = _bits(reach[-1])
    sums = sums[(sums + taken > 0) & (sums + taken < n)]
    best, chosen = int(sums[np.argmin(np.abs(sums - wanted))]), []
    for k in range(len(sizes) - 1, -1, -1):
        if not reach[k] >> best & 1:
            chosen.append(groups[k])
            best -= sizes[k]
    return chosen


def _bits(number: int) -> np.ndarray:
    """Return which bits of an integer are set."""
    octets = np.frombuffer(number.to_bytes(number.bit_length() // 8 + 1, "little"), np.uint8)
    return np.flatnonzero(np.unpackbits(octets, bitorder="little"))
