"""Modes that answer with several heads, each of which learns from the labels: peers, or early exits.

Their outputs are a dict by name, and so are the metrics in the history: "peer_0_accuracy", "exit_1_accuracy".
"""

from collections.abc import Mapping
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
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile="auto",
        auto_scale_loss=True,
    ):
        """Configure the training, as `keras.Model.compile` does.

        Args:
            optimizer: of all that is trained.
            loss: the hard loss of each head; a string gets the head's `from_logits`.
            loss_weights: of the heads' hard losses, a list or a dict by name; None for 1.
            metrics: a list; each head has them.
            weighted_metrics: the same, weighed by `sample_weight`.
            run_eagerly, steps_per_execution, jit_compile, auto_scale_loss: as in Keras.

        Raises:
            ValueError: no loss although the hard labels count, other weights than one for each head, or
                metrics that are no list.
        """
        self.check_compile(loss, (metrics, weighted_metrics))
        heads = self.heads()
        resolved = {name: hard_loss.resolve(loss, end) for name, end in heads.items()}
        self._hard_loss = None if loss is None else resolved
        measured = {"metrics": metrics, "weighted_metrics": weighted_metrics}
        as_they_are = {
            "run_eagerly": run_eagerly,
            "steps_per_execution": steps_per_execution,
            "jit_compile": jit_compile,
            "auto_scale_loss": auto_scale_loss,
        }
        super().compile(
            optimizer=self.optimizer_of(optimizer),
            loss=self._hard_loss,
            loss_weights=each_of(loss_weights, list(heads), "loss_weights"),
            **{key: self._of_each(given) for key, given in measured.items()},
            **as_they_are,
        )
        given = {"optimizer": optimizer, "loss": loss, "loss_weights": loss_weights}
        self.compiled_with({**given, **measured, **as_they_are})

    def hard(self, y, outputs, sample_weight):
        """Return the sum of the heads' hard losses."""
        return super().hard(self._for_each(y), outputs, self._for_each(sample_weight))

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Compare each head with the labels."""
        labels, weights = self._for_each(y), self._for_each(sample_weight)
        return super().compute_metrics(x, labels, y_pred, weights)

    def several_outputs(self) -> list[str]:
        """Return the heads."""
        return list(self.heads())

    def head_spec(self):
        """Return a `keras.KerasTensor` like the output of each head, or None where it is not known."""

    def output_spec(self):
        """Return one for each output."""
        one = self.head_spec()
        return None if one is None else dict.fromkeys(self._names(), one)

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


def each_of(given, names: list[str], argument: str) -> dict[str, Any] | None:
    """Return what was given for each of `names`, by name; None for None.

    Raises:
        ValueError: it is no list or dict with one for each; the sentence names `argument`.
    """
    if given is None:
        return None
    if isinstance(given, list | tuple):
        given = dict(zip(names, given, strict=False)) if len(given) == len(names) else list(given)
    if not isinstance(given, Mapping) or set(given) != set(names):
        raise ValueError(
            f"{argument}={given!r} must have one for each of {names}, a list or a dict."
        )
    return dict(given)


def _copy(metric):
    """A metric for one head, which remembers nothing of another."""
    if isinstance(metric, keras.metrics.Metric):
        return type(metric).from_config(metric.get_config())
    return metric
