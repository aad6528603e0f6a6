"""Callbacks for distillation.

distiller.fit(x, y, callbacks=[kd.callbacks.StudentCheckpoint("best.keras", monitor="val_accuracy")])
distiller.fit(x, y, epochs=30, callbacks=[kd.callbacks.Resume("state.npz")])   # killed? call it again
"""

import os
from pathlib import Path

import keras

from keras_distill import training_state


class Resume(keras.callbacks.Callback):
    """Lets a training that was killed go on at the end of its last whole epoch, bit-identically.

    `keras.callbacks.BackupAndRestore` writes weights and the number of the epoch into two files, in place:
    killed between the two, it trains an epoch twice, or cannot read what it wrote. This writes one file,
    beside its place, and renames it.

    Args:
        file: of the state, which the training goes on from if it is there, and is recorded in.
        delete: whether the file goes when the training is done.

    Attributes:
        history: the history of all epochs, those of the killed trainings too.

    Raises:
        ValueError: in `fit`: the file is damaged, or holds the state of another model.
        OSError: in `fit`: the state cannot be written. The one of the epoch before stays.
    """

    def __init__(self, file: str | os.PathLike, delete: bool = True):
        super().__init__()
        self.file = Path(file)
        self.delete = delete
        self.history: training_state.History = {}

    def on_train_begin(self, logs=None):
        """Called by `fit`."""
        if self.file.exists():
            done, self.history = training_state.restore(self.model, self.file)
            # Keras has no public way for a callback to say where `fit` begins; its own does this.
            self.model._initial_epoch = done

    def on_epoch_end(self, epoch, logs=None):
        """Called by `fit`."""
        logs = logs or {}
        self.history = training_state.joined(self.history, {name: [logs[name]] for name in logs})
        training_state.write(self.model, self.file, epoch + 1, self.history)

    def on_train_end(self, logs=None):
        """Called by `fit`."""
        if self.delete:
            self.file.unlink(missing_ok=True)


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
