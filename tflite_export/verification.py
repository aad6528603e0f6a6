"""What `verify` found: figures, a text, and an error where they are not good enough."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


class VerificationError(AssertionError):
    """The file answers less like the model than was asked for."""


class Comparison:
    """One output of two models, over all examples.

    Attributes: `max_error`, `mean_error` (absolute), `snr_db` (the reference's power above the
    error's), `agreement` (share of equal top-1 answers, None for plain numbers), `accuracy`,
    `reference_accuracy`, `per_class`: {class: (reference accuracy, accuracy, examples)}.
    """

    def __init__(self, name: str, threshold: float | None = None):
        self.name = name
        self._threshold = threshold
        self.max_error = 0.0
        self._values = self._decisions = self._equal = 0
        self._error = self._error_power = self._power = 0.0
        self._classes: dict[int, list[int]] = {}  # class → [count, reference right, other right]

    def add(self, want: np.ndarray, have: np.ndarray, labels: np.ndarray | None) -> None:
        """Count one batch: the reference's outputs, the other's, and the true classes."""
        want, have = np.asarray(want), np.asarray(have)
        if want.shape != have.shape:
            raise ValueError(
                f"Output {self.name!r}: the reference answers {want.shape} and the other "
                f"{have.shape}."
            )
        a, b = want.astype("float64"), have.astype("float64")
        with np.errstate(invalid="ignore"):
            error = np.where(a == b, 0.0, np.abs(a - b))  # equal infinities too
        self._values += error.size
        # NaN must not hide: max() of Python and fmax would drop it.
        self.max_error = float(np.max(error, initial=self.max_error))
        self._error += float(error.sum())
        self._error_power += float((error**2).sum())
        self._power += float((a[np.isfinite(a)] ** 2).sum())
        if a.ndim < 2 or (a.shape[-1] == 1 and self._threshold is None):
            return
        first, second = self._decide(a), self._decide(b)
        self._decisions += first.size
        self._equal += int(((first == second) & (first >= 0)).sum())
        if labels is not None:
            self._count(class_numbers(labels, a.shape, self.name), first, second)

    def _decide(self, values: np.ndarray) -> np.ndarray:
        one = values.shape[-1] == 1
        decided = values[..., 0] > self._threshold if one else values.argmax(-1)
        # An answer of NaN is no answer, and agrees with nothing, not even with itself.
        return np.where(np.isnan(values).any(-1), -1, decided)

    def _count(self, truth: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
        for number in np.unique(truth):
            rows = truth == number
            tally = self._classes.setdefault(int(number), [0, 0, 0])
            tally[0] += int(rows.sum())
            tally[1] += int((first[rows] == number).sum())
            tally[2] += int((second[rows] == number).sum())

    @property
    def mean_error(self) -> float:
        """Mean absolute difference of the outputs."""
        return self._error / max(self._values, 1)

    @property
    def snr_db(self) -> float:
        """The reference's power over the error's, in decibels."""
        if self._error_power == 0:
            return math.inf
        ratio = self._power / self._error_power
        return 10 * math.log10(ratio) if ratio > 0 else (math.nan if ratio != ratio else -math.inf)

    @property
    def agreement(self) -> float | None:
        """Share of equal top-1 answers; None for plain numbers."""
        return self._equal / self._decisions if self._decisions else None

    @property
    def reference_accuracy(self) -> float | None:
        """Share of the reference's right answers; None without labels."""
        return self._accuracy(1)

    @property
    def accuracy(self) -> float | None:
        """Share of the other's right answers; None without labels."""
        return self._accuracy(2)

    @property
    def accuracy_drop(self) -> float | None:
        """The reference's accuracy less the other's."""
        ours, theirs = self.reference_accuracy, self.accuracy
        return None if ours is None or theirs is None else ours - theirs

    def _accuracy(self, column: int) -> float | None:
        count = sum(tally[0] for tally in self._classes.values())
        return sum(t[column] for t in self._classes.values()) / count if count else None

    @property
    def per_class(self) -> dict[int, tuple[float, float, int]]:
        """{class number: (reference accuracy, accuracy, examples)}."""
        return {k: (r / n, o / n, n) for k, (n, r, o) in sorted(self._classes.items())}


def class_numbers(labels: np.ndarray, shape: tuple[int, ...], output: str) -> np.ndarray:
    """The true classes as whole numbers, of an output of `shape`: (…) or one-hot (…, classes).

    Args:
        output: its name, for sentences.

    Raises:
        ValueError: they are no numbers, of another shape, or no classes of the output.
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iufb":
        raise ValueError(f"Output {output!r}: the labels are {labels.dtype}, not numbers.")
    if labels.shape == shape and shape[-1] > 1:
        labels = labels.argmax(-1)
    if labels.ndim == len(shape) and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if labels.shape != shape[:-1]:
        raise ValueError(
            f"Output {output!r} answers {shape}, and the labels have shape {labels.shape}: "
            f"give classes {shape[:-1]} or one-hot {shape}."
        )
    classes = max(shape[-1], 2)
    if not ((labels >= 0) & (labels < classes) & (labels == np.floor(labels))).all():
        raise ValueError(
            f"Output {output!r} has the classes 0..{classes - 1}, and the labels go from "
            f"{labels.min()} to {labels.max()}: give whole numbers of these classes, and leave "
            "out examples of others."
        )
    return labels.astype("int64")


def _missed(one: Comparison, *bounds: tuple[str, float | None, float | None, bool]) -> str:
    found = []
    if not math.isfinite(one.max_error):
        found.append(f"max error is {one.max_error}, asked for a finite one")
    for name, value, bound, least in bounds:
        if bound is None or value is None:
            continue
        if not (value >= bound if least else value <= bound):  # NaN fails too
            what = "at least" if least else "at most"
            found.append(f"{name} is {value:.4g}, asked for {what} {bound:g}")
    return "; ".join(found)


@dataclass(frozen=True)
class Verification:
    """The comparison of two models; `str()` is a table.

    Attributes:
        examples: how many were compared.
        outputs: a Comparison for each output.
        output: the one that `agreement`, `max_error`, `mean_error`, `snr_db`, `accuracy`,
            `reference_accuracy` and `per_class` speak of.
        labels: class names, where the file carries them.
    """

    examples: int
    outputs: Mapping[str, Comparison]
    output: str
    labels: Sequence[str] | None = None

    @property
    def main(self) -> Comparison:
        """The comparison that the headline figures speak of."""
        return self.outputs[self.output]

    @property
    def agreement(self) -> float | None:
        """Share of equal top-1 answers; None for plain numbers."""
        return self.main.agreement

    @property
    def max_error(self) -> float:
        """Largest absolute difference of the outputs."""
        return self.main.max_error

    @property
    def mean_error(self) -> float:
        """Mean absolute difference of the outputs."""
        return self.main.mean_error

    @property
    def snr_db(self) -> float:
        """The reference's power over the error's, in decibels."""
        return self.main.snr_db

    @property
    def accuracy(self) -> float | None:
        """Share of the other's right answers; None without labels."""
        return self.main.accuracy

    @property
    def reference_accuracy(self) -> float | None:
        """Share of the reference's right answers; None without labels."""
        return self.main.reference_accuracy

    @property
    def per_class(self) -> dict[str, tuple[float, float, int]]:
        """{class: (reference accuracy, accuracy, examples)}, by name where names are known."""
        return {self._name(k): v for k, v in self.main.per_class.items()}

    def _name(self, number: int) -> str:
        named = self.labels is not None and 0 <= number < len(self.labels)
        return self.labels[number] if named and self.labels is not None else str(number)

    def raise_if_worse(
        self,
        agreement: float | None = 0.99,
        accuracy_drop: float | None = None,
        max_error: float | None = None,
        mean_error: float | None = None,
        snr_db: float | None = None,
    ) -> Verification:
        """Raises VerificationError where an output misses a bound or is not finite; returns self.

        Args:
            agreement: smallest share of equal top-1 answers, for every output that has classes;
                None where the headline output has none.
            accuracy_drop: largest loss of accuracy, for every output that has labels.
            max_error, mean_error: largest absolute errors of the headline output; others may be
                in other units.
            snr_db: smallest signal-to-noise ratio, for every output. It sees what a softmax hides
                from the agreement.
        """
        if agreement is not None and self.agreement is None:
            raise ValueError(
                f"Output {self.output!r} has no classes to agree on: pass agreement=None and, say, "
                "snr_db=30; or verify(threshold=...) for one yes-or-no unit."
            )
        if accuracy_drop is not None and self.accuracy is None:
            raise ValueError("accuracy_drop= needs labels: give data that yield (x, y).")
        sentences = []
        for name, one in self.outputs.items():
            main = name == self.output
            found = _missed(
                one,
                ("agreement", one.agreement, agreement, True),
                ("accuracy drop", one.accuracy_drop, accuracy_drop, False),
                ("max error", one.max_error, max_error if main else None, False),
                ("mean error", one.mean_error, mean_error if main else None, False),
                ("SNR in dB", one.snr_db, snr_db, True),
            )
            if found:
                sentences.append(f"Output {name!r} over {self.examples} examples: {found}.")
        if sentences:
            raise VerificationError(" ".join(sentences))
        return self

    def __str__(self) -> str:
        lines = [f"{self.examples} examples"]
        for name, one in self.outputs.items():
            share = "" if one.agreement is None else f"agreement {one.agreement:.2%}, "
            lines.append(
                f"{name}: {share}max error {one.max_error:.3g}, mean error {one.mean_error:.3g}, "
                f"SNR {one.snr_db:.1f} dB"
            )
        if self.accuracy is not None and self.reference_accuracy is not None:
            lines.append(f"accuracy {self.accuracy:.2%}, reference {self.reference_accuracy:.2%}")
            width = max(map(len, self.per_class))
            for name, (reference, accuracy, count) in self.per_class.items():
                lines.append(
                    f"  {name:<{width}}  {accuracy:7.2%}  reference {reference:7.2%}  ({count})"
                )
        return "\n".join(lines)
