"""A folder of small photos that are easy to tell apart, and one distillation of it, run once."""

import numpy as np
import pytest
from PIL import Image

from keras_distill.app import distill


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Two classes, 12 photos each: dark at the top, or dark at the bottom."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, dark in (("bottom", slice(16, 32)), ("top", slice(0, 16))):
        (root / name).mkdir()
        for i in range(12):
            pixels = rng.integers(150, 256, (32, 32, 3), dtype=np.uint8)
            pixels[dark] //= 4
            Image.fromarray(pixels).save(root / name / f"{i:02d}.png")
    return root


@pytest.fixture(scope="session")
def teacher_file(photos, tmp_path_factory):
    """A functional network with other classes, and a card of its own normalisation."""
    import keras

    from keras_distill import card

    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((48, 48, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(5, activation="softmax")(x), name="elsewhere")
    path = tmp_path_factory.mktemp("teacher") / "teacher.keras"
    return card.save(model, path, card.Card(normalization=(0.0, 255.0)))


@pytest.fixture(scope="session")
def finished(photos, teacher_file, tmp_path_factory):
    """The folder and the summary of a distillation into an int8 file."""
    output = tmp_path_factory.mktemp("finished")
    summary = distill.run(
        photos,
        output,
        teacher=teacher_file,
        student="resnet8",
        width=0.25,
        image_size=32,
        epochs=1,
        batch_size=8,
        teacher_epochs=2,
        teacher_image_size=40,
    )
    return output, summary
