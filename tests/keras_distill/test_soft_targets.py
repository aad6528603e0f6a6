import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_distill import losses
from tests.golden import response as golden


@pytest.fixture
def logits(rng):
    return rng.normal(size=(6, 5)) * 3, rng.normal(size=(6, 5)) * 3


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_equals_the_formula(logits, temperature):
    loss = losses.SoftTargets(temperature).compute_loss(*logits)
    assert float(loss) == pytest.approx(golden.soft_targets(*logits, temperature), rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_of_labels_by_themselves_equals_the_formula(logits, temperature):
    loss = losses.SoftTargets(temperature).compute_loss(*logits, activation="sigmoid")
    assert float(loss) == pytest.approx(golden.soft_labels(*logits, temperature), rel=1e-5)


def test_is_no_mean_over_classes(logits):
    # Doubling the classes with ones that neither network believes in changes nothing.
    more = [np.concatenate([z, np.full_like(z, -1e3)], axis=-1) for z in logits]
    loss = losses.SoftTargets(2.0)
    assert float(loss.compute_loss(*more)) == pytest.approx(
        float(loss.compute_loss(*logits)), rel=1e-5
    )


def test_one_unit_is_two_classes(rng):
    teacher, student = rng.normal(size=(2, 6, 1))
    two = [np.concatenate([np.zeros_like(z), z], axis=-1) for z in (teacher, student)]
    loss = losses.SoftTargets(3.0)
    one = loss.compute_loss(teacher, student, activation="sigmoid")
    assert float(one) == pytest.approx(float(loss.compute_loss(*two)), rel=1e-5)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_is_zero_for_equals_and_never_negative(rng, activation):
    loss = losses.SoftTargets(4.0)
    for scale in (1e-3, 1.0, 50.0):
        teacher, student = rng.normal(size=(2, 64, 7)) * scale
        assert float(loss.compute_loss(teacher, teacher, activation=activation)) == pytest.approx(
            0, abs=1e-6
        )
        assert float(loss.compute_loss(teacher, student, activation=activation)) >= 0


def test_a_constant_on_a_row_changes_nothing(logits, rng):
    teacher, student = logits
    loss = losses.SoftTargets(4.0)
    shifted = loss.compute_loss(
        teacher + rng.normal(size=(6, 1)), student + rng.normal(size=(6, 1))
    )
    assert float(shifted) == pytest.approx(float(loss.compute_loss(teacher, student)), rel=1e-4)


def test_gradient_is_that_of_finite_differences(logits):
    teacher, student = logits
    z = tf.Variable(student, dtype="float32")
    with tf.GradientTape() as tape:
        loss = losses.SoftTargets(2.0).compute_loss(teacher, z)
    gradient = tape.gradient(loss, z).numpy()
    for i, j in [(0, 0), (3, 4), (5, 2)]:
        step = np.zeros_like(student)
        step[i, j] = 1e-5
        up = golden.soft_targets(teacher, student + step, 2.0)
        down = golden.soft_targets(teacher, student - step, 2.0)
        assert gradient[i, j] == pytest.approx((up - down) / 2e-5, rel=1e-3, abs=1e-6)


def test_the_temperature_leaves_the_size_of_gradients(rng):
    # The reason for T²: near equality the gradient is about the same at T = 10 and T = 100.
    teacher, student = rng.normal(size=(2, 8, 4)).astype("float32")
    sizes = []
    for temperature in (10.0, 100.0):
        z = tf.Variable(student)
        with tf.GradientTape() as tape:
            loss = losses.SoftTargets(temperature).compute_loss(teacher, z)
        sizes.append(np.linalg.norm(tape.gradient(loss, z)))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


def test_float16_of_magnitude_1e3_gives_no_nan(rng):
    teacher, student = (rng.normal(size=(2, 6, 5)) * 1e3).astype("float16")
    z = tf.Variable(student)
    with tf.GradientTape() as tape:
        loss = losses.SoftTargets(1.0).compute_loss(teacher, z)
    assert loss.dtype == "float32"
    assert np.isfinite(float(loss))
    assert np.isfinite(tape.gradient(loss, z).numpy()).all()


def test_classes_that_the_teacher_excludes_count_nothing(logits):
    teacher, student = logits
    shut = np.concatenate([teacher, np.full((6, 1), -np.inf)], axis=-1)
    unlikely = np.concatenate([student, np.full((6, 1), -np.inf)], axis=-1)
    loss = losses.SoftTargets(2.0)
    assert float(loss.compute_loss(shut, unlikely)) == pytest.approx(
        float(loss.compute_loss(teacher, student))
    )


def test_weights_of_examples(logits):
    loss = losses.SoftTargets(2.0)
    weights = np.array([0, 2, 0, 1, 0, 0], "float32")
    rows = [golden.soft_targets(t[None], s[None], 2.0) for t, s in zip(*logits, strict=True)]
    expected = np.sum(weights * rows) / 6
    assert float(loss.compute_loss(*logits, sample_weight=weights)) == pytest.approx(
        expected, rel=1e-5
    )
    column = loss.compute_loss(*logits, sample_weight=weights[:, None])
    assert float(column) == pytest.approx(expected, rel=1e-5)


def test_positions_of_an_example_are_averaged(rng):
    teacher, student = rng.normal(size=(2, 4, 3, 3, 5))  # per-pixel classes
    loss = losses.SoftTargets(2.0)
    expected = golden.soft_targets(teacher.reshape(-1, 5), student.reshape(-1, 5), 2.0)
    assert float(loss.compute_loss(teacher, student)) == pytest.approx(expected, rel=1e-5)
    one = np.array([0, 0, 0, 4.0])
    expected = golden.soft_targets(teacher[3].reshape(-1, 5), student[3].reshape(-1, 5), 2.0)
    weighed = loss.compute_loss(teacher, student, sample_weight=one)
    assert float(weighed) == pytest.approx(expected, rel=1e-5)


def test_several_outputs_are_summed(logits):
    teacher, student = logits
    loss = losses.SoftTargets(2.0)
    single = float(loss.compute_loss(teacher, student))
    both = loss.compute_loss({"a": teacher, "b": teacher}, {"a": student, "b": student})
    assert float(both) == pytest.approx(2 * single, rel=1e-5)


def test_class_indices_choose_the_teachers_columns(rng):
    teacher, student = rng.normal(size=(6, 20)), rng.normal(size=(6, 3))
    loss = losses.SoftTargets(2.0, class_indices=[7, 0, 19])
    expected = golden.soft_targets(teacher[:, [7, 0, 19]], student, 2.0)
    assert float(loss.compute_loss(teacher, student)) == pytest.approx(expected, rel=1e-5)


def test_other_classes_are_refused_with_what_to_do(rng):
    teacher, student = rng.normal(size=(2, 1000)), rng.normal(size=(2, 10))
    with pytest.raises(ValueError, match=r"1000 classes and student in 10: pass class_indices="):
        losses.SoftTargets().compute_loss(teacher, student)
    with pytest.raises(
        ValueError, match=r"class_indices= has 2 columns and the student ends in 10"
    ):
        losses.SoftTargets(class_indices=[1, 2]).compute_loss(teacher, student)
    with pytest.raises(ValueError, match=r"column 1000, and the teacher has 1000 classes"):
        losses.SoftTargets(class_indices=[1000] * 10).compute_loss(teacher, student)


@pytest.mark.parametrize(
    "temperature", [0, -1.0, float("nan"), float("inf"), 1e-30, 1e30, "4", True]
)
def test_temperature_is_positive(temperature):
    with pytest.raises(ValueError, match="temperature must be a positive number"):
        losses.SoftTargets(temperature)


def test_config_round_trip():
    loss = losses.SoftTargets(2.5, class_indices=[1, 2], output="top", name="soft")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert isinstance(again, losses.SoftTargets)
    assert (
        again.get_config()
        == loss.get_config()
        == losses.SoftTargets(**loss.get_config()).get_config()
    )


def test_a_name_is_a_loss():
    assert losses.get("soft_targets").get_config() == losses.SoftTargets().get_config()
    with pytest.raises(ValueError, match="Did you mean 'soft_targets'"):
        losses.get("soft_target")
    with pytest.raises(ValueError, match="got int"):
        losses.get(3)


def test_customary_weights_become_constructor_arguments():
    mixed = losses.mix("soft_targets")
    assert mixed["student_loss_weight"] == 0.1
    assert mixed["distillation_loss_weights"] == [pytest.approx(1.0)]
    assert mixed.scale == 1.0


def test_customary_weights_of_1_are_halved_and_say_so():
    class Attention(losses.DistillationLoss):
        customary_weights = (1.0, 1000.0)

    mixed = losses.mix(Attention(), "soft_targets")
    assert mixed["student_loss_weight"] == 0.5
    assert mixed.scale == 2.0
    share = 1 - mixed["student_loss_weight"]
    papers = [1000.0, 0.9]
    ours = [share * weight * mixed.scale for weight in mixed["distillation_loss_weights"]]
    assert ours == pytest.approx(papers)


def test_runs_on_symbolic_tensors():
    teacher, student = keras.Input((5,)), keras.Input((5,))
    loss = ops.mean(losses.soft_targets(teacher, student, 2.0))
    assert loss.shape == ()
