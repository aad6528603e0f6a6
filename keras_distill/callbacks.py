"""Callbacks for distillation.

distiller.fit(x, y, callbacks=[kd.callbacks.StudentCheckpoint("best.keras", monitor="val_accuracy")])
"""

import keras


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
