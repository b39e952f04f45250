"""Batches that come one after the other: loaders, generators, lists of pairs."""

import threading

import numpy as np
import pytest

import xpnet as xn

RNG = np.random.default_rng(6)
X = RNG.normal(size=(100, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 100)
W = RNG.random(100).astype(np.float32) + 0.5


def model(backend="numpy", dropout=0.2):
    net = xn.Sequential(xn.Linear(6, 8), xn.ReLU(), xn.Dropout(dropout), xn.Linear(8, 3))
    return xn.Model(net, xn.cross_entropy, xn.Adam(1e-2), backend=backend, metrics=["accuracy"])


def bits(one):
    return one.backend.asnumpy(one.theta).tobytes()


def pairs(size=16, *more):
    return [tuple(part[k : k + size] for part in (X, Y, *more)) for k in range(0, 100, size)]


class InOrder(xn.Rows):
    """Rows, whatever is asked for, in their own order: what batches in order must come to."""

    def __init__(self, weights=None):
        super().__init__(X, Y, weights)
        self.next = 0

    def __getitem__(self, rows):
        if len(rows) == 100:
            return super().__getitem__(rows)
        self.next = 0 if self.next >= 100 else self.next
        mine = np.arange(self.next, self.next + len(rows))
        self.next += len(rows)
        return super().__getitem__(mine)


@pytest.mark.parametrize("weights", [None, W], ids=["unweighed", "weighed"])
def test_batches_train_to_the_bits_of_the_same_rows_in_order(backend, weights):
    """The blocks of a source in that order; the last batch is a short one."""
    one, two = model(backend), model(backend)
    given = pairs(16) if weights is None else pairs(16, weights)
    histories = [one.fit(InOrder(weights), epochs=2, batch_size=16), two.fit(given, epochs=2)]
    assert bits(one) == bits(two)
    assert histories[0]["loss"] == pytest.approx(histories[1]["loss"], rel=1e-12)
    assert one.evaluate(X, Y)["loss"] == pytest.approx(two.evaluate(pairs(16))["loss"], rel=1e-5)
    assert np.allclose(two.predict(pairs(16)), two.predict(X), atol=1e-5)
    assert np.array_equal(two.predict(x for x, _ in pairs(16)), two.predict(pairs(16)))


def test_how_batches_are_stacked_changes_no_bit(monkeypatch):
    from xpnet.data import iterated

    one, two = model(), model()
    one.fit(pairs(), epochs=2)
    monkeypatch.setattr(iterated, "BYTES", 1)
    two.fit(pairs(), epochs=2)
    assert bits(one) == bits(two)


def test_batches_of_any_size_and_form_are_taken_as_they_come():
    sizes = [16, 16, 5, 40, 16, 7]
    ends = np.cumsum(sizes)
    batches = [(X[end - size : end], Y[end - size : end]) for size, end in zip(sizes, ends, strict=True)]
    one = model()
    history = one.fit(batches, epochs=3)
    assert one.state.t == 18
    assert np.isfinite(history["loss"]).all()


def test_several_batches_make_one_step_when_gradients_are_accumulated():
    one, two = model(dropout=0.0), model(dropout=0.0)
    one.fit(pairs(20), accumulate=5)
    two.fit([(X, Y)])
    assert one.state.t == two.state.t == 1
    assert np.allclose(one.theta, two.theta, atol=1e-5)


def test_a_loader_of_pytorch_trains_numpy_and_its_own():
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    loader = torch.utils.data.DataLoader(data, batch_size=16)
    one, two = model(), model()
    one.fit(loader, epochs=2, validation=loader)
    two.fit(pairs(), epochs=2)
    assert bits(one) == bits(two)
    own = model("torch")
    assert own.fit(loader, epochs=2)["loss"][-1] == pytest.approx(0.0, abs=2.0)
    assert np.array_equal(one.predict(loader), one.predict(x for x, _ in pairs()))


def test_a_generator_is_cut_into_epochs():
    def forever():
        while True:
            yield from pairs()

    one, two = model(), model()
    history = one.fit(forever(), epochs=3, steps_per_epoch=7)
    two.fit(pairs(), epochs=3)
    assert bits(one) == bits(two)
    assert len(history["epoch"]) == 3
    taken = iter(pairs() * 3)
    model().fit(taken, epochs=2, steps_per_epoch=5)
    assert len(list(taken)) == 11  # nothing is taken beyond what was asked for


def test_a_schedule_in_epochs_knows_the_steps_of_a_loader():
    one = xn.Model(xn.Linear(6, 3), xn.cross_entropy, xn.SGD(xn.cosine(0.1, epochs=2)), backend="numpy")
    history = one.fit(pairs(), epochs=2)
    assert history["learning_rate"][-1] < 0.01
    other = xn.Model(xn.Linear(6, 3), xn.cross_entropy, xn.SGD(xn.cosine(0.1, epochs=2)), backend="numpy")
    with pytest.raises(ValueError, match=r"pass steps= instead of epochs="):
        other.fit(x for x in pairs())


class BrokenError(Exception):
    pass


def test_resume_skips_the_batches_that_the_epoch_has_seen(tmp_path, monkeypatch):
    from xpnet.data import iterated

    monkeypatch.setattr(iterated, "BYTES", 2 * 16 * (24 + 8))

    class Breaking:
        def __init__(self):
            self.epoch = 0

        def __iter__(self):
            self.epoch += 1
            for k, pair in enumerate(pairs()):
                if (self.epoch, k) == (2, 5):
                    raise BrokenError("lost")
                yield pair

    whole, cut = model(), model()
    whole.fit(pairs(), epochs=3)
    path = tmp_path / "run.safetensors"
    with pytest.raises(BrokenError, match="lost"):
        cut.fit(Breaking(), epochs=3, checkpoint=path, every=1)
    again = xn.load(path, "numpy")
    assert again.underway.position == 64
    again.resume(pairs(), checkpoint=path)
    assert bits(again) == bits(whole)
    assert [thread.name for thread in threading.enumerate() if "reads ahead" in thread.name] == []


def generator(count=3):
    return (pair for pair in pairs()[:count])


WRONG = {
    "two epochs": (lambda: model().fit(generator(), epochs=2), "a generator can be read once, and 2 epochs were asked"),
    "too few": (lambda: model().fit(generator(), epochs=2, steps_per_epoch=2), "2 batches were asked for by steps_per"),
    "none": (lambda: model().fit(iter([])), "gives no batches: one at least was expected"),
    "a dict": (
        lambda: model().fit(iter([{"x": X}])),
        r"must be \(x, y\) or \(x, y, weights\), got a dict for batch 1$",
    ),
    "x alone": (lambda: model().fit(iter([X, X])), r"must be \(x, y\) .*, got a numpy array on cpu for batch 1$"),
    "a label": (
        lambda: model().fit([(X, Y), (X, Y + 1)]),
        r"^batch 2: labels must be integers in 0..2, got 3 at row \d+$",
    ),
    "held out": (
        lambda: model().fit(pairs(), validation=0.1),
        "nothing can be held out of batches that come one after",
    ),
    "read once": (
        lambda: model().fit(pairs(), validation=generator()),
        "validation is read after each epoch, and a gen",
    ),
    "weights": (lambda: model().fit(pairs(), sample_weight=W), "a source gives its own weights"),
    "steps": (lambda: model().fit(X, Y, steps_per_epoch=3), "steps_per_epoch is for batches that come one after the"),
    "0 steps": (
        lambda: model().fit(pairs(), steps_per_epoch=0),
        "steps_per_epoch must be an integer of at least 1, got 0",
    ),
    "balanced": (
        lambda: model().fit(generator(), class_weight="balanced"),
        "need all targets first, which a generator",
    ),
    "nothing": (lambda: model().predict(iter([])), "there is nothing to predict: x gave no samples"),
    "forgotten y": (lambda: model().fit(X), "^y is missing: pass an array, one sample a row, or a source"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_trained_on_is_refused(case):
    call, text = WRONG[case]
    with pytest.raises(ValueError, match=text) as caught:
        call()
    assert "\n" not in str(caught.value)
