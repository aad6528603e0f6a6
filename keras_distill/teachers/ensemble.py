"""Several teachers whose answers become one."""

import keras
from keras import ops

from keras_distill import kinds, schedules
from keras_distill.network import Answer
from keras_distill.soft_loss import Outputs
from keras_distill.teachers.several import Several

WEIGHTINGS = ("mean", "entropy", "confidence")


@keras.saving.register_keras_serializable(package="keras_distill")
class Ensemble(Several):
    """Several teachers as one: the mean of their softened answers, weighed for each example.

    With K teachers of logits zₖ, p = Σₖ wₖ·softmax(zₖ/T), where Σₖ wₖ = 1 for each example (and position):

    - "mean": wₖ = 1/K (AVER);
    - "entropy": wₖ = (1 − Hₖ/ΣⱼHⱼ)/(K − 1), Hₖ the entropy of softmax(zₖ): who is sure counts more (EBKD);
    - "confidence": wₖ = (1 − softmaxₖ(CEₖ))/(K − 1), CEₖ the cross-entropy with the true label: who is right
      counts more (CA-MKD). It needs labels; an example whose label is no class is weighed by 1/K.

    The answer's logits are T·log p: a loss at the same temperature reads p itself. Of outputs that end in a
    sigmoid, each label is averaged by itself.

    Args:
        teachers: `keras.Model`s or teachers, of the same classes and outputs: a list, or a dict by name. A
            loss on features names a layer as "name/layer"; in a list the names are "0", "1", …
        weighting: "mean", "entropy" or "confidence".
        temperature: T, at which they are averaged: that of the loss.
        inputs: None, or a list (or dict) with None, a key into the batch or a callable for each teacher, such
            as `lambda x: keras.ops.image.resize(x, (224, 224))` for one that takes larger images.
        activation: "auto", or a list (or dict) with what each teacher's outputs are.
        independent_labels: whether logits without a sigmoid are of labels that are each right or wrong.

    Raises:
        ValueError: an argument that cannot be meant; in use: other outputs or classes than the first
            teacher's, or labels are needed and missing.

    Source: Zhang et al. 2022, Confidence-Aware Multi-Teacher Knowledge Distillation, arXiv 2201.00007.
    """

    def __init__(
        self,
        teachers,
        weighting="mean",
        temperature=4.0,
        inputs=None,
        activation="auto",
        independent_labels=False,
    ):
        super().__init__(teachers, inputs, activation)
        if weighting not in WEIGHTINGS:
            raise ValueError(
                f"weighting={weighting!r} is not known: give one of {', '.join(map(repr, WEIGHTINGS))}."
            )
        self.weighting = weighting
        self.temperature = schedules.fixed("temperature", temperature, above=True)
        self.independent_labels = bool(independent_labels)

    def targets(self, x, labels=None) -> Answer:
        """Return the weighted mean of what they answer, and the inner layers of each."""
        answers = self.asked(x, labels)
        first = next(iter(answers.values()))
        for name, answer in answers.items():
            self._check(name, answer, first)
        logits = [keras.tree.flatten(answer.logits) for answer in answers.values()]
        ends = [keras.tree.flatten(answer.activations) for answer in answers.values()]
        labels = Outputs(first, None, "teacher").of(labels)
        each = [
            self._combined(ops.stack(same), self._kind(same, ended), label)
            for *same, ended, label in zip(*logits, zip(*ends, strict=True), labels, strict=True)
        ]
        outputs, logits, activations = (
            keras.tree.pack_sequence_as(first.outputs, list(one)) for one in zip(*each, strict=True)
        )
        return Answer(outputs, logits, activations, self._inner(answers), first.names)

    def spec(self) -> Answer | None:
        """Return the symbolic answer, or None where one of theirs is not known."""
        specs = {name: one.spec() for name, one in self.members.items()}
        answers = {name: spec for name, spec in specs.items() if spec is not None}
        if len(answers) < len(specs):
            return None
        first = next(iter(answers.values()))
        return Answer(first.outputs, first.logits, None, self._inner(answers), first.names)

    def _inner(self, answers: dict) -> dict:
        return {
            f"{name}/{layer}": value
            for name, answer in answers.items()
            for layer, value in answer.inner.items()
        }

    def tap(self, layer_names) -> None:
        """Read these inner layers, "name/layer", of the teachers."""
        for whole in layer_names:
            name, _, layer = whole.partition("/")
            if name not in self.members or not layer:
                raise ValueError(
                    f"The layer '{whole}' is looked for in an Ensemble of {list(self.members)}: give the "
                    f"teacher's name first, such as '{next(iter(self.members))}/{whole}'."
                )
            self.members[name].tap([layer])

    def find_layer(self, name: str):
        """Return the inner layer of this name."""
        member, _, layer = name.partition("/")
        return self.members[member].find_layer(layer)

    def _kind(self, logits, ends) -> str:
        return kinds.of(logits[0], ends, independent_labels=self.independent_labels)

    def _combined(self, logits, kind: str, labels):
        """Outputs, logits and their kind, of logits `(teachers, batch, ..., classes)`."""
        log_weights = ops.log(ops.maximum(self._weights(logits, kind, labels), 1e-30))[..., None]

        def mean(values):
            return ops.logsumexp(log_weights + values, axis=0)

        if kind == "softmax":
            combined = mean(ops.log_softmax(logits / self.temperature, axis=-1))
            outputs = ops.exp(mean(ops.log_softmax(logits, axis=-1)))
        else:
            yes, no = (mean(ops.log_sigmoid(sign * logits / self.temperature)) for sign in (1, -1))
            combined = yes - no
            outputs = ops.exp(mean(ops.log_sigmoid(logits)))
        return outputs, self.temperature * combined, kind

    def _weights(self, logits, kind: str, labels):
        """wₖ, `(teachers, batch, ...)`."""
        count = logits.shape[0]
        even = ops.ones_like(logits[..., 0]) / count
        if self.weighting == "mean" or count == 1:
            return even
        if self.weighting == "entropy":
            entropy = kinds.cross_entropy(kinds.probabilities(logits, kind), logits, kind)
            total = ops.sum(entropy, axis=0, keepdims=True)
            shares = ops.where(total > 1e-20, entropy / ops.maximum(total, 1e-20), even)
            return _of_others(shares)
        if labels is None:
            raise ValueError(
                "Ensemble(weighting='confidence') compares the teachers with the labels, and there are "
                "none: give (x, y), or weighting='entropy'."
            )
        truth, known = kinds.truth(labels, logits[0], kind)
        wrong = ops.softmax(kinds.cross_entropy(truth, logits, kind), axis=0)
        return ops.where(ops.all(known, axis=-1), _of_others(wrong), even)

    def _check(self, name: str, answer: Answer, first: Answer) -> None:
        try:
            keras.tree.assert_same_structure(answer.outputs, first.outputs)
        except ValueError as error:
            raise ValueError(
                f"The teachers of an Ensemble answer alike, and '{name}' has other outputs than the first: "
                "choose one of them with keras.Model(teacher.input, teacher.output[...])."
            ) from error
        shapes = [
            [tuple(one.shape[1:]) for one in keras.tree.flatten(which.logits)]
            for which in (answer, first)
        ]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"The teachers of an Ensemble answer alike, and '{name}' ends in {shapes[0]} where the first "
                f"ends in {shapes[1]}: give teachers of the same classes, or one teacher for each loss "
                "(Distiller(teacher=[a, b], ...)) with class_indices=."
            )

    def _own_config(self) -> dict:
        return {
            "weighting": self.weighting,
            "temperature": self.temperature,
            "independent_labels": self.independent_labels,
        }


def _of_others(shares):
    """(1 − share)/(K − 1) of shares `(K, ...)` that sum to 1: what the others have, on average."""
    count = shares.shape[0]
    return ops.tensordot((1.0 - ops.eye(count)) / (count - 1), shares, axes=1)
