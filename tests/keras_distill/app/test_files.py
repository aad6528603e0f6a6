"""`export`, `verify` and `benchmark` of files, through the command line."""

import json
import shutil

import keras
import numpy as np
import pytest

import tflite_export as te
from keras_distill import card
from keras_distill.app import cli, export, model_file, verify


def call(capsys, *arguments):
    """Run a command; its exit code, its standard output and its standard error."""
    with pytest.raises(SystemExit) as end:
        cli.main([str(argument) for argument in arguments])
    told = capsys.readouterr()
    return end.value.code, told.out, told.err


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """A file that tells dark tops from dark bottoms, of 8×8 pixels, and says so on its card."""
    inputs = keras.Input((8, 8, 3), name="image")
    x = keras.layers.AveragePooling2D((4, 8))(inputs)
    x = keras.layers.Flatten()(x)  # red, green, blue of the upper half, then of the lower
    top = keras.layers.Dense(2, activation="softmax", name="scores")
    model = keras.Model(inputs, top(x))
    kernel = np.array([[1.0, -1.0]] * 3 + [[-1.0, 1.0]] * 3)
    top.set_weights([kernel, np.zeros(2)])
    path = tmp_path_factory.mktemp("student") / "student.keras"
    return card.save(model, path, card.Card(["bottom", "top"], (0.0, 255.0), (8, 8)))


@pytest.fixture(scope="module")
def exported(student, photos):
    output = student.with_name("student.tflite")
    export.run(student, output, quantization="int8", data=photos, input_type="uint8")
    return output


def test_export_knows_labels_and_normalisation_from_the_card(student, photos, tmp_path, capsys):
    output = tmp_path / "new" / "s.tflite"
    arguments = ["export", student, "-o", output, "--quantization", "int8", "--data", photos]
    code, out, _ = call(capsys, *arguments, "--input-type", "uint8", "--json")
    assert code == 0
    said = json.loads(out)
    assert said["size_bytes"] == output.stat().st_size
    assert said["inputs"] == [{"name": "image", "shape": [1, 8, 8, 3], "dtype": "uint8"}]
    assert said["labels"] == ["bottom", "top"]
    assert te.read_metadata(output).labels == ("bottom", "top")
    code, out, _ = call(capsys, "export", student, "-o", tmp_path / "float.tflite")
    assert code == 0
    assert "float32" in out
    assert te.read_metadata(tmp_path / "float.tflite").inputs[0].normalization.std == (255.0,)


def test_export_takes_arrays_labels_and_normalisation_that_are_given(tmp_path, capsys):
    inputs = keras.Input((4, 4, 1))
    outputs = keras.layers.Dense(2)(keras.layers.Flatten()(inputs))
    keras.Model(inputs, outputs).save(tmp_path / "plain.keras")
    pixels = np.random.default_rng(0).integers(0, 256, (50, 4, 4), np.uint8)
    np.savez(tmp_path / "data.npz", x_train=pixels, x_test=pixels[:0])
    (tmp_path / "names.txt").write_text("even\r\nodd\r\n", "utf-8-sig", newline="")
    arguments = ["export", tmp_path / "plain.keras", "-o", tmp_path / "o.tflite"]
    arguments += ["--quantization", "int8", "--data", tmp_path / "data.npz", "--examples", "20"]
    code, _, err = call(capsys, *arguments)
    assert code == 1
    assert "holds pixels, and" in err
    assert "give --normalization MEAN STD" in err
    assert not (tmp_path / "o.tflite").exists()
    arguments += ["--normalization", "0", "255", "--labels", tmp_path / "names.txt"]
    code, _, err = call(capsys, *arguments)
    assert (code, err) == (0, "")
    assert te.read_metadata(tmp_path / "o.tflite").labels == ("even", "odd")


def test_examples_of_an_array_are_from_all_of_it(student, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(export.te, "export", lambda *_, **given: seen.update(given) or exit())
    np.save(tmp_path / "x.npy", np.arange(100.0)[:, None, None, None] + np.zeros((100, 8, 8, 3)))
    with pytest.raises(SystemExit):
        export.run(student, tmp_path / "o.tflite", "int8", data=tmp_path / "x.npy", examples=4)
    assert seen["representative_dataset"][:, 0, 0, 0].tolist() == [0, 33, 66, 99]


def test_int8_without_data_is_told_of_the_option(student, tmp_path, capsys):
    output = tmp_path / "o.tflite"
    code, _, err = call(capsys, "export", student, "-o", output, "--quantization", "int8")
    assert code == 1
    assert "int8 measures ranges on examples: give --data" in err


def test_verify_measures_agreement_and_accuracy_by_class(student, exported, photos, capsys):
    code, out, _ = call(capsys, "verify", student, exported, "--data", photos, "--json")
    assert code == 0
    said = json.loads(out)
    assert said["examples"] == 24
    assert said["agreement"] == said["accuracy"] == said["reference_accuracy"] == 1.0
    perfect = {"reference_accuracy": 1.0, "accuracy": 1.0, "examples": 12}
    assert said["per_class"] == {"bottom": perfect, "top": perfect}
    assert said["outputs"]["scores"]["max_error"] == said["max_error"] > 0
    code, out, _ = call(capsys, "verify", student, exported, "--data", photos)
    assert "100.0 %" in out
    assert "bottom" in out


def test_verify_takes_the_names_of_the_classes_from_either_file(
    student, exported, photos, tmp_path
):
    plain = tmp_path / "plain.keras"
    keras.models.load_model(student).save(plain)
    shutil.copytree(photos / "top", tmp_path / "some" / "top")
    normalization = (0.0, 255.0)
    found = verify.run(plain, exported, tmp_path / "some", normalization=normalization)
    assert found["per_class"] == {
        "top": {"reference_accuracy": 1.0, "accuracy": 1.0, "examples": 12}
    }
    with pytest.raises(ValueError, match="knows 2 classes and not their names"):
        verify.run(plain, plain, tmp_path / "some", normalization=normalization)


def test_verify_refuses_classes_in_another_order(student, exported, photos, tmp_path):
    other = tmp_path / "other.keras"
    shutil.copy(student, other)
    card.write_card(other, card.Card(["top", "bottom"], (0.0, 255.0), (8, 8)))
    with pytest.raises(ValueError, match=r"another order \(top, bottom and bottom, top\)"):
        verify.run(other, exported, photos)


def test_verify_without_labels_and_of_equal_models(student, photos, capsys):
    code, out, _ = call(capsys, "verify", student, student, "--data", photos / "top", "--json")
    said = json.loads(out)
    assert code == 0
    assert (said["examples"], said["agreement"], said["accuracy"]) == (12, 1.0, None)
    assert said["snr_db"] is None  # infinite, which JSON does not know


def test_verify_refuses_under_the_agreement_asked_for(student, photos, tmp_path, capsys):
    model = keras.models.load_model(student)
    layer = model.get_layer("scores")
    layer.set_weights([-layer.get_weights()[0], np.zeros(2)])  # the other way round
    te.export(model, tmp_path / "wrong.tflite")
    arguments = ["verify", student, tmp_path / "wrong.tflite", "--data", photos]
    assert call(capsys, *arguments)[0] == 0
    code, out, err = call(capsys, *arguments, "--agreement", "0.99", "--json")
    assert code == 1
    assert json.loads(out)["agreement"] == 0.0
    assert "agreement is 0, asked for at least 0.99" in json.loads(out)["error"]
    assert err == f"keras-distill: {json.loads(out)['error']}\n"


def test_verify_with_a_tflite_reference_and_arrays(student, exported, photos, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "data.npz", x=pixels, y=np.zeros(9, int))
    for reference, other in ((exported, exported), (student, exported)):
        found = verify.run(reference, other, tmp_path / "data.npz")
        assert found["examples"] == 9
        assert found["agreement"] >= 8 / 9
    assert verify.run(student, exported, tmp_path / "data.npz", max_examples=5)["examples"] == 5


def test_photos_that_are_left_out_are_named(student, exported, photos, tmp_path, capsys):
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "top" / "00.png").write_bytes(b"no photo")
    output = tmp_path / "s.tflite"
    commands = {
        "verify": [student, exported, "--data", tmp_path / "photos"],
        "export": [student, "-o", output, "--quantization", "int8", "--data", tmp_path / "photos"],
        "predict": [exported, tmp_path / "photos"],
    }
    for command, arguments in commands.items():
        code, out, err = call(capsys, command, *arguments, "--json", "--strict")
        assert code == 1
        assert "top/00.png as a photo" in json.loads(out)["error"]
        assert command != "export" or not output.exists()
        code, out, err = call(capsys, command, *arguments, "--json")
        assert code == 0
        assert err.startswith("1 of 24 photos cannot be read: ")
        assert "top/00.png: it is no image" in err
        assert "They are left out." in err
        said = json.loads(out)
        if command == "verify":
            assert said["examples"] == 23
        if command == "predict":
            assert len(said) == 23
            assert all(one["label"] in one["photo"] for one in said)


def test_benchmark_of_several_files(exported, capsys):
    code, out, _ = call(
        capsys, "benchmark", exported, exported, "--runs", "3", "--no-memory", "--json"
    )
    assert code == 0
    first, _ = json.loads(out)
    assert first["size_bytes"] == exported.stat().st_size
    assert first["runs"] == 3
    assert first["peak_memory_bytes"] is None
    assert {"operator": "SOFTMAX", "types": "int8", "count": 1} in first["operators"]
    code, out, _ = call(capsys, "benchmark", exported, "--runs", "3", "--no-memory")
    assert "SOFTMAX" in out


def test_predict_as_json(exported, photos, capsys):
    code, out, _ = call(capsys, "predict", exported, photos / "top" / "00.png", "--json")
    (answer,) = json.loads(out)
    assert code == 0
    assert answer["label"] == "top"
    assert answer["score"] == answer["scores"]["top"]


def damaged(student, path, how):
    """The student's file without its end, or with bytes within it that are others."""
    content = student.read_bytes()
    half = len(content) // 2
    turned = bytes(255 - byte for byte in content[half : half + 99])
    broken = content[:half] + (b"" if how == "cut" else turned + content[half + 99 :])
    path.write_bytes(broken)
    return path


@pytest.mark.parametrize("how", ["cut", "other bytes"])
@pytest.mark.parametrize("command", ["distill", "export", "verify", "predict"])
def test_a_damaged_keras_file_gets_one_sentence(
    command, how, student, exported, photos, tmp_path, capsys
):
    file = damaged(student, tmp_path / "broken.keras", how)
    names = ["--student", "resnet8", "-o", tmp_path / "out"]
    arguments = {
        "distill": ["distill", photos, "--teacher", file, *names],
        "export": ["export", file, "-o", tmp_path / "o.tflite"],
        "verify": ["verify", file, exported, "--data", photos],
        "predict": ["predict", file, photos / "top" / "00.png"],
    }[command]
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (1, "")
    assert err.startswith(f"keras-distill: {file} ")
    assert "damaged" in err
    assert err.count("\n") == 1
    assert [f.name for f in tmp_path.iterdir()] == ["broken.keras"]


def test_export_writes_over_nothing_else(student, exported, tmp_path, capsys):
    before = student.read_bytes()
    code, _, err = call(capsys, "export", student, "-o", student)
    assert (code, student.read_bytes()) == (1, before)
    assert "would be written over: choose another --output" in err
    for output, sentence in (
        (tmp_path, f"{tmp_path} is a folder: give the name of a file in it."),
        (student / "x.tflite", f"{student} is a file, not a folder: {student / 'x.tflite'} cannot"),
        (student / "x" / "y.tflite", f"Not a directory: {student / 'x'}"),
    ):
        code, _, err = call(capsys, "export", student, "-o", output)
        assert code == 1
        assert err.startswith(f"keras-distill: {sentence}")
    for more in (["--labels", exported], ["--data", exported]):
        code, _, err = call(capsys, "export", student, "-o", exported, *more)
        assert code == 1
        assert f"{exported} would be written over" in err
    code, _, err = call(capsys, "export", student, "-o", tmp_path / "other.keras")
    assert code == 1
    assert "other.keras does not end in .tflite" in err
    code, _, err = call(capsys, "export", exported, "-o", tmp_path / "x.tflite")
    assert "is a .tflite file already" in err
    assert not list(tmp_path.iterdir())


def test_sentences_for_files_that_are_not_there(student, exported, tmp_path, capsys):
    for arguments, sentence in (
        (["export", "no.keras", "-o", "o.tflite"], "There is no model file no.keras."),
        (["verify", student, "no.tflite", "--data", tmp_path], "There is no model file no.tflite."),
        (["verify", student, exported, "--data", "nodata"], "There are no data nodata: neither a "),
        (["benchmark", "no.tflite"], "There is no file no.tflite."),
        (
            ["export", student, "-o", tmp_path / "o.tflite", "--labels", "no.txt"],
            "There is no file of labels no.txt.",
        ),
    ):
        code, out, err = call(capsys, *arguments, "--json")
        assert code == 1
        assert err.startswith(f"keras-distill: {sentence}")
        assert json.loads(out)["error"].startswith(sentence)


def test_what_a_file_does_not_say(tmp_path):
    inputs = keras.Input((4, 4, 3))
    keras.Model(inputs, keras.layers.Flatten()(inputs)).save(tmp_path / "plain.keras")
    found = model_file.read(tmp_path / "plain.keras")
    assert (found.class_names, found.normalization, found.shape) == (None, None, (4, 4, 3))
    given = model_file.read(tmp_path / "plain.keras", (0.0, 255.0))
    np.testing.assert_array_equal(given.inputs(np.array([0.0, 255.0])), [0, 1])
    with pytest.raises(ValueError, match="mean and std are finite, and std is above 0"):
        model_file.read(tmp_path / "plain.keras", (float("nan"), 255.0))


def test_benchmark_puts_runtimes_side_by_side(exported, capsys):
    arguments = ["benchmark", exported, "--runtime", "litert", "--runtime", "tensorflow"]
    code, out, _ = call(capsys, *arguments, "--no-memory", "--runs", "2", "--json")
    assert code == 0
    said = json.loads(out)
    assert [one["runtime"] for one in said] == ["litert", "tensorflow"]
    assert {one["needs"] for one in said} == {te.minimum_runtime(exported).release}
    code, out, _ = call(capsys, *arguments, "--no-memory", "--runs", "2")
    assert code == 0
    assert "runs" in out
    assert "tenso" in out
