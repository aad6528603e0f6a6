"""SavedModels: of TF Serving, of Keras 3 and 2, of any module."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_distill as kd
from tests.keras_distill.networks import equal_weights, examples, mlp, weights_of

SCE = "sparse_categorical_crossentropy"


class Module(tf.Module):
    """Three functions of the same weights."""

    def __init__(self):
        self.kernel = tf.Variable(tf.reshape(tf.range(12, dtype="float32"), (4, 3)) / 12)

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32)])
    def probabilities(self, x):
        return tf.nn.softmax(x @ self.kernel)

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32)])
    def two(self, x):
        return {"b": x @ self.kernel, "a": tf.sigmoid(x @ self.kernel)}

    @tf.function(input_signature=[tf.TensorSpec((1, 4), tf.float32)])
    def one_by_one(self, x):
        return x @ self.kernel

    @tf.function(
        input_signature=[tf.TensorSpec((None, 2), tf.float32), tf.TensorSpec((None, 2), tf.int64)]
    )
    def parts(self, first, second):
        return tf.concat([first, tf.cast(second, tf.float32)], -1) @ self.kernel


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    """A module and its folder, with the versions 2 and 10."""
    folder = tmp_path_factory.mktemp("serving")
    one = Module()
    names = ("probabilities", "two", "one_by_one", "parts")
    tf.saved_model.save(
        one, str(folder / "10"), signatures={name: getattr(one, name) for name in names}
    )
    tf.saved_model.save(one, str(folder / "2"), signatures={"old": one.two})
    return one, folder


def saved(how, activation, folder):
    """A network with BatchNormalization and Dropout, in a folder; its answers are returned."""
    library = tf_keras if how == "tf_keras" else keras
    x = inputs = library.Input((4,))
    for layer in (library.layers.BatchNormalization(), library.layers.Dropout(0.5)):
        x = layer(x)
    model = library.Model(inputs, library.layers.Dense(3, activation=activation)(x))
    if how == "export":
        model.export(folder, verbose=False)
    elif how == "tf_keras":
        model.save(folder)
    else:
        tf.saved_model.save(model, str(folder))
    return model(examples()[0], training=False)


@pytest.mark.parametrize("activation", ["linear", "softmax", "sigmoid"])
@pytest.mark.parametrize("how", ["export", "tf_keras", "tf.saved_model"])
def test_answers_are_those_of_the_network_and_its_end_is_known(how, activation, tmp_path):
    expected = saved(how, activation, tmp_path / "saved")
    teacher = kd.teachers.load(tmp_path / "saved")
    assert isinstance(teacher, kd.teachers.SavedModelTeacher)
    answer = teacher.targets(tf.constant(examples()[0]))
    np.testing.assert_allclose(answer.outputs, expected, atol=1e-6)
    assert (answer.activations, teacher.known) == (activation, True)
    if activation == "softmax":
        np.testing.assert_allclose(keras.ops.softmax(answer.logits), expected, atol=1e-6)
    if activation == "sigmoid":
        np.testing.assert_allclose(keras.ops.sigmoid(answer.logits), expected, atol=1e-6)


def test_the_highest_version_is_taken_as_a_number(module):
    _, folder = module
    assert kd.teachers.load(folder, signature="two").path == str(folder / "10")
    assert kd.teachers.load(folder / "2").signature == "old"
    assert kd.teachers.load(folder / "2" / "saved_model.pb").signature == "old"


def test_signatures_are_chosen_by_name(module):
    _, folder = module
    names = r"\['one_by_one', 'parts', 'probabilities', 'two'\]"
    with pytest.raises(ValueError, match=rf"has the signatures {names}: pass signature="):
        kd.teachers.load(folder)
    with pytest.raises(ValueError, match=rf"has the signatures {names}: there is no 'serve'"):
        kd.teachers.load(folder, signature="serve")
    x = examples()[0]
    logits = x @ module[0].kernel.numpy()
    answer = kd.teachers.load(folder, signature="two").targets(tf.constant(x))
    assert answer.activations == {"a": "sigmoid", "b": "linear"}
    np.testing.assert_allclose(answer.outputs["b"], logits, atol=1e-5)
    np.testing.assert_allclose(answer.logits["a"], logits, atol=1e-3)


def test_a_file_that_takes_one_example_is_asked_for_each(module):
    x = examples()[0]
    teacher = kd.teachers.load(module[1], signature="one_by_one")
    np.testing.assert_allclose(
        teacher.targets(tf.constant(x)).outputs, x @ module[0].kernel.numpy(), atol=1e-5
    )


def test_several_inputs_are_a_dict_in_the_types_of_the_signature(module):
    teacher = kd.teachers.load(module[1], signature="parts")
    batch = {"first": tf.ones((3, 2)), "second": tf.constant([[1, 2]] * 3, tf.int32)}
    expected = np.array([[1, 1, 1, 2]] * 3, "float32") @ module[0].kernel.numpy()
    np.testing.assert_allclose(teacher.targets(batch).outputs, expected, atol=1e-5)
    with pytest.raises(
        ValueError, match=r"has the inputs \['first', 'second'\], and the batch is not"
    ):
        teacher.targets(tf.ones((3, 4)))
    with pytest.raises(
        ValueError, match=r"\['first', 'second'\], and the batch \['first', 'third'\]"
    ):
        teacher.targets({"first": tf.ones((3, 2)), "third": tf.ones((3, 2))})


def test_an_end_that_does_not_show_is_looked_at(tmp_path):
    x = keras.Input((4,))
    squares = keras.layers.Dense(3)(x) ** 2 + 0.1
    model = keras.Model(x, squares / keras.ops.sum(squares, axis=-1, keepdims=True))
    model.export(tmp_path / "saved", verbose=False)
    x, y = examples()
    distiller = kd.Distiller(kd.teachers.load(tmp_path / "saved"), mlp(), "soft_targets")
    distiller.compile("sgd", loss=SCE)
    with pytest.raises(ValueError, match=r"pass teachers.load\(..., activation='softmax'\)"):
        distiller.fit(x, y, verbose=0)
    teacher = kd.teachers.load(tmp_path / "saved", activation="softmax")
    distiller = kd.Distiller(teacher, mlp(), "soft_targets")
    distiller.compile("sgd", loss=SCE)
    assert np.isfinite(distiller.fit(x, y, verbose=0).history["loss"]).all()
    with pytest.raises(ValueError, match="activation='relu' is not known"):
        kd.teachers.load(tmp_path / "saved", activation="relu")


def test_a_distiller_with_it_is_saved_as_its_path_and_fingerprint(tmp_path):
    saved("export", "softmax", tmp_path / "teacher" / "1")
    x, y = examples()
    model = kd.Distiller(
        kd.teachers.load(tmp_path / "teacher", inputs="x"),
        mlp(),
        "soft_targets",
        student_inputs="x",
    )
    model.compile(keras.optimizers.Adam(0.01), loss=SCE)
    model.fit({"x": x}, y, verbose=0)
    model.save(tmp_path / "d.keras")
    again = keras.models.load_model(tmp_path / "d.keras")
    assert isinstance(again.teacher, kd.teachers.SavedModelTeacher)
    histories = [one.fit({"x": x}, y, epochs=2, verbose=0).history for one in (model, again)]
    assert histories[0] == histories[1]
    assert equal_weights(weights_of(again.student), weights_of(model.student))

    (tmp_path / "teacher" / "1").rename(tmp_path / "teacher" / "kept")
    with pytest.raises(Exception, match=r"teacher/1, and it is not there: put it back"):
        keras.models.load_model(tmp_path / "d.keras")
    saved("export", "softmax", tmp_path / "teacher" / "1")
    with pytest.raises(
        Exception, match="is not the file that taught when this distiller was saved"
    ):
        keras.models.load_model(tmp_path / "d.keras")


def test_another_shape_names_both_and_what_makes_one_of_the_other(tmp_path):
    inputs = keras.Input((24, 24, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    keras.Model(inputs, keras.layers.Dense(3)(pooled)).export(tmp_path / "saved", verbose=False)
    inputs = keras.Input((8, 8, 3))
    student = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(inputs)))
    x, y = np.ones((4, 8, 8, 3), "float32"), np.zeros(4, "int32")

    def fit(**arguments):
        teacher = kd.teachers.load(tmp_path / "saved", **arguments)
        distiller = kd.Distiller(teacher, student, "soft_targets")
        distiller.compile("sgd", loss=SCE)
        return distiller.fit(x, y, verbose=0).history["loss"]

    sentence = (
        r"takes \(None, 24, 24, 3\) .* \(None, 8, 8, 3\): "
        r".*inputs=keras.layers.Resizing\(24, 24\)"
    )
    with pytest.raises(ValueError, match=sentence):
        fit()
    assert np.isfinite(fit(inputs=keras.layers.Resizing(24, 24))).all()


def test_damaged_folders_are_named(module, tmp_path):
    def damaged(name, file, share):
        shutil.copytree(module[1] / "2", tmp_path / name)
        content = (tmp_path / name / file).read_bytes()
        (tmp_path / name / file).write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match=rf"{name} is a damaged SavedModel"):
            kd.teachers.load(tmp_path / name)

    damaged("half_graph", "saved_model.pb", 0.5)
    damaged("half_weights", "variables/variables.data-00000-of-00001", 0.5)
    damaged("no_index", "variables/variables.index", 0.0)
    tf.saved_model.save(tf.Module(), str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="empty has no signatures: save it with"):
        kd.teachers.load(tmp_path / "empty")
