import gzip
import hashlib
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xpnet as xn
from xpnet.data.datasets import read_idx
from xpnet.data.datasets.files import TYPES
from xpnet.data.datasets.published import SETS
from xpnet.errors import DataError

PACKAGED = Path(xn.datasets.__file__).parent / "mnist"
MNIST = dict(zip(SETS["mnist"].files, SETS["mnist"].unpacked, strict=True))


def idx(array, code):
    """Return an IDX file's bytes."""
    head = bytes([0, 0, code, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return head + array.astype(TYPES[code]).tobytes()


# MNIST


def test_mnist_is_the_original():
    (images, labels), (test_images, test_labels) = xn.datasets.mnist()
    assert (images.shape, labels.shape) == ((60000, 28, 28), (60000,))
    assert (test_images.shape, test_labels.shape) == ((10000, 28, 28), (10000,))
    assert {a.dtype.name for a in (images, labels, test_images, test_labels)} == {"uint8"}
    assert np.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert (images.min(), images.max()) == (0, 255)
    assert images[0, 5].tolist() == [0] * 12 + [3, 18, 18, 18, 126, 136, 175, 26, 166, 255, 247, 127] + [0] * 4
    digest = hashlib.sha256(idx(images, 0x08)).hexdigest()
    assert digest == MNIST["train-images-idx3-ubyte"]
    assert images.flags.writeable


def test_mnist_from_a_folder_of_ones_own(tmp_path):
    with pytest.raises(DataError, match=r"^.*nowhere is no folder: MNIST is in the package, xn\.datasets\.mnist\(\)$"):
        xn.datasets.mnist(tmp_path / "nowhere")
    for name in MNIST:
        shutil.copy(PACKAGED / f"{name}.gz", tmp_path)
    assert xn.datasets.mnist(tmp_path)[1][1][0] == 7
    for name in reversed(MNIST):
        (tmp_path / f"{name}.gz").unlink()
        with pytest.raises(DataError, match=rf"^neither {name}\.gz nor {name} is in {tmp_path}: MNIST is in"):
            xn.datasets.mnist(str(tmp_path))


def test_mnist_notices_what_is_not_the_original(tmp_path):
    for name in MNIST:
        shutil.copy(PACKAGED / f"{name}.gz", tmp_path)
    path = tmp_path / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[8] = 6  # one label, in a sound file
    path.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(
        DataError, match=r"labels-idx1-ubyte\.gz is not the file of the original release \(its SHA-256 differs\)"
    ):
        xn.datasets.mnist(tmp_path)
    damaged = bytearray((PACKAGED / path.name).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(
        DataError, match=r"labels-idx1-ubyte\.gz is not (a sound IDX file|the file of the original release)"
    ):
        xn.datasets.mnist(tmp_path)


# IDX files


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3), (2, 1, 3, 2), (3, 0, 2)])
@pytest.mark.parametrize("code", TYPES)
def test_read_idx_reads_every_type_plain_and_gzipped(tmp_path, code, shape):
    array = np.random.default_rng(0).integers(-100, 100, shape).astype(TYPES[code])
    for name, content in (("plain", idx(array, code)), ("zipped", gzip.compress(idx(array, code)))):
        (tmp_path / name).write_bytes(content)
        for path in (tmp_path / name, str(tmp_path / name)):
            found = read_idx(path)
            assert found.dtype == np.dtype(TYPES[code]).newbyteorder("=")
            assert found.shape == shape
            assert np.array_equal(found, array)
            assert found.flags.writeable


def problem(tmp_path, content):
    """Return what read_idx says of these bytes, the same plain and gzipped."""
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_idx(path)
    message = str(caught.value)
    assert message.startswith(f"{path} is not a sound IDX file (")
    assert message.endswith("): fetch it again")
    return message.removeprefix(f"{path} is not a sound IDX file (").removesuffix("): fetch it again")


def test_a_file_that_is_no_idx_file_is_refused(tmp_path):
    good = idx(np.arange(6, dtype="u1").reshape(2, 3), 0x08)
    for head in (b"", b"\0", b"\1" + good[1:], b"\0\1" + good[2:], b"\0\0\7" + good[3:], b"\0\0\xff" + good[3:]):
        assert problem(tmp_path, head) == "the first four bytes are wrong"
    assert problem(tmp_path, good[:8]) == "it ends within its header"
    assert problem(tmp_path, good[:-1]) == "its header promises 18 bytes for the shape (2, 3), it has 17"
    assert problem(tmp_path, good + b"!") == "its header promises 18 bytes for the shape (2, 3), it has more"
    zipped = gzip.compress(good)
    for cut in (1, 4, 8, 12):
        assert problem(tmp_path, zipped[:-cut]) == "it is cut short, or longer than its header says"
    for much in (good + b"!", good + bytes(2000), good * 1000):
        assert problem(tmp_path, gzip.compress(much)) in (
            "it is cut short, or longer than its header says",
            "its header promises 18 bytes for the shape (2, 3), it has more",
        )
    for rest in (b"!", zipped):
        assert problem(tmp_path, zipped + rest) == "it is cut short, or longer than its header says"
    assert "its header promises 18 bytes" in problem(tmp_path, gzip.compress(good[:-1]))
    wrong_sum = zipped[:-5] + bytes([zipped[-5] ^ 1]) + zipped[-4:]
    assert "incorrect data check" in problem(tmp_path, wrong_sum)


@pytest.mark.posix
def test_a_folder_or_nothing_is_refused(tmp_path):
    with pytest.raises(DataError, match=rf"^cannot read {tmp_path}: Is a directory$"):
        read_idx(tmp_path)
    with pytest.raises(DataError, match=r"^cannot read .*: No such file or directory$"):
        read_idx(tmp_path / "nothing")


def peak_of(call, *args):
    """Return the most memory that Python and NumPy held during a call."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError):
            call(*args)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_promise_costs_no_memory(tmp_path):
    path = tmp_path / "file"
    promise = bytes([0, 0, 0x0E, 4]) + b"\xff" * 16 + bytes(100)  # 2¹³¹ bytes
    for content in (promise, gzip.compress(promise), bytes([0, 0, 8, 1, 0x40, 0, 0, 0]), gzip.compress(promise[:20])):
        path.write_bytes(content)
        assert peak_of(read_idx, path) < 2e6


def test_a_long_file_that_promises_little_is_not_read(tmp_path):
    with (tmp_path / "file").open("wb") as file:
        file.write(bytes([0, 0, 8, 1, 0, 0, 0, 5]))
        file.truncate(10**12)  # a hole: it takes no room
    with pytest.raises(xn.DataError, match=r"its header promises 13 bytes for the shape \(5,\), it has more"):
        xn.datasets.read_idx(tmp_path / "file")


def test_a_bomb_is_not_unpacked_further_than_its_header_says(tmp_path):
    path = tmp_path / "bomb"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 4, 0]) + bytes(50_000_000)))  # promises one kilobyte
    assert peak_of(read_idx, path) < 2e6


header = st.tuples(
    st.binary(max_size=2) | st.just(b"\0\0"),
    st.sampled_from([*TYPES, 0, 7, 255]),
    st.integers(0, 255) | st.integers(0, 4),
    st.lists(st.integers(0, 4) | st.integers(0, 2**32 - 1), max_size=70),
    st.binary(max_size=64),
).map(lambda t: t[0] + bytes(t[1:3]) + b"".join(n.to_bytes(4, "big") for n in t[3]) + t[4])


@settings(max_examples=400)
@given(header | st.binary(max_size=80), st.integers(0, 2), st.data())
def test_hostile_files_are_read_or_refused_and_nothing_else(tmp_path, content, kind, data):
    if kind:
        content = gzip.compress(content)
    if kind == 2:  # damage the gzip file itself
        k = data.draw(st.integers(2, len(content) - 1))
        content = content[:k] + bytes([content[k] ^ data.draw(st.integers(1, 255))]) + content[k + 1 :]
    path = tmp_path / "file"
    path.write_bytes(content)
    try:
        array = read_idx(path)
        message = ""
    except DataError as error:
        array, message = np.zeros(0), str(error)
    assert not message or message.startswith(f"{path} is not a sound IDX file (")
    assert isinstance(array, np.ndarray)
    assert array.nbytes <= 1000
