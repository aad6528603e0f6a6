"""Callbacks for distillation.

distiller.fit(x, y, callbacks=[kd.callbacks.StudentCheckpoint("best.keras", monitor="val_accuracy")])
distiller.fit(x, y, epochs=30, callbacks=[kd.callbacks.Resume("state.npz")])   # killed? call it again
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from keras_distill import training_state
from keras_distill.begun_with import differences


class Resume(keras.callbacks.Callback):
    """Lets a training that was killed go on at the end of its last whole epoch, bit-identically.

    `keras.callbacks.BackupAndRestore` writes weights and the number of the epoch into two files, in place:
    killed between the two, it trains an epoch twice, or cannot read what it wrote. This writes one file,
    beside its place, and renames it.

    With `delete=False` a training that has ended, perhaps by `EarlyStopping`, is not trained again by the
    same call: its state holds the weights that it ended with, so put `Resume` behind callbacks that choose
    them. What other callbacks remember is not in the file: a killed `EarlyStopping` begins to wait anew.

    Args:
        file: of the state, which the training goes on from if it is there, and is recorded in.
        delete: whether the file goes when the training is done; else a call with more epochs goes on.
        begun_with: what the training depends on beside the model, {name: number or text}; the state of a
            training with other values is refused. None to compare nothing.

    Attributes:
        history: the history of all epochs, those of the killed trainings too.

    Raises:
        ValueError: in `fit`: the file is damaged, or holds the state of another model or training.
        OSError: in `fit`: the state cannot be written. The one of the epoch before stays.
    """

    def __init__(
        self,
        file: str | os.PathLike,
        delete: bool = True,
        begun_with: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        self.file = Path(file)
        self.delete = delete
        self.begun_with = None if begun_with is None else dict(begun_with)
        self.history: training_state.History = {}
        self._done = self._ended = 0

    def on_train_begin(self, logs=None):
        """Called by `fit`."""
        self.history, self._done, self._ended = {}, 0, 0
        self._begin_at(None)
        if not self.file.exists():
            return
        self._compare(training_state.read_progress(self.file).begun_with)
        found = training_state.restore(self.model, self.file)
        self.history, self._done, self._ended = found.history, found.epochs, found.ended or 0
        wanted = self.params["epochs"]
        self._begin_at(wanted if wanted <= self._ended else found.epochs)

    def on_epoch_begin(self, epoch, logs=None):
        """Called by `fit`, which has begun: the next one is not to begin here."""
        self._begin_at(None)

    def on_epoch_end(self, epoch, logs=None):
        """Called by `fit`."""
        logs = logs or {}
        self.history = training_state.joined(self.history, {name: [logs[name]] for name in logs})
        self._done = epoch + 1
        self._write()

    def on_train_end(self, logs=None):
        """Called by `fit`."""
        self._begin_at(None)
        if self.delete:
            self.file.unlink(missing_ok=True)
        else:
            self._write(ended=max(self.params["epochs"], self._ended))

    def _begin_at(self, epoch: int | None) -> None:
        # Keras has no public way for a callback to say where `fit` begins; its own does this.
        self.model._initial_epoch = epoch

    def _write(self, ended: int | None = None) -> None:
        progress = training_state.Progress(self._done, self.history, ended, self.begun_with)
        training_state.write(self.model, self.file, progress)

    def _compare(self, then: Mapping[str, Any] | None) -> None:
        if self.begun_with is None:
            return
        nothing = ["it does not say with what"]
        found = nothing if then is None else differences(then, self.begun_with)
        if found:
            raise ValueError(
                f"{self.file} is of a training that was begun otherwise: {'; '.join(found)}. Give the first "
                "arguments, or another folder, or remove the file to begin anew."
            )


class StudentCheckpoint(keras.callbacks.ModelCheckpoint):
    """`keras.callbacks.ModelCheckpoint` for the plain student: it writes no distiller and no teacher.

    Args: as `keras.callbacks.ModelCheckpoint`.
    """

    def set_model(self, model):
        """Called by `fit`.

        Raises:
            ValueError: the model that is fitted has no `student`.
        """
        if not isinstance(getattr(model, "student", None), keras.Model):
            raise ValueError(
                f"StudentCheckpoint is for a Distiller, got {type(model).__name__}: use "
                "keras.callbacks.ModelCheckpoint."
            )
        super().set_model(_Monitored(model))


class _Monitored:
    """What ModelCheckpoint asks of a model: the metrics are the distiller's, what is saved is the student."""

    def __init__(self, distiller):
        self._distiller = distiller
        self.save = distiller.student.save
        self.save_weights = distiller.student.save_weights

    @property
    def metrics(self):
        return self._distiller.metrics
