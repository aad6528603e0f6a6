"""Copies of a student: the same layers, weights and what may be trained, in a model of its own."""

import keras
import numpy as np
import pytest
from keras import layers

import tflite_export as te
from tflite_export.altered import copy_of


class _Closed(keras.Model):
    def __init__(self, width):
        super().__init__()
        self.top = layers.Dense(width)

    def call(self, x):
        return self.top(x)


def test_a_layer_of_two_models_is_one_layer_in_the_copy():
    shared = layers.Dense(4, name="shared")
    inner = keras.Sequential([keras.Input((4,)), shared], name="inner")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Add()([inner(inputs), shared(inputs * 2.0)]))
    copy = copy_of(model)
    assert len(copy.weights) == len(model.weights) == 2
    assert copy.get_layer("inner").layers[0] is copy.get_layer("shared")
    x = np.ones((2, 4), "float32")
    np.testing.assert_array_equal(copy(x), model(x))


def test_what_is_frozen_stays_frozen():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(2)], name="inner")
    inner.layers[1].trainable = False
    inputs = keras.Input((4,))
    model = keras.Model(inputs, inner(layers.Dense(4)(inputs)))
    assert len(copy_of(model).trainable_weights) == 4
    inner.trainable = False
    copy = copy_of(model)
    assert not copy.get_layer("inner").trainable
    assert len(copy.trainable_weights) == len(te.quantize_aware(model).trainable_weights) == 2


def test_a_class_that_does_not_say_how_it_is_made_is_named():
    model = _Closed(3)
    model.build((None, 4))
    with pytest.raises(ValueError, match=r"class _Closed does not say .* get_config\(\) that"):
        te.quantize_aware(model)
