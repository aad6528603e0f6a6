"""The main job: photos and a teacher become a small student and a verified `.tflite` file.

    summary = run("photos", "student-folder", teacher="teacher.keras", student="MobileNetV2", width=0.35)
    summary["exported"]["accuracy"]

The steps: list and split the photos; take or make the teacher; distil; measure all three on the
validation photos after the last epoch; write the files. A run that was killed goes on when it is
called again, see `keras_distill.app.resume`.
"""

import dataclasses
import time
from pathlib import Path

import keras
import numpy as np

import keras_distill as kd
from keras_distill import card, data
from keras_distill.app import finetune, networks, results, resume, training
from keras_distill.app.classifier import Classifier, write_student
from tflite_export import chain
from tflite_export.normalization import Normalization

FILES = ("teacher", "student", "teacher_weights", "student_weights")  # or names
LARGEST_SIZE = 4096  # of a network's photos; beyond it a number is mistyped, and memory runs out
QUANTIZATIONS = (None, "float16", "dynamic_int8", "int8", "int16x8", "int4")


def run(
    photos: str | Path,
    output: str | Path,
    teacher: str | Path,
    student: str | Path,
    width: float | None = None,
    image_size: int | None = None,
    epochs: int = 30,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    temperature: float = 4.0,
    student_loss_weight: float = 0.1,
    quantization: str | None = "int8",
    quantization_aware: bool = False,
    seed: int = 0,
    augment: bool = True,
    validation_split: float = 0.2,
    student_weights: str | Path | None = None,
    teacher_weights: str | Path | None = None,
    teacher_epochs: int = 10,
    teacher_image_size: int | None = None,
    teacher_normalization: card.Normalization | None = None,
    strict: bool = False,
) -> dict:
    """Distil a teacher into a student on a folder of photos; returns what `summary.json` holds.

    Called again with the same arguments and files, it goes on from the last epoch that an interrupted
    run finished, and ends bit-identical to an uninterrupted one; a finished run is not trained again.

    Args:
        photos: a folder with one sub-folder for each class, see `data.list_folder`.
        output: folder for `student.keras`, `student.tflite`, `labels.txt`, `summary.json`,
            `history.csv`, and `teacher.keras` where the teacher was fine-tuned.
        teacher: a `.keras` or `.h5` classifier of these classes, which is used as it is; or such a file
            with other classes or none, or a name of keras.applications, which is fine-tuned first; or a
            SavedModel folder or `.tflite` file of these classes.
        student: a name of `students`, or a `.keras` file.
        width: channels of a student by name, 1.0 when None.
        image_size: height and width of the student's input; 96 (32 for resnet8) when None, or what
            the file has.
        epochs, batch_size, learning_rate: of the distillation; Adam, the rate falls to 0 on a cosine.
        temperature, student_loss_weight: of the losses; a weight of 1 is the student without teacher.
        quantization: None, "float16", "dynamic_int8", "int8", "int16x8" or "int4"; int8 files
            take uint8 pixels.
        quantization_aware: where the int8 file is less accurate than the student by more than 0.5 % of the
            photos, distil on with the rounding in the student for a fifth of the epochs, and keep the
            better file; a float16 one where both lose that much (`tflite_export.distill_and_export`).
        seed: of the split, the weights, the order and the augmentation.
        augment: change the training photos a little, see `data.Light`.
        student_weights: "imagenet" or a file for a student by name, see `students.build`.
        teacher_weights: a file for a teacher by name, where ImageNet weights cannot be downloaded.
        teacher_epochs: of the fine-tuning.
        teacher_image_size: of a teacher that is fine-tuned, or that takes photos of any size; when None
            its own, but no more than the photos have (rounded up to 32).
        teacher_normalization: (mean, std) of a teacher out of a file; what the file says when None, else
            (127.5, 127.5); a file that takes uint8 or int8 gets the pixels as they are.
        strict: refuse photos that cannot be read; else they are left out, and named.

    Raises:
        ValueError: photos, teacher or student that cannot be used; an output folder that cannot be
            written, or holds a run with other arguments; see the message.
        OSError: the disk is full. What was written before stays whole.
    """
    arguments = {name: _plain(value) for name, value in locals().items()}
    started = time.monotonic()
    # What can be refused is refused before the first minute of training.
    if quantization not in QUANTIZATIONS:
        raise ValueError(f"quantization={quantization!r} is none of {QUANTIZATIONS}.")
    if quantization_aware and quantization != "int8":
        raise ValueError(
            f"quantization_aware is for quantization='int8', and it is {quantization!r}."
        )
    if not 0 <= student_loss_weight <= 1:
        raise ValueError(f"student_loss_weight lies between 0 and 1, got {student_loss_weight}.")
    for name, size in (("image_size", image_size), ("teacher_image_size", teacher_image_size)):
        if size is not None and not 8 <= size <= LARGEST_SIZE:
            raise ValueError(f"{name} is a number of pixels from 8 to {LARGEST_SIZE}, got {size}.")
    for name, count in (
        ("epochs", epochs),
        ("batch_size", batch_size),
        ("teacher_epochs", teacher_epochs),
    ):
        if not 1 <= count < 2**31:
            raise ValueError(f"{name} is a whole number from 1 up, below 2³¹, got {count}.")
    if teacher_normalization is not None:
        Normalization.parse(teacher_normalization)
    if not 0 < learning_rate < float("inf"):
        raise ValueError(f"learning_rate is a number above 0, got {learning_rate}.")
    soft_targets = kd.losses.SoftTargets(temperature=temperature)
    folder = Path(output)
    _keep_apart(folder, Path(photos))
    listing = data.list_folder(photos, seed, validation_split, strict=strict)
    if listing.skipped:
        results.say(listing.skipped)
    networks.keep(folder, teacher, student, student_weights, teacher_weights)
    record = resume.Record(
        folder,
        arguments,
        {
            "photos": resume.of_photos(photos, listing.train_files + listing.validation_files),
            **{
                name: resume.of(arguments[name])
                for name in FILES
                if arguments[name] is not None and not networks.is_name(arguments[name])
            },
        },
    )
    summary = record.finished()
    if summary is not None:
        results.say(f"{folder} holds the finished run with these arguments: nothing is left to do.")
        return summary
    keras.utils.set_random_seed(seed)
    pupil = networks.student_network(student, listing, width, image_size, student_weights)
    master, ready = networks.teacher_network(
        teacher, listing, teacher_weights, teacher_image_size, teacher_normalization
    )
    with record.started() as states:
        results.say(
            f"{len(listing.train_files)} photos to learn from, {len(listing.validation_files)} to "
            f"measure on, {len(listing.class_names)} classes."
        )
        train, validation = _pixels(listing, pupil, master, batch_size, seed, augment)
        teacher_file = Path(teacher)
        if not ready:
            finetune.fine_tune(
                master.model,
                master.prepared(train),
                master.prepared(validation[master.image_size]),
                epochs=teacher_epochs,
                states=states,
            )
            teacher_file = folder / "teacher.keras"
            card.save(master.model, teacher_file, networks.card_of(master, listing))
        teacher_accuracy = master.accuracy(validation[master.image_size])
        _say_how_good(teacher_accuracy, teacher_file, listing)
        history = _distil(
            master,
            pupil,
            train,
            validation[pupil.image_size],
            epochs=epochs,
            learning_rate=learning_rate,
            soft_targets=soft_targets,
            student_loss_weight=student_loss_weight,
            state=states / "student.npz",
        )
        exported = None
        if quantization_aware:
            pupil, exported = _quantization_aware(
                master, pupil, train, validation[pupil.image_size], epochs, soft_targets, student_loss_weight,
                states, folder, listing.class_names,
            )  # fmt: skip
        written = write_student(
            pupil,
            folder,
            listing.class_names,
            train,
            validation[pupil.image_size],
            quantization,
            exported,
        )
        results.write_history(folder / "history.csv", history)
        return record.finish(
            {
                "teacher": {
                    "accuracy": teacher_accuracy,
                    "parameters": master.parameters,
                    "size_bytes": networks.size_of(teacher_file),
                },
                **written,
                "class_names": listing.class_names,
                "photos": {
                    "train": len(listing.train_files),
                    "validation": len(listing.validation_files),
                },
                "seconds": round(time.monotonic() - started, 1),  # of this call
            }
        )


def show(summary: dict, output: str | Path) -> None:
    """Print the final table of `run`."""
    rows = []
    for key, title in (
        ("teacher", "Teacher"),
        ("student", "Student"),
        ("exported", "student.tflite"),
    ):
        part = summary[key]
        rows.append(
            (
                title,
                results.percent(part["accuracy"]),
                results.size(part["parameters"]),
                results.size(part["size_bytes"]),
                results.milliseconds(part.get("latency_ms")),
                results.percent(part.get("agreement")),
            )
        )
    count = summary["photos"]["validation"]
    results.show(
        f"On {count} validation photos, after the last epoch; files in {output}",
        ("", "accuracy", "parameters", "bytes", "latency", "agrees with student"),
        rows,
    )


def _plain(value):
    return str(value) if isinstance(value, Path) else value


def _keep_apart(folder: Path, photos: Path) -> None:
    """Refuse results among the photos: the next run would take their folder for a class."""
    within = [photos / name for name in ("train", "validation", "val")]
    within = within if within[0].is_dir() else [photos]
    for root in within:
        if folder.resolve().is_relative_to(root.resolve()):
            raise ValueError(
                f"The output folder {folder} lies in {root}, where each folder is a class: "
                f"give another --output."
            )


def _pixels(listing: data.Listing, pupil, master, batch_size: int, seed: int, augment: bool):
    """The pixels to learn from, and {image size: the pixels to measure on}."""
    # One pipeline feeds both networks, at the larger of the two sizes.
    height, width = (max(pair) for pair in zip(pupil.image_size, master.image_size, strict=True))
    train = data.photos(
        listing.train_files,
        listing.train_labels,
        (height, width),
        batch_size=batch_size,
        seed=seed,
        augment=data.Light() if augment else None,
    )
    validation = {
        size: data.photos(
            listing.validation_files,
            listing.validation_labels,
            size,
            batch_size=batch_size,
            shuffle=False,
        )
        for size in {pupil.image_size, master.image_size}
    }
    return train, validation


def _say_how_good(accuracy: float, teacher_file: Path, listing: data.Listing) -> None:
    results.say(f"The teacher is right on {results.percent(accuracy)}.")
    common = np.bincount(listing.validation_labels).max() / len(listing.validation_labels)
    if accuracy < common + 0.1 * (1 - common):
        results.say(
            f"That is hardly better than always giving the most common class "
            f"({results.percent(common)}): was {teacher_file} trained on these classes, in this "
            f"order, with this normalisation?"
        )


def _distil(
    master: Classifier,
    pupil: Classifier,
    train,
    validation,
    epochs: int,
    learning_rate: float,
    soft_targets: kd.losses.SoftTargets,
    student_loss_weight: float,
    state: Path,
    title: str = "Student",
) -> dict:
    distiller = kd.Distiller(
        **master.as_teacher(),
        student=pupil.model,
        distillation_losses=soft_targets,
        student_loss_weight=student_loss_weight,
        student_inputs=pupil.inputs,
    )
    steps = epochs * len(train)
    distiller.compile(
        optimizer=keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(learning_rate, steps)
        ),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return training.fit(distiller, train, validation, epochs, title, state=state)


def _quantization_aware(
    master, pupil, train, validation, epochs, soft_targets, student_loss_weight, states, folder, class_names
):  # fmt: skip
    """The pupil and the file that it became: after training, trained on with rounding, or in floats."""

    def train_aware(aware):
        more = max(1, epochs // 5)
        frozen = more // 4
        for name, part, rate in (("aware", more - frozen, 1e-4), ("frozen", frozen, 1e-5)):
            if name == "frozen":
                chain.freeze(aware)
            if part:
                _distil(
                    master,
                    dataclasses.replace(pupil, model=aware),
                    train,
                    validation,
                    epochs=part,
                    learning_rate=rate,
                    soft_targets=soft_targets,
                    student_loss_weight=student_loss_weight,
                    state=states / f"{name}.npz",
                    title=f"Student, {name}",
                )
        return {}

    result = chain.smallest_as_good(
        pupil.model,
        folder / "student.tflite",
        train_aware,
        verification_data=pupil.prepared(validation),
        representative_dataset=pupil.prepared(train),
        acceptable_drop=chain.ACCEPTABLE_DROP,
        exporting={
            "inference_input_type": "uint8",
            "labels": class_names,
            "normalization": pupil.normalization,
        },
    )
    results.say(str(result))
    return dataclasses.replace(pupil, model=result.student), result.exported
