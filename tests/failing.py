"""What goes wrong where ranks train together, case by case: `mpiexec -n 2 python tests/failing.py CASE FOLDER`.

`CASES` says of each what must be seen: `tests/test_world_failures.py` looks once, `benchmarks/world_failures.py` often.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

if __name__ == "__main__":
    sys.modules["numba"] = None  # what it compiles takes longer than all else here

import xpnet as xn
from xpnet.world import meeting

N, FEATURES, CLASSES, BATCH = 200, 4, 3, 32
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((N, FEATURES)).astype("float32"), RNG.integers(0, CLASSES, N)
STALL = 50.0
"""Seconds that a rank is away for: longer than a case may take."""


class Case(NamedTuple):
    """What ranks do, and what must come of it."""

    program: Callable[[Path], None]
    says: str
    """What stderr must hold, a regular expression; nothing where all ranks end well."""
    ranks: int = 2
    timeout: float = 60.0
    """XPNET_WORLD_TIMEOUT."""
    signal: int = 0
    """What mpiexec is sent once `FOLDER/ready` is there."""

    ends: bool = True
    """Whether it is said how: Open MPI's mpiexec passes no SIGINT on, it ends its ranks."""
    leaves: bool = False
    """Whether the part of a file may stay that a killed program was writing: the next ones sweep it up."""


CASES: dict[str, Case] = {}


def case(says: str = "", **more: Any) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Add what a rank does to the cases, by its name."""

    def add(program: Callable[[Path], None]) -> Callable[[Path], None]:
        CASES[program.__name__] = Case(program, says, **more)
        return program

    return add


class At(xn.Callback):
    """Does something after the second epoch, on one rank or on all."""

    def __init__(self, act: Callable[[xn.Model], object], rank: int | None = 1) -> None:
        self.act, self.rank = act, rank

    def on_epoch_end(self, model: xn.Model, history: xn.History) -> None:
        """Do it."""
        if len(history["loss"]) == 2 and rank(model) in (self.rank, rank(model) if self.rank is None else None):
            self.act(model)


def made(**settings: Any) -> xn.Model:
    """Return a model that all ranks train."""
    net = xn.Sequential(xn.Linear(FEATURES, 16), xn.ReLU(), xn.Dropout(0.2), xn.Linear(16, CLASSES))
    how = {"optimizer": xn.Adam(1e-2), "seed": 3, "backend": "numpy", "metrics": ["accuracy"]}
    return xn.Model(net, xn.cross_entropy, **how | settings)


def rank(model: xn.Model) -> int:
    """Return which of the ranks this is."""
    return model.step.world.rank


def trained(folder: Path, act: Callable[[xn.Model], object], on: int | None = 1, **settings: Any) -> xn.Model:
    """Train, writing checkpoints; one rank does something after the second epoch."""
    model = made()
    how = {"epochs": 6, "batch_size": BATCH, "checkpoint": folder / "run.xpn", "every": 2, "callbacks": [At(act, on)]}
    model.fit(X, Y, **how | settings)
    return model


def launched_as(number: int) -> bool:
    """Whether this is that rank, before MPI starts."""
    return str(number) in (os.environ.get("PMI_RANK"), os.environ.get("OMPI_COMM_WORLD_RANK"))


def fail(text: str, kind: type[Exception] = RuntimeError) -> Any:
    raise kind(text)


def me(number: int) -> Callable[[xn.Model], None]:
    """Return what sends a signal to this rank."""
    return lambda model: os.kill(os.getpid(), number)


# One rank fails: all end


@case(r"rank 1 ends all 2 ranks: it failed in fit: RuntimeError: enough of it")
def exception(folder: Path) -> None:
    trained(folder, lambda model: fail("enough of it"))


@case(r"rank 1 ends all 2 ranks: it failed in fit: ValueError: enough of it")
def exception_that_is_caught(folder: Path) -> None:
    """The other one says that it is sound: there is nothing to be patient for."""
    meeting.PATIENCE = STALL
    try:
        trained(folder, lambda model: fail("enough of it", ValueError))
    except ValueError:
        print("went on")


@case(r"rank 0 .* in fit: KeyError: 'mine'|rank 1 .* in fit: ValueError: mine")
def exceptions_that_differ(folder: Path) -> None:
    """Whoever handles them may not know both."""

    def differ(model: xn.Model) -> None:
        raise (ValueError if rank(model) else KeyError)("mine")

    try:
        trained(folder, differ, on=None)
    except (KeyError, ValueError):
        print("went on")


@case(r"rank 1 ends all 2 ranks: ValueError: no such file")
def exception_outside(folder: Path) -> None:
    model = made()
    if rank(model) == 1:
        raise ValueError("no such file")
    model.fit(X, Y)


@case(r"rank 1 ends all 2 ranks: ValueError: no such file")
def exception_after_fit(folder: Path) -> None:
    """The first rank writes the last checkpoint meanwhile."""
    _slow_files()
    if rank(trained(folder, lambda model: None, epochs=1)) == 1:
        raise ValueError("no such file")
    time.sleep(STALL)


@case(r"rank 1 ends all 2 ranks: ValueError: no such file")
def exception_before_the_model(folder: Path) -> None:
    """The others are where MPI starts."""
    if launched_as(1):
        raise ValueError("no such file")
    made()


@case(r"rank 0 ends all 2 ranks: rank 1 kept others waiting in the making of a model for 4 s", timeout=4.0)
def stall_before_the_model(folder: Path) -> None:
    from mpi4py import MPI

    if MPI.COMM_WORLD.rank == 1:
        time.sleep(STALL)
    made()


@case(r"Timeout \(0:00:04\)!\n|exiting improperly|without calling", timeout=4.0)
def sys_exit_before_the_model(folder: Path) -> None:
    """The others are where MPI starts."""
    if launched_as(1):
        sys.exit()
    made()


@case(r"rank 0 ends all 2 ranks: it failed in fit: .*CheckpointError: cannot write .*run.xpn")
def a_checkpoint_that_cannot_be_written(folder: Path) -> None:
    def bar(model: xn.Model) -> None:
        (folder / "run.xpn").unlink()
        (folder / "run.xpn").mkdir()

    trained(folder, bar, on=0)


@case(r"rank [01] ends all 2 ranks: it failed in fit: .*DataError: .*block 1 of the source")
def a_bad_row_on_one_rank(folder: Path) -> None:
    class Source:
        def __len__(self) -> int:
            return 2000

        def __getitem__(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return X[rows % N], np.where(rows == 1005, CLASSES, Y[rows % N])

    made().fit(Source(), batch_size=BATCH, epochs=3)


@case(r"rank 1 ends all 2 ranks: it failed in fit: SystemExit: 3")
def sys_exit(folder: Path) -> None:
    trained(folder, lambda model: sys.exit(3))


@case(r"rank 0 ends all 2 ranks: rank 1 ended its program while others wait for it in fit")
def sys_exit_outside(folder: Path) -> None:
    model = made()
    if rank(model) == 1:
        sys.exit()
    model.fit(X, Y)


@case(r"rank 0 ends all 2 ranks: rank 1 ended its program while others wait for it in evaluate")
def evaluate_on_one_rank(folder: Path) -> None:
    model = trained(folder, lambda model: None)
    if rank(model) == 0:
        model.evaluate(X, Y)


@case(r"rank 1 ends all 2 ranks: .*all ranks must do the same: rank 0 is in evaluate, rank 1 in fit")
def evaluate_in_a_callback_on_one_rank(folder: Path) -> None:
    trained(folder, lambda model: model.evaluate(X, Y), on=0)


@case(r"(?i)signal:? \(?9|killed")
def sigkill(folder: Path) -> None:
    trained(folder, me(signal.SIGKILL))


@case(r"(?i)signal:? \(?11|segmentation")
def sigsegv(folder: Path) -> None:
    trained(folder, me(signal.SIGSEGV))


@case(r"(?i)signal:? \(?15|terminated")
def sigterm(folder: Path) -> None:
    trained(folder, me(signal.SIGTERM))


@case(r"rank 1 ends all 2 ranks: it failed in fit: KeyboardInterrupt")
def two_sigints(folder: Path) -> None:
    def twice(model: xn.Model) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)

    trained(folder, twice)


@case(r"rank 0 ends all 3 ranks: rank 1 kept others waiting in fit for 4 s", timeout=4.0, ranks=3)
def stall(folder: Path) -> None:
    """Another one is late, but comes."""
    trained(folder, lambda model: time.sleep((0.0, STALL, 1.5)[rank(model)]), on=None)


@case(r"rank 0 ends all 2 ranks: rank 1 kept others waiting in fit for 4 s", timeout=4.0)
def sigstop(folder: Path) -> None:
    trained(folder, me(signal.SIGSTOP))


@case(r"rank 1 ends all 2 ranks: it failed in fit: RuntimeError: enough of it")
def exception_while_another_is_at_work(folder: Path) -> None:
    meeting.PATIENCE = 1.0
    trained(folder, lambda model: fail("enough of it") if rank(model) else time.sleep(STALL), on=None)


@case(r"rank 1 ends all 2 ranks: it failed in fit: RuntimeError: enough of it")
def exception_while_another_writes(folder: Path) -> None:
    """What is being written becomes whole."""
    _slow_files()
    trained(folder, lambda model: fail("enough of it"))


@case(r"(?i)signal:? \(?9|killed", leaves=True)
def sigkill_while_another_writes(folder: Path) -> None:
    def kill() -> None:
        while not list(folder.glob("*.part")):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGKILL)

    _slow_files()
    trained(folder, lambda model: threading.Thread(target=kill, daemon=True).start())


def _slow_files() -> None:
    """Make this process take its time for the disk."""
    sync = os.fsync

    def slow(handle: int) -> None:
        time.sleep(0.3)
        sync(handle)

    os.fsync = slow


# All fail, or stop: they go on


@case()
def sigint(folder: Path) -> None:
    """One of them is asked to stop: all do, and go on later."""
    model = trained(folder, me(signal.SIGINT))
    history = model.underway.history
    assert history.stopped == "Ctrl-C", history.stopped
    assert len(history["loss"]) == 2, history
    loaded = xn.load(folder / "run.xpn")
    assert loaded.resume(X, Y, callbacks=[At(print, None)])["loss"] == model.resume(X, Y, callbacks=[At(print)])["loss"]


@case(signal=signal.SIGINT, ends=False)
def sigint_to_mpiexec(folder: Path) -> None:
    """Its ranks are told, stop and go on."""

    def ready(model: xn.Model) -> None:
        (folder / "ready").touch()
        time.sleep(1.0)

    model = trained(folder, ready, epochs=4)
    assert model.underway.history.stopped == "Ctrl-C"
    model.resume(X, Y, callbacks=[At(print)])


def explode() -> None:
    made(optimizer=xn.SGD(1e11)).fit(1e9 * X, Y, epochs=9)


def raises(text: str, does: Callable[[], object], kind: type[Exception] = xn.DataError) -> None:
    """Assert that this rank, as all others, is told so."""
    told = "nothing"
    try:
        does()
    except kind as error:
        told = str(error)
    assert text in told, f"{text} was expected, got {told}"


def _same(model: xn.Model) -> None:
    """Assert that ranks hold the same bits, and can go on training."""
    model.fit(X, Y, batch_size=BATCH)
    assert len(set(model.step.world.gather(model.theta.tobytes()))) == 1


@case()
def other_settings(folder: Path) -> None:
    """Ranks that do not train the same are told so before the first step."""
    model = made()
    own = rank(model)
    x = X.copy()
    x[7, 1] += own
    raises("the data of rank 0 and of rank 1 differ", lambda: model.fit(x, Y))
    raises("the data of rank 0 and of rank 1 differ", lambda: model.evaluate(x, Y))
    raises("the data of rank 0 and of rank 1 differ", lambda: model.fit(X[own:], Y[own:], batch_size=BATCH))
    raises("the validation data of", lambda: model.fit(X, Y, validation=(x, Y)))
    raises("the validation data of", lambda: model.fit(X, Y, validation=(x, Y) if own else None))
    raises("batch_size of rank 0 and of rank 1 differ, 64 and 65", lambda: model.fit(X, Y, batch_size=64 + own))
    raises("epochs of rank 0 and of rank 1 differ, 1 and 2", lambda: model.fit(X, Y, epochs=1 + own))
    raises("the seed of rank 0 and of rank 1 differ, 0 and 1", lambda: made(seed=own).fit(X, Y))
    raises("the optimizer of rank 0", lambda: made(optimizer=xn.SGD(0.1 + own)).fit(X, Y))
    raises("the network of rank 0", lambda: xn.Model(xn.Linear(4, 3 + own), *_parts()).fit(X, Y))
    raises("the learning rate of rank 0", lambda: made(optimizer=xn.SGD(lambda t: 0.1 + own)).fit(X, Y))
    made(optimizer=xn.SGD(lambda t: 0.1)).fit(X, Y)
    assert model.epoch == 0
    raises("the optimizer of rank 0", lambda: trained(folder, lambda model: model.adjust(lr=0.5)))
    before = model.theta = model.theta + own
    raises("theta of rank 0", lambda: model.fit(X, Y))
    model.theta = before - own
    raises("all ranks must do the same", lambda: model.evaluate(X, Y) if own else model.fit(X, Y))
    _same(made())


def _parts() -> tuple[Any, ...]:
    return xn.cross_entropy, xn.SGD(0.1), 0, "numpy"


@case()
def errors_alike(folder: Path) -> None:
    """What is wrong on all of them can be handled, and training goes on."""
    model = made()
    own = rank(model)
    raises("labels", lambda: model.fit(X, Y + CLASSES))
    raises("first non-finite value in the output of layer", explode, xn.NonFiniteError)
    raises(f"rank {own}", lambda: trained(folder, lambda model: fail(f"rank {own}", KeyError), on=None), KeyError)
    raises("they must be as many", lambda: model.evaluate(X, Y[:7]), xn.ShapeError)

    def loader(*sizes: int) -> list[Any]:
        return [(X[:size], Y[:size]) for size in sizes]

    raises("all ranks must be given the same batches", lambda: model.fit(loader(16, 16, 16, 9 + own)))
    raises("all ranks must be given the same batches", lambda: model.fit(loader(*[16] * (4 + own))))
    caught = []

    def handle(model: xn.Model) -> None:
        raises("labels", lambda: model.evaluate(X, Y + CLASSES))
        caught.append(model.evaluate(X, Y))

    trained(folder, handle, on=None)
    assert len(set(map(str, model.step.world.gather(caught)))) == 1
    _same(model)


@case(r"rank 0 ends all 2 ranks: xpnet.errors.NonFiniteError: .*first non-finite value")
def an_error_alike_that_nobody_catches(folder: Path) -> None:
    explode()


if __name__ == "__main__":
    CASES[sys.argv[1]].program(Path(sys.argv[2]))
