"""The switch where threads, tasks, generators and blocks overlap, in an order that events decide."""

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import xpnet as xn
from xpnet import backends


@pytest.fixture(autouse=True)
def no_choice_yet(monkeypatch):
    """As in a fresh process, in a context of its own."""
    monkeypatch.delenv("XPNET_BACKEND", raising=False)
    monkeypatch.setattr(backends, "_process", (None,))
    xn.use("numpy")
    yield
    assert backends._blocks.get() == ()


def name():
    return xn.backend().name


def elsewhere(function):
    """Call in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result(timeout=60)


def test_blocks_that_overlap_in_threads_keep_to_themselves():
    """In: a, then b; out: a, then b. A global put back in this order would stay on a's choice."""
    seen, order = {}, [threading.Event() for _ in range(3)]

    def a():
        with xn.use("strict"):
            order[0].set()
            order[1].wait(60)
            seen["a"] = name()
        seen["a after"] = name()
        order[2].set()

    def b():
        order[0].wait(60)
        seen["b before"] = name()
        with xn.use("strict:device2") as chosen:
            order[1].set()
            order[2].wait(60)
            seen["b"] = chosen is xn.backend()
        seen["b after"] = name()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(a), pool.submit(b)]:
            done.result(timeout=60)
    assert seen == {
        "a": "strict",
        "a after": "numpy",
        "b before": "numpy",
        "b": True,
        "b after": "numpy",
    }
    assert name() == "numpy"


def test_blocks_that_are_made_in_two_threads_before_either_begins():
    both = threading.Barrier(2)

    def work(wanted):
        block = xn.use(wanted)
        both.wait(60)
        with block as chosen:
            both.wait(60)
            assert xn.backend() is chosen is xn.backend(wanted)
        both.wait(60)
        return name()

    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(work, wanted) for wanted in ("strict:device1", "strict:device2")]
        assert [job.result(timeout=60) for job in jobs] == ["numpy", "numpy"]
    assert name() == "numpy"


def test_tasks_keep_to_themselves():
    async def run():
        inside, leave = asyncio.Event(), asyncio.Event()

        async def first():
            with xn.use("strict"):
                inside.set()
                await leave.wait()
                return name()

        async def second():
            await inside.wait()
            before = name()
            with xn.use("strict:device2") as chosen:
                leave.set()
                await asyncio.sleep(0)
                return before, chosen is xn.backend()

        return await asyncio.gather(first(), second())

    assert asyncio.run(run()) == ["strict", ("numpy", True)]
    assert name() == "numpy"


def test_a_task_begins_with_its_parents_block_and_cannot_change_it():
    async def child():
        before = name()
        xn.use("numpy")
        return before, name()

    async def run():
        with xn.use("strict"):
            return await asyncio.create_task(child()), name()

    assert asyncio.run(run()) == (("strict", "numpy"), "strict")


def test_a_statement_holds_in_every_thread_that_is_in_no_block():
    xn.use("strict")
    assert elsewhere(name) == "strict"
    elsewhere(lambda: xn.use("numpy"))
    assert name() == "numpy"
    with xn.use("strict"):
        assert elsewhere(name) == "numpy"
        context = contextvars.copy_context()
        assert elsewhere(lambda: context.run(name)) == "strict"
        elsewhere(lambda: xn.use("strict:device2"))
        assert str(xn.backend().device).find("device2") < 0
    assert str(xn.backend().device).find("device2") >= 0


def test_a_statement_in_a_block_holds_until_the_block_ends():
    with xn.use("strict"):
        xn.use("numpy")
        assert name() == "numpy"
        with xn.use("strict"):
            assert name() == "strict"
        assert name() == "numpy"
        assert elsewhere(name) == "numpy"
        xn.use("strict:device2")
        assert elsewhere(name) == "numpy"
    assert name() == "numpy"


def test_one_block_entered_twice_and_within_itself():
    block = xn.use("strict")
    for _ in range(2):
        with block:
            assert name() == "strict"
            with xn.use("numpy"), block:
                assert name() == "strict"
            assert name() == "strict"
        assert name() == "numpy"


def test_one_block_in_two_threads_at_once():
    block, both = xn.use("strict"), threading.Barrier(2)

    def work():
        with block:
            both.wait(60)
            seen = name()
            both.wait(60)
        return seen, name()

    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(work) for _ in range(2)]
        assert [job.result(timeout=60) for job in jobs] == [("strict", "numpy")] * 2


def test_a_block_that_is_entered_later_takes_its_statement_back():
    block = xn.use("strict")
    assert name() == elsewhere(name) == "strict"
    xn.use("strict:device2")
    with block:
        assert str(xn.backend().device).find("device2") < 0
    assert str(xn.backend().device).find("device2") >= 0


def test_an_exception_ends_a_block():
    with pytest.raises(KeyError), xn.use("strict"):
        {}[xn.use("strict:device2")]
    assert name() == "numpy"


def test_a_generator_that_ends_its_block_inside_another_ends_its_own():
    def generate():
        with xn.use("strict"):
            yield name()

    values = generate()
    assert next(values) == "strict"
    with xn.use("numpy"):
        values.close()
        assert name() == "numpy"
    assert name() == "numpy"
    assert backends._blocks.get() == ()


def test_statements_without_number_are_not_all_remembered():
    for _ in range(5 * backends.PENDING):
        xn.use("strict")
    assert len(backends._process) <= backends.PENDING + 1
    with xn.use("numpy"):
        for _ in range(5 * backends.PENDING):
            xn.use("strict")
        assert len(backends._blocks.get()[0]) <= backends.PENDING + 1
        with xn.use("numpy"):
            pass
        assert name() == "strict"


@pytest.mark.parametrize("wrong", [pytest, 3, 0, [], b"numpy", object])
def test_what_is_no_backend(wrong):
    for take in (xn.backend, xn.use):
        with pytest.raises(TypeError) as caught:
            take(wrong)
        assert str(caught.value).startswith('expected a backend or its name, such as "numpy" or "torch:cuda:0", got ')
        assert "\n" not in str(caught.value)
    assert name() == "numpy"


def test_an_empty_name_is_no_choice_of_the_default():
    with pytest.raises(xn.BackendError, match='unknown backend ""'):
        xn.backend("")
