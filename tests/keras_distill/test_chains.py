"""Chains of assistants and generations."""

import itertools

import keras
import numpy as np
import pytest

import keras_distill as kd
from keras_distill.begun_with import describe, differences
from tests.keras_distill.networks import equal_weights, examples, mlp, weights_of, with_state


class Eager(kd.Distiller):
    """Nothing is compiled, which for a few steps takes longer than they do."""

    def compile(self, *args, **kwargs):
        super().compile(*args, run_eagerly=True, **kwargs)


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    monkeypatch.setattr("keras_distill.chains.Distiller", Eager)


class Kill(keras.callbacks.Callback):
    """Ends the training of one network in its second epoch."""

    def __init__(self, student):
        super().__init__()
        self.student = student

    def on_epoch_end(self, epoch, logs=None):
        if self.model.student is self.student and epoch == 1:
            raise InterruptedError


class Count(keras.callbacks.Callback):
    """Counts epochs."""

    epochs = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs += 1


SCE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def networks():
    keras.utils.set_random_seed(1)
    return [mlp(width=16), with_state(), mlp(width=4)]


def chained(models, folder=None, **arguments):
    arguments = {"loss": SCE, "epochs": 3, "verbose": 0, "batch_size": 8} | arguments
    keras.utils.set_random_seed(2)  # of the order of the data
    return kd.distill_chain(models, *examples(24), folder=folder, **arguments)


def test_each_network_teaches_the_next():
    models = networks()
    start = [weights_of(model) for model in models]
    histories = chained(models, optimizer=keras.optimizers.Adam(0.01), metrics=["accuracy"])
    assert equal_weights(weights_of(models[0]), start[0])
    assert [set(h) >= {"soft_targets", "accuracy"} for h in histories] == [True, True]
    by_hand = networks()
    keras.utils.set_random_seed(2)
    for teacher, student in itertools.pairwise(by_hand):
        model = Eager(teacher, student, "soft_targets")
        model.compile(keras.optimizers.Adam(0.01), SCE)
        model.fit(*examples(24), batch_size=8, epochs=3, verbose=0)
    for found, expected in zip(models, by_hand, strict=True):
        for a, b in zip(weights_of(found), weights_of(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert models[1].trainable


def test_a_killed_chain_goes_on(tmp_path):
    whole, killed, again = networks(), networks(), networks()
    expected = chained(whole, tmp_path / "whole")
    with pytest.raises(InterruptedError):
        chained(killed, tmp_path / "killed", callbacks=Kill(killed[2]))
    found = chained(again, tmp_path / "killed")
    assert found == expected
    assert equal_weights(weights_of(again[2]), weights_of(whole[2]))


def test_what_is_done_is_not_trained_again(tmp_path):
    def stopped(models, *callbacks):
        stop = keras.callbacks.EarlyStopping("loss", min_delta=9.0, restore_best_weights=True)
        return chained(models, tmp_path, epochs=6, callbacks=[stop, *callbacks])

    count = Count()
    whole, again = networks(), networks()
    expected = stopped(whole)
    assert [len(history["loss"]) for history in expected] == [2, 2]
    assert stopped(again, count) == expected
    assert count.epochs == 0
    for first, second in zip(whole, again, strict=True):
        assert equal_weights(weights_of(first), weights_of(second))


def test_a_training_that_was_begun_otherwise_is_refused(tmp_path):
    chained(networks()[:2], tmp_path, epochs=1)
    other = networks()[:2]
    other[0].layers[-1].bias.assign([1.0, 2.0, 3.0])
    for models, arguments, sentence in (
        (other, {}, "teacher was Functional with the weights .*, is now Functional with"),
        ([networks()[0], mlp(width=4)], {}, "student was Functional .*, is now Functional"),
        (None, {"student_loss_weight": 0.25}, r"student_loss_weight was 0\.5, is now 0\.25"),
        (None, {"distillation_losses": kd.losses.SoftTargets(2.0)}, "distillation_losses was soft"),
        (None, {"optimizer": keras.optimizers.SGD(0.1)}, "optimizer was adam, is now"),
        (None, {"epochs": 2}, r"epochs was 1, is now 2\. Give the first arguments, or another"),
        (None, {"class_weight": {0: 2.0}}, "class_weight was not given, is now"),
    ):
        with pytest.raises(ValueError, match=f"npz is of a training.* otherwise: {sentence}"):
            chained(models or networks()[:2], tmp_path, **{"epochs": 1, **arguments})
    x, y = examples(24)
    arguments = {"loss": SCE, "epochs": 1, "batch_size": 8, "verbose": 0, "folder": tmp_path}
    with pytest.raises(
        ValueError, match=r"otherwise: y was int32 \(24,\) .*, is now int32 \(24,\)"
    ):
        kd.distill_chain(networks()[:2], x, 2 - y, **arguments)


def test_layers_stay_as_trainable_as_they_were():
    models = networks()
    teacher, assistant, student = models
    teacher.layers[1].trainable = assistant.layers[1].trainable = False
    assistant.layers[-1].bias.trainable = False

    def flags():
        layers = [layer.trainable for model in models for layer in (model, *model.layers)]
        return layers, [weight.trainable for model in models for weight in model.weights]

    before = flags()
    with pytest.raises(InterruptedError):
        chained(models, epochs=2, callbacks=Kill(student))
    assert flags() == before
    weights = weights_of(assistant)
    chained(models, epochs=1)
    assert flags() == before
    same = [np.array_equal(a, b) for a, b in zip(weights_of(assistant), weights, strict=True)]
    frozen = [w is assistant.layers[-1].bias for w in assistant.weights]
    assert same == [True, True, *frozen[2:]]


@pytest.mark.filterwarnings("ignore:.*weights of its own")
def test_objects_that_remember_are_copied_and_no_class_must_be_registered():
    class Own(kd.losses.DistillationLoss):
        def compute_loss(self, teacher_outputs, student_outputs, labels=None, sample_weight=None):
            return keras.ops.mean((teacher_outputs - student_outputs) ** 2)

    class Hard(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return keras.ops.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)

    hint = kd.losses.Hint("hidden", "hidden")
    models = [mlp(width=16), mlp(width=8), mlp(width=4)]
    optimizer = keras.optimizers.SGD(0.1)
    own = {"distillation_losses": ["soft_targets", hint, Own()], "loss": Hard()}
    chained(models, optimizer=optimizer, epochs=1, **own)
    assert not hint.built
    assert not optimizer.built


@pytest.mark.parametrize("taught", [False, True])
def test_generations(taught):
    made = []

    def build():
        made.append(mlp(width=4))
        return made[-1]

    teacher = mlp(width=16) if taught else None
    students = kd.born_again(
        build, *examples(24), generations=2, teacher=teacher, loss=SCE, epochs=2, verbose=0
    )
    assert students == made
    assert len(students) == 2 + (not taught)
    assert all(student.trainable for student in students)
    ensemble = kd.teachers.Ensemble(students)
    assert ensemble.targets(examples(24)[0]).logits.shape == (24, 3)


def test_generations_can_be_added(tmp_path):
    count = Count()
    arguments = {"loss": SCE, "epochs": 1, "verbose": 0, "folder": tmp_path, "callbacks": count}
    first = kd.born_again(with_state, *examples(24), generations=1, **arguments)
    more = kd.born_again(with_state, *examples(24), generations=2, **arguments)
    assert count.epochs == 3
    for one, same in zip(first, more[:2], strict=True):
        assert equal_weights(weights_of(one), weights_of(same))


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(ValueError, match="a trained teacher and at least one network"):
        chained([mlp()])
    with pytest.raises(ValueError, match="at least one network to train, got one network"):
        chained(mlp())
    one = mlp()
    with pytest.raises(ValueError, match="got the same one again"):
        kd.born_again(lambda: one, *examples(8), generations=1, loss=SCE, verbose=0)
    with pytest.raises(ValueError, match="generations must be a whole number"):
        kd.born_again(mlp, *examples(8), generations=0, loss=SCE)


def test_a_history_out_of_a_folder_has_the_columns_of_validation(tmp_path):
    arguments = {
        "validation_data": examples(4),
        "validation_freq": 2,
        "batch_size": 24,
        "epochs": 2,
    }
    (kept,) = chained(plain(), tmp_path, **arguments)
    (expected,) = chained(plain(), **arguments)
    assert kept == expected
    assert len(kept["val_loss"]) == 1


def plain(count=2):
    keras.utils.set_random_seed(1)
    return [mlp(width=width) for width in (16, 8, 4)[:count]]


def test_a_checkpoint_is_of_one_training(tmp_path):
    def checkpoint(number):
        name = str(tmp_path / f"{number}.weights.h5")
        return kd.callbacks.StudentCheckpoint(
            name, monitor="loss", save_best_only=True, save_weights_only=True
        )

    def few(models, given):
        return chained(models, epochs=1, batch_size=24, callbacks=given)

    one = checkpoint("all")
    for given in (one, [one], lambda i: one):
        with pytest.raises(ValueError, match=r"give callbacks= a function from a network's number"):
            few(plain(3), given)
    few(plain(), one)  # there is but one training
    models = plain(3)
    few(models, lambda i: [checkpoint(i)])
    for number in (1, 2):
        kept = plain(3)[number]
        kept.load_weights(tmp_path / f"{number}.weights.h5")
        assert equal_weights(weights_of(kept), weights_of(models[number]))
    seen = []
    kd.born_again(
        mlp, *examples(8), generations=1, loss=SCE, verbose=0, callbacks=seen.append, teacher=mlp()
    )
    assert seen == [0]


@pytest.mark.parametrize("key", ["name", "seed", "text"])
def test_inputs_of_any_name_are_compared_and_names_of_layers_are_not(key):
    first, second = ({"x": {key: np.full(3, i), "tokens": np.ones(3)}} for i in (0, 1))
    assert differences(describe(first), describe(second))
    first, second = ({"student": mlp(name=name)} for name in ("first", "second"))
    assert not differences(describe(first), describe(second))
