"""The soft terms of a training: distillation losses, their weights and what the history shows of them.

terms = SoftTerms(["soft_targets", AttentionTransfer("auto")], [1.0, 1000.0], teacher, student)
terms.build(teacher_spec, student_spec)             # connectors, where the shapes are known
values = terms.values(batch, targets, answer, hard_losses)
"""

import warnings

import keras

from keras_distill import checks, example_weighting, losses, schedules, soft_loss
from keras_distill.connectors import trainable_size
from keras_distill.losses.base import snake_case
from keras_distill.network import Answer
from keras_distill.pairs import suggest_pairs
from keras_distill.teachers.base import Teacher


class SoftTerms:
    """Distillation losses with their weights.

    Args:
        given: one of `keras_distill.losses` (or `keras.distillation`), its name, or a list.
        weights: one for each, a number or a schedule; None for 1.
        teacher: what the layers "auto" are looked for in, beside `student`; or one for each loss.
        student: the student.
        weighting: a rule of `example_weighting`, or None.

    Attributes:
        terms: one `soft_loss.Term` for each loss, with metrics of different names.

    Raises:
        ValueError: there is no loss, or a weight that cannot be meant.
    """

    def __init__(self, given, weights, teacher, student, weighting=None):
        if given is None:
            raise ValueError(
                "'distillation_losses' cannot be `None`. Provide a loss (e.g. keras_distill.losses."
                "SoftTargets()), its name, or a list of losses."
            )
        if not isinstance(given, list | tuple):
            given = [given]
            if weights is not None and not isinstance(weights, list | tuple):
                weights = [weights]
        found = [losses.get(loss) for loss in given]
        for i, loss in enumerate(found):
            again = isinstance(loss, losses.TrainableLoss) and any(loss is one for one in found[:i])
            if again:
                raise ValueError(
                    f"One {type(loss).__name__} is there twice: make an object for each place, or give it "
                    "twice the weight."
                )
        names = [getattr(loss, "name", None) or snake_case(type(loss).__name__) for loss in found]
        self.weighting = example_weighting.checked(weighting)
        if not isinstance(teacher, list | tuple):
            teacher = [teacher] * len(found)
        elif len(teacher) != len(found):
            raise ValueError(
                f"There are {len(teacher)} teachers for {len(found)} losses: give one teacher for each loss, "
                "in their order (the same one may be there several times), or teachers.Ensemble."
            )
        self.terms = [
            soft_loss.Term(
                loss, weight, keras.metrics.Mean(name=name), *_layers(loss, whose, student)
            )
            for loss, whose, weight, name in zip(
                found,
                teacher,
                checks.loss_weights(weights, len(found)),
                checks.metric_names(names),
                strict=True,
            )
        ]

    @property
    def losses(self) -> list:
        """The losses."""
        return [term.loss for term in self.terms]

    @property
    def weights(self) -> list:
        """Their weights, numbers or schedules."""
        return [term.weight for term in self.terms]

    @property
    def trackers(self) -> list[keras.metrics.Metric]:
        """The metrics that show them."""
        return [term.tracker for term in self.terms]

    @property
    def student_layers(self) -> list[str]:
        """The names of the student's inner layers that are read."""
        names = [term.student_layers for term in self.terms]
        return [name for name in keras.tree.flatten(names) if name is not None]

    @property
    def need_teacher(self) -> bool:
        """Whether any of them reads what a teacher says."""
        return self.weighting is not None or any(term.needs_teacher for term in self.terms)

    @property
    def trainable(self) -> list[soft_loss.Term]:
        """Those whose losses have weights of their own, or will."""
        return [term for term in self.terms if isinstance(term.loss, losses.TrainableLoss)]

    @property
    def built(self) -> bool:
        """Whether the losses that have weights have made them."""
        return all(term.loss.built for term in self.trainable)

    def tap(self, teacher: Teacher) -> None:
        """Let the teacher's answers hold the inner layers that the losses read."""
        for number, term in enumerate(self.terms):
            names = [name for name in keras.tree.flatten(term.teacher_layers) if name is not None]
            teacher.of_loss(number).tap(names)

    def build(self, targets, answer: Answer, student, teacher: Teacher | None = None) -> None:
        """Make the connectors and other weights of the losses for answers of these shapes.

        Args:
            targets: the teacher's answer to any batch, or a symbolic one.
            answer: the student's.
            student: the model, to compare the sizes.
            teacher: whose layers are looked at, where it has some.

        Raises:
            ValueError: a loss that was built for other shapes.
        """
        for number, term in enumerate(self.terms):
            if not isinstance(term.loss, losses.TrainableLoss):
                continue
            shapes = [
                [(None, *one.shape[1:]) for one in keras.tree.flatten(read)]
                for read in term.read(targets.of_loss(number), answer)
            ]
            if not term.loss.built:
                if term.teacher_layers and teacher:
                    names = keras.tree.flatten(term.teacher_layers)
                    whose = teacher.of_loss(number)
                    term.loss.look_at([whose.find_layer(name) for name in names])
                term.loss.build(*shapes)
                term.loss.built_for = shapes
                _warn_of_size(term.loss, student)
            else:
                _warn_of_reuse(term.loss, shapes)

    def values(self, batch, targets, answer: Answer, hard_losses) -> list:
        """Return the weighted value of each loss, and note the bare ones in the trackers."""
        weighted = []
        for number, term in enumerate(self.terms):
            theirs = targets.of_loss(number)
            value = soft_loss.value(
                term, batch, theirs, answer, hard_losses, self.weighting, self._columns(term)
            )
            own = getattr(term.loss, "beside", None)
            if own is not None:
                value = value - own
                batch.beside.append(own)
            term.tracker.update_state(value, sample_weight=batch.rows)
            weighted.append(schedules.value(term.weight) * value)
        return weighted

    def _columns(self, term: soft_loss.Term):
        """The teacher's columns of the student's classes, as this loss or another on its output says."""
        others = [other for other in self.terms if other.output == term.output]
        found = (getattr(one.loss, "class_indices", None) for one in (term, *others))
        return next((columns for columns in found if columns is not None), None)


def _layers(loss, teacher, student) -> tuple:
    """The layers of teacher and student that `loss` reads; layers of these networks where it says "auto"."""
    names = [getattr(loss, f"{whose}_layer_name", None) for whose in ("teacher", "student")]
    for name in names:
        several = isinstance(name, list | tuple) and len(name) > 0
        if name is None or all(isinstance(one, str) for one in (name if several else [name])):
            continue
        raise ValueError(
            f"{type(loss).__name__} reads layers by name, a string or a list of some, got {name!r}."
        )
    if names[0] != "auto":
        return tuple(names)
    if not isinstance(teacher, keras.Model):
        raise ValueError(
            f"{type(loss).__name__}('auto') looks for layers in the teacher, which must be a keras.Model for "
            f"that, got {type(teacher)}: use losses on outputs, such as SoftTargets."
        )
    pairs = suggest_pairs(teacher, student)
    if getattr(loss, "reads_one_layer", False):
        return pairs[-1]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _warn_of_reuse(loss, shapes) -> None:
    built_for = getattr(loss, "built_for", None)
    if built_for is None:  # built by nobody else
        return
    if built_for != shapes:
        raise ValueError(
            f"This {type(loss).__name__} has weights for features of the shapes {built_for}, and these "
            f"networks have {shapes}: make a new one for each Distiller."
        )
    warnings.warn(
        f"This {type(loss).__name__} has weights from another Distiller and goes on with them: make a new "
        "one for a training of its own.",
        stacklevel=6,
    )


def _warn_of_size(loss, student) -> None:
    own = trainable_size(loss)
    if loss.learns_for_student and student.built and own > student.count_params():
        or_else = ", or pass a connector= of your own" if hasattr(loss, "connector") else ""
        warnings.warn(
            f"{type(loss).__name__} has {own:,} weights of its own, more than the student's "
            f"{student.count_params():,}: it may learn in the student's place; name layers of fewer "
            f"channels{or_else}.",
            stacklevel=5,
        )
