"""What stored labels cost: an epoch with them, making them, and the memory that both take.

    python benchmarks/soft_labels.py --rounds 10

ResNet-56 teaches resnet8 on random images 32×32, batches of 128, everything by default:

    epoch      `fit` of the student alone, and of a Distiller with stored labels and with the live teacher,
               on arrays and on `data.arrays(…, augment=data.CropAndFlip())`
    labelling  `SoftLabels.build` against `teacher.predict` on the same arrays, also with a LiteRT teacher
    memory     the largest resident set of a process that labels a stream of 50,000 and of 500,000 examples
               and trains an epoch on them

Ways take turns; ratios are of each turn.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import measure
import networks
import numpy as np
import tensorflow as tf

import keras_distill as kd

BATCH = 128
SCE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def examples(count: int):
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 255, (count, 32, 32, 3)).astype("float32")
    return x, rng.integers(0, 10, count).astype("int32")


def teacher_of(x) -> keras.Model:
    keras.utils.set_random_seed(0)
    teacher = networks.resnet(56)
    networks.like_trained(teacher, x[:BATCH])
    return teacher


def pupil() -> keras.Model:
    keras.utils.set_random_seed(0)
    return kd.students.build("resnet8", (32, 32, 3), 10, activation=None)


def epoch(folder: Path, rounds: int, steps: int) -> dict:
    x, y = examples(steps * BATCH)
    teacher = teacher_of(x)

    def data(augmented: bool):
        if not augmented:
            return x, y
        return kd.data.arrays(x, y, BATCH, augment=kd.data.CropAndFlip())

    result = {}
    for kind, augmented in (("arrays", False), ("augmented", True)):
        labels = kd.SoftLabels.build(
            teacher, data(augmented), folder / kind, views=1 + augmented, batch_size=BATCH
        )
        joined = labels.attach(data(augmented), batch_size=BATCH)
        ways = {}
        for name, who in (("student", None), ("stored", labels), ("live", teacher)):
            model = pupil()
            if who is not None:
                model = kd.Distiller(who, model, kd.losses.SoftTargets())
            model.compile("adam", SCE, metrics=["accuracy"])
            given = joined if who is labels else data(augmented)
            ways[name] = fit_once(model, given)
        seconds = measure.alternate(ways, rounds, unmeasured=2)
        result[kind] = {
            "microseconds_per_example": {
                name: measure.summary([1e6 * s / len(x) for s in taken])
                for name, taken in seconds.items()
            },
            "stored / student": measure.ratio(seconds, "stored", "student"),
            "live / student": measure.ratio(seconds, "live", "student"),
        }
        print(kind, *(f"{key} {result[kind][key]}" for key in result[kind]), sep="\n", flush=True)
    return result


def fit_once(model, data):
    if isinstance(data, tuple):
        return lambda: model.fit(*data, batch_size=BATCH, verbose=0)
    return lambda: model.fit(data, shuffle=False, verbose=0)


def labelling(folder: Path, rounds: int, steps: int) -> dict:
    import tflite_export as te

    x, _ = examples(steps * BATCH)
    teacher = teacher_of(x)
    te.export(teacher, folder / "teacher.tflite", batch_size=BATCH)
    lite = kd.teachers.load(folder / "teacher.tflite")

    def build(who):
        def run():
            shutil.rmtree(folder / "made", ignore_errors=True)
            kd.SoftLabels.build(who, x, folder / "made", batch_size=BATCH, verbose=False)

        return run

    ways = {
        "predict": lambda: teacher.predict(x, batch_size=BATCH, verbose=0),
        "build": build(teacher),
        "build, LiteRT": build(lite),
    }
    seconds = measure.alternate(ways, rounds)
    result = {
        "examples": len(x),
        "examples_per_second": {
            name: measure.summary([len(x) / s for s in taken]) for name, taken in seconds.items()
        },
        "predict / build": measure.ratio(seconds, "predict", "build"),
        "predict / build, LiteRT": measure.ratio(seconds, "predict", "build, LiteRT"),
    }
    print(*(f"{key} {result[key]}" for key in result), sep="\n", flush=True)
    return result


def stream(count: int):
    """Examples that are made when they are asked for."""

    def make(i):
        x = tf.random.stateless_uniform((64,), (i, i))
        return x, tf.cast(i % 10, tf.int32)

    return tf.data.Dataset.range(count).map(make, num_parallel_calls=2).batch(256)


def one_memory(count: int, folder: Path) -> None:
    """Label a stream, train on it for an epoch, and print the largest resident set in MiB."""
    teacher = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    student = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    labels = kd.SoftLabels.build(teacher, stream(count), folder, verbose=False)
    model = kd.Distiller(labels, student, kd.losses.SoftTargets())
    model.compile("sgd", SCE)
    model.fit(labels.attach(stream(count)), verbose=0)
    status = Path("/proc/self/status").read_text()
    print(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024)


def memory(folder: Path) -> dict:
    result = {}
    for count in (50_000, 500_000):
        start = time.perf_counter()
        command = [sys.executable, __file__, "--memory-of", str(count), "--folder", str(folder)]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        result[f"{count:,}"] = {
            "largest_resident_mebibytes": round(float(found.stdout.split()[-1])),
            "seconds": round(time.perf_counter() - start),
        }
        print(count, result[f"{count:,}"], flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=40, help="batches in an epoch")
    parser.add_argument("--only", choices=("epoch", "labelling", "memory"), help="keep the others")
    parser.add_argument("--output", default=measure.RESULTS / "soft_labels.json")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        one_memory(arguments.memory_of, Path(arguments.folder) / str(arguments.memory_of))
        return
    parts = {
        "epoch": lambda folder: epoch(folder, arguments.rounds, arguments.steps),
        "labelling": lambda folder: labelling(
            folder, max(3, arguments.rounds // 2), 5 * arguments.steps
        ),
        "memory": memory,
    }
    result = {}
    if arguments.only and Path(arguments.output).exists():
        result = json.loads(Path(arguments.output).read_text())
    with tempfile.TemporaryDirectory() as name:
        for part in [arguments.only] if arguments.only else parts:
            result[part] = parts[part](Path(name))
    measure.write(arguments.output, result)


if __name__ == "__main__":
    main()
