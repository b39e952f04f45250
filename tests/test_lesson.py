"""The notebooks of the lesson: clean in git, run from start to end, and their figures are those the text promises."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import xpnet as xn

nbformat = pytest.importorskip("nbformat")

NOTEBOOKS = sorted((Path(xn.__file__).parents[1] / "examples" / "lesson").glob("*.ipynb"))
if not NOTEBOOKS:
    pytest.skip("the notebooks are not installed", allow_module_level=True)

PROMISES = {
    "01-perceptron": ["best_accuracy == 0.75", "ten_accuracy > 0.88"],
    "03-one-layer": ["(round(before, 3), round(after, 3)) == (0.725, 0.825)", "history['accuracy'][-1] >= 0.79"],
    "04-backpropagation": ["same", "error < 1e-8", "'Wrong' in message"],
    "05-several-layers": ["min(two_layers) >= 0.83", "results['one layer'] <= 0.7", "results['three layers'] >= 0.99"],
    "06-regression": ["distance['absolute error'] < 0.5 * distance['squared error']"],
    "07-overfitting": ["all(final[remedy] < final['none'] for remedy in list(final)[1:])"],
    "08-mnist-lab": ["one_accuracy >= 0.92", "three_accuracy >= 0.975"],
}
"""What must be true at the end of each notebook."""


def read(path):
    return nbformat.read(path, as_version=4)


def stem(path):
    return path.stem


def test_all_eight_are_there():
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{k:02d}" for k in range(1, 9)]
    assert set(PROMISES) <= {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=stem)
def test_notebook_is_clean(path):
    """No outputs in git, short cells, a title, nothing of the author's machine, and something seen at the end."""
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.cells[0].source.startswith(f"# {int(path.stem[:2])}. ")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
            assert len(cell.source.splitlines()) <= 45
    assert re.search(r"plot\.|ax\.legend", notebook.cells[-1].source)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=stem)
def test_notebook_runs_from_start_to_end(path, tmp_path, monkeypatch):
    """In a fresh kernel, on NumPy, elsewhere than in its folder, without a warning; then its promises hold."""
    client = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    for name in ("matplotlib", "sklearn"):
        pytest.importorskip(name)
    monkeypatch.setenv("XPNET_BACKEND", "numpy")
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, os.environ.get(name, "1"))
    notebook = read(path)
    checks = "\n".join(f"assert {promise}, {promise!r}" for promise in PROMISES.get(path.stem, []))
    notebook.cells.append(nbformat.v4.new_code_cell(checks))
    client.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr"] == []
    assert any("image/png" in o.get("data", {}) for o in outputs)


@pytest.mark.slow
def test_lab_writes_its_report(tmp_path):
    """The program of the lab, one seed and one epoch: four answers with figures, three pictures, no host name."""
    pytest.importorskip("matplotlib")
    lab = NOTEBOOKS[0].parents[1] / "lab.py"
    environment = os.environ | {"MPLBACKEND": "Agg", "XPNET_BACKEND": "numpy", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", lab, "--seeds", "1", "--epochs", "1", "--out", tmp_path / "report"]
    subprocess.run(command, check=True, env=environment, capture_output=True, timeout=120)
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "README.md",
        "accuracy.png",
        "gradients.png",
        "weights.png",
    }
    text = (tmp_path / "report" / "README.md").read_text()
    answers = re.findall(r"^## .*\?$\n\n(.+)$", text, flags=re.MULTILINE)
    assert len(answers) == 4
    assert all(len(re.findall(r"\d+\.\d+", answer)) >= 3 for answer in answers)
    assert str(tmp_path) not in text


def test_committed_report_meets_the_figures_of_the_lesson():
    text = (NOTEBOOKS[0].parents[1] / "lab" / "README.md").read_text()
    rows = re.findall(r"^\| (\d) layers?.*?\|.*?\|.*?\| ([\d.]+) ± ", text, flags=re.MULTILINE)
    assert len(rows) == 7
    for layers, accuracy in rows:
        assert float(accuracy) >= {1: 92.0, 2: 97.5, 3: 97.8}[int(layers)]
