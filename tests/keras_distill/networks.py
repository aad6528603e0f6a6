"""Tiny networks that the tests share."""

import keras
import numpy as np
from keras import layers


def mlp(classes=3, width=8, activation=None, features=4, name=None, **options):
    """A functional classifier of one hidden layer."""
    x = inputs = keras.Input((features,))
    x = layers.Dense(width, activation="relu", name="hidden", **options)(x)
    outputs = layers.Dense(classes, activation=activation, name="top")(x)
    return keras.Model(inputs, outputs, name=name)


def with_state(classes=3, features=4, name=None):
    """A functional classifier with BatchNormalization and Dropout."""
    x = inputs = keras.Input((features,))
    x = layers.Dense(8, activation="relu")(x)
    x = layers.BatchNormalization()(x)
    x = layers.Dropout(0.5)(x)
    return keras.Model(inputs, layers.Dense(classes)(x), name=name)


@keras.saving.register_keras_serializable(package="tests.keras_distill")
class Subclassed(keras.Model):
    """A classifier that does not show its last layer."""

    def __init__(self, classes=3, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.hidden = layers.Dense(8, activation="relu")
        self.top = layers.Dense(classes, activation=activation)

    def call(self, inputs, training=None):
        return self.top(self.hidden(inputs))


def examples(count=24, features=4, classes=3):
    """Inputs and integer labels."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(count, features)).astype("float32")
    return x, rng.integers(0, classes, count).astype("int32")


def weights_of(model):
    """Copies of the weights."""
    return [np.array(weight) for weight in model.get_weights()]


def equal_weights(first, second):
    """Whether two lists of weights are equal bit for bit."""
    return len(first) == len(second) and all(
        np.array_equal(a, b) for a, b in zip(first, second, strict=True)
    )
