"""A Keras model as one TensorFlow function with an open batch, for servers and other runtimes.

    traced = trace(model)
    traced.function(*tensors)       # {"logits": (batch, 10)}, floats as float32
    [i.name for i in traced.inputs], [o.name for o in traced.outputs]

Names are those of signature.py, where they are names for TensorFlow too: "age in years" becomes
"age_in_years", as SavedModels do it.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tflite_export.signature import ModelInput, Signature, output_names, require_tensorflow, wide


@dataclass(frozen=True)
class Traced:
    """A concrete function of flat tensors.

    Attributes:
        function: a `tf.ConcreteFunction` that returns {output name: tensor}.
        inputs, outputs: names, shapes (None where any size goes) and types, in the model's order.
        signature: the model's own, whose inputs are in the same order.
    """

    function: Any
    inputs: tuple[ModelInput, ...]
    outputs: tuple[ModelInput, ...]
    signature: Signature

    def keras_answers(self, x: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """What the Keras model itself, untraced, says to `x` by the signature's names; in order."""
        answer = self.signature.call([x[i.name] for i in self.signature.inputs])
        return [np.asarray(keras.ops.convert_to_numpy(a)) for a in keras.tree.flatten(answer)]


def trace(model: Any, input_shape: Any = None, what: str = "export") -> Traced:
    """Traces `model` with training=False.

    Args:
        input_shape: see `Signature.of`.
        what: the caller, for sentences.

    Raises:
        ValueError: Keras runs on another backend, the sizes are not known, the model has no weights
            yet, or two names become one.
    """
    import tensorflow as tf

    require_tensorflow(what)
    signature = Signature.of(model, input_shape, None, open_sizes=True)
    if not model.built:
        raise ValueError(
            f"{model.name!r} was never called, so it has no weights yet: call it once on an example "
            "batch, and load the trained weights."
        )
    inputs = _renamed(signature.inputs)
    results: list[ModelInput] = []

    def answer(*arguments: Any) -> dict[str, Any]:
        outputs = signature.call(
            [tf.cast(a, i.dtype) for a, i in zip(arguments, signature.inputs, strict=True)]
        )
        tensors = [_wide(tf, t) for t in keras.tree.flatten(outputs)]
        results[:] = _renamed(
            [
                ModelInput(name, tuple(t.shape), t.dtype.name)
                for name, t in zip(output_names(model, outputs), tensors, strict=True)
            ]
        )
        return {r.name: t for r, t in zip(results, tensors, strict=True)}

    specs = [tf.TensorSpec(i.shape, i.dtype, name=i.name) for i in inputs]
    function = tf.function(answer, autograph=False).get_concrete_function(*specs)
    return Traced(function, tuple(inputs), tuple(results), signature)


def _wide(tf: Any, tensor: Any) -> Any:
    tensor = tf.convert_to_tensor(tensor)
    return tf.identity(tf.cast(tensor, wide(tensor.dtype.name)))


def _renamed(edges: Sequence[ModelInput]) -> list[ModelInput]:
    """The same with names that TensorFlow and gRPC clients take as they are."""
    names = [re.sub(r"\W", "_", e.name, flags=re.ASCII) for e in edges]
    names = [n if n[0].isalpha() else f"input_{n}" for n in names]
    names = [f"{n}_" if keyword.iskeyword(n) else n for n in names]
    if len(set(names)) < len(names):
        raise ValueError(
            f"The names {[e.name for e in edges]} become {names} for a server, and two are alike: "
            "give the layers names of letters, digits and underscores."
        )
    return [ModelInput(n, e.shape, wide(e.dtype)) for n, e in zip(names, edges, strict=True)]


def require_close(
    whose: str, want: Sequence[np.ndarray], have: Sequence[np.ndarray], tolerance: float
) -> float:
    """The largest difference of any two numbers.

    Args:
        whose: who gave `have`, for the sentence.
        tolerance: the largest that is allowed, relative to the largest of `want` above 1.

    Raises:
        ValueError: it is larger, the shapes differ, or nothing of `want` is a number.
    """
    floats = [w.astype("float64") for w in want if w.dtype.kind == "f" and w.size]
    if floats and not any(np.isfinite(w).any() for w in floats):
        raise ValueError(
            "Keras answers NaN or infinity alone, on which nothing can be compared: give other examples, or "
            "look at the model's weights."
        )
    error = largest_difference(want, have)
    scale = max([1.0, *(float(np.abs(w).max(initial=0.0)) for w in want)])
    if not error <= tolerance * scale:
        raise ValueError(
            f"{whose} answers otherwise than Keras, by {error:.3g} where {tolerance:g} of {scale:.3g} was "
            "allowed: does the model do something random, or depend on what is outside it? tolerance= "
            "allows more."
        )
    return error


def largest_difference(want: Sequence[np.ndarray], have: Sequence[np.ndarray]) -> float:
    """The largest absolute difference of any two numbers; infinity where NaN meets a number.

    Raises:
        ValueError: other shapes.
    """
    largest = 0.0
    for one, other in zip(want, have, strict=True):
        if one.shape != other.shape:
            raise ValueError(f"The model answers in shape {one.shape}, the file in {other.shape}.")
        a, b = one.astype("float64"), other.astype("float64")
        with np.errstate(invalid="ignore"):
            difference = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
        difference = np.where(np.isnan(difference), np.inf, difference)
        largest = max(largest, float(difference.max(initial=0.0)))
    return largest
