"""Networks that learn together."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from tests.golden.response import soft_targets, softmax
from tests.keras_distill.networks import (
    Subclassed,
    equal_weights,
    examples,
    mlp,
    weights_of,
    with_a_break,
    with_state,
)

SCE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def peers(count=3):
    keras.utils.set_random_seed(1)
    return [mlp(width=4 + i) for i in range(count)]


def compiled(model, optimizer=None, **arguments):
    optimizer = optimizer or keras.optimizers.SGD(0.1)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], **arguments)
    return model


def cross_entropy(logits, y):
    return -np.log(softmax(logits)[np.arange(len(y)), y])


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("target", ["peers", "ensemble", "best"])
def test_the_loss_is_the_sum_over_the_peers(target, share):
    x, y = examples(24)
    models = peers()
    logits = [np.asarray(model(x), "float64") for model in models]
    expected = hard = 0.0
    errors = np.stack([cross_entropy(z, y) for z in logits])
    for i, z in enumerate(logits):
        hard += errors[i].mean()
        if target == "peers":
            others = [soft_targets(o, z, 2.0) for j, o in enumerate(logits) if j != i]
            expected += np.mean(others)
        elif target == "ensemble":
            expected += soft_targets(np.mean(logits, axis=0), z, 2.0)
        else:
            best = np.stack(logits)[errors.argmin(0), np.arange(24)]
            expected += soft_targets(best, z, 2.0)
    loss = kd.losses.SoftTargets(temperature=2.0)
    model = kd.MutualDistiller(models, loss, student_loss_weight=share, target=target)
    logs = compiled(model, run_eagerly=True).train_on_batch(x, y, return_dict=True)
    assert logs["distillation_loss"] == pytest.approx(expected, rel=1e-4)
    if share:
        assert logs["student_loss"] == pytest.approx(hard, rel=1e-4)
    assert logs["loss"] == pytest.approx(share * hard + (1 - share) * expected, rel=1e-4)


@pytest.mark.parametrize(
    ("labels", "activation", "loss"),
    [(1, "sigmoid", "binary_crossentropy"), (3, None, keras.losses.BinaryCrossentropy(True))],
)
def test_the_best_peer_of_labels_that_are_each_right_or_wrong(labels, activation, loss):
    x, y = examples(24)
    y = (np.stack([y, y + 1, y * 2], -1)[:, :labels] % 2).astype("float32")
    keras.utils.set_random_seed(1)
    models = [mlp(labels, width=4 + i, activation=activation) for i in range(3)]
    model = kd.MutualDistiller(models, target="best")
    model.compile("sgd", loss)
    answers = model.forward(x, training=False).each
    logits = np.stack([np.asarray(one.logits, "float64") for one in answers])
    errors = np.sum(np.logaddexp(0, -logits * (2 * y - 1)), axis=-1)
    assert len(set(errors.argmin(0))) > 1
    (target,) = model._targets_of(0, answers, y)
    best = logits[errors.argmin(0), np.arange(24)]
    np.testing.assert_allclose(target.logits, best, rtol=1e-5)
    (target,) = model._targets_of(0, answers, np.full_like(y, -1))
    np.testing.assert_allclose(target.logits, logits.mean(0), rtol=1e-4, atol=1e-6)


def test_targets_are_detached():
    x, y = examples(24)
    models = peers(2)
    before = [weights_of(model) for model in models]
    loss = kd.losses.SoftTargets(temperature=1.0)
    model = kd.MutualDistiller(models, loss, student_loss_weight=0)
    compiled(model).train_on_batch(x, y)
    for i in (0, 1):
        alone, other = peers(2)[i], peers(2)[1 - i]
        assert equal_weights(weights_of(alone), before[i])
        by_hand = kd.Distiller(other, alone, kd.losses.SoftTargets(1.0), student_loss_weight=0)
        compiled(by_hand).train_on_batch(x, y)
        for found, expected in zip(weights_of(models[i]), weights_of(alone), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_history_shows_each_peer_and_the_ensemble(monkeypatch):
    x, y = examples(24)
    model = compiled(kd.MutualDistiller({"small": mlp(width=4), "large": mlp(width=8)}))
    history = model.fit(x, y, validation_data=(x, y), epochs=2, verbose=0).history
    for name in ("small", "large", "ensemble"):
        assert f"{name}_accuracy" in history
        assert f"val_{name}_accuracy" in history
    assert "val_distillation_loss" not in history
    found = model.evaluate(x, y, verbose=0, return_dict=True)
    logits = {name: np.asarray(peer(x)) for name, peer in model.peers.items()}
    together = sum(logits.values()) / 2
    for name, z in {**logits, "ensemble": together}.items():
        assert found[f"{name}_accuracy"] == pytest.approx((z.argmax(-1) == y).mean())
    for name, z in logits.items():
        assert found[f"{name}_loss"] == pytest.approx(cross_entropy(z, y).mean(), rel=1e-4)
    best = min(logits, key=lambda name: found[f"{name}_loss"])
    assert model.best_peer() is model.peers[best]
    monkeypatch.setattr(model.best_peer(), "export", lambda path: path)
    assert model.export("folder") == "folder"
    predicted = model.predict(x, verbose=0)
    np.testing.assert_allclose(predicted["ensemble"], together, rtol=1e-5)


def test_peers_that_end_differently():
    x, y = examples(24)
    probabilities = mlp(width=4, activation="softmax")
    model = compiled(kd.MutualDistiller([probabilities, mlp(width=8)]))
    logs = model.train_on_batch(x, y, return_dict=True)
    assert np.isfinite(logs["loss"])
    assert np.allclose(np.sum(model.predict(x, verbose=0)["ensemble"], -1), 1, atol=1e-5)


def test_a_peer_whose_end_is_not_known_is_looked_at():
    x, y = examples(24)
    ends = Subclassed(activation="softmax")
    ends(x)
    model = compiled(kd.MutualDistiller([ends, mlp()]))
    with pytest.raises(ValueError, match="Pass activation='softmax'"):
        model.fit(x, y, verbose=0)
    model = compiled(kd.MutualDistiller([ends, mlp()], activation=["softmax", "auto"]))
    assert np.isfinite(model.fit(x, y, verbose=0).history["loss"][0])


def test_an_optimizer_for_each_peer():
    x, y = examples(24)
    rates = [0.1, 0.0]
    model = kd.MutualDistiller(peers(2))
    compiled(model, [keras.optimizers.Adam(rate) for rate in rates])
    before = [weights_of(peer) for peer in model.peers.values()]
    model.fit(x, y, verbose=0)
    same = [
        equal_weights(weights_of(peer), old)
        for peer, old in zip(model.peers.values(), before, strict=True)
    ]
    assert same == [False, True]
    model.optimizer.learning_rate = 0.01
    assert [float(one.learning_rate) for one in model.optimizer.optimizers] == pytest.approx(
        [0.01, 0.01]
    )
    with pytest.raises(ValueError, match="There are 1 optimizers for 2 peers"):
        compiled(kd.MutualDistiller(peers(2)), [keras.optimizers.Adam()])


def test_weights_of_the_peers_losses():
    x, y = examples(24)
    models = peers(2)
    model = kd.MutualDistiller(models, student_loss_weight=1)
    # In the order of `keras.Model.compile`.
    model.compile("sgd", SCE, [1.0, 3.0], ["accuracy"], run_eagerly=True)
    expected = [cross_entropy(np.asarray(one(x), "float64"), y).mean() for one in models]
    found = model.evaluate(x, y, verbose=0, return_dict=True)
    assert found["student_loss"] == pytest.approx(expected[0] + 3 * expected[1], rel=1e-4)
    assert found["peer_1_loss"] == pytest.approx(expected[1], rel=1e-4)


def test_averages_of_weights_are_taken_at_the_end():
    x, y = examples(24)
    averages = []

    class Note(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            optimizer = self.model.optimizer.optimizers[0]
            averages.extend(map(np.array, optimizer._model_variables_moving_average))

    model = kd.MutualDistiller(peers(2))
    averaging = keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.9)
    compiled(model, [averaging, keras.optimizers.SGD(0.5)], run_eagerly=True)
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[Note()])
    assert equal_weights(weights_of(model.peers["peer_0"]), averages)


@pytest.mark.parametrize(
    ("several", "kinds"), [(False, ["save"]), (True, ["save_weights", "resume"])]
)
def test_saved_and_resumed_it_goes_on(tmp_path, several, kinds):
    x, y = examples(24)

    def make():
        keras.utils.set_random_seed(3)
        model = kd.MutualDistiller([with_state(), mlp(width=6)])
        adams = [keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.1, momentum=0.9)]
        return compiled(model, adams if several else adams[0])

    whole, others = with_a_break(kinds, make, x, y, tmp_path)
    for again in others:
        for found, expected in zip(again.peers.values(), whole.peers.values(), strict=True):
            assert equal_weights(weights_of(found), weights_of(expected))


def test_sample_weights_and_regularisation_count():
    x, y = examples(24)
    regular = mlp(width=4, kernel_regularizer=keras.regularizers.L2(0.1))
    model = compiled(kd.MutualDistiller([regular, mlp(width=8)]))
    penalty = float(sum(regular.losses))
    logs = model.train_on_batch(x, y, sample_weight=np.zeros(24), return_dict=True)
    assert logs["loss"] == pytest.approx(penalty, rel=1e-4)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: kd.MutualDistiller([mlp()]), "at least two keras.Models"),
        (lambda: kd.MutualDistiller("resnet8"), "at least two keras.Models, .* got"),
        (lambda: kd.MutualDistiller([mlp(), mlp(classes=4)]), "one output of the same shape"),
        (lambda: kd.MutualDistiller([mlp(), mlp(features=5)]), r"of the inputs .*4.* and .*5"),
        (lambda: kd.MutualDistiller({"ensemble": mlp(), "a": mlp()}), "cannot be named 'ensemble'"),
        (lambda: kd.MutualDistiller({"student": mlp(), "a": mlp()}), "cannot be named 'student'"),
        (lambda: kd.MutualDistiller({"total": mlp(), "a": mlp()}), "cannot be named 'total'"),
        (lambda: kd.MutualDistiller({"val_a": mlp(), "a": mlp()}), "cannot be named 'val_a'"),
        (lambda: kd.MutualDistiller({1: mlp(), 2: mlp()}), "names that are strings, got 1"),
        (
            lambda: kd.MutualDistiller([mlp(), mlp()], activation=["linear"]),
            r"activation=\['linear'\] must have one for each of \['peer_0', 'peer_1'\]",
        ),
        (
            lambda: kd.MutualDistiller([mlp(), mlp()], activation={"peer_0": "linear"}),
            "must have one for each of",
        ),
        (
            lambda: kd.MutualDistiller(peers(2)).compile("sgd", "mse", [1.0]),
            r"loss_weights=\[1.0\] must have one for each of",
        ),
        (lambda: kd.MutualDistiller(peers(2)).export("folder"), "No peer was measured"),
        (lambda: kd.MutualDistiller([mlp(), mlp()], target="all"), "give one of 'peers'"),
        (
            lambda: kd.MutualDistiller([mlp(), mlp()], kd.losses.Hint("hidden", "hidden")),
            "and Hint reads something else",
        ),
        (lambda: kd.MutualDistiller([mlp(), mlp()]).compile("sgd"), "'loss' cannot be `None`"),
        (lambda: kd.MutualDistiller([mlp(), mlp()]).best_peer(), "No peer was measured"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_labels_may_be_missing():
    x, y = examples(24)
    model = compiled(kd.MutualDistiller(peers(2), student_loss_weight=0), run_eagerly=True)
    history = model.fit(x, validation_data=(x, y), epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert "val_peer_0_accuracy" in history
    assert not {"peer_0_accuracy", "ensemble_accuracy", "peer_0_loss"} & set(history)
    model = kd.MutualDistiller(peers(2), student_loss_weight=0, target="best")
    model.compile("sgd")
    with pytest.raises(ValueError, match="chooses by the labels, and there are none"):
        model.fit(x, verbose=0)


def test_a_step_is_traced_once():
    class Counted(kd.MutualDistiller):
        traces = 0

        def forward(self, x, training):
            self.traces += training
            return super().forward(x, training)

    model = compiled(Counted(peers(2)), [keras.optimizers.Adam(), keras.optimizers.SGD()])
    model.fit(*examples(24), batch_size=8, verbose=0)
    assert model.traces == 1
