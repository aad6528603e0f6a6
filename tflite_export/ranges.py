"""Are the representative examples in the form that the model takes? Their range tells.

    check(examples, normalization, recorded(model, signature.inputs))

A range measured on raw pixels, or on pixels scaled to 0..1 where the model takes -1..1, fits nothing
that the model will see, and nothing later tells: the file runs, and is wrong. Three things are known:
where `normalization` takes pixels 0..255; what the model was distilled on, if it says so in
`recorded_input_ranges`; and what other people's pixels look like. A photo is seldom flat: five of
anything span nine tenths of all pixel values. But there are dark and pale kinds of pictures, so a
narrow range alone is refused only where the training's was a wide one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tflite_export.normalization import Normalization
from tflite_export.signature import ModelInput

Range = tuple[float, float]

NARROW = 0.55  # of the range that is expected; pixels at 0..1 in place of -1..1 are 0.5 of it
ENOUGH = 20  # so many pictures together are not all dark by chance
CUSTOMARY: tuple[Range, ...] = ((0.0, 1.0), (-1.0, 1.0))


def recorded(model: Any, inputs: Sequence[ModelInput]) -> dict[str, Range]:
    """The ranges of the inputs while the model was trained, where it knows them.

    Args:
        model: may have `recorded_input_ranges`: one (lowest, highest) for each of its inputs, in
            their order; None for an input without one.

    Raises:
        ValueError: there are more or fewer of them than inputs.
    """
    ranges = getattr(model, "recorded_input_ranges", None)
    if ranges is None:
        return {}
    if len(ranges) != len(inputs):
        raise ValueError(
            f"recorded_input_ranges of {model.name!r} has {len(ranges)} ranges, and the model has the "
            f"inputs {[i.name for i in inputs]}: one for each, or delete the attribute."
        )
    return {
        one.name: (float(ends[0]), float(ends[1]))
        for one, ends in zip(inputs, ranges, strict=True)
        if ends is not None and all(map(math.isfinite, ends))
    }


def check(
    examples: Sequence[Mapping[str, np.ndarray]],
    normalization: Mapping[str, Normalization],
    recorded: Mapping[str, Range],
) -> None:
    """Refuses examples that cannot be in the model's form, and warns of those that hardly are.

    Args:
        examples: by input name, with a batch of 1; integer inputs are not looked at.
        normalization: of the inputs that pixels go to.
        recorded: what the model was trained on, by input name.

    Raises:
        ValueError: nothing but zeros; a range that the normalisation or the training rules out.
    """
    for name, first in examples[0].items():
        if first.dtype.kind != "f":
            continue
        low = min(float(e[name].min(initial=np.inf)) for e in examples)
        high = max(float(e[name].max(initial=-np.inf)) for e in examples)
        if low == high == 0:
            raise ValueError(
                f"representative_dataset holds nothing but zeros for input {name!r}: no range can "
                "be measured on them. Give a few hundred real examples."
            )
        if name in normalization:
            _require_normalized(name, (low, high), normalization[name].range)
        if name in recorded:
            _require_as_in_training(name, (low, high), recorded[name])
        expected = recorded.get(name) or (name in normalization and normalization[name].range)
        if not expected or high - low >= NARROW * (expected[1] - expected[0]):
            continue
        known = "the model was distilled on" if name in recorded else "normalization leads to"
        sentence = (
            f"representative_dataset spans {_text((low, high))} for input {name!r}, and {known} "
            f"{_text(expected)}: it covers {(high - low) / (expected[1] - expected[0]):.0%} of it."
        )
        if name in recorded and name in normalization and len(examples) >= ENOUGH:
            raise ValueError(f"{sentence} {_ADVICE}")
        warnings.warn(f"{sentence} Are these examples like those of the app?", stacklevel=3)


def _require_normalized(name: str, seen: Range, expected: Range) -> None:
    """Pixels that were not normalised, or in another customary way."""
    width = expected[1] - expected[0]
    look = None
    if seen[0] < expected[0] - 0.01 * width or seen[1] > expected[1] + 0.01 * width:
        look = "are these raw pixels?" if seen[0] >= 0 else "these were normalised in another way."
    elif seen[1] - seen[0] < NARROW * width:
        for form in CUSTOMARY:
            if all(_near(s, f, form) for s, f in zip(seen, form, strict=True)):
                look = f"these look like pixels scaled to {_text(form)}."
    if look:
        raise ValueError(
            f"representative_dataset spans {_text(seen)} for input {name!r}, and normalization takes "
            f"pixels 0..255 to {_text(expected)}: {look} {_ADVICE}"
        )


def _require_as_in_training(name: str, seen: Range, expected: Range) -> None:
    slack = (expected[1] - expected[0]) / 2
    if slack and (seen[0] < expected[0] - slack or seen[1] > expected[1] + slack):
        raise ValueError(
            f"representative_dataset spans {_text(seen)} for input {name!r}, and the model was "
            f"distilled on {_text(expected)}. Give examples in the form that it was distilled on."
        )


_ADVICE = (
    "Give examples in the form that the model takes, (pixel - mean) / std, or the normalization that "
    "belongs to them."
)


def _near(value: float, end: float, form: Range) -> bool:
    return abs(value - end) <= 0.1 * (form[1] - form[0])


def _text(ends: Range) -> str:
    return f"{ends[0]:.4g}..{ends[1]:.4g}"
