"""Float64 NumPy transcriptions of the losses on relations, from the papers, not from our code.

Examples of weight 0 are left out entirely; pairs of the others count w_i w_j / Σ w_i w_j.
Features of more than one position are flattened, with 0 at masked positions.
"""

import math

import numpy as np

from tests.golden.feature import (
    normalised,
    pooled,
    unchanged,
    valid_positions,
)
from tests.golden.response import mean_of_examples


def flat(features, mask=None):
    """(batch, everything), 0 at masked positions."""
    features = np.asarray(features, "float64")
    if mask is not None:
        features = features * np.reshape(mask, (*np.shape(mask), 1))
    return features.reshape(len(features), -1)


def kept(teacher, student, weights, mask):
    """Both flat and their weights, less the rows of weight 0."""
    teacher, student = flat(teacher, mask), flat(student, mask)
    weights = np.ones(len(student)) if weights is None else np.asarray(weights, "float64")
    return teacher[weights > 0], student[weights > 0], weights[weights > 0]


def mean_of_pairs(each, weights):
    """Of (rows, rows) by w_i w_j; 0 of no rows."""
    pairs = np.outer(weights, weights)
    return np.sum(each * pairs) / pairs.sum() if len(weights) else 0.0


def smooth_l1(a, b):
    """Huber's loss, β = 1."""
    d = np.abs(a - b)
    return np.where(d < 1, 0.5 * d**2, d - 0.5)


def rkd_distance(teacher, student, weights=None, mask=None):
    """Park et al. 2019, eq. 4 to 6: distances over the mean of the positive ones."""
    teacher, student, weights = kept(teacher, student, weights, mask)

    def distances(f):
        d = np.array([[np.linalg.norm(a - b) for b in f] for a in f]).reshape(len(f), len(f))
        return d / d[d > 0].mean() if (d > 0).any() else d

    return mean_of_pairs(smooth_l1(distances(student), distances(teacher)), weights)


def rkd_angle(teacher, student, weights=None, mask=None):
    """Park et al. 2019, eq. 7 and 8: cos of the angle j-i-k of all triplets, 0 where two agree."""
    teacher, student, weights = kept(teacher, student, weights, mask)
    total, count = 0.0, 0.0
    rows = range(len(weights))

    def cosine(f, i, j, k):
        return normalised(f[j] - f[i]) @ normalised(f[k] - f[i])

    for i in rows:
        for j in rows:
            for k in rows:
                w = weights[i] * weights[j] * weights[k]
                total += w * smooth_l1(cosine(student, i, j, k), cosine(teacher, i, j, k))
                count += w
    return total / count if count else 0.0


def similarity_preserving(teacher, student, weights=None, mask=None):
    """Tung & Mori 2019, eq. 2 to 4: rows of F Fᵀ, L2-normalised."""
    teacher, student, weights = kept(teacher, student, weights, mask)

    def similarities(f):
        return normalised(f @ f.T)

    return mean_of_pairs((similarities(student) - similarities(teacher)) ** 2, weights)


def correlation_congruence(teacher, student, gamma=0.4, order=2, weights=None, mask=None):
    """Peng et al. 2019, eq. 8: exp(−γ‖a − b‖²) of unit a, b as a Taylor series in aᵀb."""
    teacher, student, weights = kept(teacher, student, weights, mask)

    def kernel(f):
        cosines = normalised(f) @ normalised(f).T
        terms = [(2 * gamma) ** p / math.factorial(p) * cosines**p for p in range(order + 1)]
        return math.exp(-2 * gamma) * sum(terms)

    return mean_of_pairs((kernel(student) - kernel(teacher)) ** 2, weights)


def pkt(teacher, student, weights=None, mask=None):
    """Passalis & Tefas 2018, eq. 5 to 8, as the authors' code: the mean over B², eps 1e-7.

    Weights weigh the rows, and in each row the neighbours of both networks.
    """
    teacher, student, weights = kept(teacher, student, weights, mask)
    eps = 1e-7

    def probabilities(f):
        f = f / (np.linalg.norm(f, axis=1, keepdims=True) + eps)
        similarities = (f @ f.T + 1) / 2 * weights
        return similarities / similarities.sum(axis=1, keepdims=True)

    t, s = probabilities(teacher), probabilities(student)
    rows = (t * np.log((t + eps) / (s + eps))).sum(axis=1)
    return np.sum(weights * rows) / weights.sum() / len(rows) if len(rows) else 0.0


def fsp(teachers, students, connectors=None, weights=None, mask=None):
    """Yim et al. 2017, eq. 1 and 2: MSE of mean_hw(f_low ⊗ f_high), summed over neighbours.

    Within a network the larger map of the two is pooled to the smaller; connectors, one per
    layer, change the student's widths to the teacher's; an example weighs w_i / B.
    """
    connectors = connectors or [unchanged] * len(students)
    students = [c(np.asarray(s, "float64")) for c, s in zip(connectors, students, strict=True)]
    teachers = [np.asarray(t, "float64") for t in teachers]

    def grams(low, high):
        for axis in range(1, low.ndim - 1):
            size = min(low.shape[axis], high.shape[axis])
            low, high = pooled(low, size, axis), pooled(high, size, axis)
        pairs = zip(valid_positions(low, mask), valid_positions(high, mask), strict=True)
        return np.stack([(a.T @ b) / max(len(a), 1) for a, b in pairs])

    loss = 0.0
    for i in range(len(students) - 1):
        difference = grams(*students[i : i + 2]) - grams(*teachers[i : i + 2])
        loss += mean_of_examples(np.mean(difference**2, axis=(1, 2)), weights)
    return loss


def contrastive_distillation(
    teacher,
    student,
    teacher_kernel,
    student_kernel,
    teacher_bias=0.0,
    student_bias=0.0,
    temperature=0.07,
    labels=None,
    weights=None,
    mask=None,
):
    """Tian et al. 2020 with negatives of the batch: InfoNCE of student→teacher and back, averaged.

    Features of more than one position are averaged over the valid ones.
    With labels, another example of the anchor's class is no negative; an anchor weighs w_i / B.
    """
    student, teacher = (
        np.stack([one.mean(0) for one in valid_positions(features, mask)])
        for features in (student, teacher)
    )
    student = normalised(student @ student_kernel + student_bias)
    teacher = normalised(teacher @ teacher_kernel + teacher_bias)
    batch = len(student)
    weights = np.ones(batch) if weights is None else np.asarray(weights, "float64")
    if labels is not None:
        labels = np.asarray(labels)
        two = labels.ndim == 2 and labels.shape[1] > 1
        labels = labels.argmax(-1) if two else labels.reshape(-1)
    loss = 0.0
    for i in range(batch):
        if weights[i] == 0:
            continue
        against = [
            j
            for j in range(batch)
            if j == i or (weights[j] > 0 and (labels is None or labels[j] != labels[i]))
        ]
        for anchor, others in ((student, teacher), (teacher, student)):
            scores = np.array([anchor[i] @ others[j] for j in against]) / temperature
            positive = anchor[i] @ others[i] / temperature
            loss += 0.5 * weights[i] * (np.log(np.sum(np.exp(scores))) - positive) / batch
    return loss
