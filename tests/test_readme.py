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
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(pooled)).save("teacher.keras")
    photos = np.random.default_rng(0).uniform(-1, 1, (8, 96, 96, 3)).astype("float32")
    train = tf.data.Dataset.from_tensor_slices((photos, np.arange(8) % 2)).batch(4)
    names = {"train": train, "validation": train}
    fit, export = blocks("python")[:2]
    assert "epochs=30" in fit
    assert "agreement=0.98" in export
    exec(fit.replace("epochs=30", "epochs=1"), names)
    # One epoch on noise: the answers are near ties, of which int8 may break some.
    exec(export.replace("agreement=0.98", "agreement=0.0"), names)
    assert names["exported"].labels == ("cat", "dog")
    assert type(keras.models.load_model("student.keras")).__name__ == "Functional"
    assert Path("student.tflite").stat().st_size == names["exported"].size_bytes
