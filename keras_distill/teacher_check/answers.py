"""A teacher's answers to labelled examples, gathered.

seen = read(teacher, (x, y), most=10_000)
seen.right, seen.confidence, seen.per_class()
"""

import dataclasses
import functools

import keras
import numpy as np

from keras_distill import kinds, measures
from keras_distill.teacher_check.simple_features import simple_features

_BATCH = 64
FOR_BASELINE = 2000  # examples whose features are kept


@dataclasses.dataclass(frozen=True)
class Seen:
    """Labels `(examples,)` and answers `(examples, classes)`; of several labels both of the latter shape."""

    features: np.ndarray
    truth: np.ndarray
    logits: np.ndarray
    kind: str

    @property
    def classes(self) -> int:
        """How many there are; of one unit two, no and yes."""
        return max(2, self.logits.shape[-1]) if self.truth.ndim == 1 else self.logits.shape[-1]

    @functools.cached_property
    def p(self) -> np.ndarray:
        """The probabilities that the answers mean."""
        return measures.probabilities(self.logits, self.kind)

    @property
    def right(self) -> np.ndarray:
        """Whether each answer is right, `(examples,)` or `(examples, labels)`."""
        if self.truth.ndim == 1:
            return self.p.argmax(-1) == self.truth
        return (self.p > 0.5) == (self.truth > 0.5)

    @property
    def confidence(self) -> np.ndarray:
        """How sure each answer is, of the same shape."""
        return self.p.max(-1) if self.truth.ndim == 1 else np.maximum(self.p, 1 - self.p)

    def majority(self) -> float:
        """Return the accuracy of always answering what is most frequent."""
        if self.truth.ndim == 1:
            return float(np.bincount(self.truth).max() / len(self.truth))
        share = self.truth.mean(0)
        return float(np.maximum(share, 1 - share).mean())

    def per_class(self) -> list[tuple[float, int]]:
        """Return the share of right answers and the number of examples of each class or label."""
        if self.truth.ndim == 2:
            return [(float(column.mean()), len(self.truth)) for column in self.right.T]
        masks = [self.truth == one for one in range(self.classes)]
        return [(float(self.right[m].mean()) if m.any() else 0.0, int(m.sum())) for m in masks]

    def reordered(self) -> dict[int, int]:
        """Return {class: the answer that means it} where classes seem to have changed places."""
        if self.truth.ndim == 2:
            return {}
        return measures.better_order(
            measures.confusion(self.truth, self.p.argmax(-1), self.classes)
        )

    def entropy(self, temperature: float) -> float:
        """Return the mean entropy of the softened answers, as a share of the largest."""
        p = measures.probabilities(self.logits / temperature, self.kind)
        if self.truth.ndim == 2:
            p = np.stack([1 - p, p], -1)
        return float(measures.entropy(p).mean())


def read(teacher, data, most: int) -> Seen:
    """Ask a `teachers.Teacher` about at most `most` examples.

    Raises:
        ValueError: see `check_teacher`.
    """
    import tensorflow as tf

    answer = tf.function(
        lambda x: teacher.targets(x).logits, autograph=False, reduce_retracing=True
    )
    features, truths, logits, kind, count = [], [], [], "softmax", 0
    for x, y in _batches(data):
        if y is None:
            raise ValueError("check_teacher needs labels: give (x, y), or batches of them.")
        if not count:
            teacher.check_looks(x)
            first = teacher.targets(x)
            kind = _kind(first, y)
        found = np.asarray(answer(x))
        if not np.isfinite(found).all():
            raise ValueError(
                f"The teacher's answer to one of the examples {count}..{count + len(found) - 1} is not "
                "finite: look at its weights, or at the data."
            )
        truths.append(_truth(np.asarray(y), found, kind))
        logits.append(found)
        if count < FOR_BASELINE:
            features.append(simple_features(x))
        count += len(found)
        if count >= most:
            break
    if not count:
        raise ValueError("check_teacher was given no examples.")
    return Seen(np.concatenate(features), np.concatenate(truths), np.concatenate(logits), kind)


def _batches(data):
    if (
        isinstance(data, tuple)
        and len(data) in (2, 3)
        and hasattr(keras.tree.flatten(data[0])[0], "shape")
    ):
        x, y = data[:2]
        count = len(keras.tree.flatten(x)[0])
        if y is not None and len(y) != count:
            raise ValueError(f"{count} examples have {len(y)} labels.")
        for start in range(0, count, _BATCH):
            rows = slice(start, start + _BATCH)
            yield (
                keras.tree.map_structure(lambda leaf, rows=rows: leaf[rows], x),
                None if y is None else y[rows],
            )
        return
    if isinstance(data, keras.utils.PyDataset):
        data = (data[i] for i in range(len(data)))
    for batch in data:
        x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
        yield x, y


def _kind(first, y) -> str:
    logits = first.logits
    if keras.tree.is_nested(logits) or len(logits.shape) != 2:
        shapes = keras.tree.map_structure(lambda one: tuple(one.shape), logits)
        raise ValueError(
            f"check_teacher takes a teacher of one output (examples, classes), and this one answers {shapes}."
        )
    kind = kinds.of(logits, ends=[first.activations])
    y = np.asarray(y)
    several = y.shape == tuple(logits.shape) and logits.shape[-1] > 1
    if kind == "softmax" and several and (y.sum(-1) > 1.01).any():
        return "sigmoid"  # logits of labels that are each right or wrong
    return kind


def _truth(y: np.ndarray, logits: np.ndarray, kind: str) -> np.ndarray:
    """Class numbers `(examples,)`; of several labels 0 or 1 for each, `(examples, labels)`."""
    classes = max(2, logits.shape[-1])
    if y.ndim == 2 and y.shape[-1] == 1:
        y = y[:, 0]
    if y.shape == logits.shape:
        if kind == "sigmoid":
            return (y > 0.5).astype(int)
        y = y.argmax(-1)
    if y.shape != logits.shape[:1] or y.dtype.kind not in "biuf":
        raise ValueError(
            f"The teacher answers {logits.shape}, and the labels have shape {y.shape} ({y.dtype}): give "
            "class numbers, one-hot rows, or 0 and 1 for each label."
        )
    whole = y.astype(int)
    if (whole != y).any() or whole.min() < 0 or whole.max() >= classes:
        raise ValueError(
            f"The teacher has the classes 0..{classes - 1}, and the labels go from {y.min()} to {y.max()}: "
            "give whole numbers of these classes, and leave out examples without one."
        )
    return whole
