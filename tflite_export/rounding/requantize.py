"""From the steps of one integer tensor to those of another, as operands of a concatenation need it.

    x = marked(x)                                       # while the model is traced
    model = requantized(flatbuffer.read(content))       # each mark is a QUANTIZE, from integers to integers

TensorFlow's converter drops a rounding right behind another one, and then finds that the steps differ. A
mark between the two keeps both: an operator that does nothing, which the converter does not see through.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export import flatbuffer
from tflite_export.damage import operator_name

_ALMOST_ONE = float(np.nextafter(np.float32(1), np.float32(0)))


def marked(x: Any) -> Any:
    """`x` itself, by a LEAKY_RELU of slope 1."""
    import tensorflow as tf

    return tf.nn.leaky_relu(x, _ALMOST_ONE)


def requantized(model: Any) -> Any:
    """`model` with a QUANTIZE in the place of each mark between integers, and none between floats."""
    code = None
    for graph in model.subgraphs:
        floats: dict[int, int] = {}
        for operator in graph.operators or []:
            name = operator_name(model.operatorCodes[operator.opcodeIndex])
            if name != "LEAKY_RELU" or operator.builtinOptions.alpha != _ALMOST_ONE:
                continue
            given, made = int(operator.inputs[0]), int(operator.outputs[0])
            if graph.tensors[given].type == graph.tensors[made].type == schema.TensorType.FLOAT32:
                floats[made] = given
                continue
            if code is None:  # version 2 goes from integers to integers
                code = flatbuffer.added_code(model, schema.BuiltinOperator.QUANTIZE, 2)
            operator.opcodeIndex = code
            operator.builtinOptionsType = schema.BuiltinOptions.QuantizeOptions
            operator.builtinOptions = schema.QuantizeOptionsT()
        _without(graph, floats)
    return model


def _without(graph: Any, floats: dict[int, int]) -> None:
    """Take out operators that give floats as they are: who reads what they write reads what they read."""
    if not floats:
        return
    graph.operators = [o for o in graph.operators if int(o.outputs[0]) not in floats]
    for operator in graph.operators:
        operator.inputs = [floats.get(int(i), int(i)) for i in operator.inputs]
    graph.outputs = [floats.get(int(i), int(i)) for i in graph.outputs]
