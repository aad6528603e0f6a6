"""One training, its state file, and its progress."""

import keras
import numpy as np
import pytest

import keras_distill as kd
from keras_distill import data, epoch
from keras_distill.app import training
from keras_distill.app.progress import Progress
from tests.keras_distill.networks import equal_weights, weights_of


def network(classes=2):
    """A classifier of 4×4 pixels with Dropout, compiled: momenta and seeds to lose."""
    keras.utils.set_random_seed(3)
    x = inputs = keras.Input((4, 4, 1))
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(x))
    model = keras.Model(inputs, keras.layers.Dense(classes, activation="softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.fixture(scope="module")
def train():
    rng = np.random.default_rng(0)
    return data.arrays(rng.normal(size=(24, 4, 4, 1)).astype("float32"), np.arange(24) % 2, 8)


def test_in_parts_it_is_the_training_in_one(train, tmp_path):
    whole, parts = network(), network()
    expected = training.fit(whole, train, train, 3, "whole")
    training.fit(parts, train, train, 1, "first", state=tmp_path / "state.npz")
    again = network()
    keras.utils.set_random_seed(99)  # what goes on need not know the seed
    history = training.fit(again, train, train, 3, "rest", state=tmp_path / "state.npz")
    assert history == expected
    assert len(history["val_accuracy"]) == 3
    assert equal_weights(weights_of(again), weights_of(whole))
    assert [file.name for file in tmp_path.iterdir()] == ["state.npz"]


def test_what_is_done_is_not_done_again(train, tmp_path, monkeypatch):
    first, second = network(), network()
    history = training.fit(first, train, train, 2, "", first_epoch=5, state=tmp_path / "s.npz")
    epoch.begin(0)
    monkeypatch.setattr(second, "fit", None)
    again = training.fit(second, train, train, 2, "", first_epoch=5, state=tmp_path / "s.npz")
    assert again == history
    assert equal_weights(weights_of(second), weights_of(first))
    assert (
        int(epoch.variable()) == int(epoch.view()) == 6
    )  # what follows sees the data of the last epoch, either way


def test_a_student_that_is_done_knows_what_range_it_learned_from(train, tmp_path):
    def distiller():
        teacher, student = network(), network()
        model = kd.Distiller(teacher, student, "soft_targets")
        model.compile(keras.optimizers.Adam(), loss="sparse_categorical_crossentropy")
        return model

    first, second = distiller(), distiller()
    training.fit(first, train, None, 2, "", state=tmp_path / "s.npz")
    training.fit(second, train, None, 2, "", state=tmp_path / "s.npz")
    ((low, high),) = second.student.recorded_input_ranges
    assert low < -1 < 1 < high
    assert second.student.recorded_input_ranges == first.student.recorded_input_ranges
    assert equal_weights(weights_of(second.student), weights_of(first.student))


def test_a_state_that_cannot_be_used_says_what_to_remove(train, tmp_path):
    state = tmp_path / "state.npz"
    training.fit(network(), train, train, 1, "", state=state)
    before = weights_of(other := network(classes=3))
    with pytest.raises(ValueError, match=r"state.npz holds the state of another model: remove"):
        training.fit(other, train, train, 2, "", state=state)
    assert equal_weights(weights_of(other), before)
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"state.npz is damaged: remove it, and this training"):
        training.fit(network(), train, train, 2, "", state=state)


def test_the_earlier_state_stays_when_a_later_one_cannot_be_written(train, tmp_path, monkeypatch):
    state = tmp_path / "state.npz"
    training.fit(network(), train, train, 1, "", state=state)
    before = state.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device", "state.npz")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        training.fit(network(), train, train, 2, "", state=state)
    assert state.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["state.npz"]


def test_progress_goes_on_at_its_epoch(capsys):
    with Progress("Student", epochs=4, steps_per_epoch=2, epochs_done=2) as progress:
        assert (progress.done, progress.total) == (4, 8)
        for _ in range(2):
            progress.step()
        progress.epoch({"loss": 0.5})
    assert "Student 3/4  loss 0.500  0:00 left" in capsys.readouterr().err
