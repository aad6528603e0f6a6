"""Models of Keras 2, for Keras 3: the same network where Keras 3 can build it, else run by tf_keras.

model, reason = modernized(tf_keras.models.load_model("vww_96.h5", compile=False))
model.layers           # a keras.Model with the same answers; None where there is none, for `reason`

Mostly the configurations differ: Keras 2 wrote down arguments that Keras 3 does not know (`groups` of a
DepthwiseConv2D, `time_major` of an LSTM). They are left out where they say what Keras 3 does anyway. No
configuration shows that `hard_sigmoid` has another slope now, so both models then answer one batch.
"""

import copy
import inspect
from typing import Any

import keras
import numpy as np

# What a trained layer's answer does not depend on: how it is computed, trained or was first built.
_NO_MATTER = ("implementation", "input_length", "rng_type", "vocabulary_size")
_NO_MATTER_ENDS = ("_initializer", "_regularizer", "_constraint", "_shape")
_RENAMED = {
    ("LeakyReLU", "alpha"): "negative_slope",
    ("InputLayer", "batch_input_shape"): "batch_shape",
}
_MODELS = {"Functional": keras.Model, "Model": keras.Model, "Sequential": keras.Sequential}
_TOLERANCE = 1e-4


class _Untranslatable(ValueError):
    """Something of Keras 2 that Keras 3 does not have."""


def modernized(old) -> tuple[keras.Model | None, str]:
    """Return a `keras.Model` with the layers, weights and answers of the tf_keras model `old`.

    Returns:
        The model and "", or None and why Keras 3 cannot build it: half a sentence, without a full stop.
    """
    try:
        entry = _translated({"class_name": type(old).__name__, "config": old.get_config()})
        kind = _MODELS.get(entry["class_name"])
        if kind is None:
            raise _Untranslatable(f"{entry['class_name']} is a class of its own")
        new = kind.from_config(entry["config"])
        _copy_weights(old, new)
    except _Untranslatable as error:
        return None, str(error)
    except Exception as error:  # Keras 3 has many ways to refuse a configuration
        return None, f"Keras 3 does not build it ({_first_line(error)})"
    try:
        difference = _difference(old, new)
    except Exception as error:
        return None, f"it could not be compared with tf_keras ({_first_line(error)})"
    if not difference <= _TOLERANCE:
        return None, f"built by Keras 3, it answers otherwise (by {difference:.2g} on one batch)"
    return new, ""


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__


def _translated(entry: dict) -> dict:
    """A layer or model as Keras 3 reads it; everything inside too."""
    name, given = entry["class_name"], entry["config"]
    kept = {key: entry[key] for key in ("name", "inbound_nodes") if key in entry}
    if name in _MODELS:
        if "layers" not in given:
            raise _Untranslatable(
                f"the model '{given.get('name')}' does not say what it is made of"
            )
        config = copy.deepcopy(
            {**given, "layers": [_translated(layer) for layer in given["layers"]]}
        )
        _rename_layers_and_calls(config)
        return {"module": "keras", "class_name": _MODELS[name].__name__, "config": config, **kept}
    if not hasattr(keras.layers, name):
        raise _Untranslatable(f"Keras 3 has no layer {name}")
    config = _known_arguments(name, {key: _inside(value) for key, value in given.items()})
    return {"module": "keras.layers", "class_name": name, "config": config, **kept}


def _inside(value: Any) -> Any:
    """An argument; layers have layers in theirs (wrappers, cells)."""
    if isinstance(value, list | tuple):
        return [_inside(one) for one in value]
    if not isinstance(value, dict):
        return value
    if value.get("class_name") in ("Policy", "PolicyV1"):
        return value["config"]["name"]
    if "config" in value and (
        value.get("module") == "keras.layers" or value["class_name"] in _MODELS
    ):
        return _translated(value)
    return {key: _inside(one) for key, one in value.items()}


def _known_arguments(name: str, config: dict) -> dict:
    """The arguments that the layer has in Keras 3.

    Raises:
        _Untranslatable: one of the others matters.
    """
    import tf_keras

    known = _parameters(getattr(keras.layers, name))
    before = _parameters(getattr(tf_keras.layers, name))
    kept = {}
    for argument, value in config.items():
        now = _RENAMED.get((name, argument), argument)
        default = before.get(argument)
        if now in known:
            one_axis = argument == "axis" and isinstance(value, list) and len(value) == 1
            kept[now] = value[0] if one_axis else value
        elif not (
            argument in _NO_MATTER
            or argument.endswith(_NO_MATTER_ENDS)
            or value == default
            or not (value or default)
        ):
            raise _Untranslatable(
                f"{name} '{config.get('name')}' has {argument}={value!r}, which Keras 3 does not know"
            )
    return kept


def _parameters(layer: type) -> dict[str, Any]:
    """Argument → default, of all constructors that a layer's class passes its arguments on to."""
    found: dict[str, Any] = {}
    for one in layer.__mro__:
        if "__init__" in vars(one):
            parameters = inspect.signature(vars(one)["__init__"]).parameters.values()
            found = {**{parameter.name: parameter.default for parameter in parameters}, **found}
            if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
                break
    return found


def _rename_layers_and_calls(config: dict) -> None:
    """Bring the graph of a functional model up to date, in place.

    Names have no slash in Keras 3, and a list of one tensor is not that tensor. And in Keras 2, a model that
    knows its input counts as called once before its first call in another one; Keras 3 sees to that in the
    outputs of the other one, but not within it.
    """
    for key in ("input_layers", "output_layers"):
        if isinstance(config.get(key), list) and len(config[key]) == 1:
            config[key] = config[key][0]
    for layer in config["layers"]:
        layer["config"]["name"] = _plain(layer["config"]["name"])
        if "inbound_nodes" not in layer:  # of a Sequential
            continue
        inside = list(
            _references([one["inbound_nodes"] for one in config["layers"]], layer["name"])
        )
        outside = list(
            _references([config["input_layers"], config["output_layers"]], layer["name"])
        )
        if layer["module"] == "keras":
            first = min((call[1] for call in inside + outside), default=0)
            for call in inside + (outside if layer["class_name"] == "Sequential" else []):
                call[1] -= first
        layer["name"] = _plain(layer["name"])
        for call in inside + outside:
            call[0] = layer["name"]


def _plain(name: str) -> str:
    return name.replace("/", "_")


def _references(value: Any, name: str):
    """All lists [name, call, output] and [name, call, output, arguments]."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        if len(value) in (3, 4) and value[0] == name and isinstance(value[1], int):
            yield value
        for one in value:
            yield from _references(one, name)


def _copy_weights(old, new) -> None:
    """Layer by layer: the order of a whole model's weights depends on which layers are trainable."""
    pairs = list(zip(_leaves(old), _leaves(new), strict=True))
    for before, after in pairs:
        if _plain(before.name) != _plain(after.name):
            raise _Untranslatable(f"layer '{before.name}' is not where it was")
        if before.weights:
            after.set_weights(before.get_weights())
        if hasattr(
            after, "finalize_state"
        ):  # of Normalization: it computes with what its weights say
            after.finalize_state()


def _leaves(model):
    """Layers that are no models, without inputs: Keras 2's Sequential does not count its own."""
    for layer in model.layers:
        if hasattr(layer, "layers") and hasattr(layer, "get_layer"):
            yield from _leaves(layer)
        elif type(layer).__name__ != "InputLayer":
            yield layer


def _difference(old, new) -> float:
    """The largest difference of the two models' answers to one random batch, relative to their size."""
    import tensorflow as tf

    rng = np.random.default_rng(0)

    def example(tensor):
        open_size = 96 if len(tensor.shape) == 4 else 16
        shape = [2 if tensor.shape[0] is None else tensor.shape[0]]
        shape += [size or open_size for size in tensor.shape[1:]]
        if tensor.dtype == tf.string:
            return tf.fill(shape, "a")
        if (
            tensor.dtype.is_integer or tensor.dtype.is_bool
        ):  # words and classes: 0 and 1 always exist
            return tf.cast(rng.integers(0, 2, shape), tensor.dtype)
        return tf.cast(rng.uniform(0, 1, shape), tensor.dtype)

    inputs = tf.nest.map_structure(example, old.input)
    answers = [tf.nest.flatten(model(inputs, training=False)) for model in (old, new)]
    differences = [0.0]
    for first, second in zip(*answers, strict=True):
        first, second = (np.asarray(one, "float64") for one in (first, second))
        if first.shape != second.shape:
            return float("inf")
        differences.append(float(np.max(np.abs(first - second)) / max(1.0, np.max(np.abs(first)))))
    for layer in [*_leaves(old), *_leaves(new)]:
        if getattr(layer, "stateful", False) and hasattr(layer, "reset_states"):
            layer.reset_states()
        elif getattr(layer, "stateful", False) and hasattr(layer, "reset_state"):
            layer.reset_state()
    return max(differences)
