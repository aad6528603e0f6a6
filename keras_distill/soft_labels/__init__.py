"""Stored soft labels: the teacher answers once, and every epoch after that costs nothing.

labels = kd.SoftLabels.build(teacher, train, "labels/", views=4)    # kill it, call it again: it goes on
distiller = kd.Distiller(labels, student, kd.losses.SoftTargets())
distiller.fit(labels.attach(train), validation_data=validation, epochs=30)
"""

from keras_distill.soft_labels.labels import SoftLabels

__all__ = ["SoftLabels"]
