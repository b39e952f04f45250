import os
import subprocess
import sys
from importlib.metadata import version

import pytest

import xpnet as xn
from xpnet.cli import main


def test_doctor_prints_every_backend(capsys, monkeypatch):
    monkeypatch.delenv("XPNET_BACKEND", raising=False)
    assert main(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0].startswith(f"xpnet {version('xpnet')}, Python {sys.version.split()[0]}, ")
    rows = {line.split()[0]: line for line in lines[2:-2] if not line.startswith(" ")}
    assert list(rows) == ["numpy", "cupy", "torch", "jax", "strict"]
    usable = xn.available_backends()
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
