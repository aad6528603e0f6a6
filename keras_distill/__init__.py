"""keras_distill: a big trained Keras model teaches a small one, with `compile` and `fit`.

import keras_distill as kd

distiller = kd.Distiller(teacher, student, kd.losses.SoftTargets(temperature=4.0), student_loss_weight=0.1)
distiller.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
distiller.fit(x, y, epochs=30)
distiller.student
"""

from keras_distill import callbacks, losses, teachers
from keras_distill.distiller import Distiller

__all__ = ["Distiller", "callbacks", "losses", "teachers"]
__version__ = "0.1.0"
