"""Is this teacher worth learning from? Asked before anything is trained.

check = kd.check_teacher(teacher, validation, train=train, class_names=["cat", "dog"])
print(check)                    # figures beside two baselines, each class, what is wrong
check.raise_if_wrong()          # where its classes are in another order than the labels
kd.losses.SoftTargets(check.temperature)
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from keras_distill import measures
from keras_distill.teacher_check.answers import Seen, read
from keras_distill.teacher_check.baseline import baseline as trained_baseline
from keras_distill.teacher_check.sentences import of_order, sentences
from keras_distill.teachers import as_teacher
from keras_distill.teachers.model import as_it_was

_SOFT = 0.3  # of the largest entropy: answers that say something about the other classes


@dataclasses.dataclass(frozen=True)
class TeacherCheck:
    """What `check_teacher` found; prints as a table.

    Attributes:
        examples: how many it answered.
        accuracy: share of right answers; of several labels for an example, of right labels.
        majority: the accuracy of always answering what is most frequent.
        baseline: the accuracy of a logistic regression on shrunken inputs; None where it was not trained.
        calibration_error: how far its certainty is from how often it is right, see `measures`.
        confidence: its mean certainty of its answers.
        per_class: {name: (share of right answers, examples)}.
        train_accuracy: on the training data, or None.
        entropy: of its answers at temperature 1, as a share of the largest: of the training data if given.
        temperature: the lowest of 1, 1.5, 2, 3, … 20 at which its answers have 0.3 of the largest entropy.
        reordered: {class: the class that it answers instead} where classes seem to have changed places.
        warnings: sentences on what is wrong.
    """

    examples: int
    accuracy: float
    majority: float
    baseline: float | None
    calibration_error: float
    confidence: float
    per_class: dict[str, tuple[float, int]]
    train_accuracy: float | None
    entropy: float
    temperature: float
    reordered: dict[str, str]
    warnings: tuple[str, ...]

    def raise_if_wrong(self) -> "TeacherCheck":
        """Return self; raise ValueError where classes are in another order than the labels."""
        if self.reordered:
            raise ValueError(of_order(self.reordered))
        return self

    def __str__(self) -> str:
        rows = [
            ("right", f"{self.accuracy:.1%} of {self.examples:,}"),
            ("always the most frequent", f"{self.majority:.1%}"),
        ]
        if self.baseline is not None:
            rows.append(("a logistic regression", f"{self.baseline:.1%}"))
        if self.train_accuracy is not None:
            rows.append(("right on training data", f"{self.train_accuracy:.1%}"))
        rows += [
            ("mean certainty", f"{self.confidence:.1%}"),
            ("calibration error", f"{self.calibration_error:.1%}"),
            ("entropy of its answers", f"{self.entropy:.1%} of the largest"),
            ("suggested temperature", f"{self.temperature:g}"),
        ]
        worst = sorted(self.per_class.items(), key=lambda item: item[1][0])[:5]
        rows += [
            (f"  {name}", f"{share:.1%} of {count:,}") for name, (share, count) in worst if count
        ]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {value}" for name, value in rows]
        return "\n".join([*lines, *(f"! {sentence}" for sentence in self.warnings)])


def check_teacher(
    teacher: Any,
    data: Any,
    train: Any = None,
    class_names: Sequence[str] | None = None,
    *,
    teacher_inputs: Callable[[Any], Any] | str | None = None,
    teacher_activation: str = "auto",
    baseline: bool = True,
    max_examples: int = 10_000,
) -> TeacherCheck:
    """Look at a teacher before it teaches.

    Args:
        teacher: what a `Distiller` takes: a `keras.Model`, or one of `keras_distill.teachers`, of one output
            `(examples, classes)`, one unit for no and yes, or several labels with a sigmoid each.
        data: examples that it has not seen, with labels: `(x, y)` of arrays, or batches of them (a
            `tf.data.Dataset`, a `keras.utils.PyDataset`).
        train: the training data, in the same form: for the gap to them, the entropy of what the student will
            be taught, and the baseline.
        class_names: in the order of the labels.
        teacher_inputs, teacher_activation: as for `Distiller`.
        baseline: whether to train a logistic regression on up to 2,000 examples, shrunk to 8×8 pixels or
            1,024 numbers: of `train`, or of `data` by cross-validation.
        max_examples: of each that are read.

    Raises:
        ValueError: there are no examples or no labels, labels that are no classes, an answer of another
            shape or that is not finite, or one that looks like probabilities where logits are expected.
    """
    with as_it_was(teacher):
        asked = as_teacher(teacher, teacher_inputs, teacher_activation)
        seen = read(asked, data, max_examples)
        known = None if train is None else read(asked, train, max_examples)
    names = list(map(str, range(seen.classes) if class_names is None else class_names))
    if len(names) != seen.classes:
        raise ValueError(
            f"class_names has {len(names)} names, and the teacher answers {seen.classes} classes."
        )
    taught = seen if known is None else known
    check = TeacherCheck(
        examples=len(seen.truth),
        accuracy=float(seen.right.mean()),
        majority=seen.majority(),
        baseline=trained_baseline(seen, known) if baseline else None,
        calibration_error=measures.expected_calibration_error(
            seen.confidence.ravel(), seen.right.ravel()
        ),
        confidence=float(seen.confidence.mean()),
        per_class=dict(zip(names, seen.per_class(), strict=True)),
        train_accuracy=None if known is None else float(known.right.mean()),
        entropy=taught.entropy(1.0),
        temperature=_temperature(taught),
        reordered={names[a]: names[b] for a, b in seen.reordered().items()},
        warnings=(),
    )
    return dataclasses.replace(check, warnings=tuple(sentences(check)))


def _temperature(taught: Seen) -> float:
    for temperature in (1.0, 1.5, 2.0, *map(float, range(3, 21))):
        if taught.entropy(temperature) >= _SOFT:
            return temperature
    return 20.0
