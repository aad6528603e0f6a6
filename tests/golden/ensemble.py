"""Float64 NumPy transcriptions of how several teachers are weighed, from Zhang et al. 2022 (CA-MKD)."""

import numpy as np

from tests.golden.response import softmax


def weights(logits, weighting, labels=None):
    """(teachers, examples) of logits (teachers, examples, classes)."""
    logits = np.asarray(logits, "float64")
    count, examples, _ = logits.shape
    found = np.empty((count, examples))
    for i in range(examples):
        p = softmax(logits[:, i])
        if weighting == "mean":
            found[:, i] = 1 / count
        elif weighting == "entropy":
            h = -np.sum(p * np.log(p), axis=-1)
            found[:, i] = (1 - h / h.sum()) / (count - 1)
        else:
            wrong = softmax(-np.log(p[:, labels[i]]))
            found[:, i] = (1 - wrong) / (count - 1)
    return found


def softened(logits, temperature, weighting, labels=None):
    """Σ_k w_k softmax(z_k / T), (examples, classes)."""
    w = weights(logits, weighting, labels)
    p = softmax(np.asarray(logits, "float64") / temperature)
    return np.einsum("ki,kic->ic", w, p)
