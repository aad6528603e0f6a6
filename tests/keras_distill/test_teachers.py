import keras
import numpy as np
import pytest

import keras_distill as kd
from keras_distill.network import Answer
from tests.golden import response as golden
from tests.keras_distill.networks import equal_weights, examples, mlp, weights_of

SCE = "sparse_categorical_crossentropy"


def rule(x):
    """Logits by a rule of NumPy."""
    assert isinstance(x, np.ndarray)
    return np.stack([x[:, 0], x[:, 1] * 2, -x[:, 2]], axis=-1)


def test_any_numpy_function_teaches():
    x, y = examples()
    student = mlp()
    s = student.predict(x, verbose=0)
    model = kd.Distiller(kd.teachers.CallableTeacher(rule, (3,)), student, "soft_targets")
    model.compile(keras.optimizers.SGD(0.1), loss=SCE)
    logs = model.train_on_batch(x, y, return_dict=True)
    assert logs["distillation_loss"] == pytest.approx(
        golden.soft_targets(rule(x), s, 4.0), rel=1e-4
    )
    assert np.isfinite(model.fit(x, y, epochs=2, verbose=0).history["loss"]).all()


def test_a_python_function_is_not_compiled_by_xla_and_says_so_once(recwarn):
    model = kd.Distiller(kd.teachers.CallableTeacher(rule, (3,)), mlp(), "soft_targets")
    model.compile("sgd", loss=SCE)  # "auto" needs no word
    assert not recwarn.list
    with pytest.warns(
        UserWarning, match="jit_compile is off: CallableTeacher runs in Python"
    ) as caught:
        model.compile("sgd", loss=SCE, jit_compile=True)
    assert len(caught) == 1
    assert not model.jit_compile


def test_a_function_with_probabilities_must_say_so():
    x, y = examples()

    def probabilities(x):
        return golden.softmax(rule(x))

    model = kd.Distiller(kd.teachers.CallableTeacher(probabilities, (3,)), mlp(), "soft_targets")
    model.compile("sgd", loss=SCE)
    with pytest.raises(ValueError, match=r"activation='softmax'\), or activation='linear' if they"):
        model.fit(x, y, verbose=0)
    logits = kd.teachers.CallableTeacher(probabilities, 3, activation="linear")
    assert logits.known
    np.testing.assert_array_equal(logits.targets(x).logits, probabilities(x).astype("float32"))
    teacher = kd.teachers.CallableTeacher(probabilities, (3,), activation="softmax")
    student = mlp()
    s = student.predict(x, verbose=0)
    model = kd.Distiller(teacher, student, "soft_targets")
    model.compile("sgd", loss=SCE)
    logs = model.train_on_batch(x, y, return_dict=True)
    assert logs["distillation_loss"] == pytest.approx(
        golden.soft_targets(rule(x), s, 4.0), rel=1e-4
    )


def test_a_function_that_answers_in_the_wrong_shape():
    model = kd.Distiller(kd.teachers.CallableTeacher(lambda x: x, (3,)), mlp(), "soft_targets")
    model.compile("sgd", loss=SCE)
    with pytest.raises(
        ValueError, match=r"answered 24 examples with an array of shape \(24, 4\); expected"
    ):
        model.fit(*examples(), verbose=0)


def test_what_a_function_cannot_do():
    teacher = kd.teachers.CallableTeacher(rule, (3,))
    with pytest.raises(ValueError, match="has no layers"):
        kd.Distiller(
            teacher, mlp(), keras.distillation.FeatureDistillation("mse", "hidden", "hidden")
        )
    with pytest.raises(ValueError, match="give them to CallableTeacher itself"):
        kd.Distiller(teacher, mlp(), "soft_targets", teacher_activation="softmax")
    with pytest.raises(ValueError, match="is not known"):
        kd.teachers.CallableTeacher(rule, (3,), activation="relu")
    for shape in (None, "3", (3.0,)):
        with pytest.raises(ValueError, match="Each size in output_shape must be a whole number"):
            kd.teachers.CallableTeacher(rule, shape)


def test_a_teacher_of_ones_own_can_follow_the_student():
    x, y = examples()

    class Follower(kd.teachers.Teacher):
        """Teaches zeros and counts the updates."""

        def __init__(self):
            self.count = keras.Variable(0, dtype="int32", trainable=False)

        def targets(self, x, labels=None):
            zeros = keras.ops.zeros((keras.ops.shape(x)[0], 3))
            return Answer(zeros, zeros, "linear")

        def update(self, x, answer):
            self.count.assign(self.count + 1)

    teacher = Follower()
    model = kd.Distiller(teacher, mlp(), "soft_targets")
    model.compile("sgd", loss=SCE)
    model.fit(x, y, batch_size=8, epochs=2, verbose=0)
    assert int(teacher.count.numpy()) == 6
    assert model.teacher is teacher


def test_student_checkpoint_writes_the_plain_student(tmp_path):
    x, y = examples()
    path = tmp_path / "best.keras"
    model = kd.Distiller(mlp(width=64), mlp(), "soft_targets")
    model.compile("adam", loss=SCE, metrics=["accuracy"])
    model.fit(x, y, verbose=0, callbacks=[kd.callbacks.StudentCheckpoint(path)])
    student = keras.models.load_model(path)
    assert type(student) is type(model.student)
    assert equal_weights(weights_of(student), weights_of(model.student))
    plain = mlp()
    plain.compile("sgd", loss=SCE)
    with pytest.raises(ValueError, match="StudentCheckpoint is for a Distiller, got Functional"):
        plain.fit(x, y, verbose=0, callbacks=[kd.callbacks.StudentCheckpoint(path)])


def test_the_best_student_is_kept_by_a_metric_of_the_distiller(tmp_path):
    x, y = examples(24)
    model = kd.Distiller(mlp(width=16), mlp(), "soft_targets")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss, metrics=["accuracy"])
    for monitor in ("val_accuracy", "val_loss"):
        path = tmp_path / f"{monitor}.keras"
        keep = kd.callbacks.StudentCheckpoint(path, monitor=monitor, save_best_only=True)
        history = model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=[keep]).history
        assert keep.best == history[monitor][0]
        np.testing.assert_array_equal(keras.models.load_model(path)(x), model.student(x))
