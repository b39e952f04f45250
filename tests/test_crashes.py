"""Saving while a system call goes wrong or the process is killed there; `python -m benchmarks.trust` runs all kinds."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import crashes
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the shim is for Linux")


@pytest.mark.skipif(not (shutil.which("gcc") or shutil.which("cc")), reason="needs a C compiler, such as gcc")
def test_whatever_call_goes_wrong_the_file_is_whole_and_every_sentence_true():
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        done = crashes.campaign(Path(folder), quick=True)
    assert done["wrong"] == []
    assert done["injected"] >= 500
    assert {"create", "write", "fsync", "fchmod", "fchown", "flock", "rename", "close", "unlink"} <= set(
        done["by call"]
    )
    assert {"scandir", "readdir", "lstat", "open", "lseek", "getxattr"} <= set(done["by call"])
