"""A quantisation-aware model as an int8 `.tflite`, with the ranges and steps that it was trained with.

    content = convert_quantized(qat).content

The graph holds a FakeQuant at each place that is stored, and TensorFlow's converter makes integers of what
lies between two of them; what has none stays in floats. Tracing and freezing is as in convert.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from tflite_export import flatbuffer
from tflite_export.chatter import hushed
from tflite_export.convert import FloatModel, Pixels, explained, frozen, normalised
from tflite_export.normalization import PIXELS, Normalization, spread
from tflite_export.quantize_aware import QuantizeAware
from tflite_export.rounding.activations import Range, rounded
from tflite_export.rounding.one_step import with_one_step
from tflite_export.rounding.requantize import requantized
from tflite_export.signature import Signature


def convert_quantized(
    model: QuantizeAware,
    batch_size: int | None = 1,
    input_shape: Any = None,
    normalization: Mapping[str, Normalization] | None = None,
    input_type: str = "float32",
    output_type: str = "float32",
) -> FloatModel:
    """Converts what `quantize_aware` made.

    Args:
        batch_size, input_shape: as in `convert`.
        normalization: with an integer input type, inputs that take raw pixels 0..255.
        input_type, output_type: "float32", "uint8" or "int8".

    Raises:
        ConversionError: no range is known, as nothing was seen in training or calibration; an operator
            is missing in TFLite.
    """
    import tensorflow as tf

    model.require_ranges()
    signature = Signature.of(model, input_shape, batch_size)
    integer = input_type != "float32"
    pixels = dict(normalization or {}) if integer else {}

    def computed(arguments: Sequence[Any]) -> Any:
        entered = [
            _pixels(a, pixels[i.name]) if i.name in pixels else a
            for i, a in zip(signature.inputs, arguments, strict=True)
        ]
        ranges = {
            n: _entry(pixels[i.name]) for n, i in enumerate(_floats(signature)) if i.name in pixels
        }
        with model.for_file(ranges):
            return signature.call(entered)

    concrete, names = frozen(model, signature.inputs, computed)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], model)
    # The public switch is the SavedModel that the converter would write first.
    converter.experimental_lower_to_saved_model = False
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    kinds = {"float32": tf.float32, "uint8": tf.uint8, "int8": tf.int8}
    converter.inference_input_type = kinds[input_type]
    converter.inference_output_type = kinds[output_type]
    try:
        with hushed(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "statistics were expected": they are in the graph
            content = converter.convert()
    except Exception as error:
        raise explained(error, concrete.graph.as_graph_def(), model) from error
    tree = with_one_step(requantized(flatbuffer.read(content)), model.one_step_kernels())
    tree = flatbuffer.with_own_outputs(tree, names)
    named = flatbuffer.with_names(tree, [i.name for i in signature.inputs], names)
    return FloatModel(flatbuffer.write(named), signature.inputs, tuple(names))


def _floats(signature: Signature) -> list[Any]:
    return [i for i in signature.inputs if "float" in i.dtype]


def _pixels(x: Any, normalization: Normalization) -> Any:
    """What stands between the file's input, raw pixels, and the model's."""
    if normalization.fits_an_integer_input:
        return x
    return normalised(rounded(x, (0.0, PIXELS - 1.0)), Pixels(normalization))


def _entry(normalization: Normalization) -> Range:
    """The range of the model's input: the pixels' own, whatever the training data span."""
    if normalization.fits_an_integer_input:
        return normalization.range
    return spread(*normalization.range)
