"""The simple questions are answered on the device, the hard ones by the server.

    plan = cascade("student.tflite", teacher, (x, y), accuracy=0.97)
    print(plan)                     # coverage against accuracy, latency and bytes
    plan.threshold                  # answer on the device what scores at least this
    plan.write("student.tflite")    # into the file, for the app to read

The student answers where its best score is high enough; what scores less goes to the teacher (selective
classification: Geifman and El-Yaniv 2017, arXiv 1705.08500). The threshold is chosen on the data that are
given, so give validation data, and measure the one that was chosen on others.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tflite_export import metadata
from tflite_export.batches import batches, leaves, length, refuse_nan
from tflite_export.runtime import Interpreter, content_of, makers
from tflite_export.verification import class_numbers
from tflite_export.verify import runner
from tflite_export.whole_file import write_whole

_SHOWN = 11  # lines of the printed curve
_PROBABLE = ("SOFTMAX", "LOGISTIC")


@dataclass(frozen=True)
class CascadePoint:
    """What one threshold leads to.

    Attributes:
        threshold: the least score of an answer that the device gives by itself.
        coverage: share of examples that the device answers.
        accuracy: share of right answers, of the device and the server together.
        device_accuracy: share of right answers among those of the device; None where it gives none.
        latency_ms: mean of all examples; None where it was not said how long the parts take.
        bytes_sent: mean of all examples.
    """

    threshold: float
    coverage: float
    accuracy: float
    device_accuracy: float | None
    latency_ms: float | None
    bytes_sent: float


@dataclass(frozen=True)
class Cascade:
    """What `cascade` returns.

    Attributes:
        chosen: the point that was wished for.
        curve: all thresholds that make a difference, from "all on the device" to "all on the server".
        examples: how many it was measured on.
        standard_error: of the chosen point's accuracy.
        compared_with: "labels", or "the server" where the data have none.
    """

    chosen: CascadePoint
    curve: tuple[CascadePoint, ...]
    examples: int
    standard_error: float
    compared_with: str

    @property
    def threshold(self) -> float:
        """The chosen threshold: answer on the device what scores at least this."""
        return self.chosen.threshold

    def write(self, file: str | os.PathLike[str]) -> Any:
        """Write the threshold into the metadata of a file that `export` made with labels; returns its path.

        MediaPipe Tasks then gives no result for what goes to the server, and so do the snippets of
        `golden`. The file is replaced when it is whole.

        Raises:
            ValueError: the file has no labels, is not one of ours, ends in logits, which are no scores, or
                has one unit for no and yes.
        """
        content = content_of(file)[0]
        changed = metadata.with_score_threshold(content, self.threshold)
        described = metadata.read_metadata(content).outputs
        place = next(n for n, one in enumerate(described) if one.label_file)
        end, name = makers(content)[place][0], described[place].name
        if end not in _PROBABLE:
            raise ValueError(
                f"Output {name!r} ends in {end or 'an operator of its own'}, and a threshold is for scores "
                "from 0 to 1, which apps compare as the file gives them: end the student in a softmax, and "
                "export it again."
            )
        if Interpreter(content).outputs[place].shape[-1] == 1:
            raise ValueError(
                f"Output {name!r} is one unit, of which apps compare the yes alone, and a sure no would go "
                "to the server: give the student two units and a softmax."
            )
        return write_whole(os.fspath(getattr(file, "path", file)), changed)

    def __str__(self) -> str:
        rows = [("", "threshold", "on the device", "accuracy", "latency", "bytes sent")]
        places = np.unique(np.linspace(0, len(self.curve) - 1, _SHOWN).astype(int))
        shown = {id(self.curve[n]): self.curve[n] for n in places}
        shown[id(self.chosen)] = self.chosen
        for point in sorted(shown.values(), key=lambda one: -one.coverage):
            latency = "" if point.latency_ms is None else f"{point.latency_ms:.3g} ms"
            rows.append(
                (
                    "chosen" if point is self.chosen else "",
                    f"{point.threshold:.3f}",
                    f"{100 * point.coverage:.1f} %",
                    f"{100 * point.accuracy:.1f} %",
                    latency,
                    f"{point.bytes_sent:,.0f}",
                )
            )
        widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
        lines = [
            "  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        lines.append(
            f"Accuracy is against {self.compared_with}, on {self.examples:,} examples; that of the chosen "
            f"one has a standard error of {100 * self.standard_error:.1f} %."
        )
        return "\n".join(lines)


def cascade(
    student: Any,
    teacher: Any,
    data: Any,
    labels: Any = None,
    *,
    accuracy: float | None = None,
    coverage: float | None = None,
    device_ms: float | None = None,
    server_ms: float | None = None,
    bytes_per_request: float | None = None,
    teacher_inputs: Callable[[Any], Any] | None = None,
    batch_size: int = 64,
) -> Cascade:
    """Find the score below which the device asks the server.

    Args:
        student: what runs on the device: the file that `export` made, rather than the Keras model, as its
            scores are those of the app.
        teacher: what runs on the server: a Keras model, a file, or an array of its answers to `data`.
        data: validation examples, as `verify` takes them.
        labels: true classes, where `data` does not yield them; without any the server is taken to be right.
        accuracy: wished for: the largest coverage that reaches it is chosen.
        coverage: wished for: the smallest share of answers on the device that reaches it is chosen.
        device_ms, server_ms: how long an answer of the device takes (see `benchmark`), and one of the server
            with its way there and back; what goes to the server takes both.
        bytes_per_request: that go to the server with a question; the size of one example when None.
        teacher_inputs: turns a batch as the student takes it into what the teacher takes.
        batch_size: for arrays.

    Raises:
        ValueError: neither or both of `accuracy` and `coverage` are given, or no threshold reaches it; the
            outputs are no class scores, or not finite; an example has NaN, a label that is no class, or
            several labels; there are no examples.
    """
    if (accuracy is None) == (coverage is None):
        raise ValueError("cascade wants either accuracy= or coverage=, a share from 0 to 1.")
    wished = coverage if accuracy is None else accuracy
    if not isinstance(wished, int | float | np.number):
        raise ValueError(f"A share from 0 to 1 is wished for, got {wished!r}.")
    if not 0 <= wished <= 1:
        raise ValueError(f"A share from 0 to 1 is wished for, got {wished}.")
    costs = {"device_ms": device_ms, "server_ms": server_ms, "bytes_per_request": bytes_per_request}
    for name, cost in costs.items():
        if cost is not None and not 0 <= cost < np.inf:
            raise ValueError(f"{name}={cost!r}: give a number of 0 or more, or None.")
    found = _answers(student, teacher, data, labels, teacher_inputs, batch_size)
    sent = found.bytes_per_example if bytes_per_request is None else bytes_per_request
    curve = found.curve(device_ms, server_ms, sent)
    if accuracy is not None:
        reached = [point for point in curve if point.accuracy >= accuracy]
        if not reached:
            best = max(curve, key=lambda point: point.accuracy)
            raise ValueError(
                f"No threshold reaches an accuracy of {accuracy}: the best is {best.accuracy:.4f}, with "
                f"{100 * best.coverage:.1f} % answered on the device; the server alone has "
                f"{curve[-1].accuracy:.4f}."
            )
        chosen = max(reached, key=lambda point: point.coverage)
    else:
        chosen = min((p for p in curve if p.coverage >= wished), key=lambda point: point.coverage)
    error = float(np.sqrt(chosen.accuracy * (1 - chosen.accuracy) / found.count))
    return Cascade(chosen, tuple(curve), found.count, error, found.compared_with)


@dataclass(frozen=True)
class _Found:
    """Of each example: the student's best score, and whether either network is right."""

    scores: np.ndarray
    student_right: np.ndarray
    teacher_right: np.ndarray
    bytes_per_example: float
    compared_with: str

    @property
    def count(self) -> int:
        return len(self.scores)

    def curve(
        self, device_ms: float | None, server_ms: float | None, sent: float
    ) -> list[CascadePoint]:
        order = np.argsort(-self.scores, kind="stable")
        scores, ours, theirs = (
            a[order] for a in (self.scores, self.student_right, self.teacher_right)
        )
        right = np.concatenate([[0], np.cumsum(ours)])
        left = theirs.sum() - np.concatenate([[0], np.cumsum(theirs)])
        # Examples of equal score stay together.
        ends = [n for n in range(1, self.count + 1) if n == self.count or scores[n] < scores[n - 1]]
        points = []
        for number in [*reversed(ends), 0]:
            share = number / self.count
            both = device_ms is not None and server_ms is not None
            points.append(
                CascadePoint(
                    # Nothing scores more than 1.
                    threshold=float(scores[number - 1])
                    if number
                    else float(np.nextafter(np.float32(1), 2)),
                    coverage=share,
                    accuracy=float((right[number] + left[number]) / self.count),
                    device_accuracy=float(right[number] / number) if number else None,
                    latency_ms=device_ms + (1 - share) * server_ms if both else None,  # type: ignore[operator]
                    bytes_sent=(1 - share) * sent,
                )
            )
        return points


def _answers(
    student: Any, teacher: Any, data: Any, labels: Any, teacher_inputs: Any, batch_size: int
) -> _Found:
    device = runner(student, None, batch_size, None, real_valued=True)
    given = _classes("teacher", {"answers": np.asarray(teacher)}) if _is_array(teacher) else None
    server = None if given is not None else runner(teacher, None, batch_size, None, True)
    parts: dict[str, list[np.ndarray]] = {"student": [], "teacher": [], "truth": []}
    start, sizes = 0, 0
    for x, y in batches(data, labels, batch_size, None):
        refuse_nan(x, start)
        parts["student"].append(_classes("student", device(x)))
        if server is not None:
            asked = x if teacher_inputs is None else teacher_inputs(x)
            parts["teacher"].append(_classes("teacher", server(asked)))
        if y is not None:
            parts["truth"].append(_truth(y, parts["student"][-1].shape))
        sizes += sum(np.asarray(a).nbytes for a in leaves(x))
        start += length(x)
    if not start:
        raise ValueError("cascade was given no examples: a threshold cannot be chosen on none.")
    ours = np.concatenate(parts["student"])
    theirs = given if given is not None else np.concatenate(parts["teacher"])
    if theirs.shape != ours.shape:
        raise ValueError(
            f"The student answers {ours.shape} and the teacher {theirs.shape}: both give scores of the same "
            "classes for each example."
        )
    answers = theirs.argmax(-1)
    truth = np.concatenate(parts["truth"]) if parts["truth"] else answers
    if len(truth) != start:
        raise ValueError(f"{start} examples have {len(truth)} labels: label all of them, or none.")
    return _Found(
        _probabilities(ours, _end(student)).max(-1),
        ours.argmax(-1) == truth,
        answers == truth,
        sizes / start,
        "labels" if parts["truth"] else "the server",
    )


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") or isinstance(value, list | tuple)


def _end(student: Any) -> str | None:
    """The operator that makes the scores of a file; None of other students."""
    if hasattr(student, "predict_on_batch") or isinstance(student, Interpreter):
        return None
    return makers(student)[0][0]


def _classes(whose: str, outputs: dict[str, np.ndarray]) -> np.ndarray:
    first = next(iter(outputs.values()))
    if first.ndim != 2 or len(outputs) != 1:
        shapes = {name: value.shape for name, value in outputs.items()}
        raise ValueError(
            f"The {whose} answers {shapes}: cascade is for one output of class scores, (examples, classes)."
        )
    if first.dtype.kind not in "iuf" or not np.isfinite(first).all():
        raise ValueError(
            f"The {whose} does not answer with finite numbers: look at its weights, or at the data."
        )
    if first.shape[1] == 1:  # one unit: no and yes
        yes = first if _between_0_and_1(first) else 1 / (1 + np.exp(-first.astype("float64")))
        first = np.concatenate([1 - yes, yes], -1)
    return first


def _truth(y: Any, shape: tuple[int, ...]) -> np.ndarray:
    y = np.asarray(y)
    if y.shape == shape and y.dtype.kind in "iufb" and (y.sum(-1) > 1.01).any():
        number = int((y.sum(-1) > 1.01).argmax())
        raise ValueError(
            f"An example has several labels ({y[number].tolist()}), and cascade is for one class of each: "
            "plan each label by itself, as no and yes."
        )
    return class_numbers(y, shape, "scores")


def _between_0_and_1(values: np.ndarray) -> bool:
    return bool(values.min() >= 0 and values.max() <= 1)


def _probabilities(outputs: np.ndarray, end: str | None) -> np.ndarray:
    """Scores from 0 to 1, as an app compares them: as they are where they are such, else a softmax of logits.

    Args:
        end: the operator that makes them, if that is known.
    """
    values = outputs.astype("float64")
    if end in _PROBABLE or (end is None and _between_0_and_1(values)):
        return values
    shifted = np.exp(values - values.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)
