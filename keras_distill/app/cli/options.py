"""Options that several commands have, and how their words become arguments."""

from enum import StrEnum
from typing import Annotated, Optional

import typer

from keras_distill import card

Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help='Print one JSON document: the results, or {"error": sentence} with exit code 1. '
        "null is a number that is not finite.",
    ),
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Refuse photos that cannot be read; else they are left out."),
]
Normalization = Annotated[
    Optional[tuple[str, str]],  # noqa: UP045  (older typer does not read `tuple | None`)
    typer.Option(
        metavar="MEAN STD",
        help="The model takes (pixel − mean) / std: what its file says, if it says so. "
        "For each channel: 123.7,116.3,103.5 58.4,57.1,57.4.",
    ),
]


class Quantization(StrEnum):
    """How a `.tflite` file stores and computes."""

    none = "none"
    float16 = "float16"
    dynamic_int8 = "dynamic_int8"
    int8 = "int8"
    int16x8 = "int16x8"
    int4 = "int4"

    @property
    def recipe(self) -> str | None:
        """As the functions take it."""
        return None if self is Quantization.none else self.value


def mean_and_std(given: tuple[str, str] | None) -> card.Normalization | None:
    """("127.5", "127.5") or numbers for each channel with commas between → (mean, std)."""
    if given is None:
        return None
    from tflite_export import normalization  # NumPy, which --help does without

    try:
        mean, std = ([float(number) for number in text.split(",")] for text in given)
    except ValueError:
        raise typer.BadParameter(f"{' '.join(given)} are not numbers.") from None
    pair = (mean[0], std[0]) if len(mean) == len(std) == 1 else (mean, std)
    try:
        normalization.Normalization.parse(pair, channels=3)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return pair
