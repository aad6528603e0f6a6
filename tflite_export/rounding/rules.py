"""What an int8 file does with each kind of Keras layer.

    rule = rule_of(layer)
    rule.kernels, rule.output, rule.inside      # (Kernel("kernel", (-1,)),), MEASURED, "int8"

The one table to extend for another layer. A layer that is not in it is computed in floats.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from tflite_export.rounding.activations import MEASURED, PROBABILITIES, Range, Steps, steps_of

KEPT = "kept"  # the values, or some of them, that went in: no rounding of its own
JOINED = "joined"  # all inputs and the output are stored in the same steps


@dataclass(frozen=True)
class Kernel:
    """A weight that is stored in 8 bits.

    Attributes:
        attribute: of the layer.
        channels: its axes along which each place has a step of its own; () for one step in all.
    """

    attribute: str
    channels: tuple[int, ...]


@dataclass(frozen=True)
class Rule:
    """How a layer is computed in an int8 file.

    Attributes:
        kernels: its weights of 8 bits.
        steps: its activation, None where it has none.
        output: MEASURED, KEPT, JOINED, or the range that TFLite prescribes.
        inside: "int8" or "float".
        folds: a BatchNormalization right behind it disappears in its weights.
        takes_activation: a fused activation right behind it costs nothing.
        affine: computes `x * a + b` with one a and b for each channel.
        folds_away: may disappear in the weights before it.
        masked_in_float: is computed in floats where it is given a mask.
        averages: of a KEPT output, whether its values are new ones between those that went in.
        masks: is a softmax, whose mask takes scores below all others.
    """

    kernels: tuple[Kernel, ...] = ()
    steps: Steps | None = None
    output: str | Range = MEASURED
    inside: str = "int8"
    folds: bool = False
    takes_activation: bool = False
    affine: bool = False
    folds_away: bool = False
    masked_in_float: bool = False
    averages: bool = False
    masks: bool = False


FLOAT = Rule(inside="float")
# An average pool over a whole picture, which a file computes as a mean, in steps of its own.
WHOLE_MEAN = Rule()

# The layers they hold are run in a loop, or by the step: what lies inside cannot be rounded from outside.
OPAQUE = (layers.RNN, layers.Bidirectional, layers.TimeDistributed)

# What they compute between the layers that they hold is rounded too (layers.attend).
ROUNDED_INSIDE = (layers.MultiHeadAttention,)

_FOLDING = {
    layers.Dense: (Kernel("kernel", (-1,)),),
    layers.Conv1D: (Kernel("kernel", (-1,)),),
    layers.Conv2D: (Kernel("kernel", (-1,)),),
    layers.DepthwiseConv1D: (Kernel("kernel", (-2, -1)),),
    layers.DepthwiseConv2D: (Kernel("kernel", (-2, -1)),),
    layers.SeparableConv1D: (
        Kernel("depthwise_kernel", (-2, -1)),
        Kernel("pointwise_kernel", (-1,)),
    ),
    layers.SeparableConv2D: (
        Kernel("depthwise_kernel", (-2, -1)),
        Kernel("pointwise_kernel", (-1,)),
    ),
}
_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose)
_AVERAGES = (layers.AveragePooling1D, layers.AveragePooling2D, layers.UpSampling2D)
_KEPT = (
    *(getattr(layers, f"MaxPooling{n}D") for n in (1, 2)),
    *(getattr(layers, f"GlobalMaxPooling{n}D") for n in (1, 2)),
    *(getattr(layers, f"{kind}{n}D") for kind in ("ZeroPadding", "Cropping") for n in (1, 2)),
    layers.UpSampling1D,
    *(getattr(layers, f"SpatialDropout{n}D") for n in (1, 2)),
    layers.ActivityRegularization,
    layers.AlphaDropout,
    layers.Dropout,
    layers.Flatten,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.Identity,
    layers.Permute,
    layers.RepeatVector,
    layers.Reshape,
)
_JOINED = (layers.Concatenate, layers.Maximum, layers.Minimum)
_ARITHMETIC = (layers.Add, layers.Subtract, layers.Multiply, layers.Average)
_MEASURED = (layers.GlobalAveragePooling2D, layers.LeakyReLU)
_AFFINE = (layers.BatchNormalization, layers.Rescaling, layers.Normalization)

# Operations of functional models have no public classes: they go by name.
_KEPT_OPERATIONS = {
    "Reshape", "Transpose", "Squeeze", "ExpandDims", "GetItem", "Pad", "Flip", "Identity", "Ravel",
    "MaxPool", "SwapAxes", "Moveaxis", "Repeat", "Split", "BroadcastTo", "Max", "Min",
}  # fmt: skip
_JOINED_OPERATIONS = {"Concatenate", "Stack", "Maximum", "Minimum"}
_ARITHMETIC_OPERATIONS = {"Add", "Subtract", "Multiply"}
_MEASURED_OPERATIONS = {"Mean", "Sum", "Matmul", "Einsum"}
_ACTIVATIONS = {
    "Relu", "Relu6", "Sigmoid", "Softmax", "Tanh", "Silu", "HardSilu", "HardSwish", "HardSigmoid",
    "LeakyRelu", "Gelu", "LogSoftmax",
}  # fmt: skip


def rule_of(layer: Any) -> Rule:
    """The rule for a layer, or for an operation of a functional model."""
    kind = type(layer)
    if not isinstance(layer, keras.Layer):
        return _rule_of_operation(layer)
    if kind in _FOLDING:
        return _with_kernels(layer, _FOLDING[kind], folds=True)
    if kind in _TRANSPOSED:
        return _with_kernels(layer, (Kernel("kernel", (-2,)),), folds=False)
    if kind is layers.EinsumDense:
        return _with_kernels(layer, (Kernel("kernel", _free_axes(layer.equation)),), folds=False)
    if kind is layers.Embedding:
        return Rule((Kernel("embeddings", ()),), output=KEPT)
    if kind in _AFFINE:
        normalizes = kind is layers.BatchNormalization
        rule = Rule(takes_activation=True, affine=True, folds_away=normalizes)
        return rule if _per_channel(layer) else FLOAT
    if kind is layers.ReLU:
        return _rule_of_relu(layer)
    if kind is layers.Activation:
        return _of_steps(steps_of(layer.activation))
    if kind is layers.Softmax:
        return Rule(output=PROBABILITIES, masks=True)
    if kind in _AVERAGES:
        return Rule(output=KEPT, averages=True)
    if kind is layers.PReLU:
        return Rule()
    if kind is layers.GlobalAveragePooling1D:
        return Rule(masked_in_float=True)
    return _of_kind(kind, _KEPT, _JOINED, _ARITHMETIC, _MEASURED)


def is_fused_activation(rule: Rule) -> bool:
    """Whether the rule is that of a ReLU, which the operator before it does on the way out."""
    return rule.steps is not None and rule.steps.fused and not rule.kernels


def _rule_of_operation(operation: Any) -> Rule:
    kind = type(operation).__name__
    if kind in _ACTIVATIONS:
        snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower()
        function: Callable[..., Any] | None = getattr(keras.activations, snake, None)
        plain = (
            getattr(operation, "axis", -1) == -1
            and getattr(operation, "negative_slope", 0.2) == 0.2
        )
        return _of_steps(steps_of(function)) if function is not None and plain else FLOAT
    if kind == "AveragePool":
        return Rule(output=KEPT, averages=True)
    return _of_kind(
        kind,
        _KEPT_OPERATIONS,
        _JOINED_OPERATIONS,
        _ARITHMETIC_OPERATIONS,
        _MEASURED_OPERATIONS,
    )


def _of_kind(kind: Any, kept: Any, joined: Any, arithmetic: Any, measured: Any) -> Rule:
    if kind in kept:
        return Rule(output=KEPT)
    if kind in joined:
        return Rule(output=JOINED)
    if kind in arithmetic:
        return Rule(takes_activation=True)
    return Rule() if kind in measured else FLOAT


def _of_steps(steps: Steps) -> Rule:
    return Rule(steps=steps, output=steps.output, inside=steps.inside)


def _rule_of_relu(layer: Any) -> Rule:
    if layer.threshold or layer.max_value not in (None, 6):
        return FLOAT
    if layer.negative_slope:
        return FLOAT if layer.max_value else Rule()
    return _of_steps(
        steps_of(keras.activations.relu6 if layer.max_value else keras.activations.relu)
    )


def _with_kernels(layer: Any, kernels: tuple[Kernel, ...], folds: bool) -> Rule:
    plain = all(isinstance(getattr(layer, k.attribute, None), keras.Variable) for k in kernels)
    first = getattr(layer, "data_format", "channels_last") == "channels_first"
    if first or not plain or getattr(layer, "quantization_mode", None) is not None:
        return FLOAT  # LoRA, Keras's own quantisation
    steps = steps_of(getattr(layer, "activation", None))
    linear = steps is steps_of(None)
    if not folds and not linear:  # the converter keeps a ReLU apart there
        steps = dataclasses.replace(steps, fused=False)
    return Rule(
        kernels,
        steps,
        steps.output,
        steps.inside,
        folds=folds and linear,
        takes_activation=folds and linear,
    )


def _per_channel(layer: Any) -> bool:
    """Whether each place of the last axis has one factor and one offset."""
    if isinstance(layer, layers.BatchNormalization):
        return layer.axis in (-1, getattr(layer.input_spec, "ndim", 0) - 1)
    if isinstance(layer, layers.Normalization):
        known = layer.mean is not None and not layer.invert
        return known and all(size == 1 for size in layer.mean.shape[:-1])
    return True  # Rescaling


def _free_axes(equation: str) -> tuple[int, ...]:
    """The axes of the kernel that are in the output too, which are not summed over."""
    _, kernel, output = re.split(",|->", equation.replace(" ", "").replace("...", ""))
    return tuple(n for n, axis in enumerate(kernel) if axis in output)
