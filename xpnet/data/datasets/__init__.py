"""Data sets: MNIST, which travels inside the package, and the IDX files of your own.

Nothing here touches the network, and nothing is ever unpickled.
"""

import hashlib
import sys
import zlib
from math import prod
from os import PathLike
from pathlib import Path

import numpy as np

from xpnet.errors import DataError

__all__ = ["mnist", "read_idx"]

MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""The digest of each file of the original release, decompressed."""

IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

LONGEST_HEADER = 4 + 4 * 255

Split = tuple[np.ndarray, np.ndarray]


def mnist(folder: str | PathLike[str] | None = None) -> tuple[Split, Split]:
    """Return `(train_images, train_labels), (test_images, test_labels)` of the MNIST handwritten digits.

    Images uint8 (60000, 28, 28) and (10000, 28, 28), 0 is background and 255 is ink; labels uint8 (N,), 0..9.
    Each file's SHA-256 is checked against the original release (LeCun, Cortes & Burges, 1998; CC BY-SA 3.0).
    `folder` reads the four files `*-ubyte.gz` from elsewhere. DataError if one is missing, damaged or another.
    """
    from concurrent.futures import ThreadPoolExecutor  # slow to import, and needed here alone

    place = Path(folder) if folder is not None else Path(__file__).parent / "mnist"
    with ThreadPoolExecutor(len(MNIST_SHA256)) as pool:  # zlib and hashlib let other threads run
        files = pool.map(lambda name: _read(place / f"{name}.gz", MNIST_SHA256[name]), MNIST_SHA256)
        images, labels, test_images, test_labels = files
    return (images, labels), (test_images, test_labels)


def read_idx(path: str | PathLike[str]) -> np.ndarray:
    """Read an IDX file (the format of MNIST and its kin), plain or gzipped, as a NumPy array of the host's byte order.

    Two zero bytes, a type, the number of axes n, n big-endian 32-bit lengths, then the values, the last axis fastest
    (described on LeCun's MNIST page). DataError if the file cannot be read or is not exactly that.
    """
    return _read(Path(path))


def _read(path: Path, sha256: str | None = None) -> np.ndarray:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    try:
        if content[:2] == b"\x1f\x8b":
            gzip = zlib.decompressobj(wbits=31)
            head = gzip.decompress(content, LONGEST_HEADER)
            rest = min(max(_layout(head)[2] - len(head), 0) + 1, sys.maxsize)  # one byte more would be too long
            content = head + gzip.decompress(gzip.unconsumed_tail, rest)
            if not gzip.eof or gzip.unused_data:
                raise ValueError("it is cut short, or longer than its header says")
        dtype, shape, length = _layout(content)
        if len(content) != length:
            came = "more" if len(content) > length else str(len(content))
            raise ValueError(f"its header promises {length} bytes for the shape {shape}, it has {came}")
        values = np.ndarray(shape, dtype, content, length - prod(shape) * dtype.itemsize)
    except (zlib.error, ValueError) as error:
        raise DataError(f"{path} is not a sound IDX file ({error}): fetch it again") from None
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"{path} is not the file of the original release (its SHA-256 differs): install xpnet again")
    return values.astype(dtype.newbyteorder("="))


def _layout(content: bytes) -> tuple[np.dtype, tuple[int, ...], int]:
    """Return what the header promises: the type, the shape, and the length of the whole file in bytes."""
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in IDX_TYPES:
        raise ValueError("the first four bytes are wrong")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise ValueError("it ends within its header")
    dtype = np.dtype(IDX_TYPES[content[2]])
    shape = tuple(int.from_bytes(content[k : k + 4], "big") for k in range(4, start, 4))
    return dtype, shape, start + prod(shape) * dtype.itemsize
