"""Teachers of the command `distill` that are files of other kinds, and those that do not fit."""

import keras
import numpy as np
import pytest
import tf_keras

import tflite_export as te
from keras_distill import card, data
from keras_distill.app import distill, networks


def network(classes=2, shape=(16, 16, 3), activation="softmax", library=keras, outputs=1):
    """A tiny classifier whose first class is a picture that is dark at the top."""
    layers = library.layers
    inputs = library.Input(shape)
    x = layers.Conv2D(4, 3, strides=2, activation="relu")(inputs)
    x = layers.DepthwiseConv2D(3)(x)
    x = layers.GlobalAveragePooling2D()(x)
    found = [layers.Dense(classes, activation=activation)(x) for _ in range(outputs)]
    return library.Model(inputs, found[0] if outputs == 1 else found)


@pytest.fixture(scope="module")
def listing(photos):
    """The two classes of photos, bottom and top."""
    return data.list_folder(photos)


def taken(file, listing, normalization=None, image_size=None):
    """The teacher of a file."""
    return networks.teacher_network(file, listing, None, image_size, normalization)


def pixels_of(listing, size):
    """The validation photos as the pipeline hands them over."""
    files, labels = listing.validation_files, listing.validation_labels
    return data.photos(files, labels, size, batch_size=4, shuffle=False)


def accuracy_of(model, listing, scale):
    """What the Keras model is right on."""
    files = [data.read_photo(file, (16, 16)) for file in listing.validation_files]
    answers = np.argmax(model.predict(scale(np.stack(files)), verbose=0), -1)
    return np.mean(answers == listing.validation_labels)


@pytest.mark.parametrize("kind", ["saved_model", "float", "uint8", "int8", "old.h5"])
def test_a_teacher_of_these_classes_is_used_as_it_is_whatever_the_file(kind, listing, tmp_path):
    model = network(library=tf_keras if kind == "old.h5" else keras)
    path = (
        tmp_path
        / f"teacher{dict(saved_model='').get(kind, '.h5' if kind == 'old.h5' else '.tflite')}"
    )
    x = (np.stack([data.read_photo(file, (16, 16)) for file in listing.train_files]) - 100.0) / 50.0
    normalization = (100.0, 50.0)
    if kind == "old.h5":
        model.save(path)
    elif kind == "saved_model":
        model.export(path / "1", verbose=False)
    else:
        te.export(
            model, path, quantization=None if kind == "float" else "int8", representative_dataset=x,
            inference_input_type="float32" if kind == "float" else kind,
            labels=["bottom", "top"], normalization=normalization,
        )  # fmt: skip
    given = normalization if kind in ("saved_model", "old.h5") else None
    teacher, ready = taken(path, listing, given)
    assert ready
    assert teacher.image_size == (16, 16)
    expected = accuracy_of(model, listing, lambda pixels: (pixels - 100.0) / 50.0)
    assert teacher.accuracy(pixels_of(listing, (16, 16))) == pytest.approx(expected, abs=0.26)
    photo = np.stack([data.read_photo(file, (16, 16)) for file in listing.validation_files])
    answers = teacher.model
    if isinstance(answers, keras.Model):
        got = answers(teacher.inputs(photo))
    else:
        got = answers.targets(teacher.inputs(photo)).outputs
    np.testing.assert_allclose(got, model((photo - 100.0) / 50.0), atol=0.05)


def test_a_tflite_teacher_distils_from_photos_to_files(photos, tmp_path):
    te.export(
        network(), tmp_path / "teacher.tflite", labels=["bottom", "top"], normalization=(0, 255)
    )
    summary = distill.run(
        photos, tmp_path / "out", teacher=tmp_path / "teacher.tflite", student="resnet8", width=0.25,
        epochs=1, batch_size=8, quantization=None,
    )  # fmt: skip
    assert summary["teacher"]["size_bytes"] == (tmp_path / "teacher.tflite").stat().st_size
    assert summary["teacher"]["parameters"] is None
    assert (tmp_path / "out" / "student.tflite").exists()
    assert not (tmp_path / "out" / "teacher.keras").exists()
    distill.show(summary, tmp_path / "out")


def test_an_old_file_of_other_classes_is_fine_tuned(listing, tmp_path, capsys):
    network(5, library=tf_keras).save(tmp_path / "old.h5")
    teacher, ready = taken(tmp_path / "old.h5", listing)
    assert not ready
    assert teacher.model.output_shape == (None, 2)
    said = "answers with shape (None, 5), and there are 2 class folders: it gets a new head"
    assert said in " ".join(capsys.readouterr().err.split())


def test_labels_in_another_order_and_other_labels_show_both_lists(listing, tmp_path):
    path = tmp_path / "teacher.tflite"
    te.export(network(), path, labels=["top", "bottom"], normalization=(0, 255))
    sentence = (
        "knows the classes top, bottom, and the folders are bottom, top, in another order: give the"
    )
    with pytest.raises(ValueError, match=sentence):
        taken(path, listing)
    te.export(network(), path, labels=["cat", "dog"], normalization=(0, 255))
    sentence = "knows the classes cat, dog, and the folders are bottom, top: rename the folders"
    with pytest.raises(ValueError, match=sentence):
        taken(path, listing)
    saved = card.save(network(), tmp_path / "t.keras", card.Card(["top", "bottom"]))
    with pytest.raises(
        ValueError, match="top, bottom, and the folders are bottom, top, in another"
    ):
        taken(saved, listing)


def test_long_lists_are_shortened(listing, tmp_path):
    names = [f"bird {i}" for i in range(40)]
    te.export(network(40), tmp_path / "t.tflite", labels=names, normalization=(0, 255))
    sentence = (
        r"answers with shape \(None, 40\) \(bird 0, bird 1, bird 2, bird 3, bird 4, … "
        r"\(40 in all\)\), and the folders are bottom, top: .*fine-tuned"
    )
    with pytest.raises(ValueError, match=sentence):
        taken(tmp_path / "t.tflite", listing)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"shape": (16, 16, 1)}, r"takes inputs of shape \(None, 16, 16, 1\), and photos are"),
        (
            {"shape": (None, None, 3)},
            r"takes photos of any size .*: say which with --teacher-image-size",
        ),
        ({"outputs": 2}, r"one input and one output"),
    ],
)
@pytest.mark.parametrize("kind", ["keras", "saved_model"])
def test_teachers_that_are_none_of_photos(kind, arguments, sentence, listing, tmp_path):
    model = network(**arguments)
    path = tmp_path / ("teacher.keras" if kind == "keras" else "teacher")
    model.save(path) if kind == "keras" else model.export(path, verbose=False)
    with pytest.raises(ValueError, match=sentence):
        taken(path, listing)


@pytest.mark.parametrize("kind", ["keras", "saved_model"])
def test_a_teacher_of_any_size_gets_the_size_that_is_said(kind, listing, tmp_path):
    path = tmp_path / ("teacher.keras" if kind == "keras" else "teacher")
    model = network(shape=(None, None, 3))
    model.save(path) if kind == "keras" else model.export(path, verbose=False)
    teacher, ready = taken(path, listing, image_size=24)
    assert (ready, teacher.image_size) == (True, (24, 24))
    assert 0 <= teacher.accuracy(pixels_of(listing, (24, 24))) <= 1


def test_other_files_and_damaged_ones(listing, tmp_path):
    (tmp_path / "teacher.onnx").write_text("of no use")
    (tmp_path / "teacher.h5").write_text("of no use")
    (tmp_path / "empty").mkdir()
    for name, sentence in (
        (
            "teacher.onnx",
            "is of no kind that can be loaded: give a .keras or .h5 file, a SavedModel",
        ),
        ("teacher.h5", "teacher.h5 is damaged"),
        ("empty", "empty has no saved_model.pb"),
        ("nothing.tflite", "There is no teacher file"),
    ):
        with pytest.raises(ValueError, match=sentence):
            taken(tmp_path / name, listing)


@pytest.mark.parametrize("kind", ["keras", "saved_model"])
def test_a_normalisation_that_is_guessed_is_said(kind, listing, tmp_path, capsys):
    path = tmp_path / ("teacher.keras" if kind == "keras" else "teacher")
    model = network()
    model.save(path) if kind == "keras" else model.export(path, verbose=False)
    assert taken(path, listing)[0].normalization == (127.5, 127.5)
    assert "does not say how its input is normalised: −1..1 is taken" in capsys.readouterr().err
    assert taken(path, listing, (0.0, 1.0))[0].normalization == (0.0, 1.0)
    assert capsys.readouterr().err == ""
