"""The soft terms of a training: distillation losses, their weights and what the history shows of them.

terms = SoftTerms(["soft_targets", AttentionTransfer("auto")], [1.0, 1000.0], teacher, student)
terms.build(teacher_spec, student_spec)             # connectors, where the shapes are known
values = terms.values(batch, targets, answer, hard_losses)
"""

import warnings
from typing import Any

import keras

from keras_distill import checks, example_weighting, losses, schedules, soft_loss
from keras_distill.connectors import never_negative, trainable_size
from keras_distill.losses.base import snake_case
from keras_distill.network import Answer
from keras_distill.pairs import suggest_pairs


class SoftTerms:
    """Distillation losses with their weights.

    Args:
        given: one of `keras_distill.losses` (or `keras.distillation`), its name, or a list.
        weights: one for each, a number or a schedule; None for 1.
        teacher: what the layers "auto" are looked for in, beside `student`.
        student: the student.
        weighting: a rule of `example_weighting`, or None.

    Attributes:
        losses, weights, trackers: one for each; `trackers` are metrics with different names.

    Raises:
        ValueError: there is no loss, or a weight that cannot be meant.
    """

    def __init__(self, given, weights, teacher, student, weighting=None):
        if given is None:
            raise ValueError(
                "'distillation_losses' cannot be `None`. Provide a loss (e.g. keras_distill.losses."
                "SoftTargets()), its name, or a list of losses."
            )
        if not isinstance(given, list | tuple):
            given = [given]
            if weights is not None and not isinstance(weights, list | tuple):
                weights = [weights]
        self.losses = [_with_layers(losses.get(loss), teacher, student) for loss in given]
        self.weights = checks.loss_weights(weights, len(self.losses))
        self.weighting = example_weighting.checked(weighting)
        names = [
            getattr(loss, "name", None) or snake_case(type(loss).__name__) for loss in self.losses
        ]
        self.trackers = [keras.metrics.Mean(name=name) for name in checks.metric_names(names)]

    def layers_of(self, whose: str) -> list[str]:
        """Return the names of the inner layers of the "teacher" or "student" that are read."""
        names = [getattr(loss, f"{whose}_layer_name", None) for loss in self.losses]
        return [name for name in keras.tree.flatten(names) if name is not None]

    @property
    def need_teacher(self) -> bool:
        """Whether any of them reads what a teacher says."""
        trusts = self.weighting is not None
        return trusts or any(getattr(loss, "needs_teacher", True) for loss in self.losses)

    @property
    def built(self) -> bool:
        """Whether the losses that have weights have made them."""
        return all(loss.built for loss in self.with_weights)

    @property
    def with_weights(self) -> list:
        """The losses that have weights of their own, or will."""
        return [loss for loss in self.losses if isinstance(loss, losses.LossWithWeights)]

    def build(self, targets: Answer, answer: Answer, student, find_layer=None) -> None:
        """Make the connectors and other weights of the losses for answers of these shapes.

        Args:
            targets: the teacher's answer to any batch, or a symbolic one.
            answer: the student's.
            student: the model, to compare the sizes.
            find_layer: from a layer's name to the teacher's layer, where there is one.

        Raises:
            ValueError: a loss that was built for other shapes.
        """
        for loss in self.with_weights:
            shapes = [
                [(None, *one.shape[1:]) for one in keras.tree.flatten(read)]
                for read in soft_loss.read(loss, targets, answer)
            ]
            if not loss.built:
                if hasattr(loss, "look_at") and loss.teacher_layer_name and find_layer:
                    names = keras.tree.flatten(loss.teacher_layer_name)
                    loss.look_at([never_negative(find_layer(name)) for name in names])
                loss.build(*shapes)
                loss.built_for = shapes
                _warn_of_size(loss, student)
            elif getattr(loss, "built_for", shapes) != shapes:
                raise ValueError(
                    f"This {type(loss).__name__} has weights for features of the shapes {loss.built_for}, "
                    f"and these networks have {shapes}: make a new one for each Distiller."
                )
            elif hasattr(loss, "built_for"):
                warnings.warn(
                    f"This {type(loss).__name__} has weights from another Distiller and goes on with them: "
                    "make a new one for a training of its own.",
                    stacklevel=5,
                )

    def values(self, batch, targets: Answer, answer: Answer, hard_losses, rows) -> list:
        """Return the weighted value of each loss, and note the bare ones in the trackers."""
        weighted = []
        for loss, weight, tracker in zip(self.losses, self.weights, self.trackers, strict=True):
            value = soft_loss.value(loss, batch, targets, answer, hard_losses, self.weighting)
            tracker.update_state(value, sample_weight=rows)
            weighted.append(schedules.value(weight) * value)
        return weighted


def _with_layers(loss, teacher, student):
    """`loss`, or a copy of it with layers of these networks where it says "auto"."""
    if getattr(loss, "teacher_layer_name", None) != "auto":
        return loss
    if not isinstance(teacher, keras.Model):
        raise ValueError(
            f"{type(loss).__name__}('auto') looks for layers in the teacher, which must be a keras.Model for "
            f"that, got {type(teacher)}: use losses on outputs, such as SoftTargets."
        )
    pairs = suggest_pairs(teacher, student)
    config: dict[str, Any] = loss.get_config()
    if getattr(loss, "reads_one_layer", False):
        config["teacher_layer_name"], config["student_layer_name"] = pairs[-1]
    else:
        config["teacher_layer_name"] = [pair[0] for pair in pairs]
        config["student_layer_name"] = [pair[1] for pair in pairs]
    return type(loss).from_config(config)


def _warn_of_size(loss, student) -> None:
    own = trainable_size(loss)
    if student.built and own > student.count_params():
        warnings.warn(
            f"{type(loss).__name__} has {own:,} weights of its own, more than the student's "
            f"{student.count_params():,}: it may learn in the student's place; name layers of fewer "
            "channels, or pass a connector= of your own.",
            stacklevel=5,
        )
