"""Connectors: small layers that bring a student's features to the width of the teacher's.

Losses make them where widths differ; they are trained with the student and saved with the distiller, and
`distiller.student` has nothing of them:

    Hint("block5_out", "block_12_add")                                      # made if it is needed
    Hint("block5_out", "block_12_add", connector=keras.layers.Dense(512))   # your own
"""

import inspect
import math
from typing import Any

import keras

from keras_distill.layer_tree import held_layers
from keras_distill.symbolic import symbolically


@keras.saving.register_keras_serializable(package="keras_distill")
class Connector(keras.layers.Layer):
    """A linear map of the channels, the same at each position (a 1×1 convolution), and BatchNormalization.

    In: `(batch, positions..., channels)`; out: `(batch, positions..., width)`.

    Args:
        width: the number of channels to bring the features to.
        activation: None, or `"relu"` where the teacher's features cannot be negative.
        **kwargs: as for `keras.layers.Layer`.

    Source: Romero et al. 2015, arXiv 1412.6550 (there without the normalisation).
    """

    def __init__(self, width: int, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.width = width
        self.activation = keras.activations.get(activation)
        # On the last axis alone, Dense is a 1×1 convolution of any number of dimensions.
        self.linear = keras.layers.Dense(width, use_bias=False, name="linear", dtype=self.dtype)
        self.norm = keras.layers.BatchNormalization(epsilon=1e-5, name="norm", dtype=self.dtype)

    def build(self, input_shape):
        """Make the weights."""
        self.linear.build(input_shape)
        self.norm.build(self.compute_output_shape(input_shape))

    def call(self, features, training=None, mask=None):
        """Return the features with `width` channels; `mask` `(batch, positions...)` is for the statistics."""
        return self.activation(self.norm(self.linear(features), training=training, mask=mask))

    def compute_output_shape(self, input_shape):
        """Return the shape with `width` channels."""
        return (*input_shape[:-1], self.width)

    def get_config(self):
        """Return the arguments of the constructor."""
        activation = keras.activations.serialize(self.activation)
        return {**super().get_config(), "width": self.width, "activation": activation}


def connect(connector: Any, teacher_shape, student_shape, activation=None) -> keras.layers.Layer:
    """Return the built layer that brings features of `student_shape` to the channels of `teacher_shape`.

    Args:
        connector: "auto": a `Connector` where the widths differ; None: nothing; or a `keras.layers.Layer`.
        teacher_shape, student_shape: `(batch, positions..., channels)`.
        activation: of the `Connector` that "auto" makes.

    Raises:
        ValueError: the widths differ after it.
    """
    wanted, given = teacher_shape[-1], student_shape[-1]
    if connector == "auto":
        connector = None if wanted == given else Connector(wanted, activation, dtype="float32")
    if connector is None:
        connector = keras.layers.Identity(dtype="float32")
    elif not isinstance(connector, keras.layers.Layer):
        raise ValueError(f"connector must be 'auto', None or a keras layer, got {connector!r}.")
    # A call, though of no data: a layer of the user's may build itself only then.
    found = tuple(symbolically(connector, keras.KerasTensor(student_shape)).shape)
    if found[-1] != wanted:
        raise ValueError(
            f"The student's features {tuple(student_shape)} have {found[-1]} channels"
            f"{'' if isinstance(connector, keras.layers.Identity) else ' after the connector'} and the "
            f"teacher's {tuple(teacher_shape)} have {wanted}: pass connector='auto', or a layer that "
            f"returns {wanted} channels."
        )
    return connector


def takes_mask(layer: keras.layers.Layer) -> bool:
    """Whether `layer` can be told which positions count: it takes `mask`, and all that it holds keep one."""
    takes = "mask" in inspect.signature(layer.call).parameters
    return takes and all(map(_keeps_mask, held_layers(layer)))


def _keeps_mask(layer) -> bool:
    held = held_layers(layer)
    return all(map(_keeps_mask, held)) if held else layer.supports_masking


def trainable_size(layer: keras.layers.Layer) -> int:
    """Return how many numbers of `layer` are trained."""
    return sum(math.prod(variable.shape) for variable in layer.trainable_variables)


def never_negative(layer) -> bool:
    """Whether what `layer` returns cannot be below 0, as far as its kind and what feeds it tell."""
    if not type(layer).__module__.startswith("keras.") and not isinstance(layer, keras.Model):
        return False  # what its attributes are for is not known
    activation = getattr(layer, "activation", None)
    if isinstance(layer, keras.layers.ReLU):
        return not layer.negative_slope
    if activation not in (None, keras.activations.linear):
        return activation in _NON_NEGATIVE
    if isinstance(layer, keras.Model):
        history = [one._keras_history for one in getattr(layer, "outputs", None) or []]
        return bool(history) and all(never_negative(one.operation) for one in history)
    if not isinstance(layer, _KEEPS_SIGN):
        return False
    try:
        before = keras.tree.flatten(layer.input)
        return all(never_negative(one._keras_history.operation) for one in before)
    except (AttributeError, ValueError):  # not called symbolically, or in several places
        return False


_NON_NEGATIVE = (
    keras.activations.relu,
    keras.activations.relu6,
    keras.activations.sigmoid,
    keras.activations.softmax,
    keras.activations.softplus,
    keras.activations.exponential,
)
_KEEPS_SIGN = (
    keras.layers.Add,
    keras.layers.Average,
    keras.layers.Concatenate,
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.Identity,
    keras.layers.Maximum,
    keras.layers.Reshape,
    keras.layers.SpatialDropout2D,
    *(
        getattr(keras.layers, f"{kind}Pooling{n}D")
        for kind in ("Max", "Average", "GlobalMax", "GlobalAverage")
        for n in (1, 2)
    ),
)
