"""What a page cannot hold itself: tables made of the committed JSON, and pictures that its own code draws."""

import ast
import doctest
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import indent
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PICTURE = re.compile(r"!\[[^\]]*\]\(([\w-]+\.png)\)")
SELFCHECKS = sorted((ROOT / "benchmarks" / "selfcheck").glob("*.json"))
KINDS = ("BackendError", "ShapeError", "DataError", "CheckpointError", "NonFiniteError", "DataWarning")
SHOWN = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
BLOCK = re.compile(r"(?ms)^```python\n(.*?)^```$")
TABLE = re.compile(r"<!-- table: (\w+) -->")


def run(page: Path, folder: Path) -> None:
    """Run the Python blocks of a page in order, in one namespace, on NumPy, `folder` being the working directory.

    A block that starts with `>>>` must print what it shows, `...` standing for anything.
    """
    from sybil.document import Document
    from sybil.parsers.markdown import PythonCodeBlockParser

    import xpnet as xn

    before = Path.cwd()
    os.chdir(folder)
    try:
        with xn.use("numpy"):
            for example in Document.parse(str(page), PythonCodeBlockParser(doctest_optionflags=SHOWN)):
                example.evaluate()
    finally:
        os.chdir(before)
        if pyplot := sys.modules.get("matplotlib.pyplot"):
            pyplot.close("all")


def copyable(markdown: str) -> str:
    """Return a page whose sessions, blocks with `>>>`, are code that can be copied, each with what it prints below."""
    return BLOCK.sub(lambda block: _code_and_output(block[1]) if block[1].startswith(">>>") else block[0], markdown)


def _code_and_output(session: str) -> str:
    parts, code = [], ""
    for example in doctest.DocTestParser().get_examples(session):
        code += example.source
        if example.exc_msg:  # a file would stop there
            kind, _, text = example.exc_msg.strip().partition(": ")
            kind = kind.replace("xpnet.errors", "xn")
            body = indent(example.source, "    ")
            code = f"{code.removesuffix(example.source)}try:\n{body}except {kind} as error:\n    print(error)\n"
            example.want = f"{text}\n"
        if example.want:
            parts.append(f"```python\n{code}```\n\n``` {{ .text .no-copy .output }}\n{example.want}```")
            code = ""
    return "\n\n".join([*parts, f"```python\n{code}```"] if code else parts)


def pictures(page: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of the pictures that a page shows, drawn by its own blocks."""
    if names := PICTURE.findall(page.read_text(encoding="utf-8")):
        with TemporaryDirectory() as folder, redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            run(page, Path(folder))
            for name in names:
                yield name, (Path(folder) / name).read_bytes()


def newest() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the kind of device, "cpu" or "gpu", and the results of the last benchmark run on it."""
    for kind in ("cpu", "gpu"):
        if path := max((ROOT / "benchmarks" / kind).glob("*.json"), default=None):
            yield kind, json.loads(path.read_text(encoding="utf-8"))


def charts() -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of the picture of each benchmark run that is shown."""
    from benchmarks.figure import draw
    from benchmarks.report import LABELS

    for kind, results in newest():
        with TemporaryDirectory() as folder:
            path = Path(folder) / f"benchmarks-{kind}.png"
            draw(results, LABELS[kind], path)
            yield path.name, path.read_bytes()


def benchmarks() -> str:
    """Return the report of the last run on each kind of device."""
    from benchmarks.report import page

    return "\n\n".join(inner(page(results, f"benchmarks-{kind}.png")) for kind, results in newest())


def parity() -> str:
    """Return the newest comparison of the estimators with scikit-learn's, as it was written beside its JSON."""
    return inner(max((ROOT / "benchmarks" / "sklearn").glob("*.md")).read_text(encoding="utf-8"))


def trust() -> str:
    """Return the report of the long tests."""
    from benchmarks.trust import page

    return inner(page(json.loads((ROOT / "benchmarks" / "trust.json").read_text(encoding="utf-8"))))


def ranks() -> str:
    """Return what the model of cost expects of many ranks."""
    from benchmarks.scaling import paper

    report = json.loads((ROOT / "benchmarks" / "world.json").read_text(encoding="utf-8"))
    return "\n".join(paper(report["works"], report["reduction"]))


def inner(markdown: str) -> str:
    """Return a report as part of a page, its headings one level further in."""
    return re.sub(r"(?m)^#", "##", markdown)


def verified() -> str:
    """Return the README's table of what was verified, and a row for each backend that no one has run."""
    from xpnet.backends import LIBRARIES
    from xpnet.selfcheck import table

    rows = ["| backend | device | versions | when | what |", "| --- | --- | --- | --- | --- |", table(SELFCHECKS)]
    missing = sorted(set(LIBRARIES) - {result["backend"] for result in selfchecks()})
    return "\n".join([*rows, *(f"| {name} | – | – | – | **not yet run** |" for name in missing)])


def checks() -> str:
    """Return what each check of a selfcheck compares, and what it found on each backend."""
    results = selfchecks()
    names = {check["name"]: check["what"] for result in results for check in result["checks"]}
    columns = [{check["name"]: figures(check) for check in result["checks"]} for result in results]
    head = ["check", *(result["backend"] for result in results)]
    rows = [head, ["---"] * len(head)]
    rows += [[f"**{name}**: {what}", *(column.get(name, "–") for column in columns)] for name, what in names.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def figures(check: dict[str, Any]) -> str:
    """Return the first figures of a check, or its error."""
    if check["passed"] is False:
        return f"**failed**: {check['error']}"
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in list(check["figures"].items())[:2])


def selfchecks() -> list[dict[str, Any]]:
    """Return the saved results of `xpnet selfcheck`."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in SELFCHECKS]


def messages() -> str:
    """Return every message that the package's own errors and warnings are raised with, and the file that does."""
    rows = {
        (text, kind, path.relative_to(ROOT).as_posix())
        for path in sorted((ROOT / "xpnet").rglob("*.py"))
        for text, kind in said(ast.parse(path.read_text(encoding="utf-8")))
    }
    lines = [f"| {text} | `{kind}` | `{path}` |" for text, kind, path in sorted(rows, key=lambda row: row[0].lower())]
    return "\n".join(["| message | kind | in |", "| --- | --- | --- |", *lines])


def said(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield text and kind of each message that a module spells out, as Markdown, `…` for what is filled in."""
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or not call.args:
            continue
        kind = getattr(call.func, "id", "")
        if getattr(call.func, "attr", "") == "warn" and len(call.args) > 1:
            kind = getattr(call.args[1], "id", "")
        if kind in KINDS and (text := spelled(call.args[0])).strip("… "):
            yield re.sub(r"([\\`*_<>|\[\]{}$])", r"\\\1", text), kind


def spelled(node: ast.AST) -> str:
    """Return the text of an expression, `…` for each part that is not written there."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(map(spelled, parts))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return spelled(left) + spelled(right)
    return "…"


TABLES = {f.__name__: f for f in (benchmarks, parity, trust, ranks, verified, checks, messages)}


def on_files(files: Any, config: Any) -> Any:
    """Add the pictures of all pages, and the lesson's notebooks."""
    from mkdocs.structure.files import File

    drawn = dict(charts())
    drawn |= {
        f"lesson/{path.name}": path.read_bytes() for path in sorted((ROOT / "examples" / "lesson").glob("*.ipynb"))
    }
    for file in list(files.documentation_pages()):
        place = Path(file.src_uri).parent
        drawn |= {(place / name).as_posix(): content for name, content in pictures(Path(file.abs_src_path))}
    for uri, content in drawn.items():
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the tables in, and make the sessions copyable."""
    return copyable(TABLE.sub(lambda place: TABLES[place[1]](), markdown))
