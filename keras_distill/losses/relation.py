"""Relations between the examples of a batch: what is alike for the teacher is alike for the student.

loss = SimilarityPreserving("conv5_block3_out", "out_relu")
loss.compute_loss(teacher_features, student_features)

The networks' features need not have the same size: each example's are flattened, and examples of one network
are compared with each other. Rows of weight 0 are left out; pairs weigh `wᵢwⱼ / Σ wᵢwⱼ`.
"""

import math

import keras
from keras import ops

from keras_distill import schedules
from keras_distill.losses.base import frozen
from keras_distill.losses.feature_loss import FeatureLoss
from keras_distill.losses.shapes import embeddings, normalized
from keras_distill.losses.weights import paired


class RelationLoss(FeatureLoss):
    """Base of the losses between the examples of a batch.

    Args:
        teacher_layer_name: path of a layer of the teacher, or a list of them; None: the outputs (logits).
        student_layer_name: the same for the student.
        output, name: see `FeatureLoss`.
    """

    reads_one_layer = True

    def compute_loss(
        self, teacher_outputs, student_outputs, labels=None, sample_weight=None, mask=None
    ):
        """Return the sum over the pairs of layers, a scalar.

        Args:
            teacher_outputs: `(batch, ...)`, or a list with those of each layer.
            student_outputs: the same of the student; sizes and ranks may differ.
            labels: not used.
            sample_weight: `(batch,)`, or `(batch, positions...)`, see `Weights`; where it is 0, features
                count as 0.
            mask: `(batch, positions...)`; masked features count as 0.
        """
        total = 0.0
        for teacher, student, weights in paired(
            teacher_outputs, student_outputs, mask, sample_weight
        ):
            rows = weights.at(student).rows
            total = total + self.of_batch(embeddings(teacher), embeddings(student), rows)
        return total

    def of_batch(self, teacher, student, rows):
        """Return the loss of embeddings `(batch, size)` with weights `rows` `(batch,)` or None, a scalar."""
        raise NotImplementedError


def _rows(sample_weight, embeddings):
    """Weights of examples `(batch,)`, ones for None."""
    if sample_weight is None:
        return ops.ones_like(embeddings[:, 0])
    return ops.cast(sample_weight, "float32")


def _pairs_of(weights):
    """`(wᵢwⱼ / Σ wᵢwⱼ, 1 where both count)`, each `(batch, batch)`."""
    products = weights[:, None] * weights[None, :]
    counted = ops.cast(products > 0, "float32")
    return ops.divide_no_nan(products, ops.sum(products)), counted


def _smooth_l1(difference):
    size = ops.abs(difference)
    return ops.where(size < 1.0, 0.5 * ops.square(size), size - 0.5)


def _products(embeddings, weights):
    """Inner products `(batch, batch)` of the embeddings around their mean, which distances do not see."""
    rows = ops.cast(weights > 0, "float32")[:, None]
    mean = ops.divide_no_nan(ops.sum(rows * embeddings, axis=0, keepdims=True), ops.sum(rows))
    centred = rows * (embeddings - mean)
    return ops.matmul(centred, ops.transpose(centred))


def _distances(products):
    """Euclidean distances; 0, without a gradient, where two embeddings are equal but for rounding."""
    squares = ops.diagonal(products)
    sums = squares[:, None] + squares[None, :]
    squared = sums - 2.0 * products
    apart = squared > 1e-6 * sums
    return ops.where(apart, ops.sqrt(ops.where(apart, squared, 1.0)), 0.0)


@keras.saving.register_keras_serializable(package="keras_distill")
class RKDDistance(RelationLoss):
    """Relational distillation, distances: examples are as far apart as for the teacher, relatively.

    `mean_ij SmoothL1(d_s[i, j] − d_t[i, j])` over batch², where d are the Euclidean distances divided by the
    mean of the positive ones.

    When: the output is an embedding (retrieval, faces), or the features of the two have nothing
    else in common.

    Args:
        teacher_layer_name, student_layer_name, output, name: see `RelationLoss`.

    Customary weights: 1 for the hard labels, 25 for this loss.
    Source: Park et al. 2019, arXiv 1904.05068.
    """

    customary_weights = (1.0, 25.0)

    def of_batch(self, teacher, student, rows):
        """Return `rkd_distance`."""
        return rkd_distance(teacher, student, rows)


def rkd_distance(teacher, student, sample_weight=None):
    """Return the distance-wise RKD loss of a batch, a scalar.

    Args:
        teacher: `(batch, size)`.
        student: `(batch, size)`, of another size perhaps.
        sample_weight: `(batch,)`, or None.
    """
    teacher, student = frozen(teacher), ops.cast(student, "float32")
    weights = _rows(sample_weight, student)
    share, counted = _pairs_of(weights)

    def relative(embeddings):
        distances = _distances(_products(embeddings, weights)) * counted
        positive = ops.cast(distances > 0, "float32")
        mean = ops.divide_no_nan(ops.sum(distances), ops.sum(positive))
        return ops.divide_no_nan(distances, mean)

    return ops.sum(share * _smooth_l1(relative(student) - relative(teacher)))


@keras.saving.register_keras_serializable(package="keras_distill")
class RKDAngle(RelationLoss):
    """Relational distillation, angles: three examples form the angle that they form for the teacher.

    `mean_ijk SmoothL1(cos_s(i, j, k) − cos_t(i, j, k))` over batch³, where cos(i, j, k) is the cosine of the
    angle at j; 0 where two of them coincide.

    With its gradient it takes about `9·4·n³` bytes for n examples, 72 MiB for 128, and there are never
    more: of larger batches the first `max_examples` are compared (of shuffled data, others in each step).

    When: together with RKDDistance.

    Args:
        teacher_layer_name, student_layer_name: see `RelationLoss`.
        max_examples: the most examples of a batch to compare, 3 at least.
        output, name: see `RelationLoss`.

    Customary weights: 1 for the hard labels, 50 for this loss.
    Source: Park et al. 2019, arXiv 1904.05068.
    """

    customary_weights = (1.0, 50.0)

    def __init__(
        self,
        teacher_layer_name=None,
        student_layer_name=None,
        max_examples=128,
        output=None,
        name=None,
    ):
        super().__init__(teacher_layer_name, student_layer_name, output, name)
        self.max_examples = schedules.whole("max_examples", max_examples, 3)

    def of_batch(self, teacher, student, rows):
        """Return `rkd_angle` of the first `max_examples`."""
        first = slice(self.max_examples)
        return rkd_angle(teacher[first], student[first], None if rows is None else rows[first])

    def get_config(self):
        """Return the arguments of the constructor."""
        return {"max_examples": self.max_examples, **super().get_config()}


def rkd_angle(teacher, student, sample_weight=None):
    """Return the angle-wise RKD loss of a batch, a scalar; it takes memory for batch³ numbers.

    Args:
        teacher: `(batch, size)`.
        student: `(batch, size)`, of another size perhaps.
        sample_weight: `(batch,)`, or None.
    """
    teacher, student = frozen(teacher), ops.cast(student, "float32")
    weights = _rows(sample_weight, student)
    share = ops.divide_no_nan(weights, ops.sum(weights))

    def cosines(embeddings):  # [j, i, k]
        products = _products(embeddings, weights)
        distances = _distances(products)
        apart = distances > 0
        inverse = ops.where(apart, 1.0 / ops.where(apart, distances, 1.0), 0.0)
        to_anchor = products - ops.diagonal(products)[:, None]  # [j, i]: ⟨f_i − f_j, f_j⟩
        inner = ops.expand_dims(products, 0) - ops.expand_dims(products, 2)
        inner = inner - ops.expand_dims(to_anchor, 1)
        return inner * ops.expand_dims(inverse, 2) * ops.expand_dims(inverse, 1)

    values = _smooth_l1(cosines(student) - cosines(teacher))
    return ops.sum(share * ops.matmul(ops.matmul(values, share), share))


@keras.saving.register_keras_serializable(package="keras_distill")
class SimilarityPreserving(RelationLoss):
    """Similarity-preserving distillation (SP): inputs that look alike to the teacher do to the student.

    `‖n(F_s F_sᵀ) − n(F_t F_tᵀ)‖²_F / batch²`, where F are the flattened features and n divides each row by
    its L2 norm.

    When: networks of different kinds; it is cheap and has no weights of its own.

    Args:
        teacher_layer_name, student_layer_name, output, name: see `RelationLoss`.

    Customary weights: 1 for the hard labels, 3000 for this loss.
    Source: Tung & Mori 2019, arXiv 1907.09682.
    """

    customary_weights = (1.0, 3000.0)

    def of_batch(self, teacher, student, rows):
        """Return `similarity_preserving`."""
        return similarity_preserving(teacher, student, rows)


def similarity_preserving(teacher, student, sample_weight=None):
    """Return the similarity-preserving loss of a batch, a scalar.

    Args:
        teacher: `(batch, size)`.
        student: `(batch, size)`, of another size perhaps.
        sample_weight: `(batch,)`, or None.
    """
    teacher, student = frozen(teacher), ops.cast(student, "float32")
    share, counted = _pairs_of(_rows(sample_weight, student))

    def similarities(embeddings):
        products = ops.matmul(embeddings, ops.transpose(embeddings))
        return normalized(products * counted)

    return ops.sum(share * ops.square(similarities(student) - similarities(teacher)))


@keras.saving.register_keras_serializable(package="keras_distill")
class CorrelationCongruence(RelationLoss):
    """Correlation congruence (CC): the batch's kernel matrix is the teacher's.

    `‖K_s − K_t‖²_F / batch²`, where `K[i, j] = Σ_{p ≤ order} e^(−2γ) (2γ)^p / p! · (f_i · f_j)^p` is the
    Taylor series of the Gaussian kernel `exp(−γ ‖f_i − f_j‖²)` of the L2-normalised features.

    When: embeddings, as RKDDistance.

    Args:
        teacher_layer_name, student_layer_name: see `RelationLoss`.
        gamma: γ of the kernel.
        order: of the Taylor series.
        output, name: see `RelationLoss`.

    Customary weights: 1 for the hard labels, 1 for this loss (none is customary).
    Source: Peng et al. 2019, arXiv 1904.01802.
    """

    def __init__(
        self,
        teacher_layer_name=None,
        student_layer_name=None,
        gamma=0.4,
        order=2,
        output=None,
        name=None,
    ):
        super().__init__(teacher_layer_name, student_layer_name, output, name)
        self.gamma = schedules.checked("gamma", gamma, advice="0.4 is customary")
        self.order = schedules.whole("order", order)

    def of_batch(self, teacher, student, rows):
        """Return `correlation_congruence`."""
        gamma = schedules.value(self.gamma)
        return correlation_congruence(teacher, student, gamma, self.order, rows)

    def get_config(self):
        """Return the arguments of the constructor."""
        return {**self.config_of("gamma", "order"), **super().get_config()}


def correlation_congruence(teacher, student, gamma=0.4, order=2, sample_weight=None):
    """Return the correlation congruence loss of a batch, a scalar.

    Args:
        teacher: `(batch, size)`.
        student: `(batch, size)`, of another size perhaps.
        gamma, order: see `CorrelationCongruence`.
        sample_weight: `(batch,)`, or None.
    """
    teacher, student = frozen(teacher), ops.cast(student, "float32")
    share, _ = _pairs_of(_rows(sample_weight, student))

    def kernel(embeddings):
        unit = normalized(embeddings)
        cosine = ops.matmul(unit, ops.transpose(unit))
        terms = [(2.0 * gamma) ** p / math.factorial(p) * cosine**p for p in range(1, order + 1)]
        return ops.exp(-2.0 * gamma) * (1.0 + sum(terms))

    return ops.sum(share * ops.square(kernel(student) - kernel(teacher)))


@keras.saving.register_keras_serializable(package="keras_distill")
class PKT(RelationLoss):
    """Probabilistic knowledge transfer (PKT): each example finds the neighbours that it has for the teacher.

    `mean_ij q_t[i, j] · log(q_t[i, j] / q_s[i, j])` over batch², where q are the cosine similarities, mapped
    to 0..1 by (s + 1) / 2 and divided by the sum of their row. Weights of examples weigh rows, and
    neighbours within the row of both networks, so that the least is where the two agree.

    When: embeddings that are searched for neighbours, and across modalities.

    Args:
        teacher_layer_name, student_layer_name, output, name: see `RelationLoss`.

    Customary weights: 1 for the hard labels, 30000 for this loss.
    Source: Passalis & Tefas 2018, arXiv 1803.10837.
    """

    customary_weights = (1.0, 30000.0)

    def of_batch(self, teacher, student, rows):
        """Return `pkt`."""
        return pkt(teacher, student, rows)


def pkt(teacher, student, sample_weight=None):
    """Return the PKT loss of a batch, a scalar.

    Args:
        teacher: `(batch, size)`.
        student: `(batch, size)`, of another size perhaps.
        sample_weight: `(batch,)`, or None.
    """
    teacher, student = frozen(teacher), ops.cast(student, "float32")
    weights = _rows(sample_weight, student)

    def shares(embeddings):
        unit = normalized(embeddings)
        similarity = (ops.matmul(unit, ops.transpose(unit)) + 1.0) / 2.0 * weights[None, :]
        return ops.divide_no_nan(similarity, ops.sum(similarity, axis=-1, keepdims=True))

    of_teacher, of_student = shares(teacher), shares(student)
    values = of_teacher * (ops.log(of_teacher + 1e-7) - ops.log(of_student + 1e-7))
    divergences = ops.divide_no_nan(weights * ops.sum(values, axis=-1), ops.sum(weights))
    return ops.divide_no_nan(ops.sum(divergences), ops.sum(ops.cast(weights > 0, "float32")))
