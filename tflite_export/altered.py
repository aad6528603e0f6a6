"""Models that are a student's own layers, some of which do more than in the student.

    class Pruned(Altered): …        # its kernels are seen without their smallest weights
    student = strip(pruned)         # the plain student again, trained

What `quantize_aware`, `prune` and `cluster` make. Layers keep their names, so that taps, callbacks and
`get_layer` find them; what is added are calls and variables.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
from keras import ops

from tflite_export.signature import Signature


class Altered(keras.Model):
    """A model with the layers of a student.

    Args:
        student: a model of its own, which nobody else uses; see `copy_of`.
    """

    def __init__(self, student: Any, name: str | None = None):
        inputs, outputs = _ends(student)
        super().__init__(inputs=inputs, outputs=outputs, name=name or student.name)
        self.keep("_student", student)

    def keep(self, name: str, value: Any) -> None:
        """Set an attribute past Keras, which would count layers in it a second time."""
        object.__setattr__(self, name, value)

    def stripped(self) -> Any:
        """The student with its trained weights, as a model of its own."""
        return copy_of(self._student)

    def get_config(self) -> dict[str, Any]:
        return {"student": keras.saving.serialize_keras_object(self._student), "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        others = {name: value for name, value in config.items() if name != "student"}
        student = keras.saving.deserialize_keras_object(config["student"], custom_objects)
        return cls(student, **others)


def strip(model: Altered) -> Any:
    """The plain float student with the trained weights, of what `quantize_aware`, `prune` or `cluster` made.

    Weights that are pruned are 0 in it, and those of a cluster are equal.
    """
    if not isinstance(model, Altered):
        raise ValueError(
            "strip takes what quantize_aware, prune or cluster made, and a "
            f"{type(model).__name__} was given."
        )
    return model.stripped()


@contextlib.contextmanager
def seen(layer: Any, values: Mapping[str, Callable[[Any], Any]]) -> Iterator[None]:
    """Within this context `layer` sees its variables through functions, whichever way it uses them.

    Args:
        values: {attribute of the layer: a function of that variable's value}.
    """
    # An outer scope's values, as they are when a file is made, count inside too.
    mapping = {id(v): (v, ops.convert_to_tensor(v)) for v in layer.variables}
    for attribute, function in values.items():
        variable = getattr(layer, attribute)
        mapping[id(variable)] = (variable, function(ops.convert_to_tensor(variable)))
    with keras.StatelessScope(list(mapping.values())):
        yield


def copy_of(model: Any) -> Any:
    """A model of the same kind with copies of the weights.

    Raises:
        ValueError: it is no model; a subclassed one that does not say how it is made again.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"A keras.Model is wanted, and a {type(model).__name__} was given.")
    copy = _copy_of_model(model, {})
    copy.set_weights(model.get_weights())
    for ours, theirs in zip(_layers(model), _layers(copy), strict=True):
        theirs.trainable = ours.trainable  # nested models have it in no config
    return copy


def _layers(model: Any) -> list[Any]:
    return list(
        model._flatten_layers()
    )  # outer ones first; layers inside of layers are in no public list


def _copy_of_model(model: Any, made: dict[int, Any]) -> Any:
    """`made`: copies by the `id` of the original, for a layer that several models hold is one layer."""

    def copied(layer: Any) -> Any:
        if id(layer) not in made:
            is_model = isinstance(layer, keras.Model)
            made[id(layer)] = _copy_of_model(layer, made) if is_model else _copy_of_layer(layer)
        return made[id(layer)]

    if isinstance(model, keras.Sequential) or getattr(model, "inputs", None):
        return keras.models.clone_model(model, clone_function=copied)
    try:
        copy = type(model).from_config(model.get_config())
    except (NotImplementedError, TypeError) as error:
        raise ValueError(
            f"{model.name!r} cannot be copied: its class {type(model).__name__} does not say how it is made "
            "again. Give it a get_config() that returns the arguments of its __init__ (as saving it needs "
            f"too), or make it a functional model. Keras says: {str(error).strip().splitlines()[0]}"
        ) from error
    copy.build_from_config(model.get_build_config())
    copy.name = model.name  # Keras's config lacks it where a class has no get_config of its own
    return copy


def _copy_of_layer(layer: Any) -> Any:
    if type(layer) is keras.layers.Lambda:  # by its config a lambda loses the names around it
        shape = getattr(layer, "_output_shape", None)  # it has no public name
        copy = keras.layers.Lambda(
            layer.function, output_shape=shape, mask=layer.mask, arguments=layer.arguments
        )
    else:
        copy = type(layer).from_config(layer.get_config())
    copy.name = layer.name
    return copy


def _ends(student: Any) -> tuple[Any, Any]:
    if isinstance(student, keras.Sequential):
        return student.inputs[0], student.outputs[0]
    if getattr(student, "inputs", None):
        return student.input, student.output
    signature = Signature.of(student, batch_size=None)
    inputs = [keras.Input(i.shape[1:], dtype=i.dtype, name=i.name) for i in signature.inputs]
    return inputs, signature.call(inputs)
