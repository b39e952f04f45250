"""What the steps of a call report, collected at once, on a GPU or on the stand-in."""

import numpy as np
import pytest

import xpnet as xn

pytestmark = pytest.mark.gpu


KINDS = {
    "a number": lambda n: n * 2.0,
    "several": lambda n: n * 2.0 + FIXED[0],
    "a matrix": lambda n: n + FIXED[1],
    "by columns": lambda n: (n + FIXED[1]).T,
    "every other": lambda n: (n + FIXED[0])[::2],
    "what is carried": lambda n: n,
    "one in brackets": lambda n: (n + FIXED[0])[:1],
    "integers": lambda n: (n + FIXED[0]).astype("int32"),
    "int64": lambda n: (n * 3.0).astype("int64"),
    "whether": lambda n: n > 3.0,
    "float64": lambda n: n.astype("float64") / 4.0,
}
"""What a step reports of the number that it carries."""
FIXED = [None, None]


@pytest.fixture(autouse=True)
def fixed(gpu):
    FIXED[:] = (gpu.asarray(np.arange(size, dtype="float32").reshape(shape)) for size, shape in ((5, 5), (6, (2, 3))))
    yield
    FIXED[:] = [None, None]


def reported(names, n):
    """Return what NumPy has for a call whose steps begin with these numbers, as float32."""
    numpy = [np.arange(5, dtype="float32"), np.arange(6, dtype="float32").reshape(2, 3)]
    device, FIXED[:] = list(FIXED), numpy
    try:
        return [np.stack([np.asarray(KINDS[name](np.float32(k))) for k in n]).astype("float32") for name in names]
    finally:
        FIXED[:] = device


ALL = ["a number", *(name for name in KINDS if name != "a number")]


@pytest.mark.parametrize("count", [1, 2, 3, 8, 17])
@pytest.mark.parametrize("names", [["a number"], ["several", "a number"], ["a matrix"], ALL], ids=str)
@pytest.mark.parametrize("refused", [False, True], ids=["graph", "one by one"])
def test_each_step_reports_its_own(gpu, count, names, refused):
    def step(carry, fixed, x):
        return {"n": carry["n"] + x[0]}, tuple(KINDS[name](carry["n"]) for name in names)

    steps, carry, start = gpu.compile(step), {"n": gpu.asarray(np.zeros((), "float32"), copy=True)}, 0.0
    steps.refused = "planned" if refused else ""
    kept = []
    for call in range(4):
        columns = np.arange(count, dtype="float32") % 3 + call
        carry, found = steps(carry, (), (columns,))
        kept.append((found, reported(names, start + np.concatenate([[0], np.cumsum(columns)[:-1]]))))
        start += float(columns.sum())
    assert any(graph.executable is not None for graph in steps.graphs.values()) is not refused
    for found, expected in kept:  # what later calls did has not touched them
        assert len(found) == len(names)
        for name, one, other in zip(names, found, expected, strict=True):
            assert one.dtype == np.float32, name
            np.testing.assert_array_equal(gpu.asnumpy(one), other, err_msg=name)


def trained(gpu, metrics, fits, epochs):
    """Return a model trained on one minibatch an epoch; what it reports is what NumPy does."""
    net = xn.Sequential(xn.Linear(3, 4), xn.ReLU(), xn.Linear(4, 2))
    models = [xn.Model(net, xn.cross_entropy, xn.Adam(), metrics=metrics, backend=b) for b in (gpu, "numpy")]
    x, y = np.random.default_rng(0).normal(size=(8, 3)).astype("float32"), np.arange(8, dtype="int32") % 2
    for _ in range(fits):
        found, expected = (model.fit(x, y, epochs, 8) for model in models)
        for name in ("loss", "gradient_norm", *metrics):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(gpu.asnumpy(models[0].theta), models[1].theta, rtol=0, atol=1e-5)
    return models[0]


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_a_step_alone_is_a_graph_at_the_second_call(gpu, calls):
    (graph,) = trained(gpu, ["accuracy"], calls, 1).step.run.graphs.values()
    assert (graph.executable is not None) is (calls > 1)


def test_a_metric_of_several_numbers_of_a_step_alone(gpu):
    trained(gpu, ["accuracy", "f1"], 1, 4)
