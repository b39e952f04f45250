"""What a file is that is no checkpoint, by its first bytes."""

import io
import os
import stat

from xpnet.files.writer import KINDS, PATH

BEGINNINGS = {
    b"PK\3\4": "a zip archive, as torch.save and numpy.savez write it",
    b"\x80": "a pickle, which can hold code and is not read",
    b"\x93NUMPY": "a NumPy file",
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "a gzipped file",
}
WEIGHTS = "weights alone come in by xpnet.interop.torch.load_weights(model, path), from safetensors"


def opened(path: PATH) -> io.FileIO:
    """Open a file; ValueError for what never ends."""
    kind = stat.S_IFMT(os.stat(path).st_mode)
    if kind in KINDS:
        raise ValueError(f"it is a {KINDS[kind]}, not a file")
    return open(path, "rb", buffering=0)


def looks_like(head: bytes) -> str:
    """Say what a file without a header of the right length is."""
    if head[8:9] != b"{":
        for beginning, what in BEGINNINGS.items():
            if head.startswith(beginning):
                return f"it looks like {what}: {WEIGHTS}"
        text = head.decode("utf-8", "ignore")  # the last letter may be cut
        if text and len(head) - len(text.encode()) < 4 and all(c.isprintable() or c.isspace() for c in text):
            return "it looks like text, such as a CSV file"
    return "it is too short"
