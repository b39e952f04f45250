"""Arrays and text in one file, without pickle: the safetensors format, with a checksum, written whole or not at all.

    8 bytes   the header's length, little-endian
    header    JSON: each array's type, shape and place; `__metadata__` holds a text and the checksum
    arrays    end to end

No code is ever taken from a file. (Format: https://huggingface.co/docs/safetensors)
"""

import glob
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.errors import CheckpointError

FORMAT = "xpnet 1"
TYPES = {"F32": "<f4", "F64": "<f8"}
NAMES = {np.dtype(code): name for name, code in TYPES.items()}
STALE = 600.0
"""Seconds after which a temporary file is one that a killed program left behind."""


def encode(description: str, arrays: dict[str, np.ndarray]) -> Iterator[tuple[int, Any]]:
    """Yield the file piece by piece, each with its place: room for the header, the arrays, and the header last.

    The checksum in the header is computed while the arrays are on their way to the disk.
    """
    from concurrent.futures import ThreadPoolExecutor  # slow to import, and needed here alone

    entries, pieces, place = {}, [], 0
    for name, array in arrays.items():
        dtype = array.dtype.newbyteorder("<")
        piece = np.ascontiguousarray(array, dtype).reshape(-1).view(np.uint8)
        offsets = [place, place + piece.size]
        entries[name] = {"dtype": NAMES[dtype], "shape": list(array.shape), "data_offsets": offsets}
        pieces.append(piece)
        place += piece.size
    with ThreadPoolExecutor(1) as pool:
        digest = pool.submit(_digest, description, entries, pieces)
        head = _head(description, entries, "0" * 64)
        yield 0, head
        for offset, piece in zip((entry["data_offsets"][0] for entry in entries.values()), pieces, strict=True):
            yield len(head) + offset, piece
        yield 0, _head(description, entries, digest.result())


def _head(description: str, entries: dict[str, Any], digest: str) -> bytes:
    """Return the header with its length before it."""
    about = {"format": FORMAT, "model": description, "sha256": digest}
    text = json.dumps(entries | {"__metadata__": about}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def decode(content: bytes) -> tuple[str, dict[str, np.ndarray]]:
    """Return description and arrays; ValueError unless every size, type, place and the checksum is right."""
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 + length or length < 2:
        raise ValueError("it is too short")
    try:
        header = json.loads(content[8 : 8 + length])
        about = header.pop("__metadata__")
        description, digest, kind = about["model"], about["sha256"], about["format"]
        entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"][0])
        arrays, pieces, place, body = {}, [], 0, memoryview(content)[8 + length :]
        for name, entry in entries:
            dtype, shape = np.dtype(TYPES[entry["dtype"]]), tuple(map(int, entry["shape"]))
            start, stop = entry["data_offsets"]
            if (
                start != place
                or stop - start != prod(shape) * dtype.itemsize
                or stop > len(body)
                or min(shape, default=1) < 0
            ):
                raise ValueError(f'"{name}" does not lie where its shape says')
            pieces.append(body[start:stop])
            arrays[name] = np.frombuffer(pieces[-1], dtype).reshape(shape)
            place = stop
        true = _digest(description, header, pieces)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError) as error:
        raise ValueError(f"its header is not as it should be ({type(error).__name__})") from None
    if kind != FORMAT:
        raise ValueError(f'its format is "{kind}", this version reads "{FORMAT}"')
    if place != len(body) or digest != true:
        raise ValueError("its checksum is wrong: it was damaged or changed")
    return description, arrays


def _digest(description: str, entries: dict[str, Any], pieces: Sequence[Any]) -> str:
    """Return the SHA-256 of description, entries and the SHA-256 of each array: arrays are hashed side by side."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        digests = list(pool.map(lambda piece: hashlib.sha256(piece).hexdigest(), pieces))
    return hashlib.sha256(json.dumps([description, entries, digests], sort_keys=True).encode()).hexdigest()


def write(path: Path, pieces: Iterable[tuple[int, Any]]) -> None:
    """Write all or nothing: until the new file is safe on the disk the old one stays. CheckpointError if that fails."""
    try:
        for left in path.parent.glob(f"{glob.escape(path.name)}.*.part"):
            if time.time() - left.stat().st_mtime > STALE:
                left.unlink(missing_ok=True)
        temporary = path.parent / f"{path.name}.{os.urandom(4).hex()}.part"
        try:
            with temporary.open("xb") as file:
                for place, piece in pieces:
                    file.seek(place)
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _flush(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}; what was there is untouched") from None


def _flush(folder: Path) -> None:
    """See to it that a rename survives a power cut, where a folder can be opened at all."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
