"""What the student said before softens its labels."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_distill as kd
from keras_distill import epoch
from tests.golden.response import softmax
from tests.keras_distill.networks import equal_weights, examples, mlp, weights_of

SCE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def compiled(model, rate=0.1, **options):
    model.compile(keras.optimizers.SGD(rate), SCE, **options)
    return model


def past(folder=None, epochs=4, run_eagerly=True, **arguments):
    keras.utils.set_random_seed(1)
    teacher = kd.teachers.PastPredictions(24, 3, epochs, folder=folder, **arguments)
    student = mlp()
    loss = kd.losses.SoftTargets(temperature=1.0)
    model = kd.Distiller(teacher, student, loss, student_loss_weight=0, student_inputs="x")
    return compiled(model, run_eagerly=run_eagerly)


def data(count=24):
    x, y = examples(count)
    return {"x": x, "index": np.arange(count)}, y


@pytest.mark.parametrize("kept", ["memory", "disk"])
def test_the_target_is_the_label_softened_by_the_epoch_before(tmp_path, kept):
    model = past(tmp_path if kept == "disk" else None, run_eagerly=False)
    inputs, y = data()
    truth = np.eye(3)[y]
    said = None
    for number in range(4):
        epoch.begin(number)
        target = np.asarray(model.teacher.targets(inputs_of(inputs), y).outputs)
        share = 0.8 * (number + 1) / 4 if number else 0.0
        expected = truth if said is None else (1 - share) * truth + share * said
        np.testing.assert_allclose(target, expected, atol=1e-3 if kept == "disk" else 1e-5)
        said = softmax(np.asarray(model.student(inputs["x"]), "float64"))
        model.train_on_batch(inputs, y)
    # A step that is stopped is not remembered.
    before = np.asarray(model.teacher.targets(inputs_of(inputs), y).outputs)
    with pytest.raises(ValueError, match="the inputs hold NaN"):
        model.train_on_batch({**inputs, "x": np.full_like(inputs["x"], np.nan)}, y)
    after = np.asarray(model.teacher.targets(inputs_of(inputs), y).outputs)
    np.testing.assert_array_equal(after, before)
    epoch.begin(0)


def test_a_step_neither_reads_nor_writes_the_whole_table():
    teacher = kd.teachers.PastPredictions(24, 3, 4)

    @tf.function
    def step(index, y, logits):
        targets = teacher.targets({"index": index}, y)
        teacher.update({"index": index}, kd.teachers.Answer(logits, logits, "linear"))
        return targets.outputs

    specs = [tf.TensorSpec(shape, kind) for shape, kind in (((8,), "int64"), ((8, 3), "float32"))]
    graph = step.get_concrete_function(specs[0], *specs).graph
    shapes = {str(one.shape) for operation in graph.get_operations() for one in operation.outputs}
    assert "(8, 3)" in shapes
    assert "(24, 3)" not in shapes
    model = past()
    assert not any(one is model.teacher.state[0].table for one in model.changed_by_forward())


def test_validation_shows_the_hard_loss():
    inputs, y = data()
    model = past()
    history = model.fit(inputs, y, validation_data=(inputs, y), verbose=0).history
    expected = float(SCE(y, model.student(inputs["x"])))
    assert history["val_loss"][0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kept", ["memory", "disk"])
def test_a_training_begins_with_nothing_said(tmp_path, kept):
    model = past(tmp_path if kept == "disk" else None)
    inputs, y = data()
    first = {"x": inputs["x"][:12], "index": inputs["index"][:12]}, y[:12]
    model.fit(inputs, y, epochs=2, verbose=0)
    for number in (0, 1):  # the second goes on
        model.fit(*first, epochs=number + 1, initial_epoch=number, verbose=0)
        epoch.begin(number + 1)
        found = np.asarray(model.teacher.targets(inputs_of(inputs), y).outputs)
        epoch.begin(0)
        largest = found.max(axis=1)  # 1: the label alone
        assert (largest[:12] < 1).all()
        assert (largest[12:] == 1).all()


def inputs_of(inputs):
    return {name: tf.constant(value) for name, value in inputs.items()}


def test_an_example_without_a_label_has_what_was_said_of_it():
    model = past()
    inputs, y = data()
    unlabelled = np.full_like(y, -1)
    found = model.teacher.targets(inputs_of(inputs), unlabelled).outputs
    np.testing.assert_allclose(found, 1 / 3)
    said = softmax(np.asarray(model.student(inputs["x"]), "float64"))
    model.train_on_batch(inputs, y)
    epoch.begin(1)
    found = model.teacher.targets(inputs_of(inputs), unlabelled).outputs
    epoch.begin(0)
    np.testing.assert_allclose(found, said, rtol=1e-4)


@pytest.mark.parametrize(
    ("labels", "activation", "arguments"),
    [
        (1, None, {}),
        (1, "sigmoid", {}),
        (3, "sigmoid", {}),
        (3, None, {"independent_labels": True}),
    ],
)
def test_labels_that_are_each_right_or_wrong_are_softened_by_themselves(
    labels, activation, arguments
):
    inputs, y = data()
    y = (np.stack([y, y + 1, y * 2], -1)[:, :labels] % 2).astype("float32")
    teacher = kd.teachers.PastPredictions(24, labels, 4, **arguments)
    student = mlp(labels, activation=activation)
    loss = kd.losses.SoftTargets(temperature=1.0)
    model = kd.Distiller(teacher, student, loss, student_loss_weight=0, student_inputs="x")
    given = inputs_of(inputs)
    np.testing.assert_array_equal(teacher.targets(given, y).outputs, y)
    teacher.update(given, model.forward(given, training=False))
    said = np.asarray(student(inputs["x"]), "float64")
    said = said if activation else 1 / (1 + np.exp(-said))
    epoch.begin(1)
    found = teacher.targets(given, y)
    of_rows = teacher.targets(given, y[:, 0]).outputs if labels == 1 else found.outputs
    y[0] = -1
    unknown = teacher.targets(given, y).outputs[0]
    y[0] = np.asarray(found.outputs[0] > 0.5)
    epoch.begin(0)
    np.testing.assert_allclose(found.outputs, 0.6 * y + 0.4 * said, rtol=1e-4)
    np.testing.assert_array_equal(found.outputs, of_rows)
    np.testing.assert_allclose(1 / (1 + np.exp(-found.logits)), found.outputs, rtol=1e-4)
    assert found.activations == "sigmoid"
    np.testing.assert_allclose(unknown, said[0], rtol=1e-4)


def test_a_sigmoid_that_shows_late_is_refused():
    inputs, _ = data()
    student = mlp(activation="sigmoid")
    teacher = kd.teachers.PastPredictions(24, 3, 4)
    model = kd.Distiller(mlp(), student, "soft_targets", student_inputs="x", teacher_inputs="x")
    with pytest.raises(ValueError, match="pass independent_labels=True"):
        teacher.update(inputs, model.forward(inputs, training=False))


@pytest.mark.parametrize("kept", ["memory", "disk"])
def test_a_resumed_training_has_the_same_past(tmp_path, kept):
    inputs, y = data()

    def folder(name):
        return tmp_path / name if kept == "disk" else None

    whole = past(folder("whole"))
    whole.fit(inputs, y, batch_size=8, epochs=4, verbose=0)

    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_end(self, batch, logs=None):
            if self.epoch == 2 and batch == 1:
                raise InterruptedError

    file = tmp_path / "state.npz"
    resume = kd.callbacks.Resume(file)
    with pytest.raises(InterruptedError):
        past(folder("killed")).fit(
            inputs, y, batch_size=8, epochs=4, verbose=0, callbacks=[resume, Kill()]
        )
    assert int(epoch.variable()) == int(epoch.view()) == 0
    again = past(folder("killed"))
    resume = kd.callbacks.Resume(file)
    again.fit(inputs, y, batch_size=8, epochs=4, verbose=0, callbacks=[resume])
    assert equal_weights(weights_of(again.student), weights_of(whole.student))


def test_saved_and_loaded_it_remembers(tmp_path):
    inputs, y = data()
    model = past()
    model.fit(inputs, y, verbose=0)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    epoch.begin(1)
    first, second = (m.teacher.targets(inputs_of(inputs), y).outputs for m in (model, again))
    epoch.begin(0)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("kept", ["memory", "disk"])
def test_numbers_outside_and_missing_labels_are_refused(tmp_path, kept):
    model = past(tmp_path if kept == "disk" else None)
    inputs, y = data()
    with pytest.raises(ValueError, match="softens labels, and there are none"):
        model.fit(inputs, verbose=0)
    for wrong in (1, -1):
        with pytest.raises(
            ValueError, match="examples=24, and a number in the batch is not from 0"
        ):
            model.fit({**inputs, "index": np.arange(24) + wrong}, y, verbose=0)
    if kept == "disk":
        with pytest.raises(ValueError, match="give another folder"):
            kd.teachers.PastPredictions(25, 3, 4, folder=tmp_path)


def test_several_devices_are_refused(monkeypatch):
    monkeypatch.setattr("keras_distill.teachers.past_predictions.replicas", lambda: 2)
    with pytest.raises(
        ValueError, match="PastPredictions is for one device, and this strategy has 2"
    ):
        past()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((0, 3, 4), "examples must be a whole number"),
        ((24, 3, 4, 1.5), "share must be a number, 0 to 1, got 1.5"),
        ((24, 3, 4, "a"), "share must be a number, 0 to 1, got 'a'"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        kd.teachers.PastPredictions(*arguments)


def test_what_is_not_seen_in_an_epoch_is_remembered_on_disk_too(tmp_path):
    inputs, y = data()
    found = []
    for folder in (None, tmp_path):
        model = past(folder, epochs=4)
        # Each epoch sees the first half of its own order.
        fitted = model.fit(inputs, y, batch_size=12, steps_per_epoch=1, epochs=4, verbose=0)
        found.append(fitted.history["loss"])
    np.testing.assert_allclose(found[0], found[1], rtol=2e-3)


def test_labels_that_are_probabilities_stay_so():
    teacher = kd.teachers.PastPredictions(4, 3, 4)
    given = np.array([[0.1, 0.8, 0.1], [0.4, 0.35, 0.25], [0, 0, 0]], "float32")
    index = {"index": tf.constant([0, 1, 2])}
    found = np.asarray(teacher.targets(index, given).outputs)
    np.testing.assert_allclose(found, [*given[:2], [1 / 3] * 3], rtol=1e-6)
    said = np.log(np.full((3, 3), 1 / 3, "float32"))
    teacher.update(index, kd.teachers.Answer(said, said, "linear"))
    epoch.begin(1)
    found = np.asarray(teacher.targets(index, given).outputs)
    epoch.begin(0)
    np.testing.assert_allclose(found[:2], 0.6 * given[:2] + 0.4 / 3, rtol=1e-5)
