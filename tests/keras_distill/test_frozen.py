import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_distill as kd
from keras_distill.frozen import FrozenNetwork
from keras_distill.network import Network
from tests.keras_distill.networks import Subclassed, equal_weights, examples, mlp, weights_of

SCE = "sparse_categorical_crossentropy"


def convolutional(name=None):
    """Convolutions with BatchNormalization whose statistics are not those of the start."""
    x = inputs = keras.Input((8, 8, 3))
    for filters in (8, 12):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(name=f"bn_{filters}")(x)
        x = layers.ReLU()(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(x), name=name)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if "moving_mean" in weight.path:
            weight.assign(rng.normal(size=weight.shape))
        if "moving_variance" in weight.path:
            weight.assign(rng.uniform(0.5, 2, size=weight.shape))
    return model


def images(count):
    return np.random.default_rng(1).normal(size=(count, 8, 8, 3)).astype("float32")


def distiller(teacher, student, runtime="auto", losses="soft_targets", **arguments):
    model = kd.Distiller(teacher, student, losses, **arguments)
    model.compile(keras.optimizers.SGD(0.1), loss=SCE, teacher_runtime=runtime)
    return model


def is_frozen(model):
    return model._teacher._frozen is not None


@pytest.mark.parametrize("count", [4, 3, 1, 11])
def test_the_frozen_network_answers_as_its_layers_do(count):
    network = Network(convolutional(), layer_names=["bn_8", "bn_12"], role="teacher")
    frozen = FrozenNetwork(network, images(4))
    expected = network(images(count), training=False)
    found = frozen(keras.ops.convert_to_tensor(images(count)))
    for name in ("outputs", "logits"):
        np.testing.assert_allclose(
            *(keras.ops.convert_to_numpy(getattr(a, name)) for a in (found, expected)), atol=1e-6
        )
    for name in ("bn_8", "bn_12"):
        np.testing.assert_allclose(found.inner[name], expected.inner[name], atol=1e-5)
    assert found.activations == expected.activations


def test_several_inputs_and_outputs_keep_their_places():
    a, b = keras.Input((3,), name="a"), keras.Input((5,), dtype="int32", name="b")
    x = layers.Concatenate()([a, layers.Flatten()(layers.Embedding(9, 2)(b))])
    model = keras.Model({"a": a, "b": b}, {"z": layers.Dense(2)(x), "c": layers.Dense(4)(x)})
    network = Network(model, role="teacher")
    rng = np.random.default_rng(0)
    batch = {
        "a": rng.normal(size=(6, 3)).astype("float32"),
        "b": rng.integers(0, 9, (6, 5)).astype("int32"),
    }
    frozen = FrozenNetwork(network, batch)
    found = frozen(keras.tree.map_structure(keras.ops.convert_to_tensor, batch))
    expected = network(batch, training=False)
    for name in ("z", "c"):
        np.testing.assert_allclose(found.outputs[name], expected.outputs[name], atol=1e-6)


def test_training_is_the_same_with_a_frozen_teacher():
    x, y = images(22), np.arange(22) % 3
    teacher = convolutional("teacher")
    students = [convolutional("student")]
    students.append(keras.models.clone_model(students[0]))
    students[1].set_weights(students[0].get_weights())
    histories = []
    for student, runtime in zip(students, ("keras", "litert"), strict=True):
        keras.utils.set_random_seed(3)
        model = distiller(teacher, student, runtime)
        histories.append(model.fit(x, y, batch_size=8, epochs=3, verbose=0).history)
        assert is_frozen(model) == (runtime == "litert")
    for name in histories[0]:
        np.testing.assert_allclose(histories[0][name], histories[1][name], rtol=1e-4)
    for first, second in zip(*(student.get_weights() for student in students), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)


def test_long_trainings_freeze_and_short_ones_do_not(monkeypatch):
    monkeypatch.setattr("keras_distill.distiller.WORTHWHILE_STEPS", 6)
    x, y = examples(24)
    model = distiller(mlp(), mlp())
    model.fit(x, y, batch_size=5, verbose=0)
    assert not is_frozen(model)
    model.fit(x, y, batch_size=24, verbose=0)  # the sixth step of this distiller
    assert is_frozen(model)
    model = distiller(mlp(), mlp(), runtime="keras")
    model.fit(x, y, batch_size=8, epochs=2, verbose=0)
    assert not is_frozen(model)
    model = distiller(mlp(), mlp(), student_loss_weight=1.0)  # nobody asks the teacher
    model.fit(x, y, batch_size=8, epochs=2, verbose=0)
    assert not is_frozen(model)


def one_shot(batches):
    """A data set that can be read once, and does not tell its length."""
    again = iter(batches)
    spec = (tf.TensorSpec((None, 4)), tf.TensorSpec((None,), tf.int32))
    return tf.data.Dataset.from_generator(lambda: again, output_signature=spec)


def test_data_of_unknown_length_freezes_and_loses_no_batch():
    x, y = examples(24)
    batches = [(x[i : i + 8], y[i : i + 8]) for i in (0, 8, 16)]
    rows = []
    for runtime in ("auto", "keras"):
        model = still(mlp(), mlp(), runtime)
        model.student.set_weights([0.1 * np.ones(w.shape) for w in model.student.get_weights()])
        model.teacher.set_weights([0.2 * np.ones(w.shape) for w in model.teacher.get_weights()])
        data = one_shot(batches)
        rows.append(model.fit(data, verbose=0).history["loss"][0])
        assert is_frozen(model) == (runtime == "auto")
    assert rows[0] == pytest.approx(rows[1], rel=1e-6)


def soft(model, x, y):
    return model.train_on_batch(x, y, return_dict=True)["distillation_loss"]


def still(teacher, student, runtime="litert"):
    """A distiller whose student does not move."""
    model = kd.Distiller(teacher, student, "soft_targets")
    model.compile(keras.optimizers.SGD(0.0), loss=SCE, teacher_runtime=runtime)
    return model


def test_weights_that_are_set_after_a_fit_count_at_once():
    x, y = examples()
    teacher, student = mlp(), mlp()
    model = still(teacher, student)
    model.fit(x, y, verbose=0)
    first = soft(model, x, y)
    teacher.set_weights([3 * weight for weight in teacher.get_weights()])
    fresh = still(teacher, student, "keras")
    assert soft(model, x, y) == pytest.approx(soft(fresh, x, y), rel=1e-5)
    assert soft(model, x, y) != pytest.approx(first, rel=1e-2)
    model.fit(x, y, verbose=0)
    assert is_frozen(model)  # with the new weights


@pytest.mark.parametrize("moment", ["on_epoch_begin", "on_train_batch_begin"])
def test_weights_that_a_callback_sets_count_from_the_next_step(moment):
    x, y = examples(32)
    teacher, student = mlp(), mlp()
    seen = []

    class Sets(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if moment == "on_epoch_begin" and epoch == 1:
                self.set()

        def on_train_batch_begin(self, batch, logs=None):
            if moment == "on_train_batch_begin" and batch == 2:
                self.set()

        def set(self):
            teacher.set_weights([0 * weight for weight in teacher.get_weights()])

        def on_train_batch_end(self, batch, logs=None):
            seen.append(logs["soft_targets"])

    model = still(teacher, student)
    model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=[Sets()])
    fresh = still(teacher, student, "keras")
    expected = [soft(fresh, x[i : i + 8], y[i : i + 8]) for i in (0, 8, 16, 24)]
    assert np.mean(expected) == pytest.approx(seen[-1], rel=1e-4)  # the running mean of epoch 2


def test_one_weight_of_many_is_noticed_at_the_next_epoch():
    model = convolutional()
    frozen = FrozenNetwork(Network(model, role="teacher"), images(2))
    assert frozen.current()
    kernel = model.layers[1].kernel
    changed = np.array(kernel)
    changed[1, 1, 1, 1] += 1e-3
    kernel.assign(changed)
    assert not frozen.current()


def test_what_cannot_be_frozen_stays_as_it_is(monkeypatch):
    x, y = examples()

    @keras.saving.register_keras_serializable(package="tests.frozen")
    class Python(layers.Layer):
        def call(self, x):
            import tensorflow as tf

            return tf.ensure_shape(tf.numpy_function(lambda a: a, [x], tf.float32), x.shape)

    inputs = keras.Input((4,))
    teacher = keras.Model(inputs, layers.Dense(3)(Python()(inputs)))
    monkeypatch.setattr("keras_distill.distiller.WORTHWHILE_STEPS", 1)
    model = distiller(teacher, mlp())
    model.fit(x, y, verbose=0)
    assert not is_frozen(model)
    with pytest.raises(ValueError, match="PyFunc"):
        distiller(teacher, mlp(), "litert").fit(x, y, verbose=0)


def test_a_subclassed_teacher_freezes_too():
    x, y = examples()
    teacher = Subclassed()
    teacher(x)
    model = distiller(teacher, mlp(), "litert", teacher_activation="linear")
    model.fit(x, y, verbose=0)
    assert is_frozen(model)


def test_runtime_is_checked_and_saved(tmp_path):
    with pytest.raises(ValueError, match="teacher_runtime='gpu': it is one of auto, keras, litert"):
        distiller(mlp(), mlp(), "gpu")
    with pytest.raises(ValueError, match=r"is for a keras.Model as teacher, got CallableTeacher"):
        distiller(kd.teachers.CallableTeacher(lambda x: x, (4,)), mlp(4), "litert").fit(
            *examples(), verbose=0
        )
    x, y = examples()
    model = distiller(mlp(), mlp(), "litert")
    model.fit(x, y, verbose=0)
    teacher = weights_of(model.teacher)
    model.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    loaded.fit(x, y, verbose=0)
    assert is_frozen(loaded)
    assert equal_weights(weights_of(loaded.teacher), teacher)
