import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import xpnet as xn

REFUSED = "mnist.py: error: argument"
EXAMPLES = Path(__file__).parent.parent / "examples"


def missing(path):
    """Say as the system does that there is no such file."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(Path(path)))


def complaints(done):
    """What a program wrote to stderr, but for the progress of its training."""
    return [line for line in done.stderr.splitlines() if not line.startswith(("training on ", "epoch "))]


def run(script, *arguments, **environment):
    env = {**os.environ, **environment}
    env.pop("XPNET_BACKEND", None)
    env |= environment
    return subprocess.run(
        [sys.executable, EXAMPLES / script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=env,
    )


def test_mnist_trains_saves_and_reports(tmp_path):
    done = run(
        "mnist.py", "--backend", "numpy", "--epochs", 1, "--layers", "784,32,10", "--seed", 3,
        "--json", tmp_path / "result.json", "--save", tmp_path / "model.xpnet",
    )  # fmt: skip
    assert (done.returncode, complaints(done)) == (0, [])
    assert done.stdout.startswith("numpy on cpu: asked for by name\n")
    result = json.loads((tmp_path / "result.json").read_text())
    assert list(result) == [
        "backend", "device", "processes", "versions", "settings", "history",
        "test_accuracy", "train_seconds", "total_seconds",
    ]  # fmt: skip
    assert (result["backend"], result["device"]) == ("numpy", "cpu")
    assert result["versions"]["numpy"] == np.__version__
    assert result["settings"] == {
        "backend": "numpy",
        "world": None,
        "layers": [784, 32, 10],
        "activation": "relu",
        "optimizer": "adam",
        "lr": 4e-3,
        "epochs": 1,
        "batch_size": 128,
        "seed": 3,
        "save": str(tmp_path / "model.xpnet"),
        "checkpoint": None,
        "every": None,
        "resume": None,
        "json": str(tmp_path / "result.json"),
    }
    assert {len(values) for values in result["history"].values()} == {1}
    assert {"loss", "accuracy", "val_loss", "val_accuracy", "max_weight", "gradient_norm"} <= set(result["history"])
    assert result["test_accuracy"] > 0.9
    assert 0 < result["train_seconds"] < result["total_seconds"]
    assert f"test accuracy {100 * result['test_accuracy']:.2f} % after 1 epochs" in done.stdout
    model = xn.load(tmp_path / "model.xpnet", backend="numpy")
    _, (images, labels) = xn.datasets.mnist()
    assert model.evaluate(images, labels)["accuracy"] == pytest.approx(result["test_accuracy"], abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--backend", "nonsense"], 1, 'error: unknown backend "nonsense": choose one of auto, numpy, '),
        (["--backend", "numpy:7"], 1, 'error: NumPy has no device "7" here: choose one of [\'cpu\']'),
        (["--layers", "784,x,10"], 2, f"{REFUSED} --layers: invalid sizes value: '784,x,10'"),
        (["--layers", "100,10"], 2, f"{REFUSED} --layers: MNIST needs 784 inputs and 10 outputs: "),
        (["--layers", "784,0,10"], 2, f"{REFUSED} --layers: MNIST needs 784 inputs and 10 outputs: "),
        (["--epochs", "0"], 2, f"{REFUSED} --epochs: must be at least 1"),
        (["--batch-size", "-5"], 2, f"{REFUSED} --batch-size: must be at least 1"),
        (["--lr", "0"], 2, f"{REFUSED} --lr: must be above 0"),
        (["--lr", "nan"], 2, f"{REFUSED} --lr: must be above 0"),
        (["--seed", "-1"], 2, f"{REFUSED} --seed: must be at least 0"),
        (["--save", "/no/folder/x"], 2, f"{REFUSED} --save: cannot write /no/folder/x: "),
        (["--json", "/"], 2, f"{REFUSED} --json: cannot write /: "),
        (
            ["--backend", "numpy", "--layers", "784,16,16,10", "--optimizer", "sgd", "--lr", "1e20", "--epochs", "1"],
            1,
            "error: the learning rate became ",
        ),
    ],
)  # fmt: skip
def test_mnist_refuses_in_one_line_and_before_training(arguments, status, message):
    done = run("mnist.py", *arguments)
    assert done.returncode == status
    assert done.stderr.splitlines()[-1].startswith(message)
    assert "Traceback" not in done.stderr
    assert status == 2 or len(complaints(done)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("net", ["residual", "plain"])
def test_images_trains_on_the_command_line_of_mnist(tmp_path, net):
    done = run(
        "images.py", "--backend", "numpy", "--epochs", 1, "--width", 2, "--net", net, "--json", tmp_path / "result.json"
    )  # fmt: skip
    assert (done.returncode, complaints(done)) == (0, [])
    result = json.loads((tmp_path / "result.json").read_text())
    assert {"net": net, "width": 2, "augment": True, "optimizer": "adamw", "lr": 4e-3}.items() <= result[
        "settings"
    ].items()
    assert result["test_accuracy"] > 0.9
    assert f"test accuracy {100 * result['test_accuracy']:.2f} % after 1 epochs" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--net", "deep"], "argument --net: invalid choice: 'deep' (choose from "),
        (["--width", "0"], "argument --width: must be at least 1"),
        (["--layers", "784,10"], "unrecognized arguments: --layers 784,10"),
    ],
    ids=["net", "width", "layers"],
)
def test_images_refuses_in_one_line_and_before_training(arguments, message):
    done = run("images.py", *arguments)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"images.py: error: {message}")


@pytest.mark.parametrize("net", ["transformer", "gru"])
def test_characters_learns_writes_saves_and_writes_again(tmp_path, net):
    text = tmp_path / "text"
    text.write_text("to be, or not to be: that is the question\n" * 60)
    small = ["--backend", "numpy", "--features", 16, "--length", 16, "--blocks", 1, "--characters", 30]
    saved = ["--save", tmp_path / "model", "--json", tmp_path / "result.json"]
    done = run(
        "characters.py", *small, "--net", net, "--epochs", 6, "--batch-size", 8, "--text", text, "--lr", 0.02, *saved
    )
    assert (done.returncode, complaints(done)) == (0, [])
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["test_bits"] == result["history"]["val_bits"][-1] < 2.5
    assert len(result["history"]["val_bits"]) == 6
    assert f"{result['test_bits']:.3f} bits a character after 6 epochs" in done.stdout
    assert done.stdout.count(" bits: 'The ") == 6
    again = run("characters.py", *small, "--generate", tmp_path / "model")
    assert (again.returncode, complaints(again)) == (0, [])
    written = done.stdout.rpartition(" s\n\n")[2]
    assert again.stdout == f"numpy on cpu: asked for by name\n{written}"
    assert len(written) == len("The ") + 30 + len("\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--features", "30"], "characters.py: error: argument --features: must be a multiple of 4"),
        (["--dropout", "1"], "characters.py: error: argument --dropout: must be at least 0 and below 1"),
        (["--temperature", "-1"], "characters.py: error: argument --temperature: must be above 0"),
        (["--generate", "no/model"], f"error: cannot read {Path('no/model')}: {os.strerror(errno.ENOENT)}"),
        (
            ["--text", "no/text"],
            f"error: {FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(Path('no/text')))}",
        ),
    ],
    ids=["features", "dropout", "temperature", "generate", "text"],
)
def test_characters_refuses_in_one_line(arguments, message):
    done = run("characters.py", "--backend", "numpy", *arguments)
    assert done.returncode > 0
    assert done.stderr.splitlines()[-1] == message
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["numpy", pytest.param("strict", marks=pytest.mark.slow)])
def test_theta_solves_two_spirals_by_hand_and_by_scipy(name):
    pytest.importorskip("scipy", reason="the example's second half is SciPy's L-BFGS, and SciPy is not installed")
    done = run("theta.py", name)
    assert (done.returncode, complaints(done)) == (0, [])
    lines = done.stdout.splitlines()
    assert [line.split("step ")[1].split()[0] for line in lines[:-1]] == ["0", "1000", "2000", "3000", "4000"]
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines]
    accuracies = [float(line.split()[-1]) for line in lines]
    assert losses[0] > 0.5
    assert accuracies[0] < 0.7
    assert accuracies[-2] > 0.95
    assert losses[-1] < 0.01
    assert accuracies[-1] == 1.0


def test_mnist_goes_on_from_a_checkpoint(tmp_path):
    path, whole = tmp_path / "run.safetensors", tmp_path / "whole.safetensors"
    settings = ["--backend", "numpy", "--layers", "784,16,10", "--epochs", "3"]
    run("mnist.py", *settings, "--save", whole)
    saving = ["--checkpoint", str(path), "--every", "50"]
    with subprocess.Popen([sys.executable, EXAMPLES / "mnist.py", *settings, *saving], stdout=subprocess.PIPE) as child:
        while not path.exists():
            assert child.poll() is None
            time.sleep(0.005)
        child.kill()
    assert xn.load(path, "numpy").underway is not None
    done = run("mnist.py", "--backend", "numpy", "--resume", path)
    assert "after 3 epochs" in done.stdout
    assert np.array_equal(xn.load(path, "numpy").theta, xn.load(whole, "numpy").theta)
    again = run("mnist.py", "--backend", "numpy", "--resume", path)
    assert again.returncode == 1
    assert again.stderr.startswith("error: there is nothing to resume")


@pytest.mark.parametrize("script", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_help_fits_eighty_columns(script):
    pytest.importorskip("matplotlib" if script == "lab.py" else "numpy")
    if script == "lbfgs.py":
        pytest.importorskip("scipy")
    done = run(script, "--help", COLUMNS="80")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {script} [-h]")
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_summary_is_printed_in_an_encoding_without_its_arrow(encoding):
    settings = ["--backend", "numpy", "--epochs", "1", "--layers", "784,10"]
    done = run("mnist.py", *settings, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert (done.returncode, complaints(done)) == (0, [])
    assert r"Linear(784\u219210)" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "lab.py: error: argument --seeds: must be at least 1"),
        (["--backend", "abacus"], 'error: unknown backend "abacus": choose one of '),
        (["--out", __file__], f"error: {FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), __file__)}"),
    ],
)
def test_lab_refuses_in_one_line_and_before_training(arguments, message):
    pytest.importorskip("matplotlib")
    done = run("lab.py", "--quick", *arguments)
    assert done.returncode > 0
    assert done.stderr.splitlines()[-1].startswith(message)
    assert "Traceback" not in done.stderr
