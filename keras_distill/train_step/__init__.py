"""One training step for each Keras backend; everything above speaks `keras.ops` alone.

A backend's module has ten functions:

    train_step(model, data)                   # a step of a `training.DistillationModel`
    building(model, train_function)           # the function of `fit`, which traces the step once
    call_numpy_flat(function, inputs, specs)  # a Python function in the middle of the graph
    required(tensor, condition, sentence)     # the tensor, or an error with the sentence
    gradient_of_input(function, x)            # its slope at x, for attacks on inputs
    read_rows(variable, indices)              # of a table, without reading all of it
    write_rows(variable, indices, rows)       # of a table, in place
    plain_errors()                            # within it, such a function's exceptions come out as they are
    replicas()                                # how many devices share a batch
    usable(tensor)                            # whether it can be used where we are
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


def building(model, train_function):
    """Return `train_function` such that the variables of a step are there before it is traced."""
    return _of_backend("building")(model, train_function)


def call_numpy(function, x, shape):
    """Return `function(x)`, computed by Python on NumPy arrays, as a float32 tensor of `shape`.

    `x` may be a list or dict of tensors; `function` gets the same of arrays.
    """

    def flat(*arrays):
        return [function(keras.tree.pack_sequence_as(x, list(arrays)))]

    return call_numpy_flat(flat, keras.tree.flatten(x), [(shape, "float32")])[0]


def call_numpy_flat(function, inputs, specs):
    """Return the list `function(*inputs)`, computed by Python on NumPy arrays, as tensors of `specs`.

    Args:
        inputs: a list of tensors.
        specs: (shape, dtype) of each output.
    """
    return _of_backend("call_numpy_flat")(function, inputs, specs)


def required(tensor, condition, sentence: str):
    """Return `tensor` where `condition`, a scalar, is true; else the training stops with a ValueError.

    XLA leaves the check out.
    """
    return _of_backend("required")(tensor, condition, sentence)


def gradient_of_input(function, x):
    """Return the gradient of `function(x)`, a scalar, with respect to the tensor `x`."""
    return _of_backend("gradient_of_input")(function, x)


def read_rows(variable, indices):
    """Return the rows `(batch, ...)` of `variable` at `indices` `(batch,)`, without reading the others."""
    return _of_backend("read_rows")(variable, indices)


def write_rows(variable, indices, rows) -> None:
    """Write `rows` `(batch, ...)` into `variable` at `indices` `(batch,)`, without copying the others."""
    _of_backend("write_rows")(variable, indices, rows)


def plain_errors():
    """Return a context in which an exception of a function of `call_numpy` leaves as it was raised."""
    return _of_backend("plain_errors")()


def replicas() -> int:
    """Return the number of devices that share a batch under the current distribution strategy."""
    return _of_backend("replicas")()


def usable(tensor) -> bool:
    """Return whether `tensor` can be used here: not if it was computed in a branch or loop of the graph."""
    return _of_backend("usable")(tensor)
