"""Weights of examples and positions: for layers of other sizes, and what losses make of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_distill import losses
from keras_distill.losses.weights import Weights

BATCH = 3


def features(*shape):
    return np.random.default_rng(0).normal(size=(BATCH, *shape)).astype("float32")


def at(weights, *shape):
    return Weights(weights).at(features(*shape)).sample_weight.numpy()


ROWS = np.array([1.0, 0.0, 2.0], "float32")
GRID = np.random.default_rng(1).random((BATCH, 4, 4)).astype("float32")


@pytest.mark.parametrize("shape", [(5,), (6, 5), (4, 4, 5)])
def test_weights_of_examples_are_those_of_any_features(shape):
    np.testing.assert_array_equal(at(ROWS, *shape), ROWS)


def test_a_last_axis_of_1_is_no_position():
    np.testing.assert_array_equal(at(ROWS[:, None], 5), ROWS)
    np.testing.assert_array_equal(at(GRID[..., None], 4, 4, 7), GRID)


def test_smaller_features_get_averages_and_larger_ones_repetitions():
    halves = GRID.reshape(BATCH, 2, 2, 2, 2).mean((2, 4))
    np.testing.assert_allclose(at(GRID, 2, 2, 7), halves, rtol=1e-6)
    np.testing.assert_array_equal(at(GRID, 8, 8, 7), GRID.repeat(2, 1).repeat(2, 2))
    mixed = GRID.reshape(BATCH, 2, 2, 4).mean(2).repeat(2, 2)
    np.testing.assert_allclose(at(GRID, 2, 8, 7), mixed, rtol=1e-6)


def test_features_of_other_positions_get_the_mean():
    np.testing.assert_allclose(at(GRID, 5), GRID.mean((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(at(GRID, 9, 5), GRID.mean((1, 2)), rtol=1e-6)


def test_frames_of_a_sequence_get_the_mask_of_their_time():
    mask = GRID[:, 0] > 0.5
    expected = np.broadcast_to(mask[:, :, None, None], (BATCH, 4, 2, 3))
    np.testing.assert_array_equal(Weights(mask=mask).at(features(4, 2, 3, 5)).mask, expected)


def test_weights_of_as_many_anchors_as_a_map_has_rows_are_no_weights_of_rows():
    np.testing.assert_allclose(at(GRID[:, 0], 4, 4, 5), GRID[:, 0].mean(1), rtol=1e-6)


@pytest.mark.parametrize("shape", [(2, 2), (4, 4), (8, 2), (3, 5)])
def test_sizes_that_are_not_known_yet_make_no_difference(shape):
    @tf.function(
        input_signature=[tf.TensorSpec((None, None, None)), tf.TensorSpec((None, None, None, 5))]
    )
    def weights(grid, maps):
        return Weights(grid).at(maps).sample_weight

    np.testing.assert_allclose(weights(GRID, features(*shape, 5)), at(GRID, *shape, 5), rtol=1e-6)


@pytest.mark.parametrize("size", [(4, 4), (1, 1), (3, 2), (8, 8)])
@pytest.mark.parametrize(
    "make",
    [
        losses.Hint,
        losses.CosineFeatures,
        losses.AttentionTransfer,
        losses.NeuronSelectivity,
        losses.ChannelWise,
        losses.FSP,
    ],
)
def test_losses_of_sizes_that_are_not_known_yet(make, size):
    several = make is losses.FSP
    spec = tf.TensorSpec((None, None, None, 3))
    spec = [spec] * 2 if several else spec

    @tf.function(input_signature=[spec, spec])
    def value(teacher, student):
        return make().compute_loss(teacher, student)

    teacher, student = features(6, 6, 3), features(*size, 3)
    if several:
        teacher, student = [teacher, features(2, 2, 3)], [student, features(1, 1, 3)]
    expected = make().compute_loss(teacher, student)
    assert float(value(teacher, student)) == pytest.approx(float(expected), rel=1e-4, abs=1e-6)


def test_a_list_of_numbers_is_a_weight_for_each_example():
    for loss in (losses.SoftTargets(), losses.Hint(), losses.PKT()):
        found, expected = (
            loss.compute_loss(features(4), features(4) * GRID[:, 0], sample_weight=weights)
            for weights in ([1.0, 0.0, 2.0], ROWS)
        )
        assert float(found) == float(expected)


@pytest.mark.parametrize(
    "loss",
    [
        losses.RKDDistance(),
        losses.RKDAngle(),
        losses.SimilarityPreserving(),
        losses.CorrelationCongruence(),
        losses.PKT(),
        losses.ContrastiveDistillation(dimensions=4),
        losses.AttentionTransfer(),
        losses.NeuronSelectivity(),
        losses.ChannelWise(),
        losses.Hint(),
    ],
    ids=lambda loss: loss.name,
)
def test_an_example_that_is_masked_entirely_is_none(loss):
    teacher, student = features(5, 4), np.tanh(features(5, 4))[:, ::-1].copy()
    mask = np.ones((BATCH, 5), bool)
    mask[1] = False
    found = loss.compute_loss(teacher, student, mask=mask)
    others = loss.compute_loss(teacher[[0, 2]], student[[0, 2]])
    assert float(found) == pytest.approx(float(others), rel=1e-4)


@pytest.mark.parametrize("loss", losses.RELATIONS, ids=lambda loss: loss.__name__)
def test_relations_of_equals_have_no_gradient_whatever_the_weights(loss):
    if loss in (losses.FSP, losses.ContrastiveDistillation):
        pytest.skip("FSP is no relation of examples; contrast is never at its least")
    same, weights = features(4), np.array([5.0, 1.0, 0.5], "float32")
    student = tf.Variable(same)
    with tf.GradientTape() as tape:
        value = loss().compute_loss(same, student, sample_weight=weights)
    assert float(value) == pytest.approx(0, abs=1e-7)
    assert np.abs(tape.gradient(value, student)).max() < 1e-6


def test_what_an_example_weighs_and_which_positions_of_it_count():
    weight = np.array([[1, 0, 3], [2, 2, 2], [0, 0, 0]], "float32")
    mask = np.array([[1, 1, 0], [1, 1, 1], [1, 1, 1]], bool)
    both = Weights(weight, mask).at(features(3, 5))
    np.testing.assert_allclose(both.rows, [0.5, 2, 0])
    np.testing.assert_array_equal(both.valid, (weight > 0) & mask)
    np.testing.assert_array_equal(both.kept, (weight > 0) & mask)
    values = np.arange(9, dtype="float32").reshape(3, 3)
    assert float(both.mean(values)) == pytest.approx((weight * mask * values).sum() / mask.sum())
    assert float(both.mean(values[0])) == pytest.approx((0 * 0.5 + 1 * 2) / 3)
    rows = Weights(ROWS, mask).at(features(3, 5))
    np.testing.assert_array_equal(rows.kept, mask & (ROWS > 0)[:, None])
    assert Weights().at(features(3, 5)).kept is None


WHOLE = {  # losses with one value for each example
    "attention_transfer": (losses.AttentionTransfer, [(5, 4), (5, 3)]),
    "neuron_selectivity": (losses.NeuronSelectivity, [(5, 4), (5, 3)]),
    "channel_wise": (losses.ChannelWise, [(5, 4), (5, 4)]),
    "channel_wise-connector": (losses.ChannelWise, [(5, 4), (5, 3)]),
}
EACH = {  # losses with one for each position
    "hint": (losses.Hint, [(5, 4), (5, 4)]),
    "hint-connector": (losses.Hint, [(5, 4), (5, 3)]),
    "cosine_features": (losses.CosineFeatures, [(5, 4), (5, 4)]),
    "variational_information": (losses.VariationalInformation, [(5, 4), (5, 3)]),
}
SOME = np.array([[1, 1, 0, 0, 1], [0, 1, 0, 0, 0], [1, 1, 1, 1, 1]], "float32")


@pytest.mark.parametrize("name", list(WHOLE))
def test_positions_of_weight_0_are_masked_and_the_example_weighs_the_mean(name):
    make, shapes = WHOLE[name]
    loss, (teacher, student) = make(), (features(*shape) for shape in shapes)
    by_weights = loss.compute_loss(teacher, student, sample_weight=2 * SOME)
    masked = loss.compute_loss(teacher, student, sample_weight=2 * SOME.mean(1), mask=SOME > 0)
    assert float(by_weights) == pytest.approx(float(masked), rel=1e-5)


@pytest.mark.parametrize("name", list(EACH))
def test_positions_are_weighed_one_by_one(name):
    make, shapes = EACH[name]
    loss, (teacher, student) = make(), (features(*shape) for shape in shapes)
    by_weights = loss.compute_loss(teacher, student, sample_weight=2 * SOME)
    masked = loss.compute_loss(teacher, student, mask=SOME > 0)
    assert float(by_weights) == pytest.approx(2 * SOME.mean() * float(masked), rel=1e-5)


def test_flow_and_review_leave_out_positions_of_weight_0():
    teacher, student = [features(5, 4), features(5, 3)], [features(5, 4) / 2, features(5, 3) + 1]
    for loss in (losses.FSP(), losses.ReviewKD()):
        by_weights = loss.compute_loss(teacher, student, sample_weight=2 * SOME)
        masked = loss.compute_loss(
            teacher, student, sample_weight=2 * SOME.mean(1), mask=[SOME > 0] * 2
        )
        assert float(by_weights) == pytest.approx(float(masked), rel=1e-5)


def test_weights_of_pixels_weigh_maps_of_any_size():
    half = np.ones((BATCH, 8, 8), "float32")
    half[:, :, 4:] = 0
    teacher, student = features(4, 4, 3), features(2, 2, 3)
    left = losses.AttentionTransfer().compute_loss(teacher[:, :, :2], student[:, :, :1])
    whole = losses.AttentionTransfer().compute_loss(teacher, student, sample_weight=half)
    assert float(whole) == pytest.approx(0.5 * float(left), rel=1e-5)


def test_each_of_several_layers_may_have_weights_of_its_own():
    first, second = (features(4, 4, 3), features(2, 2, 3)), (features(5), features(5) + 1)
    grid = np.array(GRID)
    loss = losses.Hint()
    found = loss.compute_loss(*zip(first, second, strict=True), sample_weight=[grid, ROWS])
    each = [
        float(losses.Hint().compute_loss(*pair, sample_weight=weight))
        for pair, weight in ((first, grid), (second, ROWS))
    ]
    assert float(found) == pytest.approx(sum(each), rel=1e-6)


def normalizing(*layers):
    return keras.Sequential([*layers, keras.layers.BatchNormalization()])


@pytest.mark.parametrize("by", ["mask", "sample_weight"])
def test_a_connector_of_the_users_is_told_what_counts(by, recwarn):
    given = {"mask": SOME > 0} if by == "mask" else {"sample_weight": SOME}
    student = features(5, 3)
    student[SOME == 0] = 1e30
    for connector in (
        normalizing(keras.layers.Dense(4)),
        normalizing(keras.Sequential([keras.layers.Dense(4)])),
    ):
        loss = losses.Hint(connector=connector)
        # Also at the second call: the running statistics are not spoilt.
        for _ in range(2):
            assert float(loss.compute_loss(features(5, 4), student, **given)) < 10
        assert np.abs(connector.layers[-1].moving_mean.numpy()).max() < 10
    assert not [one for one in recwarn if "mask" in str(one.message)]


def test_a_connector_that_keeps_no_mask_runs_without(recwarn):
    loss = losses.Hint(connector=normalizing(keras.layers.Conv1D(4, 1)))
    assert np.isfinite(loss.compute_loss(features(5, 4), features(5, 3), sample_weight=SOME))
    assert not [one for one in recwarn if "mask" in str(one.message)]


@pytest.mark.parametrize("positions", [(12,), (7,), (8, 6)])
def test_hierarchical_context_is_of_valid_positions(positions):
    rng = np.random.default_rng(2)
    teacher, student = features(*positions, 4), features(*positions, 4)[::-1].copy()
    mask = rng.random((BATCH, *positions)) < 0.5
    mask[0] = True
    mask[2] = False
    found = losses.hierarchical_context(teacher, student, mask).numpy()

    def expected(teacher, student, mask):
        total, weight, weights = 0.0, 1.0, 0.0
        for level in (max(positions), 4, 2, 1):
            if weights and level >= min(positions):
                continue
            sizes = positions if not weights else [level] * len(positions)
            squares = []
            for place in np.ndindex(*sizes):
                part = tuple(
                    slice(i * n // m, -((i + 1) * n // -m))
                    for i, n, m in zip(place, positions, sizes, strict=True)
                )
                if mask[part].any():
                    s, t = (one[part][mask[part]].mean(0) for one in (student, teacher))
                    squares.append(np.square(s - t).mean())
            total, weights = total + weight * np.mean(squares), weights + weight
            weight /= 2
        return total / weights

    assert found[2] == 0
    for i in (0, 1):
        assert found[i] == pytest.approx(expected(teacher[i], student[i], mask[i]), rel=1e-5)
    np.testing.assert_allclose(
        losses.hierarchical_context(teacher, student)[0], found[0], rtol=1e-5
    )


def test_layers_without_a_mask_may_stand_beside_layers_with_one():
    teacher, student = features(4, 5), features(4, 5) + 1
    mask = np.array([[1, 1, 0, 0]] * BATCH, bool)
    student[:, 2:] = 7
    cosine = losses.CosineFeatures
    parts = [float(cosine().compute_loss(teacher, student, mask=one)) for one in (None, mask)]
    both = cosine().compute_loss([teacher] * 2, [student] * 2, mask=[None, mask])
    assert float(both) == pytest.approx(sum(parts), rel=1e-5)
    assert parts[0] != pytest.approx(parts[1], rel=1e-2)
