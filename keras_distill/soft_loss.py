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

from keras_distill import example_weighting, kinds
from keras_distill.losses.base import of_rank
from keras_distill.losses.logit_loss import LogitLoss
from keras_distill.losses.weights import of_mean_1
from keras_distill.network import Answer, select
from keras_distill.train_step import call_numpy_flat


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
    """What `fit` gives in a step: inputs, hard labels or None, weights of examples or None.

    `python`: whether Python may run in the middle of the step. `beside`: 0s whose gradients are what weights
    of losses learn by themselves, whatever the weight of the loss.
    """

    x: Any
    labels: Any = None
    sample_weight: Any = None
    python: bool = False
    beside: list = dataclasses.field(default_factory=list)

    @property
    def rows(self):
        """How many examples it has."""
        return ops.shape(next(leaf for leaf in keras.tree.flatten(self.x) if leaf is not None))[0]


def value(
    term: Term,
    batch: Batch,
    targets: Answer,
    answer: Answer,
    hard_losses=None,
    weighting=None,
    columns=None,
):
    """Return the value of a term for a batch: a float32 scalar, not yet weighted.

    Args:
        term: the loss, and what it reads.
        batch: inputs, labels and weights.
        targets: the teacher's answer.
        answer: the student's.
        hard_losses: the resolved losses of `compile`, to know which outputs are yes-or-no questions.
        weighting: a rule of `example_weighting`, or None.
        columns: for a teacher of more classes: its column of each class of the student, for `weighting`.

    Raises:
        ValueError: an output that does not exist, or a loss that returns more than one number.
    """
    loss = term.loss
    ours = Outputs(answer, term.output, "student")
    teacher, student = term.read(targets, answer)
    loss.validate_outputs(teacher, student)
    takes = inspect.signature(loss.compute_loss).parameters
    arguments: dict[str, Any] = {}
    labels, hard = ours.of(batch.labels), ours.of(hard_losses)
    if isinstance(loss, LogitLoss):
        ends = [ours.of(answer.activations)]
        if term.needs_teacher:
            ends.append(Outputs(targets, term.output, "teacher").of(targets.activations))
        each = zip(keras.tree.flatten(student), zip(*ends, strict=True), hard, strict=True)
        arguments["activation"] = ours.packed([kinds.of(*one) for one in each])
    if "labels" in takes:
        arguments["labels"] = ours.packed(labels)
    weights = _weights(term, ours, batch.sample_weight)
    if weighting is not None:
        trust = _trust(term, weighting, targets, ours.of(answer.logits), labels, hard, columns)
        if callable(weighting) and batch.python:
            trust = [_checked_by(example_weighting.refuse_bad, one, batch.rows) for one in trust]
        weights = [_product(*pair) for pair in zip(weights, trust, strict=True)]
    if "mask" in takes:
        arguments["mask"] = term.masks(answer)
    elif "sample_weight" in takes and not term.student_layers:
        # As Keras's losses weigh. Where some outputs have weights, the others have 1.
        weights = [_masked(*pair) for pair in zip(ours.of(answer.outputs), weights, strict=True)]
        if any(weight is not None for weight in weights):
            weights = [1.0 if weight is None else weight for weight in weights]
    if "indices" in takes and getattr(loss, "bank_size", None):
        arguments["indices"] = _indices(loss, batch)
    if "sample_weight" in takes:
        arguments["sample_weight"] = weights[0] if term.student_layers else ours.packed(weights)
    elif any(weight is not None for weight in weights):
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


def _weights(term: Term, ours: "Outputs", sample_weight) -> list:
    """The sample weights of each output that the term is about; of inner layers, one for all."""
    weights = ours.of(sample_weight)
    if not term.student_layers:
        return weights
    if any(weight is not weights[0] for weight in weights):
        raise ValueError(
            f"{type(term.loss).__name__} reads inner layers, and sample_weight has one for each output: "
            "pass output= to say whose weights it takes."
        )
    return weights[:1]


def _trust(term: Term, rule, targets: Answer, of_student, labels, hard, columns) -> list:
    """The weights by `example_weighting` for each output that the term is about."""
    theirs = Outputs(targets, term.output, "teacher")
    logits, ends = theirs.of(targets.logits), theirs.of(targets.activations)
    name = type(term.loss).__name__
    if len(logits) != len(of_student) or (term.student_layers and len(logits) > 1):
        raise ValueError(
            f"{name} has one weight for each example, and the teacher has {len(logits)} outputs: pass "
            "output= to say by which of them example_weighting= goes."
        )
    if columns is not None:
        logits = [ops.take(one, columns, axis=-1) for one in logits]
    for theirs_, ours in zip(logits, of_student, strict=True):
        if rule == "true_label" and theirs_.shape[-1] != ours.shape[-1]:
            raise ValueError(
                f"example_weighting='true_label' looks for the student's {ours.shape[-1]} classes in the "
                f"teacher's {theirs_.shape[-1]}: add a loss on responses with class_indices=, or pass a "
                "function of (teacher_logits, labels)."
            )
    each = zip(logits, labels, ends, hard, strict=True)
    return [
        example_weighting.weights(rule, logit, label, kinds.of(logit, [end], loss))
        for logit, label, end, loss in each
    ]


def _product(first, second):
    """The product of two weights, of which the first may be None."""
    if first is None:
        return second
    a, b = ops.cast(first, "float32"), ops.cast(second, "float32")
    rank = max(len(a.shape), len(b.shape))
    if tuple(a.shape[1:]) == (1,) and len(b.shape) == 1:
        rank = 1
    a, b = of_rank(rank, a), of_rank(rank, b)
    return ops.where(a == 0, 0.0, a * b)  # what a teacher says of an example of weight 0 may be NaN


def _indices(loss, batch: Batch):
    """The examples' numbers for a memory bank; those that it does not have are told where Python runs."""
    try:
        found = select(batch.x, loss.index, "index")
    except ValueError:  # the loss says how to give them
        return None
    indices = ops.reshape(found, (-1,))
    if not batch.python:
        return indices

    def checked(numbers):
        outside = numbers[(numbers < 0) | (numbers >= loss.bank_size)]
        if len(outside):
            raise ValueError(
                f"{type(loss).__name__} has a memory bank of bank_size={loss.bank_size}, and the batch has "
                f"the example number {outside[0]}: number the examples from 0, and let bank_size be their "
                "count."
            )
        return [numbers]

    return ops.cast(_checked_by(checked, indices), "int32")


def _checked_by(function, values, *others):
    """`values`, after `function` has seen them, and others, as arrays."""
    dtype = keras.backend.standardize_dtype(values.dtype)
    return call_numpy_flat(function, [values, *others], [(tuple(values.shape), dtype)])[0]


class Outputs:
    """The outputs of a network that a term is about, and what somebody gave for each of them.

    Labels, weights and losses come by name, by position, or once for all, whatever the network's own
    structure; here they become lists in the order of `keras.tree`.

    Args:
        answer: the network's.
        output: a key, name or position; None for all of them.
        whose: the network's, for sentences.

    Raises:
        ValueError: there is no such output.
    """

    def __init__(self, answer: Answer, output, whose: str):
        outputs = answer.outputs
        self._count = len(keras.tree.flatten(outputs))
        self._names = sorted(outputs) if isinstance(outputs, dict) else list(answer.names or ())
        numbers = keras.tree.pack_sequence_as(outputs, list(range(self._count)))
        self._structure = pick_output(numbers, output, answer.names, whose)
        self._chosen = keras.tree.flatten(self._structure)

    def of(self, given) -> list:
        """Return what was given for each chosen output; None where there is nothing."""
        each = [given]
        if isinstance(given, dict) and set(given) & set(self._names):
            each = [given.get(name) for name in self._names]
        elif keras.tree.is_nested(given):
            each = keras.tree.flatten(given)
        elif self._count > 1:
            each = [given] * self._count
        if len(each) != self._count:
            each = [given if self._count == 1 else None] * self._count
        return [each[i] for i in self._chosen]

    def packed(self, each: list):
        """Return a list with one for each chosen output in the structure of these; None for Nones alone."""
        if all(one is None for one in each):
            return None
        return keras.tree.pack_sequence_as(self._structure, each)


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
    raise ValueError(
        f"A loss reads output={output!r}, which the {whose} does not have: {known}. Teacher and student need "
        f"outputs of that name or position: build the {whose} with keras.Model(inputs, {{name: output}})."
    )


def _masked(output, weight):
    """Sample weights times the mask that the student's layers pass on, as Keras's losses weigh."""
    # A tensor's mask has no public name in Keras 3.
    mask = getattr(output, "_keras_mask", None)
    if mask is None:
        return weight
    mask = of_mean_1(mask)
    if weight is None:
        return mask
    return mask * of_rank(len(mask.shape), ops.cast(weight, "float32"))
