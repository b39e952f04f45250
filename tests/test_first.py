"""The first run on a GPU, without one: its runner on cheap parts, and of its probes what is pure."""

import json
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("benchmarks", reason="benchmarks/ is not part of an installed xpnet")

import xpnet as xn
from benchmarks import first, isolate, machine, probes
from benchmarks import runner as running
from benchmarks.probes import Tried
from benchmarks.runner import Part, Runner
from xpnet.backends.numpy import NumpyBackend

FIGURES = 'print(\'FIGURES {"a": 1, "answers": {"Is it so?": "yes"}}\')'


def python(name, code, limit=30.0, **rest):
    return Part(name, limit, ("-c", code), **rest)


@pytest.fixture
def runner(tmp_path):
    return Runner("prove", tmp_path / "out", grace=0.2)


def report(runner):
    return json.loads((runner.out / "first-prove.json").read_text(encoding="utf-8"))


# The runner


def test_a_part_that_fails_or_hangs_stops_no_other(runner, capsys):
    parts = [
        python("good", FIGURES),
        python("bad", "print('one'); raise SystemExit('it is broken')"),
        python("slow", "import time; print('begun', flush=True); time.sleep(60)", limit=0.8),
        python("last", "print('done')"),
    ]
    assert runner.run(parts) == 1
    found = report(runner)["parts"]
    assert [one["state"] for one in found] == ["passed", "failed", "timed out", "passed"]
    assert [one["status"] for one in found] == [0, 1, None, 0]
    assert [one["lines"] for one in found] == [[], ["one", "it is broken"], ["begun"], ["done"]]
    assert found[0]["figures"]["a"] == 1
    assert report(runner)["answers"] == {"Is it so?": "yes"}
    assert found[2]["seconds"] < 20
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in printed[:2]] == [["good", "passed"], ["bad", "failed"]]
    assert printed[0].endswith("Is it so? yes")
    assert printed[1].endswith("it is broken")
    assert printed[-1].startswith("prove: 2 passed, 1 failed (bad), 1 timed out (slow); ")
    assert len(printed) == 5
    log = (runner.out / "first-prove.log").read_text(encoding="utf-8")
    assert all(f"==== {name}: python -c" in log for name in ("good", "bad", "slow", "last"))


def test_all_that_a_part_has_started_ends_with_it(runner, tmp_path):
    """Of one that hangs, and of one that is over and has left something behind."""
    sign = tmp_path / "sign"
    child = f"import time, pathlib; time.sleep(1.6); pathlib.Path({str(sign)!r}).touch()"
    start = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}])"
    assert runner.run([python("hangs", f"{start}.wait()", limit=0.8), python("leaves", start)]) == 1
    assert [one["state"] for one in report(runner)["parts"]] == ["timed out", "passed"]
    time.sleep(2.0)
    assert not sign.exists()


def test_the_report_is_valid_after_each_part(runner):
    path = str(runner.out / "first-prove.json")
    look = f"import json; print(len(json.load(open({path!r}))['parts']))"
    runner.run([python(str(k), look) for k in range(3)])
    assert [one["lines"] for one in report(runner)["parts"]] == [["0"], ["1"], ["2"]]
    assert sorted(path.name for path in runner.out.iterdir()) == ["first-prove.json", "first-prove.log"]


def test_no_part_begins_without_time(runner):
    runner.limit = 2.0
    parts = [python("uses it up", "import time; time.sleep(60)"), python("late", "print(1)")]
    assert runner.run([replace(parts[0], limit=1.9), parts[1]]) == 1
    found = report(runner)["parts"]
    assert [one["state"] for one in found] == ["timed out", "left out"]
    assert found[1]["lines"][0].startswith("no time: ")


def test_a_part_gets_no_more_than_is_left(runner):
    runner.limit = 16.0
    runner.begun -= 14.5
    begun = time.monotonic()
    runner.run([python("long", "import time; time.sleep(60)", limit=1.4)])
    assert report(runner)["parts"][0]["state"] == "timed out"
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    ("part", "through", "why"),
    [
        (python("a", "1", modules=("json", "no_such_module")), (), "not installed: no_such_module"),
        (Part("a", 9.0, program=("no-such-program",)), (), "no-such-program is not on this machine"),
        (python("a", "1", program=("nvidia-smi",)), ("python",), "nvidia-smi needs a GPU"),
        (python("a", "1", fast=True), ("python",), "it needs a device's speed"),
    ],
)
def test_what_cannot_run_is_left_out_by_name(runner, part, through, why):
    runner.through = through
    assert runner.run([part]) == 1  # nothing passed
    assert report(runner)["parts"][0]["lines"] == [why]


def test_a_program_that_cannot_be_started_has_failed(runner, monkeypatch):
    monkeypatch.setattr(running.shutil, "which", lambda name: name)
    assert runner.run([Part("a", 9.0, program=("no-such-program",))]) == 1
    assert report(runner)["parts"][0]["status"] == 127


def test_of_a_part_that_failed_the_first_failure_is_on_the_screen(runner, capsys):
    runner.run([python("a", "print('ok 1'); print('FAILED 2'); print('FAILED 3'); raise SystemExit('1 of 3')")])
    assert capsys.readouterr().out.splitlines()[0].endswith(" s  FAILED 2")


def test_figures_that_are_no_json_are_a_line(runner):
    runner.run([python("a", "print('FIGURES {')")])
    assert report(runner)["parts"][0]["lines"] == ["FIGURES {"]


def test_a_part_runs_through_what_stands_for_a_gpu(runner):
    runner.through = (sys.executable, "-X", "utf8")
    code = "import sys, standin.build; print(sys.flags.utf8_mode)"
    assert runner.run([python("a", code)]) == 0
    assert report(runner)["parts"][0]["command"].startswith("python -X utf8 -c")
    assert report(runner)["parts"][0]["lines"] == ["1"]


def test_the_report_names_no_place_of_this_machine(runner):
    runner.run([python("a", f"print({str(running.ROOT / 'x.py')!r}, {str(runner.out / 'y')!r}, {sys.executable!r})")])
    assert report(runner)["parts"][0]["lines"] == ["x.py OUT/y python"]
    assert str(running.ROOT) not in (runner.out / "first-prove.json").read_text()


def test_a_long_log_of_cublaslt_is_cut(runner, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "LOG", 100)
    path = tmp_path / "lt.txt"
    path.write_text("x" * 1000)
    running.trim(Part("a", 1.0, environment={"CUBLASLT_LOG_FILE": str(path)}))
    assert path.stat().st_size == 100


# The parts


def test_every_mode_has_parts_whose_names_differ_and_whose_files_are_few(tmp_path):
    for mode in first.MODES:
        parts = first.chosen(mode, tmp_path, [])
        assert len({part.name for part in parts}) == len(parts)
        written = {word for part in parts for word in part.words if word.startswith(str(tmp_path))}
        written |= {part.environment["CUBLASLT_LOG_FILE"] for part in parts if part.environment}
        pages = 2 * sum("bench-" in word for word in written)
        assert 2 + len(written) + pages <= 8, mode
        for part in parts:
            if "benchmarks.probes" in part.words:
                assert part.words[2] in probes.PROBES


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prove", "--parts", "nett", "--out", "x"], "prove has no part nett: choose among gpu, doctor"),
        (["merge", "--out", "no-such-folder"], "no-such-folder holds no result: name the folder"),
        (["prove", "--out", "x", "--out", "y"], "prove writes to one folder: give --out once"),
    ],
)
def test_unknown_words_are_an_error_in_a_line(words, said, monkeypatch):
    monkeypatch.setattr(machine, "gpus", lambda: ["one"])
    problem = first.main(words)
    assert problem.startswith(said)
    assert "\n" not in problem


def test_a_mode_that_nobody_knows(capsys):
    with pytest.raises(SystemExit):
        first.main(["medium", "--out", "x"])
    assert "invalid choice: 'medium'" in capsys.readouterr().err


def test_without_a_gpu_there_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "gpus", list)
    said = first.main(["prove", "--out", str(tmp_path / "x")])
    assert said == 'no CUDA device answered on this machine: rehearse with --through "python -m standin"'
    assert not (tmp_path / "x").exists()


def test_missing_peers_are_named_and_no_failure(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(first, "find_spec", lambda name: None if name in ("torch", "jax", "hypothesis") else name)
    monkeypatch.setitem(first.MODES, "prove", lambda out: [python("a", "1")])
    assert first.main(["prove", "--through", sys.executable, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "missing: torch, jax: the benchmarks go without these peers"
    assert printed[1].startswith("missing: hypothesis")


def test_test_files_that_lack_something_are_left_out(tmp_path):
    path = tmp_path / "test_x.py"
    path.write_text("import json, no_such_module.part\nfrom beside import x\nfrom also_absent import y\n")
    (tmp_path / "beside.py").touch()
    assert first.absent(path) == ["no_such_module", "also_absent"]


def test_why_repeats_what_failed_first(tmp_path):
    assert [part.name for part in first.why(tmp_path)] == ["numbers", "numbers-compute-sanitizer"]
    states = [("doctor", "passed"), ("nan", "timed out"), ("bits", "failed")]
    past = {"parts": [{"name": name, "state": state} for name, state in states]}
    (tmp_path / "first-prove.json").write_text(json.dumps(past))
    parts = first.why(tmp_path)
    assert [part.name for part in parts] == ["nan", "numbers", "numbers-compute-sanitizer"]
    assert {part.environment["CUDA_LAUNCH_BLOCKING"] for part in parts} == {"1"}


# At home


def run_of(name, gpu="one", **rest):
    here = {"kind": "gpu", "date": "2000-01-02", "quick": False, "machine": {"gpu": gpu}, "versions": {name: "1"}}
    return here | {"missing": {f"not {name}": "why"}} | rest


def test_results_are_merged(tmp_path):
    out, home = tmp_path / "out", tmp_path / "home"
    out.mkdir()
    for name, rest in (("small", {"epochs": []}), ("start", {"start": {}}), ("huge", {"epochs": []})):
        (out / f"bench-{name}.json").write_text(json.dumps(run_of(name, **rest)))
    (out / "selfcheck.json").write_text("{}")
    (out / "first-prove.json").write_text('{"through": ""}')
    written = [path.relative_to(home).as_posix() for path in first.merge([out], home)]
    assert written[:4] == ["gpu/first/prove.json", "selfcheck/cupy.json", "gpu/2000-01-02.json", "gpu/2000-01-02.md"]
    whole = json.loads((home / "gpu" / "2000-01-02.json").read_text())
    assert whole["versions"] == {"small": "1", "start": "1", "huge": "1"}
    assert set(whole["missing"]) == {"not small", "not start", "not huge"}
    assert (whole["start"], whole["epochs"]) == ({}, [])


def report_of(names, gpu="one", number="1", **rest):
    here = {"mode": "prove", "through": "", "machine": {"gpu": gpu, "cores": 2}, "versions": {"numpy": number}}
    return here | {"parts": [{"name": name} for name in names], "seconds": 1.25} | rest


def put(folder, name, content):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    return folder


def test_commands_of_one_mode_become_one_report(tmp_path):
    one = put(tmp_path / "one", "first-prove.json", report_of("ab", date="first", answers={"A?": "yes", "B?": "no"}))
    other = put(tmp_path / "two", "first-prove.json", report_of("c", date="second", answers={"B?": "yes"}))
    put(one, "selfcheck.json", {"older": 1})
    put(other, "selfcheck.json", {"newer": 1})
    put(other, "bench-huge.json", run_of("huge"))
    put(other, "first-why.json", alone := report_of("d"))
    home = tmp_path / "home"
    written = [path.relative_to(home).as_posix() for path in first.merge([one, other], home)]
    assert written[:4] == ["gpu/first/prove.json", "gpu/first/why.json", "selfcheck/cupy.json", "gpu/2000-01-02.json"]
    assert json.loads((home / "gpu" / "first" / "prove.json").read_text()) == report_of(
        "abc",
        date="first",
        answers={"A?": "yes", "B?": "yes"},
        seconds=2.5,
        commands=[{"date": "first", "seconds": 1.25}, {"date": "second", "seconds": 1.25}],
    )
    assert json.loads((home / "gpu" / "first" / "why.json").read_text()) == alone
    assert json.loads((home / "selfcheck" / "cupy.json").read_text()) == {"newer": 1}


@pytest.mark.parametrize("other", [{"gpu": "two"}, {"number": "2"}])
def test_reports_that_do_not_belong_together_are_not_merged(other, tmp_path):
    one = put(tmp_path / "one", "first-prove.json", report_of("a"))
    two = put(tmp_path / "two", "first-prove.json", report_of("b", **other))
    with pytest.raises(ValueError, match="the reports of prove are of different GPUs or libraries"):
        first.merge([one, two], tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_a_rehearsal_is_not_merged(tmp_path):
    (tmp_path / "first-prove.json").write_text('{"through": "python -m standin"}')
    with pytest.raises(ValueError, match="rehearsal"):
        first.merge([tmp_path], tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_epochs_of_all_runs_are_kept_and_two_gpus_are_not_mixed():
    assert first.joined([run_of("a", epochs=[1]), run_of("b"), run_of("c", epochs=[2, 3])])["epochs"] == [1, 2, 3]
    with pytest.raises(ValueError, match=r"different GPUs \(one, two\)"):
        first.joined([run_of("a"), run_of("b", gpu="two")])


# The probes


def tried(error, epilogue="bias", sizes=(128, 128, 10), aligned=4, precision="float32", dtype="float32"):
    return Tried(epilogue, precision, dtype, sizes, aligned, error)


def test_an_answer_in_words():
    assert probes.verdict([]) == "not tried"
    assert probes.verdict([tried(1e-7), tried(1e-6)]) == "yes: 2 of 2 are right"
    assert probes.verdict([tried(1e-7), tried(None, "relu+bias")]) == (
        "in part: 1 of 2 are right, for the others there is no algorithm, and xpnet does without (relu+bias, float32)"
    )
    assert probes.verdict([tried(None), tried(1e-7), tried(0.5, precision="tf32")]) == (
        "NO, 1 give wrong numbers: 1 of 3 are right; the first wrong one: "
        "bias, tf32, 128×128×10, aligned to 4 bytes, off by 5.0e-01"
    )


@pytest.mark.parametrize(
    ("error", "state"), [(None, "none"), (1e-6, "right"), (1e-3, "wrong"), (float("inf"), "wrong")]
)
def test_what_was_tried_is_right_wrong_or_not_there(error, state):
    assert tried(error).state == state


def test_what_became_of_nan_in_words():
    nan = np.full(3, np.nan)
    assert probes.nan_in_words(nan) == "yes, it stays NaN"
    assert probes.nan_in_words(0 * np.ones(3)) == "no, it becomes 0"
    assert probes.nan_in_words(np.asarray([np.nan, 2.0, 3.0])) == "no, 2 of 3 become numbers such as 2.0"
    assert probes.once(["yes", probes.ABSENT, "yes"]) == "yes"
    assert probes.once(["yes", "no"]) == "yes, elsewhere: no"
    assert probes.once([probes.ABSENT]) == probes.ABSENT


@pytest.mark.parametrize("words", [[], ["nett"], ["net", "nan"]])
def test_an_unknown_probe_is_an_error_in_a_line(words, capsys):
    assert probes.main(words) == 2
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.parametrize(("wrong", "status"), [([], 0), (["x"], 1)])
def test_a_probe_prints_its_figures_and_fails_if_something_is_wrong(wrong, status, monkeypatch, capsys):
    monkeypatch.setitem(probes.PROBES, "net", lambda: {"wrong": wrong})
    assert probes.main(["net"]) == status
    assert json.loads(capsys.readouterr().out.removeprefix(running.MARK)) == {"wrong": wrong}
    assert probes.MARK == running.MARK


# The first wrong number


def test_nothing_is_wrong_between_numpy_and_itself(monkeypatch, capsys):
    monkeypatch.setattr(isolate, "cases", lambda cases=isolate.cases: cases()[:1])
    found = isolate.isolate(xn.backend("numpy"))
    assert found["wrong"] == []
    assert found["compared"] > 500
    assert capsys.readouterr().out.count("none is left") == 4


def test_the_first_wrong_array_is_named(monkeypatch):
    class Wrong(NumpyBackend):
        def matmul(self, a, b, out=None):
            product = super().matmul(a, b, out)
            if product.shape == (12, 9):
                product[2, 3] += 1.0
            return product

    monkeypatch.setattr(isolate, "cases", lambda cases=isolate.cases: cases()[:1])
    found = isolate.isolate(Wrong())["wrong"]
    assert [one["where"] for one in found[:2]] == ["odd sizes, float64, one step", "odd sizes, float64, calls"]
    assert (found[0]["array"], found[0]["index"], found[0]["off"]) == ("forward, 5 Linear(13→9)", [2, 3], 1)
    assert found[0]["found"] == pytest.approx(found[0]["expected"] + 1.0)
    assert found[1]["array"] == "step by step, call 1: losses"


def test_an_error_has_its_place():
    def breaks():
        yield "first", np.ones(2)
        raise RuntimeError("an illegal address\nand more")

    expected = iter([("first", np.ones(2)), ("second", np.ones(2))])
    count, wrong = isolate.first_wrong(breaks(), expected, 1, "float32")
    assert count == 1
    assert isolate.in_words(wrong) == "what comes after first raises RuntimeError: an illegal address"


@pytest.mark.parametrize(
    ("found", "expected", "index"),
    [
        ([1.0, 2.0], [1.0, 2.0], None),
        ([1.0, 2.0 + 1e-6], [1.0, 2.0], None),
        ([1.0, 2.1], [1.0, 2.0], [1]),
        ([np.nan, 2.0], [np.nan, 2.0], None),
        ([np.nan, 2.0], [1.0, 2.0], [0]),
        ([1.0, 2.0], [1.0, np.inf], [1]),
        ([1.0, -np.inf], [1.0, np.inf], [1]),
        ([False, True], [True, True], [0]),
    ],
)
def test_numbers_are_the_same_within_rounding(found, expected, index):
    wrong = isolate.difference(np.asarray(found), np.asarray(expected), 256, "float32")
    assert (wrong and wrong["index"]) == index


def test_a_shape_that_differs_is_said():
    wrong = isolate.difference(np.ones((2, 3)), np.ones(6), 1, "float32")
    assert isolate.in_words({"array": "x", **wrong}) == "x has shape [2, 3] where [6] is right"
