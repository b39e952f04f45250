import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xpnet as xn
from xpnet.schedules import (
    constant,
    cosine,
    one_cycle,
    paced,
    polynomial,
    rate,
    scaled,
    step_decay,
    times,
    warm_restarts,
    warmup,
)


def curve(schedule, steps):
    return [schedule(step) for step in range(steps)]


def test_values():
    assert curve(constant(0.1), 3) == [0.1] * 3
    assert curve(step_decay(1.0, every=2, factor=0.5), 6) == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    assert curve(cosine(1.0, steps=2, final=0.5), 5) == pytest.approx([1.0, 0.75, 0.5, 0.5, 0.5], rel=1e-15)
    assert curve(polynomial(1.0, steps=4, final=0.5), 6) == [1.0, 0.875, 0.75, 0.625, 0.5, 0.5]
    assert curve(polynomial(1.0, steps=2, power=0.0), 4) == [1.0, 1.0, 0.0, 0.0]
    assert curve(scaled(step_decay(1.0, every=1, factor=0.5), 3.0), 3) == [3.0, 1.5, 0.75]
    assert curve(warmup(1.0, steps=4), 6) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert curve(warmup(step_decay(1.0, every=1, factor=0.5), steps=2), 5) == [0.5, 1.0, 1.0, 0.5, 0.25]


def test_rate_takes_a_number_or_a_function():
    assert rate(0.1, 7) == 0.1
    assert rate(lambda step: step + 1, 7) == 8.0
    assert isinstance(rate(1, 0), float)


def test_one_cycle_rises_to_its_peak_and_falls():
    rates = curve(one_cycle(1.0, steps=100), 120)
    assert rates[0] == pytest.approx(1 / 25, rel=1e-14)
    assert max(rates) == rates[29] == 1.0
    assert rates[:30] == sorted(rates[:30])
    assert rates[29:] == sorted(rates[29:], reverse=True)
    assert rates[99] == rates[119] == pytest.approx(1 / 25e4, rel=1e-12)


@given(st.integers(1, 50), st.floats(0.0, 1.0), st.integers(0, 100))
def test_one_cycle_stays_between_its_ends_whatever_its_length(steps, rise, step):
    value = one_cycle(1.0, steps=steps, rise=rise)(step)
    assert 1 / 25e4 * (1 - 1e-9) <= value <= 1.0


@pytest.mark.parametrize(("steps", "rise"), [(2, 0.5), (10, 0.1), (5, 1.0), (1, 0.3), (1, 1.0), (4, 0.0)])
def test_one_cycle_with_a_flank_of_no_length(steps, rise):
    assert all(0 < value <= 1.0 for value in curve(one_cycle(1.0, steps=steps, rise=rise), steps + 2))


def test_schedules_are_data():
    assert cosine(1e-3, steps=5) == cosine(1e-3, steps=5) != cosine(1e-3, steps=6)
    assert repr(warmup(cosine(1e-3, steps=5), steps=2)) == (
        "warmup(lr=cosine(lr=0.001, steps=5, final=0.0, epochs=None), steps=2, epochs=None)"
    )


# Against PyTorch


def torch_rates(make, steps, lr=0.1):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = make(torch.optim.lr_scheduler, optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


TORCH = [
    (constant(0.1), lambda room, o: room.ConstantLR(o, factor=1.0), 20),
    (step_decay(0.1, every=7, factor=0.3), lambda room, o: room.StepLR(o, step_size=7, gamma=0.3), 40),
    (cosine(0.1, steps=50, final=0.01), lambda room, o: room.CosineAnnealingLR(o, T_max=50, eta_min=0.01), 51),
    (polynomial(0.1, steps=30), lambda room, o: room.PolynomialLR(o, total_iters=30), 40),
    (polynomial(0.1, steps=30, power=2.5), lambda room, o: room.PolynomialLR(o, total_iters=30, power=2.5), 40),
    (
        warm_restarts(0.1, steps=7, final=0.01),
        lambda room, o: room.CosineAnnealingWarmRestarts(o, T_0=7, eta_min=0.01),
        30,
    ),
    (
        warm_restarts(0.1, steps=5, growth=2),
        lambda room, o: room.CosineAnnealingWarmRestarts(o, T_0=5, T_mult=2),
        60,
    ),
    (
        warm_restarts(0.1, steps=1, growth=3),
        lambda room, o: room.CosineAnnealingWarmRestarts(o, T_0=1, T_mult=3),
        60,
    ),
    (warmup(0.1, steps=8), lambda room, o: room.LinearLR(o, start_factor=1 / 8, total_iters=7), 20),
]


@pytest.mark.parametrize(("schedule", "make", "steps"), TORCH, ids=lambda value: type(value).__name__)
def test_the_same_rates_as_pytorch(schedule, make, steps):
    assert curve(schedule, steps) == pytest.approx(torch_rates(make, steps), rel=1e-10)


@pytest.mark.parametrize("rise", [0.3, 0.25, 0.5])
def test_one_cycle_has_the_same_rates_as_pytorch(rise):
    def make(room, optimizer):
        return room.OneCycleLR(optimizer, max_lr=0.1, total_steps=60, pct_start=rise, cycle_momentum=False)

    # PyTorch steps its scheduler once more than there are rates, so the last call is left out.
    rates = torch_rates(lambda room, o: Short(make(room, o), 59), 60)
    assert curve(one_cycle(0.1, steps=60, rise=rise), 60) == pytest.approx(rates, rel=1e-10)


class Short:
    """A scheduler that stops after some steps."""

    def __init__(self, scheduler, steps):
        self.scheduler, self.left = scheduler, steps

    def step(self):
        self.left -= 1
        if self.left >= 0:
            self.scheduler.step()


def test_cosine_is_final_for_ever_after():
    assert cosine(0.1, steps=5, final=0.02)(10**9) == pytest.approx(0.02)
    assert math.isclose(cosine(0.1, steps=5)(5), 0.0, abs_tol=1e-17)


# Settings


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: constant(math.nan), "constant: lr must be a number of at least 0, got nan"),
        (lambda: constant(-0.1), "constant: lr must be a number of at least 0, got -0.1"),
        (lambda: constant(math.inf), "constant: lr must be a finite number of at least 0, got inf"),
        (lambda: constant("0.1"), "constant: lr must be a number of at least 0, got '0.1'"),
        (lambda: constant(True), "constant: lr must be a number of at least 0, got True"),
        (lambda: constant(constant(0.1)), "constant: lr must be a number of at least 0, got constant(lr=0.1)"),
        (lambda: step_decay(0.1, every=0), "step_decay: every must be an integer of at least 1, got 0"),
        (lambda: step_decay(0.1, every=2.5), "step_decay: every must be an integer of at least 1, got 2.5"),
        (lambda: step_decay(0.1, 5, factor=-1), "step_decay: factor must be a number of at least 0, got -1"),
        (lambda: cosine(0.1, steps=0), "cosine: steps must be an integer of at least 1, got 0"),
        (lambda: cosine(0.1, steps=-5), "cosine: steps must be an integer of at least 1, got -5"),
        (lambda: cosine(0.1, 5, final=math.nan), "cosine: final must be a number of at least 0, got nan"),
        (lambda: warmup(0.1, steps=0), "warmup: steps must be an integer of at least 1, got 0"),
        (lambda: warmup(np.float32(-1), 5), "warmup: lr must be a number of at least 0, got -1.0"),
        (lambda: one_cycle(0.1, steps=True), "one_cycle: steps must be an integer of at least 1, got True"),
        (
            lambda: one_cycle(0.1, 5, rise=1.5),
            "one_cycle: rise must be a number of at least 0 and of at most 1, got 1.5",
        ),
        (lambda: warm_restarts(0.1, 5, growth=1.5), "warm_restarts: growth must be an integer of at least 1, got 1.5"),
        (lambda: polynomial(0.1, 5, power=-1), "polynomial: power must be a number of at least 0, got -1"),
        (lambda: polynomial(0.1), "polynomial: give steps= or epochs=, how long it takes"),
        (lambda: cosine(0.1, epochs=0), "cosine: epochs must be a number above 0, got 0"),
        (lambda: step_decay(0.1, epochs="2"), "step_decay: epochs must be a number above 0, got '2'"),
        (lambda: scaled("0.1", 2.0), "scaled: lr must be a number of at least 0, got '0.1'"),
        (lambda: one_cycle(0.1, 5, start=0), "one_cycle: start must be a number above 0, got 0"),
        (lambda: one_cycle(0.1, 5, end=-2), "one_cycle: end must be a number above 0, got -2"),
    ],
)
def test_settings_are_checked_when_a_schedule_is_made(make, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        make()


def test_settings_are_kept_as_pythons_own():
    made = one_cycle(np.float32(0.5), np.int64(10), rise=np.array(0.25), start=2, end=np.float64(4), epochs=np.int8(3))
    assert made == one_cycle(0.5, 10, 0.25, 2.0, 4.0, epochs=3.0)
    assert {type(value) for value in vars(made).values()} == {int, float}
    inner = cosine(0.1, steps=5)
    assert warmup(inner, steps=np.int32(3)).lr is inner


def test_ends_as_small_as_they_come_divide_nothing_by_zero():
    assert one_cycle(1e-3, 5, start=1e-200, end=1e-200)(0) == pytest.approx(1e197)


@pytest.mark.parametrize("value", [np.float32(0.25), np.array(0.25), np.float64(0.25), 0.25])
def test_what_a_schedule_returns_may_be_any_number(value):
    got = rate(lambda step: value, 3)
    assert got == 0.25
    assert type(got) is float


# In epochs


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (cosine(0.1, epochs=12), cosine(0.1, steps=120)),
        (step_decay(0.1, epochs=3), step_decay(0.1, every=30)),
        (one_cycle(0.1, epochs=2.5, rise=0.2), one_cycle(0.1, steps=25, rise=0.2)),
        (polynomial(0.1, epochs=2, power=2), polynomial(0.1, steps=20, power=2)),
        (warm_restarts(0.1, epochs=1, growth=2), warm_restarts(0.1, steps=10, growth=2)),
        (warmup(cosine(0.1, epochs=5), epochs=0.01), warmup(cosine(0.1, steps=50), steps=1)),
        (scaled(warmup(cosine(0.1, epochs=5), steps=3), 0.5), scaled(warmup(cosine(0.1, steps=50), steps=3), 0.5)),
        (constant(0.1), constant(0.1)),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_epochs_are_so_many_steps(given, meant):
    assert curve(paced(given, 10), 130) == curve(meant, 130)
    assert curve(paced(paced(given, 4), 10), 130) == curve(meant, 130), "the epochs are kept"


def test_what_is_not_given_in_epochs_is_returned_as_it_is():
    own = lambda step: 0.1  # noqa: E731
    assert paced(own, 10) is own
    assert paced(0.1, 10) == 0.1
    assert paced(cosine(0.1, steps=5), 10) == cosine(0.1, steps=5)


def test_a_rate_in_epochs_has_no_value_outside_of_fit():
    text = "only fit knows how many steps an epoch has: pass every= instead of epochs="
    with pytest.raises(ValueError, match=rf"^step_decay\(lr=0.1, every=None, .*epochs=3.0\): {text}$"):
        step_decay(0.1, epochs=3)(0)


def test_times_multiplies_numbers_and_schedules():
    assert times(0.5, 0.5) == 0.25
    once = times(cosine(0.1, steps=5), 0.5)
    assert once == scaled(cosine(0.1, steps=5), 0.5)
    assert times(once, 0.5) == scaled(cosine(0.1, steps=5), 0.25)


X = np.random.default_rng(0).normal(size=(23, 3)).astype("float32")
Y = np.arange(23) % 2


def classifier(lr, backend="numpy"):
    return xn.Model(xn.Linear(3, 2), xn.cross_entropy, xn.Adam(lr), backend=backend)


def test_fit_counts_the_steps_of_an_epoch(backend):
    given, meant = (classifier(lr, backend) for lr in (cosine(0.1, epochs=2), cosine(0.1, steps=2 * 5)))
    first, other = (model.fit(X, Y, epochs=3, batch_size=5) for model in (given, meant))
    assert first["learning_rate"] == other["learning_rate"]
    assert np.array_equal(backend.asnumpy(given.theta), backend.asnumpy(meant.theta))
    assert given.optimizer.lr == cosine(0.1, steps=10, epochs=2)
    given.fit(X, Y, epochs=1, batch_size=23)  # other epochs
    assert given.optimizer.lr == cosine(0.1, steps=2, epochs=2)


def test_a_run_whose_rates_are_given_in_epochs_goes_on_to_the_same_bits(tmp_path):
    whole, cut = (classifier(warmup(cosine(0.1, epochs=4), epochs=0.5)) for _ in range(2))
    expected = whole.fit(X, Y, epochs=5, batch_size=5)

    class Cut(xn.Callback):
        def on_epoch_end(self, model, history):
            if model.epoch == 3:
                raise RuntimeError("the power is out")

    with pytest.raises(RuntimeError):
        cut.fit(X, Y, epochs=5, batch_size=5, checkpoint=tmp_path / "run", callbacks=[Cut()])
    found = xn.load(tmp_path / "run", "numpy")
    assert found.epoch == 2
    history = found.resume(X, Y)
    assert np.array_equal(found.theta, whole.theta)
    assert history["learning_rate"] == expected["learning_rate"]


# As long as fit


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("cosine", lambda steps: cosine(0.1, steps=steps)),
        ("linear", lambda steps: polynomial(0.1, steps=steps)),
        ("one_cycle", lambda steps: one_cycle(0.1, steps=steps)),
        ("constant", lambda steps: constant(0.1)),
    ],
)
def test_a_schedule_by_name_is_as_long_as_fit(name, meant):
    given = xn.Model(xn.Linear(3, 2), xn.cross_entropy, xn.Adam(0.1, schedule=name), backend="numpy")
    for epochs in (2, 4):  # what comes later goes on to a later end
        before = given.state.t
        rates = given.fit(X, Y, epochs=epochs, batch_size=5, progress=False)["learning_rate"]
        schedule = meant(before + 5 * epochs)
        assert rates == [schedule(before + 5 * k - 1) for k in range(1, epochs + 1)]


def test_all_epochs_are_those_that_are_left_where_an_optimizer_is_new():
    model = classifier(0.1)
    model.fit(X, Y, epochs=3, batch_size=5, progress=False)
    model.optimizer = xn.SGD(0.1, schedule="linear")
    rates = model.fit(X, Y, epochs=2, batch_size=5, progress=False)["learning_rate"]
    assert rates == [polynomial(0.1, steps=10)(4), polynomial(0.1, steps=10)(9)]


def test_what_is_behind_a_warmup_has_what_is_left():
    made = paced(scaled(warmup(cosine(0.1, epochs="all"), epochs=2), 0.5), 10, 100)
    assert made == scaled(warmup(cosine(0.1, steps=80, epochs="all"), steps=20, epochs=2), 0.5)
    assert paced(made, 10, 200).lr.lr.steps == 180, "it is still as long as fit"


@pytest.mark.parametrize("at", [10, 13])  # within an epoch, and after one
def test_a_run_as_long_as_fit_goes_on_to_the_same_bits(tmp_path, at):
    def new():
        return xn.Model(xn.Linear(3, 2), xn.cross_entropy, xn.SGD(0.1, schedule="cosine"), backend="numpy")

    class Cut(xn.Callback):
        def on_step_end(self, model, numbers):
            if model.state.t == at:
                raise RuntimeError("the power is out")

    whole, cut = new(), new()
    whole.fit(X, Y, epochs=3, batch_size=12, progress=False)
    whole.fit(X[:0:-1], Y[:0:-1], epochs=2, batch_size=7, progress=False)
    cut.fit(X, Y, epochs=3, batch_size=12, progress=False)
    with pytest.raises(RuntimeError):
        cut.fit(X[:0:-1], Y[:0:-1], 2, 7, checkpoint=tmp_path / "run", every=1, callbacks=[Cut()], progress=False)
    found = xn.load(tmp_path / "run", "numpy")
    found.resume(X[:0:-1], Y[:0:-1], progress=False)
    assert np.array_equal(found.theta, whole.theta)
    assert found.optimizer == whole.optimizer


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: xn.Adam(0.1, schedule="cosin"),
            'Adam: schedule must be one of "constant", "linear", "cosine", "one_cycle", got \'cosin\': '
            "any other one is given as lr=",
        ),
        (
            lambda: xn.SGD(0.1, schedule=cosine(0.1, steps=3)),
            'SGD: schedule must be one of "constant", "linear", "cosine", "one_cycle", got '
            "cosine(lr=0.1, steps=3, final=0.0, epochs=None): any other one is given as lr=",
        ),
        (
            lambda: xn.SGD(cosine(0.1, steps=3), schedule="cosine"),
            "SGD: lr is a schedule already, got schedule='cosine' too: give lr as a number",
        ),
        (lambda: step_decay(0.1, epochs="all"), "step_decay: epochs must be a number above 0, got 'all'"),
        (lambda: cosine(0.1, epochs="most"), "cosine: epochs must be a number above 0, got 'most'"),
        (lambda: xn.Adam(-1.0, schedule="cosine"), "Adam: lr must be a number of at least 0.0, got -1.0"),
    ],
)
def test_a_schedule_that_is_not_one_is_refused(make, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        make()


def test_a_rate_in_epochs_that_a_callback_sets_is_counted_too():
    class Slower(xn.Callback):
        def on_epoch_end(self, model, history):
            if model.epoch == 1:
                model.adjust(lr=polynomial(0.1, epochs=2))

    history = classifier(0.1).fit(X, Y, epochs=3, batch_size=5, callbacks=[Slower()])
    assert history["learning_rate"] == pytest.approx([0.1, 0.1 * (1 - 9 / 10), 0.0])
