"""CIFAR-10: a public ResNet-56 teaches the 78,666 parameters of MLPerf Tiny's ResNet-8.

    python benchmarks/cifar10.py --data cifar10.npz --teacher resnet56.keras --epochs 20

DATA holds `x_train`, `y_train`, `x_test`, `y_test` as `keras.datasets.cifar10` gives them (left out, they are
downloaded by Keras). TEACHER is a Keras model on 32×32 images, normalised as for ImageNet. Both students see
the same augmented images for as many epochs; test accuracy is that of the last epoch. Killed and started
again, it goes on; a row that is finished is not trained again.
"""

import argparse
import json
import platform
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np

import keras_distill as kd
import tflite_export as te
from keras_distill import data, students

MEAN, STD = 127.5, 127.5
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], "float32") * 255
IMAGENET_STD = np.array([0.229, 0.224, 0.225], "float32") * 255


def of_student(pixels):
    """Pixels 0..255 as the student takes them."""
    return (pixels - MEAN) / STD


def of_teacher(pixels):
    """Pixels 0..255 as the teacher takes them."""
    return (pixels - IMAGENET_MEAN) / IMAGENET_STD


def load(path: Path | None):
    """((x_train, y_train), (x_test, y_test)) of an .npz file, or of `keras.datasets`."""
    if path is None:
        arrays = keras.datasets.cifar10.load_data()
    else:
        with np.load(path) as file:
            arrays = [(file[f"x_{part}"], file[f"y_{part}"]) for part in ("train", "test")]
    return [(x, y.reshape(-1)) for x, y in arrays]


def accuracy(model, inputs, labels) -> float:
    """Share of right answers."""
    return float(np.mean(model.predict(inputs, batch_size=500, verbose=0).argmax(-1) == labels))


def row(name, teacher, arrays, arguments, folder):
    """Train one student, export it, and return what was measured."""
    (x_train, _), (x_test, y_test) = arrays
    path = folder / f"{name}.keras"
    if not path.exists():
        train_student(name, teacher, *arrays[0], arguments, folder).save(path)
    student = keras.models.load_model(path)
    x_test = of_student(x_test.astype("float32"))
    exported = te.export(
        student,
        path.with_suffix(".tflite"),
        quantization="int8",
        representative_dataset=of_student(x_train[:300].astype("float32")),
        inference_input_type="uint8",
        normalization=(MEAN, STD),
    )
    verified = te.verify(student, exported, (x_test, y_test))
    return {
        "accuracy": accuracy(student, x_test, y_test),
        "int8_accuracy": verified.accuracy,
        "int8_agreement": verified.agreement,
        "parameters": student.count_params(),
        "int8_bytes": exported.size_bytes,
        "int8_latency_ms_1_thread": te.benchmark(exported, num_threads=1).median_ms,
    }


def train_student(name, teacher, x_train, y_train, arguments, folder):
    """Train a ResNet-8, alone or from the teacher; goes on where a killed training was."""
    keras.utils.set_random_seed(arguments.seed)
    student = students.build("resnet8", (32, 32, 3), 10)
    train = data.arrays(
        x_train, y_train, batch_size=128, seed=arguments.seed, augment=data.CropAndFlip()
    )
    distiller = kd.Distiller(
        teacher,
        student,
        kd.losses.SoftTargets(arguments.temperature),
        student_loss_weight=1.0 if name == "alone" else arguments.student_loss_weight,
        teacher_inputs=of_teacher,
        student_inputs=of_student,
    )
    steps = arguments.epochs * len(train)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - len(train), warmup_target=0.1, warmup_steps=len(train)
    )
    distiller.compile(
        keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    backup = keras.callbacks.BackupAndRestore(folder / f"{name}_backup")
    distiller.fit(train, epochs=arguments.epochs, verbose=2, callbacks=[backup])
    return student


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="an .npz file; left out, keras.datasets.cifar10")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=4.0)
    parser.add_argument("--student-loss-weight", type=float, default=0.1)
    parser.add_argument("--rows", nargs="+", default=["distilled", "alone"])
    parser.add_argument(
        "--work", type=Path, default=Path("cifar10-work"), help="checkpoints and files"
    )
    parser.add_argument(
        "--results", type=Path, default=Path(__file__).parent / "results/cifar10.json"
    )
    arguments = parser.parse_args()
    arrays = load(arguments.data)
    teacher = keras.models.load_model(arguments.teacher)
    folder = arguments.work / f"{arguments.epochs}_epochs_seed_{arguments.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "rows.json"
    rows = json.loads(done.read_text()) if done.exists() else {}
    if "teacher" not in rows:
        rows["teacher"] = {
            "accuracy": accuracy(teacher, of_teacher(arrays[1][0].astype("float32")), arrays[1][1]),
            "parameters": teacher.count_params(),
            "bytes": arguments.teacher.stat().st_size,
        }
    for name in arguments.rows:
        if name not in rows:
            rows[name] = row(name, teacher, arrays, arguments, folder)
        done.write_text(json.dumps(rows, indent=1))
        print(name, rows[name], flush=True)
    report = {
        "command": f"python benchmarks/cifar10.py --epochs {arguments.epochs} --seed {arguments.seed}",
        "temperature": arguments.temperature,
        "student_loss_weight": arguments.student_loss_weight,
        "rows": rows,
        "versions": {name: version(name) for name in ("keras", "tensorflow", "ai-edge-litert")},
        "machine": f"{platform.machine()}, 2 cores shared with other work",
    }
    arguments.results.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
