"""Teachers out of other networks: their conventions, where they are cut, what is trained."""

import keras
import numpy as np
import pytest

from keras_distill import data
from keras_distill.app import finetune
from keras_distill.teacher_files import applications


@pytest.mark.parametrize(
    ("name", "normalization"),
    [
        ("MobileNet", (127.5, 127.5)),
        ("ResNet50", (0.0, 1.0)),  # caffe's: blue first, minus the mean colour; as layers
        ("DenseNet121", (0.0, 1.0)),  # torch's: each channel its own; as layers
        ("MobileNetV3Small", (0.0, 1.0)),  # inside the network
    ],
)
def test_applications_see_what_their_own_preprocessing_makes(name, normalization, monkeypatch):
    inputs = keras.Input((32, 32, 3))
    monkeypatch.setattr(  # the preprocessing is the question, not the network
        keras.applications, name, lambda **_: keras.Model(inputs, keras.layers.Identity()(inputs))
    )
    monkeypatch.setattr(applications, "names", lambda: [name])
    body, (mean, std) = finetune.application(name.upper(), None, 32)
    assert (mean, std) == normalization
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    module = {"MobileNet": "mobilenet", "ResNet50": "resnet", "DenseNet121": "densenet"}
    own = getattr(keras.applications, module.get(name, "mobilenet_v3")).preprocess_input(
        pixels.copy()
    )
    np.testing.assert_allclose(body((pixels - mean) / std), own, atol=1e-3)


@pytest.mark.parametrize("name", ["MobileNet", "MobileNetV2", "MobileNetV3Small"])
@pytest.mark.parametrize("include_top", [True, False])
def test_a_backbone_is_cut_at_its_last_feature_map_and_grows(name, include_top):
    more = {} if include_top else {"pooling": "avg"}
    model = getattr(keras.applications, name)(
        weights=None, alpha=0.25, include_top=include_top, input_shape=(64, 64, 3), **more
    )
    body = finetune.features(model, 96)
    assert body.input_shape == (None, 96, 96, 3)
    assert body.output_shape[1:3] == (3, 3)
    kept = finetune.features(model, None)
    bigger = [w for layer in body.layers for w in layer.get_weights()]
    for weight, other in zip(bigger, kept.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, other)


def test_a_nested_sequential_classifier_and_one_that_flattens():
    inner = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Conv2D(4, 3)], name="inner")
    pooled = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            inner,
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(7),
        ]
    )
    assert finetune.features(pooled, None).output_shape == (None, 14, 14, 4)
    flat = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Conv2D(4, 3),
            keras.layers.Flatten(),
            keras.layers.Dense(6, activation="relu"),
            keras.layers.Dense(7),
        ]
    )
    body = finetune.features(flat, 32)
    assert body.input_shape == (None, 16, 16, 3)
    assert body.output_shape == (None, 6)
    assert finetune.with_new_head(body, 3).output_shape == (None, 3)


def test_fine_tuning_trains_everything_but_batch_normalization():
    x = inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="convolution")(x)
    x = keras.layers.BatchNormalization(name="normalization")(x)
    teacher = finetune.with_new_head(keras.Model(inputs, x), 2)
    rng = np.random.default_rng(0)
    y = np.arange(64) % 2
    images = rng.normal(size=(64, 8, 8, 3)) + y[:, None, None, None]
    train = data.arrays(images.astype("float32"), y, 8)
    before = {layer.name: layer.get_weights() for layer in teacher.layers}
    finetune.fine_tune(teacher, train, train, epochs=4)
    changed = {
        layer.name
        for layer in teacher.layers
        if any(
            not np.array_equal(new, old)
            for new, old in zip(layer.get_weights(), before[layer.name], strict=True)
        )
    }
    assert changed == {"convolution", "predictions"}
