"""What holds for every loss, whatever its formula: one table of losses, and facts about it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops, tree

from keras_distill import losses

BATCH = 4

# Shapes of teacher and student, less the batch.
INPUTS = {
    "logits": ((5,), (5,)),
    "dense": ((2, 2, 5), (2, 2, 5)),
    "maps": ((3, 3, 4), (4, 4, 4)),
    "wide": ((4, 4, 4), (3, 3, 2)),
    "tokens": ((5, 4), (5, 4)),
    "flat": ((4,), (3,)),
    "layers": ([(4, 4, 3), (3, 3, 2)], [(4, 4, 3), (4, 4, 2)]),
    "wide layers": ([(4, 4, 3), (3, 3, 2)], [(4, 4, 2), (4, 4, 3)]),
    "token layers": ([(5, 4), (5, 3)], [(5, 4), (5, 3)]),
    "wide tokens": ((5, 4), (5, 2)),
    "wide token layers": ([(5, 4), (5, 3)], [(5, 2), (5, 5)]),
    "stages": ([(6, 6, 4), (3, 3, 5)], [(6, 6, 2), (3, 3, 3)]),
}


@dataclass(frozen=True)
class Case:
    """A loss and the inputs it is tried on."""

    name: str
    make: Callable
    inputs: str
    other: dict = field(default_factory=dict)  # every argument, none at its default
    zero: bool = True  # of a student that equals its teacher
    moves: bool = False  # by a constant on a row of logits
    tokens: str | None = None  # inputs that take a mask
    wide_gradient: bool = False  # larger than float16 holds, at inputs of 1e3


def response(name, make, inputs="logits", /, *, zero=True, moves=False, **other):
    """A loss on logits."""
    other |= {"standardize": True, "output": "top", "name": "mine"}
    if name != "virtual_teacher":
        other["class_indices"] = [2, 0, 1]
    return Case(name, make, inputs, other, zero, moves)


def layered(name, make, inputs, tokens="tokens", /, *, zero=True, wide_gradient=False, **other):
    """A loss on features."""
    several = ["a", "b"] if "layers" in inputs or inputs == "stages" else "a"
    other |= {"teacher_layer_name": several, "student_layer_name": several}
    other |= {"output": "top", "name": "mine"}
    return Case(name, make, inputs, other, zero, False, tokens, wide_gradient)


CASES = [
    response("soft_targets", lambda **a: losses.SoftTargets(**a), temperature=2.5),
    response(
        "decoupled_kd",
        lambda **a: losses.DecoupledKD(**a),
        alpha=0.5,
        beta=2.0,
        temperature=3.0,
    ),
    response("decoupled_kd-dense", lambda **a: losses.DecoupledKD(**a), "dense", alpha=2.0),
    response("dist", lambda **a: losses.DIST(**a), beta=2.0, gamma=3.0, temperature=4.0),
    response("dist-dense", lambda **a: losses.DIST(**a), "dense", temperature=4.0),
    response(
        "normalized_kd",
        lambda **a: losses.NormalizedKD(**a),
        zero=False,
        gamma=1.0,
        temperature=2.0,
    ),
    response("logit_mse", lambda **a: losses.LogitMSE(**a), moves=True),
    response(
        "virtual_teacher",
        lambda **a: losses.VirtualTeacher(**a),
        zero=False,
        temperature=10.0,
        correct_probability=0.9,
    ),
    response(
        "soft_targets-standardised", lambda **a: losses.SoftTargets(**({"standardize": True} | a))
    ),
    layered("hint", lambda **a: losses.Hint(**a), "maps", connector=None),
    layered("hint-flat", lambda **a: losses.Hint(**a), "flat", zero=False),
    layered("hint-connector", lambda **a: losses.Hint(**a), "wide", "wide tokens", zero=False),
    layered("attention_transfer", lambda **a: losses.AttentionTransfer(**a), "maps", p=3.0),
    layered("neuron_selectivity", lambda **a: losses.NeuronSelectivity(**a), "wide", "wide tokens"),
    layered(
        "variational_information",
        lambda **a: losses.VariationalInformation(**a),
        "wide",
        "wide tokens",
        zero=False,
        initial_variance=2.0,
    ),
    layered(
        "review", lambda **a: losses.ReviewKD(**a), "stages", "wide token layers", zero=False, mid=3
    ),
    layered(
        "channel_wise",
        lambda **a: losses.ChannelWise(**a),
        "maps",
        temperature=2.0,
        connector=None,
    ),
    layered(
        "channel_wise-connector",
        lambda **a: losses.ChannelWise(**a),
        "wide",
        "wide tokens",
        zero=False,
    ),
    layered("cosine_features", lambda **a: losses.CosineFeatures(**a), "maps", connector=None),
    layered(
        "cosine_features-connector",
        lambda **a: losses.CosineFeatures(**a),
        "wide",
        "wide tokens",
        zero=False,
    ),
    layered("rkd_distance", lambda **a: losses.RKDDistance(**a), "flat"),
    layered("rkd_angle", lambda **a: losses.RKDAngle(**a), "flat", max_examples=64),
    layered("similarity_preserving", lambda **a: losses.SimilarityPreserving(**a), "flat"),
    layered(
        "correlation_congruence",
        lambda **a: losses.CorrelationCongruence(**a),
        "flat",
        gamma=1.0,
        order=3,
    ),
    layered("pkt", lambda **a: losses.PKT(**a), "flat"),
    layered(
        "fsp",
        lambda **a: losses.FSP(**a),
        "layers",
        "token layers",
        wide_gradient=True,
        connector=None,
    ),
    layered(
        "fsp-connector",
        lambda **a: losses.FSP(**a),
        "wide layers",
        "wide token layers",
        zero=False,
        wide_gradient=True,
    ),
    layered(
        "contrastive",
        lambda **a: losses.ContrastiveDistillation(**({"dimensions": 8, "temperature": 0.5} | a)),
        "flat",
        zero=False,
        dimensions=16,
        temperature=0.1,
        bank_size=100,
        negatives=10,
        momentum=0.9,
        index="number",
    ),
]


def cases(those=lambda case: True):
    """Parametrises a test by the cases for which `those` holds."""
    chosen = [case for case in CASES if those(case)]
    return pytest.mark.parametrize("case", chosen, ids=[case.name for case in chosen])


def is_shape(x):
    return isinstance(x, tuple)


def of_shapes(make, shapes):
    """`make(shape)` of a shape, or the list of those of a list of shapes."""
    return make(shapes) if is_shape(shapes) else [make(shape) for shape in shapes]


def inputs(rng, name, batch=BATCH, scale=1.0):
    """(teacher, student, labels), features as float32 and labels as integers."""

    def features(shape):
        return (scale * rng.normal(size=(batch, *shape))).astype("float32")

    teacher, student = (of_shapes(features, shapes) for shapes in INPUTS[name])
    positions = (2, 2) if name == "dense" else ()
    return teacher, student, rng.integers(0, 3, (batch, *positions))


def like(make, features):
    """`make` of an array, or the list of each of a list."""
    return [make(f) for f in features] if isinstance(features, list) else make(features)


def each_of(features):
    """A list of arrays."""
    return features if isinstance(features, list) else [features]


def gradients(loss, teacher, student, labels, **arguments):
    """The value, and (variable, gradient) of the student's features and the loss's own weights."""
    with tf.GradientTape() as tape:
        value = loss.compute_loss(teacher, student, labels=labels, **arguments)
    variables = tape.watched_variables()
    return value, list(zip(variables, tape.gradient(value, variables), strict=True))


def is_finite(value, slopes):
    assert np.isfinite(float(value))
    for variable, slope in slopes:
        assert slope is None or np.isfinite(ops.convert_to_numpy(slope)).all(), variable.name


@cases()
def test_the_teacher_gets_no_gradient_and_all_else_does(rng, case):
    teacher, student, labels = inputs(rng, case.inputs)
    teacher, student = like(tf.Variable, teacher), like(tf.Variable, student)
    value, slopes = gradients(case.make(), teacher, student, labels)
    assert value.dtype == "float32"
    assert value.shape == ()
    fixed = {variable.ref() for variable in each_of(teacher)}
    watched = {variable.ref() for variable, _ in slopes}
    assert watched >= {variable.ref() for variable in each_of(student)}
    for variable, slope in slopes:
        if variable.ref() in fixed:
            assert slope is None or not np.any(slope)
        else:
            assert slope is not None, variable.name


@cases(lambda case: case.zero)
def test_zero_of_equals_and_never_negative(rng, case):
    for scale in (1e-3, 1.0, 30.0):
        teacher, student, labels = inputs(rng, case.inputs, scale=scale)
        same = case.make().compute_loss(teacher, like(np.copy, teacher), labels=labels)
        assert float(same) == pytest.approx(0, abs=1e-6)
        assert float(case.make().compute_loss(teacher, student, labels=labels)) >= -1e-6


@cases(lambda case: INPUTS[case.inputs][0][-1] == 5 and not case.moves)
def test_a_constant_on_a_row_of_logits_changes_nothing(rng, case):
    teacher, student, labels = inputs(rng, case.inputs)
    loss = case.make()
    value = float(loss.compute_loss(teacher, student, labels=labels))
    for constant in (np.float32(8), 3 * rng.normal(size=(BATCH, *labels.shape[1:], 1))):
        moved = loss.compute_loss(teacher + constant, student - 2 * constant, labels=labels)
        assert float(moved) == pytest.approx(value, rel=1e-4)


WEIGHTS = np.array([1.0, 0.0, 2.0, 0.5], "float32")


@cases()
def test_an_example_of_weight_0_contributes_nothing(rng, case):
    loss = case.make()
    teacher, student, labels = inputs(rng, case.inputs)
    loss.compute_loss(teacher, student, labels=labels)
    variables = like(tf.Variable, student)
    value, slopes = gradients(loss, teacher, variables, labels, sample_weight=WEIGHTS)
    of_student = {v.ref() for v in each_of(variables)}
    for variable, slope in slopes:
        if variable.ref() in of_student:
            assert not np.any(slope[1])
    for size in (3.0, 1e30):
        for features in (*each_of(teacher), *each_of(student)):
            features[1] = size * rng.normal(size=features[1].shape)
        other = loss.compute_loss(teacher, student, labels=labels, sample_weight=WEIGHTS)
        assert float(other) == pytest.approx(float(value), rel=1e-5, abs=1e-7), size


@pytest.mark.parametrize("by", ["mask", "sample_weight"])
@cases(lambda case: case.tokens)
def test_positions_that_do_not_count_contribute_nothing(rng, case, by):
    loss = case.make()
    teacher, student, labels = inputs(rng, case.tokens)
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 1, 0, 1, 1], [1, 0, 0, 0, 1]], bool)
    weights = mask * np.array([1.0, 0.5, 3.0, 1.0, 2.0], "float32")
    given = {"mask": mask} if by == "mask" else {"sample_weight": weights}
    loss.compute_loss(teacher, student, labels=labels, **given)
    variables = like(tf.Variable, student)
    value, slopes = gradients(loss, teacher, variables, labels, **given)
    of_student = {v.ref() for v in each_of(variables)}
    for variable, slope in slopes:
        if variable.ref() in of_student:
            assert not np.any(slope.numpy()[~mask])
    for features in (*each_of(teacher), *each_of(student)):
        features[~mask] = 1e30 * rng.normal(size=features[~mask].shape)
    other = loss.compute_loss(teacher, student, labels=labels, **given)
    assert float(other) == pytest.approx(float(value), rel=1e-5, abs=1e-7)


@cases()
def test_float16_of_magnitude_1e3_is_finite(rng, case):
    teacher, student, labels = inputs(rng, case.inputs, scale=1e3)
    teacher, student = (like(lambda f: f.astype("float16"), f) for f in (teacher, student))
    loss = case.make()
    assert np.isfinite(float(loss.compute_loss(teacher, student, labels=labels)))
    if case.wide_gradient:
        student = like(lambda f: f.astype("float32"), student)
    value, slopes = gradients(loss, teacher, like(tf.Variable, student), labels)
    is_finite(value, slopes)


@cases()
def test_gradient_is_that_of_finite_differences(rng, case):
    teacher, student, labels = inputs(rng, case.inputs)
    student = like(tf.Variable, student)
    loss = case.make()
    loss.compute_loss(teacher, student, labels=labels)
    _, slopes = gradients(loss, teacher, student, labels, sample_weight=WEIGHTS)
    variables = [variable for variable, _ in slopes]
    slopes = [slope.numpy() for _, slope in slopes]

    def unit(arrays):
        size = np.sqrt(sum(np.sum(a**2) for a in arrays))
        return [a / size for a in arrays]

    # Half uphill, so that the slope stands out of float32's noise, half anywhere.
    anywhere = unit([rng.normal(size=slope.shape) for slope in slopes])
    direction = unit([u + v for u, v in zip(unit(slopes), anywhere, strict=True)])
    starts = [variable.numpy() for variable in variables]

    def at(step):
        for variable, start, d in zip(variables, starts, direction, strict=True):
            variable.assign(start + step * d)
        return float(loss.compute_loss(teacher, student, labels=labels, sample_weight=WEIGHTS))

    expected = sum(np.sum(s * d) for s, d in zip(slopes, direction, strict=True))
    # Two steps: the error that grows with the step's square cancels.
    near, far = ((at(h) - at(-h)) / (2 * h) for h in (0.01, 0.02))
    assert (4 * near - far) / 3 == pytest.approx(expected, rel=2e-2)


def zeros(teacher, student):
    return like(np.zeros_like, teacher), like(np.zeros_like, student)


def zero_student(teacher, student):
    return teacher, like(np.zeros_like, student)


def constant(teacher, student):
    return like(np.ones_like, teacher), like(lambda f: np.full_like(f, 2), student)


def one_example(teacher, student):
    return like(lambda f: f[:1], teacher), like(lambda f: f[:1], student)


@pytest.mark.parametrize("degenerate", [zeros, zero_student, constant, one_example])
@cases()
def test_degenerate_features_are_finite(rng, case, degenerate):
    teacher, student, labels = inputs(rng, case.inputs)
    teacher, student = degenerate(teacher, student)
    labels = labels[: len(each_of(student)[0])]
    is_finite(*gradients(case.make(), teacher, like(tf.Variable, student), labels))


@pytest.mark.parametrize("kept", [0, 1])
@cases()
def test_one_example_or_none_that_weighs_is_finite(rng, case, kept):
    teacher, student, labels = inputs(rng, case.inputs)
    weights = np.array([0, 0, kept, 0], "float32")
    value, slopes = gradients(
        case.make(), teacher, like(tf.Variable, student), labels, sample_weight=weights
    )
    is_finite(value, slopes)
    if not kept:
        assert float(value) == 0


@cases(lambda case: case.tokens)
def test_examples_that_are_masked_entirely_are_finite(rng, case):
    teacher, student, labels = inputs(rng, case.tokens)
    mask = np.zeros((BATCH, 5), bool)
    for valid in (mask, mask | (np.arange(BATCH) == 2)[:, None]):
        is_finite(*gradients(case.make(), teacher, like(tf.Variable, student), labels, mask=valid))


@cases(lambda case: case.other)
def test_config_round_trip(case):
    loss = case.make(**case.other)
    config = loss.get_config()
    for argument, value in case.other.items():
        assert config[argument] == value, argument
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(again) is type(loss)
    assert again.get_config() == config == type(loss)(**config).get_config()


@pytest.mark.parametrize("name", ["Hint", "ChannelWise", "CosineFeatures"])
def test_config_round_trip_of_a_layer(name):
    loss = getattr(losses, name)(connector=keras.layers.Dense(3, use_bias=False))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert keras.saving.serialize_keras_object(again) == keras.saving.serialize_keras_object(loss)


@cases()
def test_the_same_value_again(rng, case):
    teacher, student, labels = inputs(rng, case.inputs)
    loss = case.make()
    values = {float(loss.compute_loss(teacher, student, labels=labels)) for _ in range(2)}
    assert len(values) == 1


@cases()
def test_batches_of_any_size_in_a_graph(rng, case):
    loss = case.make()
    teacher, student, labels = inputs(rng, case.inputs)
    loss.compute_loss(teacher, student, labels=labels)  # its weights are made here

    def specs(shape):
        return tf.TensorSpec((None, *shape), "float32")

    signature = [of_shapes(specs, shapes) for shapes in INPUTS[case.inputs]]
    signature += [tf.TensorSpec((None, *labels.shape[1:]), "int64"), specs(())]

    @tf.function(input_signature=signature, autograph=False)
    def graph(teacher, student, labels, weights):
        return loss.compute_loss(teacher, student, labels=labels, sample_weight=weights)

    given = inputs(rng, case.inputs, batch=6)
    teacher, student, labels = given
    weights = np.arange(1, 7, dtype="float32")
    expected = loss.compute_loss(teacher, student, labels=labels, sample_weight=weights)
    value = graph(*tree.map_structure(tf.constant, given), weights)
    assert float(value) == pytest.approx(float(expected), rel=1e-5, abs=1e-7)


# The plain functions, of teacher, student and labels.
FUNCTIONS = {
    "soft_targets": ("logits", lambda t, s, y: losses.soft_targets(t, s, 2.0)),
    "decoupled_kd": ("logits", lambda t, s, y: losses.decoupled_kd(t, s, y)),
    "dist": ("logits", lambda t, s, y: losses.dist(t, s)),
    "normalized_kd": ("logits", lambda t, s, y: losses.normalized_kd(t, s, y)),
    "logit_mse": ("logits", lambda t, s, y: losses.logit_mse(t, s)),
    "virtual_teacher": ("logits", lambda t, s, y: losses.virtual_teacher(s, y)),
    "attention_transfer": ("wide", lambda t, s, y: losses.attention_transfer(t, s)),
    "neuron_selectivity": ("wide", lambda t, s, y: losses.neuron_selectivity(t, s)),
    "channel_wise": ("maps", lambda t, s, y: losses.channel_wise(t, s)),
    "cosine_features": ("maps", lambda t, s, y: losses.cosine_features(t, s)),
    "rkd_distance": ("flat", lambda t, s, y: losses.rkd_distance(t, s)),
    "rkd_angle": ("flat", lambda t, s, y: losses.rkd_angle(t, s)),
    "similarity_preserving": ("flat", lambda t, s, y: losses.similarity_preserving(t, s)),
    "correlation_congruence": ("flat", lambda t, s, y: losses.correlation_congruence(t, s)),
    "pkt": ("flat", lambda t, s, y: losses.pkt(t, s)),
    "fsp": ("layers", lambda t, s, y: losses.fsp(*t, *s)),
}


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_functions_take_symbolic_tensors(name):
    shapes, function = FUNCTIONS[name]
    teacher, student = (of_shapes(keras.Input, shape) for shape in INPUTS[shapes])
    loss = function(teacher, student, keras.Input((), dtype="int32"))
    assert isinstance(loss, keras.KerasTensor)
    assert ops.mean(loss).shape == ()
