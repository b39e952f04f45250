"""The pages and the README: their code runs, their commands exist, the reference is complete, the site builds."""

import ast
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
import types
from importlib.util import find_spec
from pathlib import Path

import pytest

import pytest_xpnet
import xpnet as xn
from benchmarks.__main__ import arguments
from xpnet import cli

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
TEXTS = {path: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]}
FENCE = re.compile(r"(?ms)^```([^\n]*)\n(.*?)^```$")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
REFERENCE = "\n".join(text for path, text in TEXTS.items() if path.parent.name == "reference")
HOOKS = runpy.run_path(str(DOCS / "hooks.py"))
RUN, COPYABLE = HOOKS["run"], HOOKS["copyable"]


def name(page):
    return page.relative_to(ROOT).as_posix()


def needs(page):
    """Return the libraries that a page says it needs, in its first lines."""
    found = re.match(r"---\nneeds: (.+)\n---\n", TEXTS[page])
    return found[1].split() if found else []


def skip_without(libraries, who):
    """Skip by name; the libraries are not imported, for a page may have to prepare that."""
    for library in libraries:
        if find_spec(library) is None:
            pytest.skip(f"{who} needs {library}, which is not installed")


def commands():
    """Yield every command of a shell block, and those in the text that name this project's own."""
    for text in TEXTS.values():
        lines = [line for language, block in FENCE.findall(text) if language == "sh" for line in block.splitlines()]
        lines += re.findall(r"`((?:xpnet|python|pip) [^`\n]+)`", FENCE.sub("", text))
        for line in lines:
            for command in line.split("&&"):
                yield " ".join(shlex.split(command, comments=True))


def test_every_block_is_python_or_a_command():
    """`py` is what the page of the pytest plugin has its reader save to files; test_plugin_page.py runs that.

    `bash` is a script for a cluster, `yaml` the recipe of a continuous integration.
    """
    languages = {language for text in TEXTS.values() for language, _ in FENCE.findall(text)}
    assert languages == {"python", "py", "sh", "bash", "yaml"}


@pytest.mark.posix
def test_a_script_can_be_read():
    blocks = [block for text in TEXTS.values() for language, block in FENCE.findall(text) if language == "bash"]
    assert blocks
    for block in blocks:
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_recipe_can_be_read_and_its_commands_exist():
    yaml = pytest.importorskip("yaml")
    blocks = [block for text in TEXTS.values() for language, block in FENCE.findall(text) if language == "yaml"]
    assert blocks
    for block in blocks:
        job = yaml.safe_load(block)["jobs"]["tests"]
        runs = [step["run"] for step in job["steps"] if "run" in step]
        assert re.findall(r"xpnet\[(\w+)\]", "\n".join(runs)) == ["plugin"]
        assert "plugin" in EXTRAS
        assert runs[-1] == 'python -m pytest --backends "${{ matrix.backends }}"'
        assert all(
            pytest_xpnet._is_backend(w) for text in job["strategy"]["matrix"]["backends"] for w in text.split(",")
        )


@pytest.mark.parametrize("page", [page for page, text in TEXTS.items() if "```python" in text], ids=name)
def test_the_code_of_a_page_runs(page, tmp_path):
    skip_without(needs(page), name(page))
    RUN(page, tmp_path)


@pytest.mark.parametrize(
    "wrong", ["1 / 0", ">>> 1 + 1\n3", ">>> 1 / 0\n0", "import warnings\nwarnings.warn('old')", "assert not answer"]
)
def test_a_page_that_is_wrong_is_caught(wrong, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"```python\nanswer = 42\n```\n\n```python\n>>> answer\n42\n```\n\n```python\n{wrong}\n```\n")
    with pytest.raises(Exception, match=r"division|did not evaluate as expected|old|assert|^$"):
        RUN(page, tmp_path)
    assert Path.cwd() != tmp_path


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_a_command_exists(command, monkeypatch):
    monkeypatch.setattr(cli, "doctor", lambda: 0)
    monkeypatch.setattr(cli, "selfcheck", lambda **_: 0)
    monkeypatch.setattr(cli, "play", lambda **_: 0)
    words = command.split()
    while re.match(r"[A-Z_]+=", words[0]):
        del words[0]
    if words[:2] == ["mpiexec", "-n"]:
        del words[:3]
    match words:
        case ["python", "train.py"]:  # what the reader saves
            pass
        case ["xpnet", *rest]:
            assert cli.main(rest) == 0
        case ["python", "-m", "benchmarks", *rest]:
            assert arguments(rest)
        case ["python", "-m", "pip", "install", *rest] | ["pip", "install", *rest]:
            assert {extra for word in rest for extra in re.findall(r"[\w]+", word.partition("[")[2])} <= set(EXTRAS)
        case ["python", "-m", "pytest" | "mkdocs" as module, *_]:
            assert any(module in requirement for requirement in [*EXTRAS["test"], *EXTRAS["docs"]])
        case ["python", "-m", script, *rest] | ["python", script, *rest]:
            path = script if script.endswith(".py") else f"{script.replace('.', '/')}.py"
            text = (ROOT / path).read_text(encoding="utf-8")
            assert all(f'"{word}"' in text for word in rest if word.startswith("--"))
        case _:
            pytest.fail(f"nobody knows the command: {command}")


def test_a_path_that_is_named_exists():
    named = {
        path for text in TEXTS.values() for path in re.findall(r"`((?:xpnet|examples|benchmarks)/[\w./-]*)`", text)
    }
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists() and "DATE" not in path] == []


def public():
    """Yield the dotted name of everything public."""
    modules = {"datasets", "loggers", "metrics", "plot", "schedules", "testing"}
    yield from (f"xpnet.{one}" for one in xn.__all__ if one not in modules)
    for module in (xn.datasets, xn.loggers, xn.plot, xn.testing):
        yield from (f"{module.__name__}.{one}" for one in module.__all__)
    kinds = types.FunctionType | type
    yield from (f"xpnet.metrics.{one}" for one in xn.metrics.__all__ if isinstance(getattr(xn.metrics, one), kinds))
    for file in ("interop/sklearn.py", "interop/torch.py"):
        for node in ast.parse((ROOT / "xpnet" / file).read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                yield f"xpnet.{file.removesuffix('.py').replace('/', '.')}.{node.name}"


def test_the_reference_has_every_public_name():
    directives = re.findall(r"(?m)^::: (\S+)$", REFERENCE)
    described = {re.sub(r"\.(\w+)\.\1$", r".\1", one) for one in directives}  # a function in a module of its name
    assert len(described) == len(directives)
    assert set(public()) - described == set()


def pieces(page):
    """Return the code of a page as its blocks are copied from the site, in order."""
    return [block for language, block in FENCE.findall(COPYABLE(TEXTS[page])) if language == "python"]


@pytest.mark.parametrize("page", [page for page, text in TEXTS.items() if ">>>" in text], ids=name)
def test_a_page_copies_into_a_file(page):
    code = "\n".join(pieces(page))
    assert ">>>" not in code
    compile(code, page.name, "exec")


@pytest.mark.parametrize("page", ["tutorial/backpropagation", "howto/layer"])
def test_what_was_copied_runs(page, tmp_path):
    """These two show errors, at which a session goes on and a file would stop."""
    page = DOCS / f"{page}.md"
    skip_without(needs(page), name(page))
    text = "\n".join(pieces(page))
    assert "except " in text
    (tmp_path / "page.py").write_text(text, encoding="utf-8")
    environment = os.environ | {"XPNET_BACKEND": "numpy", "MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_session_becomes_code_with_its_output_below():
    block = "```python\n>>> x = 1\n>>> x\n1\n>>> x.y\nTraceback (most recent call last):\n    ...\nTypeError: no\n```"
    text = COPYABLE(f"before\n\n{block}\n\nafter\n")
    first, second = re.findall(r"(?ms)^```python\n(.*?)^```\n\n``` \{ .text .no-copy .output \}\n(.*?)^```", text)
    assert first == ("x = 1\nx\n", "1\n")
    assert second == ("try:\n    x.y\nexcept TypeError as error:\n    print(error)\n", "no\n")
    assert COPYABLE("```python\nx = 1\n```") == "```python\nx = 1\n```"


def test_the_index_of_messages_has_what_the_code_says():
    table = HOOKS["messages"]()
    assert table.count("\n") > 200
    for row in (
        "| attention: the network has no MultiHeadAttention | `DataError` | `xpnet/look/plot/attention.py` |",
        '| NumPy has no device "…" here: choose one of … | `BackendError` | `xpnet/backends/numpy.py` |',
    ):
        assert row in table


def test_the_picture_of_the_readme_is_small_and_described():
    text = TEXTS[ROOT / "README.md"]
    alt, picture = re.search(r"!\[([^\]]+)\]\(([^)]+)\)", text).groups()
    assert len(alt) > 50
    assert text[: text.index(alt)].count("\n") < 15
    assert (ROOT / picture).stat().st_size < 150_000


def test_the_site_builds_without_a_warning(tmp_path):
    skip_without(("mkdocs", "material", "mkdocstrings", "matplotlib"), "building the site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    site = {path.relative_to(tmp_path).as_posix(): path.read_text("utf-8") for path in tmp_path.rglob("*.html")}
    assert "xpnet on NumPy" in site["benchmarks.html"]
    assert "central differences" in site["verified.html"]
    assert all("<!-- table" not in page for page in site.values())
    assert all(">>> " not in re.sub(r"<[^>]*>", "", page).replace("&gt;", ">") for page in site.values())
    assert (tmp_path / "search" / "search_index.js").exists()
    assert "assets/iframe-worker/shim.js" in site["index.html"]
    assert site["tutorial/backpropagation.html"].count('class="arithmatex"') > 5
    assert (tmp_path / "lesson" / "08-mnist-lab.ipynb").exists()
    assert [path for path, page in site.items() if re.search(r'(src|rel="stylesheet" href)="(https?:)?//', page)] == []
    described = "\n".join(site.values())
    assert described.count('class="doc doc-object doc-module"') == REFERENCE.count("show_root_heading: false")
    for target, options in re.findall(r"(?m)^::: (\S+)\n((?:    .*\n)*)", REFERENCE):
        members = re.search(r"members: \[(.*)\]", options)
        for place in [target, *(f"{target}.{member}" for member in (members[1].split(", ") if members else ()))]:
            assert f'id="{place}"' in described or "show_root_heading: false" in options, place
