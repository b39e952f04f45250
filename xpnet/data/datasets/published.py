"""Data sets of images that were published as IDX files: in the package, or in a folder of your own."""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TypeAlias

import numpy as np

from xpnet.data.datasets.files import read
from xpnet.errors import DataError

PACKAGED = Path(__file__).parent

Split: TypeAlias = tuple[np.ndarray, np.ndarray]

KINDS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
"""The four files of a data set, as MNIST calls them, gzipped with .gz after it."""


@dataclass(frozen=True)
class Published:
    """A data set of images 28 × 28: its size, where it can be had, and the digests of its four files.

    `unpacked` are those of the decompressed files, SHA-256 or MD5; `packed` those of the .gz files as published, MD5.
    """

    where: str
    unpacked: tuple[str, ...] = ("",) * 4
    packed: tuple[str, ...] = ("",) * 4
    samples: tuple[int, int] = (60_000, 10_000)
    files: tuple[str, ...] = KINDS
    turned: bool = False
    """Whether images lie there with rows and columns exchanged."""


def _emnist(split: str, train: int, test: int, *packed: str) -> Published:
    files = tuple(f"emnist-{split}-{kind.replace('t10k', 'test')}" for kind in KINDS)
    where = "EMNIST is in gzip.zip on https://www.nist.gov/itl/products-and-services/emnist-dataset"
    return Published(where, packed=packed, samples=(train, test), files=files, turned=True)


SETS = {
    "mnist": Published(
        "MNIST is in the package, xn.datasets.mnist()",
        unpacked=(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    "fashion-mnist": Published(
        "Fashion-MNIST is on https://github.com/zalandoresearch/fashion-mnist",
        unpacked=(
            "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "9018921c3c673c538a1fc5bad174d6f9",
            "8181f5470baa50b63fa0f6fddb340f0a",
            "15d484375f8d13e6eb1aabb0c3f46965",
        ),
    ),
    "kmnist": Published(
        "KMNIST is on https://codh.rois.ac.jp/kmnist",
        packed=(
            "bdb82020997e1d708af4cf47b453dcf7",
            "e144d726b3acfaa3e44228e80efcd344",
            "5c965bf0a639b31b8f53240b1b52f4d7",
            "7320c461ea6c1c855c0b718fb2a4b134",
        ),
    ),
    "emnist-balanced": _emnist(
        "balanced",
        *(112_800, 18_800),
        "4041b0d6f15785d3fa35263901b5496b",
        "7a35cc7b2b7ee7671eddf028570fbd20",
        "6818d20fe2ce1880476f747bbc80b22b",
        "acd3694070dcbf620e36670519d4b32f",
    ),
    "emnist-byclass": _emnist(
        "byclass",
        *(697_932, 116_323),
        "712dda0bd6f00690f32236ae4325c377",
        "ee299a3ee5faf5c31e9406763eae7e43",
        "1435209e34070a9002867a9ab50160d7",
        "7a0f934bd176c798ecba96b36fda6657",
    ),
    "emnist-bymerge": _emnist(
        "bymerge",
        *(697_932, 116_323),
        "4a792d4df261d7e1ba27979573bf53f3",
        "491be69ef99e1ab1f5b7f9ccc908bb26",
        "8eb5d34c91f1759a55831c37ec2a283f",
        "c13f4cd5211cdba1b8fa992dae2be992",
    ),
    "emnist-digits": _emnist(
        "digits",
        *(240_000, 40_000),
        "d2662ecdc47895a6bbfce25de9e9a677",
        "2223fcfee618ac9c89ef20b6e48bcf9e",
        "a159b8b3bd6ab4ed4793c1cb71a2f5cc",
        "8afde66ea51d865689083ba6bb779fac",
    ),
    "emnist-letters": _emnist(
        "letters",
        *(124_800, 20_800),
        "8795078f199c478165fe18db82625747",
        "c16de4f1848ddcdddd39ab65d2a7be52",
        "382093a19703f68edac6d01b8dfdfcad",
        "d4108920cd86601ec7689a97f2de7f59",
    ),
    "emnist-mnist": _emnist(
        "mnist",
        *(60_000, 10_000),
        "3663598a39195d030895b6304abb5065",
        "6c092f03c9bb63e678f80f8bc605fe37",
        "fb51b6430fc4dd67deaada1bf25d4524",
        "ae7f6be798a9a5d5f2bd32e078a402dd",
    ),
}


def mnist(folder: str | PathLike[str] | None = None) -> tuple[Split, Split]:
    """Return `(train_images, train_labels), (test_images, test_labels)` of the MNIST handwritten digits.

    Images uint8 (60000, 28, 28) and (10000, 28, 28), 0 is background and 255 is ink; labels uint8 (N,), 0..9.
    Each file's SHA-256 is checked against the original release (LeCun, Cortes & Burges, 1998; CC BY-SA 3.0).
    `folder` reads the four files from elsewhere, as `idx` does. DataError if one is missing, damaged or another.
    """
    if folder is not None:
        return idx(folder, "mnist")
    return _read(PACKAGED / "mnist", SETS["mnist"], "install xpnet again")


def digits() -> Split:
    """Return `images, labels` of 1,797 handwritten digits, those of scikit-learn's `load_digits` in the same order.

    Images uint8 (1797, 8, 8), 0 is background and 16 is ink; labels uint8 (1797,), 0..9. Nobody has divided them into
    training and test: hold some out with `validation=`. They are of 13 writers, and not shuffled.

    "Optical Recognition of Handwritten Digits", the test set, by E. Alpaydin and C. Kaynak, UCI Machine Learning
    Repository, 1998, doi.org/10.24432/C50P49; CC BY 4.0. Each file's SHA-256 is checked; DataError if it is another.
    """
    known = {
        "digits-images-idx3-ubyte.gz": "359cd13f0f514122884198b78a131df597421cbf5e93a76678fa96fc548f0d96",
        "digits-labels-idx1-ubyte.gz": "ce71631c1f31ce56fa54f31d1d498fafacff59b001e6c30c4a5e29508aa277ad",
    }
    folder, remedy = PACKAGED / "digits", "install xpnet again"
    images, labels = (read(folder / name, unpacked=digest, remedy=remedy) for name, digest in known.items())
    return images, labels


def idx(folder: str | PathLike[str], name: str) -> tuple[Split, Split]:
    """Return `(train_images, train_labels), (test_images, test_labels)` of a published data set in a folder of yours.

    `name` is "mnist", "fashion-mnist" (Xiao, Rasul & Vollgraf, 2017), "kmnist" (Clanuwat et al., 2018) or, of EMNIST
    (Cohen et al., 2017), "emnist-balanced", "-byclass", "-bymerge", "-digits", "-letters" or "-mnist". The folder holds
    its four IDX files under the names of the release, gzipped (.gz) or plain; nothing is downloaded.

    Images uint8 (N, 28, 28), 0 is background and 255 is ink; labels uint8 (N,), as they are in the file: 1..26 for
    "emnist-letters", from 0 for all others. EMNIST's images, which lie on their side in its files, are set upright.

    Checked against what was published: of MNIST and Fashion-MNIST the digest of the content (SHA-256, MD5), plain or
    gzipped; of KMNIST and EMNIST the MD5 of the .gz file; of their plain files no digest is known, so only the type and
    the shape are checked. DataError if a file is missing, damaged or another, and for an unknown name.
    """
    known = SETS.get(name.lower().replace("_", "-")) if isinstance(name, str) else None
    if known is None:
        raise DataError(f"name must be one of {', '.join(SETS)}, got {name!r}")
    return _read(Path(folder), known, known.where)


def _read(folder: Path, known: Published, remedy: str) -> tuple[Split, Split]:
    from concurrent.futures import ThreadPoolExecutor  # slow to import, and needed here alone

    paths = [_found(folder, name, known) for name in known.files]

    def one(path: Path, unpacked: str, packed: str) -> np.ndarray:
        return read(path, unpacked, packed if path.suffix == ".gz" else "", remedy)

    jobs = (paths, known.unpacked, known.packed)
    try:
        with ThreadPoolExecutor(len(paths)) as pool:  # zlib and hashlib let other threads run
            images, labels, test_images, test_labels = pool.map(one, *jobs)
    except RuntimeError:  # where no thread can start
        images, labels, test_images, test_labels = map(one, *jobs)
    (train, test), size = known.samples, (28, 28)
    shapes = [(train, *size), (train,), (test, *size), (test,)]
    for path, array, shape in zip(paths, (images, labels, test_images, test_labels), shapes, strict=True):
        if array.shape != shape or array.dtype != np.uint8:
            came = f"{array.dtype} {array.shape}"
            raise DataError(f"{path} is not the file of the original release: it must hold uint8 {shape}, got {came}")
    if known.turned:
        images, test_images = (np.ascontiguousarray(array.swapaxes(1, 2)) for array in (images, test_images))
    return (images, labels), (test_images, test_labels)


def _found(folder: Path, name: str, known: Published) -> Path:
    """Return the file of this name, gzipped or plain; DataError says that there is none, and where it can be had."""
    for path in (folder / f"{name}.gz", folder / name):
        if path.exists():
            return path
    what = f"neither {name}.gz nor {name} is in {folder}" if folder.is_dir() else f"{folder} is no folder"
    raise DataError(f"{what}: {known.where}")
