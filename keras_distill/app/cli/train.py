"""The commands that train: `demo` and `distill`."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from keras_distill.app.cli.options import Json, Quantization, Strict, mean_and_std
from keras_distill.app.cli.outcome import answer


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the files; made if there is none.")
    ] = Path("digits-demo"),
    as_json: Json = False,
) -> None:
    """Show the whole way on scikit-learn's handwritten digits, in under two minutes.

    Teacher, student alone, student distilled, and the int8 file of it, verified. Nothing is downloaded.
    """
    answer("demo", as_json, output, output=output)


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
            help="Folder for student.keras, student.tflite, labels.txt, summary.json, history.csv, and "
            "teacher.keras where it was fine-tuned.",
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
    quantization_aware: Annotated[
        bool,
        typer.Option(
            "--quantization-aware",
            help="Where the int8 file loses accuracy, distil on with its rounding in the student.",
        ),
    ] = False,
    seed: Annotated[
        int,
        typer.Option(min=0, max=2**32 - 1, help="Of split, weights, order and augmentation."),
    ] = 0,
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
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Distil a teacher into a small student on your photos, and export it, verified.

    For example:

    keras-distill distill photos --teacher teacher.keras --student MobileNetV2 --width 0.35 -o out

    Stopped at any moment, the same command goes on from the last finished epoch, and ends as if it had
    not been stopped.
    """
    answer(
        "distill",
        as_json,
        output,
        photos=photos,
        output=output,
        teacher=teacher,
        student=student,
        width=width,
        image_size=image_size,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        temperature=temperature,
        student_loss_weight=student_loss_weight,
        quantization=quantization.recipe,
        quantization_aware=quantization_aware,
        seed=seed,
        augment=augment,
        validation_split=validation_split,
        student_weights=student_weights,
        teacher_weights=teacher_weights,
        teacher_epochs=teacher_epochs,
        teacher_image_size=teacher_image_size,
        teacher_normalization=mean_and_std(teacher_normalization),
        strict=strict,
    )
