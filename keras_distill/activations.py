"""What a network's last layer answers: logits, or probabilities made of them.

Distillation needs logits. Most classifiers end in a softmax, so its input is tapped; where there is no such
place, the logarithm of the probabilities serves:

    head, = heads(keras.applications.MobileNet())
    head.activation, head.tap       # "softmax", Tap(<Activation name=predictions>, at="activation")
"""

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_distill.taps import Tap

ACTIVATIONS = ("linear", "softmax", "sigmoid")
_SOFTMAX = (keras.activations.softmax, keras.ops.softmax)
_SIGMOID = (keras.activations.sigmoid, keras.ops.sigmoid)
_LINEAR = (None, keras.activations.linear)
_KERNEL_LAYERS = (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    *(getattr(keras.layers, f"{kind}{n}D") for kind in ("Conv", "SeparableConv") for n in (1, 2)),
    *(getattr(keras.layers, f"Conv{n}DTranspose") for n in (1, 2, 3)),
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
)
_PASS_THROUGH = (
    keras.layers.Identity,
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.ActivityRegularization,
)
_RESHAPE = (keras.layers.Reshape, keras.layers.Flatten)
_SMALLEST = float(np.finfo("float32").tiny)


@dataclasses.dataclass(frozen=True)
class Head:
    """How one output of a model is made.

    Attributes:
        activation: `"linear"` (logits), `"softmax"` or `"sigmoid"`.
        tap: where the logits pass, if such a place was found.
        known: False where the end is of no kind that is known here; it is then taken for linear, and one
            batch is looked at.
    """

    activation: str = "linear"
    tap: Tap | None = None
    known: bool = True


UNKNOWN = Head(known=False)


def heads(model: keras.Model) -> list[Head]:
    """Return a `Head` for each output, in `keras.tree` order; one `UNKNOWN` where they do not show."""
    outputs = getattr(model, "outputs", None)
    if outputs:
        return [_head_of_tensor(output) for output in outputs]
    if isinstance(model, keras.Sequential):
        for layer in reversed(model.layers):
            if not _passes(layer):
                return heads(layer) if isinstance(layer, keras.Model) else [_head_of_layer(layer)]
    return [UNKNOWN]


def _head_of_tensor(tensor) -> Head:
    # A symbolic tensor's origin has no public name; every Keras 3 release has carried this attribute.
    layer, _, index = tensor._keras_history
    if getattr(layer, "outputs", None):
        return _head_of_tensor(layer.outputs[index])
    merged = isinstance(layer, keras.layers.Average | keras.layers.Concatenate)
    reshaped = isinstance(layer, _RESHAPE)
    if not (merged or reshaped or _passes(layer)):
        return _head_of_layer(layer)
    try:
        before = keras.tree.flatten(layer.input)
    except (AttributeError, ValueError):  # called in several places: the one above is not known
        return UNKNOWN
    if not (merged or reshaped):
        return _head_of_tensor(before[0])
    if reshaped and before[0].shape[-1] != tensor.shape[-1]:
        return UNKNOWN
    kinds = {_head_of_tensor(one).activation for one in before}
    sure = all(_head_of_tensor(one).known for one in before)
    if not sure or len(kinds) > 1:
        return UNKNOWN
    kind = kinds.pop()
    if isinstance(layer, keras.layers.Concatenate) and kind == "softmax" and len(before) > 1:
        return UNKNOWN
    return Head(kind)  # no tap: the logits there have another shape


def _passes(layer) -> bool:
    """Whether `layer` returns what it is given, as far as activations go."""
    linear = isinstance(layer, keras.layers.Activation) and layer.activation in _LINEAR
    cast = _is_operation(layer) and type(layer).__name__ == "Cast"
    return linear or cast or isinstance(layer, _PASS_THROUGH)


def _is_operation(layer) -> bool:
    """Whether it is an operation of `keras.ops`, as a functional model records it."""
    return not isinstance(layer, keras.Layer) and type(layer).__module__.startswith("keras.")


def _head_of_layer(layer) -> Head:
    if isinstance(layer, keras.layers.TimeDistributed):
        inner = layer.layer
        head = heads(inner)[0] if isinstance(inner, keras.Model) else _head_of_layer(inner)
        return dataclasses.replace(head, tap=None)  # it runs in a loop, or on another shape
    if isinstance(layer, keras.layers.Softmax):
        return Head("softmax", Tap(layer, "input")) if layer.axis == -1 else UNKNOWN
    if _is_operation(layer):
        kind = {"Softmax": "softmax", "Sigmoid": "sigmoid"}.get(type(layer).__name__, "")
        plain = kind and getattr(layer, "axis", -1) == -1
        return Head(kind, Tap(layer, "input")) if plain else UNKNOWN
    if not isinstance(layer, (*_KERNEL_LAYERS, keras.layers.Activation)):
        return UNKNOWN
    activation: Any = layer.activation  # type: ignore[attr-defined]
    if isinstance(activation, keras.layers.Softmax):
        return _head_of_layer(activation)
    if activation in _SOFTMAX:
        return Head("softmax", Tap(layer, "activation"))
    if activation in _SIGMOID:
        return Head("sigmoid", Tap(layer, "activation"))
    return Head() if activation in _LINEAR else UNKNOWN


def declared(heads: list[Head], activation: Any, argument: str) -> list[Head]:
    """Return `heads` as the user declares them: one word for all outputs, or one for each."""
    words = keras.tree.flatten(activation)
    for word in words:
        if word not in ("auto", *ACTIVATIONS):
            raise ValueError(
                f"{argument}={word!r} is not known: give 'auto', 'linear', 'softmax' or 'sigmoid'."
            )
    if len(words) == 1:
        words = words * len(heads)
    elif heads == [UNKNOWN]:  # a subclassed model does not show how many outputs it has
        heads = heads * len(words)
    if len(words) != len(heads):
        raise ValueError(f"{argument} names {len(words)} outputs, and the model has {len(heads)}.")
    return [
        head if word == "auto" else Head(word, head.tap if head.activation == word else None)
        for head, word in zip(heads, words, strict=True)
    ]


def to_logits(outputs, activation: str):
    """Return float32 logits: `outputs` as they are, or the log of probabilities clipped at tiny."""
    outputs = ops.cast(outputs, "float32")
    if activation == "linear":
        return outputs
    logits = ops.log(ops.maximum(outputs, _SMALLEST))
    if activation == "sigmoid":
        logits = logits - ops.log(ops.maximum(1.0 - outputs, _SMALLEST))
    return logits


def of_logits(logits, activation: str):
    """Return outputs that end as `activation` says, of logits; the way back of `to_logits`."""
    if activation == "softmax":
        return ops.softmax(logits, axis=-1)
    return ops.sigmoid(logits) if activation == "sigmoid" else logits


def look_like(outputs) -> str | None:
    """Return "softmax" or "sigmoid" if one batch of `outputs` can hardly be anything else, else None."""
    values = ops.convert_to_numpy(ops.cast(outputs, "float32"))
    if values.size < 8 or values.min() < 0 or values.max() > 1 or values.max() == values.min():
        return None
    if values.shape[-1] > 1 and np.allclose(values.sum(-1), 1, atol=1e-2):
        return "softmax"
    return "sigmoid"
