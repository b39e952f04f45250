import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import xpnet as xn
from xpnet import selfcheck
from xpnet.cli import main


def test_doctor_prints_every_backend(capsys, monkeypatch):
    monkeypatch.delenv("XPNET_BACKEND", raising=False)
    assert main(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0].startswith(f"xpnet {version('xpnet')}, Python {sys.version.split()[0]}, ")
    rows = {line.split()[0]: line for line in lines[2:-2] if not line.startswith(" ")}
    assert list(rows) == ["numpy", "cupy", "torch", "jax", "strict", "mpi"]
    usable, mpi = xn.available_backends(), rows.pop("mpi")
    if mpi.split()[2] == "usable":
        assert re.fullmatch(r"mpi     \S+ +usable      .+, 1 rank, \d+ threads? each, (memory is|no) shared.*", mpi)
    else:
        assert "pip install" in mpi.partition("not usable")[2]
    for name, row in rows.items():
        assert ("not usable" in row) == (name not in usable)
        if name in usable:
            assert row.endswith(f"usable      {', '.join(usable[name])}")
            assert row.split()[1] == xn.backend(name).version
        else:
            assert ":" in row.partition("not usable")[2]  # the problem, and after the colon the remedy
    chosen = xn.backend("auto")
    assert lines[-1] == f"used by default: {chosen.name} on {chosen.device}, {chosen.reason}"


def test_doctor_with_a_backend_that_nobody_knows(capsys, monkeypatch):
    monkeypatch.setenv("XPNET_BACKEND", "abacus")
    assert main(["doctor"]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    known = "choose one of auto, numpy, cupy, torch, jax, strict"
    assert last == f'XPNET_BACKEND cannot be used: unknown backend "abacus": {known}'


def test_doctor_with_a_chosen_backend(capsys, monkeypatch):
    monkeypatch.setenv("XPNET_BACKEND", "strict:device1")
    assert main(["doctor"]) == 0
    assert "used by default: strict on array_api_strict.Device('device1'), asked for by name" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "status"), [([], 2), (["nonsense"], 2), (["--version"], 0), (["--help"], 0)])
def test_other_arguments(arguments, status, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == status
    out, err = capsys.readouterr()
    assert (out if status == 0 else err).startswith(("usage: xpnet", f"xpnet {version('xpnet')}"))


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "xpnet", "--version"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"xpnet {version('xpnet')}\n", "")


def run(*words, stdout=subprocess.PIPE, **environment):
    """Run the program; return its status and what it says of errors."""
    done = subprocess.run(
        [sys.executable, "-m", "xpnet", *words],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=os.environ | environment,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_left_is_no_traceback(unbuffered):
    table = os.path.join(os.path.dirname(__file__), "..", "benchmarks", "selfcheck", "numpy.json")
    reader, writer = os.pipe()
    os.close(reader)
    try:
        status, said = run("selfcheck", "--table", table, stdout=writer, PYTHONUNBUFFERED=unbuffered)
    finally:
        os.close(writer)
    assert (status, said) == (141, "")


def test_without_a_standard_output_the_status_still_tells():
    shell = f'exec "{sys.executable}" -m xpnet selfcheck --table nothing.json >&-'
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (2, "cannot read nothing.json: No such file or directory\n")


def test_doctor_survives_a_backend_that_breaks(capsys, monkeypatch):
    def broken(name=None):
        raise OSError("libfoo.so: undefined symbol")

    monkeypatch.setattr("xpnet.cli.backend", broken)
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.endswith("\nXPNET_BACKEND cannot be used: libfoo.so: undefined symbol\n")


WRONG_FILES = {
    "missing": None,
    "not JSON": "no result",
    "not UTF-8": b"\xff\xfe",
    "a list": "[]",
    "another object": '{"backend": "numpy"}',
    "no figures": '{"backend": "numpy", "versions": {}, "quick": false, "checks": [3], "date": ""}',
    "a version that is a list": '{"versions": []}',
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_file_that_is_no_result_is_told_in_one_line(name, tmp_path, capsys):
    path, content = tmp_path / "result.json", WRONG_FILES[name]
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(["selfcheck", "--table", str(path)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith((f"cannot read {path}: ", f"{path} is not what `xpnet selfcheck --json` writes ("))


@pytest.mark.parametrize("place", ["", "file.txt/x.json"])
def test_a_place_that_cannot_be_written_is_refused_before_the_checks(place, tmp_path, capsys, monkeypatch):
    (tmp_path / "file.txt").write_text("here already")
    monkeypatch.setattr(selfcheck, "run", lambda *_: pytest.fail("the checks ran"))
    assert main(["selfcheck", "--json", str(tmp_path / place)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"cannot write {tmp_path / place}: ")


def test_a_folder_without_the_right_to_write_is_refused_before_the_checks(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(selfcheck, "run", lambda *_: pytest.fail("the checks ran"))
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    assert main(["selfcheck", "--json", str(tmp_path / "x.json")]) == 2
    assert "may not be written" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_backend_left_out_is_the_environments(monkeypatch, capsys):
    asked = []

    def run(name, quick):
        asked.append(name)
        raise xn.BackendError("not now")

    monkeypatch.setattr(selfcheck, "run", run)
    for value in ("strict", "numpy", ""):
        monkeypatch.setenv("XPNET_BACKEND", value)
        assert main(["selfcheck"]) == 2
    assert main(["selfcheck", "--backend", "torch"]) == 2
    assert asked == ["strict", "numpy", "auto", "torch"]


def test_a_result_that_cannot_be_saved_at_last_leaves_the_old_one(tmp_path, capsys, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    path = tmp_path / "x.json"
    path.write_text("old")
    monkeypatch.setattr(selfcheck, "CHECKS", ())
    monkeypatch.setattr("os.fsync", full)
    assert main(["selfcheck", "--backend", "numpy", "--json", str(path)]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert path.read_text() == "old"
