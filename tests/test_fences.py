"""A library that is broken, too old, half there, or hidden behind a local file stops nothing that does not need it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import xpnet

BACKENDS = ("cupy", "torch", "jax", "array_api_strict")
LIBRARIES = (*BACKENDS, "numba", "threadpoolctl", "mpi4py", "matplotlib", "sklearn", "pandas", "onnx", "ndonnx")
WAYS = {
    "ImportError": "raise ImportError('libgone.so: cannot open shared object file\\nand more')",
    "AttributeError": "import numpy\nnumpy.no_such_thing",
    "OSError": "raise OSError('libgone.so: undefined symbol')",
    "SyntaxError": "def broken(:",
    "SystemExit": "import sys\nsys.exit('this needs another Python')",
    "another's file": "print_me = 'a script of somebody who called it so'",
    "too old": "__version__ = '0.0.1'\ndef __getattr__(name):\n    raise AttributeError(name)",
    "half there": "from . import _core",
}
"""What stands in the file, of what is half there in a folder."""
PROGRAM = """
import warnings
import numpy as np
import xpnet as xn
from xpnet.cli import main
from xpnet.interop.torch import load_weights, save_weights

warnings.simplefilter("ignore")
x, y = np.eye(6, dtype="float32"), np.arange(6) % 2


def train(backend):
    net = xn.Sequential(xn.Linear(6, 4), xn.BatchNorm(4), xn.ReLU(), xn.Linear(4, 2))
    model = xn.Model(net, xn.cross_entropy, xn.Adam(), backend=backend, metrics=["accuracy"])
    model.fit(x, y, epochs=2, validation=(x, y), checkpoint="model", progress=False)
    assert model.predict(x).shape == (6, 2) and model.backend.name == "numpy"
    save_weights(model, "weights")
    load_weights(xn.load("model"), "weights")


train(None)
for name in ("cupy", "torch", "jax", "strict"):
    try:
        xn.backend(name)
        print(name, "was believed")
    except xn.BackendError as error:
        print(error)
assert main(["doctor"]) == 0
train("numpy")  # what is broken is among the modules now
train(None)
print("trained")
"""


@pytest.mark.parametrize("way", WAYS)
def test_what_is_broken_stops_nothing_that_does_not_need_it(way, tmp_path):
    for library in LIBRARIES:
        file = tmp_path / f"{library}.py"
        if way == "half there":
            (tmp_path / library).mkdir()
            file = tmp_path / library / "__init__.py"
        file.write_text(WAYS[way])
    paths = os.pathsep.join([str(tmp_path), str(Path(xpnet.__file__).parents[1]), *sys.path])
    environment = {name: value for name, value in os.environ.items() if name != "XPNET_BACKEND"} | {"PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    said, doctor = lines[:4], {line.split()[0]: line for line in lines[4:] if line and line[0] != " "}
    for name, line in zip(("cupy", "torch", "jax", "strict"), said, strict=True):
        assert re.match("(?i)" + name + " is installed,? but", line)
        assert "not usable" in doctor[name]
    assert "mpi4py is installed, but does not work here" in doctor["mpi"]
    assert "usable      cpu" in doctor["numpy"]
    assert lines[-1] == "trained"
    assert done.stderr == ""
