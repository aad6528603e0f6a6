"""The commands for files that are there: `export`, `verify`, `benchmark` and `predict`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Optional

import typer

from keras_distill.app.cli.options import Json, Normalization, Quantization, Strict, mean_and_std
from keras_distill.app.cli.outcome import answer

DATA = (
    "A folder of photos, or arrays in a .npy or .npz file (x and y, x_test and y_test, …). "
    "uint8 arrays are pixels, which --normalization takes to the model's input; others are what the "
    "model takes."
)


class InputType(StrEnum):
    """What a `.tflite` file takes."""

    float32 = "float32"
    uint8 = "uint8"
    int8 = "int8"


class Runtime(StrEnum):
    """What runs a `.tflite` file."""

    auto = "auto"
    litert = "litert"
    tflite_runtime = "tflite-runtime"
    tensorflow = "tensorflow"
    all = "all"


Threads = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(min=1, help="Of the interpreter; its own choice if not given."),
]


def export(
    file: Annotated[Path, typer.Argument(help="A .keras model.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .tflite file to write.")],
    quantization: Annotated[
        Quantization, typer.Option(help="int8 and int16x8 need --data, to measure ranges on.")
    ] = Quantization.none,
    data: Annotated[Optional[Path], typer.Option(help=DATA)] = None,  # noqa: UP045
    examples: Annotated[int, typer.Option(min=1, help="How many of --data are read.")] = 300,
    input_type: Annotated[
        InputType, typer.Option(help="uint8 takes pixels as they are, as camera frames have them.")
    ] = InputType.float32,
    labels: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="Text file of class names, one on each line; the model's own if not given."
        ),
    ] = None,
    normalization: Normalization = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Export a Keras model as a .tflite file, with labels and normalisation inside.

    For example:

    keras-distill export student.keras -o student.tflite --quantization int8 --data photos --input-type uint8
    """
    answer(
        "export",
        as_json,
        file=file,
        output=output,
        quantization=quantization.recipe,
        data=data,
        examples=examples,
        input_type=input_type.value,
        labels=labels,
        normalization=mean_and_std(normalization),
        strict=strict,
    )


def verify(
    model: Annotated[Path, typer.Argument(help="The reference: a .keras or .tflite file.")],
    file: Annotated[
        Path, typer.Argument(help="What is to answer alike: a .tflite or .keras file.")
    ],
    data: Annotated[
        Path,
        typer.Option(
            help=DATA
            + " Labels are the sub-folders' names, or y; without them there is no accuracy."
        ),
    ],
    agreement: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0, max=1, help="Exit with 1 where fewer answers are equal, say 0.99."),
    ] = None,
    max_examples: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Stop after so many."),
    ] = None,
    normalization: Normalization = None,
    threads: Threads = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Compare the answers of two models: agreement, errors, and accuracy where there are labels."""
    answer(
        "verify",
        as_json,
        model=model,
        file=file,
        data=data,
        agreement=agreement,
        max_examples=max_examples,
        normalization=mean_and_std(normalization),
        threads=threads,
        strict=strict,
    )


def benchmark(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help=".tflite files; several are timed in alternation."),
    ],
    threads: Threads = None,
    runs: Annotated[int, typer.Option(min=1, help="Timed runs of each file.")] = 50,
    warmup: Annotated[int, typer.Option(min=0, help="Runs before them.")] = 5,
    runtime: Annotated[
        Optional[list[Runtime]],  # noqa: UP045
        typer.Option(
            help="Several times, or all that are installed, to compare them; the first that is if not given."
        ),
    ] = None,
    memory: Annotated[bool, typer.Option(help="Measure memory, in fresh processes.")] = True,
    as_json: Json = False,
) -> None:
    """Measure what .tflite files cost on this machine: bytes, latency, memory, operators."""
    answer(
        "benchmark",
        as_json,
        files=files,
        threads=threads,
        runs=runs,
        warmup=warmup,
        runtime=[one.value for one in runtime or [Runtime.auto]],
        memory=memory,
    )


def predict(
    file: Annotated[Path, typer.Argument(help="A .keras or .tflite classifier.")],
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="Photos, or folders.")],
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Label photos, with the score of the most likely class."""
    answer("predict", as_json, file=file, photos=photos, strict=strict)
