"""The layers of a model by name: those of nested models and of custom layers included.

    find_layer(model, "mobilenetv2/block_6_expand_relu")    # in a model in the model
    find_layer(model, "block/dense")                        # in a custom layer, or in its lists and dicts
    [path for path, layer in named_layers(model)]           # all of them

A layer that is shared has several paths. A name is the layer's own, not that of the attribute that holds it.
The operations of a functional model, such as the `x + y` of a residual block, have names too: "add_3".
"""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from typing import Any

import keras


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a layer is: its path, and the path of the layer that runs it in a loop, if there is one."""

    path: str
    layer: keras.Operation
    loop: str | None


def find_layer(model: keras.Model, path: str) -> keras.Operation:
    """Return the layer or operation of `model` that `path` names; `"outer/inner"` is `inner` in `outer`.

    Raises:
        ValueError: there is none (the sentence lists the nearest names that exist), there are several of
            this name side by side, or it runs in a loop, which no tensor can leave.
    """
    places = list(_places(model))
    found = [place for place in places if place.path == path]
    if not found:
        near = _nearest(path, [place.path for place in places if place.loop is None])
        raise ValueError(
            f"Model '{model.name}' has no layer '{path}'. The nearest names are: {', '.join(near)}."
        )
    if len({id(place.layer) for place in found}) > 1:
        raise ValueError(
            f"Model '{model.name}' has {len(found)} layers '{path}' side by side: give each its own name=."
        )
    if found[0].loop is not None:
        raise ValueError(
            f"Layer '{path}' of model '{model.name}' is run in a loop by '{found[0].loop}', and what is "
            f"computed in a loop cannot be used outside of it: name '{found[0].loop}' itself."
        )
    return found[0].layer


def named_layers(model: keras.Model) -> list[tuple[str, keras.Layer]]:
    """Return (path, layer) of every layer in `model`, in the order in which the model holds them."""
    layers = [(place.path, place.layer) for place in _places(model)]
    return [(path, layer) for path, layer in layers if isinstance(layer, keras.Layer)]


def reachable(model: keras.Model) -> list[tuple[str, keras.Operation]]:
    """Return (path, layer or operation) of everything that `find_layer` finds in `model`, each once."""
    layers: dict[int, tuple[str, keras.Operation]] = {}
    for place in _places(model):
        if place.loop is None:
            layers.setdefault(id(place.layer), (place.path, place.layer))
    return list(layers.values())


def all_layers(model: keras.Model) -> list[keras.Layer]:
    """Return `model` and every layer in it."""
    return [model, *(layer for _, layer in named_layers(model))]


def all_built(model: keras.Model) -> bool:
    """Whether `model` and all layers in it have their weights."""
    # A vocabulary is no weight; Keras never builds the one in a TextVectorization.
    return all(layer.built or hasattr(layer, "save_assets") for layer in all_layers(model))


def held_layers(layer: keras.Operation) -> list[keras.Layer]:
    """Return the layers that `layer` holds itself: `model.layers`, or what its attributes hold."""
    return [one for one in _held(layer) if isinstance(one, keras.Layer)]


def _held(layer) -> list[keras.Operation]:
    """The same, and the operations of a functional model."""
    if isinstance(layer, keras.Model):
        held = getattr(layer, "operations", layer.layers)
    else:
        held = _layers_in(vars(layer))
    return list({id(one): one for one in held}.values())


def _layers_in(value: Any) -> Iterator[keras.Layer]:
    if isinstance(value, keras.Layer):
        yield value
    elif isinstance(value, Mapping | list | tuple | set):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _layers_in(one)


def _places(layer, prefix="", loop=None, above=()) -> Iterator[_Place]:
    above = (*above, layer)
    for inner in _held(layer):
        if any(inner is one for one in above):  # a layer may know the one that holds it
            continue
        path = prefix + inner.name
        inside = prefix.removesuffix("/") if _loops(layer, inner) else None
        inner_loop = inside if loop is None else loop
        yield _Place(path, inner, inner_loop)
        yield from _places(inner, f"{path}/", inner_loop, above)


def _loops(layer, inner) -> bool:
    """Whether `layer` runs `inner` once for each time step."""
    if isinstance(layer, keras.layers.RNN):
        return inner is layer.cell
    return isinstance(layer, keras.layers.TimeDistributed) and inner is layer.layer


def _nearest(path: str, paths: list[str]) -> list[str]:
    """Up to five of `paths`: those that end in the same name first, then those that are spelled alike."""
    ends: dict[str, list[str]] = {}
    for one in paths:
        ends.setdefault(one.rpartition("/")[2], []).append(one)
    name = path.rpartition("/")[2]
    near = ends.get(name, []) + difflib.get_close_matches(path, paths, n=5, cutoff=0.6)
    for end in difflib.get_close_matches(name, ends, n=5, cutoff=0.6):
        near += ends[end]
    return list(dict.fromkeys(near))[:5] or paths[-5:]
