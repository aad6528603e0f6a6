"""Which output of one model is which of another, and which of them the labels are for.

pair({"box": …, "kind": …}, {"kind": …, "box": …})           # [("box", "box"), ("kind", "kind")]
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_Answers = Mapping[str, np.ndarray]


def pair(
    ours: _Answers, theirs: _Answers, outputs: Mapping[str, str] | None = None
) -> list[tuple[str, str]]:
    """Names that belong together: as `outputs` says; by name where both have the same names; else by
    position.

    Raises:
        ValueError: the numbers differ, or positions would be a guess: several outputs of one shape,
            with names on both sides that are not the same.
    """
    if outputs is not None:
        unknown = [n for n in outputs if n not in ours] + [
            n for n in outputs.values() if n not in theirs
        ]
        if unknown or not outputs or len(set(outputs.values())) < len(outputs):
            raise ValueError(
                f"outputs={dict(outputs)!r}: give {{the reference's name: the other's}}, each once. "
                f"The reference has {list(ours)}, and the other {list(theirs)}."
            )
        return list(outputs.items())
    if len(ours) != len(theirs):
        raise ValueError(
            f"The reference has the outputs {list(ours)}, and the other {list(theirs)}: pass "
            "outputs={ours: theirs} to compare some."
        )
    if set(ours) == set(theirs):
        return [(name, name) for name in ours]
    pairs = list(zip(_in_order(ours), _in_order(theirs), strict=True))
    shapes = [ours[name].shape for name, _ in pairs]
    unsure = any(shapes.count(s) > 1 and a != b for s, (a, b) in zip(shapes, pairs, strict=True))
    if unsure and not _unnamed(ours) and not _unnamed(theirs):
        raise ValueError(
            f"The reference has the outputs {list(ours)}, the other {list(theirs)}, and some have "
            f"the same shape: say which is which with outputs={dict(pairs)!r}, or the other way "
            "round."
        )
    return pairs


def _unnamed(names: Sequence[str] | _Answers) -> bool:
    """Whether a converter counted these names up, in the model's order."""
    counted = r"(output|identity|(stateful)?partitionedcall)(_\d+)?(:\d+)?"
    return all(re.fullmatch(counted, name, re.IGNORECASE) for name in names)


def _in_order(names: _Answers) -> list[str]:
    """Names as they stand, but "output_0", "output_1", … by their numbers."""
    numbers = [re.fullmatch(r"output_(\d+)", name) for name in names]
    if not all(numbers):
        return list(names)
    return sorted(names, key=lambda name: int(name.removeprefix("output_")))


def labels_by_output(
    y: Any, answers: Sequence[np.ndarray], names: Sequence[Sequence[str]], chosen: int | None
) -> dict[int, np.ndarray]:
    """The labels of each output, by its place.

    Args:
        y: labels for the one output that has some; a list, one for each; or a dict by name.
        answers: the reference's outputs.
        names: all the names that each output has.
        chosen: the place of the output that is spoken of, if that is known.

    Raises:
        ValueError: a name is unknown, the number is wrong, or `y` may belong to several outputs.
    """
    if y is None:
        return {}
    listed = [own[0] for own in names]
    if isinstance(y, Mapping):
        places = {key: [i for i, own in enumerate(names) if key in own] for key in y}
        unknown = [key for key, found in places.items() if not found]
        if unknown:
            raise ValueError(f"The labels name the outputs {unknown}; the outputs are {listed}.")
        return {places[key][0]: value for key, value in y.items() if value is not None}
    if isinstance(y, list):
        if len(y) != len(answers):
            raise ValueError(
                f"{len(y)} arrays of labels were given, and the outputs are {listed}: give one for "
                "each, or a dict by output name."
            )
        return dict(enumerate(y))
    if chosen is None and len(answers) > 1:
        fitting = [i for i, a in enumerate(answers) if _may_label(np.shape(y), a.shape)]
        if len(fitting) != 1:
            raise ValueError(
                f"Labels of shape {np.shape(y)} fit {len(fitting)} of the outputs "
                f"{ {n: a.shape for n, a in zip(listed, answers, strict=True)} }: pass output=, or "
                "labels as a dict by output name."
            )
        chosen = fitting[0]
    return {chosen or 0: y}


def _may_label(labels: tuple[int, ...], answer: tuple[int, ...]) -> bool:
    classes = len(answer) > 1 and answer[-1] > 1
    return classes and labels in (answer, answer[:-1], (*answer[:-1], 1))
