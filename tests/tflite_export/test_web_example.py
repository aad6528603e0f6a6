"""What examples/web/prepare.py takes, the page shows rightly; other files are refused in a sentence."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import tflite_export as te

EXAMPLE = Path(__file__).parents[2] / "examples" / "web" / "prepare.py"
LABELS = ["a", "b", "c"]


@pytest.fixture(scope="module")
def prepare():
    spec = importlib.util.spec_from_file_location("web_prepare", EXAMPLE)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded.prepare


def net(activation=None, channels=3, inputs=1, pooled=True, side=8):
    images = [keras.Input((side, side, channels), name=f"image{n}") for n in range(inputs)]
    x = images[0] if inputs == 1 else keras.layers.Add()(images)
    x = keras.layers.Conv2D(4, 3, padding="same")(x)
    x = keras.layers.GlobalAveragePooling2D()(x) if pooled else x
    return keras.Model(images, keras.layers.Dense(3, activation=activation, name="scores")(x))


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    x = np.random.default_rng(0).uniform(-1, 1, (20, 8, 8, 3)).astype("float32")

    def exported(model, **arguments):
        if "inference_input_type" in arguments or "inference_output_type" in arguments:
            arguments |= {"quantization": "int8", "representative_dataset": x}
        given = {"labels": LABELS, "normalization": (127.5, 127.5)} | arguments
        return te.export(model, tmp_path_factory.mktemp("web") / "s.tflite", **given)

    return exported


@pytest.mark.parametrize(
    ("activation", "arguments", "end"),
    [
        (None, {}, "logits"),
        ("softmax", {}, "probabilities"),
        ("sigmoid", {}, "probabilities"),
        (None, {"inference_input_type": "uint8"}, "logits"),
        ("softmax", {"inference_input_type": "uint8", "inference_output_type": "uint8"},
         "probabilities"),
    ],
)  # fmt: skip
def test_the_page_is_told_what_the_file_says(prepare, export, tmp_path, activation, arguments, end):
    file = export(net(activation), **arguments)
    prepare(file.path, tmp_path)
    about = json.loads((tmp_path / "model.json").read_text("utf-8"))
    kind = arguments.get("inference_input_type", "float32")
    stated = [0.0, 1.0] if kind == "uint8" else [127.5, 127.5]
    assert about["labels"] == LABELS
    assert about["input"] == {
        "shape": [1, 8, 8, 3],
        "dtype": kind,
        "mean": stated[:1],
        "std": stated[1:],
    }
    (output,) = file.outputs
    assert about["output"] == {
        "index": 0,
        "scale": output.scale,
        "zeroPoint": output.zero_point,
        "end": end,
    }
    assert (tmp_path / "model.tflite").read_bytes() == file.path.read_bytes()


@pytest.mark.parametrize(
    ("model", "arguments", "said"),
    [
        ({}, {"batch_size": None}, "one image of fixed size"),
        ({}, {"batch_size": 2}, "one image of fixed size"),
        ({}, {"inference_input_type": "int8"}, "takes int8"),
        ({}, {"inference_output_type": "int8"}, "answers int8"),
        ({"inputs": 2}, {"normalization": {"image0": (0, 255)}}, "takes float32 .*, float32"),
        ({"pooled": False}, {}, "one score for each label"),
        ({}, {"labels": None}, "one score for each label"),
        ({"activation": "relu"}, {}, "ends in an activation, neither"),
        ({"activation": "tanh"}, {}, "ends in TANH, neither"),
        ({"channels": 2}, {"normalization": (0, 1)}, "no picture"),
        ({}, {"inference_input_type": "uint8", "normalization": "measured"}, "no picture"),
        ({}, {"inference_output_type": "float32", "normalization": "measured"}, "no picture"),
    ],
)
@pytest.mark.filterwarnings("ignore:The file has labels")
def test_what_the_page_cannot_show_is_refused(prepare, export, tmp_path, model, arguments, said):
    file = export(net(**model), **arguments)
    with pytest.raises(ValueError, match=said):
        prepare(file.path, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:The file has labels")
def test_floats_that_say_nothing_of_pixels_are_refused(prepare, export, tmp_path):
    with pytest.raises(ValueError, match="does not say what pixels mean"):
        prepare(export(net(), normalization=None).path, tmp_path)


def test_the_command_ends_in_a_sentence(tmp_path):
    command = [sys.executable, EXAMPLE, tmp_path / "none.tflite"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"There is no file {tmp_path / 'none.tflite'}."
    assert "Traceback" not in done.stderr
