"""Modes that answer with several heads, each of which learns from the labels: peers, or early exits.

Their outputs are a dict by name, and so are the metrics in the history: "peer_0_accuracy", "exit_1_accuracy".
"""

from typing import Any

import keras

from keras_distill import hard_loss
from keras_distill.mixed_loss import MixedLoss


class SeveralHeads(MixedLoss):
    """Base of these modes; `heads` names those that learn, `also_measured` further outputs.

    Args: as `MixedLoss`.
    """

    also_measured: tuple[str, ...] = ()

    def heads(self) -> dict[str, str | None]:
        """Return how each head that learns ends: "linear", "softmax", "sigmoid"; None where not known."""
        raise NotImplementedError

    def optimizer_of(self, optimizer):
        """Return what Keras's `compile` is to take for what the user gave."""
        return optimizer

    def compile(
        self,
        optimizer="adam",
        loss=None,
        metrics=None,
        weighted_metrics=None,
        jit_compile="auto",
        **kwargs,
    ):
        """Configure the training, as `keras.Model.compile` does.

        Args:
            optimizer: of all that is trained.
            loss: the hard loss of each head; a string gets the head's `from_logits`.
            metrics: a list; each head has them.
            weighted_metrics: the same, weighed by `sample_weight`.
            jit_compile, **kwargs: as in Keras.

        Raises:
            ValueError: no loss although the hard labels count, or metrics that are no list.
        """
        self.check_compile(loss, (metrics, weighted_metrics))
        heads = self.heads()
        resolved = {name: hard_loss.resolve(loss, end) for name, end in heads.items()}
        self._hard_loss = None if loss is None else resolved
        measured = {"metrics": metrics, "weighted_metrics": weighted_metrics}
        super().compile(
            optimizer=self.optimizer_of(optimizer),
            loss=self._hard_loss,
            jit_compile=jit_compile,
            **{key: self._of_each(given) for key, given in measured.items()},
            **kwargs,
        )
        self.compiled_with(
            {
                "optimizer": optimizer,
                "loss": loss,
                **measured,
                "jit_compile": jit_compile,
                **kwargs,
            }
        )

    def hard(self, y, outputs, sample_weight):
        """Return the sum of the heads' hard losses."""
        return super().hard(self._for_each(y), outputs, self._for_each(sample_weight))

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Compare each head with the labels."""
        if y is None:
            return self.get_metrics_result()
        labels, weights = self._for_each(y), self._for_each(sample_weight)
        return super().compute_metrics(x, labels, y_pred, weights)

    def output_spec(self):
        """None: Keras builds the metrics in the first step."""

    def get_build_config(self):
        """None: the networks are built by their own."""

    def _names(self) -> list[str]:
        return [*self.heads(), *self.also_measured]

    def _for_each(self, value):
        return None if value is None else dict.fromkeys(self._names(), value)

    def _of_each(self, metrics) -> dict[str, list[Any]] | None:
        if metrics is None:
            return None
        return {name: [_copy(metric) for metric in metrics] for name in self._names()}


def _copy(metric):
    """A metric for one head, which remembers nothing of another."""
    if isinstance(metric, keras.metrics.Metric):
        return type(metric).from_config(metric.get_config())
    return metric
