"""A network that is its own teacher."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_distill as kd
from tests.golden.response import soft_targets, softmax
from tests.keras_distill.networks import Subclassed, equal_weights, weights_of, with_a_break

SCE = "sparse_categorical_crossentropy"


def cnn(activation=None):
    """Three stages of maps: "stage0" 16×16, "stage1" 8×8, "stage2" 4×4."""
    keras.utils.set_random_seed(2)
    x = inputs = keras.Input((16, 16, 3))
    for stage in range(3):
        x = layers.Conv2D(4 * 2**stage, 3, strides=2 if stage else 1, padding="same")(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU(name=f"stage{stage}")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3, activation=activation)(x))


def images(count=12):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 16, 16, 3)).astype("float32"), np.arange(count) % 3


def compiled(model, rate=0.05, **arguments):
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), SCE, metrics=["accuracy"], **arguments)
    return model


def test_auto_exits_are_the_ends_of_stages():
    assert kd.SelfDistiller(cnn()).exits == ["stage0", "stage1"]


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_the_loss_is_that_of_the_paper(activation):
    x, y = images()
    model = kd.SelfDistiller(cnn(activation), student_loss_weight=0.7, feature_weight=0.5)
    said = model.forward(x, training=True)
    logits = {name: np.asarray(z, "float64") for name, z in said.logits.items()}
    features = {name: np.asarray(f) for name, f in said.inner.items()}
    hard = sum(-np.log(softmax(z)[np.arange(12), y]).mean() for z in logits.values())
    end = logits.pop("final")
    soft = sum(soft_targets(end, z, 3.0) for z in logits.values())
    squares = sum(
        ((features[name] - features["final"]) ** 2).mean() for name in ("exit_1", "exit_2")
    )
    model = kd.SelfDistiller(cnn(activation), student_loss_weight=0.7, feature_weight=0.5)
    for head, other in zip(model._exit_heads, _heads_of(activation), strict=True):
        head.set_weights(other)
    compiled(model, rate=0.0, run_eagerly=True)
    logs = model.train_on_batch(x, y, return_dict=True)
    assert logs["student_loss"] == pytest.approx(hard, rel=1e-3)
    assert logs["distillation_loss"] == pytest.approx(soft + 0.5 * squares, rel=1e-3)
    assert logs["loss"] == pytest.approx(0.7 * hard + 0.3 * (soft + 0.5 * squares), rel=1e-3)


def _heads_of(activation):
    return [
        head.get_weights()
        for head in kd.SelfDistiller(cnn(activation), feature_weight=0.5)._exit_heads
    ]


def test_the_end_is_not_taught_by_the_exits():
    x, y = images()
    model = kd.SelfDistiller(cnn(), student_loss_weight=0.0)
    top = weights_of(model.student.layers[-1])
    compiled(model).train_on_batch(x, y)
    assert equal_weights(weights_of(model.student.layers[-1]), top)
    assert any(np.abs(w).max() > 0 for w in weights_of(model._exit_heads[0]))


def test_history_shows_each_exit_and_the_student_has_none():
    x, y = images()
    model = compiled(kd.SelfDistiller(cnn()))
    before = model.student.count_params()
    history = model.fit(x, y, validation_data=(x, y), epochs=2, verbose=0).history
    for name in ("exit_1", "exit_2", "final"):
        assert f"val_{name}_accuracy" in history
    assert {"soft_targets_exit_1", "features_exit_2"} <= set(history)
    assert model.student.count_params() == before
    predicted = model.predict(x, verbose=0)
    np.testing.assert_allclose(predicted["final"], model.student.predict(x, verbose=0), rtol=1e-4)


def test_statistics_are_taken_once_in_a_step():
    x, y = images()
    model = compiled(kd.SelfDistiller(cnn()), rate=0.0)
    alone = cnn()
    alone.compile(keras.optimizers.SGD(0.0), keras.losses.SparseCategoricalCrossentropy(True))
    model.train_on_batch(x, y)
    alone.train_on_batch(x, y)
    for found, expected in zip(weights_of(model.student), weights_of(alone), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_saved_and_resumed_it_goes_on(tmp_path):
    x, y = images()

    def make():
        keras.utils.set_random_seed(3)
        return compiled(kd.SelfDistiller(cnn()))

    whole, others = with_a_break(["save", "resume"], make, x, y, tmp_path, batch_size=4)
    for again in others:
        assert equal_weights(weights_of(again.student), weights_of(whole.student))
        assert equal_weights(weights_of(again._exit_heads[0]), weights_of(whole._exit_heads[0]))


def test_exits_of_sequences_leave_out_what_is_masked():
    tokens = keras.Input((6,), dtype="int32")
    x = layers.Embedding(20, 8, mask_zero=True, name="embedded")(tokens)
    x = layers.LSTM(8, return_sequences=True, name="first")(x)
    x = layers.LSTM(6, name="second")(x)
    model = keras.Model(tokens, layers.Dense(3)(x))
    own = kd.SelfDistiller(model, exits=["first"], last="second", feature_weight=0.1)
    x = np.random.default_rng(0).integers(1, 20, (12, 6))
    x[:, 3:] = 0
    y = np.arange(12) % 3
    said = own(x)["exit_1"]
    # Zeros at the end, however many, change nothing.
    features = keras.Model(tokens, model.get_layer("first").output)(x[:, :])
    head = own._exit_heads[0]
    by_hand = head(features[:, :3], mask=np.ones((12, 3), bool))[0]
    np.testing.assert_allclose(said, by_hand, rtol=1e-4, atol=1e-6)
    assert np.isfinite(compiled(own).fit(x, y, verbose=0).history["loss"][0])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: kd.SelfDistiller("resnet8"), "takes a keras.Model, got str"),
        (lambda: kd.SelfDistiller(cnn(), exits=["stage9"]), "has no layer 'stage9'"),
        (lambda: kd.SelfDistiller(cnn(), exits=[]), "must name inner layers"),
        (lambda: kd.SelfDistiller(flat()), r"exits='auto' .* layers are \['h1', 'h2', 'h3'\]"),
        (lambda: kd.SelfDistiller(flat(), exits=["h1", "h1"]), "names a layer twice"),
        (lambda: kd.SelfDistiller(flat(), exits="h9"), "has no layer 'h9'"),
        (lambda: kd.SelfDistiller(flat(called=False), exits="h1"), "has no weights yet"),
        (
            lambda: kd.SelfDistiller(
                keras.Sequential(
                    [keras.Input((8, 8, 3)), layers.Conv2D(4, 3, name="c"), layers.Conv2D(3, 1)]
                ),
                exits="c",
                last="c",
            ),
            r"this one answers \(None, 6, 6, 3\)",
        ),
        (lambda: kd.SelfDistiller(Subclassed()), "has no weights yet"),
        (
            lambda: kd.SelfDistiller(cnn(), distillation_losses=kd.losses.PKT("stage0", "stage0")),
            "and PKT reads something else",
        ),
        (lambda: kd.SelfDistiller(cnn(), feature_weight=-1), "feature_weight must be"),
        (lambda: kd.SelfDistiller(cnn()).compile("sgd"), "'loss' cannot be `None`"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def flat(called=True):
    """Hidden layers "h1", "h2" and "h3" of 8, 6 and 5."""
    model = keras.Sequential(
        [
            layers.Dense(width, activation="relu", name=f"h{i + 1}")
            for i, width in enumerate([8, 6, 5])
        ]
        + [layers.Dense(3), layers.Softmax()]
    )
    if called:
        model(np.zeros((1, 4)))
    return model


def test_a_flat_network():
    x = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
    model = compiled(kd.SelfDistiller(flat(), exits="h1"), run_eagerly=True)
    said = model.forward(x, training=False)
    assert model.exits == ["h1"]
    assert said.inner["exit_1"].shape == said.inner["final"].shape == (12, 5)
    assert np.isfinite(model.fit(x, np.arange(12) % 3, verbose=0).history["loss"][0])


def test_a_subclassed_network_that_was_called():
    x = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
    model = Subclassed(activation="softmax")
    model(x)
    own = kd.SelfDistiller(model, exits=[model.hidden.name], activation="softmax")
    np.testing.assert_allclose(own(x)["final"], model(x), rtol=1e-5)


def test_without_labels_nothing_is_compared_with_them():
    x, _ = images()
    model = compiled(kd.SelfDistiller(cnn(), student_loss_weight=0), run_eagerly=True)
    logs = model.train_on_batch(x, return_dict=True)
    assert "distillation_loss" in logs
    assert not any("accuracy" in name for name in logs)


def test_the_model_is_exported_without_its_exits(monkeypatch):
    model = kd.SelfDistiller(cnn())
    monkeypatch.setattr(model.student, "export", lambda path, **arguments: (path, arguments))
    assert model.export("folder", format="onnx") == ("folder", {"format": "onnx"})


def test_a_layer_may_have_the_name_of_an_exit():
    def losses_of(name):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((8,))
        x = layers.Dense(6, activation="relu", name="a")(inputs)
        x = layers.Dense(6, activation="relu", name=name)(x)
        model = kd.SelfDistiller(keras.Model(inputs, layers.Dense(3)(x)), exits=["a"], last=name)
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(True), run_eagerly=True)
        x = np.random.default_rng(0).normal(size=(12, 8)).astype("float32")
        return model.train_on_batch(x, np.arange(12) % 3, return_dict=True)

    found = losses_of("exit_1")
    assert found["features_exit_1"] > 0
    assert found == losses_of("b")


def test_a_step_is_traced_once():
    class Counted(kd.SelfDistiller):
        traces = 0

        def forward(self, x, training):
            self.traces += training
            return super().forward(x, training)

    model = compiled(Counted(cnn()))
    model.fit(*images(), batch_size=4, verbose=0)
    assert model.traces == 1
