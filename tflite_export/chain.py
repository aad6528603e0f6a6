"""From a teacher and a student to a verified int8 file, by the shortest way that keeps the accuracy.

    result = distill_and_export(teacher, student, x_train, y_train, "student.tflite",
                                validation_data=(x_test, y_test), loss="sparse_categorical_crossentropy")
    print(result)                       # what was tried: accuracy, agreement, bytes; what was kept, and why
    result.exported.path

Distil in floats; quantise after training; if that costs accuracy, distil on with the rounding of the file
in the student, from the same float teacher, and freeze statistics and ranges for the end (Polino et al.
2018, arXiv 1802.05668; Jacob et al. 2018, arXiv 1712.05877, section 3.1). The one file here that imports
keras_distill.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras

from keras_distill.chains import Trainings
from tflite_export.altered import strip
from tflite_export.export import Exported, export
from tflite_export.quantize_aware import QuantizeAware, quantize_aware
from tflite_export.verify import verify
from tflite_export.whole_file import write_whole

ACCEPTABLE_DROP = 0.005
FLOAT, AFTER, AWARE = "float16", "int8 after training", "int8 quantisation-aware"


@dataclass(frozen=True)
class Candidate:
    """A file that was tried, measured on the validation data.

    Attributes:
        name: FLOAT, AFTER or AWARE.
        accuracy: share of right answers; None where the data have no labels.
        agreement: share of answers that are those of the float student distilled first.
        size_bytes: of the file.
    """

    name: str
    accuracy: float | None
    agreement: float
    size_bytes: int

    @property
    def score(self) -> float:
        """What candidates are compared by."""
        return self.agreement if self.accuracy is None else self.accuracy


@dataclass(frozen=True)
class DistilledFile:
    """What `distill_and_export` returns.

    Attributes:
        exported: the file that was kept.
        chosen: its name among the candidates.
        why: a sentence.
        float_accuracy: of the float student; None without labels.
        candidates: what was tried, in this order.
        student: the float student: that of the file.
        aware: the quantisation-aware student, if one was trained.
        history: {"float": …, "aware": …, "frozen": …} of the trainings that there were.
    """

    exported: Exported
    chosen: str
    why: str
    float_accuracy: float | None
    candidates: tuple[Candidate, ...]
    student: Any
    aware: QuantizeAware | None = None
    history: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        rows = [("", "accuracy", "agrees with float", "bytes")]
        rows.append(("float student", _percent(self.float_accuracy), "", ""))
        rows += [
            (c.name, _percent(c.accuracy), _percent(c.agreement), f"{c.size_bytes:,}")
            for c in self.candidates
        ]
        widths = [max(len(row[n]) for row in rows) for n in range(4)]
        lines = [
            "  ".join(
                [row[0].ljust(widths[0])]
                + [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
            )
            for row in rows
        ]
        return "\n".join([*lines, self.why])


def distill_and_export(
    teacher: Any,
    student: Any,
    x: Any,
    y: Any = None,
    path: str | os.PathLike[str] = "student.tflite",
    *,
    validation_data: Any,
    loss: Any = None,
    metrics: Any = None,
    epochs: int = 30,
    quantization_aware_epochs: int | None = None,
    acceptable_drop: float = ACCEPTABLE_DROP,
    optimizer: Any = "adam",
    quantization_aware_learning_rate: float = 1e-4,
    distillation_losses: Any = "soft_targets",
    distillation_loss_weights: Any = None,
    student_loss_weight: float = 0.1,
    representative_dataset: Any = None,
    verification_data: Any = None,
    distiller: Mapping[str, Any] | None = None,
    fit: Mapping[str, Any] | None = None,
    folder: str | os.PathLike[str] | None = None,
    **exporting: Any,
) -> DistilledFile:
    """Distil a student, and write the int8 file of it that costs no accuracy, or the float16 one.

    Args:
        teacher, student: as for `keras_distill.Distiller`; the student is trained in place.
        x, y: what to learn from, as for `fit`.
        path: of the file; one that exists is replaced when the new one is whole.
        validation_data: what the files are measured and chosen on, with labels or without; not the test data.
        loss, metrics: of the student, as for `compile`.
        epochs: in floats; 0 for a student that is trained already.
        quantization_aware_epochs: a fifth of `epochs`, at least 1, when None; the last quarter of them with
            BatchNormalization and ranges frozen. 0 to do without.
        acceptable_drop: how much less than the float student's a file's share of right answers may be to
            count as good as it.
        optimizer: of the float training.
        quantization_aware_learning_rate: of Adam, in the trainings that round; a tenth of it when frozen.
        distillation_losses, distillation_loss_weights, student_loss_weight: as for `Distiller`.
        representative_dataset: what the ranges start from: arrays, tf.data or batches; `x` when None.
        verification_data: `validation_data` in the form that the student takes, where `student_inputs`
            changes it.
        distiller: further arguments of `Distiller`, such as teacher_inputs and student_inputs.
        fit: further arguments of `fit`, such as batch_size and callbacks.
        folder: where the states of the trainings are kept, so that the same call goes on where it was
            killed; None for nowhere.
        **exporting: further arguments of `export`, such as labels and normalization.

    Raises:
        ValueError: the data have no classes to compare; what `Distiller`, `export` and `Resume` refuse.
    """
    for name in ("quantization", "model"):
        if name in exporting:
            raise ValueError(f"distill_and_export chooses {name} by itself: leave it out.")
    if acceptable_drop < 0:
        raise ValueError(
            f"acceptable_drop={acceptable_drop}: give 0 or more, as a share of all examples."
        )
    constructed = {
        "distillation_losses": distillation_losses,
        "distillation_loss_weights": distillation_loss_weights,
        "student_loss_weight": student_loss_weight,
        **(distiller or {}),
    }

    def train(name: str, network: Any, optimizer: Any, epochs: int) -> dict[str, list[Any]]:
        compiled = {"optimizer": optimizer, "loss": loss, "metrics": metrics}
        fitted = {**(fit or {}), "epochs": epochs, "validation_data": validation_data}
        trainings = Trainings(compiled, (x, y), fitted, folder, 1)
        return trainings.train(name, teacher, network, constructed)

    def train_aware(aware: QuantizeAware) -> dict[str, Any]:
        rate, frozen = quantization_aware_learning_rate, more // 4
        history = {"aware": train("aware", aware, keras.optimizers.Adam(rate), more - frozen)}
        if frozen:
            freeze(aware)
            last = keras.optimizers.Adam(rate / 10)
            history["frozen"] = train("frozen", aware, last, frozen)
        return history

    history = {}
    if epochs:
        history["float"] = train("float", student, optimizer, epochs)
    more = max(1, epochs // 5) if quantization_aware_epochs is None else quantization_aware_epochs
    result = smallest_as_good(
        student,
        path,
        train_aware if more else None,
        verification_data=validation_data if verification_data is None else verification_data,
        representative_dataset=x if representative_dataset is None else representative_dataset,
        acceptable_drop=acceptable_drop,
        exporting=exporting,
    )
    return dataclasses.replace(result, history={**history, **result.history})


def smallest_as_good(
    student: Any,
    path: str | os.PathLike[str],
    train_aware: Callable[[QuantizeAware], Mapping[str, Any]] | None,
    *,
    verification_data: Any,
    representative_dataset: Any,
    acceptable_drop: float,
    exporting: Mapping[str, Any],
) -> DistilledFile:
    """The second half of `distill_and_export`: from a trained float student to a file.

    Args:
        train_aware: trains the quantisation-aware student in place, and returns its history; it is called
            only if quantising after training costs more than `acceptable_drop`. None to do without.
    """
    aware, history = None, {}
    with _Files(student, verification_data, exporting) as files:
        after = files.add(AFTER, student, "int8", representative_dataset)
        if files.worse(after) <= acceptable_drop:
            why = (
                f"It answers as well as the float student, within {_percent(acceptable_drop)}: there was "
                "nothing for quantisation-aware training to win."
            )
            return files.keep(AFTER, path, why)
        if train_aware is not None:
            aware = quantize_aware(student, representative_dataset)
            history = dict(train_aware(aware))
            files.add(AWARE, aware)
        best = max(files.candidates, key=lambda one: one.score)
        kept, why = best.name, "It is the most accurate of the int8 files."
        if files.worse(best) > acceptable_drop:
            files.add(FLOAT, student, "float16")
            kept = FLOAT
            why = (
                f"Each int8 file loses more than {_percent(acceptable_drop)} against the float student "
                f"({best.name} {_percent(files.worse(best))}): train longer, keep the worst layers in floats "
                "(sensitivity, keep_float=), or raise acceptable_drop=."
            )
        trained = strip(aware) if aware is not None and kept == AWARE else student
        return files.keep(kept, path, why, trained, aware, history)


def freeze(aware: QuantizeAware) -> None:
    """Hold BatchNormalization and the ranges of activations as they are; compile anew afterwards."""
    for layer in (*aware._flatten_layers(), *aware.range_quantizers):
        if isinstance(layer, keras.layers.BatchNormalization) or layer in aware.range_quantizers:
            layer.trainable = False


class _Files:
    """The files that were tried, in a folder of their own until one is kept."""

    def __init__(self, student: Any, data: Any, exporting: Mapping[str, Any]):
        self._student, self._data, self._exporting = student, data, exporting
        self.candidates: list[Candidate] = []
        self._exported: dict[str, Exported] = {}
        self._accuracy: float | None = None

    def __enter__(self) -> _Files:
        self._folder = tempfile.TemporaryDirectory()
        return self

    def __exit__(self, *_: Any) -> None:
        self._folder.cleanup()

    def add(
        self, name: str, model: Any, quantization: str | None = None, examples: Any = None
    ) -> Candidate:
        file = Path(self._folder.name) / f"{len(self.candidates)}.tflite"
        exporting = dict(self._exporting)
        if quantization == "float16":  # its output is one of floats
            exporting.pop("inference_output_type", None)
        exported = export(model, file, quantization, examples, **exporting)
        found = verify(self._student, exported, self._data)
        if found.agreement is None:
            raise ValueError(
                "distill_and_export chooses by classes, and the student's output is a plain number: train "
                "with quantize_aware and a Distiller, and compare the files with verify."
            )
        if not self.candidates:
            self._accuracy = found.reference_accuracy
        self._exported[name] = exported
        self.candidates.append(
            Candidate(name, found.accuracy, found.agreement, exported.size_bytes)
        )
        return self.candidates[-1]

    def worse(self, one: Candidate) -> float:
        """How much less than the float student's a candidate's score is."""
        return (
            1.0 if one.accuracy is None or self._accuracy is None else self._accuracy
        ) - one.score

    def keep(
        self,
        name: str,
        path: Any,
        why: str,
        student: Any = None,
        aware: Any = None,
        history: Any = None,
    ) -> DistilledFile:
        exported = self._exported[name]
        written = write_whole(path, Path(exported.path).read_bytes())
        return DistilledFile(
            dataclasses.replace(exported, path=written),
            name,
            f"Kept: {name}. {why}",
            self._accuracy,
            tuple(self.candidates),
            self._student if student is None else student,
            aware,
            history or {},
        )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"
