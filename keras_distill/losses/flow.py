"""Relations between the layers of a network: FSP, the flow of the solution procedure.

loss = FSP(["conv2_out", "conv3_out", "conv4_out"], ["block_2_add", "block_5_add", "block_12_add"])
kd.Distiller(teacher, student, **kd.losses.mix(loss))
"""

import keras
from keras import ops

from keras_distill.losses.feature_loss import ConnectedLoss
from keras_distill.losses.shapes import same_positions, sequences
from keras_distill.losses.weights import Weights, paired

_TWO = ("one layer", "the next")


@keras.saving.register_keras_serializable(package="keras_distill")
class FSP(ConnectedLoss):
    """Flow of the solution procedure (FSP): how one layer's channels go together with a later one's.

    `mean (G_s − G_t)²`, summed over neighbouring layers of the list, where `G[a, b] = mean over positions of
    f_low[a]·f_high[b]`, `(channels of one layer, channels of the next)`. The larger map of two is
    average-pooled to the smaller; teacher and student may have maps of different sizes.

    When: CNNs of the same stages, with a student that is trained further on other data afterwards.

    Args:
        teacher_layer_name: layers from shallow to deep, two at least; or "auto".
        student_layer_name: as many of the student.
        connector: "auto", None (equal widths), or a list with one for each layer; see `ConnectedLoss`.
        output, name: see `FeatureLoss`.

    Customary weights: 1 for the hard labels, 50 for this loss.
    Source: Yim et al. 2017, A Gift from Knowledge Distillation, CVPR.
    """

    customary_weights = (1.0, 50.0)

    def compute_loss(
        self, teacher_outputs, student_outputs, labels=None, sample_weight=None, mask=None
    ):
        """Return the sum over the neighbours, a scalar; arguments as `FeatureLoss.compute_loss`, as lists."""
        layers = paired(teacher_outputs, student_outputs, mask, sample_weight)
        if len(layers) < 2:
            raise ValueError(
                f"FSP compares how layers go together and was given {len(layers)}: name a list of at least "
                "two layers of each network, from shallow to deep."
            )
        self.build_for(layers)
        students = [
            self.connected(i, student, weights) for i, (_, student, weights) in enumerate(layers)
        ]
        total = 0.0
        for i in range(len(layers) - 1):
            low, high, weights = students[i], students[i + 1], layers[i][2]
            weights = weights.at(same_positions(low, high, weights.mask, _TWO)[1])
            values = fsp(layers[i][0], layers[i + 1][0], low, high, weights.valid)
            total = total + weights.mean(values)
        return total


def fsp_matrix(low, high, mask=None):
    """Return the products of two layers' channels, averaged over positions: `(batch, low, high)`.

    Args:
        low: `(batch, positions..., channels)`.
        high: the same of a later layer, with as many positions or fewer.
        mask: `(batch, positions...)`, those of the smaller one; or None.
    """
    low, high = same_positions(low, high, whose=_TWO)
    valid = Weights(mask=mask).at(high).mask
    low, high = sequences(low), sequences(high)
    if valid is None:
        return ops.matmul(ops.transpose(low, (0, 2, 1)), high) / ops.cast(
            ops.shape(low)[1], "float32"
        )
    valid = ops.reshape(valid, (ops.shape(valid)[0], -1, 1))
    products = ops.matmul(ops.transpose(low * valid, (0, 2, 1)), high)
    return ops.divide_no_nan(products, ops.sum(valid, axis=1, keepdims=True))


def fsp(teacher_low, teacher_high, student_low, student_high, mask=None):
    """Return the mean squared difference of the two FSP matrices of each example: `(batch,)`.

    Args:
        teacher_low, teacher_high: `(batch, positions..., channels)` of two layers of the teacher.
        student_low, student_high: the same of the student, with the same channels.
        mask: `(batch, positions...)`, those of the smaller layer; or None.
    """
    teacher = ops.stop_gradient(fsp_matrix(teacher_low, teacher_high, mask))
    return ops.mean(ops.square(fsp_matrix(student_low, student_high, mask) - teacher), axis=(1, 2))
