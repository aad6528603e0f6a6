"""Scores that a mask sets to -1e9, so that a softmax gives those places nothing.

    measured = with_near_masks(content, measured)    # before quantisation to int8

Attention leaves out padding, or what comes later, in this way. A range from -1e9 on has steps of four
million: all scores fall into one, and attention goes to all places alike. But no softmax in int8 tells -1e9
from what is a little below the smallest score, so the range begins there, and the constant is cut off.
Keras's Attention chooses between the scores and the scores minus 1e9: there the 1e9 is cut off as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tflite_export import flatbuffer
from tflite_export.damage import operator_name

BELOW = 10.0  # exp(-10) is an eightieth of 1/256, the step of a softmax in int8


def with_near_masks(content: bytes, measured: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the ranges, narrower where an operator chooses scores or what is far below them.

    That is a constant, or the scores themselves and a constant of 3e4 or more that is taken from them; the
    constant too has a range then.

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
            _, *branches, result = (int(i) for i in [*operator.inputs, *operator.outputs])
            name = _name(graph, result)
            for scores, masked in (branches, reversed(branches)):
                ends = measured.get(_name(graph, scores))
                if ends is None or name not in measured:
                    continue
                lowest = ends["min"] - BELOW
                value = flatbuffer.constant(model, graph.tensors[masked])
                if value is not None and np.max(value) < np.min(lowest):
                    ranges[name] = {**measured[name], "min": lowest}
                taken = _taken(model, graph, scores, masked)
                if taken is not None:
                    ranges[name] = {**ends, "min": lowest}
                    ranges[_name(graph, masked)] = ranges[name]
                    added = flatbuffer.constant(model, graph.tensors[taken])
                    _widen(
                        ranges, _name(graph, taken), ends, added is not None and np.max(added) < 0
                    )
    return ranges


_CHOOSE = ("SELECT", "SELECT_V2")
_FAR = 3e4  # float16 ends at 65504


def _name(graph: Any, tensor: int) -> str:
    return flatbuffer.text(graph.tensors[tensor].name)


def _taken(model: Any, graph: Any, scores: int, masked: int) -> int | None:
    """The constant that is taken from `scores` to make `masked`; None where that is not so, or not all."""
    made = [one for one in graph.operators if masked in one.outputs]
    if len(made) != 1 or len(_readers(graph, masked)) != 1:
        return None
    found = _constant_of(model, graph, made[0], scores)
    if found is None:
        return None
    # One constant may serve several layers, but nobody who means it.
    others = _readers(graph, found)
    return found if all(_constant_of(model, graph, one) == found for one in others) else None


def _constant_of(model: Any, graph: Any, operator: Any, scores: int | None = None) -> int | None:
    """The far constant that an operator takes from `scores` (or from anything)."""
    kind = operator_name(model.operatorCodes[operator.opcodeIndex])
    fused = getattr(operator.builtinOptions, "fusedActivationFunction", 0)
    if kind not in ("SUB", "ADD") or fused:
        return None
    first, second = (int(i) for i in operator.inputs)
    for of, constant in ((first, second), (second, first))[: 1 + (kind == "ADD")]:
        value = flatbuffer.constant(model, graph.tensors[constant])
        if value is None or scores not in (None, of):
            continue
        taken = value if kind == "SUB" else -value
        if np.min(taken) >= _FAR:
            return constant
    return None


def _readers(graph: Any, tensor: int) -> list[Any]:
    """The operators that read a tensor, and None for the graph's output."""
    readers = [one for one in graph.operators if tensor in one.inputs]
    return readers + [None] * (tensor in graph.outputs)


def _widen(ranges: dict[str, Any], name: str, ends: Mapping[str, Any], negative: bool) -> None:
    """Gives the constant a range up to what moves the highest score below the lowest."""
    enough = np.asarray(ends["max"] - ends["min"] + BELOW)
    nothing = np.zeros_like(enough)
    low, high = (-enough, nothing) if negative else (nothing, enough)
    before = ranges.get(name, {"min": low, "max": high})
    ranges[name] = {"min": np.minimum(low, before["min"]), "max": np.maximum(high, before["max"])}
