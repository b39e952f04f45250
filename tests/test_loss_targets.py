"""Models whose loss has settings or takes rows of positions: targets at the door, evaluation, files."""

from functools import partial

import numpy as np
import pytest

import xpnet as xn
from xpnet.errors import CheckpointError, DataError, DataWarning
from xpnet.files.description import from_data, to_data
from xpnet.training.trial import check_parts, fitting_metrics

RNG = np.random.default_rng(0)
N, T, C = 21, 5, 4
X = RNG.normal(size=(N, T, 3)).astype("float32")
Y = RNG.integers(0, C, (N, T))
GAPS = np.where(RNG.random((N, T)) < 0.3, -1, Y)
GAPS[:8] = -1  # some batches have nothing that counts
SOFT = np.exp(RNG.normal(size=(N, T, C))).astype("float32")
SOFT /= SOFT.sum(axis=-1, keepdims=True)
NET = xn.Sequential(xn.Conv1d(3, C, 3, padding=1))
IGNORING = {"ignore_index": -1}
CE = xn.cross_entropy


def model(backend, loss, metrics=(), net=NET, **settings):
    return xn.Model(net, loss, xn.SGD(0.1), backend=backend, metrics=metrics, **settings)


def changed(array, place, value):
    array = np.array(array)
    array[place] = value
    return array


# The door

HOT = "labels must be one integer a position, (21, 5), got the shape (21, 5, 4): one-hot by argmax(axis=-1)"
CASES = {
    "below": (CE, changed(Y, (2, 3), -2), "labels must be integers in 0..3, got -2 at row 2, column 3"),
    "beyond": (partial(CE, **IGNORING), changed(GAPS, (9, 1), 4), "labels must be integers in 0..3 or -1, got 4 at row "
              "9, column 1"),
    "the void of bytes": (partial(CE, **IGNORING), np.full((N, T), 255, "uint8"), "labels must be integers in 0..3 or "
                          "-1, got 255 at row 0, column 0"),
    "short": (CE, Y[:, :4], "labels must be one integer a position, (21, 5), got the shape (21, 4): the network gives "
              "(21, 5, 4), the classes last"),
    "flat": (CE, Y[:, 0], "labels must be one integer a position, (21, 5), got the shape (21,): the network gives "
             "(21, 5, 4), the classes last"),
    "one-hot": (CE, np.eye(C, dtype=int)[Y], HOT),
    "one-hot to focal": (xn.focal, SOFT, HOT),
    "ignored probabilities": (partial(CE, **IGNORING), SOFT, "labels must be integers in 0..3 or -1, got probabilities "
                              "(21, 5, 4), which have none to ignore: pass class numbers"),
    "an index of text": (partial(CE, ignore_index="a"), Y, "ignore_index must be an integer of 32 bits, such as -1, "
                         "got 'a'"),
    "several labels": (CE, np.full((N, T, C), 0.5, "float32"), "probabilities must add up to 1, got 2 at row 0, column "
                       "0: divide by the sum, or use binary_cross_entropy for several labels a sample"),
    "no probabilities": (CE, changed(SOFT, (3, 1, 2), -0.5), "targets of the output's shape are probabilities and must "
                         "lie in 0..1, got -0.5 at row 3, place (1, 2)"),
    "NaN": (xn.kl_divergence, changed(SOFT, (3, 1, 2), np.nan), "targets of the output's shape are probabilities and "
            "must lie in 0..1, got nan at row 3, place (1, 2)"),
    "class numbers": (xn.kl_divergence, Y, "targets must be probabilities (21, 5, 4), got the shape (21, 5): one-hot "
                      "is np.eye(C)[labels]"),
    "a negative count": (xn.poisson, changed(SOFT, (0, 0, 1), -3), "counts must be 0 or more, got -3.0 at row 0, place "
                         "(0, 1)"),
    "class weights": (partial(CE, class_weight=[1, 2]), Y, "the loss cross_entropy, tried on a prediction (2, 5, 4) "
                      "and a target (2, 5), raised ShapeError: class_weight must hold 4 numbers, one a class, got 2"),
    "a setting that is none": (partial(CE, smoothing=0.1), Y, "the loss cross_entropy, tried on a prediction (2, 5, 4) "
                               "and a target (2, 5), raised TypeError: cross_entropy() got an unexpected keyword "
                               "argument 'smoothing'"),
}  # fmt: skip


@pytest.mark.parametrize(("loss", "y", "message"), CASES.values(), ids=CASES)
def test_targets_that_are_none(loss, y, message):
    one = model("numpy", loss)
    with pytest.raises((DataError, ValueError)) as caught:
        one.fit(X, y)
    assert str(caught.value) == message
    assert one.state.t == 0


FIT = {
    "gaps": (partial(CE, **IGNORING), GAPS),
    "column": (partial(CE, **IGNORING), GAPS[..., None]),
    "bytes": (partial(CE, ignore_index=255), GAPS.astype("uint8")),
    "two bytes": (partial(CE, ignore_index=65535), GAPS.astype("uint16")),
    "all": (partial(CE, class_weight=np.asarray([1.0, 2.0, 0.0, 1.0]), label_smoothing=0.1, **IGNORING), GAPS),
    "focal": (partial(xn.focal, gamma=1.0, **IGNORING), GAPS),
    "soft": (CE, SOFT),
    "one-hot": (CE, np.eye(C, dtype="float32")[Y]),
    "kl": (xn.kl_divergence, SOFT),
    "poisson": (xn.poisson, 10 * Y[..., None] * np.ones(C, int)),
}


@pytest.mark.parametrize(("loss", "y"), FIT.values(), ids=FIT)
def test_targets_that_fit(loss, y):
    one = model("numpy", loss)
    found = one.evaluate(X, y)["loss"]
    assert found == pytest.approx(float(loss(one.predict(X), y[..., 0] if y.shape[-1] == 1 else y)[0]), rel=1e-6)
    one.fit(X, y, epochs=3, batch_size=8)
    assert one.evaluate(X, y)["loss"] < found


@pytest.mark.parametrize("name", ["all", "soft"])
def test_every_backend_trains_to_numpys_theta(backend, name):
    ours, numpy = (model(one, FIT[name][0]) for one in (backend, "numpy"))
    for one in (ours, numpy):
        assert np.isfinite(one.fit(X, FIT[name][1], epochs=2, batch_size=8)["loss"]).all()
    theta = backend.asnumpy(ours.theta)
    np.testing.assert_allclose(theta, numpy.theta, atol=1e-5 * np.max(np.abs(numpy.theta)))


def test_a_float16_distribution_is_one():
    half = np.random.default_rng(1).dirichlet(np.ones(300), 8).astype("float16")
    model("numpy", xn.cross_entropy, net=xn.Linear(2, 300)).fit(np.ones((8, 2)), half)


# Evaluation

SETTINGS = [IGNORING, IGNORING | {"class_weight": [0.5, 2.0, 1.0, 3.0]}]
METRICS = {
    "accuracy": partial(xn.metrics.accuracy, **IGNORING),
    "zero_one": partial(xn.metrics.zero_one, **IGNORING),
    "top": partial(xn.metrics.top_k, k=2, **IGNORING),
    "perplexity": partial(xn.metrics.perplexity, **IGNORING),
}


def figures_are_those_of_the_whole(backend, settings, size):
    loss = partial(CE, **settings)
    one = model(backend, loss, METRICS, dtype="float64")
    found = one.evaluate(X.astype("float64"), GAPS, batch_size=size)
    scores = one.predict(X.astype("float64"))
    functions = {"loss": lambda s, y: loss(s, y)[0]} | METRICS
    for name, function in functions.items():
        assert found[name] == pytest.approx(float(function(scores, GAPS)), rel=1e-13), name
    assert found["perplexity"] > 1.5


@pytest.mark.parametrize("settings", SETTINGS, ids=["ignored", "weighted"])
@pytest.mark.parametrize("size", [1, 4, 8, 21])
def test_the_figure_of_batches_is_that_of_the_whole(settings, size):
    figures_are_those_of_the_whole("numpy", settings, size)


def test_every_backend_counts_what_counts(backend):
    figures_are_those_of_the_whole(backend, SETTINGS[1], 7)


def test_nothing_that_counts_is_0_and_a_perplexity_of_1():
    found = model("numpy", partial(CE, **IGNORING), METRICS).evaluate(X[:8], GAPS[:8])
    assert found == {"loss": 0.0, "accuracy": 0.0, "zero_one": 0.0, "top": 0.0, "perplexity": 1.0}


def test_a_partial_of_ones_own_is_averaged_by_samples():
    def own(prediction, target, *, ignore_index):
        return xn.cross_entropy(prediction, target, ignore_index=ignore_index)

    found = model("numpy", partial(own, **IGNORING)).evaluate(X, GAPS, batch_size=8)["loss"]
    parts = [own(model("numpy", CE).predict(X[k : k + 8]), GAPS[k : k + 8], **IGNORING)[0] for k in (0, 8, 16)]
    assert found == pytest.approx((8 * parts[0] + 8 * parts[1] + 5 * parts[2]) / 21, rel=1e-6)


def test_perplexity_by_name_is_that_of_the_epochs_loss():
    one = model("numpy", CE, ["perplexity"])
    history = one.fit(X, Y, epochs=2, batch_size=8, validation=(X[:9], Y[:9]))
    np.testing.assert_allclose(history["perplexity"], np.exp(history["loss"]), rtol=1e-6)
    np.testing.assert_allclose(history["val_perplexity"], np.exp(history["val_loss"]), rtol=1e-6)
    assert one.metrics == {"perplexity": xn.metrics.perplexity}


def test_a_perplexity_beyond_all_numbers_is_infinite():
    assert xn.metrics.concluded(xn.metrics.perplexity, 1e6) == np.inf
    assert np.isnan(xn.metrics.concluded(partial(xn.metrics.perplexity, ignore_index=0), np.nan))
    assert xn.metrics.concluded(xn.metrics.accuracy, 1e6) == 1e6


def test_a_threshold_that_was_given_stays():
    ending = xn.Sequential(xn.Linear(3, 1), xn.Sigmoid())
    given = {"a": partial(xn.metrics.accuracy, threshold=0.2), "b": partial(xn.metrics.accuracy, ignore_index=0)}
    fitted = fitting_metrics(ending, given)
    assert fitted["a"] is given["a"]
    assert fitted["b"].keywords == {"ignore_index": 0, "threshold": 0.5}


@pytest.mark.parametrize("loss", [xn.focal, xn.kl_divergence, xn.poisson, partial(CE, **IGNORING)])
def test_losses_of_scores_are_warned_of_probabilities(loss):
    name = getattr(loss, "func", loss).__name__
    with pytest.warns(DataWarning, match=f"^{name} takes scores, but the network ends in Softmax: drop it"):
        check_parts(xn.Sequential(xn.Linear(2, 2), xn.Softmax()), loss)


# Files

SAVED = [
    partial(CE, **IGNORING),
    partial(CE, ignore_index=np.int64(-1), label_smoothing=np.float32(0.125)),
    partial(CE, class_weight=[1, 2.0, 0.5, 1.0], label_smoothing=0.1),
    partial(CE, class_weight=(1.0, 2.0, 0.5, 1.0)),
    partial(CE, class_weight=np.asarray([1.0, 2.0, 0.5, 1.0], "float32")),
    partial(xn.focal, gamma=1.5, **IGNORING),
    xn.kl_divergence,
    xn.poisson,
]


@pytest.mark.parametrize("loss", SAVED, ids=range(len(SAVED)))
def test_a_loss_with_settings_is_saved_and_loaded(tmp_path, loss):
    target = SOFT if loss in (xn.kl_divergence, xn.poisson) else np.maximum(GAPS, 0)
    before = model("numpy", loss, {"p": partial(xn.metrics.perplexity, **IGNORING)} if target is not SOFT else ())
    expected = before.evaluate(X, target)
    before.save(tmp_path / "m.safetensors")
    after = xn.load(tmp_path / "m.safetensors", backend="strict" if loss is SAVED[4] else "numpy")
    found = after.evaluate(X, target)
    assert list(found) == list(expected)
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-5)


def test_class_weights_on_a_device_are_not_saved(backend):
    weights = backend.asarray([1.0, 2.0])
    if backend.name == "numpy":
        assert from_data(to_data(partial(CE, class_weight=weights))).keywords["class_weight"].tolist() == [1.0, 2.0]
        return
    with pytest.raises(
        CheckpointError, match=r"^partial.class_weight: an array on a device cannot be saved: give a list"
    ):
        to_data(partial(CE, class_weight=weights))
