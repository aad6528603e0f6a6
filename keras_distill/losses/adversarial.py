"""An adversary: a discriminator learns to tell the student from the teacher, the student to deceive it."""

from typing import Any

import keras
from keras import ops

from keras_distill import schedules
from keras_distill.losses.feature_loss import TrainableLoss
from keras_distill.losses.weights import averaged, paired

_SURE = 0.9  # what the discriminator is told of a teacher's answer, instead of 1


@keras.saving.register_keras_serializable(package="keras_distill")
class Adversarial(TrainableLoss):
    """Adversary: a discriminator D judges whose features or logits it sees, and the student deceives it.

    `mean_i −log D(s_i)`

    with D's weights as constants. D itself minimises the mean of −0.9·log D(t) − 0.1·log(1 − D(t)) −
    log(1 − D(s)), with what it sees detached: D's gradients come from this, which is not part of the value;
    in a Distiller they do not depend on the loss's weight, so that D learns while that is still 0. D is kept
    in balance: it pauses while it is right in more than `ceiling` of the batch.

    When: beside other losses, where student and teacher are near example by example and yet differ as
    distributions. Of all losses it most needs its weight tried out.

    Args:
        teacher_layer_name, student_layer_name: path of a layer of each network, of equal channels, which are
            averaged over positions; None for the logits.
        hidden: units of the discriminator's two layers.
        discriminator: a layer from `(batch, channels)` to one logit, in place of these two.
        ceiling: the accuracy of D above which it pauses, 0.5 to 1.
        output, name: see `FeatureLoss`.

    Attributes:
        discriminator: the layer, once it is made.
        beside: of the last `compute_loss`, a 0 whose gradient is D's own; part of what was returned.
        accuracy: a metric, `discriminator_accuracy`: 0.5 where the student deceives it, 1 where it has won.

    Raises:
        ValueError: a discriminator that is no layer; in use: that does not answer one logit, or layers of
            unequal channels.

    Customary weights: 1 for the hard labels, 0.1 for this loss, and 1 for soft targets beside it.
    Source: Xu et al. 2018, arXiv 1709.00513; Wang et al. 2018, KDGAN.
    """

    customary_weights = (1.0, 0.1)
    reads_one_layer = True
    learns_for_student = False

    def __init__(
        self,
        teacher_layer_name=None,
        student_layer_name=None,
        hidden=128,
        discriminator=None,
        ceiling=0.8,
        output=None,
        name=None,
    ):
        super().__init__(teacher_layer_name, student_layer_name, output, name)
        self.hidden = schedules.whole("hidden", hidden)
        self.ceiling = schedules.fixed("ceiling", ceiling, lowest=0.5, highest=1.0)
        if not isinstance(discriminator, keras.layers.Layer | None):
            raise ValueError(
                f"discriminator={discriminator!r} must be a keras layer or model from (batch, channels) to "
                "(batch, 1), or None for two layers of hidden= units."
            )
        self._given = discriminator
        self.beside: Any = None
        self.discriminator: Any = discriminator
        self.accuracy = keras.metrics.Mean(name="discriminator_accuracy")

    def build(self, teacher_shapes, student_shapes):
        """Make the discriminator for a list with the shape of the one layer of each network."""
        shapes = [*teacher_shapes, *student_shapes]
        if len(shapes) != 2 or shapes[0][-1] != shapes[1][-1]:
            raise ValueError(
                "Adversarial judges one layer of each network, of equal channels, and was given the shapes "
                f"{teacher_shapes} of the teacher and {student_shapes} of the student: name other layers."
            )
        if self.discriminator is None:
            layers = keras.layers
            self.discriminator = keras.Sequential(
                [
                    layers.Dense(self.hidden),
                    layers.LeakyReLU(0.2),
                    layers.Dense(self.hidden),
                    layers.LeakyReLU(0.2),
                    layers.Dense(1),
                ],
                name="discriminator",
            )
        if not self.discriminator.built:
            self.discriminator.build((None, shapes[0][-1]))
        answers = tuple(self.discriminator.compute_output_shape((None, shapes[0][-1])))
        if answers[1:] != (1,):
            raise ValueError(
                f"The discriminator answers {answers}, and must answer one logit, (batch, 1): let it end in "
                "Dense(1)."
            )

    def compute_loss(
        self, teacher_outputs, student_outputs, labels=None, sample_weight=None, mask=None
    ):
        """Return the student's part, a scalar; its gradient holds the discriminator's own.

        Args:
            teacher_outputs: `(batch, ..., channels)`.
            student_outputs: the same of the student.
            labels: not used.
            sample_weight: `(batch,)`, `(batch, positions...)` or None.
            mask: `(batch, positions...)`, or None.
        """
        layers = paired(teacher_outputs, student_outputs, mask, sample_weight)
        self.build_for(layers)
        teacher, student, weights = layers[0]
        real, fake = (averaged(one, weights) for one in (teacher, student))
        rows = weights.at(student).rows
        if rows is None:
            rows = ops.ones_like(real[:, 0])
        count = ops.cast(ops.shape(real)[0], "float32")

        def mean(values):
            return ops.sum(rows * values[:, 0]) / count

        deceived = mean(-ops.log_sigmoid(self._as_constant(fake)))
        of_teacher = self.discriminator(ops.stop_gradient(real), training=True)
        of_student = self.discriminator(ops.stop_gradient(fake), training=True)
        own = mean(
            -_SURE * ops.log_sigmoid(of_teacher)
            - (1.0 - _SURE) * ops.log_sigmoid(-of_teacher)
            - ops.log_sigmoid(-of_student)
        )
        right = [
            ops.cast(of_teacher[:, 0] > 0, "float32"),
            ops.cast(of_student[:, 0] <= 0, "float32"),
        ]
        counted = ops.cast(rows > 0, "float32")
        seen = ops.maximum(ops.sum(counted), 1.0)
        accuracy = sum(ops.sum(one * counted) for one in right) / (2.0 * seen)
        self.accuracy.update_state(accuracy, sample_weight=seen)
        own = ops.where(accuracy > self.ceiling, 0.0, 1.0) * own
        self.beside = own - ops.stop_gradient(own)
        return deceived + self.beside

    def _as_constant(self, seen):
        """What D says with weights that have no gradient."""
        own = self.discriminator
        weights = [ops.stop_gradient(variable.value) for variable in own.trainable_variables]
        others = [variable.value for variable in own.non_trainable_variables]
        return own.stateless_call(weights, others, seen, training=False)[0]

    def get_config(self):
        """Return the arguments of the constructor."""
        own = {"hidden": self.hidden, "ceiling": self.ceiling}
        given = keras.saving.serialize_keras_object(self._given)
        return {**super().get_config(), **own, "discriminator": given}
