"""A user's scripts under mypy --strict: `typing/right.py` passes; each line of `typing/wrong.py` that says so fails."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import xpnet

pytest.importorskip("mypy", reason="mypy is not installed: pip install 'xpnet[dev]'")

ROOT = Path(xpnet.__file__).parents[1]
SCRIPTS = Path(__file__).parent / "typing"
ERROR = re.compile(r"(\w+\.py):(\d+): error: (.*)  \[([\w-]+)\]")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The codes of the errors that mypy finds, by file and line; array libraries are not followed, which takes long."""
    folder = tmp_path_factory.mktemp("mypy")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    libraries = ",".join(settings["overrides"][0]["module"])
    (folder / "mypy.ini").write_text(
        f"[mypy]\n[mypy-{libraries}]\nignore_missing_imports = true\nfollow_imports = skip\n"
    )
    options = ["--strict", "--config-file", folder / "mypy.ini", "--cache-dir", folder / "cache"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "right.py", "wrong.py"],
        capture_output=True,
        text=True,
        check=False,
        cwd=SCRIPTS,
        env=os.environ | {"PYTHONPATH": str(ROOT)},  # found there as an installed package, so py.typed counts
    )
    assert done.stdout.splitlines()[-1].endswith("(checked 2 source files)"), done.stdout + done.stderr
    codes = {"right.py": {}, "wrong.py": {}}
    for file, line, text, code in ERROR.findall(done.stdout):
        codes[file].setdefault(int(line), {})[code] = text
    return codes


def test_a_right_script_passes(found):
    assert found["right.py"] == {}


LINES = (SCRIPTS / "wrong.py").read_text().splitlines()
EXPECTED = {k: line.partition("  # error: ") for k, line in enumerate(LINES, 1) if "  # error: " in line}


@pytest.mark.parametrize("line", EXPECTED, ids=lambda line: EXPECTED[line][0].strip())
def test_a_wrong_call_fails(found, line):
    assert set(found["wrong.py"].get(line, {})) == set(EXPECTED[line][2].split())


def test_what_is_not_wrong_passes(found):
    assert not {line: text for line, text in found["wrong.py"].items() if line not in EXPECTED}
    assert len(EXPECTED) > 60
