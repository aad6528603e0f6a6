"""Float64 NumPy transcriptions of the losses on responses, from the papers, not from our code."""

import numpy as np


def softmax(z):
    """Over the last axis."""
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def mean_of_examples(each, weights=None):
    """Σ_i w_i l_i / B of losses `each` (batch,); without weights their mean."""
    weights = np.ones(len(each)) if weights is None else np.asarray(weights, "float64")
    return np.sum(weights * each) / len(each)


def standardize(z):
    """Sun et al. 2024: every row less its mean, over its unbiased standard deviation + 1e-7."""
    z = np.asarray(z, "float64")
    return (z - z.mean(-1, keepdims=True)) / (z.std(-1, ddof=1, keepdims=True) + 1e-7)


def of_positions(z):
    """(batch, ..., classes) to (batch, positions, classes)."""
    z = np.asarray(z, "float64")
    return z.reshape(len(z), -1, z.shape[-1])


def classes_of(labels, logits):
    """Integers (batch, positions) of labels that are integers, a column of them, or one-hot."""
    labels = np.asarray(labels)
    if labels.shape == np.shape(logits):
        labels = labels.argmax(-1)
    return labels.reshape(len(labels), -1).astype(int)


def without(row, k):
    """`row` less its entry k."""
    return np.concatenate([row[:k], row[k + 1 :]])


def kl(p, q):
    """Σ p log(p / q) of two rows."""
    return np.sum(p * (np.log(p) - np.log(q)))


def soft_targets(teacher, student, temperature=4.0, weights=None):
    """Hinton, Vinyals, Dean 2015: T² · mean_i Σ_c p log(p / q)."""
    p = softmax(of_positions(teacher) / temperature)
    q = softmax(of_positions(student) / temperature)
    each = np.sum(p * (np.log(p) - np.log(q)), axis=-1).mean(-1)
    return temperature**2 * mean_of_examples(each, weights)


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


def of_labelled_rows(row_loss, teacher, student, labels, weights):
    """Mean over positions, then examples, of `row_loss(teacher's row, student's row, label)`."""
    labels = classes_of(labels, student)
    student = of_positions(student)
    teacher = student if teacher is None else of_positions(teacher)
    each = [
        np.mean([row_loss(t, s, y) for t, s, y in zip(*of_one, strict=True)])
        for of_one in zip(teacher, student, labels, strict=True)
    ]
    return mean_of_examples(np.array(each), weights)


def decoupled_kd(teacher, student, labels, alpha=1.0, beta=8.0, temperature=4.0, weights=None):
    """Zhao et al. 2022, eq. 7: α TCKD + β NCKD, each T² times a KL."""

    def row(t, s, y):
        p, q = softmax(t / temperature), softmax(s / temperature)
        target = kl(np.array([p[y], without(p, y).sum()]), np.array([q[y], without(q, y).sum()]))
        others = kl(softmax(without(t, y) / temperature), softmax(without(s, y) / temperature))
        return temperature**2 * (alpha * target + beta * others)

    return of_labelled_rows(row, teacher, student, labels, weights)


def pearson_distance(a, b, weights):
    """1 − the weighted Pearson correlation; 0 where both are constant, 1 where one is."""
    share = weights / weights.sum()
    a, b = a - np.sum(share * a), b - np.sum(share * b)
    constant = [np.abs(x[weights > 0]).max() < 1e-12 for x in (a, b)]
    if any(constant):
        return 0.0 if all(constant) else 1.0
    return 1 - np.sum(share * a * b) / np.sqrt(np.sum(share * a**2) * np.sum(share * b**2))


def dist(teacher, student, beta=1.0, gamma=1.0, temperature=1.0, weights=None):
    """Huang et al. 2022, eq. 9 and 10: rows (inter-class) and columns (intra-class) of softmax.

    A position is a row. A row of weight 0 is in no column, the others count there by weight.
    """
    p = softmax(of_positions(teacher) / temperature)
    q = softmax(of_positions(student) / temperature)
    batch, positions, classes = p.shape
    weights = np.ones(batch) if weights is None else np.asarray(weights, "float64")
    of_row = np.repeat(weights, positions)
    p, q = p.reshape(-1, classes), q.reshape(-1, classes)
    inter = 0.0
    for w, a, b in zip(of_row, p, q, strict=True):
        if w > 0:
            inter += w * pearson_distance(a, b, np.ones(classes)) / (batch * positions)
    intra = 0.0
    if weights.any():
        intra = np.mean([pearson_distance(p[:, c], q[:, c], of_row) for c in range(classes)])
    return temperature**2 * (beta * inter + gamma * intra)


def normalized_kd(teacher, student, labels, gamma=1.5, temperature=1.0, weights=None):
    """Yang et al. 2023, eq. 9: the target's term at temperature 1, the others' at T."""

    def row(t, s, y):
        target = -softmax(t)[y] * np.log(softmax(s)[y])
        p = softmax(without(t, y) / temperature)
        q = softmax(without(s, y) / temperature)
        return target - gamma * temperature**2 * np.sum(p * np.log(q))

    return of_labelled_rows(row, teacher, student, labels, weights)


def logit_mse(teacher, student, weights=None):
    """Ba & Caruana 2014: the mean of ‖z_s − z_t‖², a sum over classes."""
    squares = np.sum((of_positions(student) - of_positions(teacher)) ** 2, axis=-1)
    return mean_of_examples(squares.mean(-1), weights)


def virtual_teacher(labels, student, temperature=20.0, correct_probability=0.99, weights=None):
    """Yuan et al. 2020, eq. 8 and 9: T² · KL(u^T‖p_s^T), u^T = softmax(log(u) / T)."""

    def row(_, s, y):
        u = np.full(len(s), (1 - correct_probability) / (len(s) - 1))
        u[y] = correct_probability
        p = softmax(np.log(u) / temperature)
        return temperature**2 * kl(p, softmax(s / temperature))

    return of_labelled_rows(row, None, student, labels, weights)
