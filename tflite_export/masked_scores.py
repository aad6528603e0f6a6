"""Scores that a mask sets to -1e9, so that a softmax gives those places nothing.

    measured = with_near_masks(content, measured)    # before quantisation to int8

Attention leaves out padding, or what comes later, in this way. A range from -1e9 on has steps of four
million: all scores fall into one, and attention goes to all places alike. But no softmax in int8 tells -1e9
from what is a little below the smallest score, so the range begins there, and the constant is cut off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tflite_export import flatbuffer
from tflite_export.damage import operator_name

_BELOW = 10.0  # exp(-10) is an eightieth of 1/256, the step of a softmax in int8


def with_near_masks(content: bytes, measured: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the ranges, narrower where an operator chooses scores or a constant far below them.

    Args:
        content: a float flatbuffer.
        measured: {tensor: {"min": …, "max": …}} over the examples.
    """
    model = flatbuffer.read(content)
    ranges = dict(measured)
    for graph in model.subgraphs:
        for operator in graph.operators or []:
            if operator_name(model.operatorCodes[operator.opcodeIndex]) not in _CHOOSE:
                continue
            _, *branches, result = (graph.tensors[i] for i in [*operator.inputs, *operator.outputs])
            name = flatbuffer.text(result.name)
            for scores, masked in (branches, reversed(branches)):
                ends = measured.get(flatbuffer.text(scores.name))
                value = flatbuffer.constant(model, masked)
                if ends is None or value is None or name not in measured:
                    continue
                lowest = ends["min"] - _BELOW
                if np.max(value) < np.min(lowest):
                    ranges[name] = {**measured[name], "min": lowest}
    return ranges


_CHOOSE = ("SELECT", "SELECT_V2")
