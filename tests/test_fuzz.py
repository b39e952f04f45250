"""Random damage to checkpoints, weights, IDX files and descriptions, blind and by their structure.

Each gives one clean error or a sound result, in bounded memory and time.
"""

import gzip
import json
import os
import signal
import time
import warnings

import numpy as np
import pytest
from forking import in_child
from test_checkpoint_damage import parts, places, replaced, sealed
from test_long import pytestmark, resource

import xpnet as xn
from xpnet.errors import CheckpointError, DataError
from xpnet.files import description, storage

__all__ = ["pytestmark"]

ROOM = 256 << 20
"""Bytes of address space that a reader may take on top of what the process has."""
HANG = 1.0, 20
"""Seconds after which a reader counts as hanging: of the processor's time, and of the clock's."""
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

    one.fit(np.eye(3, dtype="float32"), [0, 1, 1], 2, 2, validation=1, callbacks=[Cut(patience=9)], progress=False)
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


def weights(folder):
    """Return a sound safetensors file's bytes, with types that only other programs write."""
    arrays = {"0.weight": np.ones((4, 3), "float32"), "0.bias": np.zeros(4), "1.scale": np.ones((2, 2, 2), "float32")}
    header, place, body = {"__metadata__": {"format": "pt"}}, 0, b""
    for name, kind, array in [
        *((name, "F64" if array.dtype == "float64" else "F32", array) for name, array in arrays.items()),
        ("2.half", "BF16", np.ones(6, "uint16")),
        ("2.flags", "BOOL", np.ones(5, "bool")),
        ("2.count", "I64", np.ones((), "int64")),
    ]:
        offsets = [place, place + array.nbytes]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": offsets}
        place, body = offsets[1], body + array.tobytes()
    return sealed_weights(header, body)


def sealed_weights(header, body):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def lied_weights(rng, content):
    """Return a safetensors file whose header says something else."""
    length = int.from_bytes(content[:8], "little")
    header, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    for _ in range(int(rng.integers(1, 4))):
        header = changed(rng, header)
    return sealed_weights(header, body[: int(rng.integers(len(body) + 1))] if rng.random() < 0.2 else body)


def changed(rng, data):
    """Return JSON data with one thing in it replaced, by something nasty or by what stands elsewhere in it."""
    paths = list(places(data))
    if not paths:
        return data
    value = NASTY[int(rng.integers(len(NASTY)))]
    if rng.random() < 0.4:
        value = data
        for key in paths[int(rng.integers(len(paths)))]:
            value = value[key]
    return replaced(data, paths[int(rng.integers(len(paths)))], value)


def lied_idx(rng, content):
    """Return an IDX file whose header promises something else, packed anew if it was packed."""
    packed = content[:2] == b"\x1f\x8b"
    plain = bytearray(gzip.decompress(content) if packed else content)
    for _ in range(int(rng.integers(1, 4))):
        kind = int(rng.integers(4))
        if kind == 0:
            plain[2] = (0x08, 0x09, 0x0B, 0x0C, 0x0D, 0x0E, int(rng.integers(256)))[int(rng.integers(7))]
        elif kind == 1:
            plain[3] = int(rng.choice([0, 1, 2, 3, 4, 255, int(rng.integers(256))]))
        elif kind == 2:
            at = 4 + 4 * int(rng.integers(max(plain[3], 1)))
            size = int(rng.choice([0, 1, 2, 2**16, 2**31 - 1, 2**31, 2**32 - 1, int(rng.integers(64))]))
            plain[at : at + 4] = size.to_bytes(4, "big")
        else:
            end = int(rng.integers(4, len(plain) + 1)) if len(plain) > 4 else 4
            plain = plain[:end] if rng.random() < 0.5 else plain + bytes(int(rng.integers(64)))
            plain += bytes(max(4 - len(plain), 0))
    return gzip.compress(bytes(plain), 1, mtime=0) if packed else bytes(plain)


def lied_description(rng, content):
    """Return a description, as JSON, that says something else."""
    data = json.loads(content)
    for _ in range(int(rng.integers(1, 4))):
        data = changed(rng, data)
    return json.dumps(data).encode()


def outcomes(folder, inputs, read, error):
    """Read the inputs; return how many were read, how many refused, and the longest time. Anything else raises."""
    path = folder / "input"
    done = {"inputs": 0, "read": 0, "refused": 0, "longest, s": 0.0}
    for content in inputs:
        path.write_bytes(content)
        signal.setitimer(signal.ITIMER_PROF, HANG[0])
        signal.alarm(HANG[1])
        began = time.process_time()
        try:
            read(path)
            done["read"] += 1
        except error as refusal:
            if len(str(refusal).splitlines()) != 1:
                raise AssertionError(f"not one line: {refusal}") from refusal
            done["refused"] += 1
        except Exception as wrong:
            raise AssertionError(f"{type(wrong).__name__}: {wrong}, for {content!r}") from wrong
        done["longest, s"] = max(done["longest, s"], round(time.process_time() - began, 3))
        done["inputs"] += 1
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.alarm(0)
    return done | {"most memory, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}


def describe(path):
    """Build what a description says; ValueError where it cannot be, as `xn.load` turns it."""
    try:
        description.from_data(json.loads(path.read_bytes()))
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as refusal:
        raise CheckpointError(str(refusal)) from None


def described(folder):
    """Return a sound description's bytes."""
    return json.dumps(parts(checkpoint(folder))[1]["net"]).encode()


def idx(folder):
    """Return sound IDX files' bytes in one list."""
    return idx_files()


KINDS = {
    "damaged": (checkpoint, damaged, lambda path: load(path), CheckpointError),
    "lied": (checkpoint, lied, lambda path: load(path), CheckpointError),
    "weights damaged": (weights, damaged, storage.tensors, ValueError),
    "weights lied": (weights, lied_weights, storage.tensors, ValueError),
    "IDX": (idx, damaged, xn.datasets.read_idx, DataError),
    "IDX lied": (idx, lied_idx, xn.datasets.read_idx, DataError),
    "descriptions": (described, lied_description, describe, CheckpointError),
}
"""Of each kind the sound files, what is done to them, what reads them, and the one error that is clean."""


def fuzz(folder, kind, count, seed=0):
    """Read so many damaged files of a kind in a process with little memory; return the outcomes."""
    folder = folder / kind.replace(" ", "-")
    folder.mkdir()
    make, change, read, error = KINDS[kind]
    sound = make(folder)
    sound = sound if isinstance(sound, list) else [sound]

    def go():
        rng = np.random.default_rng(seed)
        with open("/proc/self/statm", encoding="utf-8") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, resource.RLIM_INFINITY))
        warnings.simplefilter("ignore")
        inputs = (change(rng, sound[k % len(sound)]) for k in range(count))
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
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_give_clean_errors(tmp_path, kind):
    count = 700
    done = fuzz(tmp_path, kind, count)
    assert done["inputs"] == count
    assert done["refused"] > count // 2
    assert done["read"] > 0 or kind == "damaged"  # of these the checksum knows all but one in a thousand
    assert done["longest, s"] < HANG[0]
