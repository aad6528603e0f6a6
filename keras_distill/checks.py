"""What `Distiller` refuses when it is made, each with a sentence that says what to do."""

import math
import numbers
import warnings

import keras
from keras.optimizers.schedules import LearningRateSchedule

from keras_distill import schedules
from keras_distill.layer_tree import all_layers


def share(student_loss_weight) -> float:
    """Return `student_loss_weight` if it is a number from 0 to 1."""
    if not _is_number(student_loss_weight):
        raise ValueError(f"student_loss_weight must be a number, got {type(student_loss_weight)}")
    if not 0.0 <= student_loss_weight <= 1.0:
        raise ValueError(
            f"student_loss_weight must be between 0.0 and 1.0, got {student_loss_weight}"
        )
    return student_loss_weight


def loss_weights(weights, count: int) -> list[float]:
    """Return `weights` if they are `count` finite numbers of at least 0; ones for None."""
    if count == 0:
        raise ValueError("'distillation_losses' is empty: give one loss at least.")
    if weights is None:
        return [1.0] * count
    if not isinstance(weights, list | tuple):
        raise ValueError(
            f"distillation_loss_weights must be a list of numbers, one for each of the {count} losses, got "
            f"{weights!r}."
        )
    if len(weights) != count:
        raise ValueError(
            f"Number of distillation_loss_weights ({len(weights)}) must match number of "
            f"distillation_losses ({count})"
        )
    for weight in weights:
        if isinstance(weight, LearningRateSchedule):
            schedules.checked("distillation_loss_weights", weight)
            continue
        if not _is_number(weight) or not math.isfinite(weight) or weight < 0:
            raise ValueError(
                f"distillation_loss_weights must be finite numbers of at least 0, got {weight!r} (or "
                "schedules, see keras_distill.schedules)."
            )
    return list(weights)


def _is_number(value) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def metric_names(names: list[str]) -> list[str]:
    """Return one name for each loss; a second `soft_targets` becomes `soft_targets_1`."""
    unique: list[str] = []
    for name in names:
        taken = name in ("loss", "total_loss", "student_loss", "distillation_loss")
        if taken or name.startswith("val_"):
            raise ValueError(
                f"A distillation loss cannot be named '{name}', as the history has a column of that "
                "name, or takes it for one of the validation: pass another name=."
            )
        free, count = name, 0
        while free in unique:
            count += 1
            free = f"{name}_{count}"
        unique.append(free)
    return unique


def no_metric_of_a_loss(metrics, losses: list[str]) -> None:
    """Refuse metrics with the name of a distillation loss: the history has one column for each name."""
    given = keras.tree.flatten(metrics or [])
    names = {one if isinstance(one, str) else getattr(one, "name", None) for one in given}
    for name in names & set(losses):
        raise ValueError(
            f"A metric and a distillation loss are both named '{name}': pass another name= to one of them."
        )


def can_be_balanced(losses) -> None:
    """Refuse losses that can be negative, which no weights balance."""
    for loss in losses:
        if getattr(loss, "can_be_negative", False):
            raise ValueError(
                f"{type(loss).__name__} can be negative, so loss_balancing= would let it grow without bound: "
                "leave it out, or give distillation_loss_weights=."
            )


def same_order(teacher: keras.Model, student: keras.Model) -> None:
    """Refuse lists of outputs with the same names in another order, which would teach crosswise."""
    names = [list(getattr(model, "output_names", None) or []) for model in (teacher, student)]
    structures = [
        getattr(model, "output_shape", None) for model in (teacher, student) if model.built
    ]
    if any(isinstance(shape, dict) for shape in structures):
        return
    if names[0] != names[1] and sorted(names[0]) == sorted(names[1]):
        raise ValueError(
            f"Teacher answers {names[0]} and student {names[1]}, in another order: pass one loss for each, "
            "with output=."
        )


def no_shared_weights(teacher: keras.Model, student: keras.Layer) -> None:
    """Refuse a student (or `student_inputs`) that is made of the teacher's own layers."""
    shared = {id(weight) for weight in teacher.weights} & {id(weight) for weight in student.weights}
    if shared:
        raise ValueError(
            f"Teacher and student share {len(shared)} weights, so training the student would change the "
            "teacher: make the student of copies (keras.models.clone_model, then set_weights)."
        )


def one_device(losses, devices: int) -> None:
    """Refuse losses with a memory bank on several devices, each of which would fill another one."""
    for loss in losses:
        if devices > 1 and getattr(loss, "bank_size", None):
            raise ValueError(
                f"The memory bank of {type(loss).__name__} is for one device, and this strategy has "
                f"{devices}: pass bank_size=None for negatives of the batch alone."
            )


def channels_last(model: keras.Model, role: str) -> None:
    """Refuse a network whose inner layers have their channels before the positions."""
    for layer in all_layers(model):
        if getattr(layer, "data_format", None) == "channels_first":
            raise ValueError(
                f"Losses on inner layers take the last axis for the channels, and the layer '{layer.name}' "
                f"of the {role} has data_format='channels_first': build it with 'channels_last', or use "
                "losses on its outputs."
            )


def same_inputs(teacher: keras.Model, student: keras.Model) -> None:
    """Refuse networks that cannot take one batch."""
    pairs = _pairs(getattr(teacher, "inputs", None), getattr(student, "inputs", None))
    if pairs is None:
        raise ValueError(
            f"Teacher takes {len(teacher.inputs)} inputs and student {len(student.inputs)}: pass "
            "teacher_inputs= or student_inputs=, a callable or a key into the batch."
        )
    for first, second in pairs:
        if not _compatible(first.shape, second.shape):
            raise ValueError(
                f"Teacher and student input shapes are incompatible. Teacher: {first.shape}, Student: "
                f"{second.shape}. Pass teacher_inputs= or student_inputs=, a callable (for instance "
                f"teacher_inputs={example_of_inputs(second.shape, first.shape)}) or a key into the batch."
            )
        kinds = {keras.backend.is_float_dtype(tensor.dtype) for tensor in (first, second)}
        if first.dtype != second.dtype and kinds != {True}:
            raise ValueError(
                f"Teacher and student input dtypes must match. Teacher: {first.dtype}, Student: "
                f"{second.dtype}. Pass teacher_inputs= or student_inputs= to convert."
            )


def example_of_inputs(given, taken) -> str:
    """What makes a batch of the shape `taken` out of one of the shape `given`, for sentences."""
    if len(given) == len(taken) == 4 and None not in taken[1:3]:
        if given[-1] == taken[-1]:
            return f"keras.layers.Resizing({taken[1]}, {taken[2]})"
        if (given[-1], taken[-1]) == (3, 1) and given[1:3] == taken[1:3]:
            return "keras.ops.image.rgb_to_grayscale"
    return "keras.layers.Resizing"


def same_outputs(teacher: keras.Model, student: keras.Model) -> None:
    """Refuse different outputs, for a loss of Keras's that compares them as they are."""
    pairs = _pairs(getattr(teacher, "outputs", None), getattr(student, "outputs", None))
    if pairs is None:
        raise ValueError(
            f"Teacher has {len(teacher.outputs)} outputs and student {len(student.outputs)}."
        )
    for first, second in pairs:
        if not _compatible(first.shape, second.shape):
            raise ValueError(
                f"Teacher and student output shapes are incompatible. Teacher: {first.shape}, Student: "
                f"{second.shape}. All dimensions must match."
            )


def _pairs(first, second):
    """Pairs of symbolic tensors; [] where a model does not show them, None where the numbers differ."""
    if not first or not second:
        return []
    return list(zip(first, second, strict=True)) if len(first) == len(second) else None


def _compatible(first, second) -> bool:
    return len(first) == len(second) and all(
        a is None or b is None or a == b for a, b in zip(first, second, strict=True)
    )


def warn_unconfigured(loss) -> None:
    """Warn of Keras's `LogitsDistillation("kl_divergence")`, which computes no KL divergence."""
    if isinstance(loss, keras.distillation.LogitsDistillation) and any(
        inner is keras.losses.kl_divergence for inner in keras.tree.flatten(loss.loss)
    ):
        warnings.warn(
            "LogitsDistillation(loss='kl_divergence') computes Σ t·log(t/s) of the raw outputs t and s "
            f"divided by {loss.temperature} and clipped to 1e-7..1: no softmax is applied, nor T². Use "
            f"keras_distill.losses.SoftTargets({loss.temperature}), or LogitsDistillation("
            f"{loss.temperature}, loss=keras.losses.KLDivergence()) on networks that end in logits.",
            stacklevel=4,
        )
