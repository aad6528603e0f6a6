"""Kernels whose few values stay few in the file: one step for all their channels.

    tree = with_one_step(tree, [rows_of(whole_numbers, kernel.channels)])

TensorFlow's converter gives each channel of a kernel a step of its own, in which its largest weight is 127,
so that one centroid of a clustered kernel becomes another whole number in each channel. Here the whole
numbers are those of the kernel again, and the steps of the channels follow, which say what BatchNormalization
made of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.rounding.quantizers import LEVELS


def rows_of(kernel: np.ndarray, channels: Sequence[int]) -> np.ndarray:
    """`(channels, weights of each)`, in the order in which a file holds them.

    Args:
        channels: the axes along which each place is a channel.
    """
    kernel = np.asarray(kernel)
    places = sorted(axis % kernel.ndim for axis in channels)
    count = int(np.prod([kernel.shape[axis] for axis in places]))
    return np.moveaxis(kernel, places, range(len(places))).reshape(count, -1)


def with_one_step(model: Any, kernels: Sequence[np.ndarray]) -> Any:
    """`model` with the whole numbers of `kernels` in the place of the converter's.

    Args:
        kernels: what `rows_of` makes of -127..127; one that is not in the file is left out.
    """
    for graph in model.subgraphs:
        found = {
            number: wider
            for number, tensor in enumerate(graph.tensors)
            if (wider := _replaced(model, tensor, kernels)) is not None
        }
        done: set[int] = set()
        for operator in graph.operators or []:
            inputs = [int(i) for i in operator.inputs] if operator.inputs is not None else []
            for wider in (found[i] for i in inputs if i in found):
                for i in (i for i in inputs if i >= 0 and i not in done):
                    if graph.tensors[i].type == schema.TensorType.INT32:
                        _in_steps(model, graph.tensors[i], wider)
                        done.add(i)
    return model


def _replaced(model: Any, tensor: Any, kernels: Sequence[np.ndarray]) -> np.ndarray | None:
    """By how much the steps of each channel become wider; None where it is none of `kernels`."""
    data, quantization = model.buffers[tensor.buffer].data, tensor.quantization
    if tensor.type != schema.TensorType.INT8 or data is None or quantization is None:
        return None
    steps = _steps(quantization)
    values = np.asarray(data, "uint8").view("int8").reshape(np.asarray(tensor.shape, int))
    axis = int(quantization.quantizedDimension or 0)
    if values.ndim == 0 or len(steps) != values.shape[axis]:
        return None
    moved = np.moveaxis(values, axis, 0)
    rows = moved.reshape(len(steps), -1).astype(float)
    for kernel in kernels:
        if kernel.shape != rows.shape:
            continue
        largest = np.abs(kernel).max(axis=1)
        wider = np.where(largest > 0, LEVELS / np.maximum(largest, 1), 1.0)
        wanted = kernel * wider[:, None]
        # A factor of BatchNormalization may be negative.
        signs = np.where((wanted * rows).sum(axis=1) < 0, -1.0, 1.0)[:, None]
        if np.abs(wanted * signs - rows).max() > 1.0:
            continue
        whole = np.moveaxis((kernel * signs).reshape(moved.shape), 0, axis).astype("int8")
        model.buffers[tensor.buffer].data = np.frombuffer(whole.tobytes(), "uint8")
        _set(quantization, steps * wider)
        return wider
    return None


def _in_steps(model: Any, bias: Any, wider: np.ndarray) -> None:
    """Say a bias, which is in steps of input times weights, in steps that are so much wider."""
    data, steps = model.buffers[bias.buffer].data, _steps(bias.quantization)
    if data is None or len(steps) != len(wider):
        return
    values = np.asarray(data, "uint8").view("<i4")
    whole = np.round(values / wider).astype("<i4")
    model.buffers[bias.buffer].data = np.frombuffer(whole.tobytes(), "uint8")
    _set(bias.quantization, steps * wider)


def _steps(quantization: Any) -> np.ndarray:
    known = quantization is not None and quantization.scale is not None
    return np.atleast_1d(np.asarray(quantization.scale if known else []))


def _set(quantization: Any, steps: np.ndarray) -> None:
    """One step where all are the same, which older runtimes want of a dense layer."""
    if np.ptp(steps) <= 1e-6 * steps.max():
        steps = steps[:1]
    quantization.scale = steps.astype("float32")
    quantization.zeroPoint = np.zeros(len(steps), "int64")
