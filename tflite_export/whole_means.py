"""Average pools over whole pictures, as means: an int8 mean answers in steps of its own.

    content = with_means(content)       # a float flatbuffer, before ranges are measured

TFLite stores what AVERAGE_POOL_2D answers in the steps of what it reads. A mean of many values spans less
than they do, and loses most of its steps: MLPerf Tiny's ResNet-8 ends in such a pool, and most of what int8
costs it on CIFAR-10 is lost there.
"""

from __future__ import annotations

from typing import Any

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
            if code is None:  # version 2 is the first that takes int8
                code = flatbuffer.added_code(model, schema.BuiltinOperator.MEAN, 2)
            operator.opcodeIndex = code
            operator.builtinOptionsType = schema.BuiltinOptions.ReducerOptions
            operator.builtinOptions = schema.ReducerOptionsT()
            operator.builtinOptions.keepDims = True
            axes = flatbuffer.added_constant(
                model, graph, f"whole_mean/axes_{len(graph.tensors)}", [1, 2]
            )
            operator.inputs = [int(operator.inputs[0]), axes]
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
