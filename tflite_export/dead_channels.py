"""Channels whose weights are nothing beside their bias, as BatchNormalization leaves them where its scale
has gone to 0.

    content = with_room_for_biases(content, measured)    # before quantisation to int8

An int8 layer adds its bias in int32, in steps of (step of the input) × (step of the channel's weights).
Where the weights are nearly 0 these steps are so small that the bias does not fit, and litert-quantizer
0.11 cuts it off: the channel then answers nearly 0 in place of its bias. So one weight of the channel is
made large enough, which changes an answer by less than a tenth of the step in which the layer answers.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from tflite_export import flatbuffer
from tflite_export.damage import operator_name

# Places of input, weights and bias in each operator that has one, and the weights' axis of channels.
_OPERATORS = {
    "CONV_2D": (0, 1, 2, 0),
    "DEPTHWISE_CONV_2D": (0, 1, 2, -1),
    "FULLY_CONNECTED": (0, 1, 2, 0),
    "TRANSPOSE_CONV": (2, 1, 3, 0),
}
# 1/8 of what int32 holds: the quantiser may choose a smaller step of the input than the range says.
_MOST = 2**28


def with_room_for_biases(content: bytes, measured: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Returns the float flatbuffer, changed where a bias would not fit into int32.

    Args:
        content: a float flatbuffer.
        measured: {tensor: {"min": …, "max": …}} over the examples.
    """
    model = flatbuffer.read(content)
    found = [
        _give_room(model, graph, operator, measured)
        for graph in model.subgraphs
        for operator in graph.operators or []
    ]
    return flatbuffer.write(model) if any(found) else content


def _give_room(model: Any, graph: Any, operator: Any, measured: Mapping) -> bool:
    name = operator_name(model.operatorCodes[operator.opcodeIndex])
    inputs = list(operator.inputs if operator.inputs is not None else [])
    *places, axis = _OPERATORS.get(name, (len(inputs), 0))
    if max(places) >= len(inputs) or inputs[places[-1]] < 0:
        return False
    source, weights, bias = (graph.tensors[inputs[place]] for place in places)
    ends = measured.get(flatbuffer.text(source.name))
    kernel, addend = flatbuffer.constant(model, weights), flatbuffer.constant(model, bias)
    if ends is None or kernel is None or addend is None:
        return False
    step = (max(0.0, float(np.max(ends["max"]))) - min(0.0, float(np.min(ends["min"])))) / 255
    if not step:
        return False
    least = 127 * np.abs(addend) / (_MOST * step)
    channels = np.moveaxis(kernel, axis, 0)  # a view
    dead = np.flatnonzero(np.abs(channels.reshape(len(addend), -1)).max(axis=1) < least)
    if not len(dead):
        return False
    for channel in dead:
        channels[channel].flat[0] = least[channel]
    _own(model, graph, operator, places[1]).data = np.frombuffer(kernel.tobytes(), "uint8")
    return True


def _own(model: Any, graph: Any, operator: Any, place: int) -> Any:
    """The buffer of an input that no other operator reads, which may have a larger input than this one.

    A layer that is called twice has one kernel in the file, and so have layers whose kernels are equal.
    """
    tensor = graph.tensors[operator.inputs[place]]
    users = [
        one
        for each in model.subgraphs
        for other in each.operators or []
        for one in (other.inputs if other.inputs is not None else [])
        if one >= 0 and each.tensors[one].buffer == tensor.buffer
    ]
    if len(users) > 1:
        tensor = copy.copy(tensor)
        tensor.name = f"{flatbuffer.text(tensor.name)}/own_{len(graph.tensors)}"
        tensor.buffer = len(model.buffers)
        model.buffers.append(flatbuffer.schema.BufferT())
        operator.inputs = [int(i) for i in operator.inputs]
        operator.inputs[place] = len(graph.tensors)
        graph.tensors.append(tensor)
    return model.buffers[tensor.buffer]
