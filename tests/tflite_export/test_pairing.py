"""Outputs that belong together are compared, and labels go to the output that they are for."""

import keras
import numpy as np
import pytest

import tflite_export as te
from tflite_export.pairing import pair

CLASSES = [f"class {i}" for i in range(10)]


@pytest.fixture
def data(rng):
    return rng.normal(size=(40, 6)).astype("float32")


@pytest.fixture
def heads():
    """Three outputs of one network: two of the same shape."""
    x = keras.Input((6,), name="x")
    return x, {n: keras.layers.Dense(s, name=n)(x) for n, s in (("z", 4), ("a", 4), ("kind", 10))}


def model_of(heads, names, form=list):
    x, outputs = heads
    chosen = {n: outputs[n] for n in names}
    return keras.Model(x, chosen if form is dict else list(chosen.values()))


@pytest.mark.parametrize("first", [("z", "a"), ("a", "z")])
@pytest.mark.parametrize("form", [list, dict])
@pytest.mark.parametrize("to_file", [False, True])
def test_equal_names_belong_together_in_any_order(heads, data, tmp_path, first, form, to_file):
    exported = te.export(model_of(heads, ("z", "a")), tmp_path / "1.tflite")
    reference = model_of(heads, first, form)
    if to_file:
        reference = te.export(reference, tmp_path / "2.tflite")
    result = te.verify(reference, exported, data)
    assert set(result.outputs) == {"z", "a"}
    result.raise_if_worse(agreement=1.0, snr_db=80)


def test_names_that_are_not_the_same_are_not_guessed(heads, data, tmp_path):
    x, outputs = heads
    exported = te.export(model_of(heads, ("z", "a")), tmp_path / "m.tflite")
    other = keras.Model(x, {"first": outputs["a"], "last": outputs["z"]})
    with pytest.raises(ValueError, match=r"\['z', 'a'\].*outputs=\{'first': 'z', 'last': 'a'\}"):
        te.verify(other, exported, data)
    result = te.verify(other, exported, data, outputs={"first": "a", "last": "z"}, output="last")
    assert result.output == "z"
    result.raise_if_worse(agreement=1.0, snr_db=80)
    only = te.verify(other, exported, data, outputs={"last": "z"})
    assert list(only.outputs) == ["z"]
    for wrong in ({"first": "b"}, {"zz": "a"}, {"first": "a", "last": "a"}, {}):
        with pytest.raises(ValueError, match="the reference's name"):
            te.verify(other, exported, data, outputs=wrong)


def test_by_place_where_names_were_counted_up():
    one, two = np.zeros((5, 4)), np.zeros((5, 2))
    assert pair({"z": one, "a": one}, {"Identity": one, "Identity_1": one}) == [
        ("z", "Identity"), ("a", "Identity_1"),
    ]  # fmt: skip
    numbered = {f"output_{i}": one for i in (1, 0)}
    assert pair({"z": one, "a": one}, numbered) == [("z", "output_0"), ("a", "output_1")]
    assert pair({"z": one, "a": two}, {"b": one, "c": two}) == [("z", "b"), ("a", "c")]
    with pytest.raises(ValueError, match=r"\['z'\], and the other \['b', 'c'\]"):
        pair({"z": one}, {"b": one, "c": two})


def test_the_headline_is_the_output_that_has_labels(heads, data, tmp_path):
    model = model_of(heads, ("z", "kind"))
    exported = te.export(model, tmp_path / "m.tflite")
    kinds = model.predict(data, verbose=0)[1].argmax(-1)
    for y in ({"kind": kinds}, np.eye(10)[kinds]):
        result = te.verify(model, exported, (data, y))
        assert result.output == "kind"
        assert result.accuracy == result.outputs["kind"].accuracy == 1.0
        assert result.outputs["z"].accuracy is None
    assert te.verify(model, exported, data).output == "z"
    both = te.verify(model, exported, (data, [kinds % 4, kinds]))
    assert both.outputs["kind"].accuracy == 1.0
    assert both.outputs["z"].accuracy is not None
    with pytest.raises(ValueError, match=r"fit 2 of the outputs.*pass output="):
        te.verify(model, exported, (data, kinds))
    assert te.verify(model, exported, (data, kinds), output="kind").accuracy == 1.0
    with pytest.raises(ValueError, match="3 arrays of labels"):
        te.verify(model, exported, [(data, [kinds, kinds, kinds])])


def test_class_names_in_the_file_say_which_output_labels_are_for(heads, data, tmp_path):
    model = model_of(heads, ("z", "kind"))
    exported = te.export(model, tmp_path / "m.tflite", labels=CLASSES)
    assert te.verify(model, exported, data).output == "kind"
    kinds = model.predict(data, verbose=0)[1].argmax(-1)
    result = te.verify(model, exported, (data, kinds))
    assert result.accuracy == 1.0
    assert set(result.per_class) <= set(CLASSES)
    other = te.verify(model, exported, (data, kinds % 4), output="z")
    assert set(other.per_class) <= {"0", "1", "2", "3"}


def test_labels_by_the_names_that_keras_made_up(data, tmp_path):
    x = keras.Input((6,))
    model = keras.Model(x, [keras.layers.Dense(4)(x), keras.layers.Dense(3)(x)])
    exported = te.export(model, tmp_path / "m.tflite")
    kinds = model.predict(data, verbose=0)[1].argmax(-1)
    result = te.verify(model, exported, (data, {model.output_names[1]: kinds}))
    assert result.output == "output_1"
    assert result.accuracy == 1.0
