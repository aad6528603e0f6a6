"""The `.tflite` file itself: a flatbuffer that is read, checked, given names and written again.

    model = read(Path("student.tflite").read_bytes())
    for operator in operators(model):
        print(operator.name, operator.input_types, operator.output_types)

Needs LiteRT's schema (`ai_edge_litert`) and `flatbuffers`; neither TensorFlow nor Keras.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.damage import TYPE_NAMES, check, operator_name

SIGNATURE = "serving_default"


def read(content: bytes, name: str = "this file") -> Any:
    """The model's object tree (`ModelT`), after checking that every index in it points somewhere.

    Raises:
        ValueError: the file is no TFLite file, is cut off, or points outside itself.
    """
    if len(content) < 16:
        raise ValueError(f"{name} is not a TFLite file, or cut off: it has {len(content)} bytes.")
    if content[4:8] != b"TFL3":
        raise ValueError(
            f"{name} is not a TFLite file: its bytes 4 to 8 should be b'TFL3' and are "
            f"{bytes(content[4:8])!r} ({len(content)} bytes in all)."
        )
    try:
        _require_room(content)
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        _bring_in_buffers(model, content)
        check(model)
    # A broken offset shows as whatever the reader stumbles over.
    except (
        struct.error, IndexError, KeyError, TypeError, ValueError, AttributeError, OverflowError,
        MemoryError, RecursionError,
    ) as error:  # fmt: skip
        raise ValueError(
            f"{name} is a damaged TFLite file ({error}): it is cut off or was changed. "
            "Write or download it again."
        ) from None
    return model


def _require_room(content: bytes) -> None:
    """Offsets may point to one place many times over: a small file could unfold to more than fits in
    memory. A file holds each of its tables, and each name, in a place of its own."""
    model = schema.Model.GetRootAs(content, 0)
    room = len(content)

    def take(count: int) -> None:
        nonlocal room
        room -= count
        if room < 0:
            raise ValueError("it refers to more than it holds")

    def each(parent: Any, what: str) -> Iterator[Any]:
        count = getattr(parent, f"{what}Length")()
        take(8 * count)  # an offset, and a table of at least an offset
        return (getattr(parent, what)(i) for i in range(count))

    take(8 * model.BuffersLength())
    for code in each(model, "OperatorCodes"):
        take(len(code.CustomCode() or b""))
    for entry in each(model, "Metadata"):
        take(len(entry.Name() or b""))
    for signature in each(model, "SignatureDefs"):
        take(len(signature.SignatureKey() or b""))
        for what in ("Inputs", "Outputs"):
            for entry in each(signature, what):
                take(len(entry.Name() or b""))
    for graph in each(model, "Subgraphs"):
        take(len(graph.Name() or b"") + 8 * graph.OperatorsLength())
        for tensor in each(graph, "Tensors"):
            take(len(tensor.Name() or b""))
            for _ in each(tensor, "VariantTensors"):
                pass
            if tensor.Sparsity() is not None:
                take(8 * tensor.Sparsity().DimMetadataLength())


def _bring_in_buffers(model: Any, content: bytes) -> None:
    """Big files keep their weights behind the flatbuffer; an offset of 0 or 1 means that they don't."""
    for buffer in model.buffers or []:
        if (buffer.offset or 0) > 1:
            end = buffer.offset + buffer.size
            if end > len(content):
                raise ValueError(f"a buffer ends at byte {end} of {len(content)}")
            buffer.data = np.frombuffer(content, "uint8", buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0


class _Builder(flatbuffers.Builder):
    """Weights start at multiples of 16 bytes, as the schema asks (`force_align`): interpreters on
    microcontrollers and vector kernels read them in place. The generated Python code forgets it."""

    def CreateNumpyVector(self, x: np.ndarray) -> int:
        if x.dtype != np.uint8 or not x.size:
            return super().CreateNumpyVector(x)
        self.StartVector(1, x.size, 16)
        self.head = self.Head() - x.size
        self.Bytes[self.Head() : self.Head() + x.size] = x.tobytes()
        self.vectorNumElems = x.size
        return self.EndVector()


def write(model: Any) -> bytes:
    """The flatbuffer of an object tree."""
    builder = _Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def text(name: Any) -> str:
    """A name of the flatbuffer as `str`."""
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name or "")


def with_names(model: Any, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """Gives the main subgraph's inputs and outputs these names, in order, in one signature.

    A frozen graph is converted without a signature, and its outputs are called "Identity_3"; a
    SavedModel's signature sorts its names. So the names are written here, into the file: into the
    signature as they are, and at the tensors with a number behind those that would occur twice.
    """
    graph = model.subgraphs[0]
    wished: dict[int, str] = {}
    taken = {*inputs, *outputs}
    for index, name in zip([*graph.inputs, *graph.outputs], [*inputs, *outputs], strict=True):
        own, count = name, 0
        # An output may be called like an input; quantisers look tensors up by name.
        while own in wished.values() or (count and own in taken):
            count += 1
            own = f"{name}_{count}"
        wished.setdefault(int(index), own)
    taken |= set(wished.values())
    for index, tensor in enumerate(graph.tensors):
        if index in wished:
            tensor.name = wished[index]
        elif text(tensor.name) in taken:
            tensor.name = f"{text(tensor.name)}/inner_{index}"
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = SIGNATURE, 0
    signature.inputs = [_entry(n, i) for n, i in zip(inputs, graph.inputs, strict=True)]
    signature.outputs = [_entry(n, i) for n, i in zip(outputs, graph.outputs, strict=True)]
    model.signatureDefs = [signature]
    return model


def with_own_outputs(model: Any, names: Sequence[str], for_integers: bool = False) -> Any:
    """Gives each output a tensor of its own, by a reshape to the same shape.

    A model may return one tensor twice, or one of its inputs. Such a tensor has one name and one type,
    and two outputs need two.

    Args:
        for_integers: also where an operator goes on from an output; litert-quantizer 0.11 gives the
            output back its float type and forgets the one who reads it.

    Raises:
        ValueError: such an output has several open sizes, which a reshape cannot keep.
    """
    graph = model.subgraphs[0]
    outputs = [int(i) for i in graph.outputs]
    taken = {int(i) for i in graph.inputs}
    if for_integers:
        taken |= {int(i) for o in graph.operators or [] for i in o.inputs}
        taken |= {i for i in outputs if outputs.count(i) > 1}
    for place, index in enumerate(outputs):
        if index in taken:
            outputs[place] = _reshaped(model, index, names[place])
        taken.add(index)
    graph.outputs = outputs
    return model


def _reshaped(model: Any, index: int, name: str) -> int:
    graph = model.subgraphs[0]
    source = graph.tensors[index]
    shape = np.array([-1 if d is None else d for d in shape_of(source)], "int32")
    if (shape < 0).sum() > 1:
        raise ValueError(
            f"Output {name!r} is another output or an input once more, with the open sizes "
            f"{shape_of(source)}: return it once, or export with fixed sizes."
        )
    sizes = added_constant(model, graph, f"{name}/shape", shape)
    result = schema.TensorT()
    result.name, result.type, result.shape = f"{name}/again", source.type, source.shape
    result.shapeSignature, result.buffer = source.shapeSignature, len(model.buffers)
    model.buffers.append(schema.BufferT())
    graph.tensors.append(result)
    operator = schema.OperatorT()
    operator.opcodeIndex = added_code(model, schema.BuiltinOperator.RESHAPE, 1)
    operator.inputs, operator.outputs = [index, sizes], [len(graph.tensors) - 1]
    operator.builtinOptionsType = schema.BuiltinOptions.ReshapeOptions
    operator.builtinOptions = schema.ReshapeOptionsT()
    operator.builtinOptions.newShape = shape
    graph.operators = [*(graph.operators or []), operator]
    return len(graph.tensors) - 1


def added_constant(model: Any, graph: Any, name: str, values: Sequence[int] | np.ndarray) -> int:
    """The number of a new tensor of `graph` that holds these whole numbers, as int32."""
    array = np.asarray(values, "<i4")
    tensor = schema.TensorT()
    tensor.name, tensor.type = name, schema.TensorType.INT32
    tensor.shape, tensor.buffer = np.array(array.shape, "int32"), len(model.buffers)
    model.buffers.append(schema.BufferT())
    model.buffers[-1].data = np.frombuffer(array.tobytes(), "uint8")
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def added_code(model: Any, builtin: int, version: int) -> int:
    """The number of a new entry for a builtin operator, which operators refer to."""
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    code.version = version
    model.operatorCodes = [*(model.operatorCodes or []), code]
    return len(model.operatorCodes) - 1


def _entry(name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, int(index)
    return entry


@dataclass(frozen=True)
class Operator:
    """One operator of the file: its name and the types of what it reads and writes."""

    name: str
    input_types: tuple[str, ...]
    output_types: tuple[str, ...]


def operators(model: Any) -> Iterator[Operator]:
    """All operators of all subgraphs, in the order in which they run."""
    for graph in model.subgraphs:
        for operator in graph.operators or []:
            code = model.operatorCodes[operator.opcodeIndex]
            name = operator_name(code)
            if name == "CUSTOM":
                name = f"CUSTOM {text(code.customCode)}"

            def types(indices: Any, graph: Any = graph) -> tuple[str, ...]:
                present = [] if indices is None else [i for i in indices if i >= 0]
                return tuple(TYPE_NAMES[graph.tensors[i].type] for i in present)

            yield Operator(name, types(operator.inputs), types(operator.outputs))


def kinds(model: Any) -> Iterator[str]:
    """What a runtime must have to run each operator: "CONV_2D int8×int8×int32→int8, by channel".

    The types are those of what it reads and writes; of weights that a DEQUANTIZE unpacks, those in the file,
    as delegates take them. "by channel" and "by block" where those have scales of their own; "in rows" is a
    dense layer that keeps the dimensions of its input.
    """
    described = operators(model)
    for graph in model.subgraphs:
        packed = _packed(model, graph)
        for operator, one in zip(graph.operators or [], described, strict=False):
            read = [packed.get(i, i) for i in map(int, _listed(operator.inputs)) if i >= 0]
            types = "×".join(TYPE_NAMES[graph.tensors[i].type] for i in read)
            kind = f"{one.name} {types}→{'×'.join(one.output_types)}"
            quantizations = [graph.tensors[i].quantization for i in read]
            if any(q is not None and np.size(q.scale) > 1 for q in quantizations):
                kind += ", by channel"
            if any(
                isinstance(getattr(q, "details", None), schema.BlockwiseQuantizationT)
                for q in quantizations
            ):
                kind += ", by block"
            if getattr(operator.builtinOptions, "keepNumDims", False):
                kind += ", in rows"
            yield kind


def versions(model: Any) -> Iterator[tuple[str, int]]:
    """The name and version of each operator that runs."""
    for graph in model.subgraphs:
        for operator in graph.operators or []:
            code = model.operatorCodes[operator.opcodeIndex]
            yield operator_name(code), int(code.version or 1)


def _packed(model: Any, graph: Any) -> dict[int, int]:
    """{tensor that a DEQUANTIZE makes of a constant: the constant}"""
    found = {}
    for operator in graph.operators or []:
        code = model.operatorCodes[operator.opcodeIndex]
        if operator_name(code) == "DEQUANTIZE":
            source = int(operator.inputs[0])
            data = model.buffers[graph.tensors[source].buffer].data
            if data is not None and len(data):
                found[int(operator.outputs[0])] = source
    return found


def _listed(values: Any) -> Sequence[Any]:
    return [] if values is None else values


@dataclass(frozen=True)
class Maker:
    """What made an output: an operator's name, and the step in which its result is stored (None: floats)."""

    name: str | None = None
    step: float | None = None


def maker(model: Any, tensor: int, through: Sequence[str] = ()) -> Maker:
    """Who makes a tensor of the main graph; nobody where it is an input, or the operator has an activation.

    Args:
        tensor: its number.
        through: operators that are looked through, to what they read, where the last axis stays.
    """
    graph = model.subgraphs[0]
    names = [operator.name for operator in operators(model)][: len(graph.operators or [])]
    for operator, name in zip(graph.operators or [], names, strict=True):
        if tensor not in [int(i) for i in operator.outputs]:
            continue
        if name in through:
            before = int(operator.inputs[0])
            classes = [shape_of(graph.tensors[one])[-1:] for one in (before, tensor)]
            return maker(model, before, through) if classes[0] == classes[1] else Maker()
        fused = getattr(operator.builtinOptions, "fusedActivationFunction", 0)
        quantization = graph.tensors[tensor].quantization
        scale = None if quantization is None else quantization.scale
        step = float(scale[0]) if scale is not None and len(scale) == 1 else None
        return Maker(None if fused else name, step)
    return Maker()


def constant(model: Any, tensor: Any) -> np.ndarray | None:
    """A copy of the float32 values that the file holds for a tensor; None where it holds none."""
    data = model.buffers[tensor.buffer].data
    if data is None or not len(data) or tensor.type != schema.TensorType.FLOAT32:
        return None
    values = np.frombuffer(bytearray(np.asarray(data, "uint8")), "<f4")
    return values.reshape(np.asarray(tensor.shape, int))


def shape_of(tensor: Any) -> tuple[int | None, ...]:
    """The tensor's shape; None where the size may change."""
    shape = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
    return tuple(None if d < 0 else int(d) for d in (() if shape is None else np.asarray(shape)))
