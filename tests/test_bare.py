"""Where something is missing that most places have: threads, metadata of packages, a place for Numba's cache; and what
the package says of itself."""

import importlib.metadata
import os
import subprocess
import sys
import threading
import tomllib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import xpnet as xn

ROOT = Path(__file__).parent.parent
X, Y = np.random.default_rng(0).normal(size=(40, 3)).astype("float32"), np.arange(40) % 2


def classifier():
    return xn.Model(xn.Sequential(xn.Linear(3, 2)), xn.cross_entropy, xn.Adam(), backend="numpy", metrics=["accuracy"])


def test_where_no_thread_can_start_all_is_done_in_this_one(tmp_path, monkeypatch):
    expected = classifier()
    expected.fit(xn.Rows(X, Y), epochs=2, batch_size=8)

    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    model = classifier()
    model.fit(xn.Rows(X, Y), epochs=2, batch_size=8, checkpoint=tmp_path / "model", every=2, validation=(X, Y))
    model.fit([(X[:8], Y[:8])] * 3)
    loaded = xn.load(tmp_path / "model")
    assert np.array_equal(loaded.theta, expected.theta)
    (images, _), _ = xn.datasets.mnist()
    assert len(images) == 60_000


def test_no_metadata_of_packages_are_needed(tmp_path, monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    for name in ("version", "distribution", "metadata"):
        monkeypatch.setattr(importlib.metadata, name, missing)
    model = classifier()
    model.fit(X, Y)
    model.save(tmp_path / "model")
    assert np.array_equal(xn.load(tmp_path / "model").theta, model.theta)


PROGRAM = """
import warnings
import numpy as np
import xpnet as xn

x, y = np.eye(6, dtype="float32"), np.arange(6) % 2
with warnings.catch_warnings(record=True, action="always") as caught:
    for optimizer in (xn.Adam(), xn.SGD(0.1)):
        xn.Model(xn.Linear(6, 2), xn.cross_entropy, optimizer, backend="numpy").fit(x, y, epochs=2, progress=False)
for warning in caught:
    print(warning.message)
"""


def test_without_a_place_for_its_cache_numba_is_done_without():
    """From standard input, in a place where nothing can be kept."""
    pytest.importorskip("numba", reason="Numba is not installed")
    nowhere = {"NUMBA_CACHE_LOCATOR_CLASSES": "IPythonCacheLocator", "PYTHONPATH": os.pathsep.join(sys.path)}
    environment = os.environ | nowhere
    words = [sys.executable, "-"]
    done = subprocess.run(words, input=PROGRAM, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    if done.stdout == "":
        pytest.skip("this Numba finds a place all the same")
    (line,) = done.stdout.splitlines()
    assert line.startswith("Numba cannot compile any rule here, so the plain form runs, slower (")
    assert line.endswith("set NUMBA_CACHE_DIR to a folder that can be written")


def test_predictions_take_the_room_of_themselves_and_of_a_batch():
    net = xn.Sequential(xn.Linear(2, 50))
    model = xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend="numpy")
    x = np.ones((20_000, 2), "float32")
    model.predict(x[:100])
    tracemalloc.start()
    try:
        scores = model.predict(x, batch_size=500)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.25 * scores.nbytes


def test_names_that_come_later_are_listed():
    assert {"Live", "Movie", "Microscope", "export_onnx", "plot", "testing", "Linear"} <= set(dir(xn))


def test_the_package_says_what_it_holds():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project, hatch = settings["project"], settings["tool"]["hatch"]["build"]["targets"]
    assert "CC-BY-SA-3.0" in project["license"]
    for name in project["license-files"]:
        assert (ROOT / name).is_file()
    assert {"/SECURITY.md", "/LICENSE", "/tests", "/pyproject.toml"} <= set(hatch["sdist"]["include"])
    assert all((ROOT / name[1:]).exists() for name in hatch["sdist"]["include"])
    assert "array-api-strict>=2.4.1" in project["optional-dependencies"]["test"]
