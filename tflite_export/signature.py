"""What goes into a Keras model and comes out of it: names, shapes, types, in the model's order.

    signature = Signature.of(model)
    [i.name for i in signature.inputs]                # ["photo", "age"]

A name that someone chose stays: `Input(name="photo")`, a dict's key, `Dense(10, name="logits")`.
Names that Keras counts up ("keras_tensor_12", "dense_3") differ from run to run, and become "input"
and "output", or "input_0", "input_1", … where there are several.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras


def require_tensorflow(what: str) -> None:
    """Raises ValueError where Keras runs on another backend; `what` is the caller, for the sentence."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"{what} traces the model with TensorFlow, and Keras runs on {keras.backend.backend()}: save the "
            "model, and call it in a process with KERAS_BACKEND=tensorflow."
        )


def wide(dtype: str) -> str:
    """The type in which files and servers give floats of this one: all are float32."""
    return "float32" if dtype in ("float16", "bfloat16", "float64") else dtype


@dataclass(frozen=True)
class ModelInput:
    """One input tensor; None in `shape` (batch included) where any size goes."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class Signature:
    """The inputs of a model, and how to call it on a flat list of them."""

    inputs: tuple[ModelInput, ...]
    call: Callable[[Sequence[Any]], Any]

    @classmethod
    def of(
        cls,
        model: Any,
        input_shape: Any = None,
        batch_size: int | None = 1,
        open_sizes: bool = False,
    ) -> Signature:
        """The signature of `model`.

        Args:
            input_shape: sizes without the batch, where the model does not know them or leaves
                some open: a tuple, or a list or dict of tuples in the form the model is called. A
                `keras.InputSpec` or `keras.KerasTensor` (with the batch) in a tuple's place says
                the type too, which a subclassed model does not know: "float32" otherwise.
            batch_size: the batch in every shape.
            open_sizes: let sizes that the model leaves open stay open, as servers do.

        Raises:
            ValueError: the sizes are not known.
        """
        if not isinstance(model, keras.Model):
            raise ValueError(f"export takes a keras.Model, and a {type(model).__name__} was given.")
        specs, call = _specs(model)
        if input_shape is not None:
            specs, call = _with_shape(model, specs, call, input_shape)
        elif specs is None:
            raise ValueError(
                f"The sizes of {model.name!r}'s input are not known: call the model once on an "
                "example batch, or pass input_shape=, for example input_shape=(96, 96, 3)."
            )
        inputs = []
        for name, shape, dtype in specs:
            if dtype == "string" and not open_sizes:
                raise ValueError(
                    f"Input {name!r} of {model.name!r} takes strings, and a file here takes numbers: no "
                    "builtin operator splits text or looks up words. Export the part behind those layers, "
                    "keras.Model(tokens, outputs), and make the tokens in the app."
                )
            if input_shape is None and None in shape[1:] and not open_sizes:
                raise ValueError(
                    f"Input {name!r} of {model.name!r} has the open sizes {shape}, and a file that "
                    "phones run fast has fixed ones: pass input_shape=, for example "
                    f"input_shape={tuple(96 if d is None else d for d in shape[1:])}."
                )
            inputs.append(ModelInput(name, (batch_size, *shape[1:]), dtype))
        return cls(tuple(inputs), call)


_Spec = tuple[str, tuple[int | None, ...], str]


def _specs(model: Any) -> tuple[list[_Spec] | None, Callable[[Sequence[Any]], Any]]:
    def symbolic(structure: Any) -> bool:
        return all(hasattr(t, "shape") for t in keras.tree.flatten(structure))

    structure = None
    if getattr(model, "inputs", None):
        # A Sequential's `input` is there only after it was called inside another model.
        structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    if structure is not None and symbolic(structure):
        paths = keras.tree.flatten_with_path(structure)
        names = _distinct([_chosen(path, t.name) for path, t in paths], "input")
        specs = [
            (n, tuple(t.shape), keras.backend.standardize_dtype(t.dtype))
            for n, (_, t) in zip(names, paths, strict=True)
        ]
        return specs, lambda flat: model(_pack(structure, flat), training=False)
    # A subclassed model tells the shapes that it was built with.
    config = model.get_build_config() or {}
    if config.get("input_shape") is not None:
        return _from_shapes(model, config["input_shape"])
    if "shapes_dict" in config:
        arguments = {k.removesuffix("_shape"): v for k, v in config["shapes_dict"].items()}
        specs = [(name, tuple(shape), _dtype(model)) for name, shape in arguments.items()]
        return specs, lambda flat: model(**dict(zip(arguments, flat, strict=True)), training=False)
    return None, lambda flat: model(flat[0], training=False)


def _from_shapes(model: Any, shapes: Any) -> tuple[list[_Spec], Callable[[Sequence[Any]], Any]]:
    """`shapes` with the batch: a tuple of sizes or what has shape and dtype, or a list or dict."""

    def sizes(node: Any) -> bool:
        return hasattr(node, "shape") or (
            isinstance(node, (list, tuple)) and all(d is None or isinstance(d, int) for d in node)
        )

    def spec(name: str, node: Any) -> _Spec:
        dtype = getattr(node, "dtype", None)
        dtype = _dtype(model) if dtype is None else keras.backend.standardize_dtype(dtype)
        return name, tuple(getattr(node, "shape", node)), dtype

    structure: dict[str, None] | list[Any] | None
    if sizes(shapes):
        named, structure = [("input", shapes)], None
    elif isinstance(shapes, dict):
        named, structure = sorted(shapes.items()), dict.fromkeys(sorted(shapes))
    else:
        names = _distinct([None] * len(shapes), "input")
        named, structure = list(zip(names, shapes, strict=True)), list(shapes)
    specs = [spec(name, node) for name, node in named]

    def call(flat: Sequence[Any]) -> Any:
        if structure is None:
            return model(flat[0], training=False)
        packed = (
            dict(zip(structure, flat, strict=True)) if isinstance(structure, dict) else list(flat)
        )
        return model(packed, training=False)

    return specs, call


def _with_shape(model: Any, specs: Any, call: Any, input_shape: Any) -> Any:
    def batched(node: Any) -> Any:
        if hasattr(node, "shape"):
            return node
        if isinstance(node, dict):
            return {k: batched(v) for k, v in node.items()}
        if node and (isinstance(node[0], (list, tuple)) or hasattr(node[0], "shape")):
            return [batched(v) for v in node]
        return (None, *node)

    given, given_call = _from_shapes(model, batched(input_shape))
    if specs is None:
        return given, given_call
    if len(given) != len(specs):
        raise ValueError(f"The model has {len(specs)} inputs and input_shape= {len(given)}.")
    by_name = {spec[0]: spec for spec in given}
    given = [by_name.get(n, given[i]) for i, (n, _, _) in enumerate(specs)]
    shapes = [shape for _, shape, _ in given]
    for (name, old, _), new in zip(specs, shapes, strict=True):
        fits = len(old) == len(new) and all(
            o in (None, n) for o, n in zip(old[1:], new[1:], strict=True)
        )
        if not fits:
            raise ValueError(
                f"Input {name!r} has the sizes {old[1:]}; input_shape= says {new[1:]}."
            )
    known = bool(getattr(model, "inputs", None))  # a functional model's types are its own
    return [
        (n, s, d if known else wished)
        for (n, _, d), (_, s, wished) in zip(specs, given, strict=True)
    ], call


def as_called(model: Any, x: Any) -> Any:
    """Data as `model` takes them: a dict by the names of a `Signature` goes to any model.

    Raises:
        ValueError: an input is missing, or an array has other sizes than the input.
    """
    specs, _ = _specs(model)
    if specs is None or not getattr(model, "inputs", None):
        return x  # a subclassed model takes more than the shapes that it was built with
    names = [name for name, _, _ in specs]
    structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    if isinstance(x, dict) and not set(names) <= set(x):
        if set(x) >= {t.name for t in model.inputs}:
            return x
        raise ValueError(f"The data have the inputs {sorted(x)}, and {model.name!r} has {names}.")
    if isinstance(x, dict) and not isinstance(structure, dict):
        x = [x[name] for name in names] if len(names) > 1 else x[names[0]]
    given = [x[n] for n in names] if isinstance(x, dict) else x if len(names) > 1 else [x]
    if not isinstance(given, (list, tuple)):
        raise ValueError(
            f"{model.name!r} has the inputs {names}, and one array was given: give a dict by name, or "
            "the list of them in a tuple, ([a, b],) or ([a, b], y)."
        )
    for (name, shape, _), value in zip(specs, given, strict=False):
        have, want = getattr(value, "shape", None), shape[1:]
        if have is None or 1 in (*want[-1:], *have[-1:]):  # Keras adds and drops a last axis of 1
            continue
        fits = len(have) == len(shape) and all(
            w in (None, h) for w, h in zip(want, have[1:], strict=True)
        )
        if not fits:
            raise ValueError(
                f"Input {name!r} takes (examples, {', '.join(map(str, want))}), and an array of "
                f"shape {tuple(have)} was given; one example goes in as x[None]."
            )
    return x


def output_names(model: Any, outputs: Any) -> list[str]:
    """Names of `outputs` (what the model returned), flat, in the model's order."""
    layers: Sequence[str | None] = getattr(model, "output_names", None) or ()
    if isinstance(model, keras.Sequential):
        layers = [model.layers[-1].name]
    paths = keras.tree.flatten_with_path(outputs)
    if len(layers) != len(paths):
        layers = [None] * len(paths)
    names = []
    for (path, _), layer in zip(paths, layers, strict=True):
        counted = layer is None or _counted(model, layer)
        names.append(_chosen(path, None if counted else layer))
    return _distinct(names, "output")


def _chosen(path: Sequence[Any], name: str | None) -> str | None:
    keys = [p for p in path if isinstance(p, str)]
    if keys:
        return "_".join(keys)
    if name is None or re.fullmatch(r"(keras_tensor|input_layer|input)(_?\d+)?", name):
        return None
    return name


def _counted(model: Any, layer_name: str) -> bool:
    """Whether Keras made this name up from the layer's class."""
    try:
        made_of = type(model.get_layer(layer_name)).__name__
    except ValueError:  # the output of an operation, as in `keras.ops.add`: its name is counted up
        return True
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", made_of).lower()
    return re.fullmatch(rf"{snake.replace('_', '_?')}(_\d+)?", layer_name) is not None


def _distinct(names: Sequence[str | None], what: str) -> list[str]:
    several = len(names) > 1
    result: list[str] = []
    for index, name in enumerate(names):
        wished = name or (f"{what}_{index}" if several else what)
        candidate, count = wished, 1
        while candidate in result:
            candidate, count = f"{wished}_{count}", count + 1
        result.append(candidate)
    return result


def _pack(structure: Any, flat: Sequence[Any]) -> Any:
    return keras.tree.pack_sequence_as(structure, list(flat))


def _dtype(model: Any) -> str:
    return str(getattr(model, "input_dtype", None) or "float32")
