"""Callbacks: what was killed goes on where it was, and what is kept is the student."""

import contextlib

import keras
import numpy as np
import pytest

import keras_distill as kd
from keras_distill import training_state
from tests.keras_distill.networks import equal_weights, examples, mlp, weights_of, with_state

SCE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


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
    for kill in (0, 2):
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


def simple(activation=None, loss=SCE, metrics=None, rate=0.001):
    model = kd.Distiller(mlp(activation=activation), mlp(activation=activation), "soft_targets")
    model.compile(keras.optimizers.Adam(rate), loss, metrics, run_eagerly=True)
    return model


def backed_up(folder):
    return keras.callbacks.BackupAndRestore(str(folder / "backup"))


def resumed(folder):
    return kd.callbacks.Resume(folder / "state.npz")


@pytest.mark.parametrize("make", [resumed, backed_up])
def test_what_is_fitted_after_a_resumed_training_begins_at_its_beginning(make, tmp_path):
    model = simple()

    def fit(*callbacks):
        fitted = model.fit(*examples(4), 2, 2, verbose=0, callbacks=list(callbacks))
        return len(fitted.history.get("loss", []))

    for _ in range(2):  # the resumed one too
        with pytest.raises(Killed):
            fit(make(tmp_path), KillIn(1))
    assert fit() == 2
    assert fit(make(tmp_path)) == 1
    assert fit() == 2


def test_of_a_plain_model_too(tmp_path):
    model = mlp()
    model.compile("sgd", SCE, run_eagerly=True)
    done = []
    for callbacks in ([KillIn(1)], [], None):
        resume = [] if callbacks is None else [resumed(tmp_path)]
        with contextlib.suppress(Killed):
            callbacks = [*resume, *(callbacks or [])]
            fitted = model.fit(*examples(4), 2, 2, verbose=0, callbacks=callbacks)
            done.append(len(fitted.history["loss"]))
    assert done == [1, 2]


def test_weights_of_an_epoch_that_is_not_finite_are_not_kept(tmp_path, monkeypatch):
    # As under XLA and on several devices, where no step looks.
    monkeypatch.setattr("keras_distill.train_step.tensorflow._guarded", lambda *_: [])
    model = simple(rate=1e30)
    kept = keras.callbacks.ModelCheckpoint(
        str(tmp_path / "{epoch}.weights.h5"), save_weights_only=True
    )
    with pytest.raises(ValueError, match=r"The loss became nan in epoch 2"):
        model.fit(*examples(8), epochs=3, verbose=0, callbacks=[resumed(tmp_path), kept])
    progress = training_state.read_progress(tmp_path / "state.npz")
    assert progress.epochs == 1
    assert np.isfinite(progress.history["loss"]).all()
    assert [file.name for file in tmp_path.glob("*.h5")] == ["1.weights.h5"]


@pytest.mark.parametrize("often", [2, [1, 3]])
def test_the_history_has_columns_with_gaps_and_of_vectors(often, tmp_path):
    x, y = examples(4)
    y = np.eye(3, dtype="float32")[y]
    model = simple("softmax", "categorical_crossentropy", [keras.metrics.F1Score()])
    resume = kd.callbacks.Resume(tmp_path / "state.npz", delete=False)
    found = model.fit(
        x, y, epochs=3, verbose=0, validation_data=(x, y), validation_freq=often, callbacks=[resume]
    ).history
    assert set(resume.history) == set(found)
    for name, column in found.items():
        np.testing.assert_array_equal(resume.history[name], np.asarray(column, "float64"))
    assert len(found["val_f1_score"]) == (1 if often == 2 else 2)
    assert np.shape(resume.history["f1_score"]) == (3, 3)
    assert training_state.read_progress(tmp_path / "state.npz").history == resume.history
