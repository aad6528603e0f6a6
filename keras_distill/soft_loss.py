"""The soft loss: what one distillation loss reads of the two networks' answers, and its value.

value = soft_loss.value(loss, targets, answer, labels, sample_weight, student.output_names, hard_losses)
"""

import inspect
import warnings
from typing import Any

import keras
from keras import ops

from keras_distill import hard_loss
from keras_distill.losses.base import of_rank
from keras_distill.losses.response import LogitLoss
from keras_distill.network import Answer


def value(loss, targets: Answer, answer: Answer, labels, sample_weight, hard_losses):
    """Return the value of `loss` for a batch: a float32 scalar, not yet weighted.

    Args:
        loss: a `keras.distillation.DistillationLoss`, Keras's or ours.
        targets: the teacher's answer.
        answer: the student's.
        labels: the hard labels, or None.
        sample_weight: as in `fit`, or None.
        hard_losses: the resolved losses of `compile`, to know which outputs are yes-or-no questions.

    Raises:
        ValueError: an output that does not exist, or a loss that returns more than one number.
    """
    output = getattr(loss, "output_name", None)

    def of_student(structure, what="student"):
        return pick_output(structure, output, answer.names, what)

    logits = isinstance(loss, LogitLoss)
    teacher = _read(loss, "teacher", targets, logits)
    student = _read(loss, "student", answer, logits)
    loss.validate_outputs(teacher, student)
    takes = inspect.signature(loss.compute_loss).parameters
    arguments: dict[str, Any] = {}
    if logits:
        ends = (
            of_student(answer.activations),
            pick_output(targets.activations, output, targets.names, "teacher"),
        )
        arguments["activation"] = _kinds(
            student, *ends, _hard_loss_of(hard_losses, output, answer.names)
        )
    if "labels" in takes:
        arguments["labels"] = None if labels is None else of_student(labels, "labels")
    if "sample_weight" in takes:
        arguments["sample_weight"] = _weights(loss, answer, sample_weight, of_student)
    elif sample_weight is not None:
        warnings.warn(
            f"{type(loss).__name__} gives one number for a batch, so sample_weight and class_weight do not "
            "reach it; the losses of keras_distill.losses take them.",
            stacklevel=2,
        )
    result = loss.compute_loss(teacher, student, **arguments)
    if len(getattr(result, "shape", ())) > 0:
        raise ValueError(
            f"Distillation loss {type(loss).__name__} returned a non-scalar loss with shape {result.shape}: "
            "compute_loss must return one number."
        )
    return ops.cast(result, "float32")


def _read(loss, whose: str, answer: Answer, logits: bool):
    """What `loss` looks at: an inner layer, several of them, logits, or outputs; all in float32."""
    layers = getattr(loss, f"{whose}_layer_name", None)
    if isinstance(layers, list | tuple):
        read: Any = [answer.inner[layer] for layer in layers]
    elif layers:
        read = answer.inner[layers]
    else:
        outputs = answer.logits if logits else answer.outputs
        read = pick_output(outputs, getattr(loss, "output_name", None), answer.names, whose)
    return keras.tree.map_structure(_float32, read)


def _float32(tensor):
    half = keras.backend.standardize_dtype(tensor.dtype) in ("float16", "bfloat16")
    return ops.cast(tensor, "float32") if half else tensor


def _weights(loss, answer: Answer, sample_weight, of_student):
    """The weights of examples: with the mask of the outputs where the loss reads outputs."""
    if sample_weight is not None and keras.tree.is_nested(sample_weight):
        sample_weight = of_student(sample_weight, "sample_weight")
        if getattr(loss, "student_layer_name", None) and keras.tree.is_nested(sample_weight):
            raise ValueError(
                f"{type(loss).__name__} reads inner layers, and sample_weight has one for each output: "
                "pass output= to say whose weights it takes."
            )
    if getattr(loss, "student_layer_name", None):
        return sample_weight
    return example_weights(of_student(answer.outputs), sample_weight)


def pick_output(structure, output, names, whose: str):
    """Return the one of several outputs that `output` (a key, name or position) means; all if None."""
    if output is None:
        return structure
    if isinstance(structure, dict) and output in structure:
        return structure[output]
    flat = keras.tree.flatten(structure)
    if isinstance(output, int) and 0 <= output < len(flat):
        return flat[output]
    names = list(names or ())
    if output in names and len(flat) == len(names) and not isinstance(structure, dict):
        return flat[names.index(output)]
    known = sorted(structure) if isinstance(structure, dict) else names or list(range(len(flat)))
    raise ValueError(f"A loss reads output={output!r}, and the {whose} has the outputs {known}.")


def _hard_loss_of(hard_losses, output, names):
    """The hard loss of the one output that is read; all of them if `output` is None."""
    if output is None or not keras.tree.is_nested(hard_losses):
        return hard_losses
    try:
        return pick_output(hard_losses, output, names, "loss")
    except ValueError:  # `compile` gave none for this output
        return None


def _kinds(logits, student, teacher, hard_losses):
    """For each output: do its logits belong to one softmax, or each to a sigmoid of its own?"""
    flat = keras.tree.flatten(logits)
    if isinstance(hard_losses, dict) and isinstance(logits, dict):
        hard = [hard_losses.get(name) for name in sorted(logits)]
    else:
        hard = keras.tree.flatten(hard_losses)
    if len(hard) != len(flat):
        hard = [hard[0] if len(hard) == 1 else None] * len(flat)
    pairs = zip(keras.tree.flatten(student), keras.tree.flatten(teacher), strict=True)
    kinds = [
        "sigmoid"
        if "sigmoid" in pair or logit.shape[-1] == 1 or hard_loss.is_binary(loss)
        else "softmax"
        for pair, logit, loss in zip(pairs, flat, hard, strict=True)
    ]
    return keras.tree.pack_sequence_as(logits, kinds)


def example_weights(outputs, sample_weight):
    """Return sample weights times the masks that the student's layers pass on, as Keras's losses weigh.

    Args:
        outputs: the student's output, or a structure of several.
        sample_weight: one for all, or a structure with one for each output, or None.

    Returns:
        None where there is neither weight nor mask; else in the structure of `outputs`.
    """
    flat = keras.tree.flatten(outputs)
    weights = [None] if sample_weight is None else keras.tree.flatten(sample_weight)
    if len(weights) == 1:
        weights = weights * len(flat)
    weighed = [_masked(output, weight) for output, weight in zip(flat, weights, strict=True)]
    if all(weight is None for weight in weighed):
        return None
    ones = [1.0 if weight is None else weight for weight in weighed]
    return keras.tree.pack_sequence_as(outputs, ones)


def _masked(output, weight):
    # A tensor's mask has no public name in Keras 3.
    mask = getattr(output, "_keras_mask", None)
    if mask is None:
        return weight
    mask = ops.cast(mask, "float32")
    # Valid entries weigh total / valid, so that the mean over all is the mean over the valid ones.
    mask = mask * ops.divide_no_nan(ops.cast(ops.size(mask), "float32"), ops.sum(mask))
    if weight is None:
        return mask
    return mask * of_rank(len(mask.shape), ops.cast(weight, "float32"))
