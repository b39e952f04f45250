import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpnet.schedules import constant, cosine, one_cycle, rate, step_decay, warmup


def curve(schedule, steps):
    return [schedule(step) for step in range(steps)]


def test_values():
    assert curve(constant(0.1), 3) == [0.1] * 3
    assert curve(step_decay(1.0, every=2, factor=0.5), 6) == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    assert curve(cosine(1.0, steps=2, final=0.5), 5) == pytest.approx([1.0, 0.75, 0.5, 0.5, 0.5], rel=1e-15)
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
    assert repr(warmup(cosine(1e-3, steps=5), steps=2)) == "warmup(lr=cosine(lr=0.001, steps=5, final=0.0), steps=2)"


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
        (lambda: one_cycle(0.1, 5, start=0), "one_cycle: start must be a number above 0, got 0"),
        (lambda: one_cycle(0.1, 5, end=-2), "one_cycle: end must be a number above 0, got -2"),
    ],
)
def test_settings_are_checked_when_a_schedule_is_made(make, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        make()


def test_settings_are_kept_as_pythons_own():
    made = one_cycle(np.float32(0.5), np.int64(10), rise=np.array(0.25), start=2, end=np.float64(4))
    assert made == one_cycle(0.5, 10, 0.25, 2.0, 4.0)
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
