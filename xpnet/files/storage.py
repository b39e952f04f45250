"""Arrays and text in one file, without pickle: the safetensors format, with a checksum, written whole or not at all.

    8 bytes   the header's length, little-endian
    header    JSON: each array's type, shape and place; `__metadata__` holds a text and the checksum
    arrays    end to end

No code is ever taken from a file. (Format: https://huggingface.co/docs/safetensors)
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate, groupby
from math import prod
from queue import SimpleQueue
from threading import Thread
from typing import IO, Any, NamedTuple

import numpy as np

from xpnet.errors import CheckpointError
from xpnet.files.looks import WEIGHTS, looks_like, opened
from xpnet.files.writer import PATH, check, write, write_text

__all__ = ["check", "encode", "joined", "plain", "read", "tensors", "write", "write_text"]

FORMAT = "xpnet 1"
TYPES = {"F32": "<f4", "F64": "<f8"}
MORE = {"BF16": "<u2", "F16": "<f2", "BOOL": "?", "C64": "<c8"} | {
    f"{kind.upper()}{8 * size}": f"<{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)
}
"""Types that other programs' files may have; bfloat16 is the upper half of float32."""
NAMES = {np.dtype(code): name for name, code in TYPES.items()}
LIMIT = 100_000_000
"""Bytes that a header may have, in xpnet and in the safetensors library."""
BLOCK = 1 << 22
"""Bytes that are read at a time."""
DAMAGED = "its checksum is wrong: it was damaged or changed"


class Entry(NamedTuple):
    """What the header says of an array."""

    name: str
    dtype: "np.dtype[Any]"
    shape: tuple[int, ...]
    size: int
    """In bytes."""


# Writing


def encode(description: str, arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[int, Any]]:
    """Yield the file piece by piece, each with its place: room for the header, the arrays, and the header last.

    The checksum in the header is computed while the arrays are on their way to the disk.
    """
    entries, pieces = _laid_out(arrays)
    hashes = [hashlib.sha256() for _ in pieces]
    with _hashing() as update:
        for one, piece in zip(hashes, pieces, strict=True):
            update(one, piece)
        head = _head(entries, {"format": FORMAT, "model": description, "sha256": "0" * 64})
        yield 0, head
        yield from _placed(head, entries, pieces)
    digest = _digest(description, entries, [one.hexdigest() for one in hashes])
    yield 0, _head(entries, {"format": FORMAT, "model": description, "sha256": digest})


def plain(arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[int, Any]]:
    """Yield a file of arrays alone, for other programs."""
    entries, pieces = _laid_out(arrays)
    head = _head(entries, None)
    yield 0, head
    yield from _placed(head, entries, pieces)


def _laid_out(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Return what the header says of each array, and their bytes, end to end."""
    entries, pieces, place = {}, [], 0
    for name, array in arrays.items():
        dtype = array.dtype.newbyteorder("<")
        if dtype not in NAMES:
            raise CheckpointError(f'arrays are saved as float32 or float64, but "{name}" is {array.dtype}')
        piece = np.ascontiguousarray(array, dtype).reshape(-1).view(np.uint8)
        offsets = [place, place + piece.size]
        entries[name] = {"dtype": NAMES[dtype], "shape": list(array.shape), "data_offsets": offsets}
        pieces.append(piece)
        place += piece.size
    return entries, pieces


def _placed(head: bytes, entries: Mapping[str, Any], pieces: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    for entry, piece in zip(entries.values(), pieces, strict=True):
        yield len(head) + entry["data_offsets"][0], piece


def _head(entries: Mapping[str, Any], about: Mapping[str, str] | None) -> bytes:
    """Return the header with its length before it."""
    text = json.dumps(entries if about is None else {**entries, "__metadata__": about}).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > LIMIT:
        raise CheckpointError(f"the description takes {len(text)} bytes, a file has room for {LIMIT}")
    return len(text).to_bytes(8, "little") + text


def _digest(description: str, entries: Mapping[str, Any], digests: Sequence[str]) -> str:
    """Return the SHA-256 of description, entries and the SHA-256 of each array."""
    return hashlib.sha256(json.dumps([description, entries, digests], sort_keys=True).encode()).hexdigest()


@contextmanager
def _hashing() -> Iterator[Callable[[Any, Any], None]]:
    """Yield `update(hash, block)`: done in turn by a thread beside this one, or at once where no thread can start."""
    waiting: SimpleQueue[Any] = SimpleQueue()

    def work() -> None:
        for one, block in iter(waiting.get, None):
            one.update(block)

    thread = Thread(target=work, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        yield lambda one, block: one.update(block)
        return
    try:
        yield lambda one, block: waiting.put((one, block))
    finally:
        waiting.put(None)
        thread.join()


# Reading


def read(path: PATH) -> tuple[str, dict[str, np.ndarray]]:
    """Return a file's description and arrays; ValueError unless every size, type, place and the checksum is right.

    The header is checked against the file's size before anything else is read. Each array is read once, into memory
    of its own; arrays of one type that share what stands before a "/" in their names lie end to end: see `joined`.
    """
    with opened(path) as file:
        return _read(file, os.fstat(file.fileno()).st_size)


def tensors(path: PATH) -> dict[str, np.ndarray]:
    """Return the arrays of any program's safetensors file, bfloat16 as float32; ValueError if it is not sound."""
    with opened(path) as file:
        header, room = _header(file, os.fstat(file.fileno()).st_size)
        if _foreign(header):
            header.pop("__metadata__", None)
        else:
            raise ValueError("it is a checkpoint of xpnet's: read it with xn.load")
        with _understood():
            others = [f'"{name}" is {e["dtype"]}' for name, e in header.items() if e["dtype"] not in TYPES | MORE]
        if others:
            raise ValueError(f"NumPy has not all of its types: {', '.join(others)}")
        with _understood():
            entries = _entries(header, room, TYPES | MORE)
        if sum(entry.size for entry in entries) != room:
            raise ValueError("there is more in it than its header says")
        arrays, _ = _arrays(file, entries)
    short = [name for name in arrays if header[name]["dtype"] == "BF16"]
    return arrays | {name: (arrays[name].astype(np.uint32) << 16).view(np.float32) for name in short}


def joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return arrays end to end as one vector: without a copy, if they lie so in memory, as those of `read` do."""
    if not arrays:
        return np.zeros(0)
    first, whole = arrays[0], arrays[0].base
    places = accumulate((array.nbytes for array in arrays), initial=first.ctypes.data)
    if (
        not isinstance(whole, np.ndarray)
        or whole.dtype != np.uint8
        or not all(
            array.base is whole
            and array.dtype == first.dtype
            and array.flags.c_contiguous
            and array.ctypes.data == place
            for array, place in zip(arrays, places, strict=False)
        )
    ):
        return np.concatenate([array.reshape(-1) for array in arrays])
    start = first.ctypes.data - whole.ctypes.data
    return whole[start : start + sum(array.nbytes for array in arrays)].view(first.dtype)


def _read(file: IO[bytes] | io.RawIOBase, size: int) -> tuple[str, dict[str, np.ndarray]]:
    header, room = _header(file, size)
    if _foreign(header):
        raise ValueError(f"it is a safetensors file without a description of xpnet's: {WEIGHTS}")
    with _understood():
        about = header.pop("__metadata__")
        description, digest, kind = about["model"], about["sha256"], about["format"]
        entries = _entries(header, room, TYPES)
    if kind != FORMAT:
        raise ValueError(f'its format is "{kind}", this version reads "{FORMAT}"')
    if sum(entry.size for entry in entries) != room:
        raise ValueError(DAMAGED)
    arrays, digests = _arrays(file, entries)
    if digest != _digest(description, header, digests):
        raise ValueError(DAMAGED)
    return description, arrays


@contextmanager
def _understood() -> Iterator[None]:
    """Turn the errors of code that reads a header which is not as it expects."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"its header is not as it should be ({type(error).__name__})") from None


def _header(file: IO[bytes] | io.RawIOBase, size: int) -> tuple[dict[str, Any], int]:
    """Return the header and how many bytes follow it; ValueError says what the file looks like, if it has none."""
    head = file.read(8) or b""
    length = int.from_bytes(head, "little")
    if not 2 <= length <= size - 8:
        raise ValueError(looks_like(head + (file.read(500) or b"")))
    if length > LIMIT:
        raise ValueError(f"its header has {length} bytes, more than {LIMIT}")
    with _understood():
        header = json.loads(file.read(length) or b"")
        if not isinstance(header, dict):
            raise TypeError
    return header, size - 8 - length


def _foreign(header: Mapping[str, Any]) -> bool:
    """Whether it is the header of another program's safetensors file."""
    arrays = [entry for name, entry in header.items() if name != "__metadata__"]
    about = header.get("__metadata__", {})
    theirs = isinstance(about, dict) and not {"model", "sha256"} & set(about)
    return theirs and all(
        isinstance(entry, dict) and {"dtype", "shape", "data_offsets"} <= set(entry) for entry in arrays
    )


def _entries(header: Mapping[str, Any], room: int, types: Mapping[str, str]) -> list[Entry]:
    """Return what the header says of the arrays, in their order; ValueError if they do not lie end to end, in room."""
    entries, place = [], 0
    for name, entry in sorted(
        header.items(), key=lambda item: (item[1]["data_offsets"][0], item[1]["data_offsets"][1])
    ):
        dtype, shape = np.dtype(types[entry["dtype"]]), tuple(map(int, entry["shape"]))
        size = prod(shape) * dtype.itemsize
        if min(shape, default=1) < 0 or entry["data_offsets"] != [place, place + size] or place + size > room:
            raise ValueError(f'"{name}" does not lie where its shape says')
        entries.append(Entry(name, dtype, shape, size))
        place += size
    return entries


def _arrays(file: IO[bytes] | io.RawIOBase, entries: Sequence[Entry]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Read the arrays, those of one vector into one piece of memory; return them, and the SHA-256 of each."""
    arrays, hashes = {}, []
    with _hashing() as update:
        for _, group in groupby(entries, lambda entry: (entry.name.rpartition("/")[0], entry.dtype)):
            vector = list(group)
            rest = np.empty(sum(entry.size for entry in vector), np.uint8)
            for entry in vector:
                mine, rest, one = rest[: entry.size], rest[entry.size :], hashlib.sha256()
                arrays[entry.name] = mine.view(entry.dtype).reshape(entry.shape)
                hashes.append(one)
                for block in _blocks(file, mine.data):
                    update(one, block)
    return arrays, [one.hexdigest() for one in hashes]


def _blocks(file: Any, memory: memoryview) -> Iterator[memoryview]:
    """Read from a file until the memory is full, yielding what came each time."""
    while memory:
        count = file.readinto(memory[:BLOCK])
        if not count:
            raise ValueError("it was changed while it was read")
        yield memory[:count]
        memory = memory[count:]
