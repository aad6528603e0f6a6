"""Features: losses on inner layers, named by their paths; several layers are summed.

loss = AttentionTransfer("conv4_block6_out", "block_12_add")
loss.compute_loss(teacher_features, student_features)
kd.Distiller(teacher, student, **kd.losses.mix(loss))

Features are `(batch, height, width, channels)`, `(batch, time, channels)` with an optional mask `(batch,
time)`, or `(batch, channels)`. Where the sizes of two maps differ, the larger is average-pooled to the
smaller.
"""

import keras
from keras import ops

from keras_distill import schedules
from keras_distill.connectors import never_negative
from keras_distill.losses.feature_loss import ConnectedLoss, FeatureLoss
from keras_distill.losses.response import checked_temperature, divergences
from keras_distill.losses.shapes import normalized, same_positions, sequences
from keras_distill.losses.weights import flat_mask, mean_of_positions, where_kept


@keras.saving.register_keras_serializable(package="keras_distill")
class Hint(ConnectedLoss):
    """Hints (FitNets): the student's features become the teacher's through a connector.

    `mean (connector(f_s) − f_t)²` over batch, positions and channels.

    When: a middle layer of a deep student is to be guided; it wants a good place more than the others.

    Args:
        teacher_layer_name, student_layer_name: paths of layers, lists of them, or "auto".
        connector: "auto", None, a layer, or a list; see `ConnectedLoss`.
        activation: of the connector that "auto" makes: "auto" for a ReLU where the teacher's layer cannot be
            negative (as far as a Distiller sees), None, or `"relu"`; or a list with one for each pair.
        output, name: see `FeatureLoss`.

    Customary weights: 1 for the hard labels, 100 for this loss.
    Source: Romero et al. 2015, arXiv 1412.6550, equation 3.
    """

    customary_weights = (1.0, 100.0)

    def __init__(
        self,
        teacher_layer_name=None,
        student_layer_name=None,
        connector="auto",
        activation="auto",
        output=None,
        name=None,
    ):
        super().__init__(teacher_layer_name, student_layer_name, connector, output, name)
        self.activation = activation
        self._seen: list[str | None] | None = None

    def look_at(self, teacher_layers):
        """A connector ends in a ReLU where the teacher's features cannot be negative."""
        self._seen = ["relu" if never_negative(layer) else None for layer in teacher_layers]

    def activations(self):
        """Return what `activation` says, or what was seen."""
        return self._seen if self.activation == "auto" else self.activation

    def get_build_config(self):
        """Return the shapes of `build`, and what was seen before it."""
        config = super().get_build_config()
        return config and {**config, "seen": self._seen}

    def build_from_config(self, config):
        """Build as `get_build_config` describes."""
        self._seen = config.get("seen")
        super().build_from_config(config)

    def of_pair(self, index, teacher, student, weights):
        """Return the mean squared difference."""
        return weights.mean(hint(teacher, student))

    def get_config(self):
        """Return the arguments of the constructor."""
        return {"activation": self.activation, **super().get_config()}


def hint(teacher, student):
    """Return the squared difference of each position, averaged over channels: `(batch, positions...)`.

    Args:
        teacher: `(batch, positions..., channels)`.
        student: the same but for the number of positions, behind the connector.
    """
    teacher, student = same_positions(ops.stop_gradient(teacher), student)
    return ops.mean(ops.square(student - teacher), axis=-1)


@keras.saving.register_keras_serializable(package="keras_distill")
class CosineFeatures(ConnectedLoss):
    """Cosine of hidden states: the student's features point where the teacher's do.

    `mean (1 − cos(f_s, f_t))` over examples and positions (tokens). A vector of zeros has cosine 0 with
    anything but another one.

    When: transformers and other networks of one width, hidden state by hidden state.

    Args:
        teacher_layer_name, student_layer_name, connector, output, name: see `ConnectedLoss`.

    Customary weights: 1 for the hard labels, 1 for this loss.
    Source: Sanh et al. 2019 (DistilBERT), arXiv 1910.01108.
    """

    def of_pair(self, index, teacher, student, weights):
        """Return the mean of 1 − cos."""
        return weights.mean(cosine_features(teacher, student))


def cosine_features(teacher, student):
    """Return `1 − cos(f_s, f_t)` of each position: `(batch, positions...)`.

    Args:
        teacher: `(batch, positions..., channels)`.
        student: the same but for the number of positions.
    """
    teacher, student = same_positions(ops.stop_gradient(teacher), student)
    cosine = ops.sum(normalized(teacher) * normalized(student), axis=-1)
    none = ops.logical_not(ops.any(ops.logical_or(teacher != 0, student != 0), axis=-1))
    return ops.where(none, 0.0, ops.maximum(1.0 - cosine, 0.0))


@keras.saving.register_keras_serializable(package="keras_distill")
class AttentionTransfer(FeatureLoss):
    """Attention transfer (AT): the student looks where the teacher looks.

    `mean over batch and positions of (n(a_s) − n(a_t))²`, where `a = mean_c |f|^p` is the map of a layer's
    activity and n divides an example's map by its L2 norm. The numbers of channels need not agree.

    When: CNNs, whatever their widths; it is cheap and has no weights of its own.

    Args:
        teacher_layer_name, student_layer_name: paths of layers, lists of them, or "auto".
        p: the power, at least 1.
        output, name: see `FeatureLoss`.

    Customary weights: 1 for the hard labels, 1000 for this loss.
    Source: Zagoruyko & Komodakis 2017, arXiv 1612.03928, equation 2.
    """

    customary_weights = (1.0, 1000.0)
    compares_positions = True

    def __init__(
        self, teacher_layer_name=None, student_layer_name=None, p=2.0, output=None, name=None
    ):
        super().__init__(teacher_layer_name, student_layer_name, output, name)
        self.p = schedules.fixed("p", p, lowest=1.0, advice="2 is customary")

    def of_pair(self, index, teacher, student, weights):
        """Return the mean squared difference of the attention maps."""
        return weights.mean(attention_transfer(teacher, student, self.p, weights.valid))

    def get_config(self):
        """Return the arguments of the constructor."""
        return {"p": self.p, **super().get_config()}


def attention_transfer(teacher, student, p=2.0, mask=None):
    """Return the mean squared difference of the attention maps of each example: `(batch,)`.

    Args:
        teacher: `(batch, positions..., channels)`.
        student: the same but for the number of channels.
        p: the power.
        mask: `(batch, positions...)`, or None.
    """
    teacher, student = same_positions(ops.stop_gradient(teacher), student, mask)
    valid = flat_mask(mask)

    def attention(features):
        powers = ops.square(features) if p == 2 else ops.power(ops.abs(features), p)
        values = ops.mean(sequences(powers), axis=-1)
        return normalized(where_kept(values, valid))

    return mean_of_positions(ops.square(attention(student) - attention(teacher)), valid)


@keras.saving.register_keras_serializable(package="keras_distill")
class NeuronSelectivity(FeatureLoss):
    """Neuron selectivity transfer (NST): channels respond to the same places.

    `E k(t, t) + E k(s, s) − 2·E k(s, t)`: the squared maximum mean discrepancy between the sets of the two
    layers' channels, each a map over the positions of L2 norm 1, with the kernel `k(a, b) = (aᵀb)²`. The
    numbers of channels need not agree.

    When: CNNs of different widths whose places matter more than their channels' order.

    Args:
        teacher_layer_name, student_layer_name, output, name: see `FeatureLoss`.

    Customary weights: 1 for the hard labels, 50 for this loss.
    Source: Huang & Wang 2017, arXiv 1707.01219.
    """

    customary_weights = (1.0, 50.0)
    compares_positions = True

    def of_pair(self, index, teacher, student, weights):
        """Return the mean discrepancy."""
        return weights.mean(neuron_selectivity(teacher, student, weights.valid))


def neuron_selectivity(teacher, student, mask=None):
    """Return the squared maximum mean discrepancy of each example: `(batch,)`.

    Args:
        teacher: `(batch, positions..., channels)`.
        student: the same but for the number of channels.
        mask: `(batch, positions...)`, or None.
    """
    teacher, student = same_positions(ops.stop_gradient(teacher), student, mask)
    valid = flat_mask(mask)

    def channels(features):
        return normalized(where_kept(sequences(features), valid), axis=1)

    teacher, student = channels(teacher), channels(student)

    def kernel(a, b):
        products = ops.matmul(ops.transpose(a, (0, 2, 1)), b)
        return ops.mean(ops.square(products), axis=(1, 2))

    same = kernel(teacher, teacher) + kernel(student, student)
    return ops.maximum(same - 2.0 * kernel(student, teacher), 0.0)


@keras.saving.register_keras_serializable(package="keras_distill")
class ChannelWise(ConnectedLoss):
    """Channel-wise distillation: each channel's activity falls on the same places.

    `T² · mean KL(φ_t ‖ φ_s)` over batch and channels, where φ is the softmax at temperature T over the
    positions of a channel. For dense prediction: on the logits `(batch, height, width, classes)` (no layers
    named), or on features.

    When: segmentation and other dense prediction.

    Args:
        teacher_layer_name, student_layer_name: paths of layers, lists of them, or "auto"; None for logits.
        temperature: T, a number or a schedule.
        connector: see `ConnectedLoss`.
        output, name: see `FeatureLoss`.

    Customary weights: 1 for the hard labels; 3 for this loss on logits, 50 on features.
    Source: Shu et al. 2021, arXiv 2011.13256.
    """

    compares_positions = True

    def __init__(
        self,
        teacher_layer_name=None,
        student_layer_name=None,
        temperature=4.0,
        connector="auto",
        output=None,
        name=None,
    ):
        super().__init__(teacher_layer_name, student_layer_name, connector, output, name)
        self.temperature = checked_temperature(temperature)
        self.customary_weights = (1.0, 3.0 if teacher_layer_name is None else 50.0)

    def of_pair(self, index, teacher, student, weights):
        """Return the mean divergence."""
        temperature = schedules.value(self.temperature)
        return weights.mean(channel_wise(teacher, student, temperature, weights.valid))

    def get_config(self):
        """Return the arguments of the constructor."""
        return {**self.config_of("temperature"), **super().get_config()}


def channel_wise(teacher, student, temperature=4.0, mask=None):
    """Return `T² · KL` of each example, averaged over its channels: `(batch,)`.

    Args:
        teacher: `(batch, positions..., channels)`.
        student: the same but for the number of positions.
        temperature: T > 0.
        mask: `(batch, positions...)`, or None.
    """
    teacher, student = same_positions(ops.stop_gradient(teacher), student, mask)
    valid = flat_mask(mask)

    def log_shares(features):
        values = sequences(features) / temperature
        if valid is not None:
            values = ops.where(valid[..., None], values, -1e30)
        return ops.log_softmax(values, axis=1)

    divergence = divergences(log_shares(teacher), log_shares(student))
    divergence = where_kept(divergence, valid)  # there may be an example without any valid position
    return temperature**2 * ops.mean(ops.sum(divergence, axis=1), axis=-1)
