"""What all distillation losses share: names, layers, weights of examples, and their customary weight.

A loss of your own is one function of teacher and student:

    class MyLoss(kd.losses.DistillationLoss):
        def compute_loss(self, teacher_outputs, student_outputs, labels=None, sample_weight=None):
            return mean_over_examples(ops.square(teacher_outputs - student_outputs), sample_weight)
"""

import re
from typing import Any

import keras
from keras import ops


class DistillationLoss(keras.distillation.DistillationLoss):
    """Base class: a `keras.distillation.DistillationLoss` that knows labels, example weights and layers.

    Args:
        name: the metric's name; the class name in snake_case if None.
        output: for networks with several outputs, the name (or position) of the one it reads.
        teacher_layer_name: inner layer of the teacher, or a list of them; None for its outputs.
        student_layer_name: the same for the student.

    Attributes:
        customary_weights: `(hard, own)`: the weights of the hard labels and of this loss in the paper or its
            reference implementation; see `mix`.
    """

    customary_weights: tuple[float, float] = (1.0, 1.0)
    # Whether it cannot do without hard labels, or without a teacher.
    needs_labels = False
    needs_teacher = True
    # Whether its least value is below 0.
    can_be_negative = False
    # Where it reads outputs: "outputs" as the networks return them, or "logits", float32.
    reads = "outputs"

    def __init__(self, name=None, output=None, teacher_layer_name=None, student_layer_name=None):
        self.name = name or snake_case(type(self).__name__)
        self.output_name = output  # not `output`: a loss that is a layer has that already
        self.teacher_layer_name = teacher_layer_name
        self.student_layer_name = student_layer_name

    def compute_loss(self, teacher_outputs, student_outputs, labels=None, sample_weight=None):
        """Return the loss as one number.

        Args:
            teacher_outputs: what it reads of the teacher; a list where it reads several layers.
            student_outputs: the same of the student.
            labels: the hard labels of the batch, or None.
            sample_weight: `(batch,)` or `(batch, positions...)`, or None for 1 everywhere.
        """
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            "name": self.name,
            "output": self.output_name,
            "teacher_layer_name": self.teacher_layer_name,
            "student_layer_name": self.student_layer_name,
        }

    def config_of(self, *names: str) -> dict[str, Any]:
        """Return these attributes, serialised: numbers, schedules and layers."""
        return {name: keras.saving.serialize_keras_object(getattr(self, name)) for name in names}

    @classmethod
    def from_config(cls, config):
        """Return the loss that `get_config` describes; schedules and layers in it are built again."""
        return cls(**{key: _deserialized(value) for key, value in config.items()})

    def need_labels(self, labels):
        """Refuse labels that are None, with what to do."""
        if labels is None:
            raise ValueError(
                f"{type(self).__name__} needs the hard labels, and there are none: give (x, y), or a loss "
                "that learns from the teacher alone, such as SoftTargets."
            )


def _deserialized(value):
    if isinstance(value, dict) and "class_name" in value:
        return keras.saving.deserialize_keras_object(value)
    return [_deserialized(one) for one in value] if isinstance(value, list) else value


def frozen(tensor):
    """Return what a teacher says in float32, with no gradient to it."""
    return ops.stop_gradient(ops.cast(tensor, "float32"))


def mean_over_examples(values, sample_weight=None):
    """Return Σ wᵢ·valueᵢ / B, as Keras's own losses do.

    Args:
        values: one number for each example `(batch,)`, or for each of its positions `(batch, ...)`.
        sample_weight: broadcast to `values` from the left: `(batch,)` weighs all positions of an example.
    """
    if sample_weight is not None:
        values = values * of_rank(len(values.shape), ops.cast(sample_weight, values.dtype))
    # Not `mean`: one of several devices may get no example of the last batch.
    return ops.divide_no_nan(ops.sum(values), ops.cast(ops.size(values), values.dtype))


def of_rank(rank: int, weight):
    """Return `weight` with axes of length 1 added or taken away at its end, until it has `rank` of them."""
    while len(weight.shape) > rank:
        weight = ops.squeeze(weight, axis=-1)
    while len(weight.shape) < rank:
        weight = ops.expand_dims(weight, axis=-1)
    return weight


def snake_case(name: str) -> str:
    """Return `SoftTargets` as `soft_targets`."""
    name = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()
