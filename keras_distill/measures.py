"""What is measured of a classifier's answers, in NumPy.

p = probabilities(logits)                           # (examples, classes)
expected_calibration_error(p.max(-1), p.argmax(-1) == truth)
table = confusion(truth, p.argmax(-1), classes=10)  # (truth, answer)
better_order(table)                                 # classes that seem to have changed places
"""

import numpy as np


def probabilities(logits, kind: str = "softmax") -> np.ndarray:
    """Return the probabilities `(examples, classes)` that logits mean, in double precision.

    One unit becomes two classes, no and yes.

    Args:
        kind: "softmax", or "sigmoid" for a label in each column.
    """
    logits = np.asarray(logits, "float64")
    if kind == "sigmoid":
        yes = 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
        return np.concatenate([1 - yes, yes], -1) if logits.shape[-1] == 1 else yes
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def entropy(p: np.ndarray) -> np.ndarray:
    """Return the entropy of each row, as a share of the largest possible: 0 for a certain answer."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, -p * np.log(p), 0.0)
    return terms.sum(-1) / np.log(p.shape[-1])


def expected_calibration_error(confidence, right, bins: int = 15) -> float:
    """Return the mean gap between how sure answers are and how often they are right, weighed by examples.

    Args:
        confidence: of each answer, 0..1.
        right: whether it is right.
        bins: of equal width.

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, arXiv 1706.04599.
    """
    confidence, right = np.asarray(confidence, float), np.asarray(right, float)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(confidence[place == one].sum() - right[place == one].sum()) for one in np.unique(place)
    ]
    return float(sum(gaps) / len(confidence))


def confusion(truth, answers, classes: int) -> np.ndarray:
    """Return how often each class (row) was answered as each class (column)."""
    table = np.zeros((classes, classes), int)
    np.add.at(table, (np.asarray(truth), np.asarray(answers)), 1)
    return table


def better_order(table: np.ndarray) -> dict[int, int]:
    """Return {class: the answer that means it} of those that seem to have changed places; {} for none.

    They are those of the assignment of answers to classes with most examples right, if each of them is
    answered so in more than half of its examples.
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(-table)
    moved = {
        int(row): int(column) for row, column in zip(rows, columns, strict=True) if row != column
    }
    counts = table.sum(axis=1)
    sure = all(2 * table[row, column] > counts[row] for row, column in moved.items())
    return moved if sure else {}
