"""Labels and scores for photos, from either kind of file."""

import numpy as np
import pytest
from PIL import Image

import tflite_export as te
from keras_distill import card, students
from keras_distill.app import predict


@pytest.mark.parametrize("name", ["student.keras", "student.tflite"])
def test_every_kind_of_photo_gets_a_label(name, finished, photos, tmp_path):
    output, _ = finished
    for mode in ("L", "RGBA", "RGB"):
        Image.open(photos / "top" / "00.png").convert(mode).resize((50, 20)).save(
            tmp_path / f"{mode}.png"
        )
    answers = predict.run(output / name, sorted(tmp_path.iterdir()))
    assert [answer.photo for answer in answers] == [
        str(file) for file in sorted(tmp_path.iterdir())
    ]
    for answer in answers:
        assert set(answer.scores) == {"bottom", "top"}
        assert answer.scores[answer.label] == answer.score == max(answer.scores.values())
        assert sum(answer.scores.values()) == pytest.approx(1, abs=0.01)


def test_keras_int8_and_float_files_answer_alike(finished, photos, tmp_path):
    import keras

    output, _ = finished
    student = keras.models.load_model(output / "student.keras")
    te.export(
        student,
        tmp_path / "float.tflite",
        labels=["bottom", "top"],
        normalization=students.NORMALIZATION,
    )
    files = sorted(photos.glob("*/*.png"))
    by_keras, by_float, by_int8 = (
        np.array([list(answer.scores.values()) for answer in predict.run(file, files)])
        for file in (output / "student.keras", tmp_path / "float.tflite", output / "student.tflite")
    )
    np.testing.assert_allclose(by_float, by_keras, atol=1e-4)
    np.testing.assert_allclose(by_int8, by_keras, atol=0.1)


def test_the_card_says_how_pixels_are_normalised(tmp_path):
    import keras

    inputs = keras.Input((4, 4, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    model = keras.Model(inputs, keras.layers.Softmax()(pooled))
    Image.new("RGB", (4, 4), (10, 20, 130)).save(tmp_path / "x.png")
    names = ["red", "green", "blue"]
    each = ([10.0, 20.0, 30.0], [1.0, 1.0, 100.0])
    for said, expected in ((None, [-117.5, -107.5, 2.5]), (each, [0, 0, 1])):
        path = card.save(model, tmp_path / "m.keras", card.Card(names, said))
        scale = 127.5 if said is None else 1
        e = np.exp(np.array(expected) / scale)
        answer = predict.run(path, [tmp_path / "x.png"])[0]
        assert answer.label == "blue"
        np.testing.assert_allclose(list(answer.scores.values()), e / e.sum(), rtol=1e-4)


def test_what_cannot_be_read_gets_a_sentence(finished, photos, tmp_path):
    output, _ = finished
    (tmp_path / "x.onnx").touch()
    (tmp_path / "broken.jpg").write_text("no photo")
    with pytest.raises(FileNotFoundError, match=r"There is no model file .*no\.keras"):
        predict.run(tmp_path / "no.keras", [])
    with pytest.raises(ValueError, match=r"x\.onnx is no \.keras, \.h5 or \.tflite file"):
        predict.run(tmp_path / "x.onnx", [])
    with pytest.raises(ValueError, match=r"Cannot read .*broken\.jpg as a photo"):
        predict.run(output / "student.keras", [tmp_path / "broken.jpg"])
    with pytest.raises(FileNotFoundError, match=r"There is no file .*no\.jpg"):
        predict.run(output / "student.keras", [tmp_path / "no.jpg"])


def test_logits_are_answered_as_probabilities(photos, tmp_path):
    import keras

    inputs = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    top = keras.layers.Dense(3, kernel_initializer="zeros", name="top")
    model = keras.Model(inputs, top(pooled))
    top.set_weights([np.zeros((3, 3)), np.array([0.2, 0.1, 0.0])])  # logits that look like scores
    model.save(tmp_path / "m.keras")
    top.set_weights([np.zeros((3, 3)), np.array([20.0, 21.0, -5.0])])
    te.export(model, tmp_path / "m.tflite", normalization=students.NORMALIZATION)
    photo = photos / "top" / "00.png"
    (answer,) = predict.run(tmp_path / "m.keras", [photo])
    assert answer.label == "class 0"
    assert answer.score == pytest.approx(np.exp(0.2) / np.exp([0.2, 0.1, 0.0]).sum(), rel=1e-4)
    (answer,) = predict.run(tmp_path / "m.tflite", [photo])
    assert answer.label == "class 1"
    assert answer.score == pytest.approx(1 / (1 + np.exp(-1)), rel=1e-3)


def test_folders_of_photos_and_photos_that_are_not_there(finished, photos, tmp_path):
    output, _ = finished
    assert len(predict.run(output / "student.tflite", [photos / "top"])) == 12
    with pytest.raises(FileNotFoundError, match=r"There is no file .*nosuch.jpg"):
        predict.run(output / "student.tflite", [photos / "top", tmp_path / "nosuch.jpg"])


def test_a_file_without_metadata_is_run(photos, tmp_path):
    import keras

    from tflite_export.convert import convert

    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.Softmax()(keras.layers.GlobalAveragePooling2D()(inputs))
    (tmp_path / "bare.tflite").write_bytes(convert(keras.Model(inputs, outputs)).content)
    (answer,) = predict.run(tmp_path / "bare.tflite", [photos / "top" / "00.png"])
    assert answer.label.startswith("class ")
