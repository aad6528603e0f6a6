import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_distill as kd
from keras_distill.layer_tree import (
    all_built,
    all_layers,
    find_layer,
    named_layers,
)
from keras_distill.network import Network
from keras_distill.taps import Tap, recording
from tests.keras_distill.networks import Subclassed, equal_weights, examples, mlp, weights_of


class Block(layers.Layer):
    """A custom layer that holds layers in every way there is, and adds what two of them say."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._first = layers.Dense(8, activation="relu", name="first")
        self.branches = {"a": layers.Dense(8, name="a"), "more": [layers.Dense(8, name="b")]}

    def build(self, shape):
        self._first.build(shape)
        for layer in (self.branches["a"], self.branches["more"][0]):
            layer.build((None, 8))

    def call(self, x):
        x = self._first(x)
        return self.branches["a"](x) + self.branches["more"][0](x)


class Twice(keras.Model):
    """A subclassed model that calls a nested functional one twice, in a block of its own."""

    def __init__(self):
        super().__init__(name="twice")
        self.block = Block(name="block")
        self.inner = mlp(classes=4, name="inner")

    def call(self, x, training=None):
        return self.inner(self.inner(x)) + layers.add([self.block(x)[:, :4], x])


def functional():
    """Custom, nested and normalising layers in a functional model."""
    x = inputs = keras.Input((4,))
    x = Block(name="block")(x)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.Dropout(0.5, name="dropout")(x)
    x = x + mlp(classes=8, features=8, name="inner")(x)
    return keras.Model(inputs, layers.Dense(3, name="top")(x), name="functional")


def sequential():
    """A Sequential model without a declared input, called once."""
    model = keras.Sequential([Block(name="block"), layers.Dense(3, name="top")], name="sequential")
    model(np.zeros((2, 4), "float32"))
    return model


def subclassed():
    """A subclassed model, called once."""
    model = Twice()
    model(np.zeros((2, 4), "float32"))
    return model


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
    wrong = kd.losses.DistillationLoss("mine", None, "hidden", "hiden")
    with pytest.raises(ValueError, match="has no layer 'hiden'"):
        kd.Distiller(mlp(), mlp(), wrong)


def dense(layer, x):
    """A Dense layer in NumPy, before its activation."""
    return x @ np.array(layer.kernel) + np.array(layer.bias)


# By name, what the layer must return for x.
PLACES = {
    functional: {
        "block/first": lambda m, x: np.maximum(dense(find_layer(m, "block/first"), x), 0),
        "block/a": lambda m, x: dense(find_layer(m, "block/a"), first(m, x)),
        "block/b": lambda m, x: dense(find_layer(m, "block/b"), first(m, x)),
        "inner/hidden": lambda m, x: m.get_layer("inner").layers[1](m.get_layer("bn")(block(m, x))),
        "top": lambda m, x: m(x),
    },
    sequential: {
        "block": lambda m, x: block(m, x),
        "block/b": lambda m, x: dense(find_layer(m, "block/b"), first(m, x)),
        "top": lambda m, x: m(x),
    },
    subclassed: {
        "block": lambda m, x: block(m, x),
        "block/a": lambda m, x: dense(find_layer(m, "block/a"), first(m, x)),
        "inner:1": lambda m, x: m.inner(m.inner(x)),
        "inner/hidden:0": lambda m, x: m.inner.layers[1](x),
        "inner/top:1": lambda m, x: m.inner(m.inner(x)),
    },
}


def first(model, x):
    return np.maximum(dense(find_layer(model, "block/first"), x), 0)


def block(model, x):
    found = find_layer(model, "block/a"), find_layer(model, "block/b")
    return sum(dense(layer, first(model, x)) for layer in found)


def traces(model):
    """What a pass must leave as it was: the layers' methods, their weights and their losses."""
    found = all_layers(model)
    methods = [{key: vars(one).get(key) for key in ("call", "activation")} for one in found]
    return methods, weights_of(model), len(model.losses)


@pytest.mark.parametrize("build", PLACES)
@pytest.mark.parametrize("compiled", [False, True])
def test_inner_outputs_of_every_kind_of_model(build, compiled):
    model, (x, _) = build(), examples()
    expected = {name: np.array(value(model, x)) for name, value in PLACES[build].items()}
    network = Network(model, layer_names=PLACES[build])
    before, calls = traces(model), []
    original = type(model).call

    def gradients(x):
        with tf.GradientTape() as tape:
            answer = network(x, training=False)
            total = sum(tf.reduce_sum(value) for value in answer.inner.values())
        variables = model.trainable_variables
        return answer.outputs, answer.inner, tape.gradient(total, variables)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            type(model), "call", lambda self, *a, **k: calls.append(self) or original(self, *a, **k)
        )
        outputs, inner, gradient = (tf.function(gradients) if compiled else gradients)(x)
    assert sum(one is model for one in calls) == 1
    np.testing.assert_allclose(outputs, model(x), atol=1e-5)
    for name in expected:
        np.testing.assert_allclose(inner[name], expected[name], atol=1e-5, err_msg=name)
    first_kernel = find_layer(model, "block/first").kernel
    index = [id(one) for one in model.trainable_variables].index(id(first_kernel))
    assert np.abs(gradient[index]).sum() > 0
    after = traces(model)
    assert after[0] == before[0]
    assert after[2] == before[2]
    assert equal_weights(after[1], before[1])


@pytest.mark.parametrize("build", PLACES)
def test_specs_are_the_shapes_of_a_pass_and_leave_nothing(build):
    model, (x, _) = build(), examples()
    before = traces(model)
    for names in (list(PLACES[build]), ["top"] if build is not subclassed else ["block"]):
        network = Network(model, layer_names=names)
        specs = network.inner_specs()
        inner = network(x, training=False).inner
        assert {name: (None, *value.shape[1:]) for name, value in inner.items()} == {
            name: spec.shape for name, spec in specs.items()
        }
        assert {spec.dtype for spec in specs.values()} == {"float32"}
    after = traces(model)
    assert after[0] == before[0]
    assert after[2] == before[2]
    assert equal_weights(after[1], before[1])


def test_specs_do_not_touch_seeds_or_statistics():
    x = inputs = keras.Input(batch_shape=(8, 4))
    noise = layers.GaussianNoise(1.0, seed=3)
    inner = keras.Sequential(
        [noise, layers.BatchNormalization(momentum=0.0, name="bn")], name="inner"
    )
    x = inner(x, training=True)
    model = keras.Model(inputs, layers.Dense(2, activity_regularizer="l2")(x))
    before = [np.array(v) for v in model.variables]
    specs = Network(model, layer_names=["inner/bn"]).inner_specs()
    assert specs["inner/bn"].shape == (None, 4)
    assert all(np.array_equal(v, old) for v, old in zip(model.variables, before, strict=True))
    assert model.losses == []


def test_specs_of_a_model_that_was_never_called_are_not_known():
    assert Network(Twice(), layer_names=["block"]).inner_specs() is None


def test_names_and_numbers_of_calls():
    x, _ = examples()
    layer = layers.Dense(4, name="shared")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layer(layer(inputs)), name="model")
    inner = Network(model, layer_names=["shared:0", "shared:1"])(x, training=False).inner
    np.testing.assert_allclose(inner["shared:0"], dense(layer, x), atol=1e-5)
    np.testing.assert_allclose(inner["shared:1"], model(x), atol=1e-5)
    with pytest.raises(ValueError, match=r"'shared' .*called 2 times.*'shared:0'.*'shared:1'"):
        Network(model, layer_names=["shared"])(x, training=False)
    with pytest.raises(ValueError, match=r"'shared:2' .*called 2 time.*last is 'shared:1'"):
        Network(model, layer_names=["shared:2"])(x, training=False)
    specs = Network(model, layer_names=["shared:1"]).inner_specs()
    assert specs["shared:1"].shape == (None, 4)


def test_a_name_may_end_like_the_number_of_a_call():
    x, _ = examples()
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3, name="b:1")(layers.Dense(4, name="b")(inputs)))
    inner = Network(model, layer_names=["b:1", "b:1:0"])(x, training=False).inner
    np.testing.assert_array_equal(inner["b:1"], model(x))
    np.testing.assert_array_equal(inner["b:1:0"], model(x))


def test_the_operations_of_a_functional_model_have_names():
    x, _ = examples()
    inputs = keras.Input((4,))
    hidden = layers.Dense(4, name="hidden")(inputs)
    model = keras.Model(inputs, layers.Dense(3)(hidden + inputs))
    name = next(one.name for one in model.operations if not isinstance(one, keras.Layer))
    network = Network(model, layer_names=[name])
    found = network(x, training=False).inner[name]
    np.testing.assert_allclose(found, dense(model.get_layer("hidden"), x) + x, atol=1e-5)
    assert network.inner_specs()[name].shape == (None, 4)
    assert all_built(model)


def test_two_names_of_one_layer():
    x, _ = examples()
    shared = layers.Dense(4, name="shared")
    one, two = keras.Sequential([shared], name="one"), keras.Sequential([shared], name="two")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, two(one(inputs)))
    inner = Network(model, layer_names=["one/shared:1", "two/shared:0"])(x, training=False).inner
    np.testing.assert_allclose(inner["one/shared:1"], model(x), atol=1e-5)
    np.testing.assert_allclose(inner["two/shared:0"], one(x), atol=1e-5)


def test_siblings_of_one_name_are_refused():
    class Siblings(keras.Model):
        def __init__(self):
            super().__init__(name="siblings")
            self.all = [layers.Dense(2, name="same"), layers.Dense(2, name="same")]

    with pytest.raises(ValueError, match="'siblings' has 2 layers 'same' side by side"):
        find_layer(Siblings(), "same")


def test_a_layer_that_knows_its_parent():
    parent = Block(name="block")
    object.__setattr__(parent._first, "parent", parent)  # Keras itself must not follow it
    inputs = keras.Input((4,))
    model = keras.Model(inputs, parent(inputs))
    assert find_layer(model, "block/first") is parent._first


@pytest.mark.parametrize(
    ("layer", "outer"),
    [
        (layers.LSTM(3, name="lstm"), "lstm"),
        (layers.RNN([layers.GRUCell(3)], name="stacked"), "stacked"),
        (layers.TimeDistributed(layers.Dense(3), name="each"), "each"),
        (layers.Bidirectional(layers.GRU(3, name="g"), name="both"), "both/forward_g"),
    ],
    ids=lambda given: getattr(given, "name", None),
)
def test_what_runs_in_a_loop_has_no_name(layer, outer):
    inputs = keras.Input((5, 4))
    model = keras.Model(inputs, layers.Dense(2)(layer(inputs)))
    inner = [path for path, _ in named_layers(model) if path.startswith(f"{outer}/")][-1]
    with pytest.raises(
        ValueError, match=f"'{inner}' .*in a loop by '{outer}'.*name '{outer}' itself"
    ):
        find_layer(model, inner)
    x = np.ones((2, 5, 4), "float32")
    found = Network(model, layer_names=[outer])(x, training=False).inner[outer]
    if outer == layer.name:
        np.testing.assert_allclose(found, layer(x), atol=1e-6)


def test_several_tensors_of_one_layer_are_refused():
    inputs = keras.Input((5, 4))
    _, state, _ = layers.LSTM(3, return_state=True, name="lstm")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Identity(name="state")(state)), name="model")
    x = np.ones((2, 5, 4), "float32")
    network = Network(model, layer_names=["lstm"], role="teacher")
    for read in (lambda: network(x, training=False), network.inner_specs):
        with pytest.raises(ValueError, match=r"'lstm' of the teacher 'model' returned 3 tensors"):
            read()
    assert Network(model, layer_names=["state"])(x, training=False).inner["state"].shape == (2, 3)


class Conditional(keras.Model):
    """Calls one layer in a branch of the graph, and another where Python says so."""

    def __init__(self):
        super().__init__(name="conditional")
        self.branch = layers.Dense(4, name="branch")
        self.training_only = layers.Dense(4, name="training_only")

    def call(self, x, training=None):
        if training:
            x = self.training_only(x)
        return keras.ops.cond(keras.ops.sum(x) > -1e9, lambda: self.branch(x), lambda: x)


def test_layers_in_branches():
    x, _ = examples()
    model = Conditional()
    model(x, training=True)
    branch = Network(model, layer_names=["branch"])
    step = tf.function(lambda x: tf.reduce_sum(branch(x, training=False).inner["branch"]))
    with pytest.raises(ValueError, match=r"'branch' .*inside of a branch, a loop or a tf.function"):
        step(x)
    eager = branch(x, training=False)
    np.testing.assert_array_equal(eager.inner["branch"], eager.outputs)
    not_taken = Network(model, layer_names=["training_only"])
    assert not_taken(x, training=True).inner["training_only"].shape == (24, 4)
    with pytest.raises(ValueError, match=r"'training_only' .*was not called in this pass"):
        not_taken(x, training=False)


def test_a_layer_in_a_function_of_its_own():
    class Compiled(layers.Layer):
        def __init__(self):
            super().__init__(name="compiled")
            self.inner = layers.Dense(4, name="inner")
            self.run = tf.function(lambda x: self.inner(x))

        def build(self, shape):
            self.inner.build(shape)

        def call(self, x):
            return self.run(x)

    inputs = keras.Input((4,))
    model = keras.Model(inputs, Compiled()(inputs))
    network = Network(model, layer_names=["compiled/inner"])
    x = np.ones((7, 4), "float32")
    with pytest.raises(ValueError, match=r"'compiled/inner' .*tf.function of its own"):
        network(x, training=False)
    assert "call" not in vars(find_layer(model, "compiled/inner"))


def test_a_quantized_layer_is_heard():
    x, _ = examples()
    model = mlp(width=16)
    model.quantize("int8")
    found = Network(model, layer_names=["hidden"])(x, training=False).inner["hidden"]
    np.testing.assert_array_equal(found, model.get_layer("hidden")(x))
    assert "quantized_call" not in vars(model.get_layer("hidden"))


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("hidden", "inner/hidden"),
        ("hiden", "inner/hidden"),
        ("inner/hiden", "inner/hidden"),
        ("a", "block/a"),
        ("blocks/first", "block/first"),
        ("inner/first", "block/first"),
    ],
)
def test_the_nearest_names_reach_inside(wrong, right):
    with pytest.raises(ValueError, match=f"'functional' has no layer '{wrong}'.*are: {right}[,.]"):
        find_layer(functional(), wrong)


TWO_REPLICAS = """
import keras, numpy as np, tensorflow as tf
from keras import layers
from keras_distill.layer_tree import find_layer
from keras_distill.network import Network

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    x = inputs = keras.Input((4,))
    for name in "abc":  # what is synchronised makes the replicas take turns
        x = layers.Dense(4, name=name)(x)
        x = layers.BatchNormalization(synchronized=True)(x)
    model = keras.Model(inputs, layers.Dense(2, name="top")(x))
network = Network(model, layer_names=["a", "c", "top"])

@tf.function
def step(x):
    return strategy.run(lambda x: network(x, training=True).inner["top"], args=(x,))

print(len(strategy.experimental_local_results(step(tf.ones((2, 4))))))
assert not any("call" in vars(layer) for layer in model.layers)
"""


def test_replicas_that_take_turns_each_hear_their_own_pass():
    result = subprocess.run(
        [sys.executable, "-c", TWO_REPLICAS], capture_output=True, text=True, timeout=200
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["2"]


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


def test_a_sentence_about_a_layer_is_not_wrapped_by_keras():
    block = keras.Sequential([layers.Dense(4, name="inner")], name="block")
    inputs = keras.Input((4,))
    teacher = keras.Model(inputs, layers.Dense(3)(block(block(inputs))))
    student = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="inner"), layers.Dense(3)])
    loss = kd.losses.CorrelationCongruence("block/inner", "inner")
    model = kd.Distiller(teacher, student, loss)
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match=r"^Layer 'block/inner' of the teacher .* called 2 times"):
        model.fit(np.ones((4, 4), "float32"), np.zeros(4, int), verbose=0)
