"""What two ranks on the stand-in do for test_ranks.py: `mpiexec -n 2 python -m standin tests/standin/ranks.py OUT`.

Each rank is a process with a device of its own. The first one writes what all cases found to OUT, as JSON.
"""

import hashlib
import json
import os
import sys
import warnings
from contextlib import contextmanager

import numpy as np

import standin
import xpnet as xn
from standin import scenarios
from xpnet.backends.cuda import graph, nccl
from xpnet.data import stream

X, Y = scenarios.bytes_and_labels(65)
WEIGHTS = np.random.default_rng(1).random(65).astype(np.float32)
SUMS = []
"""Of each sum that was asked for, whether it was captured."""


def model(net=None, backend="cupy", **settings):
    settings = {"world": "mpi" if backend == "cupy" else "alone", "metrics": ["accuracy"], "seed": 3} | settings
    optimizer = settings.pop("optimizer", None) or xn.AdamW(1e-2)
    return xn.Model(net or scenarios.deep(0.3), xn.cross_entropy, optimizer, backend=backend, **settings)


def trained(*data, settings=None, **how):
    """Return how far θ is from NumPy's alone, the sums that were asked for, and what was warned of."""
    with warnings.catch_warnings(record=True) as came:
        warnings.simplefilter("always")
        made = model(**settings or {})
        SUMS.clear()
        how = {"epochs": 4, "batch_size": 16, "progress": False} | how
        made.fit(*data, **how)
    plain = model(backend="numpy", **settings or {})
    plain.fit(*data, **how)
    theta = scenarios.home(made)
    return {
        "bits": hashlib.sha256(theta.tobytes()).hexdigest(),
        "error": float(np.max(np.abs(theta - scenarios.home(plain))) / np.max(np.abs(theta))),
        "sums": [SUMS.count(False), SUMS.count(True)],
        "warnings": [str(one.message) for one in came],
    }


def way():
    """Begin, as the first step does; it tries a sum."""
    with warnings.catch_warnings(record=True) as came:
        warnings.simplefilter("always")
        found = [model().step.communicator is not None for _ in range(2)]
    return {"NCCL": found, "warnings": [str(one.message) for one in came]}


def whole():
    """Blocks of four batches, and one of a single row, which leaves a rank without any."""
    return trained(X, Y)


def many():
    """So many steps in a call that two of them warm up, to be forgotten."""
    return trained(X[:64], Y[:64], batch_size=4)


def weighed():
    """Statistics of BatchNorm are added up within the step."""
    net = xn.Sequential(xn.Scale(1 / 255), xn.Linear(6, 13), xn.BatchNorm(13, synchronized=True), xn.Linear(13, 5))
    return trained(X[:64], Y[:64], settings={"net": net, "optimizer": xn.SGD(0.1)}, sample_weight=WEIGHTS[:64])


def source():
    """Blocks of three batches of a source; a rank has its own rows of them alone, 4 or 5 of 9."""
    before, stream.BYTES = stream.BYTES, 9 * 3 * 10
    try:
        return trained(xn.Rows(X[:56], Y[:56]), batch_size=9)
    finally:
        stream.BYTES = before


def exact():
    return trained(X, Y, settings={"shards": 2}, epochs=2)


def refused():
    """A capture fails on the second rank, in the middle of a step."""
    own, rank = graph._run, model().world.rank

    def run(step, carry, fixed, rows):
        if rank == 1 and xn.backend("cupy").cupy.cuda.get_current_stream().is_capturing():
            own(step, carry, fixed, tuple(row[:2] for row in rows))
            raise RuntimeError("planted")
        return own(step, carry, fixed, rows)

    graph._run = run
    try:
        return trained(X, Y)
    finally:
        graph._run = own


def lost():
    """A rank has no graph any more, and the other one has; then the same without such a loss."""
    found, rank = [], model().world.rank
    for lossy in (True, False):
        made = model()
        SUMS.clear()
        made.fit(X, Y, epochs=2, batch_size=16, progress=False)
        if lossy and rank == 1:
            made.step.run.graphs.clear()
        made.fit(X, Y, epochs=2, batch_size=16, progress=False)
        bits = hashlib.sha256(scenarios.home(made).tobytes()).hexdigest()
        found.append([bits, SUMS.count(False), SUMS.count(True)])
    return found


def not_finite():
    """A row of the second rank is not finite: all ranks say so, and stay at the step before."""
    x = X.astype(np.float32)
    x[50] = np.float32(3e38)
    made = model(xn.Sequential(xn.Linear(6, 13), xn.ReLU(), xn.Linear(13, 5)), metrics=[])
    texts = []
    for _ in range(3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                made.fit(x, Y, epochs=1, batch_size=16, progress=False)
            except xn.NonFiniteError as error:
                texts.append(str(error))
    theta = scenarios.home(made)
    same = made.world.gather(hashlib.sha256(theta.tobytes()).hexdigest())
    return {"texts": texts, "finite": bool(np.isfinite(theta).all()), "same": len(set(same)) == 1}


@contextmanager
def environment(**settings):
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in settings:
            del os.environ[name]


def places():
    return model().world.gather(model().backend.spec)


def connected(made):
    with made.backend.working():
        return nccl.connect(made.backend, made.world)


def init_refused():
    """NCCL begins on one rank alone."""
    made = model()
    with environment(STANDIN_NCCL_SECONDS="1", STANDIN_NCCL_REFUSES="1"), warnings.catch_warnings(record=True) as came:
        warnings.simplefilter("always")
        found = connected(made)
    standin.misuses()
    return {"found": found is not None, "warnings": [str(one.message) for one in came]}


def misuse():
    """Ranks that ask for different sums, or not all of them, are told so."""
    made, said = model(), []
    backend, rank = made.backend, made.world.rank
    for kind in ("numbers", "type", "absent", "captured"):
        one = connected(made)
        if kind == "absent" and rank:
            made.world.gather(None)
            continue
        count, dtype = 3 + (kind == "numbers" and rank), "float64" if kind == "type" and rank else "float32"
        array = backend.asarray(np.ones(count, dtype))
        with (
            environment(STANDIN_NCCL_SECONDS="1"),
            backend.working(),
            backend.cupy.cuda.Stream(non_blocking=True) as own,
        ):
            backend.synchronize()
            if kind == "captured" and rank:
                own.begin_capture()
                one.add([array])
                own.end_capture().launch(own)
            else:
                (array,) = one.add([array])
            own.synchronize()
        nan = bool(np.isnan(backend.asnumpy(array)).all())
        said.append([kind, nan, *standin.misuses()])
        made.world.gather(None)
    return said


def main(out, *names):
    add = nccl.Communicator.add

    def noted(self, arrays):
        SUMS.append(bool(self.backend.cupy.cuda.get_current_stream().is_capturing()))
        return add(self, arrays)

    nccl.Communicator.add = noted
    world = model().world
    found = {name: globals()[name]() for name in names}
    every = world.gather(found)
    if world.rank == 0:
        with open(out, "w", encoding="utf-8") as file:
            json.dump(every, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
