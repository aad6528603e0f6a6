"""Numbers that change while a student learns: a temperature, the weight of a loss.

A temperature, an α, β or γ, and the weight of a loss may also be one of `keras.optimizers.schedules`, which
counts steps, or one of these, which count epochs:

    SoftTargets(temperature=schedules.ByEpoch(keras.optimizers.schedules.PolynomialDecay(8.0, 30, 1.0)))
    kd.Distiller(..., distillation_loss_weights=[schedules.warm_up(20)])
"""

import contextlib
import math
import numbers
from typing import Any

import keras
from keras.optimizers.schedules import LearningRateSchedule


@keras.saving.register_keras_serializable(package="keras_distill")
class ByEpoch(LearningRateSchedule):
    """A schedule of Keras's that is asked for the number of the epoch, from 0, instead of the step.

    `fit` counts the epochs. In a loop of `train_on_batch`, `epoch.variable().assign(number)` does.

    Args:
        schedule: any of `keras.optimizers.schedules`.
    """

    def __init__(self, schedule: LearningRateSchedule):
        if not isinstance(schedule, LearningRateSchedule):
            raise ValueError(
                f"ByEpoch takes one of keras.optimizers.schedules, got {type(schedule).__name__}."
            )
        self.schedule = schedule

    def __call__(self, step):
        """Return the value of the epoch that is running, whatever the step."""
        return self.schedule(_now[-1][1])

    def get_config(self):
        """Return the arguments of the constructor."""
        return {"schedule": keras.saving.serialize_keras_object(self.schedule)}

    @classmethod
    def from_config(cls, config):
        """Return the schedule that `get_config` describes."""
        return cls(keras.saving.deserialize_keras_object(config["schedule"]))


def warm_up(epochs: int, to: float = 1.0) -> ByEpoch:
    """Return a weight that grows linearly: `to / epochs` in the first epoch, `to` from the `epochs`-th on.

    DKD and ReviewKD use 20 epochs in their papers.
    """
    epochs, to = whole("epochs", epochs), fixed("to", to)
    rise = keras.optimizers.schedules.PolynomialDecay(to / epochs, max(epochs - 1, 1), to)
    return ByEpoch(rise)


# Step and epoch, for the schedules within; a stack, so that one distiller may train inside another.
_now: list[tuple[Any, Any]] = [(0, 0)]


@contextlib.contextmanager
def at(step, epoch=0):
    """Within this context, schedules give their values of `step` and `epoch` (numbers or scalar tensors).

    `Distiller` opens it; a training loop of your own that uses schedules does likewise.
    """
    _now.append((step, epoch))
    try:
        yield
    finally:
        _now.pop()


def value(number):
    """Return `number`, or what it is at this step if it is a schedule."""
    return number(_now[-1][0]) if isinstance(number, LearningRateSchedule) else number


def whole(name: str, number, lowest=1) -> int:
    """Return `number` if it is a whole number of at least `lowest`.

    Raises:
        ValueError: it is not.
    """
    if isinstance(number, bool) or not isinstance(number, numbers.Integral) or number < lowest:
        raise ValueError(f"{name} must be a whole number of at least {lowest}, got {number!r}.")
    return int(number)


def fixed(name: str, number, **limits):
    """Return `number` as `checked` does, where it cannot change in time.

    Raises:
        ValueError: it is out of its limits, or a schedule.
    """
    if isinstance(number, LearningRateSchedule):
        raise ValueError(f"{name} must be a number, and cannot be a schedule.")
    return checked(name, number, **limits)


def checked(name: str, number, lowest=0.0, highest=math.inf, advice: str = "", above=False):
    """Return `number` if it is one from `lowest` to `highest`; of a schedule, if its values are.

    A schedule is looked at in the steps (or epochs) 0, 1, 2, 4, … 2²³.

    Args:
        name: the argument's, for the sentence.
        advice: the end of the sentence: a customary value.
        above: whether `lowest` itself is too low.

    Raises:
        ValueError: it is not; the sentence says what it must be.
    """
    changes = isinstance(number, LearningRateSchedule)
    for step, one in _values(number) if changes else [(0, number)]:
        fits = isinstance(one, numbers.Real) and not isinstance(one, bool)
        fits = fits and math.isfinite(one) and lowest <= one <= highest
        if fits and not (above and one <= lowest):
            continue
        what = "a positive number" if above else f"a number of at least {lowest:g}"
        if highest < math.inf:
            what = f"{'a positive' if lowest > 0 else 'a'} number, {lowest:g} to {highest:g}"
        got = repr(number)
        if changes:
            counted = "epoch" if isinstance(number, ByEpoch) else "step"
            got = f"{type(number).__name__}, which is {one:g} in {counted} {step}"
        raise ValueError(f"{name} must be {what}, got {got}{'; ' if advice else ''}{advice}.")
    return number if changes else float(number)


def _values(schedule: LearningRateSchedule):
    for step in (0, *(2**power for power in range(24))):
        with at(step, step):
            yield step, float(keras.ops.convert_to_numpy(schedule(step)))
