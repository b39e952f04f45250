"""Training on two ranks that is killed within an epoch goes on with one, two or four, to the same bits."""

import json
import textwrap

import pytest
from launching import launched, mpiexec

pytestmark = pytest.mark.skipif(mpiexec() is None, reason="needs mpiexec and mpi4py")

PROGRAM = textwrap.dedent(
    """
    import hashlib, json, os, signal, sys
    sys.modules["numba"] = None
    import numpy as np
    import xpnet as xn

    path, backend, ranks, kill_at = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((501, 6)).astype("float32"), rng.integers(0, 3, 501)
    world = "mpi" if ranks > 1 else "alone"
    if os.path.exists(path):
        model = xn.load(path, backend, world=world)
        start, go_on = model.underway.position, model.resume
        how = {}
    else:
        net = xn.Sequential(xn.Linear(6, 16), xn.ReLU(), xn.Dropout(0.2), xn.Linear(16, 3))
        optimizer, how = xn.AdamW(xn.one_cycle(0.01, steps=80)), {"epochs": 3, "batch_size": 16}
        model = xn.Model(
            net, xn.cross_entropy, optimizer, backend=backend, metrics=["accuracy"], world=world, shards=8
        )
        start, go_on = 0, model.fit
    add, count = model.step.world.add, [0]

    def counted(parts, *lent):
        count[0] += 1
        if count[0] == kill_at and model.step.world.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return add(parts, *lent)

    model.step.world.add = counted
    history = go_on(xn.Rows(x, y, window=64), validation=100, checkpoint=path, every=3, **how)
    theta = hashlib.sha256(model.backend.asnumpy(model.theta).tobytes()).hexdigest()
    if model.step.world.rank == 0:
        print(json.dumps([start, theta, {key: values for key, values in history.items() if key != "seconds"}]))
    """
)


def run(path, backend, ranks, kill_at=0):
    """Return where a run began, the digest of θ and the history; None if it was killed."""
    ended = launched(["-c", PROGRAM, str(path), backend, str(ranks), str(kill_at)], ranks)
    assert bool(ended.code) == bool(kill_at), ended
    return None if kill_at else json.loads(ended.out)


def resumed(folder, backend, numbers):
    """Return for each number of ranks whether it goes on with a run of two to the bits of an uninterrupted one."""
    _, *whole = run(folder / "whole.xpn", backend, 1)
    cut = folder / "cut.xpn"
    run(cut, backend, 2, kill_at=40)
    same = {}
    for ranks in numbers:
        path = folder / f"{ranks}.xpn"
        path.write_bytes(cut.read_bytes())
        start, *found = run(path, backend, ranks)
        same[ranks] = start > 0 and found == whole
    return same


def test_a_killed_run_goes_on_with_any_number_of_ranks(tmp_path):
    assert resumed(tmp_path, "numpy", (1, 2, 4)) == {1: True, 2: True, 4: True}
    assert not list(tmp_path.glob("*.part"))
