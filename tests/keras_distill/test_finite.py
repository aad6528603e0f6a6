import keras
import numpy as np
import pytest

import keras_distill as kd
from keras_distill import train_step
from tests.keras_distill.networks import equal_weights, examples, mlp, weights_of, with_state

SCE = "sparse_categorical_crossentropy"


def distiller(teacher=None, student=None, learning_rate=0.01, weights=None, **compile_arguments):
    model = kd.Distiller(
        teacher or mlp(name="teacher"),
        student or with_state(),
        "soft_targets",
        distillation_loss_weights=weights,
    )
    model.compile(keras.optimizers.SGD(learning_rate), loss=SCE, **compile_arguments)
    return model


def damaged(model):
    model.layers[-1].kernel.assign(np.full(model.layers[-1].kernel.shape, np.nan))
    return model


def finite(model):
    return all(np.isfinite(weight).all() for weight in weights_of(model))


@pytest.mark.parametrize(
    "how", [{}, {"run_eagerly": True}, {"steps_per_execution": 2}], ids=["graph", "eager", "steps"]
)
def test_a_teacher_that_answers_nan_stops_the_first_step(how):
    x, y = examples()
    model = distiller(teacher=damaged(mlp(name="teacher")), **how)
    before = weights_of(model.student)
    with pytest.raises(
        ValueError,
        match=r"^The loss is NaN in step 1, .* the teacher answers NaN in 8 of 8 examples",
    ):
        model.fit(x, y, batch_size=8, verbose=0)
    assert equal_weights(weights_of(model.student), before)  # BatchNormalization's averages too


def test_nan_in_the_data_stops_at_its_step_and_leaves_the_student_whole():
    x, y = examples()
    x[20, 1] = np.nan
    model = distiller()
    with pytest.raises(ValueError, match=r"in step 3, .*: the inputs hold NaN in 1 of 8 examples"):
        model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    assert finite(model.student)
    assert model.optimizer.iterations == 2


def test_a_gradient_that_is_nan_beside_a_finite_loss_is_named_one_step_late():
    x, y = examples(8)
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(8, kernel_initializer="zeros")(inputs)
    outputs = keras.layers.Dense(3)(keras.ops.sqrt(keras.ops.abs(hidden)))
    model = distiller(student=keras.Model(inputs, outputs))
    sentence = r"in step 2, .*: the student's weights hold NaN, from an earlier step or a file"
    with pytest.raises(ValueError, match=sentence):
        model.fit(x, y, batch_size=4, verbose=0)


def test_nan_that_only_the_gradient_shows_stops_too():
    x, y = examples()
    x[3, 1] = np.nan
    inputs = keras.Input((4,))  # ReLU makes 0 of NaN, so the loss is finite
    hidden = keras.layers.Dense(8)(inputs)
    student = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.ReLU()(hidden)))
    model = distiller(student=student)
    with pytest.raises(ValueError, match="the inputs hold NaN in 1 of 24 examples"):
        model.train_on_batch(x, y)
    assert finite(student)


def test_a_student_that_handles_missing_values_may_see_nan():
    x, y = examples()
    x[3, 1] = np.nan

    def imputed(batch):
        return keras.ops.nan_to_num(batch)

    model = kd.Distiller(
        mlp(), mlp(), "soft_targets", teacher_inputs=imputed, student_inputs=imputed
    )
    model.compile("sgd", loss=SCE)
    assert np.isfinite(model.fit(x, y, verbose=0).history["loss"][0])


def test_a_learning_rate_that_is_too_high_is_named():
    x, y = examples()
    model = distiller(student=mlp(), learning_rate=1e12)
    with pytest.raises(ValueError, match=r"the student answers .* too high a learning rate"):
        model.fit(x, y, batch_size=8, epochs=20, verbose=0)
    assert finite(model.student)


def test_a_learning_rate_that_is_nan_is_named():
    x, y = examples()
    model = distiller(student=mlp(), learning_rate=float("nan"))
    with pytest.raises(ValueError, match=r"update is not finite in step 1.* learning rate is NaN"):
        model.fit(x, y, verbose=0)
    assert finite(model.student)


def test_sample_weights_and_loss_weights_are_named():
    x, y = examples()
    weights = np.ones(len(x), "float32")
    weights[3] = np.nan
    with pytest.raises(ValueError, match="the sample weights hold NaN in 1 of 24 examples"):
        distiller().train_on_batch(x, y, sample_weight=weights)
    with pytest.raises(ValueError, match=r"The loss is infinity .* distillation_loss_weights"):
        distiller(weights=3e38).train_on_batch(100 * x, y)


def test_a_label_beyond_the_classes_is_named():
    x, y = examples()
    with pytest.raises(
        ValueError, match=r"^The labels hold 7, and the student has 3 classes, 0 to 2"
    ):
        distiller().fit(x, np.where(y == 2, 7, y), verbose=0)


def test_under_xla_the_end_of_the_epoch_tells():
    x, y = examples()
    model = distiller(teacher=damaged(mlp(name="teacher")), student=mlp(), jit_compile=True)
    with pytest.raises(ValueError, match=r"^The loss became nan in epoch 1: "):
        model.fit(x, y, epochs=3, verbose=0)


def test_overflow_in_mixed_precision_is_left_to_the_optimizer():
    keras.config.set_dtype_policy("mixed_float16")
    student = mlp()
    keras.config.set_dtype_policy("float32")
    x, y = examples()
    model = kd.Distiller(mlp(), student, "soft_targets")
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=1e30)
    model.compile(scaled, loss=SCE)
    before = weights_of(student)
    model.train_on_batch(x, y)  # the gradients overflow: the scale is halved, nothing else happens
    assert equal_weights(weights_of(student), before)


def test_large_gradients_and_gradients_of_several_types_are_finite():
    x, y = examples()
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(8, dtype="float64")(inputs)
    student = keras.Model(inputs, keras.layers.Dense(3, dtype="float32")(hidden))
    assert np.isfinite(distiller(student=student).train_on_batch(x, y)[0])
    model = distiller(student=mlp(), weights=1e21)  # their squares are more than float32 holds
    model.compile(keras.optimizers.SGD(0.01, clipvalue=1.0), loss=SCE)
    model.train_on_batch(x, y)
    assert finite(model.student)


def test_an_error_of_an_earlier_training_is_not_told_again():
    def lost(x):
        raise KeyError(0)

    model = distiller(kd.teachers.CallableTeacher(lost, 3, "linear"), mlp())
    with pytest.raises(KeyError):
        model.train_on_batch(*examples(8))
    with pytest.raises(ZeroDivisionError, match="10"), train_step.plain_errors():
        raise ZeroDivisionError("10 of another kind")
    with pytest.raises(KeyError):
        model.train_on_batch(*examples(8))
