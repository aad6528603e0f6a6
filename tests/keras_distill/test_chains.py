"""Chains of assistants and generations."""

import itertools

import keras
import numpy as np
import pytest

import keras_distill as kd
from tests.keras_distill.networks import equal_weights, examples, mlp, weights_of, with_state

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
        model = kd.Distiller(teacher, student, "soft_targets")
        model.compile(keras.optimizers.Adam(0.01), SCE)
        model.fit(*examples(24), batch_size=8, epochs=3, verbose=0)
    for found, expected in zip(models, by_hand, strict=True):
        for a, b in zip(weights_of(found), weights_of(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert models[1].trainable


def test_a_killed_chain_goes_on(tmp_path):
    class Kill(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if self.model.student is killed[2] and epoch == 1:
                raise InterruptedError

    whole, killed, again = networks(), networks(), networks()
    expected = chained(whole, tmp_path / "whole")
    with pytest.raises(InterruptedError):
        chained(killed, tmp_path / "killed", callbacks=Kill())
    found = chained(again, tmp_path / "killed")
    assert found == expected
    assert equal_weights(weights_of(again[2]), weights_of(whole[2]))


@pytest.mark.filterwarnings("ignore:.*weights of its own")
def test_losses_and_optimizers_are_copied():
    hint = kd.losses.Hint("hidden", "hidden")
    models = [mlp(width=16), mlp(width=8), mlp(width=4)]
    optimizer = keras.optimizers.SGD(0.1)
    chained(models, distillation_losses=["soft_targets", hint], optimizer=optimizer)
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


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(ValueError, match="a trained teacher and at least one network"):
        chained([mlp()])
    one = mlp()
    with pytest.raises(ValueError, match="got the same one again"):
        kd.born_again(lambda: one, *examples(8), generations=1, loss=SCE, verbose=0)
    with pytest.raises(ValueError, match="generations must be a whole number"):
        kd.born_again(mlp, *examples(8), generations=0, loss=SCE)
