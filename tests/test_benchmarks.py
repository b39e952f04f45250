"""The figures that benchmarks derive, the page they write, and the counts that may not grow. No timing is asserted."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("benchmarks", reason="benchmarks/ is not part of an installed xpnet")

from benchmarks import accuracy, contenders, device, goals, guard, harness, install, machine, report, summary
from benchmarks import gpu as gpu_plan
from benchmarks.__main__ import arguments, kept
from benchmarks.contenders import Contender
from benchmarks.cpu import USUAL, tasks
from benchmarks.settings import NETS, PRECISIONS, Settings, write_mnist

ROOT = Path(report.__file__).parent.parent


def case(**contenders):
    """A case in which contenders took these seconds."""
    results = {
        name: {"first": 1.0, "seconds": seconds, "losses": [0.5, 0.25], "memory": {"peak": 3e8, "baseline": 1e8}}
        for name, seconds in contenders.items()
    }
    task = Settings()
    facts = {key: getattr(task, key) for key in ("net", "batch", "optimizer", "samples", "precision", "expected_bytes")}
    return facts | {"contenders": {name.replace("_", "-"): result for name, result in results.items()}}


@pytest.fixture
def results():
    points = [{"x": x, "seconds": [0.1 * x], "bytes": x} for x in (1, 2, 4)]
    epochs = [
        case(xpnet_numpy=[0.3, 0.375], torch=[0.6, 0.8], torch_flush=[0.4, 0.5], sklearn=[1.0, 1.0], floor=[0.1, 0.1])
    ]
    return {
        "kind": "cpu",
        "date": "2000-01-02",
        "machine": {"processor": "a chip", "cores": 2},
        "versions": {"numpy": "2.0"},
        "missing": {"thinc": "not installed: thinc"},
        "epochs": epochs,
        "start": {
            name: {"seconds": [s], "epochs": [4], "accuracy": [0.976]} for name, s in (("xpnet-numpy", 2), ("torch", 4))
        },
        "imports": {"import xpnet": {"seconds": [0.1]}},
        "install": {"xpnet": {"bytes": 2**20, "distributions": 3}},
        "growth": {"xpnet-numpy": {"samples": points, "width": points}},
        "busy": {"xpnet-numpy": {"quiet": [1.0], "busy": [1.5]}},
    }


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_slope_is_the_power(power):
    assert summary.slope([(x, 3 * x**power) for x in (1, 2, 5, 9)]) == pytest.approx(power)


@pytest.mark.parametrize("points", [[], [(1, 1)], [(2, 1), (2, 3)], [(1, 0), (2, 4)]])
def test_no_slope_without_a_line(points):
    assert math.isnan(summary.slope(points))


def test_a_ratio_compares_neighbours_in_time():
    assert summary.ratio([1.0, 10.0, 3.0], [2.0, 20.0, 6.0, 99.0]) == 0.5


def test_pytorch_is_the_faster_of_flushed_and_not(results):
    one = results["epochs"][0]
    assert summary.pytorch(one) == "torch-flush"
    assert summary.against(one, "xpnet-numpy", "torch-flush") == pytest.approx(0.75)
    assert summary.against(one, "xpnet-numpy", "thinc") is None


def test_who_trains_something_else_is_found(results):
    one = results["epochs"][0]
    assert summary.suspicious(one) == []
    one["contenders"]["sklearn"]["losses"] = [0.5, 1.9]
    assert summary.suspicious(one) == ["sklearn"]
    assert "Not the same training, by their loss: sklearn." in report.epoch_table(one, {})


def test_of_the_convolutional_net_the_last_loss_alone_tells_nothing(results):
    one = results["epochs"][0]
    one["contenders"]["sklearn"]["losses"] = [0.5, 0.125]
    assert summary.suspicious(one) == ["sklearn"]
    assert summary.suspicious(one | {"net": "cnn"}) == []
    one["contenders"]["sklearn"]["losses"] = [0.5, 0.9]
    assert summary.suspicious(one | {"net": "cnn"}) == ["sklearn"]


def test_memory_is_told_in_terms_of_what_the_task_needs(results):
    task = Settings()
    assert task.parameters == 784 * 128 + 128 + 128 * 10 + 10
    assert summary.memory(results["epochs"][0], "torch") == pytest.approx(2e8 / task.expected_bytes)


def test_goals_are_reached_missed_or_not_measured(results):
    found = {what: (reached, limit) for what, reached, limit in goals.goals(results)}
    assert found["784-128-10: numpy against PyTorch"] == (pytest.approx(0.75), 1.0)
    assert found["784-128-10: numpy + fast against PyTorch"][0] is None
    assert found["process start to 97.5 %: the best xpnet backend against the fastest peer"][0] == 0.5
    assert found["xpnet-numpy: epoch time over samples, slope"][0] == pytest.approx(1.0)
    text = report.goal_table(results)
    assert "| not measured |" in text
    assert "| yes |" in text


def test_the_page_names_what_is_missing_and_everything_that_was_measured(results):
    text = report.page(results, "x.png")
    for part in (
        "Missing: thinc (not installed: thinc)",
        "a chip",
        "numpy 2.0",
        "**xpnet on NumPy**",
        "0.75 ×",
        "1.50 ×",
    ):
        assert part in text
    head, *rows = (line for line in report.epoch_table(results["epochs"][0], {}).splitlines())
    assert {row.count("|") for row in rows} == {head.count("|")}
    assert report.page({**results, "kind": "gpu"}, "x.png").startswith("# Benchmarks, GPU")


@pytest.mark.parametrize(("kind", "other"), [("cpu", "gpu"), ("gpu", "cpu")])
def test_the_readme_is_replaced_between_its_markers_alone(kind, other):
    start, end = report.MARKS[kind]
    old = f"before\n{start}\nold\n{end}\nafter"
    new = report.replace_part(old, "new", kind)
    assert new == f"before\n{start}\n\nnew\n\n{end}\nafter"
    assert report.replace_part(new, "new", kind) == new
    for text in ("no markers", f"only {start}"):
        assert report.replace_part(text, "new", kind) == text
    assert report.replace_part(old, "new", other) == old


def test_a_report_is_written_from_the_json(results, tmp_path):
    pytest.importorskip("matplotlib")
    path, readme = tmp_path / "cpu" / "2000-01-02.json", tmp_path / "README.md"
    path.parent.mkdir()
    path.write_text(json.dumps(results))
    readme.write_text("".join(report.MARKS["cpu"]))
    assert [file.name for file in report.write(path, readme)] == ["2000-01-02.md", "2000-01-02.png", "README.md"]
    text = readme.read_text()
    assert "](cpu/2000-01-02.md)" in text
    assert 2 <= sum(line.startswith(("| **xpnet", "| ")) for line in text.splitlines()) - 2 <= 5
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_what_was_measured_gets_its_page(results, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "find_spec", lambda name: None)
    path, readme = tmp_path / "2000-01-02.json", tmp_path / "README.md"
    path.write_text(json.dumps(results))
    readme.write_text("".join(report.MARKS["cpu"]))
    assert [file.name for file in report.write(path, readme)] == ["2000-01-02.md"]
    assert readme.read_text() == "".join(report.MARKS["cpu"])


def test_a_missing_peer_is_named():
    peers = [
        Contender("here", "", "numpy", modules=("json",)),
        Contender("gone", "", "numpy", modules=("no_such_module",)),
    ]
    where, missing = contenders.find(peers, [sys.executable])
    assert where == {"here": sys.executable}
    assert missing == {"gone": "not installed: no_such_module"}


def test_contenders_take_turns_and_one_that_fails_is_named():
    hidden = Contender("hidden", "", "xpnet", hidden=("xpnet",))
    chosen = [*contenders.choose(contenders.CPU, ["xpnet-numpy", "numpy"]), hidden]
    task = Settings((784, 8, 10), samples=300)
    with harness.bench(chosen, [sys.executable], {}) as bench:
        bench.log = lambda text: None
        found = harness.epochs(bench, task, repeats=2, budget=0, least=1)["contenders"]
    assert list(found) == ["xpnet-numpy", "numpy"]
    assert [len(one["seconds"]) for one in found.values()] == [1, 1]
    assert all(len(one["losses"]) == 2 and one["losses"][1] < one["losses"][0] for one in found.values())
    assert list(bench.missing) == ["hidden"]
    assert "xpnet" in bench.missing["hidden"]


def test_names_are_checked_and_labels_are_told_apart():
    with pytest.raises(ValueError, match="no contender"):
        contenders.choose(contenders.CPU, ["tensorfly"])
    for known in (contenders.CPU, contenders.GPU):
        assert len({c.name for c in known}) == len({c.label for c in known}) == len(known)
        assert all((ROOT / "benchmarks/peers" / f"{c.peer}.py").exists() for c in known)


def test_the_usual_cases_and_all_of_them():
    assert [(t.net, t.batch, t.optimizer) for t in tasks([], [], [], False, 60000)] == USUAL
    assert len(tasks([], [], [], True, 60000)) == 18
    assert [t.batch for t in tasks(["784-32-10"], [1, 2], [], False, 60000)] == [1, 2]


def test_settings_survive_the_command_line():
    task = Settings((784, 5, 10), options={"flush": True}, precision="tf32", kind="cnn")
    assert Settings.from_json(task.to_json()) == task


def test_a_gpu_is_asked_for_only_where_there_is_one():
    if machine.gpus():
        pytest.skip("there is a GPU")
    done = subprocess.run([sys.executable, "-m", "benchmarks", "gpu"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip() == "no CUDA device answered on this machine: python -m benchmarks gpu needs one"


def test_install_size_counts_dependencies_once():
    one, both = install.measure(["pytest"]), install.measure(["pytest", "pytest", "pluggy"])
    assert one == both
    assert one["distributions"] > 1
    assert one["bytes"] > install.measure(["pluggy"])["bytes"] > 0
    with pytest.raises(LookupError, match="no extra"):
        install.measure(["pytest[no-such-extra]"])


def test_the_command_line_has_defaults():
    args = arguments(["cpu"])
    assert (args.device, args.full, args.nets) == ("cpu", False, [])
    assert arguments(["gpu"]).device == "cuda"


@pytest.fixture
def gpu(results):
    """A run on a GPU of which parts are missing."""
    ours = {"xpnet_compiled": [0.016, 0.016], "torch": [0.16, 0.16], "jax_scan": [0.02, 0.02], "floor": [0.01, 0.01]}
    small, cnn = case(**ours) | {"precision": "bfloat16"}, case(**ours) | {"net": "cnn", "precision": "tf32"}
    small["contenders"]["xpnet-compiled"]["figures"] = {"nodes": 11.0, "busy": 0.0152}
    cnn["contenders"]["xpnet-compiled"]["figures"] = {}  # the worker failed
    cnn["expected_bytes"] = None
    one = {"seconds": [3.0], "training": [0.2], "epochs": [9], "accuracy": [0.981]}
    run = {"epochs": 7, "training": 1.5, "accuracy": 0.995, "whole training": 2.0, "seconds": 5.0}
    never = run | {"epochs": None, "training": None}
    recipes = {"cnn": {"goal": 0.994, "command": "python x", "runs": [run, run, never]}}
    recipes["dense"] = {"goal": 0.98, "command": "python y", "runs": []}
    rest = {"kind": "gpu", "goal": 0.98, "start": {"xpnet-compiled": one}, "accuracy": recipes}
    return {key: results[key] for key in ("date", "machine", "versions", "missing")} | rest | {"epochs": [small, cnn]}


def test_goals_of_a_gpu(gpu):
    found = {what: reached for what, reached, _ in goals.goals(gpu)}
    name = "784-128-10, batch 128, bfloat16"
    assert found[f"{name}: compiled against PyTorch eager"] == pytest.approx(0.1)
    assert found[f"{name}: compiled against torch.compile and JAX scan"] == pytest.approx(0.8)
    assert found[f"{name}: nodes of a step's graph"] == 11.0
    assert found[f"{name}: microseconds of a step"] == pytest.approx(16000 / 469)
    assert found[f"{name}: share of an epoch in which the device waits"] == pytest.approx(0.05)
    assert found["cnn, batch 128, TF32: compiled against PyTorch eager, cuDNN"] == pytest.approx(0.1)
    assert found["cnn, batch 1024, TF32: compiled against PyTorch eager, cuDNN"] is None
    assert found["seconds of training to 98 %: compiled"] == 0.2
    assert found["seconds from process start to 98 %: compiled"] == 3.0


def test_the_page_of_a_gpu_tells_figures_and_accuracies(gpu):
    text = report.page(gpu, "x.png")
    for part in (
        "## 784-128-10, batch 128, Adam, bfloat16",
        "| 784-128-10, batch 128, Adam, bfloat16: xpnet, compiled | 34.1 | 11.0 | 95 % |",
        "| `python x` | 99.4 % | 1.50 s | 7 | 2 of 3 | 99.50 % | 2.00 s | 5.00 s |",
        "| **xpnet, compiled** | **3.00 s** | **3.00 s – 3.00 s** | **0.20 s** | **9** | **98.10 %** |",
    ):
        assert part in text
    assert "python y" not in text


@pytest.mark.parametrize("part", ["epochs", "start", "accuracy", "goal"])
def test_a_page_of_parts_is_a_page(gpu, part, tmp_path):
    del gpu[part]
    path = tmp_path / "x.json"
    path.write_text(json.dumps(gpu))
    report.write(path, tmp_path / "README.md")
    assert path.with_suffix(".md").read_text().startswith("# Benchmarks, GPU")


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks/cpu").rglob("*.json")), ids=lambda path: path.stem)
def test_committed_runs_give_the_pages_that_stand_beside_them(path):
    text = report.page(json.loads(path.read_text(encoding="utf-8")), path.with_suffix(".png").name)
    assert text == path.with_suffix(".md").read_text(encoding="utf-8")


def test_what_spans_cover_counts_once():
    assert device.covered([]) == 0
    assert device.covered([(5, 6), (0, 2), (1, 3), (1, 2)]) == 4


def test_an_accuracy_is_reached_at_an_epoch_or_never():
    history = {"val_accuracy": [0.9, 0.981, 0.979], "seconds": [2.0, 1.0, 1.0]}
    assert accuracy.reached(history, 0.98)["training"] == 3.0
    assert accuracy.reached(history, 0.98)["epochs"] == 2
    assert accuracy.reached(history, 0.99)["epochs"] is None


def test_gpu_tasks_are_chosen_by_net_batch_and_precision():
    found = [(t.net, t.batch, t.precision) for t in gpu_plan.tasks(arguments(["gpu", "--nets", "cnn"]))]
    assert found == [("cnn", batch, precision) for precision in PRECISIONS for batch in (128, 1024)]
    words = ["gpu", "--nets", "cnn", "--batches", "1024", "--precisions", "tf32"]
    assert [(t.batch, t.precision) for t in gpu_plan.tasks(arguments(words))] == [(1024, "tf32")]
    assert gpu_plan.environment("float32")["NVIDIA_TF32_OVERRIDE"] == "0"
    assert all("NVIDIA_TF32_OVERRIDE" not in gpu_plan.environment(one) for one in PRECISIONS[1:])


@pytest.mark.parametrize("kind", NETS)
def test_all_train_a_net_of_the_same_size(kind):
    """Of which the numbers on the device, whatever their shapes, are as many."""
    from benchmarks.peers import xpnet_nets

    task, found = Settings(kind=kind), {}
    found["xpnet"] = xpnet_nets.network(task).size
    if find_spec("torch"):
        from benchmarks.peers import torch_nets

        found["torch"] = sum(p.numel() for p in torch_nets.network(task).parameters())
    if find_spec("jax"):
        import jax

        from benchmarks.peers import jax_nets

        start = jax_nets.network(task).start(np.random.default_rng(0))
        found["jax"] = sum(leaf.size for leaf in jax.tree.leaves(start))
    assert len(set(found.values())) == 1, found


PEERS = [("xpnet", {"backend": "numpy"}), ("xpnet", {"eager": True}), ("torch", {}), ("jax", {"scan": False})]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["dense", "cnn"])
def test_all_train_alike(kind, precision, tmp_path):
    """Their losses over the same steps on the same data, from starts of the same kind."""
    write_mnist(tmp_path)
    samples = {"dense": 1280, "cnn": 160}[kind]
    task = Settings((784, 32, 10), 32, samples=samples, kind=kind, precision=precision, data=str(tmp_path))
    losses = {}
    for peer, options in PEERS:
        if find_spec(peer):
            prepare = import_module(f"benchmarks.peers.{peer}").prepare
            epoch, _ = prepare(replace(task, options=options))
            losses[peer, *options] = [epoch() for _ in range(3)]
    assert all(loss[2] < 0.8 * loss[0] for loss in losses.values()), losses
    means = [sum(loss) / len(loss) for loss in losses.values()]
    assert max(means) < 1.4 * min(means), losses


def test_counting_arrays_compute_the_same_and_count():
    a = np.arange(6.0).reshape(2, 3)
    counted = a.copy().view(guard.Counted)
    counts = {}
    with guard.arrays(counts):
        b = counted @ counted.T
        b += 1.0
        c = np.concatenate([b, b])
        c[0, 0] = 7.0
    expected = np.concatenate([a @ a.T + 1] * 2)
    expected[0, 0] = 7.0
    np.testing.assert_array_equal(guard.plain(c), expected)
    steps = guard.STEPS
    assert counts["arrays made per step"] * steps == 2  # b and c; the transpose is a view
    assert counts["bytes made per step"] * steps == 8 * (4 + 8)
    assert counts["array-function calls per step"] * steps == 4  # a transpose by attribute is none


def test_what_grew_is_said_in_a_line():
    limits = guard.rounded({"numpy": {"calls": 3.01, "peak bytes": 1000}})
    assert limits == {"numpy": {"calls": 3.1, "peak bytes": 1020}}
    assert guard.grown({"numpy": {"calls": 3.1, "peak bytes": 1020}}, limits) == []
    assert guard.grown({"numpy": {"calls": 3.2}}, limits) == ["guard: numpy, calls grew from 3.1 to 3.2"]
    assert guard.grown({"jax": {"programs": 1}}, limits) == ["guard: jax, programs grew from 0 to 1"]


def test_nothing_has_grown():
    done = subprocess.run([sys.executable, "-m", "benchmarks", "guard"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr).splitlines()[-1]


def test_parts_that_are_not_measured_again_stay_if_all_else_is_the_same(tmp_path, results):
    path = tmp_path / "2000-01-02.json"
    old = results | {"quick": False, "goal": 0.975, "machine": {"cores": 2, "load before": 0.1}}
    new = {key: old[key] for key in ("kind", "date", "quick")} | {"machine": {"cores": 2, "load before": 0.7}}
    new["versions"] = {"torch": "2.13"}
    assert kept(path, new, ["start"]) == {}
    path.write_text(json.dumps(old))
    found = kept(path, new, ["start", "busy", "other"])
    assert found == {
        "goal": 0.975,
        "versions": {"numpy": "2.0", "torch": "2.13"},
        "start": old["start"],
        "busy": old["busy"],
    }
    others = ({"date": "2000-01-03"}, {"quick": True}, {"machine": {"cores": 4}}, {"versions": {"numpy": "2.1"}})
    for other in others:
        assert kept(path, new | other, ["start"]) == {}
