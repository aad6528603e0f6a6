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
_PROBABILITIES = {keras.activations.softmax: "softmax", keras.activations.sigmoid: "sigmoid"}
_PASS_THROUGH = (keras.layers.Identity, keras.layers.Dropout, keras.layers.ActivityRegularization)
_RESHAPE = (keras.layers.Reshape, keras.layers.Flatten)
_LINEAR = keras.activations.linear
_SMALLEST = float(np.finfo("float32").tiny)


@dataclasses.dataclass(frozen=True)
class Head:
    """How one output of a model is made.

    Attributes:
        activation: `"linear"` (logits), `"softmax"` or `"sigmoid"`.
        tap: where the logits pass, if such a place was found.
        known: False when the model does not show its last layer; it is then taken for linear.
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
    if isinstance(model, keras.Sequential) and model.layers:
        return [_head_of_layer(model.layers[-1])]
    return [UNKNOWN]


def _head_of_tensor(tensor) -> Head:
    # A symbolic tensor's origin has no public name; every Keras 3 release has carried this attribute.
    layer, _, index = tensor._keras_history
    if getattr(layer, "outputs", None):
        return _head_of_tensor(layer.outputs[index])
    linear = isinstance(layer, keras.layers.Activation) and layer.activation is _LINEAR
    reshape = isinstance(layer, _RESHAPE)
    if not (linear or reshape or isinstance(layer, _PASS_THROUGH)):
        return _head_of_layer(layer)
    try:
        before = layer.input
    except (AttributeError, ValueError):  # called in several places: the one above is not known
        return UNKNOWN
    if not reshape:
        return _head_of_tensor(before)
    if before.shape[-1] != tensor.shape[-1]:
        return UNKNOWN
    return dataclasses.replace(_head_of_tensor(before), tap=None)  # the shape there is another


def _head_of_layer(layer) -> Head:
    if isinstance(layer, keras.Sequential) and layer.layers:
        return _head_of_layer(layer.layers[-1])
    if isinstance(layer, keras.layers.Softmax):
        return Head("softmax", Tap(layer, "input")) if layer.axis in (-1,) else UNKNOWN
    ours = type(layer).__module__.startswith("keras.")
    if not isinstance(layer, keras.Layer):  # keras.ops.softmax in a functional model
        kind = {"Softmax": "softmax", "Sigmoid": "sigmoid"}.get(type(layer).__name__)
        if kind and ours:
            return Head(kind, Tap(layer, "input")) if getattr(layer, "axis", -1) == -1 else UNKNOWN
        return Head() if ours else UNKNOWN
    activation = getattr(layer, "activation", None)
    if activation in _PROBABILITIES:
        return Head(_PROBABILITIES[activation], Tap(layer, "activation"))
    of_keras = activation is None or getattr(activation, "__module__", "").startswith("keras.")
    return Head() if ours and of_keras and not isinstance(layer, keras.layers.Lambda) else UNKNOWN


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


def look_like(outputs) -> str | None:
    """Return "softmax" or "sigmoid" if one batch of `outputs` can hardly be anything else, else None."""
    values = ops.convert_to_numpy(ops.cast(outputs, "float32"))
    if values.size < 8 or values.min() < 0 or values.max() > 1 or values.max() == values.min():
        return None
    if values.shape[-1] > 1 and np.allclose(values.sum(-1), 1, atol=1e-2):
        return "softmax"
    return "sigmoid"
