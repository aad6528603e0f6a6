"""Float64 NumPy transcriptions of the losses on features, from the papers, not from our code.

Features are (batch, height, width, channels), (batch, time, channels) or (batch, channels);
`mask` (batch, positions) is True where there is something, for two networks of one length.
"""

import numpy as np

from tests.golden.response import mean_of_examples, softmax


def pooled(features, size, axis):
    """Adaptive average pooling: bin i is the mean of floor(i·n/size) … ceil((i+1)·n/size)."""
    n = features.shape[axis]
    bins = []
    for i in range(size):
        inside = np.arange(i * n // size, -((i + 1) * n // -size))
        bins.append(np.take(features, inside, axis).mean(axis))
    return np.stack(bins, axis)


def matched(teacher, student):
    """Both in float64, at the smaller size of the two along each axis of positions."""
    teacher, student = np.asarray(teacher, "float64"), np.asarray(student, "float64")
    for axis in range(1, teacher.ndim - 1):
        size = min(teacher.shape[axis], student.shape[axis])
        teacher, student = pooled(teacher, size, axis), pooled(student, size, axis)
    return teacher, student


def of_positions(features):
    """(batch, ..., channels) to (batch, positions, channels)."""
    features = np.asarray(features, "float64")
    return features.reshape(len(features), -1, features.shape[-1])


def valid_positions(features, mask):
    """For each example the features (positions, channels) of its valid positions."""
    features = of_positions(features)
    if mask is None:
        return list(features)
    return [f[m] for f, m in zip(features, np.reshape(mask, features.shape[:2]), strict=True)]


def mean_of_positions(each, weights, mask):
    """The mean of (batch, positions) over all valid positions, times the examples' weights."""
    weights = np.ones(len(each)) if weights is None else np.asarray(weights, "float64")
    valid = np.ones(each.shape) if mask is None else np.reshape(mask, each.shape).astype("float64")
    return np.sum(weights[:, None] * valid * each) / valid.sum() if valid.any() else 0.0


def mean_over_examples(loss, teacher, student, weights, mask):
    """The mean of `loss(teacher, student)` of each example's own valid positions, if it has any."""
    pairs = zip(valid_positions(teacher, mask), valid_positions(student, mask), strict=True)
    weights = np.ones(len(student)) if weights is None else weights
    each = [w * loss(t, s) for (t, s), w in zip(pairs, weights, strict=True) if len(s)]
    return np.mean(each) if each else 0.0


def normalised(x, axis=-1):
    """L2-normalised along an axis, as torch.nn.functional.normalize."""
    return x / np.maximum(np.linalg.norm(x, axis=axis, keepdims=True), 1e-12)


def batch_normalization(x, gamma, beta, epsilon, mean=None, variance=None):
    """Over all axes but the last; by the statistics of `x` itself where none are given."""
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes) if mean is None else mean
    variance = x.var(axes) if variance is None else variance
    return (x - mean) / np.sqrt(variance + epsilon) * gamma + beta


def connector(kernel, bias=0.0, scale=1.0, shift=0.0, relu=False):
    """A function: 1×1 convolution by `kernel` (in, out), then BatchNorm's scale and shift."""

    def connect(features):
        connected = (features @ np.asarray(kernel, "float64") + bias) * scale + shift
        return np.maximum(connected, 0) if relu else connected

    return connect


def unchanged(features):
    """The connector of equal widths."""
    return features


def hint(teacher, student, connector=unchanged, weights=None, mask=None):
    """Romero et al. 2015, eq. 3 as a mean: MSE(connector(f_s), f_t)."""
    teacher, student = matched(teacher, student)
    each = np.mean((connector(student) - teacher) ** 2, axis=-1)
    return mean_of_positions(each.reshape(len(each), -1), weights, mask)


def attention_transfer(teacher, student, p=2.0, weights=None, mask=None):
    """Zagoruyko & Komodakis 2017, eq. 2: the normalised maps of mean |f|^p, squared difference."""

    def attention(f):
        return normalised(np.mean(np.abs(f) ** p, axis=-1))

    def one(t, s):
        return np.mean((attention(s) - attention(t)) ** 2)

    return mean_over_examples(one, *matched(teacher, student), weights, mask)


def neuron_selectivity(teacher, student, weights=None, mask=None):
    """Huang & Wang 2017, eq. 6 and 8: MMD² of channels' maps with the kernel (aᵀb)²."""

    def kernel(a, b):
        a, b = normalised(a, axis=0), normalised(b, axis=0)
        return np.mean([np.dot(x, y) ** 2 for x in a.T for y in b.T])

    def one(t, s):
        return kernel(t, t) + kernel(s, s) - 2 * kernel(s, t)

    return mean_over_examples(one, *matched(teacher, student), weights, mask)


def variational_information(
    teacher, student, kernels, rho, biases=(0.0, 0.0, 0.0), weights=None, mask=None
):
    """Ahn et al. 2019, eq. 5 and 6: kernels three of (in, out), rho (teacher's channels,)."""
    teacher, mu = matched(teacher, student)
    for i, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        mu = mu @ np.asarray(kernel, "float64") + bias
        mu = np.maximum(mu, 0) if i < 2 else mu
    variance = np.log(1 + np.exp(np.asarray(rho, "float64"))) + 1e-5
    each = 0.5 * np.mean((mu - teacher) ** 2 / variance + np.log(variance), axis=-1)
    return mean_of_positions(each.reshape(len(each), -1), weights, mask)


def channel_wise(teacher, student, temperature=4.0, connector=unchanged, weights=None, mask=None):
    """Shu et al. 2021, eq. 5 and 6: T² · KL over positions, mean over channels and batch."""

    def one(t, s):
        p, q = softmax(t.T / temperature), softmax(s.T / temperature)
        return temperature**2 * np.mean(np.sum(p * (np.log(p) - np.log(q)), axis=-1))

    teacher, student = matched(teacher, student)
    return mean_over_examples(one, teacher, connector(student), weights, mask)


def cosine_features(teacher, student, connector=unchanged, weights=None, mask=None):
    """Sanh et al. 2019: 1 − cos(f_s, f_t) of each position."""
    teacher, student = matched(teacher, student)
    each = 1 - np.sum(normalised(connector(student)) * normalised(teacher), axis=-1)
    return mean_of_positions(each.reshape(len(each), -1), weights, mask)


def hierarchical_context(student, teacher, weights=None):
    """Chen et al. 2021, of one stage: MSE, and MSE pooled to 4, 2, 1 with ½ ¼ ⅛, normalised.

    As the authors' code: a level not smaller than the map is skipped, and the next one that is
    smaller takes its weight.
    """
    teacher, student = matched(teacher, student)
    axes = range(1, teacher.ndim - 1)

    def squares(t, s):
        return np.mean((s - t) ** 2, axis=tuple(range(1, t.ndim)))

    each, weight, total = squares(teacher, student), 1.0, 1.0
    for level in (4, 2, 1):
        if any(level >= teacher.shape[axis] for axis in axes):
            continue
        t, s = teacher, student
        for axis in axes:
            t, s = pooled(t, level, axis), pooled(s, level, axis)
        weight /= 2
        total += weight
        each = each + weight * squares(t, s)
    return mean_of_examples(each / total, weights)


def nearest(features, height, width):
    """Upsampling of (batch, h, w, channels): pixel i is the old pixel floor(i · old / new)."""
    rows = np.arange(height) * features.shape[1] // height
    columns = np.arange(width) * features.shape[2] // width
    return features[:, rows][:, :, columns]


def conv3x3(features, kernel):
    """'Same' convolution (cross-correlation) with a kernel (3, 3, in, out), no bias."""
    _, h, w, _ = features.shape
    padded = np.pad(features, [(0, 0), (1, 1), (1, 1), (0, 0)])
    return sum(
        padded[:, i : i + h, j : j + w] @ np.asarray(kernel[i][j], "float64")
        for i in range(3)
        for j in range(3)
    )


def attention_based_fusion(
    student, deeper, into_mid, norm_mid, out_of_mid, norm_out, attention=None, attention_bias=0.0
):
    """Chen et al. 2021, figure 3: (output of the teacher's width, fused map for the next stage).

    student (batch, h, w, channels); deeper (batch, smaller h, w, mid) or None for the last stage;
    into_mid (channels, mid); out_of_mid (3, 3, mid, teacher's channels); attention (2 mid, 2) of
    [student, deeper], whose first map is the student's; each norm a (scale, shift) of BatchNorm
    or a function.
    """

    def norm(x, scale_shift):
        return scale_shift(x) if callable(scale_shift) else x * scale_shift[0] + scale_shift[1]

    fused = norm(np.asarray(student, "float64") @ np.asarray(into_mid, "float64"), norm_mid)
    if deeper is not None:
        deeper = nearest(deeper, *fused.shape[1:3])
        both = np.concatenate([fused, deeper], axis=-1) @ np.asarray(attention, "float64")
        maps = 1 / (1 + np.exp(-(both + attention_bias)))
        fused = fused * maps[..., :1] + deeper * maps[..., 1:]
    return norm(conv3x3(fused, out_of_mid), norm_out), fused


def review_kd(teachers, students, stages, weights=None):
    """Chen et al. 2021, eq. 8: sum of the stages' contexts.

    teachers, students and stages are lists from shallow to deep; a stage holds the keyword
    arguments of `attention_based_fusion` after `deeper`.
    """
    fused, loss = None, 0.0
    for teacher, student, stage in reversed(list(zip(teachers, students, stages, strict=True))):
        output, fused = attention_based_fusion(student, fused, **stage)
        loss += hierarchical_context(output, teacher, weights)
    return loss
