"""Logits or probabilities: whatever the networks end in, the same loss."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_distill as kd
from keras_distill import activations
from keras_distill.network import Network
from tests.golden import response as golden
from tests.keras_distill.networks import Subclassed, examples, mlp

SCE = "sparse_categorical_crossentropy"


def ending(how, weights, units=3):
    """A network of given weights whose probabilities are made in the way `how`."""
    inputs = keras.Input((4,))
    kind = "sigmoid" if "sigmoid" in how else "softmax"
    by_argument = how in ("softmax", "sigmoid")
    top = layers.Dense(units, activation=kind if by_argument else None, name="top")
    x = top(inputs)
    if how == "layer":
        x = layers.Softmax()(x)
    elif how in ("activation", "sigmoid activation"):
        x = layers.Activation(kind)(x)
    elif how == "operation":
        x = keras.ops.softmax(x)
    elif how == "sigmoid operation":
        x = keras.ops.sigmoid(x)
    elif how == "then identity":
        x = layers.Activation("linear", dtype="float32")(layers.Identity()(layers.Softmax()(x)))
    elif how == "softmax operation as activation":
        x = layers.Activation(keras.ops.softmax)(x)
    elif how == "softmax layer as activation":
        x = layers.Activation(layers.Softmax())(x)
    elif how == "cast":
        x = keras.ops.cast(layers.Softmax()(x), "float32")
    elif how == "average":
        x = layers.Average()([layers.Softmax()(x), layers.Softmax()(x)])
    elif how == "time distributed":
        classifier = keras.Sequential([layers.Dense(units, activation="softmax", name="top")])
        x = layers.Reshape((units,))(
            layers.TimeDistributed(classifier)(layers.Reshape((1, 4))(inputs))
        )
        top = classifier.layers[0]
    elif how == "reshaped":
        x = layers.Reshape((units,))(layers.Softmax()(x))
    model = keras.Model(inputs, x)
    if how == "unbuilt":
        return keras.Sequential(
            [layers.Identity(), ending("softmax", weights, units), layers.Dropout(0.0)]
        )
    if how == "nested":
        inner = ending("softmax", weights, units)
        outer = keras.Input((4,))
        return keras.Model(outer, inner(outer))
    if how == "sequential":
        return keras.Sequential([keras.Input((4,)), ending("softmax", weights, units)])
    top.set_weights(weights)
    return model


@pytest.fixture
def tops(rng):
    """Weights of a teacher's and a student's last layer."""
    return [[rng.normal(size=(4, 3)) * 2, rng.normal(size=3)] for _ in range(2)]


SOFTMAX = [
    "softmax",
    "layer",
    "activation",
    "operation",
    "then identity",
    "reshaped",
    "nested",
    "sequential",
    "softmax operation as activation",
    "softmax layer as activation",
    "cast",
    "average",
    "time distributed",
    "unbuilt",
]


@pytest.mark.parametrize(
    ("teacher", "student"),
    [("linear", "linear")]
    + [(how, "linear") for how in SOFTMAX]
    + [("linear", how) for how in SOFTMAX]
    + [("softmax", "layer"), ("nested", "activation")],
)
def test_every_ending_gives_the_same_loss(tops, teacher, student):
    x, y = examples()
    t, s = (x @ kernel + bias for kernel, bias in tops)
    model = kd.Distiller(ending(teacher, tops[0]), ending(student, tops[1]), "soft_targets")
    model.compile(keras.optimizers.SGD(0.1), loss=SCE)
    logs = model.train_on_batch(x, y, return_dict=True)
    assert logs["distillation_loss"] == pytest.approx(golden.soft_targets(t, s, 4.0), rel=1e-4)
    assert logs["student_loss"] == pytest.approx(golden.crossentropy(y, s), rel=1e-4)


@pytest.mark.parametrize(
    "teacher", ["linear", "sigmoid", "sigmoid activation", "sigmoid operation"]
)
@pytest.mark.parametrize("student", ["linear", "sigmoid", "sigmoid activation"])
def test_labels_by_themselves(tops, teacher, student):
    x, _ = examples()
    y = np.random.default_rng(0).integers(0, 2, (len(x), 3)).astype("float32")
    t, s = (x @ kernel + bias for kernel, bias in tops)
    model = kd.Distiller(ending(teacher, tops[0]), ending(student, tops[1]), "soft_targets")
    model.compile(keras.optimizers.SGD(0.1), loss="binary_crossentropy")
    logs = model.train_on_batch(x, y, return_dict=True)
    assert logs["distillation_loss"] == pytest.approx(golden.soft_labels(t, s, 4.0), rel=1e-4)
    p = 1 / (1 + np.exp(-s))
    expected = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
    assert logs["student_loss"] == pytest.approx(expected, rel=1e-3)


def test_one_unit_is_a_sigmoid_whatever_the_loss(rng):
    x, _ = examples()
    weights = [[rng.normal(size=(4, 1)), rng.normal(size=1)] for _ in range(2)]
    t, s = (x @ kernel + bias for kernel, bias in weights)
    model = kd.Distiller(
        ending("linear", weights[0], 1),
        ending("linear", weights[1], 1),
        "soft_targets",
        student_loss_weight=0,
    )
    model.compile("sgd")
    logs = model.train_on_batch(x, return_dict=True)
    assert logs["distillation_loss"] == pytest.approx(golden.soft_labels(t, s, 4.0), rel=1e-4)


def test_a_certain_teacher_is_not_clipped_at_1e_7():
    # softmax of logits 0 and 40 is 4e-18 and 1: clipped at 1e-7, the answer at T=10 would be 0.17, not 0.018.
    teacher = ending("softmax", [np.zeros((4, 2)), np.array([0.0, 40.0])], 2)
    answer = Network(teacher)(np.zeros((1, 4), "float32"), training=False)
    assert np.ptp(answer.logits) == pytest.approx(40.0)
    reshaped = ending("reshaped", [np.zeros((4, 2)), np.array([0.0, 40.0])], 2)  # no place to tap
    answer = Network(reshaped)(np.zeros((1, 4), "float32"), training=False)
    assert np.ptp(answer.logits) == pytest.approx(40.0, rel=1e-4)
    assert golden.softmax(np.asarray(answer.logits) / 10)[0, 0] == pytest.approx(0.018, abs=1e-3)


def test_probabilities_of_exactly_0_and_1_stay_finite():
    for kind in ("softmax", "sigmoid"):
        logits = activations.to_logits(np.array([[0.0, 1.0]], "float32"), kind)
        assert np.isfinite(np.asarray(logits)).all()


def test_all_of_keras_applications_ends_in_a_tapped_softmax():
    model = keras.applications.MobileNet(
        input_shape=(32, 32, 3), alpha=0.25, weights=None, classes=5
    )
    (head,) = activations.heads(model)
    assert head.activation == "softmax"
    assert head.tap is not None
    image = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    answer = Network(model)(image, training=False)
    np.testing.assert_allclose(golden.softmax(np.asarray(answer.logits)), answer.outputs, atol=1e-5)


@pytest.mark.parametrize(
    ("who", "kind"), [("teacher", "softmax"), ("teacher", "sigmoid"), ("student", "softmax")]
)
def test_hidden_probabilities_are_refused_with_the_argument_to_set(who, kind):
    x, y = examples()
    networks = {"teacher": Subclassed(), "student": Subclassed(), who: Subclassed(activation=kind)}
    model = kd.Distiller(**networks, distillation_losses="soft_targets")
    model.compile("sgd", loss=SCE)
    for train in (model.fit, model.train_on_batch):
        with pytest.raises(ValueError, match=f"Pass {who}_activation='{kind}'"):
            train(x, y)
    model = kd.Distiller(
        **networks, distillation_losses="soft_targets", **{f"{who}_activation": kind}
    )
    model.compile("sgd", loss=SCE)
    model.fit(x, y, verbose=0)


def test_numbers_from_0_to_1_of_a_student_may_be_chance():
    x, y = examples()
    model = kd.Distiller(mlp(), Subclassed(activation="sigmoid"), "soft_targets")
    model.compile("sgd", loss=SCE)
    with pytest.warns(UserWarning, match="Pass student_activation='sigmoid'"):
        model.fit(x, y, verbose=0)


@pytest.mark.parametrize(
    "end",
    [
        lambda x: keras.ops.squeeze(layers.Reshape((3, 1))(layers.Softmax()(x)), -1),
        lambda x: layers.BatchNormalization()(layers.Softmax()(x)),
        lambda x: keras.ops.exp(x) / keras.ops.sum(keras.ops.exp(x), axis=-1, keepdims=True),
        lambda x: layers.Activation("hard_sigmoid")(x),
        lambda x: layers.Lambda(lambda z: keras.ops.softmax(z))(x),
    ],
)
def test_an_end_of_another_kind_is_not_guessed(end):
    x, y = examples()
    inputs = keras.Input((4,))
    network = keras.Model(inputs, end(layers.Dense(3)(inputs)))
    assert activations.heads(network) == [activations.UNKNOWN]
    model = kd.Distiller(network, mlp(), "soft_targets")
    model.compile("sgd", loss=SCE)
    with pytest.raises(ValueError, match="Pass teacher_activation="):
        model.fit(x, y, verbose=0)


def test_an_end_that_is_no_layer_of_kernels_is_left_alone():
    inputs = keras.Input((None, 2))
    network = keras.Model(inputs, layers.LSTM(3, activation="sigmoid")(inputs))
    answer = Network(network, activation="linear")(np.ones((2, 5, 2), "float32"), training=False)
    assert np.array_equal(answer.logits, answer.outputs)


def test_a_generator_is_looked_at_and_loses_nothing():
    x, y = examples(24)

    def batches():
        for i in range(0, 24, 8):
            yield x[i : i + 8], y[i : i + 8]

    model = kd.Distiller(Subclassed(activation="softmax"), mlp(), "soft_targets")
    model.compile("sgd", loss=SCE)
    with pytest.raises(ValueError, match="Pass teacher_activation='softmax'"):
        model.fit(batches(), verbose=0)
    seen = []
    count = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(batch)
    )
    model = kd.Distiller(Subclassed(), mlp(), "soft_targets")
    model.compile("sgd", loss=SCE)
    model.fit(batches(), verbose=0, callbacks=[count])
    assert seen == [0, 1, 2]


def test_hidden_probabilities_are_refused_for_the_hard_loss_too():
    x, y = examples()
    model = kd.Distiller(
        mlp(), Subclassed(activation="softmax"), "soft_targets", student_loss_weight=1
    )
    model.compile("sgd", loss=SCE)
    with pytest.raises(ValueError, match="Pass student_activation='softmax'"):
        model.fit(x, y)
    model.compile("sgd", loss=keras.losses.SparseCategoricalCrossentropy())  # given as it is meant
    model.fit(x, y, verbose=0)


def test_a_declared_activation_overrules_what_is_seen(tops):
    x, y = examples()
    model = kd.Distiller(
        ending("softmax", tops[0]),
        ending("linear", tops[1]),
        "soft_targets",
        teacher_activation="linear",
    )
    model.compile(keras.optimizers.SGD(0.0), loss=SCE)
    t, s = (x @ kernel + bias for kernel, bias in tops)
    logs = model.train_on_batch(x, y, return_dict=True)
    expected = golden.soft_targets(golden.softmax(t), s, 4.0)
    assert logs["distillation_loss"] == pytest.approx(expected, rel=1e-4)


# The hard loss


@pytest.mark.parametrize(("activation", "logits"), [(None, True), ("softmax", False)])
def test_a_string_gets_the_students_from_logits(activation, logits):
    model = kd.Distiller(mlp(), mlp(activation=activation), "soft_targets")
    model.compile("sgd", loss=SCE)
    assert model.loss.from_logits is logits


@pytest.mark.parametrize(
    "name", ["SparseCategoricalCrossentropy", "sparse_categorical_crossentropy"]
)
def test_a_class_name_is_a_string_too(name):
    model = kd.Distiller(mlp(), mlp(), "soft_targets")
    model.compile("sgd", loss=name)
    assert model.loss.from_logits is True


@pytest.mark.parametrize(
    ("activation", "loss"),
    [
        (None, keras.losses.SparseCategoricalCrossentropy()),
        ("softmax", keras.losses.SparseCategoricalCrossentropy(from_logits=True)),
        (None, keras.losses.sparse_categorical_crossentropy),
        ("sigmoid", keras.losses.BinaryCrossentropy(from_logits=True)),
    ],
)
def test_a_loss_object_is_used_as_given_and_a_mismatch_warns(activation, loss):
    model = kd.Distiller(mlp(), mlp(activation=activation), "soft_targets")
    with pytest.warns(UserWarning, match=r"pass from_logits=(True|False), or the loss's name"):
        model.compile("sgd", loss=loss)
    assert model.loss is loss


def test_a_fitting_loss_object_does_not_warn(recwarn):
    model = kd.Distiller(mlp(), mlp(activation="softmax"), "soft_targets")
    model.compile("sgd", loss=keras.losses.SparseCategoricalCrossentropy())
    hidden = kd.Distiller(mlp(), Subclassed(), "soft_targets")
    hidden.compile("sgd", loss=keras.losses.SparseCategoricalCrossentropy())
    assert not [w for w in recwarn if "from_logits" in str(w.message)]
