"""Tiny models and pictures, made once for all tests of the package."""

import keras
import numpy as np
import pytest

SIDE = 12


@pytest.fixture(scope="session")
def photos():
    """64 pictures of raw pixels that span 0..255: smooth random blobs, one colour cast a class."""
    rng = np.random.default_rng(3)
    coarse = rng.uniform(0, 255, (64, 4, 4, 3)).repeat(3, 1).repeat(3, 2)
    labels = rng.integers(0, 3, 64)
    coarse[np.arange(64), :, :, labels] = 0.4 * coarse[np.arange(64), :, :, labels] + 150
    return np.clip(np.round(coarse), 0, 255).astype("uint8"), labels


def train(model, x, y):
    model.compile(
        keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.fit(x, y, epochs=12, batch_size=16, verbose=0)
    return model


@pytest.fixture(scope="session")
def net(photos):
    """A small convolutional network on pictures of -1..1; learns the colour cast."""
    keras.utils.set_random_seed(5)
    image = keras.Input((SIDE, SIDE, 3), name="image")
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(image)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = keras.layers.Add()([x, keras.layers.Conv2D(8, 1)(x)])
    x = keras.layers.GlobalAveragePooling2D()(x)
    logits = keras.layers.Dense(3, name="logits")(x)
    pixels, labels = photos
    return train(keras.Model(image, logits, name="blobs"), pixels / 127.5 - 1, labels)


@pytest.fixture(scope="session")
def examples(photos):
    """The pictures as `net` takes them."""
    return (photos[0] / 127.5 - 1).astype("float32")
