"""Relations between examples, learned by contrast: CRD.

The two networks' embeddings of one example shall be closer than those of different examples:

    ContrastiveDistillation("avg_pool", "pool")                       # than others of the batch
    ContrastiveDistillation("avg_pool", "pool", bank_size=len(x))     # than others of a memory bank

With a memory bank each example has a number, 0 to `bank_size` − 1, which the batch carries: `fit({"image": x,
"index": np.arange(len(x))}, y)` with `student_inputs="image"` and `teacher_inputs="image"`.
"""

import keras
from keras import ops

from keras_distill import schedules
from keras_distill.losses.base import mean_over_examples
from keras_distill.losses.feature_loss import TrainableLoss
from keras_distill.losses.shapes import normalized
from keras_distill.losses.weights import averaged, paired

_NEVER = -1e30  # a logit
_UNSEEN = -(2**31)  # the class of an example that the bank has not seen


@keras.saving.register_keras_serializable(package="keras_distill")
class ContrastiveDistillation(TrainableLoss):
    """Contrastive representation distillation (CRD): an example's two embeddings are closest to each other.

    `½ · mean_i [−log softmax_j(s_i·t_j / τ)[i] − log softmax_j(t_i·s_j / τ)[i]]`, where s and t are linear
    maps of the features (averaged over positions first), of L2 norm 1. Where labels name classes, others of
    the batch with the same class are no negatives. With a memory bank, `negatives` of its rows are drawn as
    further j in each step, those of the same class left out; a row is a running mean of an example's
    embeddings.

    When: the student's representation is to be used for more than the classes it learns.

    Args:
        teacher_layer_name, student_layer_name: path of a layer of each network; None for the outputs.
        dimensions: of the embeddings.
        temperature: τ.
        bank_size: the number of training examples, for a memory bank; None: the batch alone.
        negatives: rows that are drawn from the bank in a step.
        momentum: of the bank's running means, 0 (the last embedding alone) to 1.
        index: where the batch has the examples' numbers: a key, or a callable from the batch.
        output, name: see `FeatureLoss`.

    Attributes:
        of_teacher, of_student: the embeddings, Dense layers with bias.

    Customary weights: 1 for the hard labels, 0.8 for this loss, and 1 for soft targets beside it.
    Source: Tian et al. 2020, arXiv 1910.10699 (there with noise-contrastive estimation); InfoNCE: van den
    Oord et al. 2018, arXiv 1807.03748.
    """

    customary_weights = (1.0, 0.8)
    reads_one_layer = True

    def __init__(
        self,
        teacher_layer_name=None,
        student_layer_name=None,
        dimensions=128,
        temperature=0.07,
        bank_size=None,
        negatives=4096,
        momentum=0.5,
        index="index",
        output=None,
        name=None,
    ):
        super().__init__(teacher_layer_name, student_layer_name, output, name)
        self.dimensions = schedules.whole("dimensions", dimensions)
        self.temperature = schedules.checked(
            "temperature", temperature, above=True, advice="0.07 is customary"
        )
        self.bank_size = None if bank_size is None else schedules.whole("bank_size", bank_size, 2)
        self.negatives = schedules.whole("negatives", negatives)
        self.momentum = schedules.fixed("momentum", momentum, highest=1.0)
        self.index = index
        self.seed = keras.random.SeedGenerator() if bank_size else None

    def build(self, teacher_shapes, student_shapes):
        """Make the weights for a list with the shape of the one layer of each network."""
        if len(student_shapes) != 1:
            raise ValueError(
                f"ContrastiveDistillation reads one layer of each network, got {len(student_shapes)}: use "
                "one loss for each."
            )
        self.of_teacher, self.of_student = (
            keras.layers.Dense(self.dimensions, name=name, dtype="float32")
            for name in ("of_teacher", "of_student")
        )
        self.of_teacher.build((None, teacher_shapes[0][-1]))
        self.of_student.build((None, student_shapes[0][-1]))
        if self.bank_size:
            spread = keras.initializers.RandomUniform(-1.0, 1.0, seed=self.seed)
            self.banks = [
                self.add_weight(
                    (self.bank_size, self.dimensions), spread, trainable=False, name=f"{whose}_bank"
                )
                for whose in ("teacher", "student")
            ]
            for bank in self.banks:
                bank.assign(normalized(bank))
            self.classes = self.add_weight(
                (self.bank_size,),
                keras.initializers.Constant(_UNSEEN),
                dtype="int32",
                trainable=False,
                name="classes",
            )

    def compute_loss(
        self,
        teacher_outputs,
        student_outputs,
        labels=None,
        sample_weight=None,
        mask=None,
        indices=None,
    ):
        """Return the loss of a batch, a scalar.

        Args:
            teacher_outputs: `(batch, ..., channels)`.
            student_outputs: the same of the student.
            labels: class numbers `(batch,)`, or one-hot `(batch, classes)`; labels of other forms, and None,
                name no classes: then all others are negatives.
            sample_weight: `(batch,)`, `(batch, positions...)` or None; rows of weight 0 are no negatives
                either.
            mask: `(batch, positions...)`, or None.
            indices: the examples' numbers `(batch,)`, with a memory bank.

        Raises:
            ValueError: several layers, or no indices for the bank.
        """
        layers = paired(teacher_outputs, student_outputs, mask, sample_weight)
        self.build_for(layers)
        teacher, student, weights = layers[0]
        teacher = normalized(self.of_teacher(averaged(teacher, weights)))
        rows = weights.at(student).rows
        student = normalized(self.of_student(averaged(student, weights)))
        classes = _classes(labels)
        if not self.bank_size:
            return contrastive_distillation(
                teacher, student, classes, rows, schedules.value(self.temperature)
            )
        if indices is None:
            raise ValueError(
                "A memory bank needs the examples' numbers: put them into the batch under the key "
                f"{self.index!r} (fit({{'image': x, 'index': np.arange(len(x))}}, y)), or pass indices=."
            )
        return self._with_bank(teacher, student, classes, rows, indices)

    def _with_bank(self, teacher, student, classes, weights, indices):
        indices = ops.cast(ops.reshape(indices, (-1,)), "int32")
        drawn = keras.random.randint((self.negatives,), 0, self.bank_size, seed=self.seed)
        alike = ops.equal(indices[:, None], drawn[None, :])
        if classes is not None:
            same = ops.equal(classes[:, None], ops.take(self.classes, drawn)[None, :])
            alike = ops.logical_or(alike, same)
        further = [(ops.take(bank, drawn, axis=0), alike) for bank in self.banks]
        value = contrastive_distillation(
            teacher, student, classes, weights, schedules.value(self.temperature), *further
        )
        for bank, embeddings in zip(self.banks, (teacher, student), strict=True):
            before = ops.take(bank, indices, axis=0)
            after = self.momentum * before + (1.0 - self.momentum) * ops.stop_gradient(embeddings)
            change = normalized(after) - before
            if weights is not None:
                change = change * ops.cast(weights > 0, "float32")[:, None]
            bank.assign(ops.scatter_update(bank, indices[:, None], before + change))
        if classes is not None:
            classes = ops.where(classes < 0, _UNSEEN, classes)
            if weights is not None:
                classes = ops.where(weights > 0, classes, ops.take(self.classes, indices))
            self.classes.assign(ops.scatter_update(self.classes, indices[:, None], classes))
        return value

    def get_config(self):
        """Return the arguments of the constructor."""
        own = ("dimensions", "temperature", "bank_size", "negatives", "momentum", "index")
        return {**self.config_of(*own), **super().get_config()}


def contrastive_distillation(
    teacher,
    student,
    classes=None,
    sample_weight=None,
    temperature=0.07,
    teacher_bank=None,
    student_bank=None,
):
    """Return the InfoNCE loss of a batch, averaged over both directions, a scalar.

    Args:
        teacher: embeddings `(batch, dimensions)` of L2 norm 1.
        student: the same of the student.
        classes: integers `(batch,)`: others of the same class are no negatives; or None.
        sample_weight: `(batch,)`, or None.
        temperature: τ.
        teacher_bank: further embeddings `(n, dimensions)` and where they are no negatives, `(batch, n)` of
            booleans; or None.
        student_bank: the same of the student.
    """
    count = ops.shape(student)[0]
    itself = ops.equal(ops.arange(count)[:, None], ops.arange(count)[None, :])
    alike = itself if classes is None else ops.equal(classes[:, None], classes[None, :])
    if sample_weight is not None:
        alike = ops.logical_or(alike, ops.equal(sample_weight, 0)[None, :])
    left_out = ops.logical_and(alike, ops.logical_not(itself))

    def direction(anchors, others, bank):
        logits = ops.where(
            left_out, _NEVER, ops.matmul(anchors, ops.transpose(others)) / temperature
        )
        own = ops.sum(anchors * others, axis=-1) / temperature
        if bank is not None:
            rows, skipped = bank
            more = ops.matmul(anchors, ops.transpose(rows)) / temperature
            logits = ops.concatenate([logits, ops.where(skipped, _NEVER, more)], axis=-1)
        return ops.logsumexp(logits, axis=-1) - own

    values = direction(student, teacher, teacher_bank) + direction(teacher, student, student_bank)
    return 0.5 * mean_over_examples(values, sample_weight)


def _classes(labels):
    """Class numbers `(batch,)`, or None where the labels are not of this form.

    A label that is no class, such as a number to be regressed, several classes at once or a share of each,
    gets a number below 0 that no other example has.
    """
    if labels is None or keras.tree.is_nested(labels):
        return None
    labels = ops.convert_to_tensor(labels)
    if len(labels.shape) == 2 and labels.shape[-1] == 1:
        labels = ops.squeeze(labels, axis=-1)
    if len(labels.shape) > 2:
        return None
    labels = ops.cast(labels, "float32")
    if len(labels.shape) == 2:
        one_hot = ops.logical_and(ops.sum(labels, -1) == 1, ops.max(labels, -1) == 1)
        one_hot = ops.logical_and(one_hot, ops.min(labels, -1) == 0)
        found = ops.argmax(labels, axis=-1)
    else:
        found, one_hot = labels, ops.logical_and(labels == ops.round(labels), labels >= 0)
    itself = -1 - ops.arange(ops.shape(labels)[0])
    return ops.where(one_hot, ops.cast(found, "int32"), ops.cast(itself, "int32"))
