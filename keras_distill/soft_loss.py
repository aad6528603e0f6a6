"""A soft term: a distillation loss, what it reads of the two networks' answers, and its value.

term = soft_loss.Term(AttentionTransfer("auto"), teacher_layers=["conv4"], student_layers=["block_12_add"])
value = soft_loss.value(term, soft_loss.Batch(x, labels, sample_weight), targets, answer, hard_losses)
"""

import dataclasses
import inspect
import warnings
from typing import Any

import keras
from keras import ops

from keras_distill import example_weighting, hard_loss
from keras_distill.losses.base import of_rank
from keras_distill.losses.logit_loss import LogitLoss
from keras_distill.network import Answer, select


@dataclasses.dataclass
class Term:
    """A distillation loss in its place in a training.

    Attributes:
        loss: a `keras.distillation.DistillationLoss`, Keras's or ours.
        weight: a number or a schedule.
        tracker: the metric that shows it in the history.
        teacher_layers, student_layers: the inner layers that it reads, a name or a list; None for outputs.
    """

    loss: Any
    weight: Any = 1.0
    tracker: Any = None
    teacher_layers: Any = None
    student_layers: Any = None

    @property
    def output(self):
        """The one of several outputs that it reads, or None."""
        return getattr(self.loss, "output_name", None)

    @property
    def needs_teacher(self) -> bool:
        """Whether it reads what a teacher says."""
        return getattr(self.loss, "needs_teacher", True)

    def read(self, targets: Answer, answer: Answer):
        """Return what it looks at of teacher and student: inner layers, logits, or outputs; in float32."""
        teacher = None
        if self.needs_teacher:
            teacher = _float32(self._raw(self.teacher_layers, targets, "teacher"))
        return teacher, _float32(self._raw(self.student_layers, answer, "student"))

    def masks(self, answer: Answer):
        """The masks that the student's layers pass on, for each tensor that is read, or None."""
        tensors = keras.tree.flatten(self._raw(self.student_layers, answer, "student", "outputs"))
        # A tensor's mask has no public name in Keras 3.
        masks = [getattr(one, "_keras_mask", None) for one in tensors]
        return None if all(mask is None for mask in masks) else masks

    def _raw(self, layers, answer: Answer, whose: str, reads=None):
        if isinstance(layers, list | tuple):
            return [answer.inner[layer] for layer in layers]
        if layers:
            return answer.inner[layers]
        reads = reads or getattr(self.loss, "reads", "outputs")
        outputs = answer.logits if reads == "logits" else answer.outputs
        return pick_output(outputs, self.output, answer.names, whose)


def _float32(tensors):
    def cast(tensor):
        half = keras.backend.standardize_dtype(tensor.dtype) in ("float16", "bfloat16")
        return ops.cast(tensor, "float32") if half else tensor

    return keras.tree.map_structure(cast, tensors)


@dataclasses.dataclass
class Batch:
    """What `fit` gives in a step: inputs, hard labels or None, weights of examples or None."""

    x: Any
    labels: Any = None
    sample_weight: Any = None


def value(
    term: Term, batch: Batch, targets: Answer, answer: Answer, hard_losses=None, weighting=None
):
    """Return the value of a term for a batch: a float32 scalar, not yet weighted.

    Args:
        term: the loss, and what it reads.
        batch: inputs, labels and weights.
        targets: the teacher's answer.
        answer: the student's.
        hard_losses: the resolved losses of `compile`, to know which outputs are yes-or-no questions.
        weighting: a rule of `example_weighting`, or None.

    Raises:
        ValueError: an output that does not exist, or a loss that returns more than one number.
    """
    loss, output = term.loss, term.output

    def of_student(structure, what="student"):
        return pick_output(structure, output, answer.names, what)

    teacher, student = term.read(targets, answer)
    loss.validate_outputs(teacher, student)
    takes = inspect.signature(loss.compute_loss).parameters
    arguments: dict[str, Any] = {}
    labels = _labels(batch.labels, of_student)
    hard = _hard_loss_of(hard_losses, output, answer.names)
    if isinstance(loss, LogitLoss):
        ends = [of_student(answer.activations)]
        if term.needs_teacher:
            ends.append(pick_output(targets.activations, output, targets.names, "teacher"))
        arguments["activation"] = _kinds(student, ends, hard)
    if "labels" in takes:
        arguments["labels"] = labels
    sample_weight = _own(term, batch.sample_weight, of_student)
    if weighting is not None:
        trust = _trust(term, weighting, targets, labels, hard)
        sample_weight = _product(sample_weight, trust)
    if "mask" in takes:
        arguments["mask"] = term.masks(answer)
    elif "sample_weight" in takes and not term.student_layers:
        sample_weight = example_weights(of_student(answer.outputs), sample_weight)
    if "indices" in takes and getattr(loss, "bank_size", None):
        arguments["indices"] = select(batch.x, loss.index, "index")
    if "sample_weight" in takes:
        arguments["sample_weight"] = sample_weight
    elif sample_weight is not None:
        warnings.warn(
            f"{type(loss).__name__} gives one number for a batch, so sample_weight, class_weight and "
            "example_weighting do not reach it; the losses of keras_distill.losses take them.",
            stacklevel=2,
        )
    result = loss.compute_loss(teacher, student, **arguments)
    if len(getattr(result, "shape", ())) > 0:
        raise ValueError(
            f"Distillation loss {type(loss).__name__} returned a non-scalar loss with shape {result.shape}: "
            "compute_loss must return one number."
        )
    return ops.cast(result, "float32")


def _labels(labels, of_student):
    """The labels of the outputs that the loss is about; None where there are none for them."""
    try:
        return None if labels is None else of_student(labels, "labels")
    except ValueError:  # of some outputs only; a loss that needs them says so
        return None


def _own(term, sample_weight, of_student):
    """The sample weights of the outputs that the loss is about."""
    if sample_weight is None or not keras.tree.is_nested(sample_weight):
        return sample_weight
    sample_weight = of_student(sample_weight, "sample_weight")
    if term.student_layers and keras.tree.is_nested(sample_weight):
        raise ValueError(
            f"{type(term.loss).__name__} reads inner layers, and sample_weight has one for each output: "
            "pass output= to say whose weights it takes."
        )
    return sample_weight


def _trust(term, rule, targets: Answer, labels, hard):
    """The weights by `example_weighting` for each output that the loss is about."""
    loss, output = term.loss, term.output
    logits, ends = (
        pick_output(one, output, targets.names, "teacher")
        for one in (targets.logits, targets.activations)
    )
    flat, kinds = keras.tree.flatten(logits), keras.tree.flatten(_kinds(logits, [ends], hard))
    columns = getattr(loss, "class_indices", None)
    if columns is not None:
        flat = [ops.take(one, columns, axis=-1) for one in flat]
    labels = [None] * len(flat) if labels is None else keras.tree.flatten(labels)
    if term.student_layers and len(flat) > 1:
        raise ValueError(
            f"{type(loss).__name__} reads inner layers, and the teacher has {len(flat)} outputs: pass "
            "output= to say by which of them example_weighting= goes."
        )
    found = [example_weighting.weights(rule, *one) for one in zip(flat, labels, kinds, strict=True)]
    return found[0] if len(found) == 1 else found


def _product(first, second):
    """The product of two weights, or lists of weights, of which the first may be None."""
    if first is None:
        return second
    firsts, seconds = keras.tree.flatten(first), keras.tree.flatten(second)
    if len(firsts) == 1:
        firsts = firsts * len(seconds)
    products = []
    for a, b in zip(firsts, seconds, strict=True):
        a, b = ops.cast(a, "float32"), ops.cast(b, "float32")
        rank = max(len(a.shape), len(b.shape))
        if tuple(a.shape[1:]) == (1,) and len(b.shape) == 1:
            rank = 1
        product = of_rank(rank, a) * of_rank(rank, b)
        # What a teacher says of an example of weight 0 may be NaN.
        products.append(ops.where(of_rank(rank, a) == 0, 0.0, product))
    return products[0] if len(products) == 1 else products


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
    raise ValueError(f"A loss reads output={output!r}, which the {whose} does not have: {known}.")


def _hard_loss_of(hard_losses, output, names):
    """The hard loss of the one output that is read; all of them if `output` is None."""
    if output is None or not keras.tree.is_nested(hard_losses):
        return hard_losses
    try:
        return pick_output(hard_losses, output, names, "loss")
    except ValueError:  # `compile` gave none for this output
        return None


def _kinds(logits, ends, hard_losses):
    """For each output: do its logits belong to one softmax, or each to a sigmoid of its own?"""
    flat = keras.tree.flatten(logits)
    if isinstance(hard_losses, dict) and isinstance(logits, dict):
        hard = [hard_losses.get(name) for name in sorted(logits)]
    else:
        hard = keras.tree.flatten(hard_losses)
    if len(hard) != len(flat):
        hard = [hard[0] if len(hard) == 1 else None] * len(flat)
    pairs = zip(*(keras.tree.flatten(end) for end in ends), strict=True)
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
