"""Who takes part: a name, the file in `peers/` that trains, and what tells it from the others of the same file."""

import json
import subprocess
from dataclasses import dataclass, field
from typing import Any

from benchmarks.summary import kind

PROBE = (
    "import importlib.util, json, sys; print(json.dumps([m for m in sys.argv[1:] if not importlib.util.find_spec(m)]))"
)


@dataclass(frozen=True, eq=False)
class Contender:
    """One way of training the net: xpnet on a backend, a peer, or the floor that nobody can beat."""

    name: str
    label: str
    peer: str
    options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    """What must be importable."""
    hidden: tuple[str, ...] = ()
    """What is made as if it were not installed."""
    requires: tuple[str, ...] = ()
    """What a user installs."""
    imports: str = ""
    """What a user imports; contenders that import the same share one measurement."""

    @property
    def kind(self) -> str:
        """`xpnet`, `floor` or `peer`, and `tuned` for what is not as it comes."""
        return kind(self.name)


def xpnet(name: str, label: str, extra: str = "", imports: str = "import xpnet", **rest: Any) -> Contender:
    """Return xpnet on a backend."""
    return Contender(name, label, "xpnet", requires=(f"xpnet{extra}",), imports=imports, **rest)


def library(name: str, label: str, module: str, imports: str, requires: str, peer: str = "", **rest: Any) -> Contender:
    """Return a peer that stands on a library."""
    needs = tuple(requires.split())
    return Contender(name, label, peer or module, modules=(module,), imports=imports, requires=needs, **rest)


WIDE = {"OPENBLAS_CORETYPE": "SkylakeX"}
"""What `xpnet doctor` advises where OpenBLAS does not use a processor's AVX-512; dangerous where there is none."""
JAX = ("jax", "import jax, jax.numpy", "jax")
TORCH = ("torch", "import torch", "torch numpy")

CPU = (
    xpnet("xpnet-numpy", "xpnet on NumPy", options={"backend": "numpy"}, hidden=("numba", "threadpoolctl")),
    xpnet("xpnet-fast", "xpnet on NumPy + fast", "[fast]", options={"backend": "numpy"}, modules=("numba",)),
    xpnet("xpnet-jax", "xpnet on JAX", "[jax]", "import xpnet, jax", options={"backend": "jax"}, modules=("jax",)),
    xpnet(
        "xpnet-torch",
        "xpnet on PyTorch",
        "[torch]",
        "import xpnet, torch",
        options={"backend": "torch"},
        modules=("torch",),
    ),
    library("torch-flush", "PyTorch, subnormals flushed", *TORCH, options={"flush": True}),
    library("torch", "PyTorch", *TORCH),
    library("jax-scan", "JAX, scan over an epoch", *JAX, options={"scan": True}),
    library("jax-step", "JAX, jitted step", *JAX, options={"scan": False}),
    library("keras-jax", "Keras 3 on JAX", "keras", "import keras", "keras jax", environment={"KERAS_BACKEND": "jax"}),
    library(
        "keras-torch",
        "Keras 3 on PyTorch",
        "keras",
        "import keras",
        "keras torch",
        environment={"KERAS_BACKEND": "torch"},
    ),
    library("sklearn", "scikit-learn", "sklearn", "import sklearn.neural_network", "scikit-learn"),
    library("thinc", "Thinc", "thinc", "import thinc.api", "thinc"),
    library("numpy", "NumPy by hand", "numpy", "import numpy", "numpy"),
    xpnet(
        "xpnet-fast-avx512",
        "xpnet on NumPy + fast, AVX-512 products",
        "[fast]",
        options={"backend": "numpy"},
        modules=("numba",),
        environment=WIDE,
    ),
    library("numpy-avx512", "NumPy by hand, AVX-512 products", "numpy", "", "", environment=WIDE),
    Contender("floor", "products alone, all threads", "floor"),
    Contender("floor-1", "products alone, one thread", "floor", {"threads": 1}, modules=("threadpoolctl",)),
)

GPU = (
    xpnet("xpnet-compiled", "xpnet, compiled", "[cuda13]"),
    xpnet("xpnet-eager", "xpnet, eager", "[cuda13]", options={"eager": True}),
    library("torch", "PyTorch, eager", *TORCH),
    library("torch-compile", "torch.compile, reduce-overhead", *TORCH, options={"compile": "reduce-overhead"}),
    library("jax-step", "JAX, jitted step", *JAX, options={"scan": False}),
    library("jax-scan", "JAX, scan over an epoch", *JAX, options={"scan": True}),
    Contender("floor", "products alone", "floor", modules=("torch",)),
)


def choose(known: tuple[Contender, ...], names: list[str]) -> list[Contender]:
    """Return the contenders of these names, all if none is named; ValueError for a name that nobody has."""
    unknown = set(names) - {contender.name for contender in known}
    if unknown:
        raise ValueError(f"no contender {sorted(unknown)}: choose among {[contender.name for contender in known]}")
    return [contender for contender in known if not names or contender.name in names]


def absent(python: str, modules: tuple[str, ...]) -> list[str]:
    """Return those modules that this Python cannot find."""
    found = subprocess.run([python, "-c", PROBE, *modules], capture_output=True, text=True, check=True)
    missing: list[str] = json.loads(found.stdout)
    return missing


def find(contenders: list[Contender], pythons: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return by name the first Python that has what a contender needs; and, for the others, what is missing."""
    wanted = tuple(sorted({module for contender in contenders for module in contender.modules}))
    lacks = {python: set(absent(python, wanted)) for python in pythons}
    where, missing = {}, {}
    for contender in contenders:
        able = [python for python in pythons if not lacks[python] & set(contender.modules)]
        if able:
            where[contender.name] = able[0]
        else:
            missing[contender.name] = f"not installed: {', '.join(sorted(lacks[pythons[0]] & set(contender.modules)))}"
    return where, missing
