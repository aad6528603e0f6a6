"""Weights of losses that balance themselves.

kd.Distiller(teacher, student, ["soft_targets", AttentionTransfer("auto")], loss_balancing="uncertainty")
"""

import keras
from keras import ops

_LOWEST = -10.0  # of the sᵢ: a loss that has become 0 would have its weight grow without bound


@keras.saving.register_keras_serializable(package="keras_distill")
class Uncertainty(keras.layers.Layer):
    """Uncertainty weighting: `Σ e^(−sᵢ)·cᵢ·Lᵢ + sᵢ`, with the sᵢ trained with the student.

    The best sᵢ is `log(cᵢ·Lᵢ)`, so that each term comes to count 1, whatever the size of its loss. The terms
    are the hard loss and each distillation loss; the cᵢ are the weights that were given, where it starts.
    Terms of weight 0 are left out; no weight grows beyond e¹⁰ times. A loss that can be negative
    (`VariationalInformation`) has no best sᵢ.

    Args:
        **kwargs: as for `keras.layers.Layer`.

    Source: Kendall, Gal, Cipolla 2018, arXiv 1705.07115 (there `½ e^(−s)·L + ½ s` for a regression).
    """

    def build(self, count: int):
        """Make the weights for `count` terms."""
        self.log_variances = self.add_weight(
            (count,), "zeros", dtype="float32", name="log_variances"
        )

    def total(self, values, weights):
        """Return the balanced sum, which can be negative.

        Args:
            values: the weighted losses, a list of scalars.
            weights: what each was weighted with, a number or a scalar: one of weight 0 is no term now.
        """
        total = 0.0
        for i, (value, weight) in enumerate(zip(values, weights, strict=True)):
            own = ops.maximum(self.log_variances[i], _LOWEST)
            term = ops.exp(-own) * ops.cast(value, "float32") + own
            total = total + ops.cast(ops.convert_to_tensor(weight) > 0, "float32") * term
        return total

    def weights_now(self) -> list[float]:
        """Return what each term is multiplied with now."""
        held = ops.maximum(self.log_variances, _LOWEST)
        return [float(one) for one in ops.convert_to_numpy(ops.exp(-held))]


def get(identifier) -> keras.layers.Layer | None:
    """Return the rule that `identifier` means: None, "uncertainty", or an object with `build` and `total`.

    Raises:
        ValueError: there is no such rule.
    """
    if identifier is None:
        return None
    if identifier == "uncertainty":
        return Uncertainty(name="loss_balancing")
    if isinstance(identifier, keras.layers.Layer) and hasattr(identifier, "total"):
        return identifier
    raise ValueError(
        f"loss_balancing={identifier!r} is not known: give 'uncertainty', None, or a keras layer with "
        "total(values, weights)."
    )
