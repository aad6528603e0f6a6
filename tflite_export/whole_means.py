"""Average pools over whole pictures, as means: an int8 mean answers in steps of its own.

    content = with_means(content)       # a float flatbuffer, before ranges are measured

TFLite stores what AVERAGE_POOL_2D answers in the steps of what it reads. A mean of many values spans less
than they do, and loses most of its steps: MLPerf Tiny's ResNet-8 ends in such a pool, and most of what int8
costs it on CIFAR-10 is lost there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tflite_export import flatbuffer
from tflite_export.damage import operator_name
from tflite_export.flatbuffer import schema


def with_means(content: bytes) -> bytes:
    """Returns the flatbuffer with a MEAN for each AVERAGE_POOL_2D that makes one value of a whole picture."""
    model = flatbuffer.read(content)
    code = None
    for graph in model.subgraphs:
        for operator in graph.operators or []:
            if not _is_whole(model, graph, operator):
                continue
            code = _code(model) if code is None else code
            operator.opcodeIndex = code
            operator.builtinOptionsType = schema.BuiltinOptions.ReducerOptions
            operator.builtinOptions = schema.ReducerOptionsT()
            operator.builtinOptions.keepDims = True
            operator.inputs = [int(operator.inputs[0]), _axes(model, graph)]
    return content if code is None else flatbuffer.write(model)


def _is_whole(model: Any, graph: Any, operator: Any) -> bool:
    if operator_name(model.operatorCodes[operator.opcodeIndex]) != "AVERAGE_POOL_2D":
        return False
    options = operator.builtinOptions
    given, made = (
        flatbuffer.shape_of(graph.tensors[e[0]]) for e in (operator.inputs, operator.outputs)
    )
    return (
        given[1:3] == (options.filterHeight, options.filterWidth)
        and made[1:3] == (1, 1)
        and not options.fusedActivationFunction
    )


def _axes(model: Any, graph: Any) -> int:
    """The number of a new constant: height and width."""
    tensor = schema.TensorT()
    tensor.name, tensor.type = f"whole_mean/axes_{len(graph.tensors)}", schema.TensorType.INT32
    tensor.shape, tensor.buffer = np.array([2], "int32"), len(model.buffers)
    model.buffers.append(schema.BufferT())
    model.buffers[-1].data = np.frombuffer(np.array([1, 2], "<i4").tobytes(), "uint8")
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _code(model: Any) -> int:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.MEAN
    code.version = 2  # the first that takes int8
    model.operatorCodes = [*model.operatorCodes, code]
    return len(model.operatorCodes) - 1
