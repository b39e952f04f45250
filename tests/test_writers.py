"""Two writers and a reader of one file, interleaved call by call in an order that a seed decides.

`python -m benchmarks.trust` runs ten thousand orders; one that fails is named by its seed: `one(folder, seed)`.
"""

import io
import os
import random
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from xpnet.files import storage, writer

CALLS = ("fchmod", "fchown", "fstat", "fsync", "getxattr", "lstat", "open", "replace", "scandir", "stat", "unlink")
"""Those of `os` before which another may come."""
VERSIONS = ("first", "second", "third", "fourth", "before")


class Turns:
    """Lets one thread run at a time, from one `point()` to the next, as chance has it."""

    def __init__(self, seed):
        self.chance, self.back = random.Random(seed), threading.Semaphore(0)
        self.mine, self.weights, self.over, self.failed, self.points = {}, {}, set(), [], 0

    def point(self):
        """Let another run, if this is one of the threads."""
        if (mine := self.mine.get(threading.get_ident())) is not None:
            self.points += 1
            self.back.release()
            mine.acquire()

    def run(self, *works):
        """Do all works, each in a thread; what they raise is kept."""
        waiting = []
        for work in works:
            go = threading.Semaphore(0)
            thread = threading.Thread(target=self._do, args=(work, go), daemon=True)
            thread.start()
            self.mine[thread.ident], self.weights[thread] = go, self.chance.uniform(0.1, 1)  # some are slow
            waiting.append((thread, go))
        while waiting:
            one = self.chance.choices(waiting, [self.weights[thread] for thread, _ in waiting])[0]
            one[1].release()
            assert self.back.acquire(timeout=60), "a thread waits for another whose turn it is not"
            if one[0] in self.over:
                one[0].join()
                waiting.remove(one)

    def _do(self, work, go):
        go.acquire()
        try:
            work()
        except BaseException as error:
            self.failed.append(error)
        self.over.add(threading.current_thread())
        self.back.release()


class File:
    """An open file before each of whose calls another may come."""

    def __init__(self, file, point):
        self.file, self.point = file, point

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def __getattr__(self, name):
        if name in ("close", "flush", "read", "readinto", "seek", "write"):
            self.point()
        return getattr(self.file, name)


def no_thread(target, daemon):
    """Stand in for a thread that cannot start."""

    def start():
        raise RuntimeError("can't start new thread")

    return SimpleNamespace(start=start)


class Interleaved:
    """While active, the writer's and the reader's calls are points of `turns`."""

    def __init__(self, turns):
        self.turns = turns

    def __enter__(self):
        point, flock = self.turns.point, writer.fcntl.flock

        def before(function):
            return lambda *args, **more: (point(), function(*args, **more))[1]

        def opened(path):
            point()
            return File(io.FileIO(path), point)

        names = {"os": SimpleNamespace(**vars(os) | {name: before(getattr(os, name)) for name in CALLS})}
        names["fcntl"] = SimpleNamespace(**vars(writer.fcntl) | {"flock": before(flock)})
        names["open"] = lambda *args, **more: (point(), File(open(*args, **more), point))[1]  # noqa: SIM115
        self.before = writer.fcntl, storage.opened, storage.Thread
        vars(writer).update(names)
        storage.opened, storage.Thread = opened, no_thread
        return self

    def __exit__(self, *exception):
        writer.os, (writer.fcntl, storage.opened, storage.Thread) = os, self.before
        del writer.open


def encoded(version):
    """Return the pieces of a file of one version, which every array tells."""
    value = VERSIONS.index(version)
    arrays = {name: np.full(shape, value, dtype="float32") for name, shape in {"a": 5, "b": (2, 3), "m/a": 5}.items()}
    return [(place, bytes(piece)) for place, piece in storage.encode(version, arrays)]


PIECES = {version: encoded(version) for version in VERSIONS}


def old(path):
    os.utime(path, (time.time() - 10 * writer.STALE,) * 2)


def one(folder, seed):
    """Run two writers of two versions each and a reader in the order of a seed; return its points, and what was read.

    What a killed writer left lies about, and a writer may take so long that its part looks as if it were left.
    """
    turns, path, seen = Turns(seed), folder / "file", []
    for name in os.listdir(folder):
        os.unlink(folder / name)
    storage.write(path, PIECES["before"])
    (folder / "file.00000000.part").touch()
    old(folder / "file.00000000.part")
    dawdles = turns.chance.random() < 0.5

    def pieces(version):
        for k, piece in enumerate(PIECES[version]):
            if k == 1 and dawdles:
                for left in folder.glob("*.part"):
                    old(left)
            yield piece

    def write(*versions):
        for version in versions:
            storage.write(path, pieces(version))

    def read():
        for _ in range(12):
            text, arrays = storage.read(path)
            assert {float(value) for array in arrays.values() for value in array.flat} == {VERSIONS.index(text)}
            seen.append(text)

    with Interleaved(turns):
        turns.run(lambda: write("first", "second"), lambda: write("third", "fourth"), read)
    assert turns.failed == [], f"seed {seed}: {turns.failed}"
    assert storage.read(path)[0] in ("second", "fourth"), f"seed {seed}"
    assert os.listdir(folder) == ["file"], f"seed {seed}: {os.listdir(folder)}"
    return turns.points, tuple(seen)


def schedules(count, seed=0):
    """Run so many; return what was seen."""
    home = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=home) as folder:
        done = [one(Path(folder), seed + k) for k in range(count)]
    return {
        "schedules": count,
        "seeds": f"{seed}..{seed + count - 1}",
        "points": sum(points for points, _ in done),
        "reads": sum(len(seen) for _, seen in done),
        "different sights": len({seen for _, seen in done}),
        "torn or missing": 0,
    }


@pytest.mark.skipif(writer.fcntl is None, reason="Windows deletes and renames no open file")
def test_a_reader_sees_one_whole_version_in_whatever_order_two_writers_come():
    done = schedules(100)
    assert done["different sights"] > 20
    assert done["points"] > 100 * done["schedules"]
