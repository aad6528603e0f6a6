"""Is a `.tflite` file whole? Looked at before native code reads it, which crashes where this raises.

    check(model)        # the object tree of a flatbuffer

A file that was cut off or changed can still be a readable flatbuffer, with indices that point to
nothing, weights shorter than their shape, or operands that nobody computes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export import shapes


def _names(enumeration: type) -> dict[int, str]:
    return {v: k for k, v in vars(enumeration).items() if isinstance(v, int)}


OPERATOR_NAMES = _names(schema.BuiltinOperator)
TYPE_NAMES = {number: name.lower() for number, name in _names(schema.TensorType).items()}
_BITS = {"float16": 16, "bfloat16": 16, "int16": 16, "uint16": 16, "int8": 8, "uint8": 8}
_BITS |= {"float32": 32, "int32": 32, "uint32": 32, "int64": 64, "uint64": 64, "float64": 64}
_BITS |= {"int4": 4, "int2": 2, "bool": 8, "complex64": 64, "complex128": 128}


def operator_name(code: Any) -> str:
    """The name of an operator code, "CUSTOM" for all that are not built in."""
    number = max(code.builtinCode or 0, code.deprecatedBuiltinCode or 0)
    return OPERATOR_NAMES.get(number, f"operator {number}")


def check(model: Any) -> None:
    """Raises ValueError at the first thing in the tree that cannot be."""

    def inside(indices: Any, count: int, what: str, *, optional: bool = False) -> None:
        for index in () if indices is None else indices:
            if not (0 <= index < count or (optional and index == -1)):
                raise ValueError(f"{what} {index} of {count}")

    buffers = model.buffers or []
    if not model.subgraphs:
        raise ValueError("no subgraph")
    for graph in model.subgraphs:
        tensors = graph.tensors or []
        inside(graph.inputs, len(tensors), "input tensor")
        inside(graph.outputs, len(tensors), "output tensor")
        inside([t.buffer for t in tensors], len(buffers), "buffer")
        for tensor in tensors:
            _check_tensor(tensor, buffers[tensor.buffer])
        for operator in graph.operators or []:
            inside([operator.opcodeIndex], len(model.operatorCodes or []), "operator code")
            inside(operator.inputs, len(tensors), "operand", optional=True)
            inside(operator.outputs, len(tensors), "result", optional=True)
        _check_flow(model, graph)
        codes = [model.operatorCodes[o.opcodeIndex] for o in graph.operators or []]
        names = [operator_name(code) for code in codes]
        shapes.check(model, graph, names)
        for operator, name in zip(graph.operators or [], names, strict=True):
            if name in _SUMS:
                _check_steps(graph, operator, name)
    for signature in model.signatureDefs or []:
        inside([signature.subgraphIndex], len(model.subgraphs), "subgraph")
        tensors = model.subgraphs[signature.subgraphIndex].tensors or []
        for one in [*(signature.inputs or []), *(signature.outputs or [])]:
            inside([one.tensorIndex], len(tensors), "signature tensor")


def _check_flow(model: Any, graph: Any) -> None:
    """Every operand is there when its operator runs: kernels and delegates do not always look."""

    def indices(values: Any) -> list[int]:
        return [] if values is None else [int(v) for v in values]

    ready = set(indices(graph.inputs))
    for index, tensor in enumerate(graph.tensors or []):
        data = model.buffers[tensor.buffer].data
        empty = tensor.shape is not None and 0 in tensor.shape
        if tensor.isVariable or empty or (data is not None and len(data)):
            ready.add(index)
    for operator in graph.operators or []:
        name = operator_name(model.operatorCodes[operator.opcodeIndex])
        operands = indices(operator.inputs)
        if -1 in operands[:2] and not any(kind in name for kind in _WITH_GAPS):
            raise ValueError(f"{name} without operand {operands.index(-1)}")
        for index in operands:
            if index >= 0 and index not in ready:
                raise ValueError(f"{name} reads tensor {index} before it has a value")
        ready.update(indices(operator.outputs))


# Of all other operators only what comes third may be missing: the bias.
_WITH_GAPS = ("LSTM", "RNN", "SVDF", "CUSTOM", "STABLEHLO")


def _check_tensor(tensor: Any, buffer: Any) -> None:
    shape = [] if tensor.shape is None else [int(d) for d in tensor.shape]
    if any(d < 0 for d in shape):
        raise ValueError(f"a tensor of shape {shape}")
    kind = TYPE_NAMES.get(tensor.type)
    if kind is None:
        raise ValueError(f"tensor type {tensor.type}")
    stored = buffer.data is not None and len(buffer.data) > 0
    _check_quantization(tensor, shape, kind, stored)
    if stored and kind in _BITS and tensor.sparsity is None:
        needed = math.prod(shape) * _BITS[kind] // 8
        if needed > len(buffer.data):
            raise ValueError(f"a tensor of {needed} bytes in a buffer of {len(buffer.data)}")


def _check_quantization(tensor: Any, shape: list[int], kind: str, stored: bool) -> None:
    """Kernels compute with these numbers without looking: a zero point of 10^9 crashes them, and
    XNNPACK a scale of 0 or one too small for a normal float."""
    quantization = tensor.quantization
    if quantization is None or quantization.scale is None or kind not in _ENDS:
        return
    scale = np.asarray(quantization.scale)
    zero = np.asarray([] if quantization.zeroPoint is None else quantization.zeroPoint)
    if zero.size and zero.size != scale.size:
        raise ValueError(f"{scale.size} scales and {zero.size} zero points")
    odd = scale[~np.isfinite(scale) | (scale < 0)]
    if odd.size:
        raise ValueError(f"a scale of {odd[0]}")
    if (
        (scale < np.finfo("float32").tiny) & ((scale > 0) | (not stored and kind != "int32"))
    ).any():
        raise ValueError(f"a scale of {scale.min()} for {kind}")
    low, high = _ENDS[kind]
    if ((zero < low) | (zero > high)).any():
        raise ValueError(f"a zero point that {kind} does not have")
    channels = quantization.quantizedDimension
    if scale.size > 1 and not (0 <= channels < len(shape) and shape[channels] == scale.size):
        raise ValueError(f"{scale.size} scales for the shape {shape}")


def _check_steps(graph: Any, operator: Any, name: str) -> None:
    """Sums bring their operands to one step, twice the larger, as a fraction with so many bits; what takes
    it from there to the step of the result must be less than 1 and no less than 2^-31, or the kernel ends
    the process."""
    one, other, result = (
        graph.tensors[int(i)] for i in [*operator.inputs[:2], operator.outputs[0]]
    )
    kind = TYPE_NAMES[result.type]
    steps = [_scales(t) for t in (one, other, result)]
    if kind not in ("int8", "uint8", "int16") or (kind == "int16" and not any(map(len, steps))):
        return
    if any(len(step) != 1 for step in steps):
        raise ValueError(f"{name} in {kind} of {[len(step) for step in steps]} steps")
    power, bits = _SUMS[name]
    shared = (2 * max(float(steps[0][0]), float(steps[1][0]))) ** power
    limit = float(steps[2][0]) * 2.0 ** (bits - 5 if kind == "int16" else bits)
    # XNNPACK takes a SUB of any steps, as of scores and a mask of 10^9 times 0 or 1.
    if not 2.0**-31 * limit < shared < (np.inf if name == "SUB" else limit):
        raise ValueError(
            f"{name} of steps of {steps[0][0]:g} and {steps[1][0]:g} in {steps[2][0]:g}"
        )


def _scales(tensor: Any) -> Any:
    scale = None if tensor.quantization is None else tensor.quantization.scale
    return [] if scale is None else scale


# {operator: (power of the operands' step, bits that the kernel shifts it by)}
_SUMS = {"ADD": (1, 20), "SUB": (1, 20), "SQUARED_DIFFERENCE": (2, 14)}
_ENDS = {k: (np.iinfo(k).min, np.iinfo(k).max) for k in ("int8", "uint8", "int16", "int32")}
