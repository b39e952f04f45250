"""Many steps, many saves, full disks, killed processes; `python -m benchmarks.trust` runs the long forms."""

import errno
import os
import signal
import stat
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from forking import in_child
from test_resume import data, model

import xpnet as xn
from xpnet.data import batches
from xpnet.files import storage

resource = pytest.importorskip("resource")
pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's /proc")


def resident():
    """Bytes of memory that this process holds."""
    with open("/proc/self/statm", encoding="utf-8") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def steps(count, epochs=20):
    """Train a tiny net for so many steps; return growth of memory and time per step, last tenth beside first.

    The time is the processor's, of the fastest epoch of each tenth: the machine may be busy with other things.
    """
    n = count // epochs
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 2)).astype("float32")
    y = (x @ np.asarray([[1.0], [-2.0]], dtype="float32")).astype("float32")
    tiny = xn.Model(xn.Sequential(xn.Linear(2, 1)), xn.mean_squared_error, xn.Adam(1e-4), backend="numpy")
    sizes, times = [], [time.process_time()]

    class Watch(xn.Callback):
        def on_epoch_end(self, model, history):
            sizes.append(resident())
            times.append(time.process_time())

    tiny.fit(x, y, epochs=epochs, batch_size=1, callbacks=[Watch()])
    assert tiny.state.t == n * epochs
    tenth, seconds = max(epochs // 10, 1), [1e6 * s / n for s in np.diff(times).tolist()]
    first, last = min(seconds[1 : 1 + tenth]), min(seconds[-tenth:])  # of epochs that nothing disturbed
    return {
        "steps": tiny.state.t,
        "memory growth, bytes": sizes[-1] - sizes[tenth],
        "µs per step, first tenth": round(first, 1),
        "µs per step, last tenth": round(last, 1),
        "last / first": round(last / first, 3),
    }


@pytest.mark.slow
def test_many_steps_take_no_more_memory_and_no_more_time():
    done = steps(20_000)
    assert done["memory growth, bytes"] < 4 << 20
    assert done["last / first"] < 3  # a machine may be busy; a list that grows would show


@pytest.mark.forks
def test_two_processes_saving_to_one_path_never_corrupt_it(tmp_path):
    path = tmp_path / "shared"
    models = []
    for value in (1.0, 2.0):
        one = model("numpy")
        one.theta = np.full(one.net.size, value, dtype="float32")
        models.append(one)
    models[0].save(path)
    children = [in_child(lambda one=one: [one.save(path) for _ in range(60)]) for one in models]
    seen, ended = set(), []
    while len(ended) < len(children):
        theta = xn.load(path).theta
        assert theta.min() == theta.max()
        seen.add(float(theta[0]))
        done = [os.waitpid(child, os.WNOHANG) for child in children if child not in dict(ended)]
        ended += [(child, status) for child, status in done if child]
    assert set(dict(ended).values()) == {0}
    assert seen <= {1.0, 2.0}
    assert os.listdir(tmp_path) == ["shared"]


def fill(kind, monkeypatch):
    """Make the disk full: as the system says it of a file's size, or when what was written is synced."""
    if kind == "size":
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))

        def undo():
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)

        return undo

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", full)
    return monkeypatch.undo


@pytest.mark.parametrize(("kind", "text"), [("size", "File too large"), ("sync", "No space left on device")])
def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path, monkeypatch, kind, text):
    path = tmp_path / "run"
    one = model("numpy")
    one.save(path)
    before = path.read_bytes()
    one.fit(*data(), epochs=1)
    undo = fill(kind, monkeypatch)
    try:
        with pytest.raises(xn.CheckpointError, match=f"cannot write {path}: {text}; what was there is untouched"):
            one.save(path)
    finally:
        undo()
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run"]
    one.save(path)
    assert np.array_equal(xn.load(path).theta, one.theta)


def test_what_is_renamed_is_on_the_disk_and_the_rename_too(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def sync(handle):
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else os.fstat(handle).st_size)
        fsync(handle)

    def rename(old, new):
        done.append("rename")
        replace(old, new)

    monkeypatch.setattr(storage.os, "fsync", sync)
    monkeypatch.setattr(storage.os, "replace", rename)
    storage.write(tmp_path / "file", [(0, b"all "), (4, b"of it")])
    assert done == [9, "rename", "folder"]


def test_two_writers_have_two_temporary_files(tmp_path, monkeypatch):
    names, replace = [], os.replace
    monkeypatch.setattr(storage.os, "replace", lambda old, new: (names.append(str(old)), replace(old, new)))
    for _ in range(2):
        storage.write(tmp_path / "file", [(0, b"a")])
    assert len(set(names)) == 2


def saving(numbers, repeats=3):
    """Save so many parameters with Adam's state; return the seconds, beside those of writing the same bytes synced."""
    side = round(numbers**0.5)
    one = xn.Model(xn.Linear(side, side, bias=False), xn.mean_squared_error, xn.Adam(), backend="numpy")
    saves, writes = [], []
    with tempfile.TemporaryDirectory() as folder:
        path, plain = Path(folder) / "saved", Path(folder) / "plain"
        for _ in range(repeats):
            began = time.perf_counter()
            one.save(path)
            saves.append(time.perf_counter() - began)
            content = path.read_bytes()
            began = time.perf_counter()
            with plain.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            writes.append(time.perf_counter() - began)
            plain.unlink()
    save, write = statistics.median(saves), statistics.median(writes)
    return {
        "parameters": one.net.size,
        "bytes": len(content),
        "save, s": round(save, 3),
        "same bytes with fsync, s": round(write, 3),
        "ratio": round(save / write, 2),
    }


class Staged:
    """In a child: at a chosen moment of a chosen save, say so through a pipe and wait to be killed."""

    def __init__(self, pipe, saves, moment):
        self.pipe, self.saves, self.moment = pipe, saves, moment
        self.write, self.fsync, self.replace = storage.write, os.fsync, os.replace
        storage.write, os.fsync, os.replace = self.on_write, self.on_fsync, self.on_replace

    def at(self, moment):
        if self.saves == 0 and self.moment == moment:
            os.write(self.pipe, b"s")
            time.sleep(60)

    def on_write(self, path, pieces):
        self.saves -= 1
        self.write(path, self.one_by_one(pieces))
        self.at("after")

    def one_by_one(self, pieces):
        for k, piece in enumerate(pieces):
            self.at("before" if k == 0 else "between" if k == 3 else None)
            yield piece

    def on_fsync(self, handle):
        folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        self.at("renamed" if folder else "unsynced")
        self.fsync(handle)

    def on_replace(self, old, new):
        self.at("synced")
        self.replace(old, new)


LOST = ("files corrupt", "runs with other bits", "links or modes lost", "parts left by others than the killed")
"""What `kills` counts, and none may be."""
MODE, UMASK = 0o640, os.umask(0)
os.umask(UMASK)
MOMENTS = ("before", "between", "unsynced", "synced", "renamed")


def kills(folder, count, a_run=20, epochs=60, seed=0, feed=lambda x, y: (x, y)):
    """Kill training processes, every second one while it saves, the others at any moment; return what was lost.

    They save by way of a link to a file elsewhere, whose mode is not the usual one.

    `feed(x, y)` makes of arrays what those processes are trained on.
    """
    x, y = data()
    whole = model("numpy")
    whole.fit(x, y, epochs=epochs, batch_size=4)
    rng = np.random.default_rng(seed)
    result = {"kills": 0, "while saving": 0, "runs": 0} | dict.fromkeys(LOST, 0)
    path, out, home = folder / "run", folder / "theta.npy", folder / "home"
    home.mkdir()
    path.symlink_to(home / "file")

    def go(pipe, saves, moment):
        if saves:
            Staged(pipe, saves, moment)
        batches.steps_per_call = lambda full, most: 5
        one = xn.load(path) if path.exists() else None
        if one is None:
            one = model("numpy")
            one.fit(*feed(x, y), epochs=epochs, batch_size=4, checkpoint=path, every=1)
        elif one.underway is not None:
            one.resume(*feed(x, y), checkpoint=path, every=1)
        np.save(out, one.theta)

    while result["kills"] < count:
        for left in home.iterdir():
            left.unlink()
        killed, moded = 0, False
        for k in range(min(a_run, count - result["kills"]) + 1):
            read, write = os.pipe()
            last, staged = k == min(a_run, count), k % 2 == 0
            saves = 0 if last or not staged else int(rng.integers(1, 8))
            moment = MOMENTS[int(rng.integers(len(MOMENTS)))]
            child = in_child(lambda pipe=write, saves=saves, moment=moment: go(pipe, saves, moment))
            os.close(write)
            last = last or k == a_run or result["kills"] == count
            if not last:
                if saves:
                    signalled = os.read(read, 1) == b"s"
                else:
                    signalled = False
                    time.sleep(rng.uniform(0.0, 0.06))
                os.kill(child, signal.SIGKILL)
            os.close(read)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if not last and status == -signal.SIGKILL:
                result["kills"] += 1
                result["while saving"] += signalled
                killed += 1
            elif status != 0:
                raise RuntimeError(f"the training process ended with {status}")
            result["links or modes lost"] += not path.is_symlink()
            result["parts left by others than the killed"] += len(list(home.glob("*.part"))) > killed
            if path.exists():
                result["links or modes lost"] += stat.S_IMODE(path.stat().st_mode) != (
                    MODE if moded else 0o666 & ~UMASK
                )
                path.chmod(MODE)
                moded = True
                try:
                    xn.load(path)
                except xn.CheckpointError:
                    result["files corrupt"] += 1
            if status == 0:
                break
        result["runs"] += 1
        result["runs with other bits"] += not np.array_equal(np.load(out), whole.theta)
        out.unlink()
    return result


@pytest.mark.slow
@pytest.mark.forks
@pytest.mark.parametrize("feed", [lambda x, y: (x, y), lambda x, y: (xn.Rows(x, y),)], ids=["arrays", "source"])
def test_killed_while_saving_at_every_moment(tmp_path, feed):
    done = kills(tmp_path, 14, a_run=14, feed=feed)
    assert done["kills"] == 14
    assert done["while saving"] >= 7
    assert [done[what] for what in LOST] == [0] * len(LOST)
