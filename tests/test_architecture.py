"""Imports run strictly downward, rooms stay small, and nobody but the backends names an array library."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import xpnet
from xpnet.optimizers import adam, decay, lion, nadam, rmsprop, sgd

ROOT = Path(xpnet.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

ORDER = [
    "version",
    "errors",
    "checks",
    "arrays",
    "random",
    "geometry",
    "parameters",
    "backends",
    "layers",
    "schedules",
    "losses",
    "metrics",
    "optimizers",
    "data",
    "world",
    "training",
    "files",
    "model",
    "generation",
    "rate_finder",
    "loggers",
    "look",
    "testing",
    "selfcheck",
    "__init__",
    "selfcheck",
    "interop",
    "play",
    "cli",
    "__main__",
]
"""From the bottom to the top: a room may import those before it, and itself."""

LIBRARIES = {"numpy", "cupy", "torch", "jax", "jaxlib", "array_api_strict", "numba", "array_api_compat"}
WRITTEN_ONCE = {"layers", "losses", "metrics", "schedules", "optimizers"}


def room(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path):
    """Yield the dotted name of every module that a file imports when it runs, and the line."""
    nodes = [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}:{node.lineno}: imports are absolute"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno


def name(path):
    return str(path.relative_to(ROOT))


def test_every_room_has_a_place_in_the_order():
    assert {room(path) for path in FILES} <= set(ORDER)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_run_downward(path):
    here = ORDER.index(room(path))
    for module, line in imports(path):
        top, _, rest = module.partition(".")
        if top != "xpnet":
            continue
        there = rest.partition(".")[0]
        there = there if there in ORDER else "__init__"
        assert ORDER.index(there) <= here, f"{name(path)}:{line} imports {module}, which lies above it"


@pytest.mark.parametrize("path", [p for p in FILES if room(p) in WRITTEN_ONCE], ids=name)
def test_backprop_names_no_array_library(path):
    named = {module.partition(".")[0] for module, _ in imports(path)} & LIBRARIES
    assert not named, f"{name(path)} imports {named}"


@pytest.mark.parametrize("path", [p for p in FILES if room(p) not in {"backends", "testing", "interop"}], ids=name)
def test_only_backends_import_an_accelerated_library(path):
    named = {module.partition(".")[0] for module, _ in imports(path)} & (LIBRARIES - {"numpy", "array_api_compat"})
    assert not named, f"{name(path)} imports {named}"


# Circles

BENCHMARKS = ROOT.parent / "benchmarks"
CALLBACKS = {"averaging.py", "callbacks.py", "monitors.py"}
ANNOTATES = {(f"training/{name}", "model.py") for name in CALLBACKS}
"""A callback is handed the model, so it names it in its annotations: the one exception."""


def imported_files(path, top):
    """Return the files of a package that a file imports anywhere, annotations included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {file_of(alias.name, top) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {file_of(f"{node.module}.{alias.name}", top) or file_of(node.module, top) for alias in node.names}
    return found - {None, path}


def file_of(module, top):
    """Return the file of a module, None if it is no module of the package."""
    first, *rest = module.split(".")
    place = top.joinpath(*rest)
    files = (place.with_suffix(".py"), place / "__init__.py") if rest else (place / "__init__.py",)
    return next((file for file in files if first == top.name and file.exists()), None)


def circles(graph):
    """Return what is left of a graph when, again and again, all that imports nothing more is taken away."""
    left = {file: set(others) for file, others in graph.items()}
    while free := {file for file, others in left.items() if not others & set(left)}:
        left = {file: others for file, others in left.items() if file not in free}
    return left


@pytest.mark.parametrize("top", [ROOT, BENCHMARKS], ids=["xpnet", "benchmarks"])
def test_no_file_imports_itself_in_a_circle(top):
    graph = {
        str(path.relative_to(top)): {
            other
            for file in imported_files(path, top)
            if (str(path.relative_to(top)), other := str(file.relative_to(top))) not in ANNOTATES
        }
        for path in top.rglob("*.py")
    }
    assert sum(map(len, graph.values())) > 20
    assert circles(graph) == {}


def test_a_circle_is_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == {"a": {"b"}, "b": {"c"}, "c": {"b"}}
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {}


@pytest.mark.parametrize("folder", ["training", "files", "data"])
def test_nothing_below_the_model_names_it_at_run_time(folder):
    for path in (ROOT / folder).rglob("*.py"):
        names = {module for module, _ in imports(path)}
        assert not [module for module in names if module.startswith("xpnet.model")], path
        called = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert "model" not in called or path.name in CALLBACKS, f"{path} receives a model"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_is_short(path):
    assert len(path.read_text().splitlines()) <= 320


def test_import_xpnet_loads_no_other_library():
    unwanted = {"torch", "jax", "jaxlib", "cupy", "matplotlib", "array_api_strict", "scipy", "numba", "pytest"}
    code = "import sys, xpnet; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not unwanted & set(ast.literal_eval(done.stdout))


ROOMS = (adam, decay, lion, nadam, rmsprop, sgd)
RULES = [f for room in ROOMS for n, f in vars(room).items() if n.endswith("_rule") and inspect.isfunction(f)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_rule_has_no_number_literals_and_no_branches(rule):
    tree = ast.parse(inspect.getsource(rule))
    numbers = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, (int, float))]
    assert not numbers, f"{rule.__name__} holds {numbers}"
    assert not [n for n in ast.walk(tree) if isinstance(n, (ast.If, ast.IfExp, ast.While, ast.For))]


def test_every_rule_of_the_optimizers_is_looked_at():
    assert len(RULES) == 10
