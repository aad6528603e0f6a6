"""One training step for each Keras backend; everything above speaks `keras.ops` alone.

A backend's module has three functions:

    train_step(model, data)             # a step of a `training.DistillationModel`
    call_numpy(function, x, shape)      # a Python function in the middle of the graph
    replicas()                          # how many devices share a batch
"""

import importlib

import keras

_BACKENDS = ("tensorflow",)


def _of_backend(name: str):
    backend = keras.backend.backend()
    if backend not in _BACKENDS:
        raise NotImplementedError(
            f"Distillation trains on the {' or '.join(_BACKENDS)} backend, and Keras runs on '{backend}': "
            "set KERAS_BACKEND=tensorflow before Keras is imported. The losses run on every backend."
        )
    return getattr(importlib.import_module(f"{__name__}.{backend}"), name)


def train_step(model, data):
    """Run one step of `model` on `data`; return its logs."""
    return _of_backend("train_step")(model, data)


def call_numpy(function, x, shape):
    """Return `function(x)`, computed by Python on NumPy arrays, as a float32 tensor of `shape`."""
    return _of_backend("call_numpy")(function, x, shape)


def replicas() -> int:
    """Return the number of devices that share a batch under the current distribution strategy."""
    return _of_backend("replicas")()
