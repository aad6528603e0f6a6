"""An average pool over a whole picture is a mean in an int8 file, and stays a pool elsewhere."""

import keras
import numpy as np
import pytest
from keras import layers

import tflite_export as te
from tflite_export import flatbuffer


def _network(pool, head=layers.Flatten):
    image = keras.Input((6, 6, 3), name="image")
    return keras.Model(image, head()(pool(layers.Conv2D(4, 3, padding="same")(image))))


def _operators(exported):
    return [o.name for o in flatbuffer.operators(flatbuffer.read(exported.path.read_bytes()))]


@pytest.fixture(scope="module")
def x():
    """Bright corners on a dark ground: means span a small part of what pixels do."""
    x = np.random.default_rng(0).normal(size=(40, 6, 6, 3)).astype("float32")
    x[:, 0, 0] *= 40
    return x


@pytest.mark.parametrize("recipe", ["int8", "int16x8"])
def test_the_mean_has_steps_of_its_own(recipe, x, tmp_path):
    model = _network(layers.AveragePooling2D(6))
    exported = te.export(model, tmp_path / "a.tflite", recipe, x)
    assert "MEAN" in _operators(exported)
    assert "AVERAGE_POOL_2D" not in _operators(exported)
    (error,) = te.verify(model, exported, x).outputs.values()
    assert error.snr_db > 19  # int8: 14.7 in the steps of the pixels, 21.4 in its own


@pytest.mark.parametrize(
    "pool",
    [layers.AveragePooling2D(3), layers.AveragePooling2D(5, 6), layers.MaxPooling2D(6)],
    ids=["a part", "not all", "largest"],
)
def test_other_pools_stay(pool, x, tmp_path):
    exported = te.export(_network(pool), tmp_path / "a.tflite", "int8", x)
    assert "MEAN" not in _operators(exported)


def test_floats_are_left_alone(x, tmp_path):
    exported = te.export(_network(layers.AveragePooling2D(6)), tmp_path / "a.tflite")
    assert "AVERAGE_POOL_2D" in _operators(exported)
