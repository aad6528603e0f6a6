"""Every loss equals its float64 NumPy transcription of the paper (tests/golden)."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_distill import losses
from tests.golden import feature, relation, response

WEIGHTS = np.array([0.0, 2.0, 0.5, 1.0, 0.0, 3.0])
BATCH, CLASSES = len(WEIGHTS), 5

weighed = pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["", "weights"])


# What the losses' own weights are called: read after the first call.


def connector_of(loss, layer=0, weights=None):
    """Golden connector of the student's `layer`-th layer."""
    connector = loss.connectors[layer]
    if isinstance(connector, keras.layers.Identity):
        return feature.unchanged
    kernel, gamma, beta = (double(w) for w in connector.trainable_weights)
    norm = normalization(gamma, beta, weights)
    return lambda features: norm(features @ kernel)


def normalization(gamma, beta, weights=None):
    """BatchNorm in training, by the statistics of the rows that count."""
    rows = slice(None) if weights is None else weights > 0

    def norm(x):
        axes = tuple(range(x.ndim - 1))
        mean, variance = x[rows].mean(axes), x[rows].var(axes)
        return feature.batch_normalization(x, gamma, beta, 1e-5, mean, variance)

    return norm


def double(weight):
    """In float64."""
    return np.asarray(weight, "float64")


def variational_weights(loss):
    """{"kernels": three (in, out), "rho": (teacher's channels,)} in float64."""
    return {"kernels": [double(m.kernel) for m in loss.means[0]], "rho": double(loss.rhos[0])}


def review_stages(loss, weights=None):
    """Keyword arguments of `feature.attention_based_fusion` after `deeper`, a dict for each stage
    from shallow to deep."""
    stages = []
    for fusion in loss.fusions:
        stage = {
            "into_mid": double(fusion.narrow.kernel)[0, 0],
            "norm_mid": normalization(*map(double, fusion.narrow_norm.trainable_weights), weights),
            "out_of_mid": double(fusion.widen.kernel),
            "norm_out": normalization(*map(double, fusion.widen_norm.trainable_weights), weights),
        }
        if fusion.attend is not None:
            stage["attention"] = double(fusion.attend.kernel)[0, 0]
            stage["attention_bias"] = double(fusion.attend.bias)
        stages.append(stage)
    return stages


def contrastive_weights(loss):
    """{"teacher_kernel", "student_kernel": (in, dimensions), "teacher_bias", "student_bias"}."""
    return {
        f"{whose}_{what}": double(getattr(layer, what))
        for whose, layer in (("teacher", loss.of_teacher), ("student", loss.of_student))
        for what in ("kernel", "bias")
    }


def agree(value, expected):
    """To 1e-5."""
    assert float(value) == pytest.approx(expected, rel=1e-5, abs=1e-7)


def normal(rng, *shape):
    """float32, so that both sides see the same numbers."""
    return rng.normal(size=shape).astype("float32")


def compute(loss, teacher, student, **arguments):
    """The loss, with the weights of examples as float32."""
    weights = arguments.pop("weights", None)
    if weights is not None:
        weights = weights.astype("float32")
    return loss.compute_loss(teacher, student, sample_weight=weights, **arguments)


def trained(loss, rng, teacher, student):
    """The loss after its first call, its weights moved away from what they start at."""
    with tf.GradientTape() as tape:
        loss.compute_loss(teacher, student)
    for variable in tape.watched_variables():
        variable.assign_add(0.1 * normal(rng, *variable.shape))
    return loss


# Responses: (class, its arguments, golden function of teacher, student, labels and the arguments).

RESPONSES = {
    "soft_targets": (losses.SoftTargets, lambda t, s, y, **a: response.soft_targets(t, s, **a)),
    "decoupled_kd": (losses.DecoupledKD, response.decoupled_kd),
    "dist": (losses.DIST, lambda t, s, y, **a: response.dist(t, s, **a)),
    "normalized_kd": (losses.NormalizedKD, response.normalized_kd),
    "logit_mse": (losses.LogitMSE, lambda t, s, y, **a: response.logit_mse(t, s, **a)),
    "virtual_teacher": (
        losses.VirtualTeacher,
        lambda t, s, y, **a: response.virtual_teacher(y, s, **a),
    ),
}
ARGUMENTS = [
    ("soft_targets", {"temperature": 1.0}),
    ("soft_targets", {"temperature": 4.0}),
    ("decoupled_kd", {}),
    ("decoupled_kd", {"alpha": 0.5, "beta": 2.0, "temperature": 1.0}),
    ("decoupled_kd", {"alpha": 3.0, "beta": 0.0, "temperature": 2.5}),
    ("dist", {}),
    ("dist", {"beta": 2.0, "gamma": 2.0, "temperature": 4.0}),
    ("dist", {"beta": 0.0, "gamma": 1.5, "temperature": 2.0}),
    ("dist", {"beta": 0.7, "gamma": 0.0, "temperature": 0.5}),
    ("normalized_kd", {}),
    ("normalized_kd", {"gamma": 0.3, "temperature": 3.0}),
    ("logit_mse", {}),
    ("virtual_teacher", {}),
    ("virtual_teacher", {"temperature": 2.0, "correct_probability": 0.9}),
]
responses = pytest.mark.parametrize(
    ("name", "arguments"),
    ARGUMENTS,
    ids=[f"{n}-{'-'.join(map(str, a.values()))}" for n, a in ARGUMENTS],
)
names = pytest.mark.parametrize("name", list(RESPONSES))


def logits_and_labels(rng, *positions, classes=CLASSES):
    """Teacher's and student's logits (batch, ..., classes) and labels (batch, ...)."""
    shape = (BATCH, *positions)
    labels = rng.integers(0, classes, shape)
    return 2 * normal(rng, *shape, classes), 2 * normal(rng, *shape, classes), labels


@weighed
@pytest.mark.parametrize("positions", [(), (2, 3)], ids=["classes", "dense"])
@responses
def test_responses(rng, name, arguments, positions, weights):
    make, golden = RESPONSES[name]
    teacher, student, labels = logits_and_labels(rng, *positions)
    loss = compute(make(**arguments), teacher, student, labels=labels, weights=weights)
    agree(loss, golden(teacher, student, labels, weights=weights, **arguments))


@pytest.mark.parametrize("positions", [(), (2, 3)], ids=["classes", "dense"])
@responses
def test_standardised_responses(rng, name, arguments, positions):
    make, golden = RESPONSES[name]
    teacher, student, labels = logits_and_labels(rng, *positions)
    loss = make(**arguments, standardize=True).compute_loss(teacher, student, labels=labels)
    standard = [response.standardize(z) for z in (teacher, student)]
    agree(loss, golden(*standard, labels, **arguments))


@pytest.mark.parametrize("form", ["one-hot", "float one-hot", "dense one-hot", "column"])
@pytest.mark.parametrize("name", ["decoupled_kd", "normalized_kd", "virtual_teacher"])
def test_forms_of_labels(rng, name, form):
    make, golden = RESPONSES[name]
    positions = (2, 3) if form == "dense one-hot" else ()
    teacher, student, labels = logits_and_labels(rng, *positions)
    given = labels[:, None] if form == "column" else np.eye(CLASSES, dtype="int32")[labels]
    given = given.astype("float32") if form == "float one-hot" else given
    loss = compute(make(), teacher, student, labels=given, weights=WEIGHTS)
    agree(loss, golden(teacher, student, labels, weights=WEIGHTS))
    agree(loss, golden(teacher, student, given, weights=WEIGHTS))


@pytest.mark.parametrize("name", [name for name in RESPONSES if name != "virtual_teacher"])
def test_classes_chosen_of_the_teacher(rng, name):
    make, golden = RESPONSES[name]
    teacher, student, labels = logits_and_labels(rng)
    more, order = normal(rng, BATCH, 9), [8, 3, 0, 7, 5]
    more[:, order] = teacher
    loss = make(class_indices=order).compute_loss(more, student, labels=labels)
    agree(loss, golden(teacher, student, labels))


@names
def test_two_classes(rng, name):
    # The softmax over the classes that are not the target's has one entry: no more to learn.
    make, golden = RESPONSES[name]
    teacher, student, labels = logits_and_labels(rng, classes=2)
    agree(make().compute_loss(teacher, student, labels=labels), golden(teacher, student, labels))


def test_virtual_teacher_reads_no_teacher(rng):
    _, student, labels = logits_and_labels(rng)
    loss = losses.VirtualTeacher().compute_loss(None, student, labels=labels)
    agree(loss, response.virtual_teacher(labels, student))


@weighed
@pytest.mark.parametrize("who", ["teacher", "both"])
@pytest.mark.parametrize("what", ["row", "rows", "columns"])
def test_dist_of_constant_rows_and_columns(rng, what, who, weights):
    teacher, student, _ = logits_and_labels(rng)
    for z in (teacher,) if who == "teacher" else (teacher, student):
        if what == "columns":
            z[:] = z[0]
        else:
            z[slice(3, 4) if what == "row" else slice(None)] = 0
    loss = compute(losses.DIST(), teacher, student, weights=weights)
    agree(loss, response.dist(teacher, student, weights=weights))


# Features.

SIZES = {  # positions of teacher and student
    "6x6-8x8": ((6, 6), (8, 8)),
    "8x8-6x6": ((8, 8), (6, 6)),
    "6x6-3x3": ((6, 6), (3, 3)),
    "4x4-4x4": ((4, 4), (4, 4)),
    "5x4-8x6": ((5, 4), (8, 6)),
    "tokens": ((7,), (10,)),
    "same tokens": ((7,), (7,)),
    "flat": ((), ()),
}
PLACES = [size for size in SIZES if size != "flat"]

FREE = {  # of any two widths
    "attention_transfer": (losses.AttentionTransfer, feature.attention_transfer, {}),
    "attention_transfer-1": (losses.AttentionTransfer, feature.attention_transfer, {"p": 1.0}),
    "attention_transfer-4": (losses.AttentionTransfer, feature.attention_transfer, {"p": 4.0}),
    "neuron_selectivity": (losses.NeuronSelectivity, feature.neuron_selectivity, {}),
}
CONNECTED = {  # of one width, or behind a connector
    "hint": (losses.Hint, feature.hint, {}),
    "channel_wise": (losses.ChannelWise, feature.channel_wise, {}),
    "channel_wise-1.5": (losses.ChannelWise, feature.channel_wise, {"temperature": 1.5}),
    "cosine_features": (losses.CosineFeatures, feature.cosine_features, {}),
}


def features(rng, size, teacher_width=4, student_width=4):
    """Teacher's and student's, of sizes in SIZES."""
    of_teacher, of_student = SIZES[size]
    return (
        normal(rng, BATCH, *of_teacher, teacher_width),
        normal(rng, BATCH, *of_student, student_width),
    )


def mask_of(rng, positions=7):
    """(batch, positions), with something in every example."""
    mask = rng.random((BATCH, positions)) < 0.6
    mask[:, 2] = True
    mask[0], mask[1, 3:] = True, False
    return mask


@weighed
@pytest.mark.parametrize("size", PLACES)
@pytest.mark.parametrize("name", list(FREE))
def test_features_of_any_widths(rng, name, size, weights):
    make, golden, arguments = FREE[name]
    teacher, student = features(rng, size, 4, 6)
    loss = compute(make(**arguments), teacher, student, weights=weights)
    agree(loss, golden(teacher, student, **arguments, weights=weights))


@weighed
@pytest.mark.parametrize("size", list(SIZES))
@pytest.mark.parametrize("name", list(CONNECTED))
def test_features_of_one_width(rng, name, size, weights):
    if size == "flat" and name.startswith("channel_wise"):
        pytest.skip("one position has no distribution")
    make, golden, arguments = CONNECTED[name]
    teacher, student = features(rng, size)
    expected = golden(teacher, student, **arguments, weights=weights)
    # "auto" connects nothing here.
    for connector in ("auto", None) if weights is None else ("auto",):
        loss = make(**arguments, connector=connector)
        agree(compute(loss, teacher, student, weights=weights), expected)


@weighed
@pytest.mark.parametrize("size", ["6x6-8x8", "8x8-6x6", "tokens"])
@pytest.mark.parametrize("name", list(CONNECTED))
def test_features_behind_a_layer(rng, name, size, weights):
    make, golden, arguments = CONNECTED[name]
    teacher, student = features(rng, size, 4, 6)
    dense = keras.layers.Dense(4)
    loss = trained(make(**arguments, connector=dense), rng, teacher, student)
    value = compute(loss, teacher, student, weights=weights)
    connector = feature.connector(*(w.astype("float64") for w in dense.get_weights()))
    expected = golden(teacher, student, **arguments, connector=connector, weights=weights)
    agree(value, expected)


@weighed
@pytest.mark.parametrize("size", ["6x6-8x8", "4x4-4x4", "same tokens", "flat"])
@pytest.mark.parametrize("name", list(CONNECTED))
def test_features_behind_the_automatic_connector(rng, name, size, weights):
    if size == "flat" and name.startswith("channel_wise"):
        pytest.skip("one position has no distribution")
    make, golden, arguments = CONNECTED[name]
    teacher, student = features(rng, size, 4, 6)
    loss = trained(make(**arguments), rng, teacher, student)
    value = compute(loss, teacher, student, weights=weights)
    connector = connector_of(loss, weights=weights)
    expected = golden(teacher, student, **arguments, connector=connector, weights=weights)
    agree(value, expected)


@weighed
@pytest.mark.parametrize("name", [*FREE, *CONNECTED])
def test_features_of_masked_tokens(rng, name, weights):
    make, golden, arguments = (FREE | CONNECTED)[name]
    teacher, student = features(rng, "same tokens")
    mask = mask_of(rng)
    loss = compute(make(**arguments), teacher, student, weights=weights, mask=mask)
    agree(loss, golden(teacher, student, **arguments, weights=weights, mask=mask))


@pytest.mark.parametrize("name", [*FREE, *CONNECTED])
def test_features_of_several_layers_are_summed(rng, name):
    make, golden, arguments = (FREE | CONNECTED)[name]
    pairs = [features(rng, "8x8-6x6"), features(rng, "4x4-4x4")]
    loss = make(**arguments).compute_loss(*map(list, zip(*pairs, strict=True)))
    agree(loss, sum(golden(*pair, **arguments) for pair in pairs))


@weighed
@pytest.mark.parametrize("size", ["6x6-8x8", "8x8-6x6", "tokens", "flat"])
def test_variational_information(rng, size, weights):
    teacher, student = features(rng, size, 4, 6)
    loss = trained(losses.VariationalInformation(), rng, teacher, student)
    value = compute(loss, teacher, student, weights=weights)
    own = variational_weights(loss)
    agree(value, feature.variational_information(teacher, student, **own, weights=weights))


def test_variational_information_of_masked_tokens(rng):
    teacher, student = features(rng, "same tokens", 4, 6)
    mask = mask_of(rng)
    loss = trained(losses.VariationalInformation(), rng, teacher, student)
    value = compute(loss, teacher, student, weights=WEIGHTS, mask=mask)
    expected = feature.variational_information(
        teacher, student, **variational_weights(loss), weights=WEIGHTS, mask=mask
    )
    agree(value, expected)


@pytest.mark.parametrize("variance", [5.0, 0.2])
def test_variational_information_starts_at_its_variance(rng, variance):
    teacher, student = features(rng, "flat")
    loss = losses.VariationalInformation(initial_variance=variance)
    value = loss.compute_loss(teacher, student)
    own = variational_weights(loss) | {"rho": np.full(4, np.log(np.expm1(variance - 1e-5)))}
    agree(value, feature.variational_information(teacher, student, **own))


@weighed
@pytest.mark.parametrize("mid", [None, 5])
def test_review(rng, mid, weights):
    # Maps of 12, 6 and 3: pooled to (4, 2, 1), (4, 2, 1) and (2, 1).
    students = [normal(rng, BATCH, n, n, c) for n, c in [(12, 2), (6, 3), (3, 4)]]
    teachers = [normal(rng, BATCH, n, n, c) for n, c in [(12, 3), (6, 5), (3, 6)]]
    loss = trained(losses.ReviewKD(mid=mid), rng, teachers, students)
    value = compute(loss, teachers, students, weights=weights)
    stages = review_stages(loss, weights)
    assert [stage["into_mid"].shape[1] for stage in stages] == [mid or 4] * 3
    agree(value, feature.review_kd(teachers, students, stages, weights))


# Relations.

RELATIONS = {
    "rkd_distance": (losses.RKDDistance, relation.rkd_distance, {}),
    "rkd_angle": (losses.RKDAngle, relation.rkd_angle, {}),
    "similarity_preserving": (losses.SimilarityPreserving, relation.similarity_preserving, {}),
    "correlation_congruence": (losses.CorrelationCongruence, relation.correlation_congruence, {}),
    "correlation_congruence-2-4": (
        losses.CorrelationCongruence,
        relation.correlation_congruence,
        {"gamma": 2.0, "order": 4},
    ),
    "pkt": (losses.PKT, relation.pkt, {}),
}
SHAPES = {  # of teacher and student, less the batch
    "flat": ((5,), (3,)),
    "maps": ((3, 3, 2), (4, 4, 1)),
    "tokens": ((4, 3), (3, 2)),
    "masked tokens": ((7, 3), (7, 2)),
}


def embeddings(rng, shape):
    """Teacher's and student's, and the mask of the masked ones."""
    teacher, student = (normal(rng, BATCH, *dimensions) for dimensions in SHAPES[shape])
    return teacher, student, mask_of(rng) if shape.startswith("masked") else None


@weighed
@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize("name", list(RELATIONS))
def test_relations(rng, name, shape, weights):
    make, golden, arguments = RELATIONS[name]
    teacher, student, mask = embeddings(rng, shape)
    loss = compute(make(**arguments), teacher, student, weights=weights, mask=mask)
    agree(loss, golden(teacher, student, **arguments, weights=weights, mask=mask))


@pytest.mark.parametrize("name", list(RELATIONS))
def test_relations_of_several_layers_are_summed(rng, name):
    make, golden, arguments = RELATIONS[name]
    pairs = [embeddings(rng, "flat")[:2], embeddings(rng, "maps")[:2]]
    loss = make(**arguments).compute_loss(*map(list, zip(*pairs, strict=True)))
    agree(loss, sum(golden(*pair, **arguments) for pair in pairs))


LAYERS = {  # positions and width of each layer of teacher and student
    "maps": ([((8, 8), 3), ((6, 6), 4), ((3, 3), 2)], [((4, 4), 3), ((4, 4), 4), ((2, 2), 2)]),
    "tokens": ([((7,), 3), ((7,), 4)], [((7,), 3), ((7,), 4)]),
    "flat": ([((), 3), ((), 4)], [((), 3), ((), 4)]),
}


def layers(rng, layers, extra=0):
    """Lists of features of teacher and student, the student's wider by `extra`."""
    teacher, student = LAYERS[layers]
    return (
        [normal(rng, BATCH, *positions, width) for positions, width in teacher],
        [normal(rng, BATCH, *positions, width + extra) for positions, width in student],
    )


@weighed
@pytest.mark.parametrize("connector", ["auto", None])
@pytest.mark.parametrize("shape", list(LAYERS))
def test_flow_of_one_width(rng, shape, connector, weights):
    teachers, students = layers(rng, shape)
    loss = compute(losses.FSP(connector=connector), teachers, students, weights=weights)
    agree(loss, relation.fsp(teachers, students, weights=weights))


def test_flow_of_masked_tokens(rng):
    teachers, students = layers(rng, "tokens")
    mask = mask_of(rng)
    loss = compute(losses.FSP(), teachers, students, weights=WEIGHTS, mask=mask)
    agree(loss, relation.fsp(teachers, students, weights=WEIGHTS, mask=mask))


@weighed
@pytest.mark.parametrize("shape", list(LAYERS))
def test_flow_behind_connectors(rng, shape, weights):
    teachers, students = layers(rng, shape, extra=1)
    loss = trained(losses.FSP(), rng, teachers, students)
    value = compute(loss, teachers, students, weights=weights)
    connectors = [connector_of(loss, layer, weights) for layer in range(len(students))]
    agree(value, relation.fsp(teachers, students, connectors, weights=weights))


@weighed
@pytest.mark.parametrize("labels", [None, "integers", "column", "one-hot"])
@pytest.mark.parametrize("shape", list(SHAPES))
def test_contrastive(rng, shape, labels, weights):
    teacher, student, mask = embeddings(rng, shape)
    if labels is not None:
        integers = np.array([0, 1, 2, 1, 0, 1])
        labels = {
            "integers": integers,
            "column": integers[:, None],
            "one-hot": np.eye(3)[integers],
        }[labels]
    arguments = {"temperature": 0.2}
    loss = losses.ContrastiveDistillation(dimensions=8, **arguments)
    trained(loss, rng, teacher, student)
    value = compute(loss, teacher, student, labels=labels, weights=weights, mask=mask)
    arguments |= contrastive_weights(loss)
    assert arguments["student_kernel"].shape == (SHAPES[shape][1][-1], 8)
    expected = relation.contrastive_distillation(
        teacher, student, **arguments, labels=labels, weights=weights, mask=mask
    )
    agree(value, expected)


def test_contrastive_by_default(rng):
    teacher, student, _ = embeddings(rng, "flat")
    loss = trained(losses.ContrastiveDistillation(), rng, teacher, student)
    own = contrastive_weights(loss)
    assert own["teacher_kernel"].shape == (5, 128)
    agree(
        loss.compute_loss(teacher, student),
        relation.contrastive_distillation(teacher, student, **own),
    )
