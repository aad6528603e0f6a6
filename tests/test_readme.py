"""What the README shows, run as it stands there."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language):
    """The README's fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_two_commands_come_first():
    first, second, *_ = blocks("bash")
    assert "keras-distill demo" in first
    assert 'pip install -e ".[test]"' in second
    assert second.rstrip().endswith("python -m pytest")
    assert README.index(first) < README.index("```python")


@pytest.mark.parametrize("word", ["alpha", "student_loss_fn", "distillation_loss_fn"])
def test_the_old_tutorials_words_are_there(word):
    assert word in README


def test_fit_and_export_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs = keras.Input((96, 96, 3))
    maps = keras.layers.Conv2D(4, 3, strides=16, name="conv4_block6_out")
    maps = keras.Model(inputs, maps(inputs), name="resnet50")(inputs)
    pooled = keras.layers.GlobalAveragePooling2D()(maps)
    keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(pooled)).save("teacher.keras")
    photos = np.random.default_rng(0).uniform(-1, 1, (8, 96, 96, 3)).astype("float32")
    train = tf.data.Dataset.from_tensor_slices((photos, np.arange(8) % 2)).batch(4)
    names = {"train": train, "validation": train}
    fit, inner = blocks("python")[:2]
    (export,) = (block for block in blocks("python") if "te.verify" in block)
    assert "epochs=30" in fit
    assert "agreement=0.98" in export
    exec(fit.replace("epochs=30", "epochs=1"), names)
    exec(inner, names)
    assert {loss.name for loss in names["distiller"].distillation_losses} == {
        "soft_targets",
        "attention_transfer",
    }
    # One epoch on noise: the answers are near ties, of which int8 may break some.
    exec(export.replace("agreement=0.98", "agreement=0.0"), names)
    assert names["exported"].labels == ("cat", "dog")
    assert type(keras.models.load_model("student.keras")).__name__ == "Functional"
    assert Path("student.tflite").stat().st_size == names["exported"].size_bytes


def test_the_teacher_is_looked_at(rng):
    import keras_distill as kd

    x = rng.normal(size=(40, 6, 6, 3)).astype("float32")
    y = (x[:, 0, 0, 0] > 0).astype(int)
    inputs = keras.Input((6, 6, 3))
    logits = keras.layers.Lambda(lambda x: keras.ops.stack([-x[:, 0, 0, 0], x[:, 0, 0, 0]], -1))
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    names = {"kd": kd, "teacher": keras.Model(inputs, logits(inputs))}
    (block,) = (block for block in blocks("python") if "check_teacher" in block)
    exec(block, {**names, "validation": data, "train": data}, names)
    assert names["check"].accuracy == 1.0


def test_teachers_out_of_files_run(tmp_path, monkeypatch):
    import tf_keras

    import keras_distill as kd
    import tflite_export as te

    monkeypatch.chdir(tmp_path)

    def network(library):
        x = inputs = library.Input((8, 8, 3))
        for layer in (library.layers.DepthwiseConv2D(3), library.layers.Flatten()):
            x = layer(x)
        return library.Model(inputs, library.layers.Dense(3, activation="softmax")(x))

    network(tf_keras).save("person_detector.h5")
    network(keras).export("serving/resnet/1", verbose=False)
    te.export(network(keras), "mobilenet_quant.tflite", quantization="dynamic_int8")
    (teachers,) = (block for block in blocks("python") if "kd.teachers.load" in block)
    names = {"kd": kd, "student": network(keras)}
    *loads, distils = teachers.rstrip().split("\n")
    for load in loads:
        exec(load, names)
        exec(distils, names)
        names["distiller"].compile("sgd", "sparse_categorical_crossentropy")
        history = names["distiller"].fit(np.ones((4, 8, 8, 3)), np.zeros(4), verbose=0).history
        assert np.isfinite(history["loss"]).all()
    assert len(loads) == 3


def test_a_teacher_that_answers_once_runs(tmp_path, monkeypatch):
    from PIL import Image

    import keras_distill as kd

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for i in range(20):
        folder = tmp_path / "photos" / ("cat", "dog")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        photo = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(photo).save(folder / f"{i}.png")

    def network():
        x = inputs = keras.Input((96, 96, 3))
        x = keras.layers.Conv2D(2, 9, strides=16)(x)
        x = keras.layers.GlobalAveragePooling2D()(x)
        return keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))

    (block,) = (block for block in blocks("python") if "SoftLabels.build" in block)
    photos = kd.data.image_folder("photos", 96)
    names = {"kd": kd, "teacher": network(), "student": network(), "validation": photos.validation}
    assert "epochs=40" in block
    exec(block.replace("epochs=40", "epochs=5, verbose=0"), names)
    assert names["labels"].views == 4


def test_who_teaches_and_when_runs(tmp_path, monkeypatch):
    import keras_distill as kd

    monkeypatch.chdir(tmp_path)

    def network():
        x = inputs = keras.Input((8, 8, 3))
        x = keras.layers.Conv2D(2, 3, 2, "same", activation="relu", name="conv")(x)
        x = keras.layers.Conv2D(2, 3, 2, "same", activation="relu")(x)
        return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x)))

    x = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32")
    names = {
        "kd": kd,
        "train": tf.data.Dataset.from_tensor_slices((x, np.arange(8) % 3)).batch(4),
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "build_student": network,
        **{
            name: network() for name in ("first", "second", "student", "assistant", "sees", "hears")
        },
    }
    (block,) = (block for block in blocks("python") if "kd.MutualDistiller" in block)
    assert block.count("epochs=30") == 3
    exec(block.replace("loss=loss", "loss=loss, verbose=0").replace("epochs=30", "epochs=1"), names)
    assert len(names["students"]) == 4


def test_quantise_app_and_server_run(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow_serving")
    pytest.importorskip("tf2onnx")
    import keras_distill as kd
    import tflite_export as te

    monkeypatch.chdir(tmp_path)
    inputs = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    student = keras.Model(
        inputs, keras.layers.Dense(2, activation="softmax", name="probability")(x)
    )
    pictures = np.random.default_rng(0).uniform(-1, 1, (16, 8, 8, 3)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((pictures, np.arange(16) % 2)).batch(8)
    names = {"keras": keras, "kd": kd, "te": te, "teacher": student, "student": student}
    names |= {
        "train": data,
        "validation": data,
        "test": data,
        "photos": pictures,
        "names": ["a", "b"],
    }
    aware, app, server = (
        block
        for block in blocks("python")
        if "quantize_aware(" in block or "te.golden" in block or "export_onnx" in block
    )
    assert "epochs=3" in aware
    exec(aware.replace("epochs=3", "epochs=1, verbose=0"), names)
    assert names["exported"].inputs[0].dtype == "uint8"
    assert not names["qat"].coverage().in_float
    names["exported"] = te.export(
        student, "app.tflite", labels=["a", "b"], normalization=(127.5, 127.5)
    )
    assert "accuracy=0.97" in app
    exec(app.replace("accuracy=0.97", "coverage=0.5"), names)
    assert te.read_metadata("app.tflite").outputs[0].score_threshold is not None
    exec(server, names)
    assert Path("serving/flowers/1/saved_model.pb").is_file()
    assert Path("student.onnx").is_file()
