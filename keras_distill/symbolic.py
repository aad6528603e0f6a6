"""What a model would compute, found out without computing it.

    specs = input_specs(model)                       # keras.KerasTensors of its inputs, or None
    symbolically(lambda x: model(x), specs)          # the KerasTensors of its outputs

Nothing stays behind: variables, seeds and losses of the model are as before. It takes as long as tracing the
model once.
"""

from collections.abc import Callable
from typing import Any

import keras


class _Pass(keras.Operation):
    """A function as a Keras operation: the public way to Keras's own inference of shapes."""

    def __init__(self, function: Callable):
        super().__init__(name="symbolic_pass")
        self._function = function

    def call(self, inputs):
        return self._function(inputs)


def symbolically(function: Callable, inputs):
    """Return `function(inputs)` as KerasTensors, in whatever structure the tensors come."""
    return _Pass(function).compute_output_spec(inputs)


def input_specs(model: keras.Model) -> Any:
    """Return KerasTensors of the model's inputs, the batch unknown; None for a model that has seen no input.

    A functional model has them; another tells the shape that it was built with.
    """
    if getattr(model, "inputs", None):
        inputs = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
        return keras.tree.map_structure(any_batch, inputs)
    shape = (model.get_build_config() or {}).get("input_shape")
    if not model.built or shape is None:
        return None
    return keras.tree.map_shape_structure(lambda one: keras.KerasTensor((None, *one[1:])), shape)


def any_batch(tensor) -> keras.KerasTensor:
    """Return what `tensor` looks like for a batch of any size."""
    shape = (None, *tensor.shape[1:]) if len(tensor.shape) > 0 else ()
    return keras.KerasTensor(shape, keras.backend.standardize_dtype(tensor.dtype))
