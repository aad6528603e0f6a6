"""Distiller: a student learns from a teacher's answers and from the hard labels, with `fit`.

distiller = kd.Distiller(teacher, student, kd.losses.SoftTargets(temperature=4.0), student_loss_weight=0.1)
distiller.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
distiller.fit(x, y, epochs=30, validation_data=(x_val, y_val))
distiller.student.save("student.keras")         # a plain Keras model
"""

import warnings

import keras

from keras_distill import balancing, checks, hard_loss, losses, train_step
from keras_distill.losses.logit_loss import LogitLoss
from keras_distill.mixed_loss import MixedLoss
from keras_distill.network import Answer, Network
from keras_distill.ranges import InputRanges
from keras_distill.soft_loss import Batch
from keras_distill.soft_terms import SoftTerms
from keras_distill.teachers import ModelTeacher, NoTeacher, PerLoss, Teacher, as_teacher

_RANGES = "input_ranges"


@keras.saving.register_keras_serializable(package="keras_distill")
class Distiller(MixedLoss):
    """Trains a student on a teacher's answers and on the hard labels; a superset of Keras's Distiller.

    The loss in training is `s·student_loss + (1 − s)·Σ wᵢ·lossᵢ + regularisation of the student`, where s is
    `student_loss_weight`. `evaluate` and `predict` run the student alone. Teacher and student each run once
    in a step, whatever the number of losses.

    Args:
        teacher: a trained `keras.Model` (it is frozen), one of `keras_distill.teachers`, or stored labels
            (`SoftLabels`); a list of these with one for each loss; None where no loss reads one
            (`losses.VirtualTeacher`).
        student: the `keras.Model` to train.
        distillation_losses: one of `keras_distill.losses` (or `keras.distillation`), its name, or a list.
        distillation_loss_weights: the wᵢ, each a number ≥ 0 or a schedule (`schedules.warm_up(20)`); None
            for 1. 1000 is usual for some losses, see `losses.mix`.
        student_loss_weight: s, from 0 (no labels needed) to 1 (the teacher is not asked).
        teacher_inputs: None, a key into the batch, or a callable from the batch to the teacher's inputs; a
            list of these for a list of teachers.
        student_inputs: the same for the student.
        teacher_activation: what the teacher's outputs are: "linear" (logits), "softmax", "sigmoid", or "auto"
            to look at its last layer; for several outputs also a structure of these, for a list of teachers
            a list.
        student_activation: the same for the student.
        example_weighting: None, or by what the soft losses weigh examples: "confidence", "margin",
            "true_label", or a function of (teacher_logits, labels); see `example_weighting`.
        loss_balancing: None, or "uncertainty" for weights of the losses that are learned, starting from the
            given ones; see `balancing`.
        name: the model's name.
        **kwargs: as for `keras.Model`.

    Attributes:
        teacher, student: as given; `student` is a plain Keras model, nothing of the teacher in it. After
            `fit` it has `recorded_input_ranges`, (lowest, highest) of each input.

    Raises:
        ValueError: an argument that cannot be meant; the sentence says what to pass.
    """

    def __init__(
        self,
        teacher,
        student,
        distillation_losses,
        distillation_loss_weights=None,
        student_loss_weight=0.5,
        teacher_inputs=None,
        student_inputs=None,
        teacher_activation="auto",
        student_activation="auto",
        example_weighting=None,
        loss_balancing=None,
        name="distiller",
        **kwargs,
    ):
        if not isinstance(student, keras.Model):
            raise ValueError(f"Student must be a keras.Model, got {type(student)}")
        # The student's policy: with mixed_float16, `compile` then scales the loss.
        kwargs.setdefault("dtype", student.dtype_policy)
        given = _as_given(teacher)
        terms = SoftTerms(
            distillation_losses, distillation_loss_weights, given, student, example_weighting
        )
        super().__init__(terms, student_loss_weight, name=name, **kwargs)
        self.loss_balancing = balancing.get(loss_balancing)
        if self.loss_balancing is not None:
            checks.can_be_balanced(terms.losses)
            if not self.loss_balancing.built:
                self.loss_balancing.build(1 + len(terms.losses))
        # A plain object, so that the teacher's variables are neither trained, saved nor counted here.
        self._teacher = _as_teacher(teacher, teacher_inputs, teacher_activation, terms, student)
        self._following = self._teacher.state  # trained and saved here
        self.student = student
        self.student_inputs = student_inputs  # a layer with weights is trained and saved here
        self._network = Network(student, student_inputs, student_activation, terms.student_layers)
        self._check_models()
        self._prepare()
        inputs = [one.name for one in getattr(student, "inputs", None) or []]
        self._input_ranges = InputRanges(len(inputs) or 1, inputs)
        self._teacher_was_set = False  # since `compile`
        self._checked = False

        self.built = student.built

    # What it is made of

    @property
    def teacher(self):
        """The teacher as it was given."""
        return _as_given(self._teacher)

    @property
    def output_names(self):
        """The student's, for `compile` and the names of metrics."""
        return getattr(self.student, "output_names", None)

    def __dir__(self):
        # Keras saves whatever it finds by `dir`; the teacher belongs to `save_assets` alone.
        return [name for name in super().__dir__() if name != "teacher"]

    def _check_models(self) -> None:
        checks.one_device(self.distillation_losses, self.distribute_strategy.num_replicas_in_sync)
        for one in self._teacher.models:
            for layer in (self.student, self.student_inputs):
                if isinstance(layer, keras.Layer):
                    checks.no_shared_weights(one.model, layer)
            if one.network.inputs is None and self._network.inputs is None:
                checks.same_inputs(one.model, self.student)
        for number, term in enumerate(self.soft_terms.terms):
            checks.warn_unconfigured(term.loss)
            if term.student_layers:
                checks.channels_last(self.student, "student")
            whose = self._teacher.of_loss(number)
            if term.teacher_layers:
                for one in whose.models:
                    checks.channels_last(one.model, "teacher")
            if not isinstance(whose, ModelTeacher):
                continue
            teacher = whose.model
            term.loss.validate_model_compatibility(teacher, self.student)
            if term.teacher_layers:
                continue  # it reads no outputs
            if term.output is None:
                checks.same_order(teacher, self.student)
            if not isinstance(term.loss, losses.DistillationLoss):
                checks.same_outputs(teacher, self.student)

    def _prepare(self, x=None, y=None) -> None:
        """Make the weights of losses that have some: from what the networks show, or a batch."""
        if not self.soft_terms.trainable:
            return
        if x is None:
            targets, answer = self._teacher.spec(), self._network.spec()
        else:
            targets, answer = self.targets(x, y), self._network(x, training=False)
        if targets is not None and answer is not None:
            with self.distribute_strategy.scope():
                self.soft_terms.build(targets, answer, self.student, self._teacher)

    # Compile

    def compile(
        self,
        optimizer="adam",
        loss=None,
        metrics=None,
        loss_weights=None,
        weighted_metrics=None,
        jit_compile="auto",
        fold_teacher="auto",
        **kwargs,
    ):
        """Configure the training, as `keras.Model.compile` does.

        Args:
            optimizer: for the student (and the losses that have weights).
            loss: the hard loss. A string gets the student's `from_logits`; a loss object is used as given.
                None is allowed with `student_loss_weight=0`.
            metrics: computed on the student's outputs as they are; for several outputs as in Keras.
            jit_compile: as in Keras; off for a teacher that XLA cannot compile, such as a Python function.
            fold_teacher: whether `fit` makes the teacher's weights constants of the compiled step. A step is
                then faster, the first one slower (by seconds, and 15 times the weights in memory), and the
                answers are the same but for rounding. "auto": without GPU, XLA or several devices, up to
                64 MiB of weights, until they are set. True: up to 256 MiB, else ValueError. Weights that are
                set after all count from the next step where all are set, from the next epoch where it is a
                single one of many.
            **kwargs: as for `keras.Model.compile`.

        Raises:
            ValueError: no loss although the hard labels count, or metrics that are no list.
        """
        per_output = len(self.output_names or ()) != 1
        self.check_compile(loss, (metrics, weighted_metrics), per_output)
        if jit_compile and not self._teacher.compilable:
            if jit_compile is True:
                warnings.warn(
                    f"jit_compile is off: {type(self._teacher).__name__} runs in Python, or has layers that "
                    "XLA cannot compile.",
                    stacklevel=2,
                )
            jit_compile = False
        if fold_teacher not in (True, False, "auto"):
            raise ValueError(f"fold_teacher={fold_teacher!r}: give True, False or 'auto'.")
        arguments = {
            "optimizer": optimizer,
            "loss": loss,
            "metrics": metrics,
            "loss_weights": loss_weights,
            "weighted_metrics": weighted_metrics,
            "jit_compile": jit_compile,
            **kwargs,
        }
        self._teacher_was_set = self._checked = False  # another loss may read what another did not
        self._hard_loss = hard_loss.resolve(
            loss, self._shown_activations(by_name=isinstance(loss, dict))
        )
        super().compile(**{**arguments, "loss": self._hard_loss})
        self.compiled_with({**arguments, "fold_teacher": fold_teacher})

    def _shown_activations(self, by_name: bool):
        kinds = [head.activation if head.known else None for head in self._network.heads]
        if by_name and self.output_names and not isinstance(self.student.output_shape, dict):
            return dict(zip(self.output_names, kinds, strict=True))
        if len(kinds) == 1:
            return kinds[0]
        shapes = self.student.output_shape
        if isinstance(shapes, dict):  # flat lists are in the order of keras.tree, not of the dict
            return keras.tree.pack_sequence_as(dict.fromkeys(shapes, 0), kinds)
        return kinds

    # The step

    def call(self, inputs, training=None, **kwargs):
        """Return the student's outputs."""
        inputs = self._network.select(inputs, bool(training))
        return self.student(inputs, training=training, **kwargs)

    def targets(self, x, y=None):
        """Return the teacher's answer, or None where it does not count."""
        if self.student_loss_weight == 1:
            return None
        teacher = self._teacher if self.soft_terms.need_teacher else NoTeacher()
        return teacher.targets(x, y)

    def forward(self, x, training: bool) -> Answer:
        """Run the student once, inner layers included."""
        inputs = self._network.select(x, training)
        if train_step.replicas() == 1:  # one variable cannot follow several devices at once
            self._input_ranges.note(inputs)
        answer = self._network.answer(inputs, training)
        self.built = True  # Keras would set this in `self(x)`, which training does not call
        return answer

    def after_step(self, x, answer: Answer) -> None:
        """Let a teacher follow that follows the student."""
        self._teacher.update(x, answer)

    def soft(self, batch: Batch, answer: Answer, targets) -> list:
        """Return the weighted value of each distillation loss."""
        return self.soft_terms.values(batch, targets, answer, self._hard_loss)

    def trained(self) -> list:
        """Return the student, its inputs and the losses."""
        return [self.student, self.student_inputs, *self.soft_terms.losses]

    def answer_of(self, x, y_pred) -> Answer:
        """Return the student's answer, out of `y_pred` where that is all of it."""
        if y_pred is None or self._network.layer_names:
            return self.forward(x, training=True)
        return self._network.read(y_pred)

    def wants_batch(self) -> bool:
        """Whether a network ends in a way that is not known, or a loss waits for the shapes of features."""
        if not self.compiled or self._checked:
            return False
        return self._asks_teacher() or self._asks_student() or not self.soft_terms.built

    def look(self, x, y=None) -> None:
        """Refuse what looks like probabilities where logits are assumed; make the weights of losses."""
        with self.distribute_strategy.scope():
            if self._asks_teacher():
                self._teacher.check_looks(x)
            if self._asks_student():
                self._network.check_looks(self(x, training=False))
            if not self.soft_terms.built:
                self._prepare(x, y)
        self._checked = True

    def cannot_look(self, x) -> None:
        """Refuse data of which no batch can be had, where the shapes of features wait for one."""
        if not self.soft_terms.built:
            names = ", ".join(type(term.loss).__name__ for term in self.soft_terms.trainable)
            raise ValueError(
                f"{names} waits for the shapes of features, and no batch can be taken out of "
                f"{type(x).__name__} to know them: call teacher and student on a batch before making the "
                "Distiller, or give arrays or a tf.data.Dataset."
            )

    def views(self) -> int | None:
        """Return how many views stored labels are of."""
        return self._teacher.views

    def changed_by_forward(self) -> list:
        """Return what is the student's; what of the teacher follows it changes after the step."""
        later = {id(one) for layer in self._following for one in layer.variables}
        return [one for one in super().changed_by_forward() if id(one) not in later]

    def output_spec(self):
        """Return the student's symbolic outputs; a subclassed model has none."""
        return getattr(self.student, "output", None)

    def begin(self, anew: bool) -> None:
        """Forget what is of an earlier training; make the teacher's weights constants."""
        if anew:
            self._input_ranges.forget()
            self._teacher.begin()
        if not self.compiled:
            return
        self.before_epoch()
        if_pays = self.compile_arguments()["fold_teacher"] == "auto"
        if self._teacher.fold(if_pays) if self._folds() else self._teacher.unfold():
            self.train_function = None  # `fit` traces another one

    def before_epoch(self) -> None:
        """Let the teacher's variables count again if somebody has set them."""
        if self._teacher.unfold(if_set=True):
            self._teacher_was_set = True
            self.make_train_function(force=True)

    def after_epoch(self) -> None:
        """Tell the student what range of inputs it has seen, for `tflite_export`."""
        self.student.recorded_input_ranges = self._input_ranges.values()

    def _folds(self) -> bool:
        fold = self.compile_arguments()["fold_teacher"]
        if self.student_loss_weight == 1:
            return False  # nobody asks the teacher
        if fold != "auto":
            return fold
        several = self.distribute_strategy.num_replicas_in_sync > 1
        # Who sets the weights once sets them again, and each graph stays in memory (Keras 3.15).
        if several or self.jit_compile or self.run_eagerly or self._teacher_was_set:
            return False
        return self._teacher.folding_pays

    def _reads_logits(self) -> bool:
        losses_ = (isinstance(loss, LogitLoss) for loss in self.distillation_losses)
        return self.student_loss_weight < 1 and any(losses_)

    def _asks_teacher(self) -> bool:
        return self._reads_logits() and not self._teacher.known

    def _asks_student(self) -> bool:
        known = all(head.known for head in self._network.heads)
        given = self.compile_arguments()["loss"]
        return not known and (self._reads_logits() or hard_loss.assumes_logits(given))

    def train_on_batch(self, x, y=None, *args, **kwargs):
        """As `keras.Model.train_on_batch`."""
        if self.wants_batch():
            self.look(x, y)
        self.before_epoch()
        return super().train_on_batch(x, y, *args, **kwargs)

    def summary(self, line_length=None, print_fn=None, **kwargs):
        """Print which layer of the teacher teaches which of the student, through what, with what weight.

        Args:
            line_length: of the table, in characters.
            print_fn: called with the text; None to print it.
            **kwargs: those of `keras.Model.summary` are accepted; `student.summary()` shows the student.
        """
        from keras_distill import overview  # for its tables, of rich

        text = overview.text(self, self._teacher.spec(), self._network.spec(), line_length)
        (print_fn or print)(text)

    def export(self, filepath, *args, **kwargs):
        """Export the student, as `keras.Model.export`."""
        return self.student.export(filepath, *args, **kwargs)

    # Saving

    def get_config(self):
        """Return the arguments of the constructor, serialised; weights are saved beside it."""
        network = self._network
        teacher = self._teacher.network if isinstance(self._teacher, ModelTeacher) else None
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "teacher": serialize(
                self._teacher if isinstance(self._teacher, PerLoss) else self.teacher
            ),
            "student": serialize(self.student),
            "distillation_losses": [serialize(loss) for loss in self.soft_terms.losses],
            "distillation_loss_weights": [serialize(weight) for weight in self.soft_terms.weights],
            "student_loss_weight": self.student_loss_weight,
            "teacher_inputs": serialize(teacher.inputs) if teacher else None,
            "student_inputs": serialize(network.inputs),
            "teacher_activation": teacher.activation if teacher else "auto",
            "student_activation": network.activation,
            "example_weighting": serialize(self.soft_terms.weighting),
            "loss_balancing": serialize(self.loss_balancing),
        }

    @classmethod
    def from_config(cls, config):
        """Return the distiller that `get_config` describes."""
        config = dict(config)
        deserialize = keras.saving.deserialize_keras_object
        for key in ("teacher", "student", "teacher_inputs", "student_inputs", "loss_balancing"):
            config[key] = deserialize(config[key])
        if isinstance(config["example_weighting"], dict):  # a function, not the name of a rule
            config["example_weighting"] = deserialize(config["example_weighting"])
        for key in ("distillation_losses", "distillation_loss_weights"):
            config[key] = [deserialize(one) for one in config[key]]
        return cls(**config)

    def get_build_config(self):
        """None: the student is built by its own."""

    def save_own_variables(self, store):
        """Store the range of the inputs too."""
        super().save_own_variables(store)
        store[_RANGES] = self._input_ranges.state()

    def load_own_variables(self, store):
        """Read what `save_own_variables` stored."""
        own = {key: store[key] for key in store.keys() if key != _RANGES}  # noqa: SIM118
        super().load_own_variables(own)
        if not self.soft_terms.built:
            self._prepare()  # the networks may know by now
        if not self.soft_terms.built:
            warnings.warn(
                "The losses of this Distiller have no weights yet, as the shapes of their features are not "
                "known, so none are loaded: call the networks on a batch before making the Distiller.",
                stacklevel=2,
            )
        if _RANGES in store.keys():  # noqa: SIM118
            self._input_ranges.restore(store[_RANGES])

    def save(self, filepath, *args, **kwargs):
        """As `keras.Model.save`; the file holds the teacher too.

        Raises:
            ValueError: the teacher cannot be saved. Nothing is written then.
        """
        self.get_config()  # Keras would find out with the file half written
        super().save(filepath, *args, **kwargs)

    def save_assets(self, dir_path):
        """Write the teacher's weights into the file that `save` makes."""
        self._teacher.save_assets(str(dir_path))

    def load_assets(self, dir_path):
        """Read what `save_assets` wrote."""
        self._teacher.load_assets(str(dir_path))


def _as_teacher(teacher, inputs, activation, terms: SoftTerms, student) -> Teacher:
    """What the user gave as a `Teacher` that shows the layers which the losses read."""
    if teacher is None and not terms.need_teacher:
        return NoTeacher()
    if isinstance(teacher, list | tuple):
        teacher, inputs, activation = PerLoss(teacher, inputs, activation), None, "auto"
    teacher = as_teacher(teacher, inputs, activation)
    teacher.follow(student)
    terms.tap(teacher)
    return teacher


def _as_given(teacher):
    """What the user gave: models where they are models, a list where there is one for each loss."""
    if isinstance(teacher, NoTeacher):
        return None
    if isinstance(teacher, PerLoss):
        return teacher.as_given
    return teacher.model if type(teacher) is ModelTeacher else teacher
