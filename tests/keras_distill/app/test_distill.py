"""The main job, from a folder of photos to a verified file."""

import csv
import json
import shutil

import keras
import numpy as np
import pytest

import tflite_export as te
from keras_distill import card, data, students
from keras_distill.app import distill
from tflite_export import chain


def test_all_files_are_there_and_nothing_else(finished):
    output, _ = finished
    names = ["history.csv", "labels.txt", "student.keras", "student.tflite", "summary.json"]
    assert sorted(file.name for file in output.iterdir()) == [*names, "teacher.keras"]
    assert (output / "labels.txt").read_text() == "bottom\ntop\n"


def test_the_summary_says_what_the_files_are(finished):
    output, summary = finished
    written = json.loads((output / "summary.json").read_text())
    assert {key: written[key] for key in summary} == json.loads(json.dumps(summary))
    for part in ("teacher", "student", "exported"):
        assert set(written[part]) >= {"accuracy", "parameters", "size_bytes"}
        assert 0 <= written[part]["accuracy"] <= 1
    assert written["student"]["size_bytes"] == (output / "student.keras").stat().st_size
    assert written["exported"]["size_bytes"] == (output / "student.tflite").stat().st_size
    assert written["teacher"]["size_bytes"] == (output / "teacher.keras").stat().st_size
    assert written["exported"]["agreement"] >= 0.5
    assert written["exported"]["latency_ms"] > 0
    assert written["arguments"]["width"] == 0.25
    assert written["photos"] == {"train": 20, "validation": 4}
    assert written["versions"]["keras"] == keras.__version__
    student = keras.models.load_model(output / "student.keras")
    assert written["student"]["parameters"] == student.count_params()


def test_the_student_is_a_plain_model_that_knows_its_classes(finished):
    output, _ = finished
    student = keras.models.load_model(output / "student.keras")
    assert type(student).__name__ == "Functional"
    assert student.input_shape == (None, 32, 32, 3)
    assert card.read_card(output / "student.keras") == card.Card(
        ["bottom", "top"], students.NORMALIZATION, (32, 32)
    )


def test_the_teacher_was_built_again_at_another_size_with_its_normalisation(finished):
    output, _ = finished
    said = card.read_card(output / "teacher.keras")
    assert said == card.Card(["bottom", "top"], (0.0, 255.0), (40, 40))
    teacher = keras.models.load_model(output / "teacher.keras")
    assert teacher.input_shape == (None, 40, 40, 3)
    assert teacher.output_shape == (None, 2)
    assert not teacher.compiled  # no optimizer's variables in its size


def test_the_exported_file_takes_pixels_and_carries_the_labels(finished):
    output, _ = finished
    interpreter = te.load(output / "student.tflite")
    assert np.dtype(interpreter.inputs[0].dtype) == np.uint8
    assert list(te.read_metadata(output / "student.tflite").labels) == ["bottom", "top"]


def test_the_history_has_a_line_for_each_epoch(finished):
    output, _ = finished
    with open(output / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1"]
    assert float(rows[0]["val_accuracy"]) >= 0
    assert float(rows[0]["distillation_loss"]) > 0


def test_accuracies_are_those_of_the_validation_photos(finished, photos):
    output, summary = finished
    listing = data.list_folder(photos)
    student = keras.models.load_model(output / "student.keras")
    pixels = np.stack([data.read_photo(file, (32, 32)) for file in listing.validation_files])
    answers = np.argmax(student.predict(pixels / 127.5 - 1, verbose=0), -1)
    assert summary["student"]["accuracy"] == np.mean(answers == listing.validation_labels)


def test_a_classifier_of_these_classes_is_used_as_it_is(finished, photos, tmp_path):
    output, summary = finished
    before = (output / "teacher.keras").read_bytes()
    again = distill.run(
        photos,
        tmp_path,
        teacher=output / "teacher.keras",
        student=output / "student.keras",
        epochs=1,
        batch_size=8,
        quantization=None,
        student_loss_weight=1.0,
        augment=False,
    )
    assert again["teacher"] == summary["teacher"]
    assert (output / "teacher.keras").read_bytes() == before
    assert not (tmp_path / "teacher.keras").exists()
    assert np.dtype(te.load(tmp_path / "student.tflite").inputs[0].dtype) == np.float32
    assert again["exported"]["agreement"] == 1


def test_a_teacher_of_other_classes_is_refused(finished, photos, tmp_path):
    output, _ = finished
    path = tmp_path / "teacher.keras"
    path.write_bytes((output / "teacher.keras").read_bytes())
    card.write_card(path, card.Card(["cat", "dog"]))
    with pytest.raises(
        ValueError, match="knows the classes cat, dog, and the folders are bottom, top"
    ):
        distill.run(photos, tmp_path / "out", teacher=path, student="resnet8")
    assert not (tmp_path / "out" / "student.keras").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"teacher": "no.keras"}, "There is no teacher file no.keras"),
        ({"teacher": "MobileNetV9"}, "no teacher 'MobileNetV9'.*such as MobileNetV"),
        ({"student": "resnet9"}, "no student named 'resnet9'. Nearest: resnet8"),
        ({"student": "no.keras"}, "There is no student file no.keras"),
        ({"teacher": "MobileNetV2", "teacher_weights": "no.h5"}, "no weights file no.h5"),
        ({"photos": "nowhere"}, "There is no folder nowhere"),
        ({"quantization": "int3"}, "quantization='int3' is none of"),
        ({"temperature": 0}, "temperature"),
        ({"student_loss_weight": 1.5}, "student_loss_weight lies between 0 and 1, got 1.5"),
    ],
)
def test_what_cannot_be_used_gets_a_sentence(arguments, sentence, photos, tmp_path):
    usual = {"photos": photos, "output": tmp_path, "teacher": "MobileNetV2", "student": "resnet8"}
    with pytest.raises(ValueError, match=sentence):
        distill.run(**{**usual, **arguments})
    assert not list(tmp_path.iterdir())


def test_imagenet_weights_that_cannot_be_downloaded_name_the_option(photos, tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise Exception("URL fetch failure")

    monkeypatch.setattr("keras.src.applications.mobilenet_v2.file_utils.get_file", offline)
    with pytest.raises(
        ValueError, match="MobileNetV2 cannot be downloaded: pass --teacher-weights"
    ):
        distill.run(photos, tmp_path, teacher="mobilenetv2", student="resnet8")


def test_a_run_does_not_write_over_what_it_reads(finished, photos):
    output, _ = finished
    before = (output / "student.keras").read_bytes()
    with pytest.raises(ValueError, match="would be written over by this run"):
        distill.run(photos, output, teacher=output / "student.keras", student="resnet8")
    with pytest.raises(ValueError, match="would be written over by this run"):
        distill.run(photos, output, teacher="MobileNet", student=output / "student.keras")
    assert (output / "student.keras").read_bytes() == before


def test_nothing_is_made_before_the_arguments_are_known_to_do(photos, tmp_path):
    broken = tmp_path / "broken.keras"
    broken.write_bytes(b"no zip at all")
    for teacher, sentence in (
        (broken, "is damaged, or no .keras file"),
        ("nonsense", "There is no"),
    ):
        with pytest.raises(ValueError, match=sentence):
            distill.run(photos, tmp_path / "out", teacher=teacher, student="resnet8")
    with pytest.raises(ValueError, match="learning_rate is a number above 0"):
        distill.run(photos, tmp_path / "out", teacher=broken, student="resnet8", learning_rate=-1)
    with pytest.raises(ValueError, match="image_size is a number of pixels from 8 to 4096"):
        distill.run(photos, tmp_path / "out", teacher=broken, student="resnet8", image_size=0)
    assert not (tmp_path / "out").exists()


def test_strict_refuses_photos_that_cannot_be_read(finished, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "top" / "bad.jpg").write_bytes(b"")
    usual = {"teacher": finished[0] / "teacher.keras", "student": "resnet8", "strict": True}
    with pytest.raises(ValueError, match=r"1 of 25 photos cannot be read: .*bad\.jpg: it is empty"):
        distill.run(tmp_path / "photos", tmp_path / "out", **usual)
    assert not (tmp_path / "out").exists()


def test_quantization_aware_trains_on_where_the_file_is_worse(
    finished, photos, tmp_path, monkeypatch
):
    after = [chain.AFTER]
    monkeypatch.setattr(chain._Files, "worse", lambda self, one: 0.1 if one.name in after else 0.0)
    arguments = {"teacher": finished[0] / "teacher.keras", "student": "resnet8", "epochs": 2}
    summary = distill.run(
        photos, tmp_path / "out", image_size=16, quantization_aware=True, batch_size=8, **arguments
    )
    assert summary["arguments"]["quantization_aware"] is True
    assert summary["exported"]["agreement"] == 1.0  # with the float student of the file
    student = keras.models.load_model(tmp_path / "out" / "student.keras")
    assert type(student).__name__ == "Functional"
    assert te.load(tmp_path / "out" / "student.tflite").inputs[0].dtype == "uint8"
    assert not (tmp_path / "out" / "unfinished").exists()
    with pytest.raises(ValueError, match="quantization_aware is for quantization='int8'"):
        distill.run(
            photos, tmp_path / "x", quantization_aware=True, quantization="float16", **arguments
        )
