"""CIFAR-10, ResNet-56 → resnet8: do stored labels teach what the live teacher teaches, and how much faster?

    python benchmarks/stored_against_live.py --data cifar10.npz --teacher resnet56.keras

DATA and TEACHER as for `cifar10.py`. The teacher's answers to eight views (`data.CropAndFlip`) of all
training images are stored in float16, then:

    targets  the stored logits of every view against the live ones on the same pixels: how far they are
             apart, and how much of that is not float16's rounding
    losses   of 104 steps, 13 of each view: of both teachers on the same weights, those of a live training;
             and of trainings that go on by themselves, where every difference grows. How fast it does shows
             a second live one, whose first weights are changed by a millionth
    epochs   seconds of one over all images, ways in turns
"""

import argparse
import functools
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cifar10
import keras
import measure
import numpy as np

import keras_distill as kd
from keras_distill import epoch

VIEWS, BATCH, STEPS = 8, 128, 13


def network() -> keras.Model:
    """A fresh student, always the same."""
    keras.utils.set_random_seed(0)
    return kd.students.build("resnet8", (32, 32, 3), 10)


def pupil(teacher, student: keras.Model, rate: float) -> kd.Distiller:
    """A compiled distiller."""
    distiller = kd.Distiller(
        teacher,
        student,
        kd.losses.SoftTargets(temperature=4.0),
        student_loss_weight=0.1,
        teacher_inputs=None if isinstance(teacher, kd.SoftLabels) else cifar10.of_teacher,
        student_inputs=cifar10.of_student,
    )
    sgd = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)
    distiller.compile(sgd, "sparse_categorical_crossentropy")
    return distiller


def batches(data, steps: int):
    """The first `steps` batches of each view."""
    for view in range(VIEWS):
        epoch.begin(view, VIEWS)
        yield from data.take(steps)
    epoch.begin(0)


def targets(labels: kd.SoftLabels, teacher, joined) -> dict:
    """How far the stored logits lie from the live ones."""
    live_teacher = kd.teachers.as_teacher(teacher, cifar10.of_teacher)
    live, stored = [], []
    for x, *_ in batches(joined, STEPS):
        live.append(np.asarray(live_teacher.targets(x["inputs"]).logits))
        stored.append(np.asarray(labels.targets(x).logits))
    live, stored = np.concatenate(live), np.concatenate(stored)
    apart, rounding = np.abs(stored - live), np.spacing(np.abs(live).astype("float16")) / 2
    return {
        "logits": live.size,
        "largest": float(np.abs(live).max()),
        "largest_difference": float(apart.max()),
        "largest_difference_beyond_rounding": float((apart - rounding.astype("float32")).max()),
    }


def losses_of_same_weights(labels, teacher, joined, rate: float) -> dict:
    """The losses of a live training, and what stored labels would have given at each of its steps."""
    student = network()
    live, stored = pupil(teacher, student, rate), pupil(labels, student, 0.0)
    found = []
    for x, y in batches(joined, STEPS):
        found.append([])
        for distiller, given in ((stored, x), (live, x["inputs"])):
            distiller.reset_metrics()
            found[-1].append(distiller.train_on_batch(given, y, return_dict=True)["loss"])
    return apart(*np.transpose(found).astype("float64"))


def losses_alone(labels, teacher, joined, rate: float) -> dict:
    """How far trainings that start alike are apart in the end."""
    changed = network()
    changed.set_weights([(1.0 + 1e-6) * weight for weight in changed.get_weights()])
    ways = {
        "stored": pupil(labels, network(), rate),
        "live": pupil(teacher, network(), rate),
        "live, changed": pupil(teacher, changed, rate),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for x, y in batches(joined, STEPS):
        for name, distiller in ways.items():
            distiller.reset_metrics()
            given = x if name == "stored" else x["inputs"]
            found[name].append(distiller.train_on_batch(given, y, return_dict=True)["loss"])
    values = {name: np.asarray(one, "float64") for name, one in found.items()}
    live = values.pop("live")
    return {f"{name} / live": apart(one, live) for name, one in values.items()}


def apart(ours: np.ndarray, live: np.ndarray) -> dict:
    """The largest difference of two rows of losses, and how large they are."""
    return {
        "steps": len(live),
        "loss_of_first_and_last_step": [float(live[0]), float(live[-1])],
        "largest_difference": float(np.abs(ours - live).max()),
        "largest_relative_difference": float((np.abs(ours - live) / live).max()),
    }


def seconds_per_epoch(labels, teacher, data, joined, rounds: int) -> dict:
    """Of `fit`, after an epoch that is not measured."""
    ways = {
        name: functools.partial(
            pupil(who, network(), 0.01).fit, given, epochs=1, shuffle=False, verbose=0
        )
        for name, who, given in (("stored", labels, joined), ("live", teacher, data))
    }
    seconds = measure.alternate(ways, rounds)
    return {
        **{name: measure.summary(taken) for name, taken in seconds.items()},
        "stored / live": measure.ratio(seconds, "stored", "live"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="an .npz file; left out, keras.datasets.cifar10")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--rate", type=float, default=0.003, help="of SGD with momentum 0.9")
    parser.add_argument("--rounds", type=int, default=2, help="epochs of each way")
    parser.add_argument("--labels", type=Path, help="a folder for the labels, to be kept")
    parser.add_argument("--output", default=measure.RESULTS / "stored_against_live.json")
    arguments = parser.parse_args()
    (x, y), _ = cifar10.load(arguments.data)
    x, y = x[: arguments.images], y[: arguments.images]
    teacher = keras.models.load_model(arguments.teacher)
    data = kd.data.arrays(x, y, BATCH, augment=kd.data.CropAndFlip())
    with tempfile.TemporaryDirectory() as made:
        labels = kd.SoftLabels.build(
            teacher,
            data,
            arguments.labels or made,
            views=VIEWS,
            batch_size=BATCH,
            teacher_inputs=cifar10.of_teacher,
        )
        joined = labels.attach(data)
        result = {"images": len(x), "views": VIEWS, "learning_rate": arguments.rate}
        parts = {
            "targets": lambda: targets(labels, teacher, joined),
            "losses, same weights": lambda: losses_of_same_weights(
                labels, teacher, joined, arguments.rate
            ),
            "losses, alone": lambda: losses_alone(labels, teacher, joined, arguments.rate),
            "seconds": lambda: seconds_per_epoch(labels, teacher, data, joined, arguments.rounds),
        }
        for name, part in parts.items():
            result[name] = part()
            print(name, result[name], flush=True)
    measure.write(arguments.output, result)


if __name__ == "__main__":
    main()
