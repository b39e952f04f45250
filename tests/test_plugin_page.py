"""The project in docs/howto/test-your-library.md is tested as the page says, and its faults are caught."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

import pytest_xpnet
from xpnet.testing.capabilities import PROBES

pytest_plugins = ["pytester"]

PAGE = (Path(__file__).parents[1] / "docs" / "howto" / "test-your-library.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"`(\w+)\.py`:\n\n```py\n(.*?)```", PAGE, re.DOTALL))
FAULTS = re.findall(r"^\| `([^`]*)` \| `([^`]*)` \| (\S+) \| `([^`]*)` \|$", PAGE, re.MULTILINE)
HERE = ["numpy", "numpy-readonly", "strict:device1", *(name for name in ("torch", "jax") if find_spec(name))]


@pytest.fixture
def run(pytester, monkeypatch):
    """Run pytest on the project of the page, in a process of its own: libraries cannot be imported twice in one."""
    monkeypatch.setenv("PYTHONPATH", str(Path(pytest_xpnet.__file__).parent))
    pytester.makepyfile(**FILES)

    def run(*options):
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", *options)

    return run


@pytest.fixture
def plant(run, pytester):
    """Replace one text of the library, and run."""

    def plant(old, new):
        assert old in FILES["tables"]
        pytester.makepyfile(tables=FILES["tables"].replace(old, new))
        return run("-rf", "--backends", "numpy,strict")

    return plant


def test_the_page_has_a_library_tests_and_faults():
    assert set(FILES) == {"tables", "test_tables"}
    assert len(FAULTS) == 5


def test_the_project_passes_on_every_library_that_is_here(run):
    result = run("-rs", "--strict-markers", "-W", "error", "--backends", ",".join(HERE))
    lacking = int("jax" in HERE)
    result.assert_outcomes(passed=4 * len(HERE) - lacking, skipped=lacking)


@pytest.mark.skipif("jax" not in HERE, reason="the page's command runs on JAX, which is not installed")
def test_the_command_prints_what_the_page_shows(run):
    command, shown = re.search(r"```sh\npython -m pytest (.*?)\n```\n\n((?:    .*\n)+)", PAGE).groups()
    result = run(*command.split())
    printed = "\n".join(result.outlines)
    for line in map(str.strip, shown.splitlines()):
        for part in re.split(r"\.\.\.\)?| test_tables\.py:\d+: ", line):
            assert part in printed, line
    result.assert_outcomes(passed=15, skipped=1)


@pytest.mark.parametrize(("old", "new", "where", "text"), FAULTS, ids=[fault[1] for fault in FAULTS])
def test_a_fault_of_the_table_is_caught_where_the_page_says(plant, old, new, where, text):
    result = plant(old, new)
    failed = [line for line in result.outlines if line.startswith("FAILED")]
    assert len(failed) == 1
    assert f"[{where}]" in failed[0]
    assert text in "\n".join(result.outlines)


def test_a_result_in_another_precision_is_caught_everywhere(plant):
    result = plant("xp.max(xp.abs(x))", "xp.astype(xp.max(xp.abs(x)), xp.float64)")
    result.assert_outcomes(passed=9, failed=3)
    result.stdout.fnmatch_lines(["*on numpy: expected float32, got float64*"])


def test_the_page_names_every_marker_fixture_and_capability():
    for name in (*pytest_xpnet.OPTIONS, "xp", "device", "backend", "xpnet_backend", *pytest_xpnet.LIBRARIES):
        assert re.search(rf"\b{name}\b", PAGE), name
    for name in PROBES:
        assert f"`{name}`" in PAGE or re.fullmatch(r"bool|u?int\d+|float32|complex\d+", name), name
