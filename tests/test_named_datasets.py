"""The digits in the package, points made on the spot, and published data sets in a folder of one's own."""

import gzip
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import xpnet as xn
from xpnet.data.datasets.published import KINDS, SETS
from xpnet.errors import DataError

PACKAGED = Path(xn.datasets.__file__).parent


def content(array):
    """Return an IDX file's bytes."""
    head = bytes([0, 0, {"uint8": 8, "int8": 9}[array.dtype.name], array.ndim])
    return head + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


# Digits


def test_digits_are_scikit_learns():
    images, labels = xn.datasets.digits()
    assert (images.shape, images.dtype, labels.shape, labels.dtype) == ((1797, 8, 8), np.uint8, (1797,), np.uint8)
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (images.min(), images.max(), images.flags.writeable) == (0, 16, True)
    assert images[0, 1].tolist() == [0, 0, 13, 15, 10, 15, 5, 0]
    theirs = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed").load_digits()
    assert np.array_equal(images, theirs.images)
    assert np.array_equal(labels, theirs.target)


def test_digits_say_where_they_are_from():
    text = (PACKAGED / "digits" / "README.md").read_text(encoding="utf-8")
    assert "CC BY 4.0" in text
    assert "Alpaydin" in text
    assert "Alpaydin" in xn.datasets.digits.__doc__


# Points


@pytest.mark.parametrize("classes", [2, 3])
def test_spirals_lie_on_their_spirals(classes):
    x, labels = xn.datasets.spirals(300, classes, noise=0)
    assert (x.shape, x.dtype, labels.tolist()) == ((300, 2), np.float32, [k % classes for k in range(300)])
    r = np.hypot(x[:, 0], x[:, 1])
    assert 0.02 <= r.min() ** 2 < 0.05 < 0.95 < r.max() ** 2 <= 1.0
    angle = 3 * np.pi * r + 2 * np.pi * labels / classes
    assert np.allclose(x, np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1), atol=1e-5)


def test_moons_lie_on_two_half_circles():
    x, labels = xn.datasets.moons(400, noise=0)
    assert (x.shape, x.dtype, labels.tolist()) == ((400, 2), np.float32, [0, 1] * 200)
    upper, lower = x[labels == 0], x[labels == 1]
    assert np.allclose(np.hypot(upper[:, 0], upper[:, 1]), 1, atol=1e-6)
    assert np.allclose(np.hypot(lower[:, 0] - 1, lower[:, 1] - 0.5), 1, atol=1e-6)
    assert 0 <= upper[:, 1].min() < 0.05
    assert 0.45 < lower[:, 1].max() <= 0.5


@pytest.mark.parametrize("make", [xn.datasets.spirals, xn.datasets.moons], ids=["spirals", "moons"])
def test_points_are_the_seeds_and_the_noise_is_as_told(make):
    x, _ = make(4000, seed=3, noise=0.05)
    assert np.array_equal(x, make(4000, seed=3, noise=0.05)[0])
    assert not np.allclose(x, make(4000, seed=4, noise=0.05)[0], atol=0.1)
    assert np.std(x - make(4000, seed=3, noise=0)[0]) == pytest.approx(0.05, rel=0.05)
    who = make.__name__
    for wrong, text in (
        ({"n": 0}, f"{who}: n must be an integer of at least 1, got 0"),
        ({"n": 2.5}, f"{who}: n must be an integer of at least 1, got 2.5"),
        ({"n": 5, "noise": -1}, f"{who}: noise must be a number of at least 0, got -1"),
        ({"n": 5, "seed": -1}, "seed must be an integer in 0..2**64-1, got -1"),
    ):
        with pytest.raises(ValueError, match=f"^{text.replace('*', '[*]')}$"):
            make(**wrong)


def test_what_points_a_seed_gives_does_not_change():
    x, _ = xn.datasets.spirals(3)
    assert np.allclose(x, SPIRALS, atol=1e-6)
    x, _ = xn.datasets.moons(3)
    assert np.allclose(x, MOONS, atol=1e-6)


SPIRALS = [
    [0.35376134514808655, -0.4481683373451233],
    [-0.23359674215316772, -0.7635105848312378],
    [0.447293221950531, 0.6283608078956604],
]
MOONS = [
    [-0.39142870903015137, 0.9182784557342529],
    [2.0286903381347656, 0.11387687921524048],
    [-0.8425835371017456, 0.6298242807388306],
]


# A folder of one's own


def arrays(seed=0):
    """A small data set with the parts of MNIST."""
    rng = np.random.default_rng(seed)
    shapes = [(5, 28, 28), (5,), (3, 28, 28), (3,)]
    return [rng.integers(0, 10, shape).astype(np.uint8) for shape in shapes]


def md5(given):
    return hashlib.md5(given).hexdigest()


def kept(folder, known, parts, zipped=True):
    """Write the four files, and return the data set as if they were the published ones."""
    files = [content(part) for part in parts]
    packed = [gzip.compress(file, mtime=0) for file in files]
    for name, plain, small in zip(known.files, files, packed, strict=True):
        (folder / (f"{name}.gz" if zipped else name)).write_bytes(small if zipped else plain)
    unpacked = tuple(map(md5, files)) if known.unpacked[0] else known.unpacked
    return replace(known, samples=(5, 3), unpacked=unpacked, packed=tuple(map(md5, packed)))


@pytest.mark.parametrize("zipped", [True, False], ids=["gzipped", "plain"])
@pytest.mark.parametrize("name", SETS)
def test_a_published_data_set_is_read_by_name(tmp_path, monkeypatch, name, zipped):
    parts = arrays()
    monkeypatch.setitem(SETS, name, kept(tmp_path, SETS[name], parts, zipped))
    (images, labels), (test_images, test_labels) = xn.datasets.idx(tmp_path, name.upper().replace("-", "_"))
    turned = (0, 2, 1) if name.startswith("emnist") else (0, 1, 2)
    for found, part in zip((images, labels, test_images, test_labels), parts, strict=True):
        assert np.array_equal(found, part.transpose(turned) if part.ndim == 3 else part)
        assert found.flags.writeable
        assert found.flags.c_contiguous


def test_mnist_by_name_is_mnist():
    found, known = xn.datasets.idx(PACKAGED / "mnist", "mnist"), xn.datasets.mnist()
    pairs = zip((*found[0], *found[1]), (*known[0], *known[1]), strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)


def test_digests_are_as_many_as_files_and_no_two_alike():
    digests = [digest for known in SETS.values() for digest in (*known.unpacked, *known.packed) if digest]
    assert len(digests) == len(set(digests)) == 4 * len(SETS)
    assert {len(digest) for digest in digests} == {32, 64}
    for name, known in SETS.items():
        assert len(known.files) == len(known.packed) == len(known.unpacked) == 4
        assert all(file.startswith(name) for file in known.files) == name.startswith("emnist-")


def refused(folder, name):
    with pytest.raises(DataError) as caught:
        xn.datasets.idx(folder, name)
    return str(caught.value)


def test_what_is_not_the_published_data_set_is_refused(tmp_path, monkeypatch):
    where = SETS["kmnist"].where
    assert refused(tmp_path / "no", "kmnist") == f"{tmp_path / 'no'} is no folder: {where}"
    monkeypatch.setitem(SETS, "kmnist", kept(tmp_path, SETS["kmnist"], arrays()))
    path = tmp_path / f"{KINDS[3]}.gz"
    given = path.read_bytes()
    path.unlink()
    assert refused(tmp_path, "kmnist") == f"neither {KINDS[3]}.gz nor {KINDS[3]} is in {tmp_path}: {where}"
    path.write_bytes(given[:-3])
    text = f"{path} is not a sound IDX file (it is cut short, or longer than its header says): {where}"
    assert refused(tmp_path, "kmnist") == text
    path.write_bytes(gzip.compress(content(np.zeros(3, np.uint8))))
    assert refused(tmp_path, "kmnist") == f"{path} is not the file of the original release (its MD5 differs): {where}"


def test_a_plain_file_without_a_digest_must_have_the_shape(tmp_path, monkeypatch):
    monkeypatch.setitem(SETS, "kmnist", kept(tmp_path, SETS["kmnist"], arrays(), zipped=False))
    path = tmp_path / KINDS[1]
    for part in (np.zeros(4, np.uint8), np.zeros(5, np.int8), np.zeros((5, 1), np.uint8)):
        path.write_bytes(content(part))
        came = f"must hold uint8 (5,), got {part.dtype} {part.shape}"
        assert refused(tmp_path, "kmnist") == f"{path} is not the file of the original release: it {came}"


def test_the_content_of_a_plain_file_is_checked_where_a_digest_is_known(tmp_path, monkeypatch):
    monkeypatch.setitem(SETS, "fashion-mnist", kept(tmp_path, SETS["fashion-mnist"], arrays(), zipped=False))
    (tmp_path / KINDS[0]).write_bytes(content(arrays(1)[0]))
    assert "is not the file of the original release (its MD5 differs): Fashion-MNIST is on https" in refused(
        tmp_path, "fashion-mnist"
    )


@pytest.mark.parametrize("name", ["cifar", "emnist", "", None, 3])
def test_an_unknown_name_is_refused_with_those_known(tmp_path, name):
    assert refused(tmp_path, name) == f"name must be one of {', '.join(SETS)}, got {name!r}"
