"""Models of Keras 2: what tf_keras answers, Keras 3 answers too."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

import keras_distill as kd
from keras_distill.teacher_files import keras2


def plain(*stack, shape):
    """A Sequential of Keras 2."""
    return tf_keras.Sequential([tf_keras.Input(shape), *stack])


def depthwise():
    """`groups` of a DepthwiseConv2D, initializers of TensorFlow's, `axis` as a list."""
    return plain(
        layers.DepthwiseConv2D(3),
        layers.BatchNormalization(),
        layers.SeparableConv2D(4, 3, bias_initializer=tf.constant_initializer(0.1)),
        layers.Conv2DTranspose(2, 2),
        layers.LeakyReLU(0.1),
        layers.SpatialDropout2D(0.2),
        layers.Flatten(),
        shape=(8, 8, 3),
    )


def recurrent():
    """`time_major`, `implementation`, and layers within layers."""
    return plain(
        layers.LSTM(4, return_sequences=True),
        layers.Bidirectional(layers.GRU(3, return_sequences=True)),
        layers.TimeDistributed(layers.Dense(3)),
        layers.RNN([layers.GRUCell(3), layers.LSTMCell(2)]),
        shape=(5, 3),
    )


def words():
    """`input_length` of an Embedding, integer inputs, a mask."""
    return tf_keras.Sequential(
        [
            layers.Embedding(11, 4, input_length=6, mask_zero=True),
            layers.LSTM(3),
            layers.Dense(2, activation="softmax"),
        ]
    )


def nested():
    """A model called twice, one with two outputs, a name with a slash, frozen BatchNormalization."""
    inner = plain(layers.Dense(4, name="a/b"), layers.BatchNormalization(), shape=(4,))
    inner.layers[-1].trainable = False
    x = tf_keras.Input((4,))
    two = tf_keras.Model(x, [layers.Dense(2)(x), layers.Dense(3, name="c/d")(x)])
    x = tf_keras.Input((4,))
    first = inner(x)
    second = inner(first)
    joined = layers.Concatenate(name="e/f")([*two(second), layers.Add()([first, second])])
    return tf_keras.Model(x, joined)


def several():
    """Dicts of inputs and outputs."""
    a, b = tf_keras.Input((4,), name="a"), tf_keras.Input((3,), name="b")
    x = layers.Concatenate()([a, b])
    outputs = {
        "two": layers.Dense(3, name="two")(x),
        "one": layers.Dense(2, activation="softmax", name="one")(x),
    }
    return tf_keras.Model({"b": b, "a": a}, outputs)


def normalized():
    """Layers that prepare pictures: random ones do nothing, Normalization has learned what it says."""
    adapted = layers.Normalization()
    adapted.adapt(np.random.default_rng(0).normal(3, 5, (10, 6, 6, 3)))
    return plain(
        layers.Rescaling(1 / 127.5, -1),
        adapted,
        layers.RandomFlip(),
        layers.Resizing(4, 4),
        layers.Flatten(),
        layers.Dense(2),
        shape=(6, 6, 3),
    )


def half():
    """Policies as objects."""
    policy = tf_keras.mixed_precision.Policy("mixed_float16")
    return plain(
        layers.Dense(3, dtype=policy), layers.Activation("softmax", dtype="float32"), shape=(4,)
    )


def arithmetic():
    """Operations that Keras 2 made layers of."""
    x = tf_keras.Input((4,))
    return tf_keras.Model(x, layers.Dense(3)(tf.nn.relu(x * 2.0 - 1.0)[:, 1:]))


def hard_sigmoid():
    """An activation whose slope has changed."""
    return plain(layers.Dense(3), layers.Activation("hard_sigmoid"), shape=(4,))


def removed():
    """A layer that is gone."""
    return plain(layers.ThresholdedReLU(0.5), layers.Dense(3), shape=(4,))


TRANSLATED = [depthwise, recurrent, words, nested, several, normalized, half]
NOT_TRANSLATED = [arithmetic, hard_sigmoid, removed]


def with_weights(build):
    """The network with weights of all sizes, biases and statistics too."""
    tf_keras.utils.set_random_seed(1)
    model = build()
    if not model.built:
        model.build((None, 6))
    rng = np.random.default_rng(1)
    for layer in keras2._leaves(model):
        if not isinstance(layer, layers.Normalization):
            layer.set_weights(
                [rng.uniform(0.1, 1, value.shape).astype(value.dtype) - 0.4 * ("kernel" in weight.name)
                 for value, weight in zip(layer.get_weights(), layer.weights, strict=True)]
            )  # fmt: skip
    return model


def batch(model):
    """A batch of what the model takes."""
    rng = np.random.default_rng(2)

    def one(tensor):
        shape = (3, *tensor.shape[1:])
        if tensor.dtype == tf.float32 and len(model.layers) and "embedding" in model.layers[0].name:
            return tf.constant(rng.integers(1, 11, shape), "float32")
        return tf.constant(rng.normal(size=shape), tensor.dtype)

    return tf.nest.map_structure(one, model.input)


def same(got, expected):
    """Answers within 1e-5."""
    for a, b in zip(keras.tree.flatten(got), keras.tree.flatten(expected), strict=True):
        np.testing.assert_allclose(np.asarray(a, "float32"), np.asarray(b, "float32"), atol=1e-5)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("build", TRANSLATED)
def test_a_network_of_keras_2_becomes_one_of_keras_3(build, suffix, tmp_path):
    old = with_weights(build)
    old.save(tmp_path / f"old{suffix}")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        new = kd.teachers.load(tmp_path / f"old{suffix}")
        answers = new(batch(old), training=False)
    assert isinstance(new, keras.Model)
    keras.tree.assert_same_structure(answers, old(batch(old)))
    same(answers, old(batch(old), training=False))


@pytest.mark.parametrize("build", NOT_TRANSLATED)
def test_what_keras_3_cannot_build_is_run_by_tf_keras_which_is_said(build, tmp_path):
    old = with_weights(build)
    old.save(tmp_path / "old.h5")
    sentence = (
        r"old.h5 is run by tf_keras: "
        r".*inner layers cannot be read"
    )
    with pytest.warns(UserWarning, match=sentence) as caught:
        teacher = kd.teachers.load(tmp_path / "old.h5")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert isinstance(teacher, kd.teachers.TFKerasTeacher)
    same(teacher.targets(batch(old)).outputs, old(batch(old), training=False))


def test_the_reason_names_layer_argument_and_value():
    old = plain(layers.LSTM(3, time_major=True, name="memory"), shape=(5, 3))
    model, reason = keras2.modernized(old)
    assert model is None
    assert reason == "LSTM 'memory' has time_major=True, which Keras 3 does not know"
    old = with_weights(hard_sigmoid)
    assert "it answers otherwise" in keras2.modernized(old)[1]
    assert keras2.modernized(with_weights(removed))[1] == "Keras 3 has no layer ThresholdedReLU"


def test_a_teacher_of_tf_keras_distils_and_never_changes(tmp_path):
    old = with_weights(arithmetic)
    old.save(tmp_path / "old.h5")
    with pytest.warns(UserWarning, match="run by tf_keras"):
        teacher = kd.teachers.load(tmp_path / "old.h5")
    student = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    distiller = kd.Distiller(teacher, student, "soft_targets", student_loss_weight=0.0)
    distiller.compile(keras.optimizers.Adam(0.05))
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    losses = distiller.fit(x, epochs=20, batch_size=16, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    same(teacher.targets(tf.constant(x)).outputs, old(x, training=False))
    distiller.save(tmp_path / "distiller.keras")
    again = keras.models.load_model(tmp_path / "distiller.keras")
    same(again.teacher.targets(tf.constant(x)).outputs, old(x, training=False))


def test_the_end_of_a_tf_keras_model_is_known(tmp_path):
    x = tf_keras.Input((4,))
    y = layers.Dense(3, activation="softmax")(x * 2.0)
    tf_keras.Model(x, y).save(tmp_path / "old.h5")
    with pytest.warns(UserWarning, match="run by tf_keras"):
        teacher = kd.teachers.load(tmp_path / "old.h5")
    answer = teacher.targets(np.ones((2, 4), "float32"))
    assert teacher.known
    assert answer.activations == "softmax"
    same(answer.logits, np.log(answer.outputs))


def test_custom_layers_of_keras_2_are_handed_over(tmp_path):
    class Doubled(layers.Layer):
        """Twice the input."""

        def call(self, inputs):
            return 2 * inputs

    old = plain(Doubled(), layers.Dense(3), shape=(4,))
    old.save(tmp_path / "old.h5")
    with pytest.raises(
        ValueError, match=r"old.h5 (has|cannot be loaded).*Doubled.*custom_objects="
    ):
        kd.teachers.load(tmp_path / "old.h5")
    with pytest.warns(UserWarning, match="Keras 3 has no layer Doubled"):
        teacher = kd.teachers.load(tmp_path / "old.h5", custom_objects={"Doubled": Doubled})
    x = np.ones((2, 4), "float32")
    same(teacher.targets(x).outputs, old(x))
    student = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match=r"custom_objects=, which cannot be saved"):
        kd.Distiller(teacher, student, "soft_targets").save(tmp_path / "d.keras")
    assert not (tmp_path / "d.keras").exists()
