"""What a page cannot hold itself: tables made of the committed JSON, and pictures that its own code draws."""

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
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PICTURE = re.compile(r"!\[[^\]]*\]\(([\w-]+\.png)\)")
SELFCHECKS = sorted((ROOT / "benchmarks" / "selfcheck").glob("*.json"))
SHOWN = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
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


TABLES = {function.__name__: function for function in (benchmarks, parity, trust, ranks, verified, checks)}


def on_files(files: Any, config: Any) -> Any:
    """Add the pictures of all pages."""
    from mkdocs.structure.files import File

    drawn = dict(charts())
    for file in list(files.documentation_pages()):
        place = Path(file.src_uri).parent
        drawn |= {(place / name).as_posix(): content for name, content in pictures(Path(file.abs_src_path))}
    for uri, content in drawn.items():
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the tables in."""
    return TABLE.sub(lambda place: TABLES[place[1]](), markdown)
