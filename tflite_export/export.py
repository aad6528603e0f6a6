"""One call from a trained Keras model to one `.tflite` file.

    exported = export(model, "student.tflite", quantization="int8", representative_dataset=train,
                      inference_input_type="uint8", normalization=(127.5, 127.5), labels=names)
    exported.size_bytes, exported.inputs, exported.outputs

The model is traced once (convert.py), quantised (quantize.py), given labels and normalisation
(metadata.py) and written whole or not at all (whole_file.py).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from tflite_export import flatbuffer, metadata, ranges, representative
from tflite_export.convert import ConversionError, Pixels, convert
from tflite_export.normalization import Normalization
from tflite_export.quantize import EDGES, check_recipe, needs_examples, pixel_ranges, quantize
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
    quantization: str | None
    labels: tuple[str, ...] | None
    normalization: Mapping[str, Normalization]

    def __fspath__(self) -> str:
        return str(self.path)


def export(
    model: Any,
    path: str | os.PathLike[str],
    quantization: str | None = None,
    representative_dataset: Any = None,
    inference_input_type: str = "float32",
    labels: Sequence[str] | None = None,
    normalization: Any = None,
    batch_size: int | None = 1,
    *,
    inference_output_type: str = "float32",
    input_shape: Any = None,
    num_calibration_examples: int = 300,
    name: str | None = None,
    description: str | None = None,
) -> Exported:
    """Exports a Keras model as a TFLite file of builtin operators.

    Args:
        model: functional, sequential, nested, or subclassed and called once.
        path: of the file; one that exists is replaced when the new one is whole.
        quantization: None, "float16", "dynamic_int8" or "int8" (quantize.py).
        representative_dataset: for "int8", examples in the form that *the model* takes, so already
            normalised: the data that `fit` gets will do. tf.data, arrays, or batches, with or
            without labels; `num_calibration_examples` of them are read: the first, and of arrays
            and folders some from everywhere. Or the path of a folder of images, whose pixels
            `normalization` takes to the model's input. Their range is compared with what
            `normalization` leads to and with what the model was distilled on (ranges.py).
        inference_input_type: "float32"; "uint8" (pixels, as MediaPipe Tasks takes them); "int8"
            (pixel - 128, for microcontrollers). Every float input gets it, or an error says why
            not; the recipes other than "int8" need `normalization` for it.
        labels: class names, in the order of the last output axis.
        normalization: `(mean, std)` of numbers or lists of one for each channel, which take raw
            pixels 0..255 to the model's input; a dict by input name where there are several
            inputs. A float file carries it as metadata, for the app to apply. In a file with
            integer input, pixel p means exactly (p - mean) / std, whatever the representative
            photos span. Image inputs of integer type need it: (0, 1) says that the model takes
            pixels as they are.
        batch_size: static batch; None leaves it open, which is slower on phones.
        inference_output_type: "float32", "uint8" or "int8"; integers with "int8" only.
        input_shape: sizes without the batch, for a model that leaves them open: a tuple, or a
            list or dict of them. For inputs that are not float32 (the tokens of a subclassed
            model), a `keras.InputSpec(shape=(None, 80), dtype="int32")` in a tuple's place; its
            shape has the batch.
        name, description: for the metadata; the model's name by default.

    Raises:
        ValueError: see the sentence; nothing is written then.
        ConversionError: the model needs an operator that TFLite does not have.
    """
    check_recipe(quantization)
    _check_edges(quantization, inference_input_type, inference_output_type)
    signature = Signature.of(model, input_shape, batch_size)
    normal = _by_input(normalization, signature.inputs)
    integer = inference_input_type != "float32"
    if integer:
        _require_normalization(signature.inputs, normal, inference_input_type)
        if not needs_examples(quantization):
            _require_every_float_normalized(
                signature.inputs, normal, inference_input_type, quantization
            )
    examples = []
    if needs_examples(quantization):
        examples = representative.read(
            representative_dataset, signature.inputs, num_calibration_examples, normal
        )
        ranges.check(examples, normal, ranges.recorded(model, signature.inputs))

    pixels = {}
    if integer and needs_examples(quantization):
        pixels = {n: Pixels(v) for n, v in normal.items() if not v.fits_an_integer_input}
    elif integer:
        pixels = {n: Pixels(v, inference_input_type) for n, v in normal.items()}
    converted = convert(model, batch_size, input_shape, pixels, needs_examples(quantization))
    for example in examples:
        for one in pixels:
            example[one] = normal[one].invert(example[one])
    content = quantize(
        converted.content,
        quantization,
        examples,
        inference_input_type,
        inference_output_type,
        pixel_ranges(converted.content, normal) if integer and examples else None,
    )
    if quantization is not None:
        try:
            content = _named(content, converted.inputs, converted.output_names)
            load(content)
        except ValueError as error:
            if not needs_examples(quantization):
                raise
            raise _not_quantizable(model, converted.content) from error
    content = metadata.embed(
        content,
        name=name or model.name,
        description=description,
        labels=labels,
        normalization=normal,
        in_graph=pixels,
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
        labels=None if labels is None else tuple(map(str, labels)),
        normalization=normal,
    )


def _check_edges(recipe: str | None, input_type: str, output_type: str) -> None:
    for argument, kind in (
        ("inference_input_type", input_type),
        ("inference_output_type", output_type),
    ):
        if kind not in EDGES:
            raise ValueError(f"{argument}={kind!r}: it is one of {', '.join(map(repr, EDGES))}.")
    if output_type != "float32" and not needs_examples(recipe):
        raise ValueError(
            f"inference_output_type={output_type!r} needs quantization='int8', and it is {recipe!r}."
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
    return {n: Normalization.parse(pair, by_name[n].shape[-1]) for n, pair in normalization.items()}


def _require_normalization(
    inputs: Sequence[ModelInput], normal: Mapping[str, Normalization], kind: str
) -> None:
    for one in inputs:
        image = len(one.shape) == 4 and one.shape[-1] in (1, 3) and one.dtype == "float32"
        if image and one.name not in normal:
            raise ValueError(
                f"inference_input_type={kind!r} means that pixels 0..255 go into {one.name!r}: say "
                "what the model was trained on with normalization=(mean, std). (127.5, 127.5) for "
                "inputs of -1..1, (0, 255) for 0..1, (0, 1) for a model that takes 0..255."
            )


def _require_every_float_normalized(
    inputs: Sequence[ModelInput], normal: Mapping[str, Normalization], kind: str, recipe: str | None
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
    loops = [layer.name for layer in model._flatten_layers() if isinstance(layer, keras.layers.RNN)]
    operators = {o.name for o in flatbuffer.operators(flatbuffer.read(content))}
    found = f"layers {loops}" if loops else f"operators {sorted(operators & _HARD_TO_QUANTIZE)}"
    what = f" (it has the {found})" if loops or operators & _HARD_TO_QUANTIZE else ""
    return ConversionError(
        f"litert-quantizer cannot make a file of integers of {model.name!r}{what}: use "
        f"quantization='dynamic_int8', which keeps activations in float32."
    )


# Operators with graphs inside them, whose edges the quantiser does not follow.
_HARD_TO_QUANTIZE = {"WHILE", "IF", "CALL_ONCE", "UNIDIRECTIONAL_SEQUENCE_LSTM"}


def _named(content: bytes, inputs: Sequence[ModelInput], outputs: Sequence[str]) -> bytes:
    """The names once more: a quantiser moves them to the tensors inside the edges it adds."""
    model = flatbuffer.with_names(flatbuffer.read(content), [i.name for i in inputs], outputs)
    return flatbuffer.write(model)
