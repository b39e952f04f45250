"""xpnet.look.plot: kernels, feature maps and samples show the numbers they are asked for, on any backend."""

import numpy as np
import pytest
from pictures import closed, matplotlib, plt, style  # noqa: F401

import xpnet as xn
from xpnet.errors import DataError, ShapeError
from xpnet.look import plot


def conv_model(backend="numpy", channels=1, **options):
    net = xn.Sequential(
        xn.Conv2d(channels, 4, 1),
        xn.BatchNorm(4),
        xn.Residual(xn.Conv2d(4, 4, 3, padding=1), xn.ReLU()),
        xn.Flatten(),
        xn.Linear(4 * 36, 3),
    )
    return xn.Model(net, xn.cross_entropy, xn.SGD(0.1), backend=backend, **options)


def shown(figure):
    """What each panel shows, the colour bar left out."""
    return [np.asarray(ax.images[0].get_array()) for ax in figure.axes if ax.images]


def titles(figure):
    return [ax.get_title() for ax in figure.axes if ax.images]


def image(channels=1):
    return np.random.default_rng(0).random((6, 6, channels)).astype(np.float32)


FIGURES = {
    "filters": lambda **k: plot.filters(conv_model(), **k),
    "filters of colours": lambda **k: plot.filters(np.ones((3, 3, 3, 5)), **k),
    "feature_maps": lambda **k: plot.feature_maps(conv_model(), image(), **k),
    "samples": lambda **k: plot.samples(np.zeros((9, 4, 4)), np.arange(9), **k),
    "colours": lambda **k: plot.images(np.zeros((9, 4, 4, 3)), **k),
}


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize("name", FIGURES)
def test_figure_draws_on_the_figure_given_or_on_a_new_one(name):
    FIGURES[name]().canvas.draw()
    given = plt.figure(layout="constrained")
    assert FIGURES[name](figure=given) is given


def test_filters_of_one_channel_are_its_kernels():
    weight = np.random.default_rng(0).normal(size=(3, 5, 1, 4))
    figure = plot.filters(weight, count=3)
    assert titles(figure) == ["filter 0", "filter 1", "filter 2"]
    for k, picture in enumerate(shown(figure)):
        np.testing.assert_array_equal(picture, weight[:, :, 0, k])


@pytest.mark.parametrize("channels", [2, 4, 5, 12])
@pytest.mark.parametrize("kernel", [(3, 3), (1, 7)], ids=str)
def test_filters_of_several_channels_are_side_by_side(kernel, channels):
    height, width = kernel
    weight = np.arange(1.0, 1 + 2 * channels * height * width).reshape(*kernel, channels, 2)
    figure = plot.filters(weight)
    for k, picture in enumerate(shown(figure)):
        columns = picture.shape[1] // width
        for c in range(channels):
            i, j = c // columns * height, c % columns * width
            np.testing.assert_array_equal(picture[i : i + height, j : j + width], weight[:, :, c, k])
    boxes = figure.axes[0].collections[0].get_paths()
    assert len(boxes) == channels
    assert boxes[-1].get_extents().width == width


def test_filters_of_three_channels_are_colours_and_zero_is_grey():
    weight = np.zeros((2, 2, 3, 1))
    weight[0, 0, 0], weight[0, 1, 2] = 2.0, -2.0
    (picture,) = shown(plot.filters(weight))
    np.testing.assert_allclose(picture[0, 0], [1.0, 0.5, 0.5], atol=0.01)
    np.testing.assert_allclose(picture[0, 1], [0.5, 0.5, 0.0], atol=0.01)
    np.testing.assert_allclose(picture[1, 1], 0.5)


def test_filters_of_a_model_on_any_backend(backend):
    model = conv_model(backend)
    windows = {name: backend.asnumpy(window) for name, window in model.net.windows(model.theta).items()}
    small = shown(plot.filters(model, "0"))
    assert [float(picture[0, 0]) for picture in small] == windows["0.weight"][0, 0, 0].tolist()
    first = shown(plot.filters(model))[1]  # the first kernel above 1×1 has four channels
    np.testing.assert_array_equal(first[:3, 3:], windows["2.0.weight"][:, :, 1, 1])


def test_feature_maps_are_what_the_layer_gives(backend):
    model = conv_model(backend)
    model.fit(np.stack([image()] * 8), np.arange(8) % 3, epochs=1, batch_size=4, progress=False)
    seen = {}
    x = backend.asarray(image()[None])
    model.net(model.theta, x, buffers=model.buffers, watch=seen.__setitem__, backend=backend)
    for layer, path in ((None, "2.0"), (1, "1"), ("2.1", "2.1")):
        figure = plot.feature_maps(model, backend.asarray(image()), layer)
        assert titles(figure) == ["image", "channel 0", "channel 1", "channel 2", "channel 3"]
        original, *maps = shown(figure)
        np.testing.assert_array_equal(original, image()[..., 0])
        np.testing.assert_array_equal(np.stack(maps, axis=-1), backend.asnumpy(seen[path])[0])
        assert figure.axes[-1].get_ylabel() == f"output of layer {path}"


def test_feature_maps_of_bytes_of_many_channels_and_of_float64():
    model = conv_model(channels=5, dtype="float64")
    figure = plot.feature_maps(model, (255 * image(5)).astype(np.uint8), 0, count=2)
    assert titles(figure) == ["channel 0", "channel 1"]
    assert "image" in titles(plot.feature_maps(conv_model(channels=3), image(3).tolist()))


def test_feature_maps_of_a_network_that_is_one_layer():
    net = xn.Conv2d(1, 2, 3, initializer=lambda rng, shape: np.ones(shape))
    model = xn.Model(net, xn.mean_squared_error, xn.SGD(0.1), backend="numpy")
    figure = plot.feature_maps(model, np.ones((4, 4, 1), np.float32))
    assert shown(figure)[1].tolist() == [[9.0, 9.0], [9.0, 9.0]]
    assert figure.axes[-1].get_ylabel() == "output"


def test_pictures_with_an_axis_of_channels_are_drawn_alike():
    grey = np.random.default_rng(0).integers(0, 256, (5, 4, 4)).astype(np.uint8)
    for draw in (
        plot.images,
        lambda x: plot.samples(x, np.arange(5)),
        lambda x: plot.mistakes(x, np.eye(5), (np.arange(5) + 1) % 5),
    ):
        np.testing.assert_array_equal(shown(draw(grey[..., None])), shown(draw(grey)))


@pytest.mark.parametrize(
    ("colours", "expected"),
    [
        (np.asarray([0, 51, 255], np.uint8), [0.0, 0.2, 1.0]),
        (np.asarray([0, 1, 1]), [0.0, 1 / 255, 1 / 255]),
        (np.asarray([0.0, 0.5, 0.75]), [0.0, 0.5, 0.75]),
        (np.asarray([-1.0, 0.0, 3.0]), [0.0, 0.25, 1.0]),
        (np.asarray([2.0, 2.0, 2.0]), [0.0, 0.0, 0.0]),
    ],
    ids=["bytes", "dark bytes", "shares", "standardized", "one number"],
)
def test_colours_are_drawn_in_their_range(colours, expected):
    (picture,) = shown(plot.images(np.broadcast_to(colours, (1, 2, 2, 3))))
    np.testing.assert_allclose(picture[0, 0], expected, atol=1e-7)


def test_samples_show_the_mistakes_first_then_what_is_least_sure(backend):
    scores = np.asarray([[3, 0, 0], [0.2, 0, 0], [0, 1, 0], [0, 0, 5], [0, 2, 1.9]], np.float32)
    labels = [0, 0, 0, 1, 1]
    pictures = np.arange(5.0)[:, None, None] * np.ones((5, 2, 2))
    figure = plot.samples(backend.asarray(pictures), labels, backend.asarray(scores))
    assert [picture[0, 0] for picture in shown(figure)] == [3, 2, 4, 1, 0]
    assert titles(figure) == ["1 taken for 2", "0 taken for 1", "1", "0", "0"]
    assert titles(plot.samples(pictures, labels, scores, count=2)) == ["1 taken for 2", "0 taken for 1"]
    worst = plot.mistakes(pictures, scores, labels, names=["cat", "dog", "automobile"])
    assert titles(worst) == ["dog\ntaken for automobile", "cat taken for dog"]


def test_samples_with_labels_alone_keep_their_order():
    assert titles(plot.samples(np.zeros((3, 2, 2)), [2, 0, 1])) == ["2", "0", "1"]
    assert titles(plot.samples(np.zeros((2, 2, 2)), [1, 0], names=("a", "b", "c"))) == ["b", "a"]


def test_a_tie_for_the_largest_score_is_won_by_the_first_class():
    figure = plot.samples(np.zeros((2, 2, 2)), [0, 1], np.asarray([[1.0, 1.0], [1.0, 1.0]]))
    assert titles(figure) == ["1 taken for 0", "0"]


WRONG = {
    "a matrix": (lambda: plot.filters(np.eye(3)), ShapeError, r"filters needs a weight \(K, L, I, O\), got \(3, 3\)"),
    "no filters": (lambda: plot.filters(conv_model(), count=0), ValueError, "count must be at least 1"),
    "no such layer": (
        lambda: plot.filters(conv_model(), 4),
        DataError,
        'filters: layer "4" is no convolution: choose one of "0", "2.0"',
    ),
    "no convolution": (
        lambda: plot.filters(xn.Model(xn.Linear(2, 2), xn.cross_entropy, xn.SGD(0.1))),
        DataError,
        "filters: the network has no convolution with a kernel above 1×1",
    ),
    "no maps": (
        lambda: plot.feature_maps(conv_model(), image(), 4),
        DataError,
        r'layer "4" gives \(1, 3\), no images \(1, H, W, C\): choose one of "0", "1", "2\.0", "2\.1", "2"$',
    ),
    "no layer": (lambda: plot.feature_maps(conv_model(), image(), 9), DataError, 'layer "9" does not exist: choose'),
    "a batch": (
        lambda: plot.feature_maps(conv_model(), image()[None]),
        ShapeError,
        r"expects images \(N, H, W, 1\), got \(1, 1, 6, 6, 1\)",
    ),
    "channels first": (
        lambda: plot.samples(np.zeros((2, 3, 8, 8)), [0, 1]),
        ShapeError,
        r"samples needs pictures .* got \(2, 3, 8, 8\): move the channels to the end, x\.transpose\(0, 2, 3, 1\)",
    ),
    "two channels": (lambda: plot.images(np.zeros((2, 8, 8, 2))), ShapeError, "images needs pictures .* reshape them"),
    "more labels": (lambda: plot.samples(np.zeros((1, 2, 2)), [0, 1]), DataError, "a label for each of the 1 samples"),
    "fewer names": (
        lambda: plot.samples(np.zeros((1, 2, 2)), [2], names=["a"]),
        DataError,
        r"samples: labels must be integers in 0\.\.0, got 2 at row 0",
    ),
    "names of other classes": (
        lambda: plot.samples(np.zeros((1, 2, 2)), [0], np.eye(2)[:1], names=["a"]),
        DataError,
        "samples: 1 names for 2 classes: pass a name for each",
    ),
    "fewer predictions": (
        lambda: plot.samples(np.zeros((2, 2, 2)), [0, 1], np.eye(2)[:1]),
        ShapeError,
        "samples: 2 pictures, but predictions for 1",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_use_is_told_in_one_line(name):
    call, error, text = WRONG[name]
    with pytest.raises(error, match=text) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert not plt.get_fignums()
