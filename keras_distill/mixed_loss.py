"""The sum that all ways of distilling minimise: hard labels, soft terms, regularisation.

s·student_loss + (1 − s)·Σ wᵢ·lossᵢ + regularisation of all that is trained

In training `loss` = `total_loss` is this sum; `student_loss`, `distillation_loss` and one metric for each
loss stand beside it. `evaluate` and validation know the hard labels and the regularisation alone.
"""

from typing import Any

import keras
from keras import ops

from keras_distill import checks, epoch, schedules, train_step
from keras_distill.network import Answer
from keras_distill.soft_loss import Batch
from keras_distill.soft_terms import SoftTerms
from keras_distill.training import DistillationModel

_OF_COMPILE = "compile_metrics"  # what Keras calls all the metrics of `compile` together


class MixedLoss(DistillationModel):
    """Base of the modes that minimise the sum: `soft` gives its soft part, `hard` the labels' part.

    Args:
        terms: the distillation losses with their weights.
        student_loss_weight: s, from 0 to 1.
        **kwargs: as for `keras.Model`.
    """

    def __init__(self, terms: SoftTerms, student_loss_weight, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.student_loss_weight = checks.share(student_loss_weight)
        self.soft_terms = terms
        # For Keras to find what is in them: weights, and metrics.
        self.distillation_losses = terms.losses
        self.distillation_loss_trackers = terms.trackers
        self.total_loss_tracker = keras.metrics.Mean(name="total_loss")
        self.student_loss_tracker = keras.metrics.Mean(name="student_loss")
        self.distillation_loss_tracker = keras.metrics.Mean(name="distillation_loss")
        self._hard_loss: Any = None
        self.loss_balancing: Any = None

    @property
    def distillation_loss_weights(self):
        """The weights wᵢ, numbers or schedules."""
        return list(self.soft_terms.weights)

    @property
    def losses(self):
        """Always empty: `mix` adds the regularisation itself, outside the weights of the sum."""
        return []

    def trained(self) -> list:
        """Return the networks and layers whose regularisation counts."""
        raise NotImplementedError

    def soft(self, batch: Batch, answer, targets) -> list:
        """Return the weighted value of each soft term, and note the bare ones in the trackers."""
        raise NotImplementedError

    def hard(self, y, outputs, sample_weight):
        """Return the hard loss, without regularisation, of the examples on this device."""
        if self._hard_loss is None:
            return 0.0
        if y is None:
            if self.student_loss_weight > 0:
                raise ValueError(
                    f"student_loss_weight={self.student_loss_weight} needs labels, and the data has none: "
                    "give (x, y), or student_loss_weight=0."
                )
            return 0.0
        # `losses` is empty, so this is the hard loss alone; Keras has divided it by the replicas.
        loss = super().compute_loss(y=y, y_pred=outputs, sample_weight=sample_weight)
        return ops.cast(loss, "float32") * train_step.replicas()

    def mix(self, x, y, sample_weight, answer: Answer, targets):
        """Return `s·student + (1−s)·Σ wᵢ·lossᵢ + regularisation`, and note each in its metric."""
        steps = self.optimizer.iterations if self.compiled else 0
        with schedules.at(steps, epoch.variable()):
            python = self.compiled and not self.jit_compile and train_step.replicas() == 1
            return self._mix(Batch(x, y, sample_weight, python), answer, targets)

    def _mix(self, batch: Batch, answer: Answer, targets):
        rows, share = batch.rows, self.student_loss_weight
        # Where the labels do not count they may be anything: −1 is a usual mark of "none".
        student_loss = 0.0
        if share > 0:
            student_loss = self.hard(batch.labels, answer.outputs, batch.sample_weight)
        soft = self.soft(batch, answer, targets) if share < 1 else []
        distillation_loss = sum(soft, 0.0)
        if self.loss_balancing is None or not soft:
            total = share * student_loss + (1.0 - share) * distillation_loss
        else:
            weights = [share, *map(schedules.value, self.soft_terms.weights)]
            parts = [share * student_loss, *((1.0 - share) * value for value in soft)]
            total = self.loss_balancing.total(parts, weights)
        total = total + self._regularization() + sum(batch.beside, 0.0)
        self.distillation_loss_tracker.update_state(distillation_loss, sample_weight=rows)
        self._note_totals(total, student_loss, rows)
        if self.compiled:
            # Keras's own "loss", which comes first since there are metrics; it has no public name.
            self.metrics[0].update_state(total, sample_weight=rows)
        return total / train_step.replicas()

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Return the loss of a batch: the whole sum in training, else the hard loss and regularisation.

        `fit` does not pass here in training. Args: as `keras.Model.compute_loss`; `y_pred` may be left out,
        and is not used in training with losses on inner layers.
        """
        if training:
            answer = self.answer_of(x, y_pred)
            return self.mix(x, y, sample_weight, answer, self.targets(x, y))
        if y_pred is None:
            y_pred = self(x, training=False)
        student_loss = self.hard(y, y_pred, sample_weight)
        total = student_loss + self._regularization()
        rows = ops.shape(keras.tree.flatten(y_pred)[0])[0]
        self._note_totals(total, student_loss, rows)
        return total / train_step.replicas()

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Compare the outputs with the labels, and return what has been measured: without labels less."""
        if y is not None:
            return super().compute_metrics(x, y, y_pred, sample_weight)
        by_labels = {_OF_COMPILE, *(f"{name}_loss" for name in self.several_outputs())}
        own = (metric for metric in self.metrics if metric.name not in by_labels)
        return {metric.name: metric.result() for metric in own}

    def several_outputs(self) -> list[str]:
        """Return the names of the outputs that have a hard loss each; none where there is one output."""
        names = list(getattr(self, "output_names", None) or ())
        return names if len(names) > 1 else []

    def get_metrics_result(self):
        """As `keras.Model.get_metrics_result`, also before those of `compile` have seen labels."""
        unseen = any(one.name == _OF_COMPILE and not one.built for one in self.metrics)
        return self.compute_metrics(None, None, None) if unseen else super().get_metrics_result()

    def answer_of(self, x, y_pred) -> Answer:
        """Return what was answered to `x` in training, of which `y_pred` are the outputs, if known."""
        return self.forward(x, training=True)

    def test_step(self, data):
        """Evaluate without a teacher."""
        logs = super().test_step(data)
        of_losses = (
            one for loss in self.distillation_losses for one in getattr(loss, "metrics", ())
        )
        soft = (self.distillation_loss_tracker, *self.distillation_loss_trackers, *of_losses)
        return {name: logs[name] for name in logs if name not in {one.name for one in soft}}

    def check_compile(self, loss, metrics, per_output: bool = False) -> None:
        """Refuse what `compile` cannot mean.

        Args:
            loss: the hard loss.
            metrics: each argument that gives metrics.
            per_output: whether these may be dicts.

        Raises:
            ValueError: no loss although the hard labels count, or metrics that are no list.
        """
        if loss is None and self.student_loss_weight > 0:
            raise ValueError(
                f"'loss' cannot be `None` with student_loss_weight={self.student_loss_weight}: give the "
                "loss on the hard labels, or student_loss_weight=0."
            )
        for given in metrics:
            by_name = isinstance(given, dict) and per_output
            if given is not None and not isinstance(given, list | tuple) and not by_name:
                raise ValueError(f"metrics must be a list or tuple, got {type(given)}")
            checks.no_metric_of_a_loss(given, [one.name for one in self.distillation_loss_trackers])

    def _regularization(self):
        """The regularisation and added losses of all that is trained."""
        terms = [term for layer in self.trained() for term in getattr(layer, "losses", [])]
        return sum((ops.sum(ops.cast(term, "float32")) for term in terms), 0.0)

    def _note_totals(self, total, student_loss, rows) -> None:
        self.total_loss_tracker.update_state(total, sample_weight=rows)
        self.student_loss_tracker.update_state(student_loss, sample_weight=rows)
