"""The runtime: any number of examples, floats in and out, and files that cannot be trusted."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import tflite_export as te
from tflite_export.runtime import load, makers


@pytest.fixture(scope="module")
def files(net, examples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return {
        "float": te.export(net, folder / "float.tflite"),
        "open batch": te.export(net, folder / "open.tflite", batch_size=None),
        "batch of 4": te.export(net, folder / "four.tflite", batch_size=4),
        "int8": te.export(
            net, folder / "int8.tflite", "int8", examples, "int8", normalization=(128, 128),
            inference_output_type="int8",
        ),
    }  # fmt: skip


def test_it_imports_neither_tensorflow_nor_keras(files):
    code = (
        "import sys; from tflite_export.runtime import load; import numpy as np;"
        f"load({str(files['int8'].path)!r}).run(np.zeros((2, 12, 12, 3), 'float32'));"
        "print(sorted({'tensorflow', 'keras', 'tf_keras', 'jax', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""


@pytest.mark.parametrize("count", [0, 1, 3, 4, 9])
@pytest.mark.parametrize("kind", ["float", "open batch", "batch of 4"])
def test_any_number_of_examples_goes_through_any_batch(net, examples, files, kind, count):
    answers = load(files[kind]).run(examples[:count])
    assert answers.shape == (count, 3)
    if count:
        want = net.predict(examples[:count], verbose=0)
        np.testing.assert_allclose(answers, want, atol=1e-4)


def test_runs_do_not_remember_earlier_ones(examples, files):
    interpreter = load(files["open batch"])
    first = interpreter.run(examples[:3])
    interpreter.run(examples[3:20])
    np.testing.assert_array_equal(interpreter.run(examples[:3]), first)


def test_floats_are_quantised_and_integers_passed_as_they_are(examples, files):
    interpreter = load(files["int8"])
    info = interpreter.inputs[0]
    assert info.quantization == (1 / 128, 0)
    stored = info.quantize(examples)
    np.testing.assert_array_equal(stored, np.clip(np.round(examples * 128), -128, 127))
    np.testing.assert_array_equal(interpreter.run(examples), interpreter.run(stored))
    raw = interpreter.run(stored, dequantize=False)
    assert raw.dtype == np.int8
    np.testing.assert_array_equal(interpreter.outputs[0].dequantize(raw), interpreter.run(stored))


def test_runtimes_agree(examples, files):
    with pytest.warns(UserWarning, match="deprecated"):
        tensorflow = load(files["int8"], runtime="tensorflow")
    assert tensorflow.runtime == "tensorflow"
    litert = load(files["int8"], runtime="litert")
    step = litert.outputs[0].scale
    difference = tensorflow.run(examples) - litert.run(examples)
    assert np.abs(difference).max() <= 2.01 * step


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        (np.zeros((2, 12, 12, 1), "float32"), r"takes \(examples, 12, 12, 3\)"),
        (np.zeros((12, 12, 3), "float32"), r"takes \(examples, 12, 12, 3\)"),
        ({"photo": np.zeros((2, 12, 12, 3))}, r"\['image'\]"),
        (np.full((2, 12, 12, 3), 300), "do not fit"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(files, inputs, sentence):
    with pytest.raises(ValueError, match=sentence):
        load(files["int8"]).run(inputs)


def test_unknown_runtimes_and_missing_files():
    with pytest.raises(ValueError, match="'litert', 'tflite-runtime', 'tensorflow'"):
        load(b"", runtime="onnx")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.tflite"):
        load("nowhere.tflite")


@pytest.mark.parametrize(
    ("activation", "quantization", "expected"),
    [
        ("softmax", None, ("SOFTMAX", None)),
        ("softmax", "int8", ("SOFTMAX", 1 / 256)),
        ("sigmoid", "int8", ("LOGISTIC", 1 / 256)),
        ("linear", None, ("FULLY_CONNECTED", None)),
        ("relu", None, (None, None)),
    ],
)
def test_who_makes_an_output_and_in_which_steps(activation, quantization, expected, tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3, activation=activation)(inputs))
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    te.export(model, tmp_path / "m.tflite", quantization=quantization, representative_dataset=x)
    assert te.load(tmp_path / "m.tflite").outputs[0].dtype == "float32"
    assert makers(tmp_path / "m.tflite") == (expected,)


@pytest.mark.parametrize("threads", [0, -1, 100_000, 10**17])
def test_threads_that_no_machine_has_are_refused(threads, files):
    with pytest.raises(ValueError, match=rf"num_threads is {threads}: give 1 to 1024, or None"):
        load(files["float"], num_threads=threads)


@pytest.mark.parametrize("given", [None, 3, ["a.tflite"]])
def test_what_is_no_file_is_named(given):
    with pytest.raises(ValueError, match=r"was given: give the path of a \.tflite file"):
        te.load(given)
