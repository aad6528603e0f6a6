"""Post-training recipes: a float flatbuffer and some examples become a smaller, faster file.

    quantize(content, "int8", examples=examples)

| recipe | weights | activations | examples |
|---|---|---|---|
| `None` | float32 | float32 | |
| "float16" | float16 | float32 | |
| "dynamic_int8" | int8, a scale for each channel | float32, int8 inside matrix products | |
| "int8" | int8, a scale for each channel | int8 | a few hundred |

All are done by litert-quantizer, on the flatbuffer. TensorFlow's converter can do the same, and
`benchmarks/quantizers.py` runs both (results beside it): on ResNet-20 and MobileNetV1 0.75 they agree
equally well with the float network, within the noise, in files of equal size with the same operators,
also with uint8 inputs; the converter takes eight times as long and is deprecated for this. Ranges are
the smallest and largest value that occurred: with litert-quantizer's own moving average ResNet-20
falls from 29.7 to 13.2 dB, and it depends on the order of the examples.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tflite_export import flatbuffer
from tflite_export.chatter import hushed
from tflite_export.dead_channels import with_room_for_biases
from tflite_export.masked_scores import with_near_masks
from tflite_export.normalization import PIXELS, Normalization

RECIPES = (None, "float16", "dynamic_int8", "int8")
EDGES = ("float32", "uint8", "int8")
Range = tuple[float, float]


def check_recipe(recipe: Any) -> None:
    """Raises ValueError unless `recipe` is one of RECIPES."""
    if recipe not in RECIPES:
        raise ValueError(f"quantization={recipe!r}: it is one of {', '.join(map(repr, RECIPES))}.")


def needs_examples(recipe: str | None) -> bool:
    """Whether the recipe measures ranges on examples."""
    return recipe == "int8"


def quantize(
    content: bytes,
    recipe: str | None,
    examples: Sequence[Mapping[str, np.ndarray]] = (),
    input_type: str = "float32",
    output_type: str = "float32",
    ranges: Mapping[str, Range] | None = None,
) -> bytes:
    """Quantises a float flatbuffer that has a signature.

    Args:
        content: from `convert`.
        recipe: one of RECIPES.
        examples: for "int8", what to measure ranges on: arrays by input name, batch included.
        input_type, output_type: one of EDGES, for "int8"; the other recipes have float edges.
        ranges: tensors, by name, whose range is known and not to be measured.
    """
    check_recipe(recipe)
    if recipe is None:
        return content
    from litert_quantizer import quantizer

    with hushed(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of its own way of opening the file
        measured = None
        if needs_examples(recipe):
            measured = with_near_masks(content, _measure(content, examples))
            for seen in measured.values():  # where all is 0 any step will do, and one of 0 none
                if not np.any(seen["min"]) and not np.any(seen["max"]):
                    seen["max"] = np.ones_like(seen["max"])
            for name, ends in (ranges or {}).items():
                low, high = (np.array([e], "float32") for e in ends)
                measured[name] = {"min": low, "max": high}
            content = with_room_for_biases(content, measured)
        work = quantizer.Quantizer(content, _recipe(recipe, input_type, output_type))
        result = work.quantize(measured, enable_progress_bar=False, enable_progress_report=False)
    if result.quantized_model is None:
        raise ValueError(f"litert-quantizer made no file with the recipe {recipe!r}.")
    return bytes(result.quantized_model)


def pixel_ranges(content: bytes, pixels: Mapping[str, Normalization]) -> dict[str, Range]:
    """Ranges of inputs that take raw pixels 0..255, and of what the graph makes of them.

    They follow from the normalisation alone: photos that span 50..200 do not narrow them.
    """
    model = flatbuffer.read(content)
    graph = model.subgraphs[0]
    ranges: dict[str, Range] = {}
    for index in graph.inputs:
        name = flatbuffer.text(graph.tensors[index].name)
        if name not in pixels:
            continue
        if pixels[name].fits_an_integer_input:
            ranges[name] = pixels[name].range
            continue
        ranges[name] = (0.0, PIXELS - 1.0)
        ranges |= _normalised(model, int(index))
    return ranges


def _normalised(model: Any, index: int) -> dict[str, Range]:
    """What the depthwise convolution behind the input writes, and the range of that.

    The range is computed from the weights in the file: where the model begins with Rescaling or
    Normalization, the converter has folded them in, and the normalisation is only a part of it.
    """
    graph = model.subgraphs[0]
    for operator in graph.operators:
        if index not in operator.inputs:
            continue
        index = int(operator.outputs[0])
        code = model.operatorCodes[operator.opcodeIndex].builtinCode
        if code != flatbuffer.schema.BuiltinOperator.DEPTHWISE_CONV_2D:
            continue
        weights, bias = (_constant(model, i) for i in [*operator.inputs, -1][1:3])
        limits = _ACTIVATIONS.get(operator.builtinOptions.fusedActivationFunction)
        if weights is None or bias is None or weights.size != bias.size or limits is None:
            return {}
        ends = np.stack([bias, (PIXELS - 1) * weights + bias])
        low, high = float(ends.min()), float(ends.max())
        # 255 steps between 256 pixels leave every pixel of a mean of 127.5 halfway between two
        # steps, all rounded alike; one step less spreads the rounding evenly.
        slack = (high - low) / 254 / 2
        low, high = (float(np.clip(v, *limits)) for v in (low - slack, high + slack))
        return {flatbuffer.text(graph.tensors[index].name): (low, high)} if low < high else {}
    return {}


def _constant(model: Any, index: int) -> np.ndarray | None:
    """A float32 tensor that is stored in the file, flat, in double precision."""
    if index < 0:
        return None
    values = flatbuffer.constant(model, model.subgraphs[0].tensors[index])
    return None if values is None else values.ravel().astype("float64")


# None, RELU, RELU_N1_TO_1 and RELU6, which the converter may have merged into the convolution.
_ACTIVATIONS = {0: (-np.inf, np.inf), 1: (0.0, np.inf), 2: (-1.0, 1.0), 3: (0.0, 6.0)}


def _recipe(recipe: str, input_type: str, output_type: str) -> Any:
    from litert_quantizer import qtyping, recipe_manager
    from litert_quantizer import recipe as recipes

    manager = recipe_manager.RecipeManager()
    if recipe == "dynamic_int8":
        return recipes.dynamic_wi8_afp32()
    if recipe == "float16":
        manager.add_quantization_config(
            ".*",
            qtyping.TFLOperationName.ALL_SUPPORTED,
            qtyping.OpQuantizationConfig(
                weight_tensor_config=qtyping.TensorQuantizationConfig(
                    num_bits=16, dtype=qtyping.TensorDataType.FLOAT
                ),
                compute_precision=qtyping.ComputePrecision.FLOAT,
                explicit_dequantize=True,
            ),
            algorithm_key="float_casting",
        )
        return manager.get_quantization_recipe()
    manager.load_quantization_recipe(recipes.static_wi8_ai8())
    edges = (("INPUT", input_type), ("OUTPUT", output_type))
    for edge, kind in edges:
        operation = qtyping.TFLOperationName(edge)
        if kind == "float32":
            manager.add_quantization_config(".*", operation, algorithm_key="no_quantize")
        else:
            manager.add_quantization_config(".*", operation, _edge(qtyping, kind))
    return manager.get_quantization_recipe()


def _edge(qtyping: Any, kind: str) -> Any:
    unsigned = kind == "uint8"
    return qtyping.OpQuantizationConfig(
        activation_tensor_config=qtyping.TensorQuantizationConfig(
            num_bits=8,
            symmetric=False,
            granularity=qtyping.QuantGranularity.TENSORWISE,
            dtype=qtyping.TensorDataType.UINT if unsigned else qtyping.TensorDataType.INT,
        ),
        weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=8, symmetric=True),
        compute_precision=qtyping.ComputePrecision.INTEGER,
        explicit_dequantize=False,
    )


def _measure(content: bytes, examples: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """Smallest and largest value of every tensor over the examples."""
    from litert_quantizer import calibrator, recipe_manager
    from litert_quantizer import recipe as recipes
    from litert_quantizer.utils import qsv_utils

    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(recipes.static_wi8_ai8())
    watch = calibrator.Calibrator(
        content,
        num_threads=min(4, os.cpu_count() or 1),
        mode=calibrator.CalibrationMode.CALIBRATION_PROFILER_BASED,
        qsv_update_func=qsv_utils.min_max_update,
    )
    watch.calibrate({flatbuffer.SIGNATURE: [dict(e) for e in examples]}, manager)
    return dict(watch.get_model_qsvs())
