import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_distill as kd
from keras_distill.taps import Tap, find_layer, recording
from tests.keras_distill.networks import Subclassed, examples, mlp


def nested():
    """A network inside another."""
    inner = mlp(name="inner")
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(2)(inner(inputs)), name="outer")


def test_a_nested_layer_is_read_in_the_one_pass():
    x, _ = examples()
    model = nested()
    inner = model.get_layer("inner")
    expected = keras.Model(inner.input, inner.get_layer("hidden").output)(x)
    with recording({"h": Tap(find_layer(model, "inner/hidden"))}) as recorded:
        model(x)
    (value,) = recorded["h"]
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


def test_gradients_pass_and_the_model_is_as_before():
    x, _ = examples()
    model = Subclassed()
    model(x)
    before = dict(vars(model.hidden))
    taps = {
        "out": Tap(model.hidden),
        "in": Tap(model.top, "input"),
        "z": Tap(model.hidden, "activation"),
    }

    @tf.function
    def gradient(x):
        with tf.GradientTape() as tape, recording(taps) as recorded:
            model(x)
            loss = sum(tf.reduce_sum(recorded[key][0]) for key in taps)
        return tape.gradient(loss, model.hidden.kernel), recorded["out"][0] - recorded["in"][0]

    kernel, difference = gradient(x)
    assert np.abs(kernel).sum() > 0
    assert np.abs(difference).max() == 0
    assert dict(vars(model.hidden)) == before


def test_an_error_in_the_pass_leaves_the_model_as_before():
    model = mlp()
    layer = model.get_layer("hidden")

    def run():
        with recording({"h": Tap(layer), "z": Tap(layer, "activation")}):
            model(np.zeros((2, 9), "float32"))

    with pytest.raises(ValueError, match="shape"):
        run()
    assert "call" not in vars(layer)
    assert layer.activation is keras.activations.relu


def test_a_layer_called_twice_gives_both():
    layer = layers.Dense(4)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layer(layer(inputs)))
    with recording({"l": Tap(layer)}) as recorded:
        outputs = model(np.ones((1, 4), "float32"))
    assert len(recorded["l"]) == 2
    assert np.array_equal(recorded["l"][1], outputs)


def test_a_wrong_name_lists_the_nearest():
    with pytest.raises(ValueError, match=r"'outer' has no layer 'inner/hiden'.*inner/hidden"):
        find_layer(nested(), "inner/hiden")
    wrong = kd.losses.DistillationLoss(teacher_layer_name="hidden", student_layer_name="hiden")
    with pytest.raises(ValueError, match="has no layer 'hiden'"):
        kd.Distiller(mlp(), mlp(), wrong)


def test_losses_over_several_layers_get_lists():
    got = {}

    class Pairs(kd.losses.DistillationLoss):
        def compute_loss(self, teacher_outputs, student_outputs, labels=None, sample_weight=None):
            got.update(teacher=teacher_outputs, student=student_outputs, labels=labels)
            return keras.ops.mean(teacher_outputs[0] - student_outputs[0])

    x, y = examples()
    names = {"teacher_layer_name": ["hidden", "top"], "student_layer_name": ["hidden", "top"]}
    model = kd.Distiller(mlp(), mlp(), Pairs(**names), student_loss_weight=0.5)
    model.compile("sgd", loss="sparse_categorical_crossentropy", run_eagerly=True)
    model.train_on_batch(x, y)
    assert [value.shape[-1] for value in got["teacher"]] == [8, 3]
    assert [value.shape[-1] for value in got["student"]] == [8, 3]
    assert np.array_equal(got["labels"], y)


@pytest.mark.parametrize("what", [3, {"a": layers.Dense(4)}, [layers.Dense(4), None]], ids=str)
def test_a_layer_may_call_anything_its_layers(what):
    class Block(layers.Layer):
        def __init__(self):
            super().__init__()
            self.layers = what

        def call(self, x):
            return x

    inputs = keras.Input((4,))
    teacher = keras.Model(inputs, layers.Dense(3)(Block()(inputs)))
    model = kd.Distiller(teacher, mlp(), "soft_targets", student_loss_weight=0)
    model.compile("sgd")
    assert np.isfinite(model.train_on_batch(examples()[0], return_dict=True)["loss"])
