"""Tiny networks that the tests share, and a training with a break."""

import keras
import numpy as np
from keras import layers

import keras_distill as kd


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


def with_a_break(kinds, make, x, y, folder, batch_size=8):
    """A model that `make` made, trained for three epochs at once, and one for each kind of break after two.

    Args:
        kinds: how they go on after the break: "save", "save_weights" or "resume".
    """

    def fit(model, **arguments):
        model.fit(x, y, batch_size=batch_size, verbose=0, **arguments)
        return model

    found = []
    for kind in kinds:
        if kind == "resume":
            file = folder / "state.npz"
            fit(make(), epochs=2, callbacks=[kd.callbacks.Resume(file, delete=False)])
            found.append(fit(make(), epochs=3, callbacks=[kd.callbacks.Resume(file)]))
            continue
        half = fit(make(), epochs=2)
        if kind == "save":
            half.save(folder / "half.keras")
            again = keras.models.load_model(folder / "half.keras")
        else:
            half.save_weights(folder / "half.weights.h5")
            again = make()
            again.optimizer.build(again.trainable_variables)  # as Keras wants it
            again.load_weights(folder / "half.weights.h5")
        found.append(fit(again, initial_epoch=2, epochs=3))
    return fit(make(), epochs=3), found
