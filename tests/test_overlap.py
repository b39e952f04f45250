"""What a fit sets and puts back, where fits overlap: in threads, within each other, ended by an error.

The switch and numbers of threads have tests of their own: test_switch.py, test_openblas.py, test_cupy.py.
"""

import signal
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import xpnet as xn
from xpnet.backends import host, openblas

X, Y = np.random.default_rng(0).normal(size=(24, 3)).astype("float32"), np.arange(24) % 2


def classifier(nin=3):
    return xn.Model(xn.Sequential(xn.Linear(nin, 2)), xn.cross_entropy, xn.Adam(), backend="numpy")


def counts():
    return [pool.get() for pool in openblas.pools()]


def keeps_subnormals():
    with np.errstate(all="ignore"):
        return bool(np.float32(1e-30) * np.float32(1e-10) > 0)  # 1e-40, below the smallest normal number


def settings():
    """Return all that a fit sets and puts back."""
    return {
        "Ctrl-C": signal.getsignal(signal.SIGINT),
        "floating-point errors": np.geterr(),
        "subnormals": keeps_subnormals(),
        "threads of BLAS": counts(),
        "backend": xn.backend("auto").name,
    }


class At(xn.Callback):
    """Does something at the end of an epoch."""

    def __init__(self, act):
        self.act = act

    def on_epoch_end(self, model, history):
        self.act()


@pytest.fixture(autouse=True)
def set_so(monkeypatch):
    """Settings that are not the usual ones, so that what is put back can be told from what always is."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    with np.errstate(over="raise", invalid="print", divide="ignore", under="warn"):
        yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("ends", ["well", "by an error"])
def test_a_fit_within_a_fit_leaves_all_as_it_was(ends):
    before, between = settings(), []

    def inner():
        seen = settings()
        if ends == "well":
            classifier().fit(X, Y, epochs=2)
        else:
            with pytest.raises(ZeroDivisionError):
                classifier().fit(X, Y, callbacks=[At(lambda: 1 // 0)])
        between.append((seen, settings()))

    classifier().fit(X, Y, epochs=2, callbacks=[At(inner)])
    assert settings() == before
    assert len(between) == 2
    for first, second in between:
        assert first == second


def test_fits_that_overlap_in_threads_leave_each_its_settings():
    """In: the main thread, then another; out: the main thread, then the other."""
    before, inside, out = settings(), threading.Event(), threading.Event()

    def other():
        with np.errstate(over="warn", under="ignore", invalid="call"):
            mine = np.geterr()

            def stay():
                inside.set()
                assert out.wait(60)

            classifier().fit(X, Y, callbacks=[At(stay)])
            return mine == np.geterr(), signal.getsignal(signal.SIGINT) == before["Ctrl-C"]

    with ThreadPoolExecutor(1) as pool:
        jobs = []

        def begin():
            jobs.append(pool.submit(other))
            assert inside.wait(60)

        classifier().fit(X, Y, callbacks=[At(begin)])
        between = settings()
        out.set()
        assert jobs[0].result(timeout=60) == (True, True)
    assert between == settings() == before


def test_what_answers_ctrl_c_may_be_changed_while_training():
    def another(*_):
        pass

    classifier().fit(X, Y, callbacks=[At(lambda: signal.signal(signal.SIGINT, another))])
    assert signal.getsignal(signal.SIGINT) is another


def test_an_estimator_keeps_its_advice_to_itself_and_leaves_the_filters_of_warnings_alone():
    sklearn = pytest.importorskip("xpnet.interop.sklearn", reason="scikit-learn is not installed")
    raw, filters, seen = np.linspace(0, 255, 24 * 64).astype(np.uint8).reshape(24, 64), list(warnings.filters), []
    at = At(lambda: seen.append(list(warnings.filters)))
    settings = {"tol": 1e9, "n_iter_no_change": 1, "backend": "numpy", "callbacks": [at]}
    sklearn.MLPClassifier((4,), **settings).fit(raw, Y)
    assert seen == [filters] * len(seen) != []
    with pytest.warns(xn.DataWarning, match="holds raw bytes"):  # but to others it is told
        classifier(64).fit(raw, Y)


@pytest.mark.skipif(host._libm() is None, reason="subnormals are flushed on x86-64 with glibc alone")
def test_subnormals_are_flushed_in_the_thread_that_asks_alone():
    inside, out = threading.Event(), threading.Event()

    def other():
        with host.flushed():
            inside.set()
            assert out.wait(60)
            seen = keeps_subnormals()
        return seen, keeps_subnormals()

    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(other)
        assert inside.wait(60)
        assert keeps_subnormals()
        with host.flushed():
            assert not keeps_subnormals()
            with pytest.raises(ZeroDivisionError), host.flushed():
                raise ZeroDivisionError
            assert not keeps_subnormals()
        assert keeps_subnormals()
        out.set()
        assert job.result(timeout=60) == (False, True)
