"""Several teachers: as one, or each for a loss of its own."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_distill as kd
from tests.golden import ensemble as golden
from tests.golden.response import softmax
from tests.keras_distill.networks import examples, mlp, weights_of

SCE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Fixed(kd.teachers.Teacher):
    """Answers the same logits to whatever it is asked."""

    def __init__(self, logits, kind="linear"):
        self.logits, self.kind = np.asarray(logits, "float32"), kind

    def targets(self, x, labels=None):
        return kd.teachers.Answer(self.logits, ops.convert_to_tensor(self.logits), self.kind)


def fitted(model, *data, learning_rate=0.1, **arguments):
    model.compile(keras.optimizers.SGD(learning_rate), SCE)
    return model.fit(*data, verbose=0, shuffle=False, **arguments).history


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("weighting", ["mean", "entropy", "confidence"])
@pytest.mark.parametrize("count", [2, 3])
def test_the_answer_is_the_weighted_mean_of_softened_answers(rng, weighting, temperature, count):
    logits = rng.normal(0, 5, (count, 6, 4))
    labels = rng.integers(0, 4, 6)
    ensemble = kd.teachers.Ensemble([Fixed(one) for one in logits], weighting, temperature)
    answer = ensemble.targets(np.zeros((6, 1)), labels)
    np.testing.assert_allclose(
        softmax(np.asarray(answer.logits, "float64") / temperature),
        golden.softened(logits, temperature, weighting, labels),
        rtol=1e-5,
        atol=1e-7,
    )
    np.testing.assert_allclose(
        answer.outputs, golden.softened(logits, 1.0, weighting, labels), rtol=1e-4, atol=1e-7
    )
    assert answer.activations == "softmax"


def test_positions_are_weighed_one_by_one(rng):
    logits = rng.normal(0, 3, (2, 5, 3, 4))
    labels = rng.integers(0, 4, (5, 3))
    ensemble = kd.teachers.Ensemble([Fixed(one) for one in logits], "confidence", 2.0)
    found = ensemble.targets(np.zeros(5), labels).logits
    expected = golden.softened(logits.reshape(2, 15, 4), 2.0, "confidence", labels.reshape(-1))
    np.testing.assert_allclose(softmax(np.asarray(found) / 2).reshape(15, 4), expected, rtol=1e-5)


@pytest.mark.parametrize("weighting", ["mean", "entropy", "confidence"])
def test_independent_labels_are_averaged_one_by_one(rng, weighting):
    logits = rng.normal(0, 3, (2, 5, 3))
    labels = rng.integers(0, 2, (5, 3))
    for arguments, kind in (({}, "sigmoid"), ({"independent_labels": True}, "linear")):
        members = [Fixed(one, kind) for one in logits]
        ensemble = kd.teachers.Ensemble(members, weighting, 3.0, **arguments)
        answer = ensemble.targets(np.zeros(5), labels)
        p = 1 / (1 + np.exp(-logits))
        if weighting == "mean":
            w = np.full((2, 5), 0.5)
        elif weighting == "entropy":
            h = -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum(-1)
            w = 1 - h / h.sum(0)
        else:
            ce = -np.where(labels, np.log(p), np.log(1 - p)).sum(-1)
            w = 1 - softmax(ce.T).T
        expected = (w[..., None] / (1 + np.exp(-logits / 3))).sum(0)
        np.testing.assert_allclose(1 / (1 + np.exp(-np.asarray(answer.logits) / 3)), expected, 1e-5)
        assert answer.activations == "sigmoid"


def test_one_teacher_alone_is_itself(rng):
    logits = rng.normal(0, 3, (6, 4))
    for weighting in ("mean", "entropy", "confidence"):
        answer = kd.teachers.Ensemble([Fixed(logits)], weighting).targets(np.zeros(6), None)
        np.testing.assert_allclose(
            softmax(np.asarray(answer.logits)), softmax(logits), rtol=1e-4, atol=1e-7
        )


def test_teachers_that_are_all_sure_are_weighed_alike():
    logits = np.array([[[500.0, 0, 0]], [[0, 500.0, 0]]])
    for weighting in ("entropy", "confidence"):
        ensemble = kd.teachers.Ensemble([Fixed(one) for one in logits], weighting, 1.0)
        found = softmax(np.asarray(ensemble.targets(np.zeros(1), np.array([2])).logits))
        np.testing.assert_allclose(found, [[0.5, 0.5, 0.0]], atol=1e-6)
    # A label that is no class.
    answer = ensemble.targets(np.zeros(1), np.array([-1]))
    np.testing.assert_allclose(softmax(np.asarray(answer.logits)), [[0.5, 0.5, 0.0]], atol=1e-6)


def test_it_teaches_in_fit_as_its_answers_stored_would(rng):
    x, y = examples(24)
    first, second = mlp(width=8), mlp(width=12, activation="softmax")
    before = weights_of(first) + weights_of(second)
    ensemble = kd.teachers.Ensemble([first, second], "confidence", temperature=2.0)
    student = mlp(width=4)
    start = student.get_weights()
    model = kd.Distiller(ensemble, student, kd.losses.SoftTargets(temperature=2.0))
    history = fitted(model, x, y, epochs=3)
    answers = np.asarray(ensemble.targets(x, y).logits)

    student.set_weights(start)
    data = {"x": x, "t": answers}
    known = kd.teachers.CallableTeacher(lambda t: t, (3,), inputs="t", activation="linear")
    other = kd.Distiller(known, student, kd.losses.SoftTargets(temperature=2.0), student_inputs="x")
    expected = fitted(other, data, y, epochs=3)
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-4)
    after = weights_of(first) + weights_of(second)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_teachers_of_other_input_sizes_and_features_of_each():
    small = keras.Input((8, 8, 3))
    large = keras.Input((16, 16, 3))

    def network(inputs, width):
        x = layers.Conv2D(width, 3, activation="relu", name="conv")(inputs)
        return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))

    teachers = {"small": network(small, 4), "large": network(large, 6)}
    student = network(small, 2)
    with pytest.raises(ValueError, match="teacher_inputs="):
        kd.Distiller(kd.teachers.Ensemble(teachers), student, "soft_targets")
    ensemble = kd.teachers.Ensemble(
        teachers, inputs={"small": None, "large": lambda x: ops.image.resize(x, (16, 16))}
    )
    hint = kd.losses.Hint("large/conv", "conv")
    model = kd.Distiller(ensemble, student, ["soft_targets", hint])
    x = np.random.default_rng(0).normal(size=(6, 8, 8, 3)).astype("float32")
    history = fitted(model, x, np.arange(6) % 3, epochs=2)
    assert np.isfinite(history["loss"]).all()
    assert hint.connectors[0](np.zeros((1, 6, 6, 2), "float32")).shape == (1, 6, 6, 6)
    with pytest.raises(ValueError, match="give the teacher's name first, such as 'small/conv'"):
        kd.Distiller(ensemble, student, kd.losses.Hint("conv", "conv"))
    lines = []
    model.summary(print_fn=lines.append)
    assert lines[0].count("Teacher (frozen)") == 2
    assert "14×14×6" in lines[0]


def test_a_teacher_for_each_loss():
    x, y = examples(24)
    one, other, student = mlp(width=8), mlp(width=12), mlp(width=4)
    terms = [
        kd.losses.SoftTargets(),
        kd.losses.Hint("hidden", "hidden"),
        kd.losses.SoftTargets(temperature=1.0, name="second"),
    ]
    model = kd.Distiller([one, other, one], student, terms)
    assert model.teacher == [one, other, one]
    history = fitted(model, x, y, learning_rate=0.0)
    for name, loss, teacher in (("soft_targets", terms[0], one), ("second", terms[2], one)):
        expected = loss.compute_loss(teacher(x), student(x))
        np.testing.assert_allclose(history[name][0], float(expected), rtol=1e-4)
    assert terms[1].connectors[0](np.zeros((1, 4), "float32")).shape == (1, 12)
    with pytest.raises(ValueError, match="There are 2 teachers for 3 losses"):
        kd.Distiller([one, other], student, [kd.losses.SoftTargets() for _ in range(3)])


def test_auto_layers_of_a_teacher_for_each_loss():
    def network(width):
        inputs = keras.Input((8, 8, 3))
        x = layers.Conv2D(width, 3, strides=2, padding="same", activation="relu")(inputs)
        x = layers.Conv2D(width, 3, strides=2, padding="same", activation="relu")(x)
        return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))

    one, other = network(6), network(8)
    model = kd.Distiller(
        [one, other], network(2), [kd.losses.SoftTargets(), kd.losses.AttentionTransfer("auto")]
    )
    names = {layer.name for layer in other.layers}
    assert set(model.soft_terms.terms[1].teacher_layers) <= names


def test_stored_labels_among_them_say_how_many_views_there_are(rng):
    stored, other = Fixed(rng.normal(0, 3, (6, 3))), Fixed(rng.normal(0, 3, (6, 3)))
    stored.views = 3
    both = kd.teachers.Ensemble([other, stored])
    terms = ["soft_targets", kd.losses.DIST()]
    for teacher in ([stored, other], both, [other, both]):
        assert kd.Distiller(teacher, mlp(), terms).views() == 3
    assert kd.teachers.Ensemble([other]).views is None
    other.views = 2
    with pytest.raises(
        ValueError, match="has 2 teachers that are stored labels, and a batch holds those of one"
    ):
        kd.teachers.Ensemble([stored, other])


def test_one_that_is_given_twice_is_asked_once_and_counts_twice(rng):
    asked = []

    class Asked(Fixed):
        def targets(self, x, labels=None):
            asked.append(self)
            return super().targets(x, labels)

    one, other = (Asked(rng.normal(0, 3, (6, 3))) for _ in range(2))
    found = kd.teachers.Ensemble([one, one, other], temperature=1.0).targets(np.zeros(6))
    assert asked == [one, other]
    expected = (2 * softmax(one.logits) + softmax(other.logits)) / 3
    np.testing.assert_allclose(found.outputs, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["ensemble", "dict", "per loss"])
def test_saved_and_loaded_it_goes_on(tmp_path, kind):
    x, y = examples(24)
    one, other, student = mlp(width=8), mlp(width=12), mlp(width=4)
    if kind == "per loss":
        teacher, terms = [one, other, one], ["soft_targets", kd.losses.Hint("hidden", "hidden")]
        terms.append(kd.losses.SoftTargets(name="second"))
    else:
        members = {"a": one, "b": other} if kind == "dict" else [one, other]
        teacher, terms = kd.teachers.Ensemble(members, "entropy", 2.0), ["soft_targets"]
    model = kd.Distiller(teacher, student, terms)
    fitted(model, x, y)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    if kind == "per loss":
        assert again.teacher[0] is again.teacher[2]
        assert again.teacher[0] is not again.teacher[1]
    else:
        assert list(again.teacher.members) == (["a", "b"] if kind == "dict" else ["0", "1"])
        assert again.teacher.weighting == "entropy"
    for which in (model, again):
        which.student.set_weights(weights_of(student))
    np.testing.assert_allclose(
        again.fit(x, y, verbose=0, shuffle=False).history["soft_targets"],
        model.fit(x, y, verbose=0, shuffle=False).history["soft_targets"],
        rtol=1e-4,
    )


def test_what_cannot_be_meant_is_refused(rng):
    x, y = examples(8)
    with pytest.raises(ValueError, match="takes a list of teachers, or a dict"):
        kd.teachers.Ensemble(mlp())
    with pytest.raises(ValueError, match="takes a list of teachers, or a dict"):
        kd.teachers.Ensemble([])
    with pytest.raises(ValueError, match="give one of 'mean', 'entropy', 'confidence'"):
        kd.teachers.Ensemble([mlp()], weighting="best")
    for temperature in (0, "4"):
        with pytest.raises(ValueError, match=f"must be a positive number, got {temperature!r}"):
            kd.teachers.Ensemble([mlp()], temperature=temperature)
    one = mlp()
    with pytest.raises(ValueError, match="The teachers 0 and 1 are one network with two inputs="):
        kd.teachers.Ensemble([one, one], inputs=[None, lambda x: -x])
    with pytest.raises(ValueError, match="must have one for each of the 2 teachers"):
        kd.teachers.Ensemble([mlp(), mlp()], inputs=[None])
    with pytest.raises(ValueError, match=r"Teacher must be a keras\.Model or one of"):
        kd.teachers.Ensemble([mlp(), "resnet"])
    confident = kd.teachers.Ensemble([mlp(), mlp()], "confidence")
    model = kd.Distiller(confident, mlp(), "soft_targets", student_loss_weight=0)
    with pytest.raises(
        ValueError, match="compares the teachers with the labels, and there are none"
    ):
        fitted(model, x)
    unlike = kd.teachers.Ensemble([mlp(3), mlp(4)])
    with pytest.raises(
        ValueError, match=r"'1' ends in \[\(4,\)\] where the first ends in \[\(3,\)\]"
    ):
        fitted(kd.Distiller(unlike, mlp(3), "soft_targets"), x, y)


def test_its_answers_are_stored_with_the_labels_they_need(tmp_path):
    x, y = examples(24)
    ensemble = kd.teachers.Ensemble([mlp(width=8), mlp(width=12)], "confidence")
    labels = kd.SoftLabels.build(ensemble, (x, y), tmp_path, dtype="float32", verbose=False)
    student = mlp(width=4)
    rate = {"learning_rate": 0.0}
    stored = fitted(kd.Distiller(labels, student, "soft_targets"), labels.attach((x, y)), **rate)
    live = fitted(kd.Distiller(ensemble, student, "soft_targets"), x, y, **rate)
    np.testing.assert_allclose(stored["soft_targets"], live["soft_targets"], rtol=1e-4)
    with pytest.raises(ValueError, match="compares the teachers with the labels"):
        kd.SoftLabels.build(ensemble, x, tmp_path / "x", verbose=False)
    other = kd.teachers.Ensemble([mlp(width=8), mlp(width=12)], "confidence")
    with pytest.raises(ValueError, match="holds other labels: their teacher is"):
        kd.SoftLabels.build(other, (x, y), tmp_path, dtype="float32", verbose=False)


@pytest.mark.parametrize("weighting", ["mean", "entropy", "confidence"])
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_a_class_that_a_teacher_excludes(weighting, kind):
    without = np.array([[2.0, 0.0, -np.inf], [0.0, 1.0, -np.inf]])
    far = np.where(np.isinf(without), -1e4, without)
    other = np.array([[1.0, 0.0, 0.5], [3.0, 0.0, 0.0]])
    labels = np.array([2, 0]) if kind == "softmax" else np.array([[0, 1, 1], [1, 0, 0]])
    found, expected = (
        kd.teachers.Ensemble(
            [Fixed(one), Fixed(other)], weighting, independent_labels=kind == "sigmoid"
        ).targets(None, labels)
        for one in (without, far)
    )
    np.testing.assert_allclose(found.outputs, expected.outputs, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-5)
    assert np.isfinite(np.asarray(found.logits)).all()
