"""Does the int8 file compute each layer as the quantisation-aware model does?

    for error in layer_errors(qat, "student.tflite", x):
        print(error.layer, error.within_two_steps, error.largest_steps)

End to end the answers of a deep network may drift apart although every operator is right: a difference of
one step in an early layer grows. So each layer is looked at by itself: wherever the model rounds, the values
that the file has there are compared with its own, and what comes behind goes on from the file's.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tflite_export.quantize_aware import QuantizeAware
from tflite_export.runtime import content_of
from tflite_export.signature import Signature


@dataclass(frozen=True)
class LayerError:
    """How a layer's output in the file differs from the model's, both computed on the file's inputs.

    Attributes:
        layer: its name, with the place in it where it rounds several values.
        within_two_steps: share of values that are at most two steps apart.
        largest_steps: the largest difference, in steps.
    """

    layer: str
    within_two_steps: float
    largest_steps: float


def layer_errors(aware: QuantizeAware, exported: Any, x: Any) -> list[LayerError]:
    """Compares layer by layer, in the order in which they run.

    Args:
        aware: what `quantize_aware` made.
        exported: the float32-input file that `export` made of it.
        x: one or a few examples, in the form that the model takes: an array, or a dict by input name.

    Values that TFLite keeps in prescribed steps (sigmoid, softmax), and those that occur in one operator
    alone, are not compared.

    Raises:
        ValueError: the file is not of this model: none of its steps are the model's.
    """
    signature = Signature.of(aware)
    arrays = x if isinstance(x, Mapping) else {signature.inputs[0].name: x}
    count = len(next(iter(arrays.values())))
    found: dict[str, list[tuple[float, float]]] = {}
    for number in range(count):
        one = {name: np.asarray(a)[number : number + 1] for name, a in arrays.items()}
        tensors = _tensors(exported, one)

        def see(name: str, value: Any, step: float, tensors: Any = tensors) -> Any:
            """The file's values in the place of the model's, where it has the same steps."""
            wanted = np.asarray(value)
            same = [
                values.reshape(wanted.shape)
                for scale, values in tensors
                if abs(scale - step) <= 1e-5 * step and values.size == wanted.size
            ]
            if not same:
                return value
            # Several layers may have the same steps, as after each ReLU6.
            nearest = min(same, key=lambda values: float(np.abs(values - wanted).mean()))
            steps = np.abs(nearest - wanted) / step
            row = (float(np.mean(steps <= 2.01)), float(steps.max()))
            found.setdefault(name, []).append(row)
            return nearest.astype("float32")

        with aware.watched_by(see):
            signature.call([one[i.name] for i in signature.inputs])
    if not found:
        raise ValueError(
            "None of the file's steps are the model's: was it exported from this model?"
        )
    return [
        LayerError(name, sum(r[0] for r in rows) / len(rows), max(r[1] for r in rows))
        for name, rows in found.items()
    ]


def _tensors(exported: Any, inputs: Mapping[str, np.ndarray]) -> list[tuple[float, np.ndarray]]:
    """(step, real values) of every int8 tensor of the file that one example leads to, in order."""
    content = content_of(os.fspath(exported) if hasattr(exported, "__fspath__") else exported)[0]
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # A delegate keeps what lies between its operators to itself.
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this takes memory
        interpreter = Interpreter(
            model_content=content,
            experimental_op_resolver_type=plain,
            experimental_preserve_all_tensors=True,
        )
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        name = detail["name"].removeprefix("serving_default_").partition(":")[0]
        interpreter.set_tensor(detail["index"], inputs[name].astype(detail["dtype"]))
    interpreter.invoke()
    found = []
    for detail in interpreter.get_tensor_details():
        scales = detail["quantization_parameters"]["scales"]
        if detail["dtype"] != np.int8 or len(scales) != 1:
            continue
        try:
            stored = interpreter.get_tensor(detail["index"])
        except ValueError:  # a tensor that no operator fills
            continue
        zero = int(detail["quantization_parameters"]["zero_points"][0])
        found.append((float(scales[0]), (stored.astype("float32") - zero) * scales[0]))
    return found
