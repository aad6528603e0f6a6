"""Do the sizes and types in a `.tflite` file agree with its operators?

    check(model, graph)        # the object tree of a flatbuffer, and one of its subgraphs

A delegate believes the shape that the file states for every tensor, reserves memory for it before any
kernel looks, and reads operands as long as it says: a bit that flips in there costs gigabytes, or the
process. So what an operator writes is computed here from what it reads, for the operators that networks are
made of; others are let pass. Sizes that the file leaves open are not compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

Shape = list[int]
# Kernels count bytes in int32.
_MOST_BYTES = 2**31


@dataclass(frozen=True)
class Operand:
    """What an operator reads or writes: `shape` is None where the file does not say it, or leaves sizes open;
    `values` are the file's own integers, or None."""

    shape: Shape | None
    kind: int
    values: Shape | None = None

    @property
    def size(self) -> int | None:
        """How many numbers it holds; None where that is not known."""
        return None if self.shape is None else math.prod(self.shape)


def check(model: Any, graph: Any, names: Sequence[str]) -> None:
    """Raises ValueError at the first operator whose operands cannot be.

    Args:
        graph: a subgraph whose indices all point to something.
        names: of its operators.
    """
    tensors = [_operand(model, tensor) for tensor in graph.tensors or []]
    for tensor in tensors:
        if tensor.size is not None and tensor.size * _BYTES.get(tensor.kind, 1) >= _MOST_BYTES:
            raise ValueError(f"a tensor of shape {tensor.shape}: 2 GiB and more")
    for operator, name in zip(graph.operators or [], names, strict=True):
        rule = _RULES.get(name)
        if rule is None:
            continue
        least, expected = rule
        read, written = (
            [tensors[i] if i >= 0 else None for i in map(int, [] if one is None else one)]
            for one in (operator.inputs, operator.outputs)
        )
        given = [one for one in read if one is not None]
        if len(given) < least or not written or None in written or None in read[:least]:
            raise ValueError(f"{name} of {len(given)} operands and {len(written)} results")
        alike = given if name in ("CONCATENATION", "PACK") else given[:least]
        if name in _ONE_TYPE and len({one.kind for one in [*alike, *written] if one}) > 1:
            raise ValueError(f"{name} of several types")
        try:
            shapes = expected(read, written, operator.builtinOptions)
        except (IndexError, AttributeError, ZeroDivisionError, OverflowError):
            raise ValueError(f"{name} of operands {[one.shape for one in given]}") from None
        for want, have in zip(shapes or (), written, strict=False):
            if want is not None and have.shape is not None and want != have.shape:  # type: ignore
                raise ValueError(
                    f"{name} writes {have.shape}, and its operands make {want}"  # type: ignore
                )


def _operand(model: Any, tensor: Any) -> Operand:
    shape = None if tensor.shape is None else [int(d) for d in tensor.shape]
    signature = tensor.shapeSignature
    if signature is not None and (np.asarray(signature) < 0).any():
        shape = None
    if not shape and not tensor.hasRank:  # a scalar, or not known
        shape = None
    data = model.buffers[tensor.buffer].data
    values = None
    if tensor.type == schema.TensorType.INT32 and data is not None and 0 < len(data) <= 256:
        values = [
            int(v) for v in np.frombuffer(bytes(bytearray(data))[: len(data) // 4 * 4], "<i4")
        ]
    return Operand(shape, tensor.type, values)


Rule = Callable[[Sequence[Any], Sequence[Any], Any], Sequence[Shape | None] | None]


def _same(read: Sequence[Any], written: Any, options: Any) -> Sequence[Shape | None]:
    return [read[0].shape]


def _broadcast(read: Sequence[Any], written: Any, options: Any) -> Sequence[Shape | None]:
    shapes = [one.shape for one in read if one is not None]
    if None in shapes:
        return [None]
    try:
        return [[int(d) for d in np.broadcast_shapes(*map(tuple, shapes))]]
    except ValueError:
        raise ValueError(f"an operator on the shapes {shapes}") from None


def _window(size: int, window: int, stride: int, padding: int) -> int:
    if stride < 1 or window < 1:
        raise ValueError(f"a window of {window} in steps of {stride}")
    if padding == schema.Padding.SAME:
        return -(-size // stride)
    return (size - window + stride) // stride


def _convolution(read: Sequence[Any], written: Any, options: Any) -> Sequence[Shape | None] | None:
    image, kernel = read[0].shape, read[1].shape
    if image is None or kernel is None:
        return None
    if len(image) != 4 or len(kernel) != 4:
        raise ValueError(f"a convolution of {image} with {kernel}")
    depthwise = isinstance(options, schema.DepthwiseConv2DOptionsT)
    channels = kernel[3] if depthwise else kernel[0]
    groups, left = divmod(image[3], 1 if depthwise else kernel[3])
    if left or not groups or channels % groups:
        raise ValueError(f"a convolution of {image} with {kernel}")
    if depthwise and channels != image[3] * options.depthMultiplier:
        raise ValueError(
            f"a depth multiplier of {options.depthMultiplier} from {image[3]} channels to {channels}"
        )
    _same_length(read, 2, channels)
    high = options.dilationHFactor * (kernel[1] - 1) + 1
    wide = options.dilationWFactor * (kernel[2] - 1) + 1
    if min(options.dilationHFactor, options.dilationWFactor) < 1:
        raise ValueError("a dilation below 1")
    rows = _window(image[1], high, options.strideH, options.padding)
    columns = _window(image[2], wide, options.strideW, options.padding)
    return [[image[0], rows, columns, channels]]


def _transposed(read: Sequence[Any], written: Any, options: Any) -> Sequence[Shape | None] | None:
    kernel, image, shape = read[1].shape, read[2].shape, read[0].values
    if min(options.strideH, options.strideW) < 1:
        raise ValueError("a stride below 1")
    if kernel is None or image is None or shape is None:
        return None
    rows = _window(shape[1], kernel[1], options.strideH, options.padding)
    columns = _window(shape[2], kernel[2], options.strideW, options.padding)
    if [shape[0], rows, columns, kernel[3]] != image or kernel[0] != shape[3]:
        raise ValueError(f"a transposed convolution of {image} with {kernel} to {shape}")
    _same_length(read, 3, shape[3])
    return [shape]


def _pool(read: Sequence[Any], written: Any, options: Any) -> Sequence[Shape | None] | None:
    image = read[0].shape
    rows = _window(1, options.filterHeight, options.strideH, 0)
    if image is None:
        return None
    rows = _window(image[1], options.filterHeight, options.strideH, options.padding)
    columns = _window(image[2], options.filterWidth, options.strideW, options.padding)
    return [[image[0], rows, columns, image[3]]]


def _dense(read: Sequence[Any], written: Any, options: Any) -> Sequence[Shape | None] | None:
    kernel, count, result = read[1].shape, read[0].size, written[0].size
    if kernel is None or len(kernel) != 2:
        return None
    _same_length(read, 2, kernel[0])
    if count is None or result is None:
        return None
    if not kernel[1] or count % kernel[1] or result != count // kernel[1] * kernel[0]:
        raise ValueError(
            f"a dense layer from {read[0].shape} to {written[0].shape} with weights {kernel}"
        )
    return None


def _same_length(read: Sequence[Any], place: int, count: int) -> None:
    """A bias has a value for each channel."""
    if len(read) > place and read[place] is not None and read[place].size not in (None, count):
        raise ValueError(f"{read[place].size} biases for {count} channels")


def _concatenated(read: Sequence[Any], written: Any, options: Any) -> Sequence[Shape | None] | None:
    shapes = [one.shape for one in read]
    if None in shapes:
        return None
    axis, result = options.axis, list(shapes[0])
    for shape in shapes[1:]:
        same = [d for i, d in enumerate(shape) if i != axis % len(shape)]
        if len(shape) != len(result) or same != [
            d for i, d in enumerate(result) if i != axis % len(shape)
        ]:
            raise ValueError(f"CONCATENATION of {shapes} along axis {axis}")
        result[axis] += shape[axis]
    return [result]


def _packed(read: Sequence[Any], written: Any, options: Any) -> Sequence[Shape | None] | None:
    if read[0].shape is None or any(one.shape != read[0].shape for one in read):
        return None
    result, axis = list(read[0].shape), options.axis
    result.insert(axis if axis >= 0 else axis + len(result) + 1, len(read))
    return [result]


def _as_many(read: Sequence[Any], written: Any, options: Any) -> Sequence[Shape | None] | None:
    if None not in (read[0].size, written[0].size) and read[0].size != written[0].size:
        raise ValueError(f"{read[0].shape} as {written[0].shape}: another number of values")
    return None


def _no_more(read: Sequence[Any], written: Any, options: Any) -> Sequence[Shape | None] | None:
    sizes = [one.size for one in written]
    if None not in sizes and read[0].size is not None and sum(sizes) > read[0].size:
        raise ValueError(f"a part of {read[0].shape} as {[one.shape for one in written]}")
    return None


def _parts(read: Sequence[Any], written: Any, options: Any) -> Sequence[Shape | None] | None:
    source = read[1] if isinstance(options, schema.SplitOptionsT) else read[0]
    return _no_more([source], written, options)


def _transpose(read: Sequence[Any], written: Any, options: Any) -> Sequence[Shape | None] | None:
    shape, order = read[0].shape, read[1].values
    if shape is None or order is None:
        return None
    if sorted(d % len(shape) for d in order) != list(range(len(shape))):
        raise ValueError(f"TRANSPOSE of {shape} in the order {order}")
    return [[shape[d] for d in order]]


def _reduced(read: Sequence[Any], written: Any, options: Any) -> Sequence[Shape | None] | None:
    shape, axes = read[0].shape, read[1].values
    if shape is None or axes is None:
        return None
    if any(not -len(shape) <= axis < len(shape) for axis in axes):
        raise ValueError(f"{shape} reduced along {axes}")
    gone = {axis % len(shape) for axis in axes}
    if options is not None and options.keepDims:
        return [[1 if i in gone else d for i, d in enumerate(shape)]]
    return [[d for i, d in enumerate(shape) if i not in gone]]


def _padded(read: Sequence[Any], written: Any, options: Any) -> Sequence[Shape | None] | None:
    shape, more = read[0].shape, read[1].values
    if shape is None or more is None:
        return None
    if len(more) != 2 * len(shape) or min(more) < 0:
        raise ValueError(f"{shape} padded by {more}")
    return [[d + more[2 * i] + more[2 * i + 1] for i, d in enumerate(shape)]]


def _resized(read: Sequence[Any], written: Any, options: Any) -> Sequence[Shape | None] | None:
    image, size = read[0].shape, read[1].values
    if image is None or size is None:
        return None
    return [[image[0], size[0], size[1], image[3]]]


def _gathered(read: Sequence[Any], written: Any, options: Any) -> Sequence[Shape | None] | None:
    table, indices = read[0].shape, read[1].shape
    if table is None or indices is None or options is None or options.batchDims:
        return None
    axis = options.axis + (len(table) if options.axis < 0 else 0)
    return [[*table[:axis], *indices, *table[axis + 1 :]]]


def _matrices(read: Sequence[Any], written: Any, options: Any) -> Sequence[Shape | None] | None:
    left, right = read[0].shape, read[1].shape
    if left is None or right is None or len(left) < 2 or len(right) < 2:
        return None
    left = [*left[:-2], *(left[:-3:-1] if options.adjX else left[-2:])]
    right = [*right[:-2], *(right[:-3:-1] if options.adjY else right[-2:])]
    if left[-1] != right[-2]:
        raise ValueError(f"BATCH_MATMUL of {left} and {right}")
    stack = np.broadcast_shapes(tuple(left[:-2]), tuple(right[:-2]))
    return [[*map(int, stack), left[-2], right[-1]]]


def _rules() -> dict[str, tuple[int, Rule]]:
    """{operator: (operands that must be there, what it writes)}"""
    rules: dict[str, tuple[int, Rule]] = dict.fromkeys([*_UNARY, "QUANTIZE", "DEQUANTIZE", "CAST",
        "SOFTMAX", "LOG_SOFTMAX", "L2_NORMALIZATION"], (1, _same))  # fmt: skip
    rules |= dict.fromkeys([*_BINARY, "EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS",
        "LESS_EQUAL", "PRELU"], (2, _broadcast))  # fmt: skip
    rules |= dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), (2, _convolution))
    rules |= dict.fromkeys(("MAX_POOL_2D", "AVERAGE_POOL_2D", "L2_POOL_2D"), (1, _pool))
    rules |= dict.fromkeys(("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE",
        "REVERSE_V2"), (1, _as_many))  # fmt: skip
    rules |= dict.fromkeys(
        ("SLICE", "STRIDED_SLICE", "UNPACK", "ARG_MAX", "ARG_MIN"), (1, _no_more)
    )
    rules |= dict.fromkeys(("SPLIT", "SPLIT_V"), (2, _parts))
    rules |= dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "REDUCE_ANY",
        "REDUCE_ALL"), (2, _reduced))  # fmt: skip
    rules |= dict.fromkeys(("PAD", "PADV2"), (2, _padded))
    rules |= dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), (2, _resized))
    return rules | {
        "TRANSPOSE_CONV": (3, _transposed), "FULLY_CONNECTED": (2, _dense), "SELECT_V2": (3, _broadcast),
        "CONCATENATION": (1, _concatenated), "PACK": (1, _packed), "TRANSPOSE": (2, _transpose),
        "GATHER": (2, _gathered), "BATCH_MATMUL": (2, _matrices),
    }  # fmt: skip


_UNARY = ("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "LOGISTIC", "TANH", "HARD_SWISH", "GELU", "ELU",
    "LEAKY_RELU", "ABS", "NEG", "EXP", "LOG", "SQRT", "RSQRT", "SQUARE", "FLOOR", "CEIL", "ROUND", "SIN",
    "COS", "SIGN", "ZEROS_LIKE")  # fmt: skip
_BINARY = ("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE", "POW", "FLOOR_DIV",
    "FLOOR_MOD")  # fmt: skip
_ONE_TYPE = {*_UNARY, *_BINARY, "MAX_POOL_2D", "AVERAGE_POOL_2D", "CONCATENATION", "PACK"}
_RULES = _rules()
_BYTES = {
    schema.TensorType.FLOAT32: 4,
    schema.TensorType.INT32: 4,
    schema.TensorType.INT64: 8,
    schema.TensorType.FLOAT64: 8,
    schema.TensorType.INT16: 2,
    schema.TensorType.FLOAT16: 2,
}
