"""What is taught: each loss is a plain function in `keras.ops` and a thin serialisable class.

SoftTargets(temperature=4.0)        # or "soft_targets", wherever a loss is taken
mix(SoftTargets())                  # constructor arguments with the customary weights
"""

import difflib

import keras

from keras_distill.losses.base import DistillationLoss, mean_over_examples, snake_case
from keras_distill.losses.customary import Mix, mix
from keras_distill.losses.response import LogitLoss, SoftTargets, soft_targets

__all__ = [
    "DistillationLoss",
    "LogitLoss",
    "Mix",
    "SoftTargets",
    "get",
    "mean_over_examples",
    "mix",
    "soft_targets",
]

_BY_NAME = {snake_case(loss.__name__): loss for loss in (SoftTargets,)}


def get(identifier):
    """Return the loss that `identifier` means: a loss as it is, or one by name with its defaults.

    Raises:
        ValueError: no loss has this name; the sentence lists those that exist.
    """
    if isinstance(identifier, keras.distillation.DistillationLoss):
        return identifier
    if isinstance(identifier, str):
        if identifier in _BY_NAME:
            return _BY_NAME[identifier]()
        near = difflib.get_close_matches(identifier, _BY_NAME, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ValueError(
            f"There is no distillation loss '{identifier}'; there are: {', '.join(_BY_NAME)}.{hint}"
        )
    raise ValueError(
        f"A distillation loss is an object of keras_distill.losses or keras.distillation, or a name, "
        f"got {type(identifier).__name__}."
    )
