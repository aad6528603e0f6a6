"""The average of the student teaches it."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from tests.keras_distill.networks import (
    Subclassed,
    equal_weights,
    examples,
    mlp,
    weights_of,
    with_a_break,
    with_state,
)

SCE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def compiled(model, rate=0.1, **options):
    model.compile(keras.optimizers.SGD(rate), SCE, **options)
    return model


def test_the_average_follows_the_student_and_not_the_other_way_round():
    x, y = examples(24)
    student = with_state()
    teacher = kd.teachers.EMATeacher(momentum=0.9)
    model = compiled(kd.Distiller(teacher, student, "soft_targets"))
    average = weights_of(student)
    for step in range(30):
        model.train_on_batch(x[:8], y[:8])
        m = min(0.9, 1 - 1 / (step + 2))
        average = [m * a + (1 - m) * s for a, s in zip(average, weights_of(student), strict=True)]
    for found, expected in zip(weights_of(teacher.model), average, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert not equal_weights(weights_of(teacher.model), weights_of(student))
    assert all(not v.trainable for v in teacher.model.variables)


def test_the_average_teaches():
    x, y = examples(24)
    student = mlp()
    teacher = kd.teachers.EMATeacher(momentum=0.5)
    loss = kd.losses.SoftTargets()
    model = compiled(kd.Distiller(teacher, student, loss))
    model.train_on_batch(x, y)
    before, now = teacher.model(x), student(x)
    logs = model.train_on_batch(x, y, return_dict=True)
    expected = float(loss.compute_loss(before, now))
    assert expected > 0
    assert logs["soft_targets"] == pytest.approx(expected, rel=1e-3)


def test_the_average_is_saved_with_the_training(tmp_path):
    x, y = examples(24)

    def make():
        keras.utils.set_random_seed(1)
        return compiled(kd.Distiller(kd.teachers.EMATeacher(0.9), with_state(), "soft_targets"))

    whole, others = with_a_break(["save", "resume"], make, x, y, tmp_path)
    for again in others:
        assert equal_weights(weights_of(again.student), weights_of(whole.student))
        assert equal_weights(weights_of(again.teacher.model), weights_of(whole.teacher.model))


def test_an_average_beside_another_teacher_and_of_a_subclassed_student():
    x, y = examples(24)
    student = Subclassed()
    with pytest.raises(ValueError, match="has no weights yet: call it on a batch first"):
        kd.Distiller(kd.teachers.EMATeacher(), student, "soft_targets")
    student(x)
    teachers = [mlp(width=16), kd.teachers.EMATeacher(0.5)]
    terms = [kd.losses.SoftTargets(), kd.losses.SoftTargets(name="average")]
    model = compiled(kd.Distiller(teachers, student, terms, student_activation="linear"))
    history = model.fit(x, y, epochs=3, verbose=0).history
    assert history["average"][-1] > 0
    ensemble = kd.teachers.Ensemble([mlp(width=16), kd.teachers.EMATeacher(0.5)])
    model = compiled(kd.Distiller(ensemble, mlp(), "soft_targets"))
    before = weights_of(ensemble.members["1"].model)
    model.fit(x, y, epochs=2, verbose=0)
    assert not equal_weights(before, weights_of(ensemble.members["1"].model))


@pytest.mark.parametrize("momentum", [1.0, -0.1, float("nan"), "0.9"])
def test_a_momentum_outside_is_refused(momentum):
    with pytest.raises(ValueError, match=r"momentum must be a number, 0 to 1, got .*; below 1"):
        kd.teachers.EMATeacher(momentum)


def test_an_average_follows_one_student_and_has_no_answers_to_store(tmp_path):
    x, _ = examples(8)
    teacher = kd.teachers.EMATeacher()
    kd.Distiller(teacher, mlp(), "soft_targets")
    with pytest.raises(ValueError, match="follows another student"):
        kd.Distiller(teacher, mlp(), "soft_targets")
    with pytest.raises(ValueError, match="change in every step: they cannot be stored"):
        kd.SoftLabels.build(teacher, x, tmp_path, verbose=False)
