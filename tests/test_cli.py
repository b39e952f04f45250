import errno
import gc
import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import xpnet as xn
from xpnet import cli, play, selfcheck
from xpnet.cli import main
from xpnet.selfcheck import training

TABLE = str(Path(__file__).parents[1] / "benchmarks" / "selfcheck" / "numpy.json")


def test_doctor_prints_every_backend(capsys, monkeypatch):
    monkeypatch.delenv("XPNET_BACKEND", raising=False)
    assert main(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0].startswith(f"xpnet {xn.__version__}, Python {sys.version.split()[0]}, ")
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
    assert (out if status == 0 else err).startswith(("usage: xpnet", f"xpnet {xn.__version__}"))


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "xpnet", "--version"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"xpnet {xn.__version__}\n", "")


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
    reader, writer = os.pipe()
    os.close(reader)
    try:
        status, said = run("selfcheck", "--table", TABLE, stdout=writer, PYTHONUNBUFFERED=unbuffered)
    finally:
        os.close(writer)
    assert (status, said) == (141, "")


def test_a_reader_that_has_left_as_windows_says_it(monkeypatch, capsys):
    class Left(io.TextIOBase):
        def write(self, text):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(sys, "stdout", Left())
    assert main(["selfcheck", "--table", TABLE]) == 2  # elsewhere it is another error
    assert capsys.readouterr().err == "xpnet: [Errno 22] Invalid argument\n"
    monkeypatch.setattr(cli, "GONE", (errno.EPIPE, errno.EINVAL))
    assert main(["selfcheck", "--table", TABLE]) == 141
    assert capsys.readouterr().err == ""


@pytest.mark.posix
@pytest.mark.parametrize(
    ("words", "where", "status", "said"),
    [
        (["--version"], ">&-", 0, f"xpnet {xn.__version__}\n"),
        (["selfcheck", "--table", TABLE], ">&-", 0, ""),
        (["selfcheck", "--table", "nothing.json"], ">&-", 2, "cannot read nothing.json: No such file or directory\n"),
        (["selfcheck", "--table", "nothing.json"], "2>&-", 2, ""),
        (["selfcheck", "--table", TABLE], ">/dev/full", 2, "xpnet: [Errno 28] No space left on device\n"),
        (["--help"], ">/dev/full", 2, "xpnet: [Errno 28] No space left on device\n"),
        (["doctor"], ">/dev/full", 2, "xpnet: [Errno 28] No space left on device\n"),
        (["selfcheck", "--table", "nothing.json"], "2>/dev/full", 2, ""),
        (["selfcheck", "--table", TABLE], ">/dev/full 2>/dev/full", 2, ""),
    ],
)
def test_with_nowhere_to_print_the_status_still_tells(words, where, status, said):
    if "full" in where and not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full, which Linux has")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    shell = ['exec "$0" "$@" ' + where, sys.executable, "-m", "xpnet", *words]
    done = subprocess.run(
        ["sh", "-c", *shell], capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert (done.returncode, done.stderr) == (status, said)


def test_what_an_encoding_has_not_is_spelt_out(monkeypatch):
    def fails(backend, quick):
        """Fail in the words of a check."""
        raise AssertionError("θ is off by 1 of Σ|aᵢ|")

    monkeypatch.setattr(selfcheck, "CHECKS", (fails,))
    for encoding, said in (("ascii", r"\u03b8 is off by 1 of \u03a3|a\u1d62|"), ("utf-8", "θ is off by 1 of Σ|aᵢ|")):
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
        assert main(["selfcheck", "--backend", "numpy"]) == 1
        assert f": {said}\n" in sys.stdout.buffer.getvalue().decode(encoding).replace("\r", "")


@pytest.mark.posix
def test_ctrl_c_ends_the_checks_without_a_traceback():
    # what a shell runs in the background ignores Ctrl-C, and so does what that starts
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"{heed}; import sys, xpnet.cli; sys.exit(xpnet.cli.main(sys.argv[1:]))"
    words = [sys.executable, "-u", "-c", program, "selfcheck", "--backend", "numpy"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("ok ")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (130, "")
    assert "checks passed" not in out


class HalfMade:
    """It lacks what its end needs, since Ctrl-C came while it was made."""

    def __init__(self):
        raise KeyboardInterrupt

    def __del__(self):
        raise AttributeError("no attribute '_ptr'")


def within_another_error():
    try:
        raise ValueError("another")
    except ValueError:
        HalfMade()


def another_error_within():
    try:
        HalfMade()
    except KeyboardInterrupt:
        raise KeyboardInterrupt from None


def as_its_cause():
    try:
        HalfMade()
    except KeyboardInterrupt as error:
        cause = error
    raise KeyboardInterrupt from cause


def beside_others():
    whole = [HalfMade.__new__(HalfMade)]
    HalfMade()
    whole.clear()


@pytest.mark.parametrize("made", [HalfMade, within_another_error, another_error_within, as_its_cause, beside_others])
@pytest.mark.parametrize(("words", "status"), [(["doctor"], 130), (["play", "--no-browser"], 0)])
def test_what_was_half_made_when_ctrl_c_came_does_not_complain(made, words, status, monkeypatch, capsys):
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    monkeypatch.setattr(cli, "examine", made)
    monkeypatch.setattr(play, "NEEDED", ())
    monkeypatch.setattr(play.secrets, "token_urlsafe", lambda size: made())
    assert main(words) == status
    gc.collect()
    assert capsys.readouterr().err == ""
    assert sys.unraisablehook is sys.__unraisablehook__


@pytest.mark.parametrize(("times", "printed"), [(1, 1), (2, 0)])
def test_ctrl_c_waits_for_the_check_that_runs_and_a_second_one_does_not(times, printed, monkeypatch, capsys):
    """Where it could not be raised it is not lost: in what cleans up, and in what a compiler calls back."""

    class Cleaned:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def pressed(backend, quick):
        """Ctrl-C."""
        Cleaned()
        if times == 2:
            signal.raise_signal(signal.SIGINT)
        return {}

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(selfcheck, "CHECKS", (pressed, lambda *_: pytest.fail("the next check ran")))
    assert main(["selfcheck", "--backend", "numpy"]) == 130
    out, err = capsys.readouterr()
    assert (out.count("ok       pressed"), out.count("\n"), err) == (printed, printed, "")
    assert signal.getsignal(signal.SIGINT) == before


def test_ctrl_c_while_mnist_is_learnt_is_no_failed_check(monkeypatch, capsys):
    """A fit takes the first Ctrl-C for a wish to end in peace."""
    fit = xn.Model.fit

    def pressed(model, *data, epochs, **how):
        stop = xn.Callback()
        stop.on_epoch_end = lambda model, history: signal.raise_signal(signal.SIGINT)
        return fit(model, *(array[:256] for array in data), epochs=epochs, callbacks=[stop], **how)

    monkeypatch.setattr(xn.Model, "fit", pressed)
    monkeypatch.setattr(selfcheck, "CHECKS", (training.mnist,))
    assert main(["selfcheck", "--backend", "numpy"]) == 130
    assert capsys.readouterr() == ("", "")


def test_checks_that_python_has_taken_out_are_not_run():
    done = subprocess.run(
        [sys.executable, "-O", "-m", "xpnet", "selfcheck", "--backend", "numpy"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = "python -O takes the checks out: run the selfcheck without it\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


@pytest.mark.parametrize("words", [[], ["doctor"], ["selfcheck"], ["play"]])
@pytest.mark.parametrize("columns", [60, 80])
def test_help_fits(words, columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        main([*words, "--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= columns


@pytest.mark.posix
@pytest.mark.parametrize("words", [["--help"], ["doctor"], ["selfcheck", "--table", TABLE]])
def test_a_screen_that_wants_no_colours_gets_none(words):
    """Python's own help has colours from 3.14 on."""
    import pty

    leader, follower = pty.openpty()
    how = {"env": os.environ | {"NO_COLOR": "1", "TERM": "xterm-256color"}, "stdout": follower, "stderr": follower}
    with subprocess.Popen([sys.executable, "-m", "xpnet", *words], **how) as process:
        os.close(follower)
        seen = b""
        while piece := seen_of(leader):
            seen += piece
    os.close(leader)
    assert process.returncode == 0
    assert b"xpnet" in seen
    assert b"\x1b" not in seen


def seen_of(screen):
    """Return what came to a terminal, nothing at its end, which Linux calls an error."""
    try:
        return os.read(screen, 4096)
    except OSError:
        return b""


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


PLACES = {
    "nothing": "",
    "a folder": "{folder}",
    "in a file": "{folder}/file.txt/x.json",
    "a pipe": "{folder}/pipe",
    "a link to a pipe": "{folder}/link",
    "a pipe without a name": "/dev/fd/{pipe}",
    "a device": "/dev/null",
}


@pytest.mark.parametrize("name", PLACES)
def test_a_place_that_cannot_be_written_is_refused_before_the_checks(name, tmp_path, capsys, monkeypatch):
    (tmp_path / "file.txt").write_text("here already")
    reader, writer = os.pipe()
    if "pipe" in name or "device" in name:
        if not os.path.exists(f"/dev/fd/{writer}"):
            pytest.skip("needs /dev")
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "link").symlink_to("pipe")
    place = PLACES[name].format(folder=tmp_path, pipe=writer)
    monkeypatch.setattr(selfcheck, "run", lambda *_: pytest.fail("the checks ran"))
    try:
        assert main(["selfcheck", "--json", place]) == 2
    finally:
        os.close(reader)
        os.close(writer)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"cannot write {place}: ")


def test_the_folder_of_a_result_is_made(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(selfcheck, "CHECKS", ())
    path = tmp_path / "new" / "folder" / "x.json"
    assert main(["selfcheck", "--backend", "numpy", "--json", str(path)]) == 0
    assert path.exists()


def test_a_folder_without_the_right_to_write_is_refused_before_the_checks(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(selfcheck, "run", lambda *_: pytest.fail("the checks ran"))
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    assert main(["selfcheck", "--json", str(tmp_path / "x.json")]) == 2
    text = f"cannot write {tmp_path / 'x.json'}: {os.strerror(errno.EACCES)}; what was there is untouched\n"
    assert capsys.readouterr().err == text
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
