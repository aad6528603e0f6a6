"""keras_distill: a big trained Keras model teaches a small one, with `compile` and `fit`.

import keras_distill as kd

distiller = kd.Distiller(teacher, student, kd.losses.SoftTargets(temperature=4.0), student_loss_weight=0.1)
distiller.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
distiller.fit(x, y, epochs=30)
distiller.student
"""

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_distill import callbacks, connectors, data, losses, schedules, students, teachers
    from keras_distill.adversarial import AdversarialDistiller
    from keras_distill.chains import born_again, distill_chain
    from keras_distill.distiller import Distiller
    from keras_distill.online import MutualDistiller
    from keras_distill.pairs import suggest_pairs
    from keras_distill.robust import RobustDistiller
    from keras_distill.self_distillation import SelfDistiller
    from keras_distill.soft_labels import SoftLabels
    from keras_distill.teacher_check import check_teacher

__all__ = [
    "AdversarialDistiller",
    "Distiller",
    "MutualDistiller",
    "RobustDistiller",
    "SelfDistiller",
    "SoftLabels",
    "born_again",
    "callbacks",
    "check_teacher",
    "connectors",
    "data",
    "distill_chain",
    "losses",
    "schedules",
    "students",
    "suggest_pairs",
    "teachers",
]
__version__ = "0.1.0"
_WHERE = {
    "AdversarialDistiller": "adversarial",
    "Distiller": "distiller",
    "MutualDistiller": "online",
    "RobustDistiller": "robust",
    "SelfDistiller": "self_distillation",
    "SoftLabels": "soft_labels",
    "born_again": "chains",
    "check_teacher": "teacher_check",
    "distill_chain": "chains",
    "suggest_pairs": "pairs",
}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f"keras_distill.{_WHERE[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"keras_distill.{name}")
    raise AttributeError(f"module 'keras_distill' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


# `keras.models.load_model` must find our classes as soon as this package is imported. The command line alone
# waits until a command needs them, so that `--help` answers at once.
if Path(sys.argv[0] if sys.argv else "").stem != "keras-distill":
    import keras

    import keras_distill.adversarial
    import keras_distill.online
    import keras_distill.robust
    import keras_distill.self_distillation
    import keras_distill.teacher_files  # noqa: F401
    from keras_distill.distiller import Distiller

    if keras.backend.backend() == "tensorflow":  # which is slow to import beside another one
        from keras_distill.soft_labels import SoftLabels
