"""Recipes beside "int8": what is in the file, what goes in and out, and how near the answers are."""

import numpy as np
import pytest
from litert_quantizer import recipe as recipes

import tflite_export as te
from tflite_export import flatbuffer
from tflite_export.quantize import as_given, check_recipe, needs_examples

HALF = (127.5, 127.5)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "student.tflite"


def weights_and_activations(path):
    model = flatbuffer.read(path.read_bytes())
    found = [o for o in flatbuffer.operators(model) if o.name in ("CONV_2D", "FULLY_CONNECTED")]
    return {o.input_types[:2] for o in found}


@pytest.mark.parametrize(
    ("recipe", "types", "decibels"),
    [
        ("int16x8", ("int16", "int8"), 35),  # the weights' eight bits: int8 has 25
        ("int4", ("float32", "int4"), 8),
        (recipes.weight_only_wi8_afp32(), ("float32", "float32"), 35),
        (recipes.static_wi8_ai8(), ("int8", "int8"), 25),
        (recipes.static_wi8_ai8()[0], ("int8", "int8"), 25),  # one rule for all
    ],
)
def test_recipes_give_the_types_that_they_are_named_after(
    net, examples, path, recipe, types, decibels
):
    exported = te.export(net, path, recipe, examples)
    assert weights_and_activations(path) == {types}
    assert exported.quantization == recipe
    te.verify(net, exported, examples).raise_if_worse(agreement=0.9, snr_db=decibels)


def test_int16x8_takes_pixels_in_8_bits_or_its_own_16(net, examples, photos, path):
    floats = te.load(te.export(net, path, "int16x8", examples)).run(examples)
    pixels = te.export(net, path, "int16x8", examples, "uint8", normalization=HALF)
    assert pixels.inputs[0].dtype == "uint8"
    answers = te.load(pixels).run(photos[0])
    assert np.abs(answers - floats).max() < 1e-3 * np.ptp(floats)
    own = te.export(net, path, "int16x8", examples, "int16", inference_output_type="int16")
    assert (own.inputs[0].dtype, own.outputs[0].dtype) == ("int16", "int16")
    assert own.inputs[0].zero_point == 0
    np.testing.assert_allclose(te.load(own).run(examples), floats, atol=1e-3 * np.ptp(floats))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"quantization": "int2"}, "'int16x8', 'int4', or a recipe of litert-quantizer"),
        ({"quantization": []}, "it has no rules"),
        ({"quantization": [{"regex": ".*"}]}, "KeyError: 'operation'.*litert_quantizer.recipe"),
        ({"quantization": 8}, "no recipe of litert-quantizer"),
        ({"quantization": "int16x8"}, "pass representative_dataset="),
        ({"quantization": "int8", "inference_input_type": "int16"}, "needs quantization='int16x8'"),
        ({"quantization": "int16x8", "inference_output_type": "int8"}, "needs quantization='int8'"),
        ({"quantization": "int4", "inference_output_type": "uint8"}, "needs quantization='int8'"),
        (
            {"quantization": recipes.static_wi8_ai8(), "inference_input_type": "uint8"},
            "its rules for the operations INPUT and OUTPUT",
        ),
        ({"quantization": "int4", "inference_input_type": "uint8"}, r"normalization=\(mean, std\)"),
    ],
)
def test_what_a_recipe_cannot_do_is_said(net, path, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        te.export(net, path, **arguments)
    assert not path.exists()


def test_which_recipes_measure():
    measuring = {r: needs_examples(r) for r in (None, "float16", "int4", "int8", "int16x8")}
    assert [r for r, needed in measuring.items() if needed] == ["int8", "int16x8"]
    assert needs_examples(recipes.static_wi8_ai16())
    assert not needs_examples(recipes.dynamic_wi4_afp32())
    check_recipe(recipes.dynamic_wi4_afp32())


def test_pixels_as_an_input_takes_them():
    pixels = np.array([-3.0, 0.4, 127.6, 300.0], "float32")
    np.testing.assert_array_equal(as_given(pixels, "uint8"), [0, 0, 128, 255])
    np.testing.assert_array_equal(as_given(pixels, "int8"), [-128, -128, 0, 127])
    assert as_given(pixels, "float32") is pixels
