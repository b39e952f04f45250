"""xpnet.look.plot.attention: the maps are the weights of the forward pass, and wrong use is told in one line."""

import numpy as np
import pytest
from pictures import closed, matplotlib, plt, style  # noqa: F401

import xpnet as xn
from xpnet.errors import DataError, ShapeError
from xpnet.look import plot

TOKENS = np.asarray([3, 1, 4, 1, 5])


def writer(backend="numpy"):
    blocks = xn.TransformerBlock(8, 2, causal=True), xn.Recompute(xn.MultiHeadAttention(8, 4))
    net = xn.Tied(xn.Embedding(7, 8), xn.Sinusoidal(), *blocks, xn.LayerNorm(8))
    return xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend=backend)


def reader():
    return xn.Model(xn.MultiHeadAttention(4, 2), xn.mean_squared_error, xn.SGD(0.1), backend="numpy")


def shown(figure):
    """The maps by their titles."""
    return {ax.get_title(): np.asarray(ax.images[0].get_array()) for ax in figure.axes if ax.images}


def labels(axis):
    return [tick.get_text() for tick in axis.get_ticklabels()]


@pytest.mark.usefixtures("style")
def test_it_draws_on_the_figure_given_or_on_a_new_one():
    plot.attention(writer(), TOKENS).canvas.draw()
    given = plt.figure(layout="constrained")
    assert plot.attention(writer(), TOKENS, figure=given) is given


def test_the_maps_are_the_weights_of_the_forward_pass():
    model, seen = writer(), {}
    model.net(model.theta, TOKENS[None], watch=seen.__setitem__)
    maps = shown(plot.attention(model, TOKENS))
    expected = {"2.0.1": 2, "3.0": 4}
    assert list(maps) == [f"{path}, head {k}" for path, heads in expected.items() for k in range(heads)]
    for path, heads in expected.items():
        for k in range(heads):
            picture = maps[f"{path}, head {k}"]
            np.testing.assert_array_equal(picture, seen[f"{path}.attention"][0, k])
            np.testing.assert_allclose(picture.sum(axis=1), 1.0, rtol=1e-5)


def test_a_model_on_any_backend_is_drawn_alike(backend):
    net = xn.Sequential(xn.Embedding(7, 4), xn.MultiHeadAttention(4, 1))
    models = [xn.Model(net, xn.mean_squared_error, xn.SGD(0.1), backend=one) for one in (backend, "numpy")]
    there, here = plot.attention(models[0], backend.asarray(TOKENS)), plot.attention(models[1], TOKENS)
    np.testing.assert_allclose(shown(there)["1, head 0"], shown(here)["1, head 0"], rtol=1e-5)
    assert labels(there.axes[0].xaxis) == labels(here.axes[0].xaxis)


def test_who_reads_stands_on_the_left_and_a_layer_is_chosen_by_its_path_or_its_block():
    for layer in (2, "2.0", "2.0.1"):
        assert list(shown(plot.attention(writer(), TOKENS.tolist(), layer))) == ["2.0.1, head 0", "2.0.1, head 1"]
    ax = plot.attention(writer(), TOKENS, 3).axes[0]
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("reads", "from")
    assert labels(ax.xaxis) == labels(ax.yaxis) == ["3", "1", "4", "1", "5"]
    assert ax.yaxis_inverted()
    causal = shown(plot.attention(writer(), TOKENS, 2))["2.0.1, head 0"]
    assert not np.triu(causal, 1).any()


def test_layer_one_is_not_layer_ten():
    layers = [xn.MultiHeadAttention(4, 1) if k in (1, 10) else xn.ReLU() for k in range(1, 11)]
    model = xn.Model(xn.Sequential(xn.Embedding(7, 4), *layers), xn.mean_squared_error, xn.SGD(0.1), backend="numpy")
    assert list(shown(plot.attention(model, TOKENS))) == ["1, head 0", "10, head 0"]
    assert list(shown(plot.attention(model, TOKENS, 1))) == ["1, head 0"]


def test_the_positions_have_labels_of_ones_own_and_beyond_thirty_some_of_them():
    assert labels(plot.attention(writer(), TOKENS, 2, labels="hallo").axes[0].xaxis) == list("hallo")
    long = plot.attention(writer(), np.arange(90) % 7, 2, labels=range(90))
    named = labels(long.axes[0].yaxis)
    assert named == [str(k) for k in range(0, 90, 3)]
    assert max(long.get_size_inches()) < 16


def test_vectors_are_named_by_their_positions_and_a_network_may_be_one_layer():
    maps = plot.attention(reader(), np.ones((3, 4)))
    assert list(shown(maps)) == ["head 0", "head 1"]
    assert labels(maps.axes[0].xaxis) == ["0", "1", "2"]
    np.testing.assert_allclose(shown(maps)["head 0"], 1 / 3, rtol=1e-6)


def test_weights_that_are_no_numbers_are_left_blank():
    figure = plot.attention(reader(), np.full((3, 4), np.nan))
    figure.canvas.draw()
    assert np.isnan(np.ma.getdata(figure.axes[0].images[0].get_array())).all()


WRONG = {
    "no attention": (
        lambda: plot.attention(xn.Model(xn.Linear(4, 2), xn.cross_entropy, xn.SGD(0.1)), np.ones((3, 4))),
        DataError,
        "attention: the network has no MultiHeadAttention$",
    ),
    "no such layer": (
        lambda: plot.attention(writer(), TOKENS, 0),
        DataError,
        'attention: layer "0" has no MultiHeadAttention: choose one of "2.0.1", "3.0"$',
    ),
    "a batch": (
        lambda: plot.attention(writer(), TOKENS[None]),
        ShapeError,
        r"attention draws one sequence, tokens \(T,\), got \(1, 5\): of a batch pass one, x\[0\]$",
    ),
    "a batch of vectors": (
        lambda: plot.attention(reader(), np.ones((2, 3, 4))),
        ShapeError,
        r"attention draws one sequence, vectors \(T, D\), got \(2, 3, 4\): of a batch pass one, x\[0\]$",
    ),
    "nothing": (lambda: plot.attention(writer(), np.zeros(0, int)), ShapeError, r"tokens \(T,\), got \(0,\)$"),
    "one token": (lambda: plot.attention(writer(), 3), ShapeError, r"tokens \(T,\), got \(\)$"),
    "other features": (
        lambda: plot.attention(reader(), np.ones((3, 5))),
        ShapeError,
        r"MultiHeadAttention\(4, 2\) expects sequences \(N, T, 4\), got \(1, 3, 5\)",
    ),
    "out of range": (
        lambda: plot.attention(writer(), [3, 9]),
        DataError,
        r"attention: tokens must hold tokens, integers in 0\.\.6, got 9 at row 1",
    ),
    "floats": (lambda: plot.attention(writer(), [3.0, 1.0]), DataError, "integers in 0..6, got float64: cast them"),
    "a text": (lambda: plot.attention(writer(), "hallo"), DataError, "attention: tokens must be numbers .* got str"),
    "a label too few": (
        lambda: plot.attention(writer(), TOKENS, labels="hall"),
        DataError,
        "attention: 4 labels for 5 positions: pass a label for each$",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_in_one_line(name):
    call, error, text = WRONG[name]
    with pytest.raises(error, match=text) as caught:
        call()
    assert "\n" not in str(caught.value)
