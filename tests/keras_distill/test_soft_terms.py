"""Losses in a Distiller: inner layers, connectors, weights that change, weights of examples, and saving."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_distill as kd
from keras_distill import checks, example_weighting, losses, schedules
from tests.golden import feature
from tests.golden import response as golden
from tests.keras_distill.networks import Subclassed, equal_weights, examples, mlp, weights_of

SCE = "sparse_categorical_crossentropy"
COUNT, SIZE, CLASSES = 8, 8, 3


def cnn(width, size=SIZE, name=None):
    """Three stages, ending in logits; layers "stage0" to "stage2", "pool" and "top"."""
    x = inputs = keras.Input((size, size, 3))
    for stage in range(3):
        strides = 2 if stage else 1
        x = layers.Conv2D(width * 2**stage, 3, strides=strides, padding="same")(x)
        x = layers.BatchNormalization(name=f"norm{stage}")(x)
        x = layers.ReLU(name=f"stage{stage}")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(CLASSES, name="top")(x), name=name)


def images():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(COUNT, SIZE, SIZE, 3)).astype("float32")
    return x, rng.integers(0, CLASSES, COUNT)


def compiled(model, **options):
    """Run eagerly, for the time that a trace takes; SGD, so that a step shows its gradient."""
    model.compile(keras.optimizers.SGD(0.01), SCE, run_eagerly=True, **options)
    return model


def step(model, x, y, **options):
    return model.train_on_batch(x, y, return_dict=True, **options)


STAGES = ["stage0", "stage1", "stage2"]
ALL = {
    "soft_targets": lambda: losses.SoftTargets(2.0, standardize=True),
    "decoupled_kd": lambda: losses.DecoupledKD(beta=2.0),
    "dist": lambda: losses.DIST(temperature=2.0),
    "normalized_kd": lambda: losses.NormalizedKD(),
    "logit_mse": lambda: losses.LogitMSE(),
    "virtual_teacher": lambda: losses.VirtualTeacher(),
    "hint": lambda: losses.Hint("stage1", "stage1"),
    "attention_transfer": lambda: losses.AttentionTransfer(STAGES, STAGES),
    "neuron_selectivity": lambda: losses.NeuronSelectivity("stage2", "stage2"),
    "variational_information": lambda: losses.VariationalInformation("stage2", "stage2"),
    "review_kd": lambda: losses.ReviewKD(STAGES, STAGES),
    "channel_wise": lambda: losses.ChannelWise("stage1", "stage2"),
    "cosine_features": lambda: losses.CosineFeatures("pool", "pool"),
    "rkd_distance": lambda: losses.RKDDistance("pool", "pool"),
    "rkd_angle": lambda: losses.RKDAngle("pool", "pool"),
    "similarity_preserving": lambda: losses.SimilarityPreserving("stage2", "stage2"),
    "correlation_congruence": lambda: losses.CorrelationCongruence("pool", "pool"),
    "pkt": lambda: losses.PKT("pool", "pool"),
    "fsp": lambda: losses.FSP(STAGES, STAGES),
    "contrastive_distillation": lambda: losses.ContrastiveDistillation("pool", "pool", 4),
}


def test_every_loss_is_tried_here():
    known = (*losses.RESPONSES, *losses.FEATURES, *losses.RELATIONS)
    assert {type(make()) for make in ALL.values()} == set(known)


@pytest.mark.filterwarnings("ignore:.*weights of its own")
def test_every_loss_trains_and_a_saved_distiller_goes_on_with_it(tmp_path):
    x, y = images()
    terms = [make() for make in ALL.values()]
    model = compiled(kd.Distiller(cnn(4), cnn(2), terms, student_loss_weight=0.2))
    before = weights_of(model)
    logs = step(model, x, y)
    assert set(ALL) < set(logs)
    soft = sum(logs[name] for name in ALL)
    assert logs["loss"] == pytest.approx(0.2 * logs["student_loss"] + 0.8 * soft, rel=1e-5)
    trained = [not np.array_equal(a, b) for a, b in zip(before, weights_of(model), strict=True)]
    assert all(trained)
    model.save(tmp_path / "d.keras")
    again = keras.models.load_model(tmp_path / "d.keras")
    for first, second in zip(model.distillation_losses, again.distillation_losses, strict=True):
        assert second.get_config() == first.get_config()
    assert equal_weights(weights_of(again), weights_of(model))
    logs, others = step(model, x, y), step(again, x, y)
    for name in ALL:
        assert others[name] == pytest.approx(logs[name], rel=1e-5, abs=1e-7)


def test_connectors_are_saved_with_the_distiller_and_not_in_the_student(tmp_path):
    x, y = images()

    def new():
        loss = losses.Hint(["stage1", "stage2"], ["stage1", "stage2"])
        return compiled(kd.Distiller(cnn(4, name="teacher"), cnn(2), loss))

    model = new()
    (loss,) = model.distillation_losses
    kernels = [connector.linear.kernel for connector in loss.connectors]
    assert [kernel.shape for kernel in kernels] == [(4, 8), (8, 16)]
    before = [np.array(kernel) for kernel in kernels]
    step(model, x, y)
    assert not any(np.array_equal(a, b) for a, b in zip(before, kernels, strict=True))
    assert not {id(k) for k in kernels} & {id(weight) for weight in model.student.weights}
    model.save_weights(tmp_path / "d.weights.h5")
    other = new()
    other.load_weights(tmp_path / "d.weights.h5")
    others = [connector.linear.kernel for connector in other.distillation_losses[0].connectors]
    assert all(np.array_equal(a, b) for a, b in zip(kernels, others, strict=True))


def test_a_hint_of_a_relu_goes_through_a_relu():
    def activation(layer):
        (loss,) = kd.Distiller(cnn(4), cnn(2), losses.Hint(layer, layer)).distillation_losses
        return loss.connectors[0].activation

    assert activation("stage1") is keras.activations.relu
    assert activation("pool") is keras.activations.relu  # the mean of what is not negative
    assert activation("norm1") is not keras.activations.relu


def test_a_connector_of_ones_own_may_change_sizes():
    x, y = images()
    own = layers.Conv2D(8, 3, strides=2, padding="same")
    loss = losses.Hint("stage2", "stage1", connector=own)  # 2×2×16 and 4×4×4
    with pytest.raises(ValueError, match=r"8 channels after the connector and .* 16: pass"):
        kd.Distiller(cnn(4), cnn(2), loss)
    own = layers.Conv2D(16, 3, strides=2, padding="same")
    model = compiled(kd.Distiller(cnn(4), cnn(2), losses.Hint("stage2", "stage1", connector=own)))
    assert np.isfinite(step(model, x, y)["hint"])
    with pytest.raises(ValueError, match=r"4 channels and the teacher's .* have 8: pass"):
        kd.Distiller(cnn(4), cnn(2), losses.Hint("stage1", "stage1", connector=None))


def test_a_connector_larger_than_the_student_is_told():
    teacher = cnn(64)
    with pytest.warns(UserWarning, match=r"Hint has \d[\d,]+ weights of its own, more than .* \d"):
        kd.Distiller(teacher, mlp_of_images(), losses.Hint("pool", "hidden"))


def mlp_of_images():
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Dense(2, name="hidden")(layers.GlobalAveragePooling2D()(inputs))
    return keras.Model(inputs, layers.Dense(CLASSES)(x))


def test_kerass_distiller_trains_the_weights_of_our_losses():
    x, y = images()
    loss = losses.Hint("stage1", "stage1")
    model = keras.distillation.Distiller(cnn(4), cnn(2), loss)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, verbose=0)
    kernel = loss.connectors[0].linear.kernel
    before = np.array(kernel)
    model.fit(x, y, verbose=0)
    assert not np.array_equal(before, kernel)


@pytest.mark.filterwarnings("ignore:.*weights of its own")
def test_networks_that_are_not_built_get_their_connectors_at_the_first_batch():
    x, y = examples()
    teacher = mlp(width=16)
    student = Subclassed()
    model = kd.Distiller(teacher, student, losses.Hint("hidden", student.hidden.name))
    assert not model.distillation_losses[0].built
    model.compile("sgd", SCE, metrics=["accuracy"])
    model.fit(x, y, verbose=0)
    assert model.distillation_losses[0].connectors[0].linear.kernel.shape == (8, 16)
    assert len(model.trainable_variables) == 4 + 3


class Late(layers.Layer):
    """A connector whose layers are built when they are called."""

    def __init__(self):
        super().__init__()
        self.inner = layers.Dense(16)

    def call(self, x):
        return self.inner(x)


class Block(layers.Layer):
    """Its `activation` is not the last thing that it does."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.activation = layers.Dense(width), keras.activations.relu
        self.norm = layers.LayerNormalization()

    def call(self, x):
        return self.norm(self.activation(self.dense(x)))


@pytest.mark.filterwarnings("ignore:.*weights of its own", "ignore:.*unbuilt state")
def test_the_activation_of_a_layer_of_ones_own_says_nothing_of_its_end():
    def net(width):
        inputs = keras.Input((4,))
        return keras.Model(inputs, layers.Dense(3)(Block(width, name="block")(inputs)))

    loss = losses.Hint("block", "block")
    kd.Distiller(net(8), net(4), loss)
    assert loss.connectors[0].activation is keras.activations.linear


def test_advice_on_large_losses_is_to_be_had():
    with pytest.warns(UserWarning, match="more than the student's .* or pass a connector="):
        kd.Distiller(mlp(width=64), mlp(width=4), losses.Hint("hidden", "hidden"))
    with pytest.warns(
        UserWarning, match=r"more than the student's .* name layers of fewer channels\.$"
    ):
        kd.Distiller(mlp(width=64), mlp(), losses.ContrastiveDistillation("hidden", "hidden"))


@pytest.mark.filterwarnings("ignore:.*weights of its own", "ignore:.*unbuilt state")
def test_a_connector_of_ones_own_may_build_itself_when_it_is_called():
    connector = Late()
    model = compiled(
        kd.Distiller(mlp(width=16), mlp(), losses.Hint("hidden", "hidden", connector=connector))
    )
    x, y = examples()
    before = np.array(connector.inner.kernel)
    step(model, x, y)
    assert not np.array_equal(before, connector.inner.kernel)


def test_the_regularisation_of_student_inputs_counts():
    x, y = examples()
    scale = layers.Dense(x.shape[-1], kernel_regularizer=keras.regularizers.L2(0.5))
    scale.build(x.shape)
    model = compiled(kd.Distiller(mlp(width=16), mlp(), "soft_targets", student_inputs=scale))
    penalty = 0.5 * float((np.array(scale.kernel) ** 2).sum())
    logs = step(model, x, y)
    rest = 0.5 * (logs["student_loss"] + logs["distillation_loss"])
    assert logs["loss"] == pytest.approx(rest + penalty, rel=1e-5)


def test_no_metric_has_the_name_of_a_loss():
    model = kd.Distiller(mlp(width=16), mlp(), losses.SoftTargets(name="accuracy"))
    with pytest.raises(ValueError, match="both named 'accuracy': pass another name="):
        model.compile("sgd", SCE, metrics=["accuracy"])


@pytest.mark.parametrize("by_epoch", [False, True])
@pytest.mark.parametrize(
    ("start", "steps", "end", "found"),
    [(-1.0, 10, 1.0, "-1 in .* 0"), (1.0, 2, -1.0, "-1 in .* 2")],
)
def test_a_schedule_of_a_weight_has_values_that_can_be_meant(start, steps, end, found, by_epoch):
    falling = keras.optimizers.schedules.PolynomialDecay(start, steps, end)
    falling = schedules.ByEpoch(falling) if by_epoch else falling
    with pytest.raises(ValueError, match=rf"distillation_loss_weights must be .* which is {found}"):
        kd.Distiller(mlp(width=16), mlp(), "soft_targets", [falling])


def test_a_schedule_of_a_temperature_may_fall_for_ever_but_not_end_too_low():
    decay = keras.optimizers.schedules.ExponentialDecay(8.0, 1000, 0.9)
    losses.SoftTargets(decay)
    losses.SoftTargets(schedules.ByEpoch(keras.optimizers.schedules.ExponentialDecay(8.0, 1, 0.95)))
    for end in (0.0, 0.0001):
        ending = keras.optimizers.schedules.PolynomialDecay(4.0, 3, end)
        with pytest.raises(ValueError, match=rf"PolynomialDecay, which is {end:g} in step 8"):
            losses.SoftTargets(ending)


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (lambda z, y: ops.softmax(z), r"gave weights of the shape \(.*3\) for logits .*one number"),
        (lambda z, y: np.ones(7), r"gave (7 weights for|weights of the shape \(7,\) for logits)"),
        (lambda z, y: ops.sum(z, -1) * float("nan"), "gave the weight nan to example 0"),
        (lambda z, y: -ops.ones_like(z[:, 0]), "gave the weight -1 to example 0"),
    ],
)
def test_weights_by_a_function_must_be_weights(rule, sentence):
    x, y = examples(24)
    model = compiled(kd.Distiller(mlp(), mlp(), "soft_targets", example_weighting=rule))
    with pytest.raises(ValueError, match=sentence):
        model.fit(x, y, batch_size=16, verbose=0)


def test_a_memory_bank_without_numbers_says_how_to_give_them():
    loss = losses.ContrastiveDistillation("hidden", "hidden", bank_size=24)
    model = compiled(kd.Distiller(mlp(width=16), mlp(), loss))
    with pytest.raises(ValueError, match="put them into the batch under the key 'index'"):
        model.fit(*examples(24), verbose=0)


@pytest.mark.parametrize("name", [3, [], {"x": "hidden"}, ["hidden", 3]])
def test_layers_are_named_by_strings(name):
    with pytest.raises(
        ValueError, match="Hint reads layers by name, a string or a list of some, got"
    ):
        kd.Distiller(mlp(width=16), mlp(), losses.Hint(name, name))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: losses.mix("soft_targets", hard="a"),
            "hard must be a number of at least 0, got 'a'",
        ),
        (
            lambda: losses.get(losses.SoftTargets),
            r"got the class SoftTargets: call it, SoftTargets\(",
        ),
        (lambda: kd.suggest_pairs("a", mlp()), "takes two keras.Models, got str"),
        (
            lambda: kd.Distiller(mlp(), mlp(), losses.SoftTargets(name="val_loss")),
            "cannot be named 'val_loss'",
        ),
    ],
)
def test_what_is_no_loss_number_or_network_is_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_one_loss_with_weights_is_there_once():
    loss = losses.Hint("hidden", "hidden")
    with pytest.raises(ValueError, match="One Hint is there twice"):
        kd.Distiller(mlp(width=16), mlp(), [loss, loss])


def test_channels_first_is_refused_where_inner_layers_are_read():
    inputs = keras.Input((3, 8, 8))
    x = layers.Conv2D(4, 3, data_format="channels_first", name="conv")(inputs)
    top = layers.Dense(3)(layers.GlobalAveragePooling2D(data_format="channels_first")(x))
    model = keras.Model(inputs, top)
    other = keras.models.clone_model(model)
    with pytest.raises(ValueError, match=r"'conv' of the student has data_format='channels_first'"):
        kd.Distiller(model, other, losses.AttentionTransfer("conv", "conv"))
    kd.Distiller(model, other, "soft_targets")


def test_a_memory_bank_is_for_one_device():
    banked = losses.ContrastiveDistillation("hidden", "hidden", bank_size=24)
    checks.one_device([banked, losses.SoftTargets()], 1)
    checks.one_device([losses.ContrastiveDistillation("hidden", "hidden")], 2)
    with pytest.raises(ValueError, match="is for one device, and this strategy has 2"):
        checks.one_device([losses.SoftTargets(), banked], 2)


def test_the_summary_shows_whole_names():
    inputs = keras.Input((16, 16, 3))
    long = "a_layer_of_a_network_of_long_names_in_stage_"

    def network(width, name):
        inner = keras.Input((16, 16, 3))
        x = layers.Conv2D(width, 3, strides=2, name=f"{long}1")(inner)
        x = layers.Conv2D(width, 3, strides=2, name=f"{long}2")(x)
        x = keras.Model(inner, x, name=name)(inputs)
        return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))

    names = [[f"{who}/{long}{i}" for i in (1, 2)] for who in ("the_teacher", "the_student")]
    model = kd.Distiller(
        network(4, "the_teacher"), network(2, "the_student"), losses.AttentionTransfer(*names)
    )
    lines = []
    model.summary(print_fn=lines.append)
    cells = [[cell.strip() for cell in line.split("│")] for line in lines[0].split("\n")]
    for column, wanted in zip((3, 4), names, strict=True):
        text = "".join(row[column] for row in cells if len(row) > column)
        assert all(name in text for name in wanted)


def test_balanced_weights_stay_finite_where_a_loss_is_0():
    rule = kd.balancing.Uncertainty()
    rule.build(1)
    rule.log_variances.assign([-50.0])
    assert rule.weights_now() == [pytest.approx(np.exp(10.0))]
    assert np.isfinite(rule.total([1.0], [1.0]))


def test_standardised_soft_targets_have_a_temperature_of_2():
    assert losses.SoftTargets().temperature == 4
    assert losses.SoftTargets(standardize=True).temperature == 2
    assert losses.SoftTargets(3.0, standardize=True).temperature == 3


def test_losses_that_wait_for_shapes_say_so_where_no_batch_can_be_taken():
    class Stream:
        """What only `fit` can read."""

    student = Subclassed()
    model = kd.Distiller(mlp(width=16), student, losses.Hint("hidden", student.hidden.name))
    model.compile("sgd", SCE)
    with pytest.raises(ValueError, match=r"Hint waits for .* taken out of Stream .* call teacher"):
        model.fit(Stream())


@pytest.mark.filterwarnings("ignore:.*weights of its own")
def test_losses_that_waited_are_made_once_the_networks_are_known(tmp_path):
    x, y = examples()

    def new():
        student = Subclassed()
        model = kd.Distiller(mlp(width=16), student, losses.Hint("hidden", student.hidden.name))
        model.compile("sgd", SCE)
        return model

    trained = new()
    trained.fit(x, y, verbose=0)
    trained.save_weights(tmp_path / "d.weights.h5")
    again = new()
    again(x)
    again.load_weights(tmp_path / "d.weights.h5")
    kernels = [
        model.distillation_losses[0].connectors[0].linear.kernel for model in (trained, again)
    ]
    np.testing.assert_array_equal(*map(np.array, kernels))


def test_auto_names_the_ends_of_equal_stages():
    loss = losses.AttentionTransfer("auto")
    model = kd.Distiller(
        cnn(4, size=16), cnn(2, size=8), loss, teacher_inputs=layers.Resizing(16, 16)
    )
    (term,) = model.soft_terms.terms
    assert (term.teacher_layers, term.student_layers) == (STAGES, STAGES)
    assert model.distillation_losses == [loss]
    assert loss.teacher_layer_name == "auto"  # for the next pair of networks
    (term,) = kd.Distiller(cnn(4), cnn(2), losses.SimilarityPreserving("auto")).soft_terms.terms
    assert (term.teacher_layers, term.student_layers) == ("stage2", "stage2")


class Halved(losses.Hint):
    """A user's loss without a `get_config` of its own."""

    def __init__(self, factor):
        super().__init__("auto")
        self.factor = factor


def test_auto_leaves_the_loss_and_its_connector_as_they_were_given():
    loss = Halved(0.5)
    connector = layers.Conv2D(4, 1)
    loss.connector = [connector, "auto", "auto"]
    model = kd.Distiller(cnn(4), cnn(2), loss)
    assert model.distillation_losses[0] is loss
    assert loss.connectors[0] is connector
    assert any(one is connector.kernel for one in model.trainable_variables)


def test_a_hint_that_saw_one_teacher_looks_anew_at_the_next():
    loss = losses.Hint("stage1", "stage1")
    unseen = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert not unseen.built
    kd.Distiller(cnn(4), cnn(2), loss)
    assert loss.get_config()["activation"] == "auto"
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert again.connectors[0].activation is keras.activations.relu


def test_one_loss_with_weights_serves_one_pair_of_networks():
    loss = losses.Hint("stage1", "stage1")
    kd.Distiller(cnn(4), cnn(2), loss)
    with pytest.warns(
        UserWarning, match="has weights from another Distiller and goes on with them"
    ):
        kd.Distiller(cnn(4), cnn(2), loss)
    with pytest.raises(ValueError, match=r"This Hint has weights .* make a new one"):
        kd.Distiller(cnn(4), cnn(3), loss)


@pytest.mark.filterwarnings("ignore:.*weights of its own")
def test_a_subclassed_student_may_be_unbuilt_whatever_the_hard_loss():
    x, y = examples()
    student = Subclassed()
    terms = [losses.PKT("hidden", student.hidden.name), losses.Hint(), "soft_targets"]
    model = kd.Distiller(mlp(width=16), student, terms)
    lines: list[str] = []
    model.summary(print_fn=lines.append)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, verbose=0)
    model.summary(print_fn=lines.append)
    shapes = r"│ 3 +│ 3 +│"
    assert not re.search(shapes, lines[0])
    assert re.search(shapes, lines[1])
    other = kd.Distiller(mlp(width=16), Subclassed(), losses.Hint())
    with pytest.raises(ValueError, match=r"'auto'\) looks for layers in the teacher, .* got"):
        kd.Distiller("teacher.keras", student, losses.AttentionTransfer("auto"))
    assert not other.distillation_losses[0].built


def test_a_connector_of_ones_own_in_half_precision_is_compared_in_float32():
    keras.config.set_dtype_policy("mixed_float16")
    x, y = examples()
    loss = losses.Hint("hidden", "hidden", connector=layers.Dense(16))
    model = compiled(kd.Distiller(mlp(width=16), mlp(), loss))
    assert np.isfinite(step(model, x, y)["hint"])


def test_a_distiller_that_is_not_compiled_says_so_as_keras_does():
    model = kd.Distiller(mlp(), mlp(), "soft_targets")
    with pytest.raises(ValueError, match=r"call `compile\(\)`"):
        model.fit(*examples(), verbose=0)


# What changes in time


def test_temperature_and_weights_may_be_schedules():
    x, y = examples()
    temperature = schedules.ByEpoch(keras.optimizers.schedules.PolynomialDecay(8.0, 2, 2.0))
    loss = losses.SoftTargets(temperature)
    model = kd.Distiller(
        mlp(), mlp(), loss, distillation_loss_weights=[schedules.warm_up(4, to=2.0)]
    )
    model.compile(keras.optimizers.SGD(0.0), SCE)
    history = model.fit(x, y, epochs=3, verbose=0).history
    teacher, student = (network.predict(x, verbose=0) for network in (model.teacher, model.student))
    for epoch, (degrees, weight) in enumerate([(8, 0.5), (5, 1.0), (2, 1.5)]):
        value = golden.soft_targets(teacher, student, degrees)
        assert history["soft_targets"][epoch] == pytest.approx(value, rel=1e-4)
        assert history["distillation_loss"][epoch] == pytest.approx(weight * value, rel=1e-4)
    again = kd.Distiller.from_config(model.get_config())
    assert isinstance(again.distillation_losses[0].temperature, schedules.ByEpoch)
    with schedules.at(step=0, epoch=3):
        assert float(schedules.value(again.distillation_loss_weights[0])) == 2.0


def test_schedules_by_the_step_count_steps():
    x, y = examples()
    rise = keras.optimizers.schedules.PolynomialDecay(0.0, 10, 10.0)
    model = kd.Distiller(mlp(), mlp(), "logit_mse", distillation_loss_weights=[rise])
    model.compile(keras.optimizers.SGD(0.0), SCE)
    value = [step(model, x, y) for _ in range(3)][-1]
    logs = model.fit(x, y, batch_size=24, epochs=1, verbose=0).history
    assert logs["distillation_loss"][0] == pytest.approx(3 * logs["logit_mse"][0], rel=1e-4)
    assert np.isfinite(value["loss"])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: losses.DecoupledKD(alpha=-1), "alpha must be a number of at least 0, got -1"),
        (lambda: losses.AttentionTransfer(p=0.5), "p must be a number of at least 1, got 0.5"),
        (lambda: losses.ContrastiveDistillation(temperature=0), "a positive number, got 0"),
        (
            lambda: losses.SoftTargets(keras.optimizers.schedules.PolynomialDecay(0.0, 5, 1.0)),
            "temperature must be .* which is 0 in step 0",
        ),
        (lambda: schedules.warm_up(0), "epochs must be a whole number of at least 1"),
        (lambda: schedules.ByEpoch(3.0), "takes one of keras.optimizers.schedules, got float"),
        (lambda: losses.RKDAngle(max_examples=2), "at least 3, got 2"),
        (lambda: losses.VirtualTeacher(correct_probability=1.0), "between 0 and 1, got 1.0"),
        (lambda: losses.ReviewKD(mid=0), "mid must be"),
        (lambda: losses.CorrelationCongruence(order=0), "order must be"),
    ],
)
def test_numbers_that_cannot_be_meant(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


# Balanced weights


def test_uncertainty_weighting_is_the_formula_and_evens_out():
    x, y = examples()
    terms = ["soft_targets", losses.LogitMSE()]
    model = kd.Distiller(
        mlp(width=16),
        mlp(),
        terms,
        distillation_loss_weights=[1.0, 1000.0],
        loss_balancing="uncertainty",
    )
    model.compile(keras.optimizers.SGD(0.0), SCE, run_eagerly=True)
    logs = step(model, x, y)
    parts = [0.5 * logs["student_loss"], 0.5 * logs["soft_targets"], 500 * logs["logit_mse"]]
    assert logs["loss"] == pytest.approx(sum(parts), rel=1e-4)
    balance = model.loss_balancing
    shift = np.array([0.5, -1.0, 2.0], "float32")
    balance.log_variances.assign(shift)
    assert step(model, x, y)["loss"] == pytest.approx(
        np.sum(np.exp(-shift) * parts + shift), rel=1e-4
    )
    for _ in range(400):
        balance.log_variances.assign_sub(0.1 * np.clip(slope(balance, parts), -1, 1))
    np.testing.assert_allclose(np.array(balance.weights_now()) * parts, 1.0, rtol=1e-2)
    again = kd.Distiller.from_config(model.get_config())
    assert type(again.loss_balancing) is type(balance)
    own = float(balance.log_variances[1])
    total = float(balance.total([1.0, 3.0, 1.0], [0.0, 2.0, 0.0]))
    assert total == pytest.approx(3 * np.exp(-own) + own, rel=1e-4)
    vid = losses.VariationalInformation("hidden", "hidden")
    with pytest.raises(ValueError, match="VariationalInformation can be negative"):
        kd.Distiller(mlp(), mlp(), vid, loss_balancing="uncertainty")
    with pytest.raises(ValueError, match="loss_balancing='gradients' is not known"):
        kd.Distiller(mlp(), mlp(), "soft_targets", loss_balancing="gradients")


def slope(balance, parts):
    """The gradient of the balanced sum."""
    with tf.GradientTape() as tape:
        total = balance.total(parts, [1.0] * len(parts))
    return tape.gradient(total, balance.log_variances.value).numpy()


# Weights of examples


def probabilities(logits):
    return golden.softmax(np.asarray(logits, "float64"))


RULES = {
    "confidence": lambda p, y: p.max(-1),
    "margin": lambda p, y: np.sort(p)[:, -1] - np.sort(p)[:, -2],
    "true_label": lambda p, y: np.where(p.argmax(-1) == y, p[np.arange(len(y)), y], 0),
}


@pytest.mark.parametrize("rule", RULES)
def test_example_weighting_weighs_the_soft_terms_alone(rule):
    x, y = examples()
    teacher = mlp(width=16)
    kernel = teacher.get_layer("top").kernel
    kernel.assign(4 * kernel)
    model = compiled(kd.Distiller(teacher, mlp(), "soft_targets", example_weighting=rule))
    student = model.student.predict(x, verbose=0)
    logits = teacher.predict(x, verbose=0)
    own = np.linspace(0, 2, len(y)).astype("float32")
    logs = step(model, x, y, sample_weight=own)
    weights = own * RULES[rule](probabilities(logits), y)
    rows = [
        golden.soft_targets(t[None], s[None], 4.0) for t, s in zip(logits, student, strict=True)
    ]
    assert logs["soft_targets"] == pytest.approx(np.mean(weights * rows), rel=1e-4)
    hard = [golden.crossentropy(y[i : i + 1], student[i : i + 1]) for i in range(len(y))]
    assert logs["student_loss"] == pytest.approx(np.mean(own * hard), rel=1e-4)


def test_example_weighting_reaches_inner_layers_and_takes_functions():
    x, y = images()

    def none(teacher_logits, labels):
        return ops.zeros_like(teacher_logits[:, 0])

    terms = ["soft_targets", losses.AttentionTransfer("auto"), losses.RKDDistance("pool", "pool")]
    model = compiled(kd.Distiller(cnn(4), cnn(2), terms, example_weighting=none))
    assert step(model, x, y)["distillation_loss"] == 0
    with pytest.raises(ValueError, match="example_weighting='best' is not known"):
        kd.Distiller(cnn(4), cnn(2), terms, example_weighting="best")
    unlabelled = kd.Distiller(
        mlp(), mlp(), "soft_targets", student_loss_weight=0, example_weighting="true_label"
    )
    unlabelled.compile("sgd", run_eagerly=True)
    with pytest.raises(ValueError, match="needs the hard labels"):
        unlabelled.train_on_batch(examples()[0])


def test_weights_of_one_unit_are_those_of_its_two_classes(rng):
    z = rng.normal(size=(6, 1)).astype("float32")
    two = np.concatenate([np.zeros_like(z), z], axis=-1)
    y = np.array([0, 1, 1, 0, 1, 0])
    for rule in RULES:
        one = example_weighting.weights(rule, z, y, "sigmoid")
        np.testing.assert_allclose(one, example_weighting.weights(rule, two, y), rtol=1e-6)
    with pytest.raises(ValueError, match="each right or wrong by itself"):
        example_weighting.weights("margin", two, y, "sigmoid")


# Labels, teachers, masks, NaN


def test_losses_that_need_labels_say_so():
    model = kd.Distiller(mlp(), mlp(), losses.DecoupledKD(), student_loss_weight=0)
    model.compile("sgd", run_eagerly=True)
    with pytest.raises(ValueError, match="DecoupledKD needs the hard labels, and there are none"):
        model.train_on_batch(examples()[0])


def test_outputs_without_labels_are_learned_from_the_teacher_alone():
    def network(width):
        inputs = keras.Input((4,))
        x = layers.Dense(width)(inputs)
        outputs = {"a": layers.Dense(3, name="a")(x), "b": layers.Dense(2, name="b")(x)}
        return keras.Model(inputs, outputs)

    x, y = examples()
    model = kd.Distiller(
        network(8), network(4), [losses.LogitMSE(output="b"), losses.DIST(output="a")]
    )
    model.compile("sgd", {"a": SCE}, run_eagerly=True)
    assert model.train_on_batch(x, {"a": y}, return_dict=True)["logit_mse"] > 0
    model = kd.Distiller(network(8), network(4), losses.DecoupledKD(output="b"))
    model.compile("sgd", {"a": SCE}, run_eagerly=True)
    with pytest.raises(ValueError, match="DecoupledKD needs the hard labels"):
        model.train_on_batch(x, {"a": y})


def test_the_virtual_teacher_needs_no_other():
    x, y = examples()
    model = compiled(kd.Distiller(None, mlp(), losses.VirtualTeacher(), student_loss_weight=0.9))
    assert model.teacher is None
    student = model.student.predict(x, verbose=0)
    logs = step(model, x, y)
    u = np.full((len(y), 3), 0.005)
    u[np.arange(len(y)), y] = 0.99
    assert logs["virtual_teacher"] == pytest.approx(
        golden.soft_targets(np.log(u), student, 20), rel=1e-3
    )
    assert kd.Distiller.from_config(model.get_config()).teacher is None
    with pytest.raises(ValueError, match=r"Teacher must be a keras\.Model"):
        kd.Distiller(None, mlp(), "soft_targets")


def test_masked_tokens_are_left_out():
    def network(width):
        inputs = keras.Input((5,), dtype="int32")
        x = layers.Embedding(7, width, mask_zero=True)(inputs)
        x = layers.Dense(4, name="tokens")(x)
        return keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)))

    x = np.array([[1, 2, 3, 0, 0], [4, 5, 0, 0, 0]])
    teacher, student = network(6), network(3)
    terms = [losses.Hint("tokens", "tokens"), losses.AttentionTransfer("tokens", "tokens")]
    model = compiled(kd.Distiller(teacher, student, terms))
    t, s = (
        keras.Model(m.input, m.get_layer("tokens").output)(x).numpy() for m in (teacher, student)
    )
    logs = step(model, x, np.array([0, 1]))
    valid = x > 0
    assert logs["hint"] == pytest.approx(((t - s) ** 2).mean(-1)[valid].mean(), rel=1e-4)
    assert logs["attention_transfer"] == pytest.approx(
        feature.attention_transfer(t, s, mask=valid), rel=1e-4
    )


def test_masked_tokens_are_left_out_of_what_attention_reads():
    """Keras's `MultiHeadAttention` takes the masks off what it reads."""

    def network():
        inputs = keras.Input((5,), dtype="int32")
        x = layers.Embedding(7, 4, mask_zero=True, name="embedding")(inputs)
        for name in ("first", "second", "last"):
            x = layers.MultiHeadAttention(2, 2, name=name)(x, x)
        return keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)))

    x = np.array([[1, 2, 3, 0, 0], [4, 5, 0, 0, 0]])
    teacher, student = network(), network()
    names = ["embedding", "first", "second", "last"]
    hints = [losses.Hint(name, name, name=name) for name in names]
    model = compiled(kd.Distiller(teacher, student, [*hints, losses.Hint(names, names)]))
    expected = []
    for name in names:
        t, s = (
            keras.Model(m.input, m.get_layer(name).output)(x).numpy() for m in (teacher, student)
        )
        expected.append(((t - s) ** 2).mean(-1)[x > 0].mean())
    logs = step(model, x, np.array([0, 1]))
    assert [logs[name] for name in names] == pytest.approx(expected, rel=1e-4)
    assert logs["hint"] == pytest.approx(sum(expected), rel=1e-4)


def test_a_memory_bank_finds_its_examples_by_their_numbers():
    x, y = images()
    loss = losses.ContrastiveDistillation("pool", "pool", 4, bank_size=COUNT, negatives=6)
    model = kd.Distiller(cnn(4), cnn(2), loss, teacher_inputs="image", student_inputs="image")
    compiled(model)
    before = [np.array(bank) for bank in loss.banks]
    model.fit({"image": x, "index": np.arange(COUNT)}, y, batch_size=4, verbose=0)
    moved = [(np.array(a) != b).any(-1) for a, b in zip(loss.banks, before, strict=True)]
    assert all(each.all() for each in moved)
    np.testing.assert_allclose(np.linalg.norm(loss.banks[0], axis=-1), 1, rtol=1e-5)
    before = np.array(loss.banks[1])
    step(model, {"image": x[:2], "index": np.array([5, 3])}, y[:2])
    changed = (np.array(loss.banks[1]) != before).any(-1)
    assert changed.nonzero()[0].tolist() == [3, 5]
    with pytest.raises(ValueError, match="put them into the batch under the key 'index'"):
        step(model, {"image": x}, y)
    for wrong in (-1, COUNT):
        with pytest.raises(ValueError, match=f"bank_size={COUNT}, .* the example number {wrong}"):
            step(model, {"image": x[:1], "index": np.array([wrong])}, y[:1])


def test_rows_of_a_memory_bank_of_the_same_class_are_no_negatives():
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 6, 3)).astype("float32")
    labels, index = np.array([0, 0, 0, 1, 1, 1]), np.arange(6)
    weights = np.array([1, 1, 1, 1, 1, 0], "float32")
    loss = losses.ContrastiveDistillation(dimensions=4, bank_size=6, negatives=500, momentum=1.0)
    loss.compute_loss(teacher, student, labels, weights, indices=index)
    assert loss.classes.numpy()[:5].tolist() == [0, 0, 0, 1, 1]
    assert loss.classes.numpy()[5] < 0  # of weight 0: not seen
    loss.compute_loss(teacher, student, labels, indices=index)

    def of(classes):
        loss.classes.assign(classes)
        return float(loss.compute_loss(teacher, student, np.zeros(6), indices=index))

    none, all_rows = of(np.zeros(6)), of(np.ones(6))
    in_batch = losses.ContrastiveDistillation(dimensions=4)
    in_batch.build_for([(teacher, student, None)])
    for ours, theirs in zip(
        (in_batch.of_teacher, in_batch.of_student), (loss.of_teacher, loss.of_student), strict=True
    ):
        ours.set_weights(theirs.get_weights())
    alone = float(in_batch.compute_loss(teacher, student, np.zeros(6)))
    assert none == pytest.approx(alone, abs=1e-6)  # nothing else of the batch or bank is a negative
    assert all_rows > none + 1


@pytest.mark.parametrize(
    ("labels", "like"),
    [
        (np.array([0.1, 0.7, 0.1, 0.9], "float32"), None),  # to be regressed
        (
            np.array([[1, 1, 0], [0, 1, 1], [1, 1, 0], [0, 0, 0]], "float32"),
            None,
        ),  # several at once
        (np.array([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1], [0.5, 0.5]], "float32"), None),  # shares
        (np.array([-1, -1, -1, -1]), None),  # of no class
        (np.eye(3, dtype="int32")[[0, 1, 0, 2]], [0, 1, 0, 2]),
        (np.eye(3, dtype="float32")[[0, 1, 0, 2]], [0, 1, 0, 2]),
        (np.array([[0.0], [1.0], [0.0], [2.0]], "float32"), [0, 1, 0, 2]),
    ],
)
def test_what_names_no_class_leaves_out_no_negatives(labels, like):
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 4, 3)).astype("float32")
    loss = losses.ContrastiveDistillation(dimensions=4)
    found = loss.compute_loss(teacher, student, labels)
    assert float(found) == float(loss.compute_loss(teacher, student, like and np.array(like)))
    assert float(found) > 0.1


def test_nan_in_an_inner_layer_of_the_teacher_is_told():
    x, y = images()
    teacher = cnn(4)
    # The maximum with 0 of NaN is 0 in the ReLU behind it.
    teacher.get_layer("norm0").beta.assign(np.full(4, np.nan, "float32"))
    loss = losses.Hint("norm0", "stage0")
    model = kd.Distiller(teacher, cnn(2), loss)
    model.compile("sgd", SCE)
    with pytest.raises(ValueError, match="the teacher answers NaN in 8 of 8 examples"):
        model.fit(x, y, verbose=0)


def test_labels_for_each_pixel_and_lists_of_outputs():
    inputs = keras.Input((4, 4, 3))

    def network():
        x = layers.Conv2D(4, 3, padding="same")(inputs)
        classes = layers.Conv2D(CLASSES, 1, name="classes")(x)
        return keras.Model(inputs, [classes, layers.Conv2D(4, 1, name="boxes")(x)])

    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, 4, 4, 3)).astype("float32")
    y = rng.integers(0, CLASSES, (2, 4, 4))
    boxes = rng.normal(size=(2, 4, 4, 4)).astype("float32")
    teacher, student = network(), network()
    terms = [
        losses.SoftTargets(output="classes"),
        losses.DecoupledKD(output="classes"),
        losses.ChannelWise(output="classes"),
        losses.LogitMSE(output="boxes"),
    ]
    model = kd.Distiller(teacher, student, terms, example_weighting=None)
    model.compile("sgd", [SCE, "mse"], run_eagerly=True)
    (t, t_boxes), (s, s_boxes) = (m.predict(x, verbose=0) for m in (teacher, student))
    logs = model.train_on_batch(x, [y, boxes], return_dict=True)
    assert logs["soft_targets"] == pytest.approx(golden.soft_targets(t, s, 4.0), rel=1e-4)
    assert logs["decoupled_kd"] == pytest.approx(golden.decoupled_kd(t, s, y), rel=1e-4)
    assert logs["logit_mse"] == pytest.approx(((t_boxes - s_boxes) ** 2).sum(-1).mean(), rel=1e-4)
    assert logs["channel_wise"] == pytest.approx(feature.channel_wise(t, s), rel=1e-4)


def test_the_summary_shows_what_teaches_what():
    terms = [losses.Hint("stage1", "stage1"), "soft_targets"]
    model = kd.Distiller(
        cnn(4), cnn(2), terms, distillation_loss_weights=[100, 1], student_loss_weight=0.2
    )
    lines: list[str] = []
    model.summary(print_fn=lines.append, line_length=120)
    text = " ".join("".join(lines).split())
    for part in (
        "hint │ 80 │ stage1 │ stage1 │ Connector │ 48 │ │ │ │ 4×4×8 │ 4×4×4 │ │ │",
        "soft_targets │ 0.8",
    ):
        assert part in text
    assert f"{model.student.count_params():,} parameters" in text
