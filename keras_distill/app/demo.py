"""The demo: distillation where it helps, on digits that come with scikit-learn.

    summary = run("digits-demo")
    summary["distilled"]["accuracy"], summary["alone"]["accuracy"]

Of 1,347 digits only 100 are labelled. The teacher, a far larger network, learns from these 100; so
does the student that learns alone, from the same initial weights, with the same optimizer and
augmentation and as many steps as the distilled one. The distilled student sees no label at all: it
learns what the teacher says of all 1,347 pictures. Every seed draws its own 100 labels and initial
weights. The 450 test digits are always the same, and are looked at once, after the last step.
"""

import dataclasses
import tempfile
import time
from pathlib import Path

import keras
import numpy as np

import keras_distill as kd
from keras_distill import data, epoch, students
from keras_distill.app import results, resume
from keras_distill.app.classifier import Classifier, write_student
from keras_distill.app.progress import Progress

AUGMENT = data.Light(shift=0.08, zoom=0.08, brightness=0.05, contrast=0.1)
BATCH_SIZE = 32


@dataclasses.dataclass(frozen=True)
class Setting:
    """How much is done; `run` takes a smaller one for a quick look.

    Args:
        seeds: repetitions, each with its own labels and weights.
        labelled: digits with a label.
        teacher_steps, student_steps: steps of Adam with batches of 32; both students get as many.
    """

    seeds: int = 3
    labelled: int = 100
    teacher_steps: int = 640
    student_steps: int = 1600


def teacher_network() -> keras.Model:
    """Four convolutions and two dense layers: about 100,000 parameters."""
    x = inputs = keras.Input((8, 8, 1))
    for filters in (32, 64):
        for _ in range(2):
            x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = keras.layers.BatchNormalization()(x)
            x = keras.layers.ReLU()(x)
        x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dropout(0.3)(x)
    x = keras.layers.Dense(128, activation="relu")(x)
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x), name="teacher")


def student_network() -> keras.Model:
    """Two convolutions of 12 and 24 channels: 3,706 parameters."""
    x = inputs = keras.Input((8, 8, 1))
    for filters in (12, 24):
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x), name="student")


def run(output: str | Path, setting: Setting | None = None) -> dict:
    """Write `student.keras`, `student.tflite`, `labels.txt` and `summary.json` (of the first seed).

    Returns:
        What `summary.json` holds: `teacher`, `alone`, `distilled` and `exported`, each with
        `accuracy` and `accuracy_std` over the seeds, `accuracies`, `parameters` and `size_bytes`.
    """
    setting = setting or Setting()
    started = time.monotonic()
    folder = Path(output)
    if resume.holds_run(folder):
        raise ValueError(
            f"{folder} holds a run of distill, which would be written over: give another --output."
        )
    results.make_folder(folder)
    digits = data.digits()
    test = data.arrays(digits.x_test, digits.y_test, 64, shuffle=False)
    accuracies: dict[str, list[float]] = {}
    parts: dict[str, dict] = {}
    for seed in range(setting.seeds):
        teacher, alone, distilled = _train(digits, setting, seed)
        with tempfile.TemporaryDirectory() as elsewhere:
            sizes = [_size(one.model, Path(elsewhere)) for one in (teacher, alone)]
            pictures = data.arrays(digits.x_train, digits.y_train, BATCH_SIZE, seed)
            written = write_student(
                distilled,
                folder if seed == 0 else Path(elsewhere),
                digits.class_names,
                pictures,
                test,
                quantization="int8",
            )
        found = {
            "teacher": teacher.accuracy(test),
            "alone": alone.accuracy(test),
            "distilled": written["student"]["accuracy"],
            "exported": written["exported"]["accuracy"],
        }
        for name, accuracy in found.items():
            accuracies.setdefault(name, []).append(accuracy)
        if seed == 0:
            parameters = [one.model.count_params() for one in (teacher, alone)]
            parts = {
                "teacher": {"parameters": parameters[0], "size_bytes": sizes[0]},
                "alone": {"parameters": parameters[1], "size_bytes": sizes[1]},
                "distilled": written["student"],
                "exported": written["exported"],
            }
    summary = {
        **{name: {**parts[name], **_over_seeds(accuracies[name])} for name in parts},
        "gain": _over_seeds(np.subtract(accuracies["distilled"], accuracies["alone"])),
        "digits": {
            "labelled": setting.labelled,
            "train": len(digits.x_train),
            "test": len(digits.x_test),
        },
        "arguments": dataclasses.asdict(setting),
        "seconds": round(time.monotonic() - started, 1),
    }
    return results.write_summary(folder / "summary.json", summary)


def show(summary: dict, output: str | Path) -> None:
    """Print the table of `run`, what was gained, and why this setting."""
    titles = {
        "teacher": "Teacher",
        "alone": "Student alone",
        "distilled": "Student distilled",
        "exported": "… as int8 .tflite",
    }
    rows = []
    for name, title in titles.items():
        part = summary[name]
        rows.append(
            (
                title,
                f"{100 * part['accuracy']:.1f} ± {100 * part['accuracy_std']:.1f} %",
                results.size(part["parameters"]),
                results.size(part["size_bytes"]),
                results.milliseconds(part.get("latency_ms")),
            )
        )
    digits, seeds = summary["digits"], summary["arguments"]["seeds"]
    results.show(
        f"On {digits['test']} test digits, mean ± standard deviation of {seeds} seeds",
        ("", "accuracy", "parameters", "bytes", "latency"),
        rows,
    )
    gain, agreement = summary["gain"], summary["exported"]["agreement"]
    results.tell(
        f"Distillation gains {100 * gain['accuracy']:.1f} ± {100 * gain['accuracy_std']:.1f} points "
        f"over the student alone; the int8 file gives the same answer as the Keras model on "
        f"{results.percent(agreement)} of the test digits. Files: {output}"
    )
    results.tell(
        f"Why this setting: only {digits['labelled']} of {digits['train']} digits are labelled, and "
        f"that is where a teacher helps most. The larger network makes more of those labels than the "
        f"small one can, and then speaks for the pictures that have none; with a label on every digit "
        f"the student alone would come close."
    )


def _train(digits: data.Digits, setting: Setting, seed: int):
    """One seed: the teacher, the student alone, and the distilled student."""
    keras.utils.set_random_seed(seed)
    labelled = _labelled(digits.y_train, setting.labelled, seed)
    x, y = digits.x_train[labelled], digits.y_train[labelled]

    def stage(title):
        return f"Seed {seed + 1}/{setting.seeds}, {title}"

    teacher = _classifier(teacher_network())
    alone = _classifier(student_network())
    distilled = _classifier(keras.models.clone_model(alone.model))
    distilled.model.set_weights(alone.model.get_weights())  # the same start

    for classifier, steps, rate, title in (
        (teacher, setting.teacher_steps, 1e-3, "teacher"),
        (alone, setting.student_steps, 2e-3, "student alone"),
    ):
        train = classifier.prepared(_passes(x, y, steps, seed))
        loss = "sparse_categorical_crossentropy"
        classifier.model.compile(_optimizer(rate, steps), loss=loss, metrics=["accuracy"])
        _fit(classifier.model, train, stage(title))

    distiller = kd.Distiller(
        teacher=teacher.model,
        student=distilled.model,
        distillation_losses=kd.losses.SoftTargets(temperature=4.0),
        student_loss_weight=0.0,
        teacher_inputs=teacher.inputs,
        student_inputs=distilled.inputs,
    )
    distiller.compile(_optimizer(2e-3, setting.student_steps))
    pictures = _passes(digits.x_train, digits.y_train, setting.student_steps, seed)
    _fit(distiller, pictures.map(lambda x, y: x), stage("student distilled"))
    return teacher, alone, distilled


def _classifier(model: keras.Model) -> Classifier:
    return Classifier(model, students.NORMALIZATION, (8, 8))


def _size(model: keras.Model, folder: Path) -> int:
    """Bytes of the model as a `.keras` file, without its optimizer."""
    plain = keras.Model(model.inputs[0], model.outputs[0])
    plain.save(folder / "size.keras")
    return (folder / "size.keras").stat().st_size


def _labelled(y, count: int, seed: int):
    """Which digits have a label: as many of each class, as far as that goes."""
    from sklearn.model_selection import train_test_split

    return train_test_split(np.arange(len(y)), train_size=count, stratify=y, random_state=seed)[0]


def _passes(x, y, steps: int, seed: int):
    """One epoch that is as long as the training: the examples again and again, each time another view."""
    again = np.resize(np.arange(len(x)), steps * BATCH_SIZE)
    return data.arrays(x[again], y[again], BATCH_SIZE, seed, AUGMENT)


def _optimizer(learning_rate: float, steps: int):
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, steps))


def _fit(model: keras.Model, train, title: str) -> None:
    with Progress(title, 1, len(train)) as progress:
        callbacks = [epoch.SetEpoch(), progress.callback]
        model.fit(train, shuffle=False, verbose=0, callbacks=callbacks)


def _over_seeds(accuracies) -> dict:
    values = [float(value) for value in accuracies]
    return {
        "accuracy": float(np.mean(values)),
        "accuracy_std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
        "accuracies": values,
    }
