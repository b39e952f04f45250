import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import xpnet
from xpnet import cli, selfcheck
from xpnet.backends import backend, use
from xpnet.backends.numpy import NumpyBackend
from xpnet.errors import BackendError

RESULTS = sorted((Path(xpnet.__file__).parents[1] / "benchmarks" / "selfcheck").glob("cupy*.json"))


def usable(name):
    try:
        backend(name)
    except BackendError as error:
        pytest.skip(f"{name}: {error}")
    return name


@pytest.mark.parametrize("name", ["numpy", "torch", "strict", pytest.param("jax", marks=pytest.mark.slow)])
def test_a_quick_selfcheck_passes(name, tmp_path):
    path = tmp_path / "found" / "result.json"
    command = [sys.executable, "-m", "xpnet", "selfcheck", "--backend", usable(name), "--quick", "--json", str(path)]
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}  # compiled as for users
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(path.read_text())
    assert result["passed"]
    assert result["backend"] == name
    assert result["sources"] == selfcheck.sources()
    assert len(result["checks"]) == len(selfcheck.CHECKS)
    left = {check["name"] for check in result["checks"] if check["passed"] is None}
    assert left == ({"mnist"} if backend(name).memory() is not None else {"mnist", "memory"})
    ran = len(selfcheck.CHECKS) - len(left)
    assert (result["ran"], result["succeeded"], result["left_out"]) == (ran, ran, len(left))
    assert {"xpnet", "numpy", "python"} <= set(result["versions"])
    assert f": {ran} of {ran} checks passed, {len(left)} left out, " in done.stdout
    assert "left out mnist" in done.stdout
    assert "tolerance" in done.stdout


class Wrong(NumpyBackend):
    """NumPy with a mistake in every product."""

    def matmul(self, a, b, out=None):
        result = super().matmul(a, b, out)
        result *= 1.001
        return result


class Noisy(NumpyBackend):
    """NumPy whose products differ from run to run, in the last place."""

    count = 0

    def matmul(self, a, b, out=None):
        Noisy.count += 1
        result = super().matmul(a, b, out)
        result *= 1.0 + (Noisy.count % 3) * 2e-7
        return result


@pytest.mark.parametrize(
    ("kind", "check"), [(Wrong, "layers"), (Wrong, "parity"), (Wrong, "precisions"), (Noisy, "repeat")]
)
def test_a_mistake_is_found(kind, check):
    (chosen,) = (c for c in selfcheck.CHECKS if c.__name__ == check)
    result = selfcheck.one(chosen, kind(), True, show=False)
    assert not result["passed"]
    assert "AssertionError" in result["error"]


def test_a_failure_is_the_exit_status(monkeypatch, capsys):
    def broken(backend, quick):
        """A check that fails."""
        raise AssertionError("off by 3 eps")

    monkeypatch.setattr(selfcheck, "CHECKS", (broken,))
    assert cli.main(["selfcheck", "--backend", "numpy", "--quick"]) == 1
    printed = capsys.readouterr().out
    assert "FAILED   broken" in printed
    assert "off by 3 eps" in printed


def test_a_backend_that_cannot_be_used_is_status_two(capsys):
    with use("numpy"):
        assert cli.main(["selfcheck", "--backend", "numpy:9"]) == 2
    assert "NumPy has no device " in capsys.readouterr().err


def test_the_readmes_table_comes_from_the_files(tmp_path, capsys):
    result = {"backend": "cupy", "device": "Some GPU, memory 1 MiB", "versions": {"cupy": "14.2.0", "driver": "13.0"}}
    result |= {"quick": False, "date": "2030-01-02T03:04:05+00:00", "checks": [{"passed": True}, {"passed": False}]}
    path = tmp_path / "selfcheck.json"
    path.write_text(json.dumps(result))
    assert cli.main(["selfcheck", "--table", str(path)]) == 0
    expected = "| cupy | Some GPU | cupy 14.2.0, driver 13.0 | 2030-01-02 | selfcheck: 1 of 2 checks passed |\n"
    assert capsys.readouterr().out == expected


def test_a_stand_in_is_no_row_of_the_table(tmp_path, capsys):
    result = {"backend": "cupy", "device": "cupy:0 stand-in, no GPU, number 0", "versions": {}, "quick": False}
    path = tmp_path / "selfcheck.json"
    path.write_text(json.dumps(result | {"date": "2030-01-02", "checks": []}))
    assert cli.main(["selfcheck", "--table", str(path)]) == 2
    assert capsys.readouterr().err.endswith("was not made on a GPU but on its stand-in: it is no row of this table\n")


@pytest.mark.parametrize("passed", [True, None])  # what older versions wrote, what this one writes
def test_what_was_left_out_is_not_counted_as_passed(passed):
    quick = {"passed": passed, "figures": {"accuracy": "left out by --quick"}}
    blind = {"passed": passed, "figures": {"growth": "not measured on this backend"}}
    ran = [{"passed": True, "figures": {"worst": "3 eps"}}, {"passed": False, "error": "AssertionError: off"}]
    assert selfcheck.tally([*ran, quick, blind]) == "1 of 2 checks passed, 2 left out"
    assert selfcheck.tally(ran[:1]) == "1 of 1 checks passed"


def test_the_readme_has_the_rows_of_the_committed_results():
    root = Path(xpnet.__file__).parents[1]
    readme = (root / "README.md").read_text(encoding="utf-8")
    rows = selfcheck.table(list((root / "benchmarks" / "selfcheck").glob("*.json"))).splitlines()
    assert len(rows) == 5
    assert [row for row in rows if row not in readme.splitlines()] == []


def test_the_hash_sees_every_source_that_counts(tmp_path, monkeypatch):
    before = selfcheck.sources()
    (tmp_path / "backends").mkdir()
    (tmp_path / "backends" / "x.py").write_text("a = 1\n")
    monkeypatch.setattr(selfcheck, "ROOT", tmp_path)
    first = selfcheck.sources()
    (tmp_path / "backends" / "x.py").write_text("a = 2\n")
    second = selfcheck.sources()
    (tmp_path / "look").mkdir()
    (tmp_path / "look" / "y.py").write_text("b = 1\n")
    assert len({before, first, second}) == 3
    assert selfcheck.sources() == second


@pytest.mark.parametrize("path", RESULTS or [None], ids=lambda path: path.name if path else "none")
def test_what_was_verified_on_a_gpu_is_still_what_is_here(path):
    """Reports, and does not fail: a change of the sources asks for a new run, which not every machine can do."""
    if path is None:
        pytest.skip("no selfcheck on a GPU is committed under benchmarks/selfcheck/")
    result = json.loads(path.read_text())
    if result["sources"] != selfcheck.sources():
        pytest.skip(f"the sources have changed since {result['device']} was checked on {result['date'][:10]}")
    assert result["checks"]
