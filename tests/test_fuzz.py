"""Random damage to checkpoints and IDX files: one clean error or a sound result, in bounded memory and time."""

import gzip
import json
import os
import signal
import time
import warnings

import numpy as np
import pytest
from test_checkpoint_damage import parts, places, replaced, sealed
from test_long import in_child, pytestmark, resource

import xpnet as xn
from xpnet.errors import CheckpointError, DataError
from xpnet.files import storage

__all__ = ["pytestmark"]

ROOM = 256 << 20
"""Bytes of address space that a reader may take on top of what the process has."""
HANG = 5
"""Seconds after which a reader counts as hanging."""
NASTY = [
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    10**30,
    0.5,
    float("nan"),
    float("inf"),
    "",
    "x" * 10_000,
    [],
    [[]],
    {},
    [0] * 99,
]
NASTY += [{"is": name} for name in ("layers.Linear", "layers.Layer", "losses.huber", "parameters.draw", "os.system", 7)]
BYTES = [b"\0", b"\xff", b"\0" * 8, b"\xff" * 8, b"\x1f\x8b", b'"', b"[", b"{" * 50, (2**31).to_bytes(8, "little")]


def checkpoint(folder):
    """Return a sound checkpoint's bytes: a run under way, with a callback's state."""
    net = xn.Sequential(xn.Linear(3, 4, initializer="he"), xn.Residual(xn.Linear(4, 4), xn.Tanh()), xn.Dropout(0.1))
    one = xn.Model(net, xn.cross_entropy, xn.AdamW(xn.cosine(0.05, 40)), backend="numpy", metrics=["accuracy"])

    class Cut(xn.EarlyStopping):
        def on_epoch_end(self, model, history):
            super().on_epoch_end(model, history)
            model.save(folder / "sound")

    one.fit(np.eye(3, dtype="float32"), [0, 1, 1], 2, 2, validation=1, callbacks=[Cut(patience=9)])
    return (folder / "sound").read_bytes()


def idx_files():
    """Return sound IDX files' bytes, plain and gzipped."""
    files = []
    for code, values in (
        (8, np.arange(60, dtype="u1").reshape(3, 4, 5)),
        (14, np.arange(6, dtype=">f8").reshape(2, 3)),
    ):
        head = bytes([0, 0, code, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
        files += [head + values.tobytes(), gzip.compress(head + values.tobytes(), mtime=0)]
    return files


def damaged(rng, content):
    """Return the bytes with one to four changes: bits, cuts, repeats, exchanges, telling bytes."""
    for _ in range(int(rng.integers(1, 5))):
        size = max(len(content), 1)
        a, b = sorted(int(rng.integers(0, min(size, 64 if rng.random() < 0.3 else size) + 1)) for _ in range(2))
        kind = int(rng.integers(6))
        if kind == 0 and a < len(content):
            content = content[:a] + bytes([content[a] ^ (1 << int(rng.integers(8)))]) + content[a + 1 :]
        elif kind == 1:
            content = content[:a] + content[b:]
        elif kind == 2:
            content = content[:b] + content[a:b] * int(rng.integers(1, 4)) + content[b:]
        elif kind == 3:
            content = content[:a] + BYTES[int(rng.integers(len(BYTES)))] + content[a:]
        elif kind == 4:
            more = BYTES[int(rng.integers(len(BYTES)))]
            content = content[:a] + more + content[a + len(more) :]
        else:
            content = content[:a]
    return content


def lied(rng, content):
    """Return a checkpoint that says something else, its checksum right: made on purpose."""
    header, description, body = parts(content)
    about = header.pop("__metadata__")
    for _ in range(int(rng.integers(1, 3))):
        here = header if rng.random() < 0.3 else description
        paths = list(places(here))
        path = paths[int(rng.integers(len(paths)))]
        value = NASTY[int(rng.integers(len(NASTY)))]
        if rng.random() < 0.3:  # what stands elsewhere in the file
            value = here
            for key in paths[int(rng.integers(len(paths)))]:
                value = value[key]
        if here is header:
            header = replaced(header, path, value)
        else:
            description = replaced(description, path, value)
        if not (isinstance(header, dict) and header and isinstance(description, dict) and description):
            break
    header = header if isinstance(header, dict) else {}
    return sealed({**header, "__metadata__": about}, description, body)


def outcomes(folder, inputs, read, error):
    """Read the inputs; return how many were read, how many refused, and the longest time. Anything else raises."""
    path = folder / "input"
    done = {"inputs": 0, "read": 0, "refused": 0, "longest, s": 0.0}
    for content in inputs:
        path.write_bytes(content)
        signal.alarm(HANG)
        began = time.perf_counter()
        try:
            read(path)
            done["read"] += 1
        except error as refusal:
            if len(str(refusal).splitlines()) != 1:
                raise AssertionError(f"not one line: {refusal}") from refusal
            done["refused"] += 1
        except Exception as wrong:
            raise AssertionError(f"{type(wrong).__name__}: {wrong}, for {content!r}") from wrong
        done["longest, s"] = max(done["longest, s"], round(time.perf_counter() - began, 3))
        done["inputs"] += 1
    signal.alarm(0)
    return done


def fuzz(folder, kind, count, seed=0):
    """Read so many damaged files of a kind in a process with little memory; return the outcomes."""
    folder = folder / kind
    folder.mkdir()
    sound = checkpoint(folder) if kind != "IDX" else b""
    files = idx_files()

    def go():
        rng = np.random.default_rng(seed)
        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, resource.RLIM_INFINITY))
        warnings.simplefilter("ignore")
        read, error = (xn.datasets.read_idx, DataError) if kind == "IDX" else (load, CheckpointError)
        if kind == "IDX":
            inputs = (damaged(rng, files[k % len(files)]) for k in range(count))
        else:
            change = damaged if kind == "damaged" else lied
            inputs = (change(rng, sound) for _ in range(count))
        (folder / "done").write_text(json.dumps(outcomes(folder, inputs, read, error)))

    status = os.waitstatus_to_exitcode(os.waitpid(in_child(go), 0)[1])
    assert status == 0, f"the reader ended with {status}"
    return json.loads((folder / "done").read_text())


def load(path):
    try:
        storage.read(path)
    except ValueError as refusal:
        if len(str(refusal).splitlines()) != 1:
            raise AssertionError(f"not one line: {refusal}") from refusal
    return xn.load(path, backend="numpy")


@pytest.mark.forks
@pytest.mark.parametrize(("kind", "count"), [("damaged", 1500), ("lied", 700), ("IDX", 2000)])
def test_damaged_files_give_clean_errors(tmp_path, kind, count):
    done = fuzz(tmp_path, kind, count)
    assert done["inputs"] == count
    assert done["refused"] > count // 2
    assert done["longest, s"] < 2
