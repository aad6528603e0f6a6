"""A Keras 3 model as a float `.tflite`, by way of one frozen graph.

    content = convert(model).content

`TFLiteConverter.from_keras_model` writes a SavedModel first, and that takes most of its time. Here
the model is traced once, with its weights as constants and a static batch, and that graph is
converted, 7 times as fast for MobileNetV2 (benchmarks/export_speed.py). A frozen graph loses the
names of inputs and outputs; `flatbuffer.with_names` writes them into the file, in the model's order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from tflite_export import flatbuffer
from tflite_export.chatter import hushed
from tflite_export.normalization import Normalization
from tflite_export.signature import ModelInput, Signature, output_names, require_tensorflow, wide


class ConversionError(ValueError):
    """The model holds something that TFLite's builtin operators do not have."""


@dataclass(frozen=True)
class FloatModel:
    """A float flatbuffer and what it takes."""

    content: bytes
    inputs: tuple[ModelInput, ...]
    output_names: tuple[str, ...]


@dataclass(frozen=True)
class Pixels:
    """An input that takes raw pixels, which the graph normalises by itself.

    Attributes:
        normalization: what the graph does to them.
        dtype: "float32" where a quantiser turns the input into integers later; "uint8" or "int8"
            (pixel - 128) for an integer input in front of a float graph.
    """

    normalization: Normalization
    dtype: str = "float32"


def convert(
    model: Any,
    batch_size: int | None = 1,
    input_shape: Any = None,
    pixels: Mapping[str, Pixels] | None = None,
    for_integers: bool = False,
) -> FloatModel:
    """Converts to floats, builtin operators only.

    Args:
        batch_size: static batch; None leaves it open, which costs speed on phones.
        input_shape: see `Signature.of`.
        pixels: inputs, by name, that take raw pixels instead of normalised ones.
        for_integers: see `flatbuffer.with_own_outputs`.

    Raises:
        ConversionError: an operator is missing in TFLite; names the layer.
        ValueError: the input's sizes are not known, or Keras runs on another backend.
    """
    import tensorflow as tf

    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: give 1 or more, or None for an open batch.")
    require_tensorflow("export")
    signature = Signature.of(model, input_shape, batch_size)
    pixels = pixels or {}
    inputs = [_retyped(i, pixels) for i in signature.inputs]

    def computed(arguments: Sequence[Any]) -> Any:
        return signature.call(
            [
                normalised(a, pixels[i.name]) if i.name in pixels else a
                for i, a in zip(signature.inputs, arguments, strict=True)
            ]
        )

    concrete, names = frozen(model, inputs, computed)
    content = _flatbuffer(tf, concrete, model)
    model_tree = flatbuffer.with_own_outputs(flatbuffer.read(content), names, for_integers)
    named = flatbuffer.with_names(model_tree, [i.name for i in inputs], names)
    return FloatModel(flatbuffer.write(named), tuple(inputs), tuple(names))


def frozen(
    model: Any, inputs: Sequence[ModelInput], computed: Callable[[Sequence[Any]], Any]
) -> tuple[Any, list[str]]:
    """The graph of `computed`, which runs `model` on a flat list of tensors, and its outputs' names.

    The model's weights are constants in it: nothing is left to freeze, and nothing can be written to.
    """
    import tensorflow as tf

    names: list[str] = []
    values = [(v, v.numpy()) for v in model.variables]

    def run(*arguments: Any) -> list[Any]:
        with keras.StatelessScope([(v, tf.constant(value)) for v, value in values]):
            outputs = computed(arguments)
        names[:] = output_names(model, outputs)
        return [_edge(tf, t) for t in keras.tree.flatten(outputs)]

    specs = [tf.TensorSpec(i.shape, i.dtype, name=f"input_{n}") for n, i in enumerate(inputs)]
    with float32_policies(model):
        return tf.function(run, autograph=False).get_concrete_function(*specs), names


def _retyped(one: ModelInput, pixels: Mapping[str, Pixels]) -> ModelInput:
    if one.name in pixels:
        return ModelInput(one.name, one.shape, pixels[one.name].dtype)
    return ModelInput(one.name, one.shape, wide(one.dtype))


def _edge(tf: Any, tensor: Any) -> Any:
    tensor = tf.convert_to_tensor(tensor)
    return tf.identity(tf.cast(tensor, wide(tensor.dtype.name)))


def normalised(x: Any, pixels: Pixels) -> Any:
    """(x - mean) / std as a depthwise 1×1 convolution; normalization.py says why."""
    import tensorflow as tf

    x = tf.cast(x, tf.float32)
    if pixels.dtype == "int8":
        x = x + 128.0
    channels = x.shape[-1]
    if pixels.dtype != "float32":  # a float graph: plain arithmetic is exact
        return (x - list(pixels.normalization.mean)) / list(pixels.normalization.std)
    mean, std = (
        [v[0]] * channels if len(v) == 1 else list(v)
        for v in (pixels.normalization.mean, pixels.normalization.std)
    )
    shape, image = tf.shape(x) if None in x.shape else x.shape, x.shape.rank == 4
    if not image:
        x = tf.reshape(x, [-1, 1, 1, channels])
    weights = tf.reshape(tf.constant([1 / s for s in std], tf.float32), [1, 1, channels, 1])
    x = tf.nn.depthwise_conv2d(x, weights, strides=[1, 1, 1, 1], padding="VALID")
    x = tf.nn.bias_add(x, tf.constant([-m / s for m, s in zip(mean, std, strict=True)], tf.float32))
    return x if image else tf.reshape(x, shape)


def _flatbuffer(tf: Any, concrete: Any, model: Any) -> bytes:
    try:
        with hushed():
            arguments, captured = _inputs(concrete)
            # Variables that Keras does not know and large tensors: TensorFlow freezes. Small ones
            # are constants of the graph already.
            if any(t.op.type != "Const" for t in captured):
                converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], model)
                converter.experimental_lower_to_saved_model = False
            else:
                # The public converter that takes a graph as it is; its name says "v1".
                converter = tf.compat.v1.lite.TFLiteConverter(
                    concrete.graph.as_graph_def(), arguments, concrete.outputs
                )
            return converter.convert()
    except Exception as error:
        raise explained(error, concrete.graph.as_graph_def(), model) from error


def _inputs(concrete: Any) -> tuple[list[Any], list[Any]]:
    """The tensors of the arguments, and those of what the function found around it."""
    count = len(concrete.inputs) - len(concrete.captured_inputs)
    return concrete.inputs[:count], concrete.inputs[count:]


class float32_policies:
    """Within the block the layers of a mixed-precision model compute in float32, as the file will:
    TFLite has no half-precision kernels on CPU, and the weights are float32 already."""

    def __init__(self, model: Any):
        # Layers inside layers are in no public list.
        self._layers = [
            layer
            for layer in model._flatten_layers()
            if layer.compute_dtype != layer.variable_dtype and layer.quantization_mode is None
        ]
        self._policies = [layer.dtype_policy for layer in self._layers]

    def __enter__(self) -> None:
        for layer in self._layers:
            layer.dtype_policy = layer.variable_dtype

    def __exit__(self, *_: Any) -> None:
        for layer, policy in zip(self._layers, self._policies, strict=True):
            layer.dtype_policy = policy


def explained(error: Exception, graph: Any, model: Any) -> Exception:
    """The converter's error in terms of the model's layers, where it says which operator failed."""
    narrow = {layer.compute_dtype for layer in model._flatten_layers()} & _OTHER_FLOATS
    if narrow:
        return ConversionError(
            f"Layers of {model.name!r} keep their weights in {_listed(narrow)}, and TFLite computes "
            "in float32: make the model again under keras.config.set_dtype_policy('float32'), give "
            "it these weights (set_weights(model.get_weights())), and export that."
        )
    message = str(error)
    missing = {
        name.removeprefix("Flex")
        for names in re.findall(r"^(?:Flex|Custom|TF Select) ops: (.+)$", message, re.MULTILINE)
        for name in re.split(r",\s*", names.strip())
    }
    places = re.findall(r'error: loc\((?:fused\["\w+:", )?"([^"]+)"', message)
    if missing and not places:
        places = [node.name for node in _nodes(graph) if node.op in missing]
    if not missing and not places:
        return error
    layers = sorted({_layer_of(node, model) or f"{node} (in no layer)" for node in places})
    details = re.findall(r"^\s+(tf\.\w+\(.*?\) -> \(.*?\))", message, re.MULTILINE)
    return ConversionError(
        f"{model.name!r} needs {_listed(missing) or 'something'} in {_listed(layers)}, and TFLite "
        "has no builtin operator for that"
        + (f" ({'; '.join(details[:3])})" if details else "")
        + ": write that layer with other operations, or cut it off and compute it outside the file."
    )


_OTHER_FLOATS = {"float16", "bfloat16", "float64"}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names)))


def _nodes(graph: Any) -> Iterator[Any]:
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def _layer_of(node: str, model: Any) -> str | None:
    """The innermost layer whose name is a part of the node's name, written as a path."""
    path: list[str] = []
    here = model
    for part in node.split("/"):
        found = _child(here, part)
        if found is not None:
            path.append(found.name)
            here = found
    return "/".join(path) or None


def _child(layer: Any, scope: str) -> Any:
    layers: Sequence[Any] = layer._flatten_layers(include_self=False, recursive=False)
    by_name = {child.name: child for child in layers}
    # A scope that is entered a second time gets a number.
    return by_name.get(scope) or by_name.get(re.sub(r"_\d+$", "", scope))
