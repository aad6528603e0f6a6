"""Which layers a model runs, in which order, and which reads what another wrote.

    for call in trace(model).calls:
        print(call.layer.name, call.reads, call.writes, call.inside)

The model is traced once and nothing is computed. Functional, nested and subclassed models are seen alike;
the operations of a functional model (`x + y`) count as layers. What a layer returns as it was given, as
`Dropout` outside of training, keeps its number, so that its reader is seen to read what was before it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from tflite_export.signature import Signature


@dataclass(frozen=True)
class LayerCall:
    """One call of one layer.

    Attributes:
        layer: a `keras.Layer`, or an operation of a functional model.
        reads, writes: numbers of the float tensors that go in and come out.
        inside: the layers that it called itself.
        masked: whether it was given a mask.
        fills: whether it was given a constant other than 0 to fill in, which may be beyond all that goes in.
        computes: whether it computes something itself between the layers that it calls.
        whole: whether it makes one place of all that a picture has.
    """

    layer: Any
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    inside: tuple[Any, ...] = ()
    masked: bool = False
    fills: bool = False
    computes: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Trace:
    """The calls of one pass, each after those that it holds, and the tensors at the model's ends.

    Attributes:
        computes: whether the model computes something itself between the layers that it calls.
    """

    calls: tuple[LayerCall, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    computes: bool = False


def trace(model: Any, input_shape: Any = None) -> Trace:
    """Run `model` once on symbols.

    Raises:
        ValueError: the sizes of its input are not known (see `Signature.of`).
    """
    import tensorflow as tf

    signature = Signature.of(model, input_shape, batch_size=1)
    calls: list[LayerCall] = []
    root = _Running()
    running = [root]
    alive: dict[int, Any] = {}  # a tensor that is gone may lend its id to another

    def numbers(structure: Any) -> tuple[int, ...]:
        tensors = [t for t in keras.tree.flatten(structure) if is_float(t)]
        if any(id(t) not in alive and _is_computed(t) for t in tensors):
            running[-1].computes = True
        alive.update((id(t), t) for t in tensors)
        return tuple(map(id, tensors))

    def note(layer: Any, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        running[-1].inside.append(layer)
        reads = numbers((args, kwargs))
        running.append(_Running())
        try:
            result = original(*args, **kwargs)
            writes = numbers(result)
        finally:
            this = running.pop()
        masked = kwargs.get("mask") is not None
        if isinstance(layer, keras.layers.Softmax) and len(args) > 1:
            masked = masked or args[1] is not None
        fills = bool(np.any(np.asarray(kwargs.get("constant_values") or 0) != 0))
        inside, computes = tuple(this.inside), this.computes and bool(this.inside)
        whole = _is_whole(layer, args[0] if args else None, result)
        calls.append(LayerCall(layer, reads, writes, inside, masked, fills, computes, whole))
        return result

    ends: list[tuple[int, ...]] = []

    def run(*flat: Any) -> None:
        calls.clear()  # TensorFlow traces twice where variables are made
        ends.clear()
        entered = numbers(flat)
        root.computes = False
        outputs = signature.call(flat)
        ends.extend((entered, numbers(outputs)))

    specs = [tf.TensorSpec(one.shape, one.dtype) for one in signature.inputs]
    with contextlib.ExitStack() as stack:
        for layer in layers_and_operations(model):
            if layer is not model:
                call = functools.partial(note, layer, layer.call)
                stack.enter_context(replaced(layer, "call", call))
        tf.function(run, autograph=False).get_concrete_function(*specs)
    inputs, outputs = ends
    return Trace(tuple(calls), inputs, outputs, root.computes)


@dataclass
class _Running:
    """What is known of a call before it ends."""

    inside: list[Any] = field(default_factory=list)
    computes: bool = False


def _is_whole(layer: Any, given: Any, result: Any) -> bool:
    pool = getattr(layer, "pool_size", None)
    return pool is not None and tuple(given.shape[1:-1]) == pool and set(result.shape[1:-1]) == {1}


def _is_computed(tensor: Any) -> bool:
    """Whether it is neither a constant nor a variable as it is."""
    kind = getattr(getattr(tensor, "op", None), "type", None)  # values outside of a graph have none
    return kind not in (None, "Const", "ReadVariableOp")


def is_float(value: Any) -> bool:
    """Whether it is a tensor of floats."""
    return hasattr(value, "shape") and "float" in str(getattr(value, "dtype", ""))


def layers_and_operations(model: Any) -> list[Any]:
    """Every layer in `model`, those in layers too, and the operations of functional models."""
    found = list(model._flatten_layers())  # layers inside of layers are in no public list
    for layer in tuple(found):
        found += [one for one in getattr(layer, "operations", ()) if one not in found]
    return list({id(one): one for one in found}.values())


def paths(model: Any) -> dict[int, str]:
    """The name of each layer, by `id`: `"outer/inner"` for a layer in a layer."""
    named: dict[int, str] = {}

    def visit(holder: Any, prefix: str) -> None:
        held = list(getattr(holder, "operations", ()))
        held += holder._flatten_layers(include_self=False, recursive=False)
        for one in {id(h): h for h in held}.values():
            if id(one) not in named:
                named[id(one)] = prefix + one.name
                if isinstance(one, keras.Layer):
                    visit(one, f"{prefix}{one.name}/")

    visit(model, "")
    return named


@contextlib.contextmanager
def replaced(layer: Any, attribute: str, value: Any) -> Iterator[None]:
    """Within this context `layer.attribute` is `value`, past what Keras does when one sets attributes."""
    own = attribute in vars(layer)
    before = vars(layer).get(attribute)
    object.__setattr__(layer, attribute, value)
    try:
        yield
    finally:
        if own:
            object.__setattr__(layer, attribute, before)
        else:
            object.__delattr__(layer, attribute)
