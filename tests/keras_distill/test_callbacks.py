"""Callbacks: what was killed goes on where it was, and what is kept is the student."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from keras_distill import training_state
from tests.keras_distill.networks import equal_weights, examples, mlp, weights_of, with_state


class Killed(Exception):
    pass


class KillIn(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.now == self.epoch and batch == 1:
            raise Killed


def distiller(run_eagerly=False):
    keras.utils.set_random_seed(5)
    student = with_state()
    model = kd.Distiller(mlp(width=16), student, kd.losses.Hint("hidden", student.layers[1].name))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, run_eagerly=run_eagerly)
    return model


def plain():
    keras.utils.set_random_seed(5)
    model = with_state()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    return model


@pytest.mark.parametrize("make", [distiller, plain])
def test_resume_ends_bit_identical(make, tmp_path):
    file = tmp_path / "state.npz"

    def fit(model, *callbacks):
        # A plain model's arrays are shuffled by Keras, which no seed of ours reaches.
        shuffle = make is distiller
        return model.fit(*examples(24), 8, 4, shuffle=shuffle, verbose=0, callbacks=list(callbacks))

    whole = make()
    expected = fit(whole).history
    for kill in (0, 2, 3):
        model = make()
        with pytest.raises(Killed):
            fit(model, kd.callbacks.Resume(file), KillIn(kill))
        assert file.exists() == (kill > 0)
    last, resume = make(), kd.callbacks.Resume(file)
    keras.utils.set_random_seed(99)  # what goes on need not know the seed
    fit(last, resume)
    assert equal_weights(weights_of(last), weights_of(whole))
    assert resume.history == expected
    assert list(tmp_path.iterdir()) == []


def test_resume_refuses_what_is_damaged_or_of_another_model(tmp_path):
    file = tmp_path / "state.npz"
    model = distiller(run_eagerly=True)
    model.fit(*examples(8), verbose=0, callbacks=[kd.callbacks.Resume(file, delete=False)])
    whole = file.read_bytes()
    with pytest.raises(ValueError, match=r"state.npz holds the state of another model: remove it"):
        plain().fit(*examples(8), verbose=0, callbacks=[kd.callbacks.Resume(file)])
    waiting = kd.Distiller(mlp(), keras.Sequential([keras.layers.Dense(3)]), "soft_targets")
    waiting.compile("adam", "mse")
    with pytest.raises(
        ValueError, match=r"distiller has layers that have none yet: give them a keras"
    ):
        training_state.restore(waiting, file)
    entry = whole.index(b"PK\x01\x02")
    flags, method = (
        entry + 8,
        entry + 10,
    )  # an encrypted entry, or one compressed in a way not known
    damaged = [whole[: len(whole) // 2]]
    damaged += [
        whole[:at] + bytes([wrong]) + whole[at + 1 :] for at, wrong in ((flags, 1), (method, 99))
    ]
    for content in damaged:
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"state.npz is damaged: remove it"):
            training_state.restore(model, file)


def test_resume_trains_more_epochs_when_asked_and_not_fewer(tmp_path):
    file = tmp_path / "state.npz"
    done = []
    for epochs in (1, 3, 2):
        resume = kd.callbacks.Resume(file, delete=False)
        model = distiller(run_eagerly=True)
        fitted = model.fit(*examples(8), epochs=epochs, verbose=0, callbacks=[resume])
        done.append(len(fitted.history.get("loss", [])))
    assert done == [1, 2, 0]
    assert len(resume.history["loss"]) == 3
    assert np.isfinite(resume.history["loss"]).all()
