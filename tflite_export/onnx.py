"""A Keras model as an ONNX file, compared with Keras in ONNX Runtime before anybody gets it.

    made = export_onnx(student, "student.onnx", data=test)
    made.opset, made.max_error          # 18, 3.6e-07
    made.inputs, made.outputs           # names of the model, "batch" for the first size

The traced model goes through tf2onnx, as in Keras's own `model.export(format="onnx")`; that refuses a
model that was loaded or built and never called, names outputs "Identity:0", writes files that hold
operators ONNX lacks, and compares nothing. Needs `pip install keras-distill[onnx]`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tflite_export import representative
from tflite_export.chatter import hushed
from tflite_export.convert import ConversionError, float32_policies
from tflite_export.signature import ModelInput
from tflite_export.traced import Traced, require_close, trace
from tflite_export.whole_file import write_whole

OPSET = 18  # the newest that tf2onnx 1.17 writes
LARGEST = 2**31 - 1  # a protobuf is no larger


@dataclass(frozen=True)
class ExportedOnnx:
    """A file that `export_onnx` wrote.

    Attributes:
        path: of the file.
        size_bytes: its size.
        opset: the version of ONNX's operators that it needs.
        inputs, outputs: names, shapes (None where any size goes, as in the batch) and types.
        max_error: the largest difference between ONNX Runtime and Keras on the examples.
    """

    path: Path
    size_bytes: int
    opset: int
    inputs: tuple[ModelInput, ...]
    outputs: tuple[ModelInput, ...]
    max_error: float

    def __fspath__(self) -> str:
        return str(self.path)


def export_onnx(
    model: Any,
    path: str | os.PathLike[str],
    data: Any = None,
    *,
    opset: int = OPSET,
    input_shape: Any = None,
    num_examples: int = 8,
    tolerance: float = 1e-4,
) -> ExportedOnnx:
    """Exports a Keras model as an ONNX file with an open batch.

    Args:
        model: functional, sequential, nested, or subclassed and called once. Layers of a
            mixed-precision model compute in float32 in the file.
        path: of the file; one that exists is replaced when the new one is whole.
        data: examples in the form that the model takes, in the forms that `export` takes a
            representative data set in; the first `num_examples` are compared, as one batch and one
            alone. Random numbers by default (0 or 1 for integers), where all sizes are known.
        opset: the version of ONNX's operators.
        input_shape: see `export`.
        tolerance: the largest difference to Keras, relative to the largest answer above 1.

    Raises:
        ValueError: sizes or names are not known, or ONNX Runtime answers otherwise than Keras;
            nothing is written then.
        ConversionError: the model has operations that ONNX lacks.
        ImportError: onnx, onnxruntime or tf2onnx is missing.
    """
    onnx, runtime, tf2onnx = _packages()
    with float32_policies(model):
        traced = trace(model, input_shape, "export_onnx")
        outputs = _named_outputs(traced)
        examples = _examples(data, traced, num_examples)
        proto = _converted(tf2onnx, onnx, traced, outputs, model, opset)
        content = proto.SerializeToString()
        if len(content) > LARGEST:
            raise ValueError(
                f"{model.name!r} is {len(content):,} bytes as ONNX, and one file holds {LARGEST:,}."
            )
        error = _compared(runtime, content, traced, outputs, examples, tolerance)
    return ExportedOnnx(
        path=write_whole(path, content),
        size_bytes=len(content),
        opset=next(o.version for o in proto.opset_import if o.domain == ""),
        inputs=traced.inputs,
        outputs=outputs,
        max_error=error,
    )


def _named_outputs(traced: Traced) -> tuple[ModelInput, ...]:
    """ONNX has one name space: an output that is called like an input gets another name."""
    taken = {i.name for i in traced.inputs}
    found = []
    for one in traced.outputs:
        name = one.name
        while name in taken:
            name += "_out"
        taken.add(name)
        found.append(dataclasses.replace(one, name=name))
    return tuple(found)


def _packages() -> tuple[Any, Any, Any]:
    try:
        import onnx
        import onnxruntime
        import tf2onnx.convert
    except ImportError as error:
        raise ImportError(
            f"export_onnx converts with tf2onnx and checks with onnxruntime, and {error.name} is "
            "missing: pip install 'keras-distill[onnx]'."
        ) from error
    return onnx, onnxruntime, tf2onnx


def _converted(
    tf2onnx: Any, onnx: Any, traced: Traced, outputs: Sequence[ModelInput], model: Any, opset: int
) -> Any:
    import tensorflow as tf

    newest = max(tf2onnx.constants.OPSET_TO_IR_VERSION)
    if not isinstance(opset, int) or not 9 <= opset <= newest:
        raise ValueError(f"opset={opset!r}: tf2onnx writes 9 to {newest}.")
    strings = [e.name for e in (*traced.inputs, *traced.outputs) if e.dtype == "string"]
    if strings:
        raise ConversionError(
            f"{strings} of {model.name!r} are strings, which ONNX's operators hardly take: export "
            "the part behind the lookup, which takes integers."
        )
    specs = [tf.TensorSpec(i.shape, i.dtype, name=f"edge_{n}") for n, i in enumerate(traced.inputs)]

    def answer(*arguments: Any) -> list[Any]:
        answers = traced.function(*arguments)
        return [tf.identity(answers[o.name]) for o in traced.outputs]

    with hushed(), _quiet("tf2onnx"):
        proto, _ = tf2onnx.convert.from_function(
            tf.function(answer, autograph=False),
            specs,
            opset=opset,
            custom_op_handlers={"Erfc": (_erfc, [])},
        )
    missing = sorted(
        {node.op_type for node in _nodes(proto.graph) if not _exists(onnx, node, opset)}
    )
    if missing:
        advice = "write that layer with other operations, or cut it off and compute it outside."
        if any("FakeQuant" in name for name in missing):
            advice = "a quantisation-aware model is exported as te.strip(model), in floats."
        raise ConversionError(
            f"{model.name!r} needs {', '.join(map(repr, missing))}, and ONNX has no such operator: "
            + advice
        )
    _name_edges(proto.graph, traced.inputs, outputs)
    onnx.checker.check_model(proto)
    return proto


def _erfc(graph: Any, node: Any, name: str, _: Any) -> None:
    """1 - erf(x), which an exact GELU needs and tf2onnx lacks."""
    kind, shape = graph.get_dtype(node.output[0]), graph.get_shape(node.output[0])
    outputs = node.output
    graph.remove_node(node.name)
    one = graph.make_const(f"{name}_one", np.ones((), "float32")).output[0]
    erf = graph.make_node("Erf", [node.input[0]], dtypes=[kind], shapes=[shape]).output[0]
    graph.make_node("Sub", [one, erf], outputs=outputs, name=name, dtypes=[kind], shapes=[shape])


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _exists(onnx: Any, node: Any, opset: int) -> bool:
    if node.domain not in ("", "ai.onnx"):
        return onnx.defs.has(node.op_type, node.domain)
    return onnx.defs.has(node.op_type, max_inclusive_version=opset)


def _name_edges(graph: Any, inputs: Sequence[ModelInput], outputs: Sequence[ModelInput]) -> None:
    """The model's own names, and "batch" for the size that all of them share."""
    names: dict[str, str] = {}
    for values, edges in ((graph.input, inputs), (graph.output, outputs)):
        for value, edge in zip(values, edges, strict=True):
            names[value.name] = edge.name
    # A value inside that has such a name by chance makes room.
    names |= {name: f"{name}_inside" for name in set(names.values()) - set(names)}

    def rename(strings: Any) -> None:
        strings[:] = [names.get(s, s) for s in strings]

    for node in _nodes(graph):
        rename(node.input)
        rename(node.output)
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = names.get(value.name, value.name)
    for values, edges in ((graph.input, inputs), (graph.output, outputs)):
        for value, edge in zip(values, edges, strict=True):
            sizes = value.type.tensor_type.shape.dim
            if edge.shape and edge.shape[0] is None and len(sizes):
                sizes[0].dim_param = "batch"


def _examples(data: Any, traced: Traced, count: int) -> list[Mapping[str, np.ndarray]]:
    if data is not None or count < 1:
        return list(
            representative.read(
                data, traced.signature.inputs, count, called="data", counted="num_examples"
            )
        )
    rng = np.random.default_rng(0)
    examples: list[Mapping[str, np.ndarray]] = []
    for _ in range(count):
        example = {}
        for one in traced.signature.inputs:
            if None in one.shape[1:]:
                raise ValueError(
                    f"Input {one.name!r} has the open sizes {one.shape[1:]}: pass data= with some "
                    "examples, on which ONNX Runtime is compared with Keras."
                )
            shape = (1, *(int(size or 1) for size in one.shape[1:]))
            values = rng.normal(size=shape) if "float" in one.dtype else rng.integers(0, 2, shape)
            example[one.name] = values.astype(one.dtype)
        examples.append(example)
    return examples


def _compared(
    runtime: Any,
    content: bytes,
    traced: Traced,
    outputs: Sequence[ModelInput],
    examples: Sequence[Mapping[str, np.ndarray]],
    tolerance: float,
) -> float:
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [i.name for i in traced.signature.inputs]
    first = examples[0]
    alike = [e for e in examples if all(e[n].shape == first[n].shape for n in names)]
    batches = [first, {n: np.concatenate([e[n] for e in alike]) for n in names}]
    largest = 0.0
    for batch in [*batches, *(e for e in examples if not any(e is a for a in alike))]:
        want = traced.keras_answers(batch)
        fed = {
            served.name: batch[own].astype(served.dtype)
            for served, own in zip(traced.inputs, names, strict=True)
        }
        have = session.run([o.name for o in outputs], fed)
        largest = max(largest, require_close("ONNX Runtime", want, have, tolerance))
    return largest


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """tf2onnx logs what it cannot convert; here that is an error of its own."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
