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
    fit, inner, export = blocks("python")[:3]
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
