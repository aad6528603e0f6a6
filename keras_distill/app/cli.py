"""The command line: `keras-distill demo | distill | predict`.

Commands only translate: each calls the function `run` of the module of its name. Keras is imported
inside a command, so that `--help` answers at once.
"""

import logging
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Optional

import typer

from keras_distill import card

app = typer.Typer(
    name="keras-distill",
    help="Turn a big trained Keras model into a small one that runs on a phone, and prove that it does.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Quantization(StrEnum):
    """How `student.tflite` stores and computes."""

    none = "none"
    float16 = "float16"
    dynamic_int8 = "dynamic_int8"
    int8 = "int8"


def main(arguments: list[str] | None = None) -> None:
    """Run the command line: exit code 0, 1 with one sentence on standard error, or 2 for usage."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments  # wherever it stands
    try:
        app([argument for argument in arguments if argument != "--debug"])
    except Exception as error:
        if debug:
            raise
        typer.echo(f"keras-distill: {_sentence(error)}", err=True)
        sys.exit(1)


def _sentence(error: Exception) -> str:
    """What went wrong, on one line; the type too, where the author of the message was not us."""
    message = " ".join(str(error).split())
    if isinstance(error, OSError) and error.filename and error.strerror:
        message = f"{error.strerror}: {error.filename}"
    if isinstance(error, ValueError | OSError | ImportError) and message:
        return message
    return f"{type(error).__name__}: {message} (--debug shows where)"


def _quiet() -> None:
    """Keep TensorFlow's and absl's notes off the screen; whoever set a level keeps it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    for name in ("tensorflow", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _normalization(given: tuple[str, str] | None) -> card.Normalization | None:
    """("127.5", "127.5") or numbers for each channel with commas between → (mean, std)."""
    if given is None:
        return None
    try:
        mean, std = ([float(number) for number in text.split(",")] for text in given)
    except ValueError:
        raise typer.BadParameter(f"{' '.join(given)} are not numbers.") from None
    if len(mean) != len(std) or len(mean) not in (1, 3) or min(std) <= 0:
        raise typer.BadParameter("MEAN and STD are one number each, or three; STD is above 0.")
    return (mean[0], std[0]) if len(mean) == 1 else (mean, std)


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="On an error show the traceback, not one sentence.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the files; made if there is none.")
    ] = Path("digits-demo"),
) -> None:
    """Show the whole way on scikit-learn's handwritten digits, in under two minutes.

    Teacher, student alone, student distilled, and the int8 file of it, verified. Nothing is downloaded.
    """
    _quiet()
    from keras_distill.app import demo as job

    job.show(job.run(output), output)


@app.command()
def distill(
    photos: Annotated[
        Path,
        typer.Argument(
            metavar="PHOTOS",
            help="Folder with one sub-folder for each class; "
            "train/ and validation/ may stand above them.",
        ),
    ],
    teacher: Annotated[
        str,
        typer.Option(
            help="A classifier of these classes (.keras, .h5, .tflite or a SavedModel folder; used as it "
            "is), another .keras or .h5 network, or a name of keras.applications (both are fine-tuned on "
            "PHOTOS first)."
        ),
    ],
    student: Annotated[
        str,
        typer.Option(
            help="resnet8, MobileNet, MobileNetV2, MobileNetV3Small, EfficientNetB0, or a .keras file."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Folder for student.keras, student.tflite, labels.txt, summary.json, history.csv.",
        ),
    ],
    width: Annotated[
        Optional[float],  # noqa: UP045  (older typer does not read `float | None`)
        typer.Option(help="Channels of the student, as a multiple of the full network's."),
    ] = None,
    image_size: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Height and width of the student's input (96; resnet8: 32)."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training photos.")] = 30,
    batch_size: Annotated[int, typer.Option(min=1, help="Photos in one step.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Of Adam, falling to 0 on a cosine.")] = 1e-3,
    temperature: Annotated[
        float, typer.Option(help="Softens the teacher's answers; 1 leaves them as they are.")
    ] = 4.0,
    student_loss_weight: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Share of the labels in the loss, beside the teacher's answers; 1 is no teacher.",
        ),
    ] = 0.1,
    quantization: Annotated[
        Quantization, typer.Option(help="Of student.tflite; int8 takes uint8 pixels.")
    ] = Quantization.int8,
    seed: Annotated[int, typer.Option(help="Of split, weights, order and augmentation.")] = 0,
    augment: Annotated[
        bool, typer.Option(help="Move, zoom and light the training photos a little.")
    ] = True,
    validation_split: Annotated[
        float, typer.Option(help="Share of each class that is measured on.")
    ] = 0.2,
    student_weights: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Pretrained student: a file, or imagenet (downloaded)."),
    ] = None,
    teacher_weights: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            help="File with the weights of a teacher by name; ImageNet's are downloaded without it."
        ),
    ] = None,
    teacher_epochs: Annotated[
        int, typer.Option(min=1, help="Of the teacher's fine-tuning, where it needs one.")
    ] = 10,
    teacher_image_size: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            help="Of a teacher that is fine-tuned (its own, or less for small photos), or takes any size."
        ),
    ] = None,
    teacher_normalization: Annotated[
        Optional[tuple[str, str]],  # noqa: UP045
        typer.Option(
            metavar="MEAN STD",
            help="A teacher's file takes (pixel − mean) / std: what it says, else 127.5 127.5. "
            "For each channel: 123.7,116.3,103.5 58.4,57.1,57.4.",
        ),
    ] = None,
) -> None:
    """Distil a teacher into a small student on your photos, and export it, verified.

    For example:

    keras-distill distill photos --teacher teacher.keras --student MobileNetV2 --width 0.35 -o out
    """
    _quiet()
    from keras_distill.app import distill as job

    summary = job.run(
        photos,
        output,
        teacher=teacher,
        student=student,
        width=width,
        image_size=image_size,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        temperature=temperature,
        student_loss_weight=student_loss_weight,
        quantization=None if quantization is Quantization.none else quantization.value,
        seed=seed,
        augment=augment,
        validation_split=validation_split,
        student_weights=student_weights,
        teacher_weights=teacher_weights,
        teacher_epochs=teacher_epochs,
        teacher_image_size=teacher_image_size,
        teacher_normalization=_normalization(teacher_normalization),
    )
    job.show(summary, output)


@app.command()
def predict(
    file: Annotated[Path, typer.Argument(help="A .keras or .tflite classifier.")],
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="Photos to label.")],
) -> None:
    """Label photos, with the score of the most likely class."""
    _quiet()
    from keras_distill.app import predict as job

    job.show(job.run(file, photos))
