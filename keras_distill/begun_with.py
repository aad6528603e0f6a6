"""What a training was begun with, in words that JSON has: the same goes on, another one is refused.

now = {"epochs": 30, **describe({"student": student, "x": x, "optimizer": "adam"})}
differences(then, now)          # ["epochs was 20, is now 30"]

Arrays are known by their content, data sets by the shapes and the number of their batches, networks that are
to be trained by their layers, and other objects by their configs. Names and seeds in these say nothing: Keras
counts the ones up and draws the others.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_distill.layer_tree import all_layers
from keras_distill.teachers import Teacher

_LONGEST = 80  # characters of a description; the rest is told by a digest
_CHANGING = ("name", "seed")


def describe(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return each value as a number, None, or a line of text."""
    return {name: _line(_described(value)) for name, value in values.items()}


def describe_teacher(teacher) -> str | None:
    """Return a teacher as a line of text: a network with its weights, others by their fingerprints."""
    if isinstance(teacher, Teacher):
        return _line(teacher.fingerprint())
    if not isinstance(teacher, keras.Model):
        return _line(_described(teacher))
    digest = hashlib.blake2b(digest_size=4)
    for weight in teacher.weights:  # `variables` holds the random seeds too
        digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return f"{type(teacher).__name__} with the weights {digest.hexdigest()}"


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs, as "epochs was 20, is now 30"."""
    return [
        f"{name} was {_words(then.get(name))}, is now {_words(now.get(name))}"
        for name in {**then, **now}
        if then.get(name) != now.get(name)
    ]


def _words(value) -> str:
    return "not given" if value is None else str(value)


def _line(found):
    if found is None or isinstance(found, bool | int | float):
        return found
    text = found if isinstance(found, str) else json.dumps(found, sort_keys=True)
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST]}… ({_digest(text)})"


def _described(value):
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, keras.Model):
        return f"{type(value).__name__} {_digest(_layers(value))}"
    if isinstance(value, Mapping):
        return {str(key): _described(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_described(one) for one in value]
    if hasattr(value, "element_spec"):
        return f"{value.element_spec}, {_batches(value)} batches"
    if hasattr(value, "get_config"):
        return [type(value).__name__, _config(value)]
    if hasattr(value, "__array__") and hasattr(value, "shape"):
        return _array(value)
    return getattr(value, "__qualname__", type(value).__name__)


def _layers(network: keras.Model) -> list:
    """The layers. No shapes of weights: a network that waits for its first batch has none yet."""
    parts = [one for one in all_layers(network) if not isinstance(one, keras.Model)]
    return [[type(one).__name__, _config(one)] for one in parts]


def _config(value):
    try:
        return _described(_lasting(value.get_config()))
    except NotImplementedError:  # a layer of the user's own that was not written to be saved
        return None


def _lasting(config):
    """A config without what is new in each process; inputs and losses may well be called so."""
    if isinstance(config, Mapping):
        return {key: _lasting(one) for key, one in config.items() if key not in _CHANGING}
    if isinstance(config, list | tuple):
        return [_lasting(one) for one in config]
    return config


def _array(array) -> str:
    array = np.asarray(array)
    if array.dtype.hasobject:  # strings
        array = array.astype(str)
    content = hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=4).hexdigest()
    return f"{array.dtype} {array.shape} {content}"


def _batches(dataset):
    return int(dataset.cardinality()) if hasattr(dataset, "cardinality") else None


def _digest(described) -> str:
    text = described if isinstance(described, str) else json.dumps(described, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
