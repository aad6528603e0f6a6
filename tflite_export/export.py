"""One call from a trained Keras model to one `.tflite` file.

    exported = export(model, "student.tflite", quantization="int8", representative_dataset=train,
                      inference_input_type="uint8", normalization=(127.5, 127.5), labels=names)
    exported.size_bytes, exported.inputs, exported.outputs

The model is traced once (convert.py), quantised (quantize.py), given labels and normalisation
(metadata.py) and written whole or not at all (whole_file.py).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from tflite_export import flatbuffer, metadata, ranges, representative
from tflite_export.class_names import class_names
from tflite_export.convert import ConversionError, FloatModel, Pixels, convert
from tflite_export.convert_quantized import convert_quantized
from tflite_export.normalization import Normalization
from tflite_export.operator_versions import with_honest_versions
from tflite_export.quantize import (
    Recipe,
    as_given,
    check_edges,
    check_recipe,
    needs_examples,
    pixel_ranges,
    quantize,
    quantizes_pixels,
)
from tflite_export.quantize_aware import QuantizeAware, quantize_aware
from tflite_export.runtime import TensorInfo, load
from tflite_export.signature import ModelInput, Signature
from tflite_export.whole_file import write_whole


@dataclass(frozen=True)
class Exported:
    """A file that `export` wrote.

    Attributes:
        path: of the file.
        size_bytes: its size.
        inputs, outputs: names, shapes, types and quantisation, in the Keras model's order.
        quantization: the recipe.
        labels: class names inside the file, or None.
        normalization: {input: Normalization} of the inputs that pixels go to.
    """

    path: Path
    size_bytes: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    quantization: Recipe
    labels: tuple[str, ...] | None
    normalization: Mapping[str, Normalization]

    def __fspath__(self) -> str:
        return str(self.path)


def export(
    model: Any,
    path: str | os.PathLike[str],
    quantization: Recipe = None,
    representative_dataset: Any = None,
    inference_input_type: str = "float32",
    labels: Sequence[str] | None = None,
    normalization: Any = None,
    batch_size: int | None = 1,
    *,
    inference_output_type: str = "float32",
    input_shape: Any = None,
    num_calibration_examples: int = 300,
    keep_float: Sequence[str] = (),
    name: str | None = None,
    description: str | None = None,
    version: str | None = None,
    author: str | None = None,
    license: str | None = None,
) -> Exported:
    """Exports a Keras model as a TFLite file of builtin operators.

    Args:
        model: functional, sequential, nested, or subclassed and called once; or what `quantize_aware`
            made, which becomes "int8" with the ranges that it learned.
        path: of the file; one that exists is replaced when the new one is whole.
        quantization: None, "float16", "dynamic_int8", "int8", "int16x8", "int4" or a recipe of
            litert-quantizer (quantize.py).
        representative_dataset: for "int8" and "int16x8", examples in the form that *the model*
            takes, so already normalised: the data that `fit` gets will do. tf.data, arrays, or batches,
            with or without labels; `num_calibration_examples` of them are read: the first, and of arrays
            and folders some from everywhere. Or the path of a folder of images, whose pixels
            `normalization` takes to the model's input. Their range is compared with what
            `normalization` leads to and with what the model was distilled on (ranges.py).
        inference_input_type: "float32"; "uint8" (pixels, as MediaPipe Tasks takes them); "int8"
            (pixel - 128, for microcontrollers); "int16" with "int16x8". Every float input gets it, or
            an error says why not; 8 bits with other recipes than "int8" need `normalization`. A
            recipe of litert-quantizer says itself what the file takes and gives.
        labels: class names, in the order of the last axis of an output; of several outputs that fit, the one
            that ends in a softmax or sigmoid is meant, or else the first.
        normalization: `(mean, std)` of numbers or lists of one for each channel, which take raw
            pixels 0..255 to the model's input; a dict by input name where there are several
            inputs. A float file carries it as metadata, for the app to apply. In a file with
            integer input, pixel p means exactly (p - mean) / std, whatever the representative
            photos span. Image inputs of integer type need it: (0, 1) says that the model takes
            pixels as they are. "measured" says that an input with the shape of a picture is none, such as
            a spectrogram: an integer input then has the steps that the examples lead to.
        batch_size: static batch; None leaves it open, which is slower on phones.
        inference_output_type: "float32"; "uint8" or "int8" with "int8", "int16" with "int16x8".
        input_shape: sizes without the batch, for a model that leaves them open: a tuple, or a
            list or dict of them. For inputs that are not float32 (the tokens of a subclassed
            model), a `keras.InputSpec(shape=(None, 80), dtype="int32")` in a tuple's place; its
            shape has the batch.
        keep_float: for "int8", names of layers that stay in floats, such as the worst of
            `sensitivity`; such a file is made as one of a quantisation-aware model is.
        name, description, version, author, license: for the metadata, where apps and people read
            them (`read_metadata`); the model's name by default.

    Raises:
        ValueError: see the sentence; nothing is written then.
        ConversionError: the model needs an operator that TFLite does not have.
    """
    aware = isinstance(model, QuantizeAware)
    if aware:
        quantization = _recipe_of_aware(quantization, representative_dataset, keep_float)
    check_recipe(quantization)
    check_edges(quantization, inference_input_type, inference_output_type)
    if keep_float and quantization != "int8":
        raise ValueError(f"keep_float= is for quantization='int8', and it is {quantization!r}.")
    signature = Signature.of(model, input_shape, batch_size)
    measured = isinstance(normalization, str) and normalization == "measured"
    if measured and not (aware or needs_examples(quantization)):
        raise ValueError(
            f"normalization='measured' takes an input's steps from examples, which quantization="
            f"{quantization!r} does not read: give (mean, std), or quantization='int8'."
        )
    normal = _by_input(None if measured else normalization, signature.inputs)
    labels = class_names(labels)
    integer = inference_input_type in ("uint8", "int8")
    if labels is not None and inference_input_type == "float32" and not measured:
        _warn_of_plain_floats(signature.inputs, normal)
    if integer and not measured:
        _require_normalization(signature.inputs, normal, inference_input_type)
        if not quantizes_pixels(quantization):
            _require_every_float_normalized(
                signature.inputs, normal, inference_input_type, quantization
            )
    examples = []
    if needs_examples(quantization) and not aware:
        examples = representative.read(
            representative_dataset, signature.inputs, num_calibration_examples, normal
        )
        ranges.check(examples, normal, ranges.recorded(model, signature.inputs))
    if keep_float:
        model, aware = quantize_aware(model, keep_float=keep_float), True
        model.calibrate_on(examples)

    pixels = {}
    if integer and quantizes_pixels(quantization):
        pixels = {n: Pixels(v) for n, v in normal.items() if not v.fits_an_integer_input}
    elif integer:
        pixels = {n: Pixels(v, inference_input_type) for n, v in normal.items()}
    if aware:
        edges = inference_input_type, inference_output_type
        content = convert_quantized(model, batch_size, input_shape, normal, *edges).content
    else:
        converted = convert(model, batch_size, input_shape, pixels, needs_examples(quantization))
        for example in examples:
            for one in pixels:
                example[one] = as_given(normal[one].invert(example[one]), pixels[one].dtype)
        content = _checked(
            lambda: quantize(
                converted.content,
                quantization,
                examples,
                inference_input_type,
                inference_output_type,
                pixel_ranges(converted.content, normal)
                if integer and quantizes_pixels(quantization)
                else None,
            ),
            quantization,
            converted,
            model,
        )
    content = metadata.embed(
        content,
        name=name or model.name,
        description=description,
        labels=labels,
        normalization=normal,
        in_graph=pixels,
        measured=[i.name for i in signature.inputs] if measured else (),
        version=version,
        author=author,
        license=license,
    )
    interpreter = load(content)  # it runs here before anybody gets it
    _require_integers(interpreter.inputs, signature.inputs, inference_input_type)
    written = write_whole(path, content)
    return Exported(
        path=written,
        size_bytes=len(content),
        inputs=interpreter.inputs,
        outputs=interpreter.outputs,
        quantization=quantization,
        labels=labels,
        normalization=normal,
    )


def _by_input(normalization: Any, inputs: Sequence[ModelInput]) -> dict[str, Normalization]:
    if normalization is None:
        return {}
    if not isinstance(normalization, Mapping):
        if len(inputs) > 1:
            raise ValueError(
                f"The model has the inputs {[i.name for i in inputs]}: give normalization as a "
                "dict by input name."
            )
        normalization = {inputs[0].name: normalization}
    by_name = {i.name: i for i in inputs}
    unknown = sorted(set(normalization) - set(by_name))
    if unknown:
        raise ValueError(f"normalization names {unknown}; the model's inputs are {list(by_name)}.")
    return {
        n: Normalization.of_input(pair, n, by_name[n].dtype, by_name[n].shape[-1])
        for n, pair in normalization.items()
    }


def _require_normalization(
    inputs: Sequence[ModelInput], normal: Mapping[str, Normalization], kind: str
) -> None:
    for one in inputs:
        image = len(one.shape) == 4 and one.shape[-1] in (1, 3) and one.dtype == "float32"
        if image and one.name not in normal:
            raise ValueError(
                f"inference_input_type={kind!r} means that pixels 0..255 go into {one.name!r}: say "
                "what the model was trained on with normalization=(mean, std). (127.5, 127.5) for "
                "inputs of -1..1, (0, 255) for 0..1, (0, 1) for a model that takes 0..255; or "
                "normalization='measured' if it is no picture."
            )


def _warn_of_plain_floats(
    inputs: Sequence[ModelInput], normal: Mapping[str, Normalization]
) -> None:
    for one in inputs:
        image = len(one.shape) == 4 and one.shape[-1] in (1, 3) and one.dtype == "float32"
        if image and one.name not in normal:
            warnings.warn(
                f"The file has labels, and nothing says how pixels become its float32 input {one.name!r}: "
                "MediaPipe Tasks refuses it, and other apps guess. Pass normalization=(mean, std), (0, 1) "
                "for a model that takes 0..255.",
                stacklevel=3,
            )


def _require_every_float_normalized(
    inputs: Sequence[ModelInput], normal: Mapping[str, Normalization], kind: str, recipe: Recipe
) -> None:
    for one in inputs:
        if "float" in one.dtype and one.name not in normal:
            raise ValueError(
                f"inference_input_type={kind!r} with quantization={recipe!r}: input {one.name!r} "
                "would stay float32, as nothing says what its integers mean. Pass "
                "normalization=(mean, std) if it takes pixels, or quantization='int8', which "
                "measures a scale, or leave inference_input_type='float32'."
            )


def _require_integers(made: Sequence[TensorInfo], inputs: Sequence[ModelInput], kind: str) -> None:
    floats = [
        i.name
        for i, m in zip(inputs, made, strict=True)
        if "float" in i.dtype and "float" in m.dtype
    ]
    if kind != "float32" and floats:
        raise ValueError(
            f"inference_input_type={kind!r}: the quantiser leaves the inputs {floats} in float32. "
            "Cut off inputs that nothing reads, or leave inference_input_type='float32'."
        )


def _not_quantizable(model: Any, content: bytes) -> ConversionError:
    """What litert-quantizer made does not run: say which part of the model it may be."""
    loops = [
        layer.name
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.RNN) or _own(layer)
    ]
    operators = {o.name for o in flatbuffer.operators(flatbuffer.read(content))}
    found = f"layers {loops}" if loops else f"operators {sorted(operators & _HARD_TO_QUANTIZE)}"
    what = f" (it has the {found})" if loops or operators & _HARD_TO_QUANTIZE else ""
    return ConversionError(
        f"litert-quantizer cannot make a file of integers of {model.name!r}{what}: use "
        f"quantization='dynamic_int8', which keeps activations in float32."
    )


def _own(layer: Any) -> bool:
    """Whether a layer is somebody's own, with who knows what in it."""
    return not isinstance(layer, keras.Model) and not type(layer).__module__.startswith("keras.")


# Operators with graphs inside them, whose edges the quantiser does not follow.
_HARD_TO_QUANTIZE = {"WHILE", "IF", "CALL_ONCE", "UNIDIRECTIONAL_SEQUENCE_LSTM"}


def _recipe_of_aware(recipe: Any, examples: Any, keep_float: Sequence[str]) -> str:
    """A quantisation-aware model has learned what the recipes measure."""
    if recipe not in (None, "int8"):
        raise ValueError(
            f"quantization={recipe!r}: a quantisation-aware model becomes 'int8'. For another recipe give "
            "the float student, tflite_export.strip(model)."
        )
    if examples is not None:
        raise ValueError(
            "representative_dataset= is not read for a quantisation-aware model, whose ranges were "
            "learned in training: leave it out, or give it to quantize_aware."
        )
    if keep_float:
        raise ValueError(
            "keep_float= is quantize_aware's, before training: the model is made already."
        )
    return "int8"


def _checked(
    quantized: Callable[[], bytes], recipe: Any, converted: FloatModel, model: Any
) -> bytes:
    """What a quantiser made, with the names that it moved, once a runtime has opened it."""
    if recipe is None:
        return quantized()
    try:
        content = _named(quantized(), converted.inputs, converted.output_names)
        load(content)
    except ValueError as error:
        if not needs_examples(recipe) or not isinstance(recipe, str):
            raise
        raise _not_quantizable(model, converted.content) from error
    return content


def _named(content: bytes, inputs: Sequence[ModelInput], outputs: Sequence[str]) -> bytes:
    """The names once more: a quantiser moves them to the tensors inside the edges it adds."""
    model = flatbuffer.with_names(flatbuffer.read(content), [i.name for i in inputs], outputs)
    return flatbuffer.write(with_honest_versions(model))
