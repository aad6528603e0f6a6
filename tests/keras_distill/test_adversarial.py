"""A discriminator in the training, and attacks on the inputs."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_distill as kd
from keras_distill import losses
from tests.golden.response import soft_targets, softmax
from tests.keras_distill.networks import (
    equal_weights,
    examples,
    mlp,
    weights_of,
    with_a_break,
    with_state,
)

SCE = "sparse_categorical_crossentropy"


def log_sigmoid(z):
    return -np.log1p(np.exp(-z))


def fed(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(8, 3)).astype("float32") for _ in range(2)]


def own_loss(loss, teacher, student):
    """What the discriminator minimises, in NumPy."""
    real, fake = (np.asarray(loss.discriminator(z), "float64")[:, 0] for z in (teacher, student))
    return np.mean(-0.9 * log_sigmoid(real) - 0.1 * log_sigmoid(-real) - log_sigmoid(-fake))


def test_the_value_is_the_students_part():
    teacher, student = fed()
    loss = losses.Adversarial(ceiling=1.0)
    found = float(loss.compute_loss(teacher, student))
    fake = np.asarray(loss.discriminator(student), "float64")
    assert found == pytest.approx(np.mean(-log_sigmoid(fake)), rel=1e-5)
    weights = np.array([0, 2, 1, 1, 1, 1, 1, 1], "float32")
    found = float(loss.compute_loss(teacher, student, sample_weight=weights))
    assert found == pytest.approx(np.sum(-weights * log_sigmoid(fake[:, 0])) / 8, rel=1e-5)


def test_each_part_moves_its_own_weights():
    teacher, student = (tf.constant(one) for one in fed())
    loss = losses.Adversarial(hidden=4, ceiling=1.0)
    loss.compute_loss(teacher, student)
    own = loss.discriminator.trainable_variables
    with tf.GradientTape() as tape:
        tape.watch([teacher, student])
        value = loss.compute_loss(teacher, student)
    of_teacher, of_student, *of_own = tape.gradient(value, [teacher, student, *own])
    assert of_teacher is None or not np.any(of_teacher)

    def deceived(z):
        return float(np.mean(-log_sigmoid(np.asarray(loss.discriminator(z), "float64"))))

    step = np.zeros((8, 3), "float32")
    step[2, 1] = 1e-3
    slope = (deceived(student + step) - deceived(student - step)) / 2e-3
    assert float(of_student[2, 1]) == pytest.approx(slope, rel=1e-2, abs=1e-5)
    kernel = own[0]
    before = np.array(kernel)
    change = np.zeros_like(before)
    change[0, 1] = 1e-3
    found = []
    for sign in (1, -1):
        kernel.assign(before + sign * change)
        found.append(own_loss(loss, teacher, student))
    kernel.assign(before)
    slope = (found[0] - found[1]) / 2e-3
    assert float(of_own[0][0, 1]) == pytest.approx(slope, rel=1e-2, abs=1e-5)


def test_a_discriminator_that_has_won_pauses():
    teacher, student = np.full((8, 3), 5, "float32"), np.full((8, 3), -5, "float32")
    sure = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    sure.set_weights([np.ones((3, 1)), np.zeros(1)])
    for ceiling, pauses in ((0.8, True), (1.0, False)):
        loss = losses.Adversarial(discriminator=sure, ceiling=ceiling)
        loss.compute_loss(teacher, student)
        with tf.GradientTape() as tape:
            value = loss.compute_loss(teacher, student)
        gradient = tape.gradient(value, sure.trainable_variables)
        assert (not np.any(gradient[0])) == pauses
        assert float(loss.accuracy.result()) == 1.0


def test_the_discriminator_learns_and_its_accuracy_is_shown():
    x, y = examples(24)
    teacher = mlp(width=16)
    teacher.layers[-1].bias.assign([4.0, 0.0, -4.0])  # easy to tell
    student = mlp()
    model = kd.AdversarialDistiller(teacher, student, "logit_mse", student_loss_weight=1 / 2)
    model.compile(
        keras.optimizers.SGD(0.0), SCE, discriminator_optimizer=keras.optimizers.Adam(0.01)
    )
    before = weights_of(student)
    history = model.fit(x, y, epochs=20, verbose=0).history
    assert equal_weights(weights_of(student), before)  # its rate is 0: D learned alone
    assert history["discriminator_accuracy"][-1] > 0.8
    assert "adversarial" in history
    model.optimizer.learning_rate = 0.5
    rates = [float(one.learning_rate) for one in model.optimizer.optimizers]
    assert rates == pytest.approx([0.5, 0.01])


def test_the_student_deceives_it():
    x, y = examples(24)
    teacher, student = mlp(width=16), mlp()
    teacher.layers[-1].bias.assign([3.0, 0.0, -3.0])
    model = kd.AdversarialDistiller(
        teacher, student, kd.losses.LogitMSE(), [0.0], 0.0, adversarial_weight=1.0
    )
    model.compile(keras.optimizers.Adam(0.02), SCE)
    apart = [float(np.abs(np.mean(teacher(x) - student(x), 0)).max())]
    model.fit(tf.data.Dataset.from_tensors((x, y)).repeat(150), verbose=0)
    apart.append(float(np.abs(np.mean(teacher(x) - student(x), 0)).max()))
    assert apart[1] < 0.5 * apart[0]


def test_inner_layers_are_judged():
    x, y = examples(24)
    model = kd.AdversarialDistiller(
        mlp(width=8), mlp(width=8), teacher_layer_name="hidden", student_layer_name="hidden"
    )
    model.compile("adam", SCE)
    assert model.adversary.discriminator.input_shape == (None, 8)
    assert np.isfinite(model.fit(x, y, verbose=0).history["adversarial"][0])
    with pytest.raises(ValueError, match="of equal channels"):
        kd.AdversarialDistiller(
            mlp(width=8), mlp(width=6), teacher_layer_name="hidden", student_layer_name="hidden"
        )


@pytest.mark.parametrize("weight", [0.0, 0.3])
@pytest.mark.parametrize("balancing", [None, "uncertainty"])
def test_the_discriminator_learns_alike_whatever_its_weight(weight, balancing):
    x, y = examples(24)
    teacher, student = mlp(width=16), mlp()
    model = kd.AdversarialDistiller(
        teacher, student, "soft_targets", None, 0.2, weight, loss_balancing=balancing
    )
    model.adversary.ceiling = 1.0
    model.compile("sgd", SCE)
    own = model.adversary.discriminator.trainable_variables
    with tf.GradientTape() as tape:
        value = model.compute_loss(x, y)
    found = tape.gradient(value, own)
    with tf.GradientTape() as tape:
        real, fake = (model.adversary.discriminator(network(x)) for network in (teacher, student))
        sure, wrong = tf.math.log_sigmoid(real), tf.math.log_sigmoid(-real)
        expected = tf.reduce_mean(-0.9 * sure - 0.1 * wrong - tf.math.log_sigmoid(-fake))
    for one, other in zip(found, tape.gradient(expected, own), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("discriminator", "sentence"),
    [
        ("mlp", "discriminator='mlp' must be a keras layer or model"),
        (layers.Dense(4), r"answers \(None, 4\), and must answer one logit"),
    ],
)
def test_a_discriminator_that_cannot_be_meant_is_refused(discriminator, sentence):
    with pytest.raises(ValueError, match=sentence):
        kd.AdversarialDistiller(mlp(), mlp(), discriminator=discriminator)


@pytest.mark.parametrize("mode", [kd.Distiller, kd.AdversarialDistiller, kd.RobustDistiller])
def test_the_history_has_what_was_measured(mode):
    x, y = examples(24)
    arguments = {"bounds": None, "steps": 1} if mode is kd.RobustDistiller else {}
    model = mode(mlp(), mlp(), "soft_targets", student_loss_weight=0, **arguments)
    model.compile("sgd", SCE, metrics=["accuracy"], run_eagerly=True)
    # Labels for the validation alone.
    history = model.fit(x, validation_data=(x, y), epochs=2, verbose=0).history
    assert "val_accuracy" in history
    assert ("val_robust_accuracy" in history) == (mode is kd.RobustDistiller)
    assert ("discriminator_accuracy" in history) == (mode is kd.AdversarialDistiller)
    assert not {"accuracy", "robust_accuracy", "val_discriminator_accuracy"} & set(history)
    assert len(history["soft_targets"]) == 2


def test_saved_and_resumed_it_goes_on(tmp_path):
    x, y = examples(24)

    def make():
        keras.utils.set_random_seed(3)
        model = kd.AdversarialDistiller(mlp(width=16), with_state())
        model.compile(keras.optimizers.Adam(0.01), SCE)
        return model

    whole, others = with_a_break(["save", "resume"], make, x, y, tmp_path)
    for again in others:
        assert len(again.distillation_losses) == 2
        assert equal_weights(weights_of(again.student), weights_of(whole.student))
        first, second = (m.adversary.discriminator for m in (again, whole))
        assert equal_weights(weights_of(first), weights_of(second))


# Attacks


def robust(teacher=None, student=None, compiled=True, **arguments):
    keras.utils.set_random_seed(4)
    teacher, student = teacher or mlp(width=16), student or mlp(width=8)
    arguments = {"epsilon": 0.3, "steps": 5, "bounds": None} | arguments
    model = kd.RobustDistiller(teacher, student, **arguments)
    if compiled:
        model.compile(keras.optimizers.SGD(0.05), SCE, metrics=["accuracy"])
    return model


def of_tokens():
    tokens = keras.Input((4,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(10, 4)(tokens))
    return keras.Model(tokens, layers.Dense(3)(x))


def error(model, x, y):
    return -np.log(softmax(np.asarray(model(x), "float64"))[np.arange(len(y)), y])


@pytest.mark.parametrize("bounds", [None, (-1.0, 1.0)])
def test_attacks_mislead_within_their_bounds(bounds):
    x, y = examples(24)
    x = np.clip(x, -1, 1)
    model = robust(bounds=bounds)
    attacked = np.asarray(model.attack(x, y))
    assert np.abs(attacked - x).max() <= 0.3 + 1e-6
    if bounds:
        assert attacked.min() >= -1
        assert attacked.max() <= 1
    noisy = x + np.random.default_rng(0).uniform(-0.3, 0.3, x.shape).astype("float32")
    assert error(model.student, attacked, y).mean() > error(model.student, noisy, y).mean()
    assert error(model.student, attacked, y).mean() > error(model.student, x, y).mean() + 0.05


def test_the_student_learns_on_attacked_inputs_what_is_said_of_clean_ones(monkeypatch):
    x, y = examples(24)
    model = robust(student_loss_weight=0.25)
    moved = x + 0.1
    monkeypatch.setattr(model, "attack", lambda x, y=None: tf.cast(x, "float32") + 0.1)
    teacher, student = (
        np.asarray(one, "float64") for one in (model.teacher(x), model.student(moved))
    )
    hard = error(model.student, x, y).mean()
    logs = model.train_on_batch(x, y, return_dict=True)
    soft = soft_targets(teacher, student, 30.0)
    assert logs["distillation_loss"] == pytest.approx(soft, rel=1e-3)
    assert logs["loss"] == pytest.approx(0.25 * hard + 0.75 * soft, rel=1e-3)
    right = student.argmax(-1) == y
    assert logs["robust_accuracy"] == pytest.approx(right.mean())


def test_robust_accuracy_is_weighted_as_the_examples_are(monkeypatch):
    x, y = examples(24)
    model = robust()
    monkeypatch.setattr(model, "attack", lambda x, y=None: tf.cast(x, "float32"))
    right = np.argmax(model.student(x), -1) == y
    logs = model.test_step((x, y, np.where(right, 1.0, 3.0)))
    expected = right.sum() / (right.sum() + 3 * (~right).sum())
    assert float(logs["robust_accuracy"]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("labels", "activation", "loss"),
    [(1, "sigmoid", "binary_crossentropy"), (3, None, keras.losses.BinaryCrossentropy(True))],
)
def test_attacks_on_labels_that_are_each_right_or_wrong(labels, activation, loss):
    x, y = examples(24)
    y = (np.stack([y, y + 1, y * 2], -1)[:, :labels] % 2).astype("float32")
    student = mlp(labels, activation=activation)
    model = robust(mlp(labels, width=16), student, compiled=False)
    model.compile("sgd", loss, run_eagerly=True)

    def wrong(x):
        logits = np.asarray(model.forward(x, training=False).logits, "float64")
        return np.mean(np.sum(np.logaddexp(0, -logits * (2 * y - 1)), axis=-1))

    attacked = np.asarray(model.attack(x, y))
    noisy = x + np.random.default_rng(0).uniform(-0.3, 0.3, x.shape).astype("float32")
    assert wrong(attacked) > wrong(noisy) + 0.05
    model._seed.state.assign([1, 2])
    expected = np.asarray(model.attack(x, y))
    logits = np.asarray(model.forward(expected, training=False).logits)
    model._seed.state.assign([1, 2])
    found = model.evaluate(x, y, verbose=0, return_dict=True, batch_size=24)
    assert found["robust_accuracy"] == pytest.approx(np.mean((logits > 0) == y))


def test_an_example_without_a_label_is_attacked_at_the_students_own_answer():
    x, _ = examples(24)
    model = robust()
    found = []
    for labels in (None, np.where(np.arange(24) % 2, -1, np.argmax(model.student(x), -1))):
        model._seed.state.assign([1, 2])
        found.append(np.asarray(model.attack(x, labels)))
    np.testing.assert_array_equal(*found)


def test_inputs_outside_of_the_bounds_are_refused_and_never_moved_far():
    x, y = examples(24)
    model = robust(bounds=(0, 1))
    with pytest.raises(
        ValueError, match=r"bounds=\(0.0, 1.0\).* from -\d.* to \d.* bounds=\(0, 255\)"
    ):
        model.fit(x, y, verbose=0)
    assert np.abs(np.asarray(model.attack(100 * x, y)) - 100 * x).max() <= 0.3 + 1e-4


def test_a_teacher_for_each_loss(monkeypatch):
    x, y = examples(24)
    teachers, student = [mlp(width=16), mlp(width=12)], mlp(width=8)
    terms = [kd.losses.SoftTargets(2.0), kd.losses.LogitMSE()]
    model = robust(teachers, student, compiled=False, distillation_losses=terms)
    monkeypatch.setattr(model, "attack", lambda x, y=None: tf.cast(x, "float32") + 0.1)
    moved = student(x + 0.1)
    expected = sum(
        float(loss.compute_loss(one(x), moved)) for loss, one in zip(terms, teachers, strict=True)
    )
    assert float(model.compute_loss(x, y)) == pytest.approx(expected, rel=1e-4)


def test_statistics_are_not_taken_of_attacks():
    x, y = examples(24)
    model = robust(student=with_state())
    before = weights_of(model.student)
    model.attack(x, y)
    assert equal_weights(weights_of(model.student), before)


def test_history_and_evaluate_show_clean_and_robust_accuracy():
    x, y = examples(48)
    model = robust()
    history = model.fit(x, y, validation_data=(x, y), epochs=2, verbose=0).history
    assert {"accuracy", "robust_accuracy", "val_accuracy", "val_robust_accuracy"} <= set(history)
    found = model.evaluate(x, y, verbose=0, return_dict=True)
    assert found["robust_accuracy"] <= found["accuracy"] + 1e-6
    assert found["accuracy"] == pytest.approx((np.argmax(model.student(x), -1) == y).mean())


def test_it_makes_a_student_more_robust():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 256)
    # One number that cannot be moved across, many small ones that can.
    x = np.concatenate(
        [(2 * y - 1)[:, None] * 1.0, (2 * y - 1)[:, None] * 0.15 + np.zeros((256, 40))], 1
    )
    x = (x + rng.normal(0, 0.1, x.shape)).astype("float32")

    def network():
        return keras.Sequential([keras.Input((41,)), layers.Dense(2)])

    teacher = network()
    kernel = np.zeros((41, 2))
    kernel[0] = [-3, 3]
    teacher.set_weights([kernel, np.zeros(2)])
    plain, hardened = network(), network()
    plain.compile(keras.optimizers.Adam(0.02), keras.losses.SparseCategoricalCrossentropy(True))
    plain.fit(x, y, epochs=20, verbose=0)
    model = kd.RobustDistiller(
        teacher, hardened, kd.losses.SoftTargets(4.0), epsilon=0.4, steps=5, bounds=None
    )
    model.compile(keras.optimizers.Adam(0.02), SCE)
    model.fit(x, y, epochs=20, verbose=0)
    judge = kd.RobustDistiller(teacher, plain, epsilon=0.4, steps=5, bounds=None)
    judge.compile("sgd", SCE)
    first, second = (
        one.evaluate(x, y, verbose=0, return_dict=True)["robust_accuracy"] for one in (judge, model)
    )
    assert second > first + 0.2


def test_a_robust_distiller_goes_on(tmp_path):
    x, y = examples(24)
    # Attacks begin at random: the states of the seeds are kept too.
    whole, [again] = with_a_break(["save"], robust, x, y, tmp_path)
    assert again.get_config()["epsilon"] == pytest.approx(0.3)
    assert equal_weights(weights_of(again.student), weights_of(whole.student))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"epsilon": 0}, "epsilon must be a positive number"),
        ({"steps": 0}, "steps must be a whole number"),
        ({"bounds": (1, 0)}, r"bounds=\(1, 0\) must be \(lowest, highest\)"),
        ({"bounds": 1}, r"bounds=1 must be \(lowest, highest\)"),
        ({"bounds": (0, None)}, r"bounds=\(0, None\) must be \(lowest, highest\)"),
        ({"student": of_tokens(), "teacher": of_tokens()}, "no slope in inputs of int32"),
        ({"step_size": -1}, "step_size must be"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        robust(compiled=False, **arguments)


def test_each_fit_looks_at_the_bounds():
    x, y = examples(8)
    x = 1 / (1 + np.exp(-x))
    model = robust(bounds=(0, 1))
    model.compile("sgd", SCE, run_eagerly=True)
    model.fit(x, y, verbose=0)
    with pytest.raises(ValueError, match=r"the first batch has inputs from .* bounds=\(0, 255\)"):
        model.fit(255 * x, y, verbose=0)
    model.fit(x, y, verbose=0)
    model.compile("sgd", SCE, run_eagerly=True)
    with pytest.raises(ValueError, match="Attacks are kept within bounds"):
        model.train_on_batch(255 * x, y)


def test_the_adversary_is_made_of_the_arguments(tmp_path):
    alone = kd.AdversarialDistiller(mlp(), mlp(), None)
    assert [type(one).__name__ for one in alone.distillation_losses] == ["Adversarial"]
    for given in (losses.Adversarial(), ["soft_targets", "adversarial"]):
        with pytest.raises(ValueError, match="leave it out of distillation_losses, and give"):
            kd.AdversarialDistiller(mlp(), mlp(), given, adversarial_weight=7.0)
    own = layers.Dense(1)
    model = kd.AdversarialDistiller(
        mlp(),
        mlp(),
        distillation_loss_weights=[2.0],
        adversarial_weight=kd.schedules.warm_up(3),
        teacher_layer_name="hidden",
        student_layer_name="hidden",
        discriminator=own,
    )
    again = kd.AdversarialDistiller.from_config(model.get_config())
    assert again.get_config()["adversarial_weight"] == model.get_config()["adversarial_weight"]
    assert again.adversary.teacher_layer_name == again.adversary.student_layer_name == "hidden"
    assert isinstance(again.adversary.discriminator, layers.Dense)
    assert again.distillation_loss_weights[0] == 2.0
    assert len(again.distillation_losses) == 2
