"""Models that no file can be made of, or not with this recipe: which layer, why, and what to do."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from litert_quantizer import quantizer

import tflite_export as te


@pytest.fixture
def path(tmp_path):
    return tmp_path / "student.tflite"


def test_strings_are_refused_with_what_to_export_instead(path):
    words = keras.Input((4,), dtype="string", name="words")
    numbers = keras.layers.StringLookup(vocabulary=["a", "b"])(words)
    model = keras.Model(words, keras.layers.Embedding(3, 2)(numbers))
    with pytest.raises(
        ValueError, match=r"Input 'words' .* takes strings.*make the tokens in the app"
    ):
        te.export(model, path)
    assert not path.exists()


class Choose(keras.layers.Layer):
    def call(self, x):
        return keras.ops.cond(keras.ops.sum(x) > 0, lambda: x * 2, lambda: x + 1)

    def compute_output_shape(self, shape):
        return shape


def test_control_flow_runs_in_floats_and_names_its_layer_in_integers(path, rng):
    x = keras.Input((4,))
    model = keras.Model(x, Choose(name="choose")(keras.layers.Dense(4)(x)), name="chooser")
    data = np.abs(rng.normal(size=(8, 4))).astype("float32")
    model.layers[1].set_weights([np.eye(4), np.ones(4)])  # one of the branches is never seen
    te.verify(model, te.export(model, path), data).raise_if_worse(agreement=1.0)
    path.unlink()
    with pytest.raises(te.ConversionError, match=r"'chooser' .*\['choose'\].*'dynamic_int8'"):
        te.export(model, path, "int8", data)
    assert not path.exists()


class Python(keras.layers.Layer):
    def call(self, x):
        return tf.ensure_shape(tf.py_function(lambda v: v, [x], tf.float32), x.shape)


def test_code_that_python_runs_names_its_layer(path):
    x = keras.Input((4,))
    with pytest.raises(te.ConversionError, match=r"'EagerPyFunc'.* in 'python'.* cut it off"):
        te.export(keras.Model(x, Python(name="python")(x)), path)


def test_a_quantiser_that_stops_says_at_which_recipe_and_why(net, path, monkeypatch):
    def stop(*_, **__):
        raise KeyError("no such tensor")

    monkeypatch.setattr(quantizer.Quantizer, "quantize", stop)
    with pytest.raises(
        ValueError,
        match=r"stops at this model with the recipe 'float16' .KeyError: 'no such tensor'",
    ):
        te.export(net, path, "float16")
    assert not path.exists()


def test_labels_without_a_normalisation_are_warned_of(net, path):
    with pytest.warns(
        UserWarning, match=r"float32 input 'image'.*\(0, 1\) for a model that takes 0\.\.255"
    ):
        te.export(net, path, labels=["a", "b", "c"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        te.export(net, path, labels=["a", "b", "c"], normalization=(127.5, 127.5))
