"""Students by name: their sizes, their one input convention, and weights from files."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_distill import students


def test_resnet8_is_the_one_of_mlperf_tiny():
    student = students.build("ResNet8", (32, 32, 3), 10)
    assert student.count_params() == 78_666
    names = [type(layer).__name__ for layer in student.layers]
    assert names.count("Conv2D") == 9
    assert names.count("Add") == 3


@pytest.mark.parametrize(
    ("name", "parameters"),  # keras.applications at width 1 with 10 classes
    [
        ("MobileNet", 3_239_114),
        ("mobilenetv2", 2_270_794),
        ("MobileNetV3Small", 1_540_218),
        ("efficientnetb0", 4_062_374),
    ],
)
def test_full_width_has_the_published_network_and_small_widths_are_small(name, parameters):
    assert students.build(name, (32, 32, 3), 10).count_params() == parameters
    small = students.build(name, (32, 32, 3), 7, width=0.13)
    assert small.count_params() < parameters / 6
    assert small.output_shape == (None, 7)
    answers = keras.ops.convert_to_numpy(small(np.zeros((2, 32, 32, 3), "float32")))
    np.testing.assert_allclose(answers.sum(1), 1, rtol=1e-5)
    foreign = (keras.layers.Rescaling, keras.layers.Normalization)
    assert not [layer for layer in small.layers if isinstance(layer, foreign)]


def test_logits_on_request():
    student = students.build("MobileNetV2", (32, 32, 1), 3, width=0.1, activation=None)
    assert student.layers[-1].activation is keras.activations.linear


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("mobilnet", "MobileNet, "), ("resnet18", "resnet8"), ("x", "EfficientNetB0")],
)
def test_a_wrong_name_gets_the_nearest_ones(name, nearest):
    with pytest.raises(ValueError, match=f"no student named '{name}'. Nearest: .*{nearest}"):
        students.build(name, (32, 32, 3), 10)


def test_a_width_that_cannot_be_built():
    with pytest.raises(ValueError, match="lies above 0, and up to 16, got -1"):
        students.build("resnet8", (32, 32, 3), 10, width=-1)
    with pytest.raises(ValueError, match=r"up to 16, got 17\.0"):
        students.build("resnet8", (32, 32, 3), 10, width=17)


def shuffled_weights(model):
    """Other numbers in every weight, so that a copy can be told from a fresh one."""
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.1, 1, w.shape).astype("float32") for w in model.get_weights()])
    return model


@pytest.fixture(scope="module", params=["MobileNetV2", "resnet8"])
def source(request):
    model = shuffled_weights(students.build(request.param, (32, 32, 3), 5, width=0.1))
    model.student_name = request.param
    return model


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_weights_from_a_file_with_a_fresh_head_for_other_classes(source, suffix, tmp_path):
    name = source.student_name
    file = tmp_path / f"source{suffix}"
    source.save(file) if suffix == ".keras" else source.save_weights(file)
    student = students.build(name, (48, 48, 3), 3, width=0.1, weights=file)
    for layer in student.layers[1:-2]:  # between input and pooling
        if not layer.weights:
            continue
        for weight, other in zip(
            layer.get_weights(), source.get_layer(layer.name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(weight, other)
    assert student.output_shape == (None, 3)
    same = students.build(name, (32, 32, 3), 5, width=0.1, weights=file)
    np.testing.assert_array_equal(
        same.layers[-1].get_weights()[0], source.layers[-1].get_weights()[0]
    )
    with pytest.raises(ValueError, match="not"):
        students.build(name, (32, 32, 3), 5, width=0.5, weights=file)


def test_weights_of_a_features_network(source, tmp_path):
    name = source.student_name
    features = keras.Model(source.input, source.layers[-2].output)
    features.save(tmp_path / "features.keras")
    student = students.build(name, (32, 32, 3), 4, width=0.1, weights=tmp_path / "features.keras")
    x = np.random.default_rng(1).uniform(-1, 1, (2, 32, 32, 3)).astype("float32")
    body = keras.Model(student.input, student.layers[-2].output)
    np.testing.assert_allclose(body(x), features(x), rtol=1e-5)


def test_efficientnet_from_pretrained_weights_sees_the_same_colours(tmp_path):
    original = keras.applications.EfficientNetB0(weights=None, input_shape=(32, 32, 3), classes=4)
    normalization = next(
        layer for layer in original.layers if isinstance(layer, keras.layers.Normalization)
    )
    mean, variance = np.array([0.485, 0.456, 0.406]), np.array([0.05, 0.06, 0.07])
    normalization.set_weights([mean, variance, np.array(0)])
    normalization.finalize_state()
    original.save(tmp_path / "original.keras")
    student = students.build("EfficientNetB0", (32, 32, 3), 4, weights=tmp_path / "original.keras")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(student(pixels / 127.5 - 1), original(pixels), rtol=1e-3, atol=1e-5)
    student.save(tmp_path / "student.keras")
    again = students.build("EfficientNetB0", (32, 32, 3), 4, weights=tmp_path / "student.keras")
    np.testing.assert_allclose(again(pixels / 127.5 - 1), original(pixels), rtol=1e-3, atol=1e-5)


def test_imagenet_weights_that_cannot_be_downloaded(monkeypatch):
    def offline(*args, **kwargs):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.applications, "MobileNetV2", offline)
    with pytest.raises(ValueError, match="MobileNetV2 cannot be downloaded: pass a file"):
        students.build("MobileNetV2", (96, 96, 3), 10, width=0.35, weights="imagenet")


def test_moving_averages_follow_a_short_training():
    momenta = {
        layer.momentum
        for name in ("MobileNetV2", "EfficientNetB0")
        for layer in students.build(name, (32, 32, 3), 2, width=0.1).layers
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    assert max(momenta) <= 0.99


def test_a_narrow_resnet8_trains_on_odd_batches():
    # In a process of its own: TensorFlow's crash would take the tests with it.
    program = (
        "import numpy as np; from keras_distill import students\n"
        "student = students.build('resnet8', (16, 16, 3), 2, width=0.25)\n"
        "student.compile('sgd', 'sparse_categorical_crossentropy')\n"
        "for count in (1, 3, 15, 19, 33):\n"
        "    student.train_on_batch(np.zeros((count, 16, 16, 3), 'float32'), np.zeros(count))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-1000:]
