"""The tests notice what is wrong: some of the planted faults here, all of them by `python -m benchmarks.trust`."""

import json
import subprocess
import sys
from pathlib import Path

import mutants
import pytest


def test_every_planted_text_is_there_once():
    assert len(mutants.faults()) >= 60


def test_a_text_that_is_gone_is_named(monkeypatch, tmp_path):
    (tmp_path / "mutants.toml").write_text(
        '[[file]]\npath = "schedules.py"\ntests = "schedules"\nfaults = [["what is wrong", "no such text", "other"]]\n'
    )
    monkeypatch.setattr(mutants, "TESTS", tmp_path)
    with pytest.raises(
        ValueError, match=r"schedules\.py: what is wrong: its text occurs 0 times, not once: no such text"
    ):
        mutants.faults()


def test_the_faults_that_are_chosen_are_spread():
    known = mutants.faults()
    chosen = mutants.spread(12, known)
    assert len({fault.path for fault in chosen}) > 4
    assert len(set(chosen)) == 12
    assert {fault for seed in range(len(known)) for fault in mutants.spread(12, known, seed)} == set(known)


@pytest.mark.slow
def test_planted_faults_are_caught():
    pytest.importorskip("torch", reason="PyTorch, by which some of the tests tell what is right, is not installed")
    words = [sys.executable, str(Path(mutants.__file__)), "--count", "12"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    results = json.loads(done.stdout)
    assert [r for r in results if not r["outcome"].startswith("caught")] == []
    assert len(results) == 12
