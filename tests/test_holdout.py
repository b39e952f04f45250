"""Which samples are held out: at random, the last, of each class, by group."""

import re
from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xpnet as xn
from xpnet import random
from xpnet.data.holdout import split
from xpnet.errors import DataError


def sound(n, kept, held):
    """Both parts are int32, ascending, not empty, and together all rows."""
    assert kept.dtype == held.dtype == np.int32
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held) > 0).all()
    assert len(kept)
    assert len(held)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(n))


def refused(text, *args, **settings):
    with pytest.raises(DataError) as caught:
        split(*args, **settings)
    assert str(caught.value) == text


@pytest.mark.parametrize("wanted", [0.25, 5, np.float32(0.25), np.int64(5), xn.HoldOut(0.25), xn.HoldOut(5)], ids=repr)
def test_at_random_by_the_seed(wanted):
    kept, held = split(20, wanted, 7)
    sound(20, kept, held)
    order = random.generator(7, "validation").permutation(20)
    assert held.tolist() == sorted(order[:5].tolist())
    assert held.tolist() != split(20, wanted, 8)[1].tolist()


def test_which_are_held_out_at_random_never_changes():
    """As they were when they were drawn as 64-bit integers."""
    order = np.random.Generator(np.random.Philox(key=random_key(3))).permutation(70_001).astype(np.int32)
    kept, held = split(70_001, 0.1, 3)
    assert np.array_equal(held, np.sort(order[:7000]))
    assert np.array_equal(kept, np.sort(order[7000:]))


def random_key(seed):
    return np.asarray([seed, random.digest("validation")], dtype=np.uint64)


def test_the_last_in_order():
    kept, held = split(10, xn.HoldOut(0.3, last=True), 0)
    sound(10, kept, held)
    assert held.tolist() == [7, 8, 9]


# A share of each class


@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=60),
    st.floats(0.01, 0.99),
    st.integers(0, 2**32),
)
def test_classes_keep_their_shares(labels, share, seed):
    n, (classes, sizes) = len(labels), np.unique(labels, return_counts=True)
    count = round(share * n)
    least, most = int((sizes > 1).sum()), int((sizes - 1).sum())
    form = xn.HoldOut(share, stratify=True)
    if not (0 < count < n and least <= count <= most):
        with pytest.raises(DataError, match=r"asks for|take at least|leave at least"):
            split(n, form, seed, labels)
        return
    kept, held = split(n, form, seed, labels)
    sound(n, kept, held)
    assert len(held) == count
    labels = np.asarray(labels)
    for label, size in zip(classes, sizes, strict=True):
        own, quota = int((labels[held] == label).sum()), size * count / n
        assert size - own >= 1
        assert own >= (size > 1)
        free = least == 0 or 1 <= quota <= size - 1  # no bound of this class in the way
        if free and all(1 <= s * count / n <= s - 1 for s in sizes):
            assert abs(own - quota) < 1


def test_the_largest_remainders_are_rounded_up():
    labels = np.repeat([3, 7, 9], [47, 31, 22])  # quotas 9.4, 6.2, 4.4 of 20: the first of the two largest gets it
    held = split(100, xn.HoldOut(0.2, stratify=True), 0, labels)[1]
    assert np.unique(labels[held], return_counts=True)[1].tolist() == [10, 6, 4]


def test_which_of_a_class_is_the_seeds():
    labels = np.arange(200) % 2
    one, other = (split(200, xn.HoldOut(0.1, stratify=True), seed, labels)[1] for seed in (0, 1))
    assert one.tolist() != other.tolist()
    assert one.tolist() != list(range(20))
    assert one.tolist() == split(200, xn.HoldOut(20, stratify=True), 0, labels[:, None])[1].tolist()


def test_labels_on_a_device(backend):
    labels = np.arange(40) % 4
    held = split(40, xn.HoldOut(8, stratify=True), 0, backend.asarray(labels.astype("int32")))[1]
    assert held.tolist() == split(40, xn.HoldOut(8, stratify=True), 0, labels)[1].tolist()


def test_stratify_asks_for_labels():
    form = xn.HoldOut(0.5, stratify=True)
    go = "stratify=True goes by"
    refused(f"{go} class labels, and there are none: pass y, or leave it out", 4, form, 0)
    refused(f"{go} class labels, integers, got float64: leave it out", 4, form, 0, labels=np.ones(4))
    refused(
        f"{go} one label a sample, (4,), got the shape (4, 2): leave it out", 4, form, 0, labels=np.eye(4, 2, dtype=int)
    )
    refused(f"{go} one label a sample, (4,), got the shape (3,): leave it out", 4, form, 0, labels=[1, 2, 3])
    holds = "stratify=True holds out 2 of 8 samples of 3 classes"
    few = xn.HoldOut(2, stratify=True)
    refused(f"{holds}: take at least 3, one of each class that has two", 8, few, 0, labels=[0, 0, 1, 1, 2, 2, 2, 2])
    holds = "stratify=True holds out 6 of 8 samples of 3 classes"
    refused(
        f"{holds}: leave at least 3, one of each class", 8, xn.HoldOut(6, stratify=True), 0, labels=[0] * 6 + [1, 2]
    )


# Whole groups


def nearest(sizes, count):
    """The sum of some sizes, not of all nor of none, that is nearest to a count."""
    parts = chain.from_iterable(combinations(sizes, k) for k in range(1, len(sizes)))
    return min(abs(sum(part) - count) for part in parts)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=9), st.floats(0.05, 0.95), st.integers(0, 2**32))
def test_groups_stay_whole_and_come_as_near_as_they_can(sizes, share, seed):
    groups = np.random.default_rng(0).permutation(np.repeat([f"patient {k}" for k in range(len(sizes))], sizes))
    n = len(groups)
    count = round(share * n)
    if not 0 < count < n:
        return
    kept, held = split(n, xn.HoldOut(share, groups=groups), seed)
    sound(n, kept, held)
    assert not set(groups[kept]) & set(groups[held])
    assert abs(len(held) - count) == nearest(sizes, count)


@pytest.mark.parametrize("share", [0.001, 0.2, 0.5, 0.9, 0.999])
def test_many_groups_come_as_near(share):
    sizes = np.random.default_rng(1).integers(50, 90, 200)
    groups = np.repeat(np.arange(200), sizes)
    n = len(groups)
    kept, held = split(n, xn.HoldOut(share, groups=groups), 0)
    sound(n, kept, held)
    assert not set(groups[kept]) & set(groups[held])
    if 0.1 < share < 0.95:  # a group is 0.5 % of them
        assert len(held) == round(share * n)


def test_one_large_group_among_many_does_not_spoil_it():
    groups = np.repeat(np.arange(50), [500] + [3] * 49)
    for seed in range(20):
        held = split(len(groups), xn.HoldOut(60, groups=groups), seed)[1]
        assert len(held) == 60


def test_which_groups_is_the_seeds_and_every_group_may_be_held_out():
    groups = np.arange(100) % 50
    held = [frozenset(groups[split(100, xn.HoldOut(0.2, groups=groups), seed)[1]].tolist()) for seed in range(40)]
    assert len(set(held)) > 30
    assert frozenset().union(*held) == set(range(50))


def test_groups_of_any_library_and_kind(backend):
    numbers = np.arange(12) % 4
    wanted = split(12, xn.HoldOut(0.5, groups=numbers), 0)[1].tolist()
    names = np.asarray(["a", "b", "c", "d"])[numbers]
    for groups in (
        numbers.tolist(),
        names,
        names.tolist(),
        names.astype(object),
        backend.asarray(numbers.astype("int32")),
    ):
        assert split(12, xn.HoldOut(0.5, groups=groups), 0)[1].tolist() == wanted


@pytest.mark.parametrize(
    ("groups", "text"),
    [
        ([[1], [2]], "groups must have one label a sample, (N,), got the shape (2, 1)"),
        (3, "groups must have one label a sample, (N,), got the shape ()"),
        ([1.0, 2.0], "groups must be integers or texts, got np.float64(1.0) at row 0: name each sample's group"),
        (["a", None], "groups must be integers or texts, got None at row 1: name each sample's group"),
        (np.asarray(["a", 1], object), "groups must be integers or texts, got both: name the groups alike"),
    ],
)
def test_groups_that_are_none(groups, text):
    with pytest.raises(DataError, match=f"^{re.escape(text)}$"):
        xn.HoldOut(0.5, groups=groups)


def test_groups_that_do_not_fit():
    refused("groups has 3 labels for 4 samples: give one a sample", 4, xn.HoldOut(0.5, groups=[1, 2, 3]), 0)
    one = "groups has one group only, and a part would be empty: leave groups out"
    refused(one, 4, xn.HoldOut(0.5, groups=[1] * 4), 0)


# Settings


@pytest.mark.parametrize("form", [{}, {"last": True}, {"stratify": True}, {"groups": [0, 1, 0, 1, 0, 1]}], ids=str)
@pytest.mark.parametrize("share", [0, -1, 6, 7, 0.01, 0.99])
def test_both_parts_hold_something(share, form):
    text = f"validation asks for {share} of 6 samples: take at least one and leave at least one"
    refused(text, 6, xn.HoldOut(share, **form), 0, labels=[0, 1] * 3)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"share": 1.0}, "HoldOut: share must lie between 0 and 1, or be a number of samples, got 1.0"),
        ({"share": True}, "HoldOut: share must lie between 0 and 1, or be a number of samples, got True"),
        ({"share": "0.1"}, "HoldOut: share must lie between 0 and 1, or be a number of samples, got '0.1'"),
        ({"share": 0.1, "last": 1}, "HoldOut: last must be True or False, got 1"),
        ({"share": 0.1, "stratify": "y"}, "HoldOut: stratify must be True or False, got 'y'"),
        (
            {"share": 0.1, "stratify": True, "last": True},
            "HoldOut chooses in one way, got last=True and stratify=True: leave out all but one",
        ),
        (
            {"share": 0.1, "stratify": True, "groups": [1]},
            "HoldOut chooses in one way, got stratify=True and groups=: leave out all but one",
        ),
    ],
)
def test_settings_that_are_none(settings, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        xn.HoldOut(**settings)


@pytest.mark.parametrize(("wanted", "came"), [(1.5, "1.5"), (True, "True"), (None, "None"), ([1, 2], "a list")])
def test_what_is_no_way_to_hold_out(wanted, came):
    ways = "a pair (x, y), a share between 0 and 1, a number of samples, or a HoldOut"
    refused(f"validation must be {ways}, got {came}", 6, wanted, 0)


def test_a_hold_out_is_shown_without_its_groups():
    assert repr(xn.HoldOut(0.2, groups=range(9))) == "HoldOut(share=0.2, last=False, stratify=False)"
