"""The sum, and what is in it."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_distill as kd
from tests.golden import response as golden
from tests.keras_distill.networks import (
    Subclassed,
    equal_weights,
    examples,
    mlp,
    weights_of,
    with_state,
)

SCE = "sparse_categorical_crossentropy"


def distiller(
    teacher=None, student=None, losses="soft_targets", loss=SCE, compiled=None, **options
):
    """A compiled distiller of tiny networks."""
    made = kd.Distiller(teacher or mlp(width=16), student or mlp(), losses, **options)
    made.compile(**{"optimizer": keras.optimizers.SGD(0.1), "loss": loss, **(compiled or {})})
    return made


def frozen(model):
    """A copy of the student as it is before training."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


# The sum


def test_the_sum_is_that_of_the_formula():
    x, y = examples()
    teacher, student = mlp(width=16), mlp(kernel_regularizer=keras.regularizers.L2(0.1))
    model = distiller(
        teacher,
        student,
        [kd.losses.SoftTargets(2.0), kd.losses.SoftTargets(5.0)],
        distillation_loss_weights=[0.5, 3.0],
        student_loss_weight=0.3,
    )
    t, s = teacher.predict(x, verbose=0), student.predict(x, verbose=0)
    hard = golden.crossentropy(y, s)
    soft = [golden.soft_targets(t, s, temperature) for temperature in (2.0, 5.0)]
    regularization = 0.1 * np.sum(np.square(student.get_layer("hidden").kernel))
    total = 0.3 * hard + 0.7 * (0.5 * soft[0] + 3.0 * soft[1]) + regularization
    logs = model.train_on_batch(x, y, return_dict=True)
    assert logs["loss"] == pytest.approx(total, rel=1e-4)
    assert logs["total_loss"] == logs["loss"]
    assert logs["student_loss"] == pytest.approx(hard, rel=1e-4)
    assert logs["distillation_loss"] == pytest.approx(0.5 * soft[0] + 3.0 * soft[1], rel=1e-4)
    assert logs["soft_targets"] == pytest.approx(soft[0], rel=1e-4)
    assert logs["soft_targets_1"] == pytest.approx(soft[1], rel=1e-4)


def test_the_step_follows_the_gradient_of_the_sum():
    x, y = examples()
    model = distiller(student_loss_weight=0.25)
    teacher, student = model.teacher, frozen(model.student)
    with tf.GradientTape() as tape:
        s = student(x, training=True)
        hard = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(y, s)
        p = keras.ops.softmax(teacher(x) / 4.0)
        soft = 16 * tf.reduce_mean(
            tf.reduce_sum(p * (tf.math.log(p) - tf.nn.log_softmax(s / 4.0)), -1)
        )
        total = 0.25 * hard + 0.75 * soft
    gradients = tape.gradient(total, student.trainable_variables)
    expected = [np.array(w - 0.1 * g) for w, g in zip(student.weights, gradients, strict=True)]
    model.train_on_batch(x, y)
    for weight, wanted in zip(model.student.get_weights(), expected, strict=True):
        np.testing.assert_allclose(weight, wanted, rtol=1e-4, atol=1e-6)


def test_losses_of_an_epoch_are_weighted_by_batch_size():
    x, y = examples(20)
    model = distiller(compiled={"optimizer": keras.optimizers.SGD(0.0)})
    whole = model.train_on_batch(x, y, return_dict=True)
    model.reset_metrics()
    history = model.fit(x, y, batch_size=16, epochs=1, verbose=0).history
    for name in ("loss", "total_loss", "student_loss", "distillation_loss", "soft_targets"):
        assert history[name][0] == pytest.approx(whole[name], rel=1e-4), name


def test_evaluation_is_the_students_alone():
    x, y = examples()
    student = mlp(kernel_regularizer=keras.regularizers.L2(0.1))
    model = distiller(student=student, compiled={"metrics": ["accuracy"]})
    model.teacher.set_weights([np.full_like(w, np.nan) for w in model.teacher.get_weights()])
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    student.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    alone = student.evaluate(x, y, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(alone["loss"], rel=1e-5)
    assert logs["total_loss"] == pytest.approx(alone["loss"], rel=1e-5)
    assert logs["student_loss"] < logs["loss"]
    assert logs["accuracy"] == alone["accuracy"]
    assert set(logs) == {"loss", "total_loss", "student_loss", "accuracy"}
    assert np.array_equal(model.predict(x, verbose=0), student.predict(x, verbose=0))


def test_history_has_no_soft_losses_of_validation():
    x, y = examples()
    history = distiller().fit(x, y, validation_data=(x, y), epochs=2, verbose=0).history
    assert {"val_loss", "val_total_loss", "val_student_loss"} <= set(history)
    assert not {"val_distillation_loss", "val_soft_targets"} & set(history)
    assert len(history["distillation_loss"]) == 2


# One pass each, and the teacher as it was


class Counting(layers.Layer):
    """Counts its calls in Python, so it must run eagerly."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def call(self, inputs, training=None):
        self.calls.append(training)
        return inputs


def test_each_network_runs_once_per_step_inner_layers_included():
    teacher_count, student_count = Counting(), Counting()

    def network(count, name):
        inputs = keras.Input((4,))
        x = layers.Dense(8, name="hidden")(count(inputs))
        return keras.Model(inputs, layers.Dense(3, activation="softmax")(x), name=name)

    model = distiller(
        network(teacher_count, "t"),
        network(student_count, "s"),
        [
            "soft_targets",
            kd.losses.SoftTargets(1.0),
            keras.distillation.FeatureDistillation("mse", "hidden", "hidden"),
        ],
        compiled={"run_eagerly": True},
    )
    x, y = examples(8)
    teacher_count.calls.clear()
    student_count.calls.clear()
    model.fit(x, y, batch_size=4, epochs=1, verbose=0)
    assert teacher_count.calls == [False, False]
    assert student_count.calls == [True, True]
    model.evaluate(x, y, batch_size=4, verbose=0)
    assert len(teacher_count.calls) == 2
    assert student_count.calls[2:] == [False, False]


def test_the_teacher_is_bit_identical_after_training():
    x, y = examples()
    teacher = with_state()
    before = [variable.numpy() for variable in teacher.variables]
    model = distiller(teacher, with_state(), compiled={"optimizer": "adam"})
    student = weights_of(model.student)
    model.fit(x, y, epochs=3, verbose=0)
    assert equal_weights(before, [variable.numpy() for variable in teacher.variables])
    assert not equal_weights(student, weights_of(model.student))


def test_batch_statistics_move_once_per_step():
    x, y = examples(8)
    student = with_state()
    normalization = next(each for each in student.layers if "normalization" in each.name)
    hidden = keras.Model(student.input, student.layers[1].output)(x).numpy()
    distiller(student=student, losses=["soft_targets"] * 2).train_on_batch(x, y)
    np.testing.assert_allclose(
        normalization.moving_mean, 0.01 * hidden.mean(0), rtol=1e-3, atol=1e-6
    )


def test_the_teacher_is_not_asked_where_it_does_not_count():
    x, y = examples()
    model = distiller(student_loss_weight=1.0)
    model.teacher.set_weights([np.full_like(w, np.nan) for w in model.teacher.get_weights()])
    assert np.isfinite(model.fit(x, y, epochs=1, verbose=0).history["loss"]).all()


def test_nothing_of_the_teacher_is_in_distiller_or_student():
    model = distiller()
    assert len(model.weights) == len(model.student.weights)
    assert [layer.name for layer in model.layers] == [model.student.name]
    assert type(model.student) is type(mlp())


# Weights of examples, masks


def test_an_example_of_weight_0_changes_nothing():
    x, y = examples(8)
    weights = np.array([1, 1, 1, 1, 0, 0, 0, 0], "float32")
    first = distiller()
    teacher, start = first.teacher, frozen(first.student)
    first.train_on_batch(x, y, sample_weight=weights)
    garbage = np.concatenate([x[:4], 100 + x[4:]])
    second = distiller(teacher, start)
    second.train_on_batch(garbage, y, sample_weight=weights)
    assert equal_weights(weights_of(first.student), weights_of(second.student))


def test_example_weights_reach_both_losses():
    x, y = examples(6)
    weights = np.array([0, 3, 1, 0.5, 0, 2], "float32")
    model = distiller()
    t, s = model.teacher.predict(x, verbose=0), model.student.predict(x, verbose=0)
    soft = [golden.soft_targets(t[i : i + 1], s[i : i + 1], 4.0) for i in range(6)]
    hard = [golden.crossentropy(y[i : i + 1], s[i : i + 1]) for i in range(6)]
    logs = model.train_on_batch(x, y, sample_weight=weights, return_dict=True)
    assert logs["distillation_loss"] == pytest.approx(np.sum(weights * soft) / 6, rel=1e-4)
    assert logs["student_loss"] == pytest.approx(np.sum(weights * hard) / 6, rel=1e-4)


def test_class_weights_weigh_the_soft_loss_too():
    x, y = examples(12)
    by_class = {0: 0.0, 1: 1.0, 2: 5.0}
    still = {"optimizer": keras.optimizers.SGD(0.0)}
    model = distiller(compiled=still)
    by_example = np.array([by_class[label] for label in y], "float32")
    expected = model.train_on_batch(x, y, sample_weight=by_example, return_dict=True)
    history = model.fit(x, y, class_weight=by_class, batch_size=12, verbose=0).history
    assert history["distillation_loss"][0] == pytest.approx(expected["distillation_loss"], rel=1e-4)
    assert history["loss"][0] == pytest.approx(expected["loss"], rel=1e-4)


def tokens(width):
    """A tagger of tokens; 0 pads."""
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, width, mask_zero=True)(inputs)
    return keras.Model(
        inputs, layers.TimeDistributed(layers.Dense(3))(layers.LSTM(4, return_sequences=True)(x))
    )


def confident(model):
    """The same network with answers far from even."""
    model.set_weights([weight * 4 for weight in model.get_weights()])
    return model


def test_masked_positions_count_nothing_as_in_keras():
    x = np.array([[1, 2, 3, 0, 0], [4, 5, 0, 0, 0]], "int32")
    y = np.zeros((2, 5), "int32")
    model = distiller(confident(tokens(8)), tokens(4))
    t, s = model.teacher.predict(x, verbose=0)[x > 0], model.student.predict(x, verbose=0)[x > 0]
    logs = model.train_on_batch(x, y, return_dict=True)
    assert logs["distillation_loss"] == pytest.approx(golden.soft_targets(t, s, 4.0), rel=1e-4)
    assert logs["student_loss"] == pytest.approx(golden.crossentropy(y[x > 0], s), rel=1e-4)


def test_masks_and_weights_of_examples_multiply():
    x = np.array([[1, 2, 3, 0, 0], [4, 5, 0, 0, 0]], "int32")
    y = np.zeros((2, 5), "int32")
    model = distiller(confident(tokens(8)), tokens(4))
    t, s = model.teacher.predict(x, verbose=0), model.student.predict(x, verbose=0)
    logs = model.train_on_batch(
        x, y, sample_weight=np.array([[0.0], [2.0]], "float32"), return_dict=True
    )
    expected = 2.0 * 2 / 5 * golden.soft_targets(t[1, :2], s[1, :2], 4.0)  # 2 of 5 valid positions
    assert logs["distillation_loss"] == pytest.approx(expected, rel=1e-4, abs=2e-6)


# Ways of running


def test_several_steps_per_execution_end_the_same():
    x, y = examples(24)
    first = distiller(compiled={"optimizer": "adam"})
    teacher, start = first.teacher, frozen(first.student)
    second = distiller(teacher, start, compiled={"optimizer": "adam", "steps_per_execution": 3})
    for model in (first, second):
        model.fit(x, y, batch_size=4, shuffle=False, epochs=2, verbose=0)
    for a, b in zip(first.student.get_weights(), second.student.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_accumulated_gradients_are_those_of_the_larger_batch():
    x, y = examples(8)
    first = distiller(compiled={"optimizer": keras.optimizers.SGD(0.1)})
    teacher, start = first.teacher, frozen(first.student)
    accumulating = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    second = distiller(teacher, start, compiled={"optimizer": accumulating})
    first.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    second.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    for a, b in zip(first.student.get_weights(), second.student.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_xla_computes_the_same():
    x, y = examples(8)
    first = distiller(mlp(activation="softmax"), mlp(activation="softmax"))
    second = distiller(first.teacher, frozen(first.student), compiled={"jit_compile": True})
    assert second.jit_compile
    logs = [model.train_on_batch(x, y, return_dict=True) for model in (first, second)]
    assert logs[0] == pytest.approx(logs[1], rel=1e-4)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_keeps_all_losses_in_float32(policy):
    keras.config.set_dtype_policy(policy)
    student = mlp(width=32)
    keras.config.set_dtype_policy("float32")
    teacher = mlp(width=16)
    model = distiller(teacher, student, compiled={"optimizer": "adam"})
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")
    x, y = examples(64)
    t, s = teacher.predict(x, verbose=0), np.asarray(student.predict(x, verbose=0), "float32")
    answer = model.forward(x, training=True)
    assert answer.outputs.dtype == policy.removeprefix("mixed_")
    assert answer.logits.dtype == "float32"
    logs = model.fit(x, y, batch_size=64, epochs=30, verbose=0).history
    assert logs["distillation_loss"][0] == pytest.approx(golden.soft_targets(t, s, 4.0), rel=0.02)
    assert logs["loss"][-1] < logs["loss"][0]
    assert all(weight.dtype == "float32" for weight in student.weights)


class Traced(kd.Distiller):
    """Counts how often its step is traced."""

    traces = 0

    def forward(self, x, training):
        self.traces += training
        return super().forward(x, training)


def two_outputs():
    inputs = keras.Input((4,))
    return keras.Model(inputs, {name: layers.Dense(3, name=name)(inputs) for name in "ab"})


@pytest.mark.parametrize("kind", ["arrays", "data set", "generator"])
def test_a_step_is_traced_once(kind):
    x, y = examples(16)
    model = Traced(mlp(), mlp(), "soft_targets")
    model.compile("adam", SCE, metrics=["accuracy", keras.metrics.SparseCategoricalCrossentropy()])
    data = {
        "arrays": (x, y),
        "data set": (tf.data.Dataset.from_tensor_slices((x, y)).batch(8),),
        "generator": ((one for one in [(x[:8], y[:8]), (x[8:], y[8:])]),),
    }[kind]
    history = model.fit(*data, batch_size=8 if len(data) > 1 else None, verbose=0).history
    assert model.traces == 1
    assert list(history)[:2] == ["accuracy", "distillation_loss"]
    assert "sparse_categorical_crossentropy" in history


def test_metrics_of_several_outputs_are_made_before_the_step_as_in_it():
    x, y = examples(8)
    labels = {"a": y, "b": y}
    histories = []
    for spec in (True, False):
        keras.utils.set_random_seed(1)
        model = Traced(two_outputs(), two_outputs(), [kd.losses.SoftTargets(output="a")])
        if not spec:
            model.output_spec = lambda: None
        model.compile("adam", {"a": SCE, "b": SCE}, metrics={"b": ["accuracy"]})
        histories.append(model.fit(x, labels, batch_size=8, verbose=0).history)
        assert model.traces == 1 + (not spec)
    assert histories[0].keys() == histories[1].keys()
    assert "b_accuracy" in histories[0]
    for name, value in histories[0].items():
        assert value == pytest.approx(histories[1][name])


def test_the_same_seed_gives_the_same_weights():
    x, y = examples(24)
    ends = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        model = distiller(with_state(), with_state())
        model.fit(x, y, batch_size=8, epochs=2, verbose=0)
        ends.append(weights_of(model.student))
    assert equal_weights(ends[0], ends[1])
    assert not equal_weights(ends[0], ends[2])


def test_arrays_are_shuffled_anew_in_each_epoch():
    x, y = examples(24)
    seen = []

    class Spy(keras.Model):
        def __init__(self):
            super().__init__()
            self.top = layers.Dense(3)

        def call(self, inputs, training=None):
            if training:
                seen.append(inputs.numpy())
            return self.top(inputs)

    student = Spy()
    student(x[:1])
    distiller(student=student, compiled={"run_eagerly": True}).fit(
        x, y, batch_size=24, epochs=2, verbose=0
    )
    assert not np.array_equal(seen[0], x)
    assert not np.array_equal(seen[0], seen[1])
    for epoch in seen:
        assert np.array_equal(np.sort(epoch, axis=0), np.sort(x, axis=0))


def test_validation_split_is_kerass():
    x, y = examples(20)
    still = {"optimizer": keras.optimizers.SGD(0.0)}
    model = distiller(compiled=still)
    history = model.fit(x, y, validation_split=0.25, verbose=0).history
    expected = model.evaluate(x[15:], y[15:], verbose=0, return_dict=True)
    assert history["val_loss"][0] == pytest.approx(expected["loss"], rel=1e-5)


@pytest.mark.parametrize("part", ["x", "xy", "xyw"])
def test_arrays_are_evaluated_as_keras_does(part):
    x, y = examples(23)
    weights = np.linspace(0, 1, 23)
    share = 0.0 if part == "x" else 0.5
    model = distiller(student_loss_weight=share, loss=None if part == "x" else SCE)
    given = {"x": (x,), "xy": (x, y), "xyw": (x, y, weights)}[part]
    found = model.evaluate(
        *given[:2],
        sample_weight=(*given, None)[2] if part == "xyw" else None,
        batch_size=5,
        return_dict=True,
        verbose=0,
    )
    data = tf.data.Dataset.from_tensor_slices(given).batch(5)
    expected = model.evaluate(data, return_dict=True, verbose=0)
    assert found == pytest.approx(expected, rel=1e-6)
    validation = given if part != "x" else x
    history = model.fit(
        *given[:2], batch_size=8, validation_data=validation, validation_batch_size=5, verbose=0
    ).history
    after = model.evaluate(data, return_dict=True, verbose=0)
    for name, value in after.items():
        assert history[f"val_{name}"] == pytest.approx([value], rel=1e-6)


@pytest.mark.parametrize("outputs", [1, 2])
def test_losses_by_name_know_the_ends_of_a_list_of_outputs(outputs):
    inputs = keras.Input((4,))
    heads = [layers.Dense(3, activation="softmax", name=name)(inputs) for name in "ab"[:outputs]]
    student = keras.Model(inputs, heads if outputs > 1 else heads[0])
    model = kd.Distiller(student, keras.models.clone_model(student), "soft_targets")
    model.compile("sgd", dict.fromkeys("ab"[:outputs], SCE))
    assert [loss.get_config()["from_logits"] for loss in model._hard_loss.values()] == [
        False
    ] * outputs


def test_an_optimizer_of_a_frozen_student_trains_it_later():
    x, y = examples()
    student, optimizer = mlp(), keras.optimizers.Adam()
    student.trainable = False
    model = kd.Distiller(mlp(), student, "soft_targets")
    model.compile(optimizer, SCE)
    with pytest.warns(UserWarning, match="no trainable weights"):
        model.fit(x, y, verbose=0)
    before = weights_of(student)
    student.trainable = True
    model.compile(optimizer, SCE)
    model.fit(x, y, verbose=0)
    assert not equal_weights(weights_of(student), before)


def test_arguments_by_their_places_are_kerass():
    x, y = examples()
    model = distiller()
    history = model.fit(
        x, y, 8, 2, 0, None, 0.0, (x, y), True, None, None, 0, None, None, 6, 2
    ).history
    assert len(history["loss"]) == 2
    assert len(history["val_loss"]) == 1
    assert model.evaluate(x, y, 16, 0, None, None, None, True)["loss"] == history["val_loss"][0]


def test_no_examples_are_refused():
    x, y = examples()
    model = distiller()
    for call in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match="There are no examples: the arrays have length 0"):
            call(x[:0], y[:0], verbose=0)


def test_learns_what_the_teacher_knows_without_a_label():
    x, _ = examples(256)
    teacher = mlp(width=16)
    teacher.set_weights([w * 3 for w in teacher.get_weights()])
    model = distiller(
        teacher,
        mlp(width=16),
        loss=None,
        student_loss_weight=0,
        compiled={"optimizer": keras.optimizers.Adam(0.01)},
    )
    history = model.fit(x, epochs=40, verbose=0).history
    answers = [network.predict(x, verbose=0).argmax(-1) for network in (teacher, model.student)]
    assert np.mean(answers[0] == answers[1]) > 0.9
    assert history["student_loss"] == [0.0] * 40


def test_labels_that_are_missing_or_marked_missing():
    x, y = examples()
    with pytest.raises(ValueError, match=r"student_loss_weight=0.5 needs labels"):
        distiller().fit(x, verbose=0)
    nowhere = np.full_like(y, -1)  # a usual mark of "no label", on which the hard loss is NaN
    history = distiller(student_loss_weight=0).fit(x, nowhere, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_callbacks_and_data_sets_work_as_in_keras():
    x, y = examples(24)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    stop = keras.callbacks.EarlyStopping("val_loss", patience=0, restore_best_weights=True)
    model = distiller(compiled={"optimizer": keras.optimizers.SGD(100.0)})
    history = model.fit(data, validation_data=data, epochs=20, callbacks=stop, verbose=0).history
    assert len(history["loss"]) < 20

    class Sequence(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return x[index * 8 : index * 8 + 8], y[index * 8 : index * 8 + 8]

    assert len(distiller().fit(Sequence(), epochs=2, verbose=0).history["loss"]) == 2


# Keras's losses in ours and ours in Keras's


def test_our_losses_work_in_kerass_distiller():
    x, y = examples()
    teacher, student = mlp(width=16), mlp()
    t, s = teacher.predict(x, verbose=0), student.predict(x, verbose=0)
    theirs = keras.distillation.Distiller(
        teacher, student, kd.losses.SoftTargets(3.0), student_loss_weight=0.0
    )
    theirs.compile(keras.optimizers.SGD(0.0), loss=SCE)
    logs = theirs.fit(x, y, batch_size=24, verbose=0).history
    assert logs["distillation_loss"][0] == pytest.approx(golden.soft_targets(t, s, 3.0), rel=1e-4)


def test_kerass_losses_compute_in_ours_what_they_compute_there():
    x, y = examples()
    teacher, student = mlp(width=16), mlp()
    loss = [
        keras.distillation.LogitsDistillation(3.0, loss=keras.losses.KLDivergence()),
        keras.distillation.FeatureDistillation("mse", "hidden", "hidden"),
    ]
    narrow = mlp(width=8)
    values = []
    for kind in (keras.distillation.Distiller, kd.Distiller):
        model = kind(narrow, student, loss, student_loss_weight=0.0)
        model.compile(keras.optimizers.SGD(0.0), loss=SCE)
        values.append(model.fit(x, y, batch_size=24, verbose=0).history["distillation_loss"][0])
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    t, s = narrow.predict(x, verbose=0), student.predict(x, verbose=0)
    assert teacher is not narrow
    assert values[1] > golden.soft_targets(t, s, 3.0)


def test_an_unconfigured_logits_distillation_warns_of_what_it_computes():
    with pytest.warns(UserWarning, match=r"no softmax is applied, nor T²"):
        kd.Distiller(mlp(), mlp(), keras.distillation.LogitsDistillation(3.0))


def test_losses_that_cannot_be_weighed_warn():
    x, y = examples()
    model = distiller(
        losses=keras.distillation.LogitsDistillation(3.0, loss=keras.losses.KLDivergence())
    )
    with pytest.warns(UserWarning, match="class_weight and example_weighting do not reach it"):
        model.train_on_batch(x, y, sample_weight=np.ones(len(x)))


class Scaled(keras.layers.Layer, kd.losses.DistillationLoss):
    """A loss with a weight of its own."""

    def __init__(self, **config):
        keras.layers.Layer.__init__(self)
        kd.losses.DistillationLoss.__init__(self, **{"name": "scaled", **config})
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def compute_loss(self, teacher_outputs, student_outputs, labels=None, sample_weight=None):
        return kd.losses.mean_over_examples(
            keras.ops.mean(keras.ops.square(self.scale * student_outputs - teacher_outputs), -1),
            sample_weight,
        )


@pytest.mark.parametrize("kind", [kd.Distiller, keras.distillation.Distiller])
def test_losses_with_weights_train_in_ours_and_in_kerass(kind):
    x, y = examples()
    loss = Scaled()
    model = kind(mlp(width=16), mlp(), loss)
    model.compile(
        keras.optimizers.SGD(0.1), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.fit(x, y, epochs=1, verbose=0)
    assert float(loss.scale) != 1.0
    assert any(weight is loss.scale for weight in model.weights)
    assert len(model.student.weights) == 4


# What is refused


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"student_loss_weight": 1.5}, "student_loss_weight must be between 0.0 and 1.0, got 1.5"),
        ({"student_loss_weight": float("nan")}, "must be between 0.0 and 1.0, got nan"),
        ({"student_loss_weight": "half"}, "student_loss_weight must be a number"),
        (
            {"distillation_loss_weights": [1.0, 2.0]},
            r"\(2\) must match number of distillation_losses \(1\)",
        ),
        ({"distillation_loss_weights": [-1.0]}, "finite numbers of at least 0, got -1.0"),
        ({"distillation_loss_weights": [float("inf")]}, "finite numbers of at least 0, got inf"),
        ({"teacher_activation": "tanh"}, "teacher_activation='tanh' is not known"),
        (
            {"student_activation": ["linear"] * 2},
            "student_activation names 2 outputs, and the model has 1",
        ),
    ],
)
def test_arguments_that_cannot_be_meant(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        kd.Distiller(mlp(), mlp(), ["soft_targets"], **options)


@pytest.mark.parametrize("teacher", ["teacher.keras", None, 3])
def test_teachers_that_are_none(teacher):
    with pytest.raises(
        ValueError, match=r"Teacher must be a keras.Model or one of keras_distill.teachers"
    ):
        kd.Distiller(teacher, mlp(), "soft_targets")


def test_models_that_do_not_fit():
    with pytest.raises(
        ValueError, match=r"Teacher ends in 1000 classes and student in 10: pass class_indices="
    ):
        kd.Distiller(mlp(1000), mlp(10), "soft_targets")
    kd.Distiller(mlp(1000), mlp(2), kd.losses.SoftTargets(class_indices=[281, 207]))
    with pytest.raises(ValueError, match=r"Pass teacher_inputs= or student_inputs="):
        kd.Distiller(mlp(features=5), mlp(features=4), "soft_targets")
    with pytest.raises(ValueError, match=r"'distillation_losses' cannot be `None`"):
        kd.Distiller(mlp(), mlp(), None)
    with pytest.raises(ValueError, match="output shapes are incompatible"):
        kd.Distiller(
            mlp(4), mlp(3), keras.distillation.LogitsDistillation(loss=keras.losses.KLDivergence())
        )


def test_a_student_made_of_the_teachers_layers_is_refused():
    teacher = mlp()
    student = keras.Model(teacher.inputs, layers.Dense(3)(teacher.get_layer("hidden").output))
    with pytest.raises(ValueError, match="share 2 weights"):
        kd.Distiller(teacher, student, "soft_targets")
    first = teacher.get_layer("hidden")
    with pytest.raises(ValueError, match="share 2 weights"):
        kd.Distiller(teacher, mlp(features=8), "soft_targets", student_inputs=first)


def test_float_dtypes_may_differ():
    keras.config.set_dtype_policy("float16")
    teacher = mlp()
    keras.config.set_dtype_policy("float32")
    x, y = examples()
    assert np.isfinite(distiller(teacher, mlp()).fit(x, y, verbose=0).history["loss"]).all()


def test_compile_asks_for_the_loss_where_labels_count():
    model = kd.Distiller(mlp(), mlp(), "soft_targets")
    with pytest.raises(ValueError, match=r"'loss' cannot be `None` with student_loss_weight=0.5"):
        model.compile("adam")
    with pytest.raises(ValueError, match="metrics must be a list or tuple"):
        model.compile("adam", loss=SCE, metrics="accuracy")


def test_fit_asks_for_compile_as_keras_does():
    model = kd.Distiller(Subclassed(), Subclassed(), "soft_targets")
    with pytest.raises(ValueError, match="must call `compile"):
        model.fit(*examples())


def test_a_loss_returns_one_number():
    class Vector(kd.losses.DistillationLoss):
        def compute_loss(self, teacher_outputs, student_outputs, labels=None, sample_weight=None):
            return keras.ops.mean(student_outputs, axis=-1)

    model = distiller(losses=Vector())
    with pytest.raises(ValueError, match="non-scalar loss with shape"):
        model.train_on_batch(*examples())


def test_an_unbuilt_student_is_built_by_the_first_batch():
    x, y = examples()
    student = keras.Sequential(
        [layers.Dense(8, activation="relu"), layers.Dense(3, activation="softmax")]
    )
    model = distiller(student=student)
    assert not model.built
    model.fit(x, y, verbose=0)
    assert model.built
    assert len(student.weights) == 4


def test_a_subclassed_student_trains():
    x, y = examples()
    model = distiller(Subclassed(), Subclassed())
    assert np.isfinite(model.fit(x, y, epochs=2, verbose=0).history["loss"]).all()


def test_arrays_of_different_lengths_are_refused():
    x, y = examples(24)
    with pytest.raises(ValueError, match="cardinality"):
        distiller().fit(x, np.concatenate([y, y]), verbose=0)


def test_names_that_the_history_has_already_are_refused():
    with pytest.raises(ValueError, match="cannot be named 'loss'"):
        kd.Distiller(mlp(), mlp(), kd.losses.SoftTargets(name="loss"))


def test_every_fit_has_an_order_of_its_own_and_every_seed_too():
    x, _ = examples(24)
    seen = []
    for seed, fits in ((7, 1), (7, 1), (8, 1), (7, 2)):
        keras.utils.set_random_seed(seed)
        seen.append(order(x, fits))
    assert np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0], seen[2])
    assert not np.array_equal(seen[0], seen[3])


def order(x, fits):
    """The examples as the student saw them in the last of several calls of `fit`."""
    model = kd.Distiller(mlp(), Subclassed(), "soft_targets", student_loss_weight=0)
    model.compile("sgd", run_eagerly=True)
    seen = []
    call = model.student.call
    model.student.call = lambda inputs, training=None: seen.append(np.array(inputs)) or call(inputs)
    for _ in range(fits):
        seen.clear()
        model.fit(x, batch_size=24, verbose=0)
    return seen[-1]


def test_a_later_epoch_has_the_order_that_it_would_have_had():
    x, y = examples(24)
    ends = []
    for stops in ((3,), (2, 3)):
        keras.utils.set_random_seed(7)
        model = distiller()
        numbers = []
        for first, last in zip((0, *stops), stops, strict=False):
            history = model.fit(x, y, batch_size=8, initial_epoch=first, epochs=last, verbose=0)
            numbers += history.epoch
        assert numbers == [0, 1, 2]
        ends.append(weights_of(model.student))
    assert equal_weights(*ends)


def test_part_of_the_arrays_for_each_epoch():
    x, y = examples(24)
    model = distiller()
    history = model.fit(x, y, batch_size=4, steps_per_epoch=2, epochs=3, verbose=0).history
    assert len(history["loss"]) == 3
    assert int(model.optimizer.iterations) == 6


def test_a_one_shot_data_set_loses_no_batch():
    x, y = examples(24)
    once = iter([(x[i : i + 8], y[i : i + 8]) for i in range(0, 24, 8)])
    spec = (tf.TensorSpec((None, 4)), tf.TensorSpec((None,), tf.int32))
    data = tf.data.Dataset.from_generator(lambda: once, output_signature=spec)
    seen = []
    count = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(batch)
    )
    distiller().fit(data, verbose=0, callbacks=[count])
    assert seen == [0, 1, 2]


def test_float64():
    keras.backend.set_floatx("float64")
    try:
        x, y = examples()
        assert np.isfinite(distiller().fit(x.astype("float64"), y, verbose=0).history["loss"]).all()
    finally:
        keras.backend.set_floatx("float32")


def test_half_precision_is_scaled_and_unscaled():
    # With SGD the step shows it: gradients of a loss that was not scaled would come out 2^15 too small.
    keras.config.set_dtype_policy("mixed_float16")
    student = mlp(width=32)
    keras.config.set_dtype_policy("float32")
    x, y = examples(64)
    half = distiller(mlp(width=16), student)
    whole = distiller(half.teacher, keras.models.clone_model(mlp(width=32)))
    whole.student.set_weights(student.get_weights())
    before = weights_of(student)
    for model in (half, whole):
        model.train_on_batch(x, y)
    for start, a, b in zip(before, weights_of(student), weights_of(whole.student), strict=True):
        np.testing.assert_allclose(a - start, b - start, atol=2e-3)
        assert np.abs(b - start).max() > 1e-3


def test_losses_of_ones_own_get_float32_of_a_half_precision_student():
    kinds = []

    class Squares(kd.losses.DistillationLoss):
        def compute_loss(self, teacher_outputs, student_outputs, labels=None, sample_weight=None):
            kinds.extend([teacher_outputs.dtype, student_outputs.dtype])
            return keras.ops.sum(keras.ops.square(teacher_outputs - student_outputs))

    keras.config.set_dtype_policy("mixed_float16")
    student = mlp()
    keras.config.set_dtype_policy("float32")
    layer = Squares(teacher_layer_name="hidden", student_layer_name="hidden")
    distiller(mlp(), student, [Squares(), layer]).train_on_batch(*examples())
    assert set(map(str, map(keras.backend.standardize_dtype, kinds))) == {"float32"}


def test_regularisation_of_losses_that_are_layers_counts():
    x, y = examples()
    loss = Scaled()
    loss.scale.regularizer = keras.regularizers.L2(3.0)
    model = distiller(losses=loss, compiled={"optimizer": keras.optimizers.SGD(0.0)})
    logs = model.train_on_batch(x, y, return_dict=True)
    rest = 0.5 * logs["student_loss"] + 0.5 * logs["distillation_loss"]
    assert logs["loss"] == pytest.approx(rest + 3.0, rel=1e-4)


def test_compute_loss_is_the_sum_too():
    x, y = examples()
    model = distiller(student_loss_weight=0.3, compiled={"optimizer": keras.optimizers.SGD(0.0)})
    t, s = model.teacher.predict(x, verbose=0), model.student.predict(x, verbose=0)
    total = 0.3 * golden.crossentropy(y, s) + 0.7 * golden.soft_targets(t, s, 4.0)
    assert float(model.compute_loss(x, y, training=True)) == pytest.approx(total, rel=1e-4)
    assert float(model.compute_loss(x, y, model.student(x), training=True)) == pytest.approx(
        total, rel=1e-4
    )
    assert float(model.compute_loss(x, y, training=False)) == pytest.approx(
        golden.crossentropy(y, s), rel=1e-4
    )


def test_export_is_the_students(tmp_path):
    model = distiller()
    model.fit(*examples(), verbose=0)
    model.export(tmp_path / "saved", verbose=False)
    x = examples()[0]
    served = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(served.serve(x), model.student(x), rtol=1e-4, atol=1e-6)


MIRRORED = """
import numpy as np, tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
import keras
import keras_distill as kd
from tests.keras_distill.networks import examples, mlp

x, y = examples(17)
data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
ends = []
for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
    with strategy.scope():
        keras.utils.set_random_seed(3)
        student = mlp(activation="softmax", kernel_regularizer="l2")
        model = kd.Distiller(mlp(width=16, activation="softmax"), student, "soft_targets")
        model.compile(keras.optimizers.SGD(0.1), loss="sparse_categorical_crossentropy")
    logs = model.fit(data.take(2), epochs=2, verbose=0).history
    assert (model._teacher._folded is None) == (strategy.num_replicas_in_sync == 2)
    ends.append((logs, student.get_weights()))
for name in ends[0][0]:
    np.testing.assert_allclose(ends[0][0][name], ends[1][0][name], rtol=1e-4, err_msg=name)
for one, other in zip(ends[0][1], ends[1][1]):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
logs = model.fit(data, verbose=0).history  # an odd rest counts otherwise, as in plain Keras
assert all(np.isfinite(values).all() for values in logs.values()), logs
"""


def test_two_devices_end_as_one():
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run(
        [sys.executable, "-c", MIRRORED],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-2000:]
