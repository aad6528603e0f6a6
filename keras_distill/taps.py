"""Values from inside a network, taken in the one forward pass that is made anyway.

For as long as a recording lasts, the `call` (or the `activation`) of the tapped layers also notes what it
returns. The model itself, functional, nested or subclassed, is not changed:

    taps = {"features": Tap(find_layer(model, "mobilenetv2/block_6_expand_relu"))}
    with recording(taps) as recorded:
        outputs = model(images, training=True)
    recorded["features"]            # [tensor], one for each time that the layer was called
"""

import contextlib
import dataclasses
import difflib
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import keras


@dataclasses.dataclass(frozen=True)
class Tap:
    """A place in a network.

    Args:
        layer: the layer (or Keras operation) to listen to.
        at: `"output"`, `"input"` (its first argument), or `"activation"`: what goes into `layer.activation`.
    """

    layer: Any
    at: Literal["output", "input", "activation"] = "output"


@contextlib.contextmanager
def recording(taps: Mapping[str, Tap]) -> Iterator[dict[str, list]]:
    """Within this context, collect under each key what passes the tap, in the order of the calls."""
    recorded: dict[str, list] = {key: [] for key in taps}
    with contextlib.ExitStack() as stack:
        for key, tap in taps.items():
            stack.enter_context(_listening(tap, recorded[key].append))
        yield recorded


@contextlib.contextmanager
def _listening(tap: Tap, note) -> Iterator[None]:
    attribute = "activation" if tap.at == "activation" else "call"
    original = getattr(tap.layer, attribute)

    @functools.wraps(original)
    def listen(*args, **kwargs):
        if tap.at != "output":
            note(args[0] if args else next(iter(kwargs.values())))
        result = original(*args, **kwargs)
        if tap.at == "output":
            note(result)
        return result

    # Past Keras's own __setattr__, which would track what is only there for one pass.
    own = attribute in vars(tap.layer)
    object.__setattr__(tap.layer, attribute, listen)
    try:
        yield
    finally:
        if own:
            object.__setattr__(tap.layer, attribute, original)
        else:
            object.__delattr__(tap.layer, attribute)


def find_layer(model: keras.Model, path: str) -> keras.Layer:
    """Return the layer of `model` that `path` names; `"inner_model/layer"` reaches into nested models.

    Raises:
        ValueError: there is none; the sentence lists the nearest names that exist.
    """
    layer: Any = model
    for name in path.split("/"):
        layer = next((inner for inner in _inner(layer) if inner.name == name), None)
        if layer is None:
            names = layer_paths(model)
            near = difflib.get_close_matches(path, names, n=5, cutoff=0.4) or names[-5:]
            raise ValueError(
                f"Model '{model.name}' has no layer '{path}'. The nearest names are: {', '.join(near)}."
            )
    return layer


def all_layers(model: keras.Model) -> list[keras.Layer]:
    """Return `model` and every layer in it, those of nested models included."""
    return [model, *(one for layer in _inner(model) for one in all_layers(layer))]


def all_built(model: keras.Model) -> bool:
    """Whether `model` and all layers in it have their weights."""
    return all(layer.built for layer in all_layers(model))


def layer_paths(model: keras.Model, prefix: str = "") -> list[str]:
    """Return the path of every layer of `model`, those of nested models included."""
    paths = []
    for layer in _inner(model):
        paths.append(prefix + layer.name)
        paths.extend(layer_paths(layer, f"{prefix}{layer.name}/"))
    return paths


def _inner(layer) -> list[keras.Layer]:
    """Its layers; a layer of somebody else's may call a number or a dict of them `layers`."""
    inner = getattr(layer, "layers", [])
    inner = inner.values() if isinstance(inner, dict) else inner
    inner = inner if isinstance(inner, Iterable) else []
    return [one for one in inner if isinstance(one, keras.Layer)]
