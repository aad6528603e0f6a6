import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_distill as kd
from keras_distill import folded
from keras_distill.folded import FoldedNetwork
from keras_distill.network import Network
from tests.keras_distill.networks import (
    Subclassed,
    equal_weights,
    examples,
    mlp,
    weights_of,
    with_state,
)

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


def distiller(teacher, student, fold="auto", losses="soft_targets", **arguments):
    model = kd.Distiller(teacher, student, losses, **arguments)
    model.compile(keras.optimizers.SGD(0.1), loss=SCE, fold_teacher=fold)
    return model


def is_folded(model):
    return model._teacher._folded is not None


def in_graph(folded_, inputs):
    """The answer that a compiled step gets: its tensors, evaluated."""
    answers = []

    @tf.function(autograph=False)
    def tensors():
        answers.append(folded_.answer(inputs))
        return answers[0].outputs, answers[0].logits, answers[0].inner

    outputs, logits, inner = tensors()
    return dataclasses.replace(answers[0], outputs=outputs, logits=logits, inner=inner)


@pytest.mark.parametrize("count", [4, 1])
def test_the_folded_network_answers_as_its_layers_do(count):
    network = Network(convolutional(), layer_names=["bn_8", "bn_12"], role="teacher")
    expected = network(images(count), training=False)
    found = in_graph(FoldedNetwork(network), keras.ops.convert_to_tensor(images(count)))
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
    tensors = keras.tree.map_structure(keras.ops.convert_to_tensor, batch)
    found = in_graph(FoldedNetwork(network), tensors)
    expected = network(batch, training=False)
    for name in ("z", "c"):
        np.testing.assert_allclose(found.outputs[name], expected.outputs[name], atol=1e-6)


def wide_answers(change):
    """Of a network whose weights `change` sets: the answers before, after, and of the constants."""
    network, hidden = wide()
    x = keras.ops.convert_to_tensor(examples(8)[0])
    constants = FoldedNetwork(Network(network, role="teacher"))
    before = np.array(network(x))
    change(network, hidden)
    return before, np.array(network(x)), np.array(in_graph(constants, x).outputs)


def test_constants_answer_in_inference_of_layers_that_train_otherwise():
    network, x = with_state(), keras.ops.convert_to_tensor(examples(8)[0])
    constants = FoldedNetwork(Network(network, role="teacher"))
    before = np.array(network(x))
    np.testing.assert_allclose(in_graph(constants, x).outputs, before, rtol=1e-5)
    assert constants._weights  # it wrote no state


def test_constants_answer_where_no_weight_is_seen_to_be_set():
    before, after, found = wide_answers(lambda network, hidden: change_last_row(hidden))
    np.testing.assert_allclose(found, before, rtol=1e-5)
    assert not np.allclose(found, after, rtol=1e-2)


@pytest.mark.parametrize("which", ["all", "first", "last", "one value"])
def test_a_step_sees_that_weights_were_set(which):
    def change(network, hidden):
        if which == "one value":
            kernel = np.array(hidden.kernel)
            kernel[0, 7] += 100
            hidden.kernel.assign(kernel)
            return
        for layer in {"all": network.layers[1:], "first": [hidden]}.get(which, network.layers[-1:]):
            layer.kernel.assign(2 * layer.kernel)

    _, after, found = wide_answers(change)
    np.testing.assert_allclose(found, after, rtol=1e-5)


def test_a_step_looks_at_weights_from_everywhere():
    inputs = keras.Input((2,))
    stack = [layers.Dense(2) for _ in range(30)]
    model = keras.Model(inputs, keras.Sequential(stack)(inputs))
    x = keras.ops.ones((1, 2))
    constants = FoldedNetwork(Network(model, role="teacher"))
    for place in (0, 12, 28, 29):
        layer = stack[place]
        begin = np.array(layer.kernel), np.array(layer.bias)
        layer.kernel.assign(3 * layer.kernel)
        layer.bias.assign(layer.bias + 1)
        found = in_graph(constants, x).outputs
        np.testing.assert_allclose(found, model(x), rtol=1e-5)
        layer.kernel.assign(begin[0])
        layer.bias.assign(begin[1])


def test_training_is_the_same_with_a_folded_teacher():
    x, y = images(22), np.arange(22) % 3
    teacher = convolutional("teacher")
    students = [convolutional("student")]
    students.append(keras.models.clone_model(students[0]))
    students[1].set_weights(students[0].get_weights())
    histories = []
    for student, fold in zip(students, (False, True), strict=True):
        keras.utils.set_random_seed(3)
        model = distiller(teacher, student, fold)
        histories.append(model.fit(x, y, batch_size=8, epochs=3, verbose=0).history)
        assert is_folded(model) == (fold)
    for name in histories[0]:
        np.testing.assert_allclose(histories[0][name], histories[1][name], rtol=1e-4)
    for first, second in zip(*(student.get_weights() for student in students), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)


def soft(model, x, y):
    return model.train_on_batch(x, y, return_dict=True)["distillation_loss"]


def still(teacher, student, fold=True):
    """A distiller whose student does not move."""
    model = kd.Distiller(teacher, student, "soft_targets")
    model.compile(keras.optimizers.SGD(0.0), loss=SCE, fold_teacher=fold)
    return model


def test_weights_that_are_set_after_a_fit_count_at_once():
    x, y = examples()
    teacher, student = mlp(), mlp()
    model = still(teacher, student)
    model.fit(x, y, verbose=0)
    first = soft(model, x, y)
    teacher.set_weights([3 * weight for weight in teacher.get_weights()])
    fresh = still(teacher, student, False)
    assert soft(model, x, y) == pytest.approx(soft(fresh, x, y), rel=1e-5)
    assert soft(model, x, y) != pytest.approx(first, rel=1e-2)
    model.fit(x, y, verbose=0)
    assert is_folded(model)  # with the new weights


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
    fresh = still(teacher, student, False)
    expected = [soft(fresh, x[i : i + 8], y[i : i + 8]) for i in (0, 8, 16, 24)]
    assert np.mean(expected) == pytest.approx(seen[-1], rel=1e-4)  # the running mean of epoch 2


def test_one_weight_of_many_is_noticed_at_the_next_epoch():
    model = convolutional()
    constants = FoldedNetwork(Network(model, role="teacher"))
    assert constants.current()
    kernel = model.layers[1].kernel
    changed = np.array(kernel)
    changed[1, 1, 1, 1] += 1e-3
    kernel.assign(changed)
    assert not constants.current()


def test_a_subclassed_teacher_is_folded_too():
    x, y = examples()
    teacher = Subclassed()
    teacher(x)
    model = distiller(teacher, mlp(), True, teacher_activation="linear")
    model.fit(x, y, verbose=0)
    assert is_folded(model)


class InGraph(layers.Layer):
    """Its product is a graph of its own, which TensorFlow keeps from the first call on."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3))
        self.product = tf.function(lambda x: tf.matmul(x, self.kernel), autograph=False)

    def call(self, x):
        return self.product(x)


class OfAGraph(keras.Model):
    def __init__(self):
        super().__init__()
        self.inner = InGraph()

    def call(self, inputs, training=None):
        return self.inner(inputs)


@pytest.mark.parametrize("how", ["graph", "eager"])
def test_a_layer_with_a_graph_of_its_own_keeps_its_variables(how):
    x, y = examples()
    teacher = OfAGraph()
    teacher(x)
    model = kd.Distiller(teacher, mlp(), "soft_targets", teacher_activation="linear")
    model.compile("sgd", SCE, fold_teacher=True, run_eagerly=how == "eager")
    model.fit(x, y, batch_size=7, verbose=0)
    assert is_folded(model)
    teacher.inner.kernel.assign(keras.ops.zeros_like(teacher.inner.kernel))
    assert not teacher.predict(x, batch_size=7, verbose=0).any()


def test_a_layer_that_is_never_used_leaves_the_layers():
    x, y = examples()
    teacher = Subclassed()
    teacher.unused = layers.Dense(2)
    teacher(x)
    with pytest.raises(
        ValueError, match="has layers without weights yet: call it on a batch; or use"
    ):
        distiller(teacher, mlp(), True, teacher_activation="linear").fit(x, y, verbose=0)
    model = distiller(teacher, mlp(), "auto", teacher_activation="linear")
    model.fit(x, y, verbose=0)
    assert not is_folded(model)


def test_another_graph_is_traced_when_weights_were_set_and_only_then():
    x, y = examples(8)
    model = distiller(mlp(), mlp(), True)
    graphs = []
    for change in (False, False, True):
        if change:
            model.teacher.set_weights([2 * weight for weight in model.teacher.get_weights()])
        model.fit(x, y, epochs=2, verbose=0)
        graphs.append(model.train_function)
    assert graphs[0] is graphs[1] is not graphs[2]
    model.teacher.set_weights([2 * weight for weight in model.teacher.get_weights()])
    model.train_on_batch(x, y)
    assert not is_folded(model)
    assert model.train_function is not graphs[2]


def test_a_teacher_that_learns_between_two_fits_is_folded_anew():
    x, _ = examples(8)
    network, hidden = wide()
    model = still(network, mlp())
    soft_loss_of_fit(model, x)
    first = model._teacher._folded
    change_last_row(hidden)
    soft_loss_of_fit(model, x)
    assert is_folded(model)
    assert model._teacher._folded is not first


def test_auto_leaves_a_teacher_that_was_set_to_its_variables_until_compile():
    x, y = examples(8)
    model = distiller(mlp(), mlp())
    model.fit(x, y, verbose=0)
    assert is_folded(model)
    model.teacher.set_weights([2 * weight for weight in model.teacher.get_weights()])
    for _ in range(2):
        model.fit(x, y, verbose=0)
        assert not is_folded(model)
    model.compile("sgd", SCE)
    model.fit(x, y, verbose=0)
    assert is_folded(model)


def test_a_weight_that_no_step_looks_at_counts_in_train_on_batch():
    x, y = examples(8)
    network, hidden = wide()
    model = still(network, mlp())
    soft_loss_of_fit(model, x)
    change_last_row(hidden)
    expected = soft(still(network, model.student, False), x, y)
    assert soft(model, x, y) == pytest.approx(expected, rel=1e-5)


def test_the_teachers_own_inputs_are_selected():
    x, _ = examples(8)
    losses = []
    student = mlp()
    teacher = mlp()
    for fold in (True, False):
        model = kd.Distiller(teacher, student, "soft_targets", teacher_inputs=lambda x: 3 * x)
        model.compile(keras.optimizers.SGD(0.0), SCE, fold_teacher=fold)
        losses.append(soft_loss_of_fit(model, x))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_argument_is_checked_and_saved(tmp_path):
    with pytest.raises(ValueError, match="fold_teacher='gpu': give True, False or 'auto'"):
        distiller(mlp(), mlp(), "gpu")
    with pytest.raises(ValueError, match=r"is for a keras.Model as teacher, got CallableTeacher"):
        distiller(kd.teachers.CallableTeacher(lambda x: x, (4,)), mlp(4), True).fit(
            *examples(), verbose=0
        )
    x, y = examples()
    model = distiller(mlp(), mlp(), True)
    model.fit(x, y, verbose=0)
    teacher = weights_of(model.teacher)
    model.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    loaded.fit(x, y, verbose=0)
    assert is_folded(loaded)
    assert equal_weights(weights_of(loaded.teacher), teacher)


def of_any_length(name=None):
    inputs = keras.Input((None, 4), name=name)
    x = layers.GlobalAveragePooling1D()(layers.Conv1D(8, 3, padding="same")(inputs))
    return keras.Model(inputs, layers.Dense(3)(x))


def of_two_inputs():
    b, a = keras.Input((4,), name="b"), keras.Input((4,), name="a")
    return keras.Model([b, a], layers.Dense(3)(layers.Concatenate()([b, a])))


def rescaling():
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(3)(layers.Rescaling(1.0)(inputs)))


def soft_loss_of_fit(model, x, batch_size=4):
    rows = len(keras.tree.flatten(x)[0])
    history = model.fit(x, np.arange(rows) % 3, batch_size=batch_size, verbose=0, shuffle=False)
    return history.history["soft_targets"][0]


FORMS = {
    "longer": (of_any_length, np.ones((4, 5, 4), "float32"), np.ones((4, 9, 4), "float32")),
    "other places": (
        of_two_inputs,
        {"a": np.zeros((4, 4), "float32"), "b": np.ones((4, 4), "float32")},
        [np.ones((4, 4), "float32"), np.zeros((4, 4), "float32")],
    ),
    "other type": (rescaling, np.ones((4, 4), "uint8"), np.full((4, 4), 0.7, "float32")),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_later_fit_may_have_other_inputs(form):
    network, first, second = FORMS[form]
    teacher, student = network(), network()
    model = still(teacher, student)
    soft_loss_of_fit(model, first)
    expected = soft_loss_of_fit(still(teacher, student, False), second)
    assert soft_loss_of_fit(model, second) == pytest.approx(expected, rel=1e-5)
    assert is_folded(model)


def soft_losses(teacher, student, x):
    """With constants where that can be, and with the layers."""
    return [
        soft_loss_of_fit(still(teacher, student, fold), x, batch_size=4) for fold in ("auto", False)
    ]


class MinusMean(layers.Layer):
    def call(self, x):
        return x - keras.ops.mean(x, axis=0, keepdims=True)


class OwnVariable(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.factor = tf.Variable(1.0)

    def call(self, x):
        return x * self.factor


class InPython(layers.Layer):
    def call(self, x):
        return tf.ensure_shape(tf.numpy_function(lambda a: a + 1, [x], tf.float32), x.shape)


@pytest.mark.parametrize("layer", [MinusMean, OwnVariable, InPython])
def test_layers_of_other_kinds_answer_as_they_do(layer):
    inputs = keras.Input((4,))
    teacher = keras.Model(inputs, layer()(layers.Dense(3)(inputs)))
    x, _ = examples(11)
    found, expected = soft_losses(teacher, mlp(), x)
    assert found == pytest.approx(expected, rel=1e-6)


def test_a_variable_that_keras_does_not_know_counts_at_once():
    inputs = keras.Input((4,))
    own = OwnVariable()
    teacher = keras.Model(inputs, own(layers.Dense(3)(inputs)))
    x, y = examples(8)
    model = still(teacher, mlp())
    soft_loss_of_fit(model, x)
    own.factor.assign(3.0)
    assert soft(model, x, y) == pytest.approx(
        soft(still(teacher, model.student, False), x, y), rel=1e-6
    )


class Noise(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed = keras.random.SeedGenerator(5)

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seed)


@pytest.mark.parametrize("state", ["GRU", "Noise"])
def test_the_states_of_a_teacher_go_on_as_with_its_layers(state):
    inputs = keras.Input((5, 4), batch_size=4)
    layer = layers.GRU(6, stateful=True) if state == "GRU" else Noise()
    x = layer(inputs) if state == "GRU" else layers.Flatten()(layer(inputs))
    teacher = keras.Model(inputs, layers.Dense(3)(x))
    states = layer.states if state == "GRU" else layer.variables
    begin = [np.array(v) for v in states]
    student = of_any_length()
    x = np.random.default_rng(0).normal(size=(8, 5, 4)).astype("float32")
    losses = []
    for fold in (True, False):
        for variable, value in zip(states, begin, strict=True):
            variable.assign(value)
        losses.append(soft_loss_of_fit(still(teacher, student, fold), x))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_states_that_go_on_are_no_reason_to_trace_again():
    inputs = keras.Input((4,))
    teacher = keras.Model(inputs, layers.Dense(3)(Noise()(inputs)))
    model = still(teacher, mlp())
    soft_loss_of_fit(model, examples(8)[0])
    first = model.train_function
    model.fit(*examples(8), epochs=3, batch_size=4, verbose=0)
    assert model.train_function is first
    expected = np.array(teacher.layers[-1].kernel) * 2
    teacher.layers[-1].kernel.assign(expected)
    x, y = examples(8)
    model.train_on_batch(x, y)  # and what is set counts, since nothing became a constant
    teacher.layers[1].seed.state.assign([1, 2])
    found = soft(model, x, y)
    teacher.layers[1].seed.state.assign([1, 2])
    assert found == pytest.approx(soft(still(teacher, model.student, False), x, y), rel=1e-5)


def wide():
    """A network with a kernel of more weights than are looked at in each step; and that layer."""
    inputs = keras.Input((4,))
    hidden = layers.Dense(2000, activation="relu")
    return keras.Model(inputs, layers.Dense(3)(hidden(inputs))), hidden


def change_last_row(layer):
    kernel = np.array(layer.kernel)
    kernel[3] += 100
    layer.kernel.assign(kernel)


def test_a_weight_that_no_step_looks_at_counts_from_the_next_epoch():
    teacher, hidden = wide()
    x, y = examples(8)
    student = mlp()
    model = still(teacher, student)

    class Sets(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                change_last_row(hidden)

    history = model.fit(x, y, epochs=2, verbose=0, callbacks=[Sets()]).history["soft_targets"]
    expected = soft(still(teacher, student, False), x, y)
    assert history[1] == pytest.approx(expected, rel=1e-5)
    assert history[0] != pytest.approx(expected, rel=1e-2)


def test_two_distillers_that_share_a_teacher_both_notice():
    network, hidden = wide()
    teacher = kd.teachers.ModelTeacher(network)
    first, second = still(teacher, mlp()), still(teacher, mlp())
    x, _ = examples(8)
    soft_loss_of_fit(first, x)
    soft_loss_of_fit(second, x)
    change_last_row(hidden)
    soft_loss_of_fit(first, x)
    expected = soft_loss_of_fit(still(network, second.student, False), x)
    assert soft_loss_of_fit(second, x) == pytest.approx(expected, rel=1e-5)


def test_sparse_inputs_are_answered_too():
    def network():
        inputs = keras.Input((4,), sparse=True)
        return keras.Model(inputs, layers.Dense(3)(inputs))

    x, y = examples(8)
    data = tf.data.Dataset.from_tensor_slices((tf.sparse.from_dense(x), y)).batch(4)
    model = still(network(), network(), "auto")
    assert np.isfinite(model.fit(data, verbose=0).history["loss"][0])
    assert is_folded(model)
    assert model.student.recorded_input_ranges == ((x.min(), x.max()),)


def test_nan_from_the_teacher_is_named():
    x, y = examples()
    teacher = mlp()
    teacher.layers[-1].kernel.assign(np.full((8, 3), np.nan))
    with pytest.raises(ValueError, match="the teacher answers NaN in 24 of 24 examples"):
        still(teacher, mlp()).fit(x, y, verbose=0)


@pytest.mark.parametrize(
    "why", ["fold_teacher", "jit_compile", "run_eagerly", "no teacher", "GPU", "large", "weights"]
)
def test_where_auto_leaves_the_layers(why, monkeypatch):
    x, y = examples(8)
    teacher = Subclassed() if why == "weights" else mlp()
    share = 1.0 if why == "no teacher" else 0.5
    model = kd.Distiller(teacher, mlp(), "soft_targets", student_loss_weight=share)
    options = {"fold_teacher": {"fold_teacher": False}}.get(why, {why: True})
    model.compile(
        "sgd", SCE, **(options if why in ("jit_compile", "run_eagerly", "fold_teacher") else {})
    )
    if why == "GPU":
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["a GPU"])
    if why == "large":
        monkeypatch.setattr(folded, "PAYING_BYTES", 99)
    assert not model._folds()
    model.fit(x, y, verbose=0)
    if why != "weights":  # it has some when the training begins: one batch was looked at
        assert not is_folded(model)


def test_auto_folds_and_a_later_compile_unfolds():
    x, y = examples(8)
    model = distiller(mlp(), mlp())
    model.fit(x, y, verbose=0)
    assert is_folded(model)
    first = model._teacher._folded
    model.fit(x, y, verbose=0)
    assert model._teacher._folded is first
    model.compile("sgd", SCE, fold_teacher=False)
    model.fit(x, y, verbose=0)
    assert not is_folded(model)


def test_what_cannot_be_folded_says_why(monkeypatch):
    with pytest.raises(ValueError, match=r"'raw' has layers without weights yet: call it"):
        FoldedNetwork(Network(Subclassed(name="raw")))
    monkeypatch.setattr(folded, "MOST_BYTES", 99)
    with pytest.raises(
        ValueError, match=r"has weights of 0 MiB, and 0 MiB can be constants; or use"
    ):
        distiller(mlp(), mlp(), True).fit(*examples(), verbose=0)


def test_half_precision_answers_the_same():
    keras.config.set_dtype_policy("mixed_bfloat16")
    teacher = mlp()
    keras.config.set_dtype_policy("float32")
    found, expected = soft_losses(teacher, mlp(), examples(8)[0])
    assert found == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("why", ["unbuilt", "large"])
def test_auto_folds_those_of_several_teachers_that_it_pays_for(why, monkeypatch, tmp_path):
    x, y = examples(8)
    other = mlp(width=64) if why == "large" else keras.Sequential([layers.Dense(3)])
    if why == "large":
        monkeypatch.setattr(folded, "PAYING_BYTES", 4 * other.count_params() - 1)
        monkeypatch.setattr(folded, "MOST_BYTES", 4 * other.count_params() - 1)
    ensemble = kd.teachers.Ensemble([mlp(), other])
    kd.SoftLabels.build(ensemble, (x, y), tmp_path, verbose=False)
    if why == "unbuilt":
        other = keras.Sequential([layers.Dense(3)])
        ensemble = kd.teachers.Ensemble([mlp(), other])
    model = distiller(ensemble, mlp())
    model.compile("sgd", SCE, run_eagerly=False)
    model.begin(anew=True)
    assert [one._folded is not None for one in ensemble.members.values()] == [True, False]
    assert np.isfinite(np.asarray(ensemble.targets(x).logits)).all()
    model.compile("sgd", SCE, fold_teacher=True)
    if why == "large":
        with pytest.raises(ValueError, match="can be constants; or use fold_teacher='auto'"):
            model.begin(anew=True)
