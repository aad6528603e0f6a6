"""What the losses refuse, each with a sentence that says what to do."""

import numpy as np
import pytest

from keras_distill import losses


def maps(*shape):
    """Ones, float32."""
    return np.ones((2, *shape), "float32")


FEW = [maps(4, 4, 3), maps(2, 2, 3)]


@pytest.mark.parametrize(
    ("loss", "teacher", "student", "options", "sentence"),
    [
        (losses.Hint(), maps(4, 4, 3), maps(3), {}, r"\(2, 4, 4, 3\) \(teacher\) and \(2, 3\)"),
        (losses.AttentionTransfer(), maps(9, 3), maps(3, 3, 3), {}, "position by position"),
        (losses.AttentionTransfer(), maps(3), maps(3), {}, "name an earlier layer, or use Hint"),
        (losses.NeuronSelectivity(), maps(3), maps(3), {}, "compares the positions"),
        (losses.ChannelWise(), maps(3), maps(3), {}, "compares the positions"),
        (losses.Hint(), FEW, FEW[:1], {}, "2 of the teacher and 1 of the student"),
        (
            losses.Hint(),
            {"a": maps(3)},
            maps(3),
            {},
            "teacher gives 1 tensors where .* with output=",
        ),
        (losses.Hint(connector=[None] * 3), FEW, FEW, {}, "has 3 connectors for 2 pairs"),
        (losses.Hint(connector="dense"), FEW, FEW, {}, "must be 'auto', None or a keras layer"),
        (losses.FSP(), maps(4, 4, 3), maps(4, 4, 3), {}, "name a list of at least two"),
        (losses.ReviewKD(), maps(4, 4, 3), maps(4, 4, 3), {}, "a list of at least two"),
        (losses.ContrastiveDistillation(), FEW, FEW, {}, "one layer of each network, got 2"),
        (
            losses.ContrastiveDistillation(bank_size=9),
            maps(3),
            maps(3),
            {},
            "A memory bank needs the examples' numbers",
        ),
        (
            losses.Hint(),
            maps(4, 3),
            maps(6, 3),
            {"mask": np.ones((2, 6), bool)},
            "in which a position means the same",
        ),
        (losses.SoftTargets(standardize=True), maps(2), maps(2), {}, "for 3 classes or more"),
        (losses.DecoupledKD(), maps(3), maps(3), {}, "DecoupledKD needs the hard labels"),
        (
            losses.DecoupledKD(),
            maps(3),
            maps(3),
            {"labels": np.zeros((2, 3, 4))},
            "do not fit logits of shape",
        ),
        (losses.DIST(), maps(3), maps(3), {"activation": "sigmoid"}, "each right or wrong by"),
        (losses.LogitMSE(), maps(5), maps(3), {}, "pass class_indices="),
        (losses.SoftTargets(), maps(), maps(), {}, r"got the shape \(2,\): .* give \(batch, 1\)"),
        (losses.FSP(), [maps(4, 4, 3), maps(3)], FEW, {}, r"\(one layer\) and .* \(the next\)"),
        (losses.ReviewKD(), FEW, [maps(4, 3), maps(2, 3)], {}, "ReviewKD fuses maps with maps"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, losses.DistillationLoss) else "",
)
def test_is_refused_with_what_to_do(loss, teacher, student, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        loss.compute_loss(teacher, student, **options)


@pytest.mark.parametrize("label", [-1, 255])
def test_labels_that_are_no_class_teach_nothing(label):
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 4, 5)).astype("float32")
    labels = np.array([0, label, 3, label])
    weights = np.array([1, 0, 1, 0], "float32")
    for loss in (losses.DecoupledKD(), losses.NormalizedKD(), losses.VirtualTeacher()):
        value = float(loss.compute_loss(teacher, student, labels))
        expected = loss.compute_loss(teacher, student, np.array([0, 1, 3, 1]), weights)
        assert value == pytest.approx(float(expected), rel=1e-6)


def test_as_many_layers_are_named_in_both_networks():
    with pytest.raises(ValueError, match="2 of the teacher and 1 of the student"):
        losses.VariationalInformation(["a", "b"], ["a"])


def test_whole_numbers_of_numpy_are_whole_and_schedules_are_told_where_they_are_not():
    import keras

    assert losses.RKDAngle(max_examples=np.int64(64)).max_examples == 64
    rise = keras.optimizers.schedules.PolynomialDecay(1.0, 5, 2.0)
    with pytest.raises(ValueError, match="p must be a number, and cannot be a schedule"):
        losses.AttentionTransfer(p=rise)


@pytest.mark.parametrize("names", [("a", None), (None, "a"), ("auto", "a"), ("a", "auto")])
def test_layers_are_named_in_both_networks(names):
    with pytest.raises(ValueError, match=r"teacher_layer_name=.* and student_layer_name="):
        losses.AttentionTransfer(*names)


def test_weights_of_other_positions_than_the_smaller_maps_spoil_nothing():
    weights = np.ones((2, 4, 4), "float32")
    weights[:, :, 0] = 0
    assert float(losses.Hint().compute_loss(maps(4, 4, 3), maps(2, 2, 3), None, weights)) == 0
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 5, 3)).astype("float32")
    per_token = np.array([[1, 0, 1]] * 5, "float32")  # as many as the features are wide
    pooled = losses.SimilarityPreserving().compute_loss(teacher, student, None, per_token)
    assert float(pooled) == float(losses.SimilarityPreserving().compute_loss(teacher, student))


def test_review_tells_that_it_needs_known_sizes():
    import tensorflow as tf

    spec = [tf.TensorSpec((2, None, None, 3)), tf.TensorSpec((2, None, None, 3))]

    @tf.function(input_signature=[spec, spec], autograph=False)
    def value(teacher, student):
        return losses.ReviewKD().compute_loss(teacher, student)

    with pytest.raises(ValueError, match="a size is not known: give batches of a fixed size"):
        value(FEW, FEW)


@pytest.mark.parametrize(
    "make",
    [
        lambda: losses.ContrastiveDistillation(dimensions=0),
        lambda: losses.ContrastiveDistillation(bank_size=1),
        lambda: losses.ContrastiveDistillation(negatives=2.5),
        lambda: losses.ContrastiveDistillation(momentum=1.5),
        lambda: losses.VariationalInformation(initial_variance=0.0),
        lambda: losses.ChannelWise(temperature=-1.0),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(make):
    with pytest.raises(ValueError, match=r"must be .*, got"):
        make()
