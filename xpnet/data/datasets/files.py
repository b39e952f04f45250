"""IDX files, the format of MNIST and its kin: plain or gzipped, read without trust, and compared with a digest."""

import hashlib
import os
import sys
import zlib
from math import prod
from os import PathLike
from pathlib import Path

import numpy as np

from xpnet.errors import DataError

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

LONGEST_HEADER = 4 + 4 * 255
PACKED = b"\x1f\x8b"
"""How a gzip file begins."""


def read_idx(path: str | PathLike[str]) -> np.ndarray:
    """Read an IDX file (the format of MNIST and its kin), plain or gzipped, as a NumPy array of the host's byte order.

    Two zero bytes, a type, the number of axes n, n big-endian 32-bit lengths, then the values, the last axis fastest
    (described on LeCun's MNIST page). DataError if the file cannot be read or is not exactly that.
    """
    return read(Path(path))


def read(path: Path, unpacked: str = "", packed: str = "", remedy: str = "fetch it again") -> np.ndarray:
    """Read an IDX file whose decompressed content, or whose bytes as they are, have a digest, if one is given."""
    try:
        given = _given(path)
        content = _decompressed(given) if given[:2] == PACKED else given
        dtype, shape, length = _layout(content, len(content))
        values = np.ndarray(shape, dtype, content, length - prod(shape) * dtype.itemsize)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except (zlib.error, ValueError) as error:
        raise DataError(f"{path} is not a sound IDX file ({error}): {remedy}") from None
    for digest, these in ((unpacked, content), (packed, given)):
        kind = "md5" if len(digest) == 32 else "sha256"
        if digest and hashlib.new(kind, these, usedforsecurity=False).hexdigest() != digest:
            name = kind.upper().replace("SHA", "SHA-")
            raise DataError(f"{path} is not the file of the original release (its {name} differs): {remedy}")
    return values.astype(dtype.newbyteorder("="))


def _given(path: Path) -> bytes:
    """Return the bytes of a file; ValueError, before they are read, if a plain one has not the length it promises."""
    with open(path, "rb") as file:
        head = file.read(LONGEST_HEADER)
        if head[:2] != PACKED:
            _layout(head, max(os.fstat(file.fileno()).st_size, len(head)))
        file.seek(0)
        return file.read()


def _decompressed(given: bytes) -> bytes:
    """Return what a gzip file holds, and no more of it than its IDX header promises; ValueError or zlib.error."""
    gzip = zlib.decompressobj(wbits=31)
    head = gzip.decompress(given, LONGEST_HEADER)
    rest = min(max(_layout(head)[2] - len(head), 0) + 1, sys.maxsize)  # one byte more would be too long
    content = head + gzip.decompress(gzip.unconsumed_tail, rest)
    if not gzip.eof or gzip.unused_data:
        raise ValueError("it is cut short, or longer than its header says")
    return content


def _layout(content: bytes, has: int | None = None) -> tuple[np.dtype, tuple[int, ...], int]:
    """Return what the header promises: type, shape, and the whole file's length; ValueError if it `has` another."""
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in TYPES:
        raise ValueError("the first four bytes are wrong")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise ValueError("it ends within its header")
    dtype = np.dtype(TYPES[content[2]])
    shape = tuple(int.from_bytes(content[k : k + 4], "big") for k in range(4, start, 4))
    length = start + prod(shape) * dtype.itemsize
    if has is not None and has != length:
        came = "more" if has > length else str(has)
        raise ValueError(f"its header promises {length} bytes for the shape {shape}, it has {came}")
    return dtype, shape, length
