"""One training whose progress is shown, and which goes on from its state file after it was killed.

    model.compile(...)
    history = fit(model, train, validation, epochs=30, title="Student", state="out/student.npz")

At the end of every epoch everything that the next epoch depends on is written into one file, beside
its place and then renamed: the variables of the model (the states of its random seeds among them) and
of its optimizer, what else the model stores of itself, how many epochs are done, and their history. A
program that is killed at any moment leaves the state of some epoch's end, whole. The data need no
state: their order and augmentation are functions of (seed, epoch), see `keras_distill.epoch`. A
training that goes on ends bit-identical.

`keras.callbacks.BackupAndRestore` does not do for this: it writes weights and the number of the epoch
into two files, in place. Killed between the two, it trains one epoch twice, and says nothing.
"""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_distill import epoch
from keras_distill.app.progress import Progress
from keras_distill.training import DistillationModel
from tflite_export.whole_file import write_whole

PROGRESS = "progress"  # the entry that is JSON
OWN = "own_"  # entries that `model.save_own_variables` gives


def fit(
    model: keras.Model,
    train,
    validation,
    epochs: int,
    title: str,
    first_epoch: int = 0,
    state: str | Path | None = None,
) -> dict[str, list[float]]:
    """Train a compiled model, and return the history of all its epochs.

    Args:
        model: compiled, with its variables made.
        train, validation: data sets as `fit` takes them.
        epochs: how many there are to be in all.
        title: of the progress bar.
        first_epoch: number of the first of them; order and augmentation follow from it.
        state: file that the training goes on from, if it is there, and is recorded in.

    Raises:
        ValueError: the file is damaged, or holds the state of another model.
        OSError: the state cannot be written. The one of the epoch before stays.
    """
    file = None if state is None else Path(state)
    done, history = (0, {}) if file is None or not file.exists() else restore(model, file)
    if done < epochs:
        with Progress(title, epochs, len(train), epochs_done=done) as progress:
            callbacks = [epoch.SetEpoch(), progress.callback]
            if file is not None:
                callbacks.append(_Record(file, done, history))
            fitted = model.fit(
                train,
                validation_data=validation,
                initial_epoch=first_epoch + done,
                epochs=first_epoch + epochs,
                shuffle=False,
                verbose=0,
                callbacks=callbacks,
            )
        history = _joined(history, fitted.history)
    # What follows reads the views of the last epoch, whether it has just been trained or was before.
    epoch.variable().assign(first_epoch + epochs - 1)
    return history


def restore(model: keras.Model, file: Path) -> tuple[int, dict[str, list[float]]]:
    """Put a recorded state into a compiled model: how many epochs are done, and their history."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    way_out = "remove it, and this training begins anew."
    try:
        with np.load(file, allow_pickle=False) as archive:
            found = dict(archive)
        progress = json.loads(str(found.pop(PROGRESS)))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} is damaged: {way_out}") from error
    present = _state(model)
    if {k: (v.shape, v.dtype) for k, v in found.items()} != {
        k: (v.shape, v.dtype) for k, v in present.items()
    }:
        raise ValueError(f"{file} holds the state of another model: {way_out}")
    for number, variable in enumerate(_variables(model)):
        variable.assign(found[f"variable_{number}"])
    own = len(OWN)
    model.load_own_variables({k[own:]: v for k, v in found.items() if k.startswith(OWN)})
    if isinstance(model, DistillationModel):
        model.after_epoch()  # it tells the student what it has seen
    return progress["epochs"], progress["history"]


def _state(model: keras.Model) -> dict[str, np.ndarray]:
    """All that the next epoch depends on; metrics start anew in each."""
    own: dict[str, Any] = {}
    model.save_own_variables(own)
    return {
        **{f"variable_{i}": np.asarray(v) for i, v in enumerate(_variables(model))},
        **{f"{OWN}{name}": np.asarray(value) for name, value in own.items()},
    }


def _variables(model: keras.Model) -> list:
    """Weights, states of the random seeds, and the optimizer's own."""
    return [*model.variables, *model.optimizer.variables]


class _Record(keras.callbacks.Callback):
    """Writes the state at the end of every epoch."""

    def __init__(self, file: Path, done: int, history: dict[str, list[float]]):
        super().__init__()
        self.file = file
        self.done = done
        self.history = history

    def on_epoch_end(self, epoch, logs=None):
        self.done += 1
        self.history = _joined(self.history, {name: [logs[name]] for name in logs})
        progress = {"epochs": self.done, "history": self.history}
        content = io.BytesIO()
        arrays: dict[str, Any] = {**_state(self.model), PROGRESS: np.array(json.dumps(progress))}
        np.savez(content, **arrays)
        write_whole(self.file, content.getvalue())


def _joined(first: dict[str, list], second: dict[str, list]) -> dict[str, list[float]]:
    names = first or second
    return {name: [*first.get(name, []), *map(float, second[name])] for name in names}
