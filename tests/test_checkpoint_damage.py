"""Files that are damaged, or made to mislead: CheckpointError, and nothing else."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xpnet as xn
from xpnet.errors import CheckpointError
from xpnet.files import storage


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "model"
    net = xn.Sequential(xn.Linear(3, 4, initializer="he"), xn.Residual(xn.Linear(4, 4), xn.Tanh()), xn.Linear(4, 2))
    model = xn.Model(net, xn.cross_entropy, xn.AdamW(xn.cosine(0.05, 40)), backend="numpy", metrics=["accuracy"])
    model.fit(np.eye(3, dtype="float32"), [0, 1, 1], epochs=2, batch_size=2)
    model.save(path)
    return path.read_bytes()


def taken(tmp_path, content):
    """Load these bytes; return the model, or what CheckpointError says. Any other error fails the test."""
    path = tmp_path / "model"
    path.write_bytes(content)
    refused = None
    try:
        storage.read(path)
    except ValueError as error:
        refused = f"is not a sound xpnet checkpoint: {error}"
    try:
        return xn.load(path, backend="numpy")
    except CheckpointError as error:
        message = str(error)
    assert message.startswith(f"{path} ")
    message = message.removeprefix(f"{path} ")
    assert message == refused or (refused is None and message.startswith("does not describe a model"))
    return message


def parts(content):
    """Return a file's header, description and arrays."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    return header, json.loads(header["__metadata__"]["model"]), content[8 + length :]


def sealed(header, description, body, digest=None):
    """Return a file of these contents with the right checksum, or another: made on purpose, not damaged."""
    header = dict(header)
    about = dict(header.pop("__metadata__"))
    about["model"] = description if isinstance(description, str) else json.dumps(description)
    try:
        pieces = [body[slice(*place)] for place in sorted(entry["data_offsets"] for entry in header.values())]
    except (AttributeError, KeyError, TypeError, ValueError):
        pieces = [body]  # no reader gets as far as the checksum
    digests = [hashlib.sha256(piece).hexdigest() for piece in pieces]
    about["sha256"] = digest or storage._digest(about["model"], header, digests)
    text = json.dumps({**header, "__metadata__": about}).encode()
    return len(text).to_bytes(8, "little") + text + body


def test_a_file_made_anew_from_its_parts_is_sound(tmp_path, sound):
    header, description, body = parts(sound)
    assert isinstance(taken(tmp_path, sealed(header, description, body)), xn.Model)
    message = taken(tmp_path, sealed(header, description, body + b"more"))
    assert message.endswith("its checksum is wrong: it was damaged or changed")


def test_every_truncation_is_noticed(tmp_path, sound):
    for length in [*range(0, 40), *range(40, len(sound), 97), len(sound) - 1]:
        message = taken(tmp_path, sound[:length])
        assert isinstance(message, str), length
        assert message.startswith("is not a sound xpnet checkpoint: ")
    for more in (b"\0", b" ", sound):
        assert taken(tmp_path, sound + more).endswith("its checksum is wrong: it was damaged or changed")


@settings(max_examples=300)
@given(st.data())
def test_every_flipped_bit_is_noticed(tmp_path, sound, data):
    place = data.draw(st.integers(0, len(sound) - 1) | st.integers(0, 2500))
    bit = data.draw(st.integers(0, 7))
    damaged = sound[:place] + bytes([sound[place] ^ (1 << bit)]) + sound[place + 1 :]
    assert isinstance(taken(tmp_path, damaged), str)


@settings(max_examples=200)
@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda text: len(text).to_bytes(8, "little") + text))
def test_any_other_file_is_refused(tmp_path, content):
    assert taken(tmp_path, content).startswith("is not a sound xpnet checkpoint: ")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200)
@given(json_values)
def test_other_json_as_a_header_is_refused(tmp_path, value):
    text = json.dumps(value).encode()
    message = taken(tmp_path, len(text).to_bytes(8, "little") + text)
    assert message.startswith("is not a sound xpnet checkpoint: ")


def places(data, path=()):
    """Yield the path of everything inside JSON data."""
    if path:
        yield path
    for key in data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ():
        yield from places(data[key], (*path, key))


def replaced(data, path, value):
    if not path:
        return value
    new = dict(data) if isinstance(data, dict) else list(data)
    new[path[0]] = replaced(data[path[0]], path[1:], value)
    return new


@settings(max_examples=300)
@given(st.data())
def test_a_header_that_says_something_else_is_refused(tmp_path, sound, data):
    header, description, body = parts(sound)
    about = header.pop("__metadata__")
    path = data.draw(st.sampled_from(list(places(header))))
    changed = {**replaced(header, path, data.draw(json_values)), "__metadata__": about}
    if changed != parts(sound)[0]:
        assert isinstance(taken(tmp_path, sealed(changed, description, body)), str)
        assert isinstance(taken(tmp_path, sealed(changed, description, body, about["sha256"])), str)


@settings(max_examples=300)
@given(st.data())
def test_a_description_that_says_something_else_builds_a_model_or_is_refused(tmp_path, sound, data):
    header, description, body = parts(sound)
    path = data.draw(st.sampled_from(list(places(description))))
    names = st.sampled_from(
        ["layers.Linear", "layers.Layer", "layers.Context", "losses.huber", "optimizers.SGD", "parameters.draw"]
    )
    value = data.draw(json_values | names | names.map(lambda name: {"is": name}))
    taken(tmp_path, sealed(header, replaced(description, path, value), body))


def test_missing_keys_are_refused(tmp_path, sound):
    header, description, body = parts(sound)
    for key in ("net", "loss", "optimizer", "metrics", "seed", "dtype", "epoch", "step"):
        less = {k: v for k, v in description.items() if k != key}
        assert taken(tmp_path, sealed(header, less, body)) == f"does not describe a model that can be built: '{key}'"
    for key in header["__metadata__"]:
        about = {k: v for k, v in header["__metadata__"].items() if k != key}
        text = json.dumps({**header, "__metadata__": about}).encode()
        message = taken(tmp_path, len(text).to_bytes(8, "little") + text + body)
        assert message == "is not a sound xpnet checkpoint: its header is not as it should be (KeyError)"


def test_arrays_under_each_others_names_are_refused(tmp_path, sound):
    header, description, body = parts(sound)
    same_shape = [
        ("optimizer.0/0.weight", "optimizer.1/0.weight"),
        ("0.bias", "1.0.bias"),
        ("0.bias", "optimizer.0/0.bias"),
    ]
    for a, b in same_shape:
        assert header[a]["shape"] == header[b]["shape"]
        swapped = {**header, a: header[b], b: header[a]}
        message = taken(tmp_path, sealed(swapped, description, body, header["__metadata__"]["sha256"]))
        assert message.endswith("its checksum is wrong: it was damaged or changed")


def test_arrays_that_do_not_fit_are_refused(tmp_path, sound):
    header, description, body = parts(sound)

    def refused(name, message, **entry):
        assert message in taken(tmp_path, sealed({**header, name: {**header[name], **entry}}, description, body))

    refused("0.weight", "are not the network's", shape=[4, 3])
    refused("optimizer.1/0.weight", '"optimizer.1/0.weight" must have the shape (3, 4)', shape=[4, 3])
    refused("0.weight", '"0.weight" does not lie where its shape says', shape=[3, 5])
    refused("0.weight", '"0.weight" does not lie where its shape says', shape=[-3, -4])
    refused("0.weight", '"0.weight" does not lie where its shape says', dtype="F64")
    refused("0.weight", "its header is not as it should be (KeyError)", dtype="I32")
    refused("0.weight", "its header is not as it should be (IndexError)", data_offsets=[])
    refused("0.weight", "its header is not as it should be (OverflowError)", shape=[float("inf")])
    refused("0.weight", "does not lie where its shape says", data_offsets=[0, 10**30])
    refused("0.weight", "does not lie where its shape says", data_offsets=[-48, 0])
    renamed = {("0.wight" if name == "0.weight" else name): entry for name, entry in header.items()}
    assert "are not the network's" in taken(tmp_path, sealed(renamed, description, body))
    lacking = {name.replace("optimizer.1", "optimizer.9"): entry for name, entry in header.items()}
    assert "'optimizer.1/0.weight'" in taken(tmp_path, sealed(lacking, description, body))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("net",), {"is": "layers.Linear", "nin": 10**12, "nout": 10**12}, "are not the network's"),
        (("net",), {"is": "losses.huber"}, "it does not describe a network, a loss and an optimizer"),
        (("loss",), "cross_entropy", "it does not describe a network, a loss and an optimizer"),
        (("optimizer",), None, "it does not describe a network, a loss and an optimizer"),
        (("optimizer", "beta1"), 7.0, "AdamW: beta1 must be a number of at least 0.0 and below 1.0, got 7.0"),
        (("net", "is"), "os.system", 'it needs "os.system", which is not one of xpnet\'s: hand it in, custom=[…]'),
        (("metrics",), ["accurate"], "unknown metric 'accurate'"),
        (("step",), -1, "it stands at step -1 of epoch 2"),
        (("epoch",), float("inf"), "cannot convert float infinity to integer"),
        (("seed",), "three", "seed must be an integer"),
        (("dtype",), "int7", "int7"),
    ],
)
def test_descriptions_that_cannot_be_built_are_refused(tmp_path, sound, path, value, message):
    header, description, body = parts(sound)
    said = taken(tmp_path, sealed(header, replaced(description, path, value), body))
    assert said.startswith("does not describe a model that can be built: ")
    assert message in said


def test_deep_nesting_is_refused(tmp_path, sound):
    header, _, body = parts(sound)
    deep = "[" * 100_000 + "]" * 100_000
    assert isinstance(taken(tmp_path, sealed(header, deep, body)), str)
    assert isinstance(taken(tmp_path, len(deep).to_bytes(8, "little") + deep.encode()), str)


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**63, 2**64 - 1])
def test_a_header_of_absurd_length_is_refused(tmp_path, sound, length):
    message = taken(tmp_path, length.to_bytes(8, "little") + sound[8:])
    assert message == "is not a sound xpnet checkpoint: it is too short"


def test_another_version_is_named(tmp_path, sound):
    header, description, body = parts(sound)
    header["__metadata__"]["format"] = "xpnet 9"
    message = taken(tmp_path, sealed(header, description, body))
    assert message == 'is not a sound xpnet checkpoint: its format is "xpnet 9", this version reads "xpnet 1"'


@pytest.mark.posix
def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointError, match=rf"^cannot read {tmp_path}/no: No such file or directory$"):
        xn.load(tmp_path / "no")
    with pytest.raises(CheckpointError, match=rf"^cannot read {tmp_path}: Is a directory$"):
        xn.load(tmp_path)
