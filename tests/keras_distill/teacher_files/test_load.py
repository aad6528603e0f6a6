"""What is no file: names of keras.applications, and functions."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from tests.keras_distill.networks import examples, mlp


def test_a_name_is_a_network_of_keras_applications(tmp_path, monkeypatch):
    asked = []

    def network(weights, **options):
        asked.append((weights, options))
        return mlp()

    monkeypatch.setattr(keras.applications, "MobileNetV2", network)
    assert isinstance(kd.teachers.load("mobilenetv2"), keras.Model)
    file = tmp_path / "my.weights.h5"
    file.touch()
    for weights in (None, file):
        kd.teachers.load("MobileNetV2", weights=weights)
    assert asked == [("imagenet", {}), (None, {}), (str(file), {})]


def test_weights_that_cannot_be_had_say_so(monkeypatch):
    def offline(weights):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.applications, "MobileNet", offline)
    with pytest.raises(
        ValueError, match=r"MobileNet cannot be downloaded: pass weights.*URL fetch"
    ):
        kd.teachers.load("MobileNet")
    with pytest.raises(ValueError, match=r"There is no weights file none\.h5"):
        kd.teachers.load("MobileNet", weights="none.h5")


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_a_file_of_other_weights_is_refused(tmp_path):
    mlp().save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(
        ValueError, match=r"other\.weights\.h5 does not hold the weights of MobileNet"
    ):
        kd.teachers.load("MobileNet", weights=tmp_path / "other.weights.h5")


def test_a_function_is_a_teacher():
    x, y = examples(8)

    def answer(inputs):
        return np.eye(3, dtype="float32")[inputs[:, 0].astype(int) % 3]

    teacher = kd.teachers.load(answer, output_shape=(3,), activation="softmax")
    np.testing.assert_array_equal(teacher.targets(x).outputs, answer(x))
    distiller = kd.Distiller(teacher, mlp(), kd.losses.SoftTargets())
    distiller.compile("sgd", "sparse_categorical_crossentropy")
    distiller.fit(x, y, verbose=0)


@pytest.mark.parametrize(
    ("given", "options", "sentence"),
    [
        ("MobilNetV2", {}, r"folder MobilNetV2, nor such a name .*, such as MobileNetV2"),
        ("no/MobileNetV2.keras", {}, r"There is no file or folder no/MobileNetV2\.keras\.$"),
        (len, {}, "is a function: give output_shape="),
        (len, {"num_threads": 2}, "num_threads= has no meaning for"),
        ("MobileNetV2", {"output_shape": (3,)}, "output_shape= has no meaning for MobileNetV2"),
        ("MobileNetV2", {"activation": "softmax"}, "give teacher_activation= to the Distiller"),
    ],
)
def test_what_cannot_be_meant_gets_a_sentence(given, options, sentence, monkeypatch):
    monkeypatch.setattr(keras.applications, "MobileNetV2", lambda weights: mlp())
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        kd.teachers.load(given, **options)


def test_a_model_needs_no_loading():
    with pytest.raises(ValueError, match=r"is a keras\.Model: it is a teacher as it is"):
        kd.teachers.load(mlp())
