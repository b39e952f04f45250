"""Two ranks of MPI on the stand-in, each with its own device: they add up by a stand-in of NCCL, or by the host."""

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from xpnet.backends.cuda import nccl

TESTS = Path(__file__).parent.parent
TRAININGS = ("whole", "many", "weighed", "source", "exact")
CASES = {
    "NCCL": ("way", *TRAININGS, "refused", "lost", "not_finite", "places", "init_refused", "misuse"),
    "host": ("way", *TRAININGS),
}
NOT = "2 ranks add up by way of the host, a step at a time, not by NCCL: "

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not (find_spec("mpi4py") and shutil.which("mpiexec")), reason="needs MPI: pip install 'xpnet[mpi]' mpich"
    ),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Return what a case came to on each rank."""

    @cache
    def run(way):
        out = tmp_path_factory.mktemp("ranks") / "out.json"
        words = ["mpiexec", "-n", "2", sys.executable, "-m", "standin", str(TESTS / "standin" / "ranks.py"), str(out)]
        own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}", "STANDIN_DEVICES": "2"}
        env = {name: value for name, value in os.environ.items() if name != "STANDIN_NCCL"}
        env |= own | ({"STANDIN_NCCL": "1"} if way == "NCCL" else {})
        done = subprocess.run([*words, *CASES[way]], capture_output=True, text=True, timeout=400, check=False, env=env)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(out.read_text())

    return lambda way, case: [one[case] for one in run(way)]


@pytest.mark.parametrize("case", TRAININGS)
def test_nccl_gives_the_bits_of_the_hosts_way_and_numpys_numbers(found, case):
    """Of two numbers there is one sum."""
    every = found("NCCL", case) + found("host", case)
    assert len({one["bits"] for one in every}) == 1
    assert max(one["error"] for one in every) < 1e-6


@pytest.mark.parametrize(
    ("case", "sums"),
    [
        ("whole", [4 + 1, 4 + 1]),  # four steps run and are captured, and so does the fifth batch, a call of its own
        ("many", [2, 16]),
        ("weighed", [4 * 4, 4 * 4]),  # and BatchNorm's three
        ("source", [3 + 1, 3 + 1]),
        ("exact", [0, 0]),
    ],
)
def test_sums_are_captured_and_launched(found, case, sums):
    assert [one["sums"] for one in found("NCCL", case)] == [sums, sums]
    assert [one["sums"] for one in found("host", case)] == [[0, 0], [0, 0]]


def test_a_capture_that_fails_on_one_rank_is_given_up_by_all(found):
    """Both try twice, gathered data first; all 20 steps add up one by one, to the same bits."""
    first, second = found("NCCL", "refused")
    assert first["bits"] == second["bits"] == found("NCCL", "whole")[0]["bits"]
    assert (first["sums"], second["sums"]) == ([20, 8], [20, 4])
    assert first["warnings"] == ["steps run one by one, not as a CUDA graph: rank 1: planted"]
    assert second["warnings"] == []


def test_ranks_wait_for_one_that_has_no_graph(found):
    first, second = found("NCCL", "lost")
    assert first == second
    (bits, *sums), (expected, *others) = first
    assert bits == expected
    assert (sums, others) == ([2 * (4 + 1)] * 2, [4 + 1] * 2)


def test_all_ranks_stay_before_a_step_that_is_not_finite(found):
    for one in found("NCCL", "not_finite"):
        assert len(one["texts"]) == 3
        assert all("theta is as it was before" in text for text in one["texts"])
        assert one["finite"]
        assert one["same"]


def test_each_rank_takes_a_gpu_of_its_own(found):
    assert found("NCCL", "places")[0] == ["cupy:0", "cupy:1"]


def test_the_hosts_way_is_said_once(found):
    why = "rank 0: NCCL is not installed: pip install nvidia-nccl-cu13"
    assert found("host", "way") == [
        {"NCCL": [False] * 2, "warnings": [NOT + why]},
        {"NCCL": [False] * 2, "warnings": []},
    ]
    assert found("NCCL", "way") == [{"NCCL": [True] * 2, "warnings": []}] * 2
    trainings = [one for way in CASES for case in TRAININGS for one in found(way, case)]
    assert not any(one["warnings"] for one in trainings)


def test_nccl_that_fails_on_one_rank_is_used_by_none(found):
    first, second = found("NCCL", "init_refused")
    assert (first["found"], second["found"]) == (False, False)
    assert first["warnings"] == [NOT + "rank 0: NCCL_ERROR_SYSTEM_ERROR: a system error"]
    assert second["warnings"] == []


def test_two_ranks_on_one_gpu_go_by_way_of_the_host():
    offers = [nccl.Offer("", place) for place in ("0 of here", "0 of there", "0 of here")]
    assert nccl._refused(offers) == "rank 0 and rank 2 are on one GPU, 0 of here"
    assert nccl._refused(offers[:2]) == ""


@pytest.mark.parametrize("kind", ["numbers", "type", "captured"])
def test_the_stand_in_refuses_what_ranks_do_not_do_alike(found, kind):
    for rank, said in enumerate(found("NCCL", "misuse")):
        ((_, nan, text),) = [one for one in said if one[0] == kind]
        assert nan or (kind, rank) == ("captured", 1)  # there the array is not what the graph adds up
        assert text.startswith(f"ncclAllReduce of rank {rank}: ")
        assert f"while rank {1 - rank} has" in text


def test_the_stand_in_does_not_wait_for_ever(found):
    first, second = found("NCCL", "misuse")
    assert ["absent", True, "ncclAllReduce of rank 0: not all ranks came to it"] in first
    assert "absent" not in [one[0] for one in second]
