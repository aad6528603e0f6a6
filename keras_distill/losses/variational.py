"""Features, by how well the student's predict the teacher's: VID.

kd.Distiller(teacher, student, **kd.losses.mix(VariationalInformation("block3_out", "block_12_add")))
"""

import math

import keras
from keras import ops

from keras_distill import schedules
from keras_distill.losses.feature_loss import TrainableLoss

_SMALLEST_VARIANCE = 1e-5


@keras.saving.register_keras_serializable(package="keras_distill")
class VariationalInformation(TrainableLoss):
    """Variational information distillation (VID): a bound on the information that two layers share.

    `½ · mean [(μ(f_s) − f_t)² / σ² + log σ²]`: the negative log-likelihood, but for a constant, of the
    teacher's features under a Gaussian whose mean μ is a small network of the student's features (three 1×1
    convolutions with ReLU between) and whose variance `σ² = softplus(ρ) + 1e-5` is one number for each
    channel. It can be negative.

    When: teacher and student are of different kinds, so that only a part of the features
    can be predicted.

    Args:
        teacher_layer_name, student_layer_name, output, name: see `FeatureLoss`.
        initial_variance: σ² at the start.

    Attributes:
        means: for each pair of layers the three layers of μ.
        rhos: for each pair the ρ, `(channels,)`.

    Customary weights: 1 for the hard labels, 1 for this loss.
    Source: Ahn et al. 2019, arXiv 1904.05835.
    """

    can_be_negative = True

    def __init__(
        self,
        teacher_layer_name=None,
        student_layer_name=None,
        initial_variance=5.0,
        output=None,
        name=None,
    ):
        super().__init__(teacher_layer_name, student_layer_name, output, name)
        self.initial_variance = schedules.fixed(
            "initial_variance",
            initial_variance,
            lowest=1e-4,
            highest=100.0,
            advice="5 is customary",
        )
        self.means: list[list[keras.layers.Layer]] = []
        self.rhos: list[keras.Variable] = []

    def build(self, teacher_shapes, student_shapes):
        """Make the weights for a list with the shape of each layer."""
        rho = math.log(math.expm1(self.initial_variance - _SMALLEST_VARIANCE))
        means = []
        for teacher, student in zip(teacher_shapes, student_shapes, strict=True):
            width = teacher[-1]
            layers = [
                keras.layers.Dense(width, use_bias=False, activation=activation, dtype="float32")
                for activation in ("relu", "relu", None)
            ]
            shape = tuple(student)
            for layer in layers:
                layer.build(shape)
                shape = (*shape[:-1], width)
            means.append(layers)
            constant = keras.initializers.Constant(rho)
            self.rhos.append(self.add_weight((width,), constant, name=f"rho_{len(self.rhos)}"))
        self.means = means

    def of_pair(self, index, teacher, student, weights):
        """Return the mean negative log-likelihood."""
        mean = student
        for layer in self.means[index]:
            mean = layer(mean)
        return weights.mean(variational_information(teacher, mean, self.rhos[index]))

    def get_config(self):
        """Return the arguments of the constructor."""
        return {"initial_variance": self.initial_variance, **super().get_config()}


def variational_information(teacher, mean, rho):
    """Return `½ [(μ − f_t)² / σ² + log σ²]`, averaged over channels: `(batch, positions...)`.

    Args:
        teacher: `(batch, positions..., channels)`.
        mean: μ, what the student predicts of it, the same shape.
        rho: ρ, `(channels,)`; `σ² = softplus(ρ) + 1e-5`.
    """
    variance = ops.softplus(rho) + _SMALLEST_VARIANCE
    squares = ops.square(mean - ops.stop_gradient(teacher))
    return 0.5 * ops.mean(squares / variance + ops.log(variance), axis=-1)
