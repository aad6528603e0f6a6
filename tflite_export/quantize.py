"""Post-training recipes: a float flatbuffer and some examples become a smaller, faster file.

    quantize(content, "int8", examples=examples)

| recipe | weights | activations | examples |
|---|---|---|---|
| `None` | float32 | float32 | |
| "float16" | float16 | float32 | |
| "dynamic_int8" | int8, a scale for each channel | float32, int8 inside matrix products | |
| "int8" | int8, a scale for each channel | int8 | a few hundred |
| "int16x8" | int8, a scale for each channel | int16 | a few hundred |
| "int4" | int4 of convolutions and dense layers, the rest float32 | float32, int8 inside | |
| a list of dicts | as litert-quantizer's recipes say (`litert_quantizer.recipe`) | | if they measure |

"int16x8" is for sounds and regressions whose values span more than 255 steps; it is slow on CPUs, where no
XNNPACK kernel takes it. "int4" halves int8's size once more, and small networks lose much by it after
training: ask `verify`. Of litert-quantizer's ways to int4 it is the dynamic one, with a scale for each
channel. On ResNet-20 explicit dequantisation answers alike (12.7 dB both) and takes two to five times as
long; ranges clipped by OCTAV or MSE are worse (11.3 and 3.3 dB); and blocks of 32 are there for dense layers
alone. int8 for the depthwise convolutions beside it saves 4 % of MobileNetV1, which then takes half as long
again. Figures: `benchmarks/quantization.py`.

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
from tflite_export.normalization import PIXELS, Normalization, spread
from tflite_export.whole_means import with_means

RECIPES = (None, "float16", "dynamic_int8", "int8", "int16x8", "int4")
EDGES = ("float32", "uint8", "int8", "int16")
Range = tuple[float, float]
Recipe = str | Sequence[Mapping[str, Any]] | Mapping[str, Any] | None


def check_recipe(recipe: Any) -> None:
    """Raises ValueError unless `recipe` is one of RECIPES, or rules that litert-quantizer takes."""
    if recipe is None or isinstance(recipe, str):
        if recipe not in RECIPES:
            raise ValueError(
                f"quantization={recipe!r}: it is one of {', '.join(map(repr, RECIPES))}, or a recipe of "
                "litert-quantizer."
            )
        return
    from litert_quantizer import recipe_manager

    try:
        if not _rules(recipe):
            raise ValueError("it has no rules")
        recipe_manager.RecipeManager().load_quantization_recipe(_rules(recipe))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"quantization= is no recipe of litert-quantizer ({type(error).__name__}: {error}): give a list "
            "of dicts, each with regex, operation, algorithm_key and op_config, as the functions of "
            "litert_quantizer.recipe return them."
        ) from None


def needs_examples(recipe: Recipe) -> bool:
    """Whether the recipe measures ranges on examples."""
    if recipe is None or isinstance(recipe, str):
        return recipe in ("int8", "int16x8")
    from litert_quantizer import recipe_manager

    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(_rules(recipe))
    return manager.need_calibration()


def check_edges(recipe: Recipe, input_type: str, output_type: str) -> None:
    """Raises ValueError unless the recipe can make a file with these inputs and outputs."""
    for argument, kind in (
        ("inference_input_type", input_type),
        ("inference_output_type", output_type),
    ):
        if kind not in EDGES:
            raise ValueError(f"{argument}={kind!r}: it is one of {', '.join(map(repr, EDGES))}.")
        if kind == "float32":
            continue
        if recipe is not None and not isinstance(recipe, str):
            raise ValueError(
                f"{argument}={kind!r} beside a recipe of litert-quantizer: its rules for the operations "
                "INPUT and OUTPUT say what the file takes and gives. Write them into the recipe, and leave "
                f"{argument}='float32'."
            )
        if kind == "int16" and recipe != "int16x8":
            raise ValueError(
                f"{argument}='int16' needs quantization='int16x8', and it is {recipe!r}."
            )
    wanted = "int16x8" if output_type == "int16" else "int8"
    if output_type != "float32" and recipe != wanted:
        raise ValueError(
            f"inference_output_type={output_type!r} needs quantization={wanted!r}, and it is {recipe!r}."
        )


def quantizes_pixels(recipe: Recipe) -> bool:
    """Whether the file's 8-bit inputs are the quantiser's own: else they are cast in front of its graph.

    No operator takes 8 bits to 16; and an int16 input is the quantiser's own, and no pixel.
    """
    return recipe == "int8"


def as_given(pixels: np.ndarray, dtype: str) -> np.ndarray:
    """Pixels 0..255 as an input of this type takes them: floats, uint8, or int8 (pixel - 128)."""
    if dtype == "float32":
        return pixels
    low = np.iinfo(dtype).min
    return (np.clip(np.rint(pixels), 0, PIXELS - 1) + low).astype(dtype)


def _rules(recipe: Any) -> list[Any]:
    return [recipe] if isinstance(recipe, Mapping) else list(recipe)


def quantize(
    content: bytes,
    recipe: Recipe,
    examples: Sequence[Mapping[str, np.ndarray]] = (),
    input_type: str = "float32",
    output_type: str = "float32",
    ranges: Mapping[str, Range] | None = None,
) -> bytes:
    """Quantises a float flatbuffer that has a signature.

    Args:
        content: from `convert`.
        recipe: one of RECIPES, or rules of litert-quantizer.
        examples: what to measure ranges on, where `needs_examples`: arrays by input name, batch included.
        input_type, output_type: one of EDGES, see `check_edges`; "uint8" and "int8" are for "int8".
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
            content = with_means(content)
            measured = with_near_masks(content, _measure(content, examples, recipe))
            for seen in measured.values():  # where all is 0 any step will do, and one of 0 none
                if not np.any(seen["min"]) and not np.any(seen["max"]):
                    seen["max"] = np.ones_like(seen["max"])
            for name, ends in (ranges or {}).items():
                low, high = (np.array([e], "float32") for e in ends)
                measured[name] = {"min": low, "max": high}
            if recipe != "int16x8":  # its biases are int64
                content = with_room_for_biases(content, measured)
        work = quantizer.Quantizer(content, _recipe(recipe, input_type, output_type))
        try:
            result = work.quantize(
                measured, enable_progress_bar=False, enable_progress_report=False
            )
        except Exception as error:
            raise ValueError(
                f"litert-quantizer stops at this model with the recipe {recipe!r} "
                f"({type(error).__name__}: {error})."
            ) from error
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
        both = spread(float(ends.min()), float(ends.max()))
        low, high = (float(np.clip(end, *limits)) for end in both)
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


def _recipe(recipe: Recipe, input_type: str, output_type: str) -> Any:
    from litert_quantizer import qtyping, recipe_manager
    from litert_quantizer import recipe as recipes

    if recipe is not None and not isinstance(recipe, str):
        return _rules(recipe)
    manager = recipe_manager.RecipeManager()
    if recipe == "dynamic_int8":
        return recipes.dynamic_wi8_afp32()
    if recipe == "int4":
        return recipes.dynamic_wi4_afp32()
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
    wide = recipe == "int16x8"
    manager.load_quantization_recipe(
        recipes.static_wi8_ai16() if wide else recipes.static_wi8_ai8()
    )
    edges = (("INPUT", input_type), ("OUTPUT", output_type))
    for edge, kind in edges:
        operation = qtyping.TFLOperationName(edge)
        if kind == "int16":
            continue  # as the recipe has it
        if kind == "float32" or wide:  # 8-bit inputs stay: the graph casts them
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


def _measure(
    content: bytes, examples: Sequence[Mapping[str, np.ndarray]], recipe: Recipe = "int8"
) -> dict[str, Any]:
    """Smallest and largest value of every tensor over the examples."""
    from litert_quantizer import calibrator, recipe_manager
    from litert_quantizer import recipe as recipes
    from litert_quantizer.utils import qsv_utils

    manager = recipe_manager.RecipeManager()
    named = recipe is None or isinstance(recipe, str)
    manager.load_quantization_recipe(recipes.static_wi8_ai8() if named else _rules(recipe))
    watch = calibrator.Calibrator(
        content,
        num_threads=min(4, os.cpu_count() or 1),
        mode=calibrator.CalibrationMode.CALIBRATION_PROFILER_BASED,
        qsv_update_func=qsv_utils.min_max_update,
    )
    watch.calibrate({flatbuffer.SIGNATURE: [dict(e) for e in examples]}, manager)
    return dict(watch.get_model_qsvs())
