"""Attention passes over what is masked, and weighs the rest, also in int8."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tflite_export as te
from tflite_export import flatbuffer
from tflite_export.convert import convert
from tflite_export.masked_scores import with_near_masks

PLACES, WIDTH = 12, 16


def attention(dropout, **how):
    layer = layers.MultiHeadAttention(2, 8, dropout=dropout, kernel_initializer="orthogonal")
    return lambda x: layer(x, x, **how)


def of_keras(layer, **how):
    def of(x):
        query = layers.Dense(WIDTH, kernel_initializer="orthogonal")(x)
        return layer([query, x], **how)

    return of


def softmax_with(value):
    def of(x):
        there = ops.any(ops.not_equal(x, 0), axis=-1)
        return ops.softmax(ops.where(there, ops.sum(x, axis=-1), value))

    return of


NETWORKS = {
    "padding": attention(0.0),  # Keras computes it in another way where there is dropout
    "padding, dropout": attention(0.1),
    "causal": attention(0.0, use_causal_mask=True),
    "-3e4": softmax_with(-3e4),
    "-infinity": softmax_with(-np.inf),
    "Attention, causal": of_keras(layers.Attention(), use_causal_mask=True),
    "Attention, padding": of_keras(layers.Attention()),
    "AdditiveAttention": of_keras(layers.AdditiveAttention(), use_causal_mask=True),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_int8_attends_as_floats_do(name, rng, tmp_path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((PLACES, WIDTH))
    model = keras.Model(inputs, NETWORKS[name](layers.Masking()(inputs)))
    lengths = rng.integers(3, PLACES + 1, 100)
    kept = np.arange(PLACES) < lengths[:, None]
    x = 1.5 * rng.normal(size=(100, PLACES, WIDTH)).astype("float32") * kept[..., None]
    exported = te.export(model, tmp_path / "m.tflite", "int8", x)
    (compared,) = te.verify(model, exported, x).outputs.values()
    assert compared.snr_db > 20  # with a range from -1e9 on: 1 to 6


def test_a_constant_that_is_near_the_scores_changes_no_range():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, ops.where(inputs > 0, inputs, -5.0))
    content = convert(model).content
    names = [flatbuffer.text(t.name) for t in flatbuffer.read(content).subgraphs[0].tensors]
    measured = {name: {"min": np.array([-5.0]), "max": np.array([1.0])} for name in names}
    assert with_near_masks(content, measured) == measured


def test_a_constant_that_somebody_else_means_keeps_its_range():
    inputs = keras.Input((4,))
    far = ops.where(inputs > 0, inputs, inputs - 1e9)

    def found(outputs):
        content = convert(keras.Model(inputs, outputs)).content
        graph = flatbuffer.read(content).subgraphs[0]
        names = [flatbuffer.text(tensor.name) for tensor in graph.tensors]
        measured = {name: {"min": np.array([-5.0]), "max": np.array([1.0])} for name in names}
        return with_near_masks(content, measured) != measured

    assert found(far)
    assert not found([far, inputs * 1e9])
    assert not found([far, inputs - 1e9])
