"""Networks that see different inputs, and networks with several outputs."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_distill as kd
from tests.golden import response as golden
from tests.keras_distill.networks import examples, mlp

SCE = "sparse_categorical_crossentropy"
STILL = keras.optimizers.SGD


def cnn(size):
    """A classifier of greyscale images."""
    x = inputs = keras.Input((size, size, 1))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x))
    return keras.Model(inputs, layers.Dense(3)(x))


def test_a_callable_prepares_each_networks_inputs(rng):
    x = rng.uniform(0, 255, (6, 8, 8, 1)).astype("float32")
    y = np.arange(6) % 3
    teacher, student = cnn(16), cnn(4)
    model = kd.Distiller(
        teacher,
        student,
        "soft_targets",
        teacher_inputs=lambda batch: tf.image.resize(batch, (16, 16)) / 255.0,
        student_inputs=lambda batch: tf.image.resize(batch, (4, 4)) / 127.5 - 1.0,
    )
    model.compile(STILL(0.0), loss=SCE, metrics=["accuracy"])
    t = teacher(tf.image.resize(x, (16, 16)) / 255.0)
    s = student(tf.image.resize(x, (4, 4)) / 127.5 - 1.0)
    history = model.fit(x, y, validation_data=(x, y), batch_size=6, verbose=0).history
    assert history["distillation_loss"][0] == pytest.approx(
        golden.soft_targets(t, s, 4.0), rel=1e-3
    )
    assert history["val_student_loss"][0] == pytest.approx(golden.crossentropy(y, s), rel=1e-4)
    np.testing.assert_allclose(model.predict(x, verbose=0), s, rtol=1e-4, atol=1e-6)


def test_a_key_picks_each_networks_inputs():
    x, y = examples()
    wide = np.concatenate([x, x], axis=-1)
    teacher, student = mlp(features=8, width=16), mlp(features=4)
    model = kd.Distiller(
        teacher, student, "soft_targets", teacher_inputs="wide", student_inputs="narrow"
    )
    model.compile(STILL(0.0), loss=SCE)
    history = model.fit({"wide": wide, "narrow": x}, y, batch_size=24, verbose=0).history
    expected = golden.soft_targets(
        teacher.predict(wide, verbose=0), student.predict(x, verbose=0), 4.0
    )
    assert history["distillation_loss"][0] == pytest.approx(expected, rel=1e-4)
    with pytest.raises(
        ValueError, match=r"teacher_inputs='wide' is not in the batch, which has \['narrow'\]"
    ):
        model.fit({"narrow": x}, y, verbose=0)
    assert model.predict({"narrow": x}, verbose=0).shape == (24, 3)


def two_heads(structure, width=8):
    """A network with the outputs `kind` (3 classes, logits) and `sure` (1 unit, sigmoid)."""
    x = inputs = keras.Input((4,))
    x = layers.Dense(width, activation="relu")(x)
    kind = layers.Dense(3, name="kind")(x)
    sure = layers.Dense(1, activation="sigmoid", name="sure")(x)
    # The dict is in another order than keras.tree flattens it.
    outputs = {"sure": sure, "kind": kind} if structure is dict else [kind, sure]
    return keras.Model(inputs, outputs)


def data(structure):
    """Inputs and labels of both outputs."""
    x, y = examples()
    sure = (y > 0).astype("float32")[:, None]
    return x, {"kind": y, "sure": sure} if structure is dict else [y, sure]


def logit(p):
    p = np.asarray(p, "float64")
    return np.log(p) - np.log(1 - p)


def parts(model, x):
    """The soft losses of both outputs, by the golden formulas."""
    answers = [network.predict(x, verbose=0) for network in (model.teacher, model.student)]
    (t_kind, t_sure), (s_kind, s_sure) = [
        (a["kind"], a["sure"]) if isinstance(a, dict) else a for a in answers
    ]
    return (
        golden.soft_targets(t_kind, s_kind, 4.0),
        golden.soft_labels(logit(t_sure), logit(s_sure), 4.0),
    )


@pytest.mark.parametrize("structure", [list, dict])
def test_several_outputs_are_taught_together(structure):
    x, y = data(structure)
    losses = [SCE, "binary_crossentropy"]
    model = kd.Distiller(two_heads(structure, 16), two_heads(structure), "soft_targets")
    model.compile(
        STILL(0.0),
        loss=dict(zip(("kind", "sure"), losses, strict=True)) if structure is dict else losses,
    )
    kind, sure = parts(model, x)
    logs = model.fit(x, y, batch_size=24, verbose=0).history
    assert logs["distillation_loss"][0] == pytest.approx(kind + sure, rel=1e-3)
    student = keras.models.clone_model(model.student)
    student.set_weights(model.student.get_weights())
    student.compile(
        loss=[
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            keras.losses.BinaryCrossentropy(),
        ]
        if structure is list
        else {
            "kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "sure": keras.losses.BinaryCrossentropy(),
        }
    )
    alone = student.evaluate(x, y, verbose=0, return_dict=True)
    assert logs["student_loss"][0] == pytest.approx(alone["loss"], rel=1e-4)
    assert logs["kind_loss"][0] == pytest.approx(alone["kind_loss"], rel=1e-4)


@pytest.mark.parametrize("structure", [list, dict])
def test_a_loss_can_read_one_output(structure):
    x, y = data(structure)
    model = kd.Distiller(
        two_heads(structure, 16),
        two_heads(structure),
        [
            kd.losses.SoftTargets(output="kind", name="a"),
            kd.losses.SoftTargets(output="sure", name="b"),
        ],
        distillation_loss_weights=[1.0, 10.0],
        student_loss_weight=0.0,
    )
    model.compile(STILL(0.0))
    kind, sure = parts(model, x)
    logs = model.fit(x, y, batch_size=24, verbose=0).history
    assert logs["a"][0] == pytest.approx(kind, rel=1e-3)
    assert logs["b"][0] == pytest.approx(sure, rel=1e-3)
    assert logs["distillation_loss"][0] == pytest.approx(kind + 10 * sure, rel=1e-3)


def test_weights_of_examples_for_each_output():
    x, y = data(dict)
    weights = {"kind": np.zeros(24, "float32"), "sure": np.ones(24, "float32")}
    model = kd.Distiller(
        two_heads(dict, 16), two_heads(dict), "soft_targets", student_loss_weight=0.0
    )
    model.compile(STILL(0.0))
    _, sure = parts(model, x)
    logs = model.fit(x, y, sample_weight=weights, batch_size=24, verbose=0).history
    assert logs["distillation_loss"][0] == pytest.approx(sure, rel=1e-3)


def test_an_output_that_does_not_exist():
    x, y = data(dict)
    model = kd.Distiller(two_heads(dict), two_heads(dict), kd.losses.SoftTargets(output="sort"))
    model.compile("sgd", loss={"kind": SCE, "sure": "binary_crossentropy"})
    with pytest.raises(
        ValueError, match=r"output='sort', which the \w+ does not have: \['kind', 'sure'\]"
    ):
        model.fit(x, y, verbose=0)


def test_metrics_for_each_output():
    x, y = data(dict)
    model = kd.Distiller(two_heads(dict, 16), two_heads(dict), "soft_targets")
    model.compile(
        "sgd",
        loss={"kind": SCE, "sure": "binary_crossentropy"},
        metrics={"kind": ["accuracy"], "sure": ["binary_accuracy"]},
    )
    history = model.fit(x, y, validation_data=(x, y), verbose=0).history
    assert {"kind_accuracy", "val_sure_binary_accuracy"} <= set(history)


def two_linear(names, width=8):
    """A network with two outputs of three logits each."""
    x = inputs = keras.Input((4,))
    x = layers.Dense(width, activation="relu")(x)
    return keras.Model(inputs, [layers.Dense(3, name=name)(x) for name in names])


def test_one_output_knows_its_own_hard_loss():
    x, y = examples()
    tags = np.eye(3, dtype="float32")[y]
    model = kd.Distiller(
        two_linear("ab", 16),
        two_linear("ab"),
        kd.losses.SoftTargets(output="b"),
        student_loss_weight=0.5,
    )
    model.compile(STILL(0.0), loss=[SCE, "binary_crossentropy"])
    t, s = (network.predict(x, verbose=0)[1] for network in (model.teacher, model.student))
    logs = model.fit(x, [y, tags], batch_size=24, verbose=0).history
    assert logs["distillation_loss"][0] == pytest.approx(golden.soft_labels(t, s, 4.0), rel=1e-4)


def test_each_network_is_read_by_its_own_names():
    x, _ = examples()
    teacher, student = two_linear("ba", 16), two_linear("ab")
    with pytest.raises(ValueError, match=r"Teacher answers \['b', 'a'\] and student \['a', 'b'\]"):
        kd.Distiller(teacher, student, "soft_targets")
    model = kd.Distiller(
        teacher, student, kd.losses.SoftTargets(output="a"), student_loss_weight=0.0
    )
    model.compile(STILL(0.0))
    expected = golden.soft_targets(
        teacher.predict(x, verbose=0)[1], student.predict(x, verbose=0)[0], 4.0
    )
    logs = model.fit(x, batch_size=24, verbose=0).history
    assert logs["distillation_loss"][0] == pytest.approx(expected, rel=1e-4)


def test_a_hard_loss_for_some_outputs_only():
    x, y = data(dict)
    model = kd.Distiller(two_heads(dict, 16), two_heads(dict), "soft_targets")
    model.compile(STILL(0.0), loss={"kind": SCE})
    s = model.student.predict(x, verbose=0)["kind"]
    logs = model.fit(x, {"kind": y["kind"]}, batch_size=24, verbose=0).history
    assert logs["student_loss"][0] == pytest.approx(golden.crossentropy(y["kind"], s), rel=1e-4)
    assert logs["distillation_loss"][0] == pytest.approx(sum(parts(model, x)), rel=1e-3)


def test_weights_of_outputs_and_weighted_metrics_reach_keras():
    x, y = data(dict)
    weights = {"kind": np.arange(24, dtype="float32"), "sure": np.ones(24, "float32")}
    arguments = {
        "loss_weights": {"kind": 2.0, "sure": 0.5},
        "weighted_metrics": {"kind": ["accuracy"], "sure": []},
    }
    model = kd.Distiller(two_heads(dict, 16), two_heads(dict), "soft_targets")
    model.compile(STILL(0.0), loss={"kind": SCE, "sure": "binary_crossentropy"}, **arguments)
    logs = model.train_on_batch(x, y, sample_weight=weights, return_dict=True)
    plain = keras.models.clone_model(model.student)
    plain.set_weights(model.student.get_weights())
    plain.compile(
        STILL(0.0),
        loss={
            "kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "sure": keras.losses.BinaryCrossentropy(),
        },
        **arguments,
    )
    expected = plain.train_on_batch(x, y, sample_weight=weights, return_dict=True)
    assert logs["student_loss"] == pytest.approx(expected["loss"], rel=1e-4)
    assert logs["kind_accuracy"] == pytest.approx(expected["kind_accuracy"], rel=1e-5)


def test_one_number_for_each_example_is_a_sigmoid():
    x, _ = examples()

    def network(width):
        inputs = keras.Input((4,))
        hidden = layers.Dense(width, activation="relu")(inputs)
        return keras.Model(inputs, layers.Dense(1)(hidden)[:, 0])

    model = kd.Distiller(
        network(16),
        network(8),
        "soft_targets",
        student_loss_weight=0,
        teacher_activation="linear",
        student_activation="linear",
    )
    model.compile(STILL(0.0))
    t, s = (n.predict(x, verbose=0)[:, None] for n in (model.teacher, model.student))
    logs = model.fit(x, batch_size=24, verbose=0).history
    assert logs["distillation_loss"][0] == pytest.approx(golden.soft_labels(t, s, 4.0), rel=1e-4)


def test_a_layer_that_prepares_inputs_keeps_its_state(tmp_path):
    x, y = examples()
    normalization = layers.Normalization()
    normalization.adapt(5 * x + 3)
    other = layers.Normalization()
    other.adapt(2 * x - 1)
    model = kd.Distiller(
        mlp(width=16), mlp(), "soft_targets", teacher_inputs=other, student_inputs=normalization
    )
    model.compile(STILL(0.0), loss=SCE)
    expected = model.evaluate(x, y, verbose=0, return_dict=True)
    teacher = np.asarray(model.targets(x).outputs)
    model.save(tmp_path / "d.keras")
    again = keras.models.load_model(tmp_path / "d.keras")
    assert again.evaluate(x, y, verbose=0, return_dict=True) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(again.targets(x).outputs, teacher, rtol=1e-5, atol=1e-6)


def test_a_layer_that_prepares_inputs_knows_training():
    x, y = examples()
    model = kd.Distiller(
        mlp(width=16), mlp(), "soft_targets", student_inputs=layers.GaussianNoise(0.9)
    )
    model.compile(STILL(0.0), loss=SCE)
    first, second = (model.train_on_batch(x, y, return_dict=True)["student_loss"] for _ in range(2))
    model.reset_metrics()
    assert first != second
    assert np.array_equal(model.predict(x, verbose=0), model.student.predict(x, verbose=0))


def test_outputs_that_cannot_be_paired():
    x, y = data(dict)
    model = kd.Distiller(two_heads(list), two_heads(dict), "soft_targets")
    model.compile("sgd", loss={"kind": SCE, "sure": "binary_crossentropy"})
    with pytest.raises(
        ValueError, match=r"answers 2 outputs and student the outputs \['kind', 'sure'\]"
    ):
        model.fit(x, y, verbose=0)


def test_a_loss_on_inner_layers_does_not_mind_the_order_of_outputs():
    def network(names):
        hidden = layers.Dense(8, name="hidden")(inputs := keras.Input((4,)))
        return keras.Model(inputs, [layers.Dense(3, name=name)(hidden) for name in names])

    loss = keras.distillation.FeatureDistillation("mse", "hidden", "hidden")
    model = kd.Distiller(network("ba"), network("ab"), loss, student_loss_weight=0)
    model.compile("sgd")
    assert np.isfinite(model.fit(examples()[0], verbose=0).history["loss"]).all()


def two_in_another_order(width):
    """A list of outputs whose names are not in alphabetical order."""
    inputs = keras.Input((6,))
    x = layers.Dense(width, activation="relu")(inputs)
    return keras.Model(inputs, [layers.Dense(3, name=name)(x) for name in ("zeta", "alpha")])


@pytest.mark.parametrize("output", [0, "alpha", None])
@pytest.mark.parametrize("weighting", [None, "true_label"])
def test_labels_by_name_belong_to_outputs_by_position(output, weighting):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 6)).astype("float32")
    y = {"zeta": rng.integers(0, 3, 12), "alpha": rng.integers(0, 3, 12)}
    teacher, student = two_in_another_order(8), two_in_another_order(4)
    loss = kd.losses.DecoupledKD(output=output)
    model = kd.Distiller(teacher, student, loss, example_weighting=weighting)
    model.compile(STILL(0.0), {name: SCE for name in y})
    found = model.fit(x, y, batch_size=12, verbose=0).history["decoupled_kd"][0]
    expected = 0.0
    for i, name in enumerate(["zeta", "alpha"]):
        if output in (None, i, name):
            t, s = (model(x)[i] for model in (teacher, student))
            trust = None
            if weighting:
                trust = kd.example_weighting.weights(weighting, t, y[name])
            expected += float(kd.losses.DecoupledKD().compute_loss(t, s, y[name], trust))
    assert found == pytest.approx(expected, rel=1e-4)


def test_losses_by_name_tell_the_kinds_of_outputs_by_position():
    x = np.random.default_rng(0).normal(size=(12, 6)).astype("float32")
    y = {"zeta": np.ones((12, 3), "float32"), "alpha": np.zeros(12, int)}
    teacher, student = two_in_another_order(8), two_in_another_order(4)
    model = kd.Distiller(teacher, student, kd.losses.SoftTargets())
    binary = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(STILL(0.0), {"zeta": binary, "alpha": SCE})
    found = model.fit(x, y, batch_size=12, verbose=0).history["soft_targets"][0]
    t, s = (one.predict(x, verbose=0) for one in (teacher, student))
    kinds = ["sigmoid", "softmax"]
    expected = float(kd.losses.SoftTargets().compute_loss(t, s, activation=kinds))
    assert found == pytest.approx(expected, rel=1e-4)


def test_true_label_needs_the_columns_of_the_students_classes():
    def net(width, classes):
        inputs = keras.Input((6,))
        x = layers.Dense(width, name="hidden")(inputs)
        return keras.Model(inputs, layers.Dense(classes)(x))

    x, y = np.ones((4, 6), "float32"), np.zeros(4, int)
    teacher = net(8, 7)
    teacher.layers[-1].bias.assign([0, 0, 0, 0, 50.0, 0, 0])  # sure of column 4
    cosine = kd.losses.CosineFeatures("hidden", "hidden")

    def soft(terms):
        model = kd.Distiller(teacher, net(4, 3), terms, example_weighting="true_label")
        model.compile(STILL(0.0), SCE)
        return model.fit(x, y, verbose=0).history["cosine_features"][0]

    with pytest.raises(
        ValueError, match=r"student.s 3 classes in the teacher.s 7: .*class_indices="
    ):
        soft(cosine)
    cosine = kd.losses.CosineFeatures("hidden", "hidden")
    assert soft([kd.losses.SoftTargets(class_indices=[4, 5, 6]), cosine]) > 0
