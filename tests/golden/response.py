"""Float64 NumPy transcriptions of the losses on responses, from the papers, not from our code."""

import numpy as np


def softmax(z):
    """Over the last axis."""
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def soft_targets(teacher, student, temperature):
    """Hinton, Vinyals, Dean 2015: T² · mean_i Σ_c p log(p / q)."""
    p = softmax(np.asarray(teacher, "float64") / temperature)
    q = softmax(np.asarray(student, "float64") / temperature)
    return temperature**2 * np.mean(np.sum(p * (np.log(p) - np.log(q)), axis=-1))


def soft_labels(teacher, student, temperature):
    """The same for independent labels: the KL of each label's two outcomes, summed over labels."""
    p = 1 / (1 + np.exp(-np.asarray(teacher, "float64") / temperature))
    q = 1 / (1 + np.exp(-np.asarray(student, "float64") / temperature))
    each = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    return temperature**2 * np.mean(each.sum(-1))


def crossentropy(labels, logits):
    """Mean of −log softmax(z)[y]."""
    p = softmax(np.asarray(logits, "float64"))
    return -np.mean(np.log(p[np.arange(len(labels)), labels]))
