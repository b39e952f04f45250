"""What several processes are asked to do by test_world.py: `mpiexec -n 2 python tests/ranks.py numpy OUT`.

Each case trains a small network and returns what must be the same on any number of ranks; the first rank writes them
all to OUT as JSON.
"""

import hashlib
import json
import sys
import warnings
from dataclasses import replace

import numpy as np

import xpnet as xn
from xpnet.world.mpi import MPIWorld

N, FEATURES, CLASSES = 206, 12, 4
rng = np.random.default_rng(0)
X = rng.standard_normal((N, FEATURES)).astype(np.float32)
Y = rng.integers(0, CLASSES, N)
WEIGHTS = rng.random(N).astype(np.float32)


class Watched:
    """A source that remembers which rows it was asked for while training."""

    def __init__(self):
        self.rows = []

    def __len__(self):
        return N

    def __getitem__(self, rows):
        self.rows += rows.tolist()
        return X[rows], Y[rows]


def network(*, norm=False, synchronized=False, drop=0.3):
    layers = [xn.Linear(FEATURES, 16), xn.ReLU(), xn.Dropout(drop), xn.Linear(16, CLASSES)]
    return xn.Sequential(*layers[:1], *([xn.BatchNorm(16, synchronized=synchronized)] if norm else []), *layers[1:])


def model(net=None, optimizer=None, **settings):
    settings = {"backend": BACKEND, "metrics": ["accuracy"], "world": "mpi", "seed": 5} | settings
    return xn.Model(net or network(), xn.cross_entropy, optimizer or xn.Adam(1e-2, weight_decay=1e-3), **settings)


def bits(trained):
    """Return the digest of all that training changes."""
    sha = hashlib.sha256(trained.backend.asnumpy(trained.theta).tobytes())
    for buffer in trained.buffers.values():
        sha.update(trained.backend.asnumpy(buffer).tobytes())
    return sha.hexdigest()


def outcome(trained, history):
    """Return the digest, the history without what a clock says, and numbers to compare by value."""
    home = trained.backend.asnumpy
    plain = {key: values for key, values in history.items() if key != "seconds"}
    theta = home(trained.theta).astype(np.float64)
    return {"bits": bits(trained), "history": plain, "theta": theta.tolist()}


def trained(*data, settings=None, **how):
    made = model(**settings or {})
    how = {"epochs": 2, "batch_size": 32, "progress": False} | how
    return outcome(made, made.fit(*data, **how))


def exact():
    """Same bits: dropout, BatchNorm, weights, metrics of all kinds, a short last batch with empty shards."""
    metrics = {"accuracy": xn.metrics.accuracy, "f1": xn.metrics.f1, "own": own}
    settings = {"net": network(norm=True), "shards": 8, "metrics": metrics}
    return trained(X[:189], Y[:189], settings=settings, validation=(X[189:], Y[189:]), sample_weight=WEIGHTS[:189])


def own(prediction, target, weights=None):
    """A metric of the user's own, which sees all predictions."""
    return (prediction * prediction).sum() / prediction.shape[0]


def exact_source():
    rows = xn.Rows(X, Y)
    return trained(rows, settings={"shards": 8, "frozen": ["0.bias"]}, accumulate=2, batch_size=20, validation=0.2)


def exact_double():
    return trained(X, Y, settings={"shards": 8, "dtype": "float64"}, class_weight="balanced")


def shares():
    """Sums in another order alone: uneven shares, and empty ones in the last batch of 2."""
    return trained(X[:194], Y[:194], settings={"dtype": "float64"}, validation=0.2)


def shares_weighed():
    weights = WEIGHTS * (np.arange(N) > 40)
    return trained(X, Y, settings={"dtype": "float64"}, sample_weight=weights, accumulate=3, batch_size=16)


def synchronized():
    net = network(norm=True, synchronized=True)
    settings = {"net": net, "dtype": "float64", "optimizer": xn.SGD(0.1, momentum=0.9)}
    return trained(X[:200], Y[:200], settings=settings, batch_size=25)


def own_rows():
    """Every rank reads its own rows, and none is read twice."""
    source = Watched()
    made = model()
    made.fit(source, epochs=1, batch_size=32, progress=False)
    looked = len(np.unique(np.linspace(0, N - 1, 256).astype(int)))
    rows = made.world.gather(source.rows[-(len(source.rows) - looked) :])
    every = [row for one in rows for row in one]
    return {"counts": [len(one) for one in rows], "all": sorted(every) == list(range(N))}


def loader():
    batches = [(X[k : k + 20], Y[k : k + 20]) for k in range(0, 200, 20)]
    return trained(batches, settings={"dtype": "float64"}, validation=batches[:3])


def nodes():
    """Ranks of two nodes, in shared memory within each and by messages between; and without shared memory."""
    world = xn.Model(network(), xn.cross_entropy, xn.SGD(0.1), world="mpi").world
    found = []
    if world.size % 2 == 0:
        apart = MPIWorld(world.comm, nodes=2)
        flat = MPIWorld(world.comm)
        flat.windows = None
        for one in (apart, flat):
            found.append(trained(X, Y, settings={"world": one, "shards": 8})["bits"])
    return [*found, trained(X, Y, settings={"shards": 8})["bits"]]


def stopped():
    """One rank asks to stop, and all do."""

    class Ask(xn.Callback):
        def on_epoch_end(self, trained, history):
            return trained.world.rank == trained.world.size - 1

    made = model()
    history = made.fit(X, Y, epochs=5, callbacks=[Ask()], progress=False)
    return made.world.gather((len(history["loss"]), history.stopped))


def called():
    """What shows or writes is called on the first rank alone."""
    calls = []

    class Note(xn.Callback):
        def on_epoch_end(self, trained, history):
            calls.append(type(self).__name__)

    class Show(Note):
        on_every_rank = False

    made = model()
    made.fit(X, Y, callbacks=[Show(), Note()], progress=False)
    return made.world.gather(calls)


def refused():
    """Return what is said of bad input, on every rank."""
    said = {}

    def refuse(name, attempt):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                attempt()
                text = "nothing"
            except Exception as error:
                text = f"{type(error).__name__}: {error}"
        said[name] = [text, *map(str, (one.message for one in caught))]

    size = model().world.size
    refuse("shards 6", lambda: model(shards=6))
    refuse("shards", lambda: model(shards=size // 2))
    refuse("labels", lambda: model().fit(X, Y + 2, progress=False))
    rank = model().world.rank
    refuse("seed", lambda: model(seed=rank).fit(X, Y, progress=False))
    refuse("data", lambda: model().fit(X + rank, Y, progress=False))
    refuse("rate", lambda: model(optimizer=xn.SGD(0.1 + rank)).fit(X, Y, progress=False))
    refuse("batch_size", lambda: model().fit(X, Y, batch_size=10 + rank, progress=False))
    refuse("batches", lambda: model().fit([(X[:20], Y[:20])] * (3 + rank), progress=False))
    refuse("one sample", lambda: model(network(norm=True)).fit(X[:6], Y[:6], batch_size=6, progress=False))
    other = {"net": network(norm=True, synchronized=True), "shards": 2 * size}
    refuse("synchronized", lambda: model(**other).fit(X, Y, progress=False))
    refuse("not finite", lambda: model(optimizer=xn.SGD(1e11)).fit(X, Y, batch_size=16, progress=False))
    made = model()
    refuse("small batches", lambda: made.fit(X[:9], Y[:9], batch_size=1, progress=False))
    every = made.world.gather(said)
    return {"said": said, "alike": all(one == said for one in every)}


def copied():
    """A copy trains with the same world."""
    import copy

    made = copy.deepcopy(model(shards=8))
    return {"size": made.world.size == model().world.size} | outcome(made, made.fit(X, Y, progress=False))


def kept():
    """A model that stands somewhere else on a rank is found."""
    made = model()
    if made.world.rank:
        made.step = replace(made.step, seed=9)
    try:
        made.fit(X, Y, progress=False)
    except xn.DataError as error:
        return str(error)
    return "nothing"


CASES = (
    exact, exact_source, exact_double, shares, shares_weighed, synchronized, own_rows, loader, nodes, stopped, called,
    refused, copied, kept,
)  # fmt: skip

if __name__ == "__main__":
    BACKEND, out, *wanted = sys.argv[1:]
    warnings.simplefilter("ignore")
    if BACKEND == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
    results = {case.__name__: case() for case in CASES if not wanted or case.__name__ in wanted}
    if model().world.rank == 0:
        with open(out, "w", encoding="utf-8") as file:
            json.dump(results, file)
