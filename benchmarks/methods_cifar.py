"""CIFAR-10: what a public ResNet-56 teaches a ResNet-8 on 10,000 images, method by method.

    python benchmarks/methods_cifar.py --data cifar10.npz --teacher resnet56.keras
    python benchmarks/methods_cifar.py --table

DATA and TEACHER are as for benchmarks/cifar10.py. The teacher answers four fixed views (crop and flip) of
the first 10,000 training images once; its logits and inner layers are stored in WORK, and epoch e shows
view e mod 4 to the student. A teacher of Identity layers hands what is stored to the losses, so all goes
through `kd.Distiller` and the big network never runs in training.

Student, data, order, optimizer and schedule are the same for all rows; weights are the customary ones of
`kd.losses.mix`. Where the hard weight is 1, the papers' total is `Mix.scale` times the Distiller's. The
learning rate is multiplied by it and the student's L2 regularisation, which Distiller adds as it is, is
divided: with plain SGD (Nesterov momentum), that is the papers' step.

Test accuracy is that of the last epoch. Each run is written into WORK and RESULTS when it ends; started
again, the command goes on with the runs that are missing. Several at once share the runs, for instance
`taskset -c 0 python … & taskset -c 1 python …` on two cores. What is stored takes 2.3 GB on disk, and as
much memory for losses that read all stages.
"""

import argparse
import contextlib
import fcntl
import json
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cifar10
import keras
import measure
import numpy as np
import tensorflow as tf

import keras_distill as kd
from keras_distill import data, epoch, schedules
from keras_distill.augmentation import order_of_epoch

VIEWS = 4
BATCH = 128
RATE = 0.1
# What is stored of the teacher, the layer that gives it, and in how many bits.
LAYERS = {
    "stage1": ("re_lu_37", "float16"),
    "stage2": ("re_lu_55", "float16"),
    "stage3": ("re_lu_73", "float16"),
    "embedding": ("global_average_pooling2d_1", "float32"),
    "logits": ("linear", "float32"),
}
STAGES = ["stage1", "stage2", "stage3"]
STUDENT_STAGES = [f"{stage}_out" for stage in STAGES]


def alone(embedding):
    return kd.losses.Mix(
        distillation_losses=[kd.losses.SoftTargets()],
        distillation_loss_weights=[0.0],
        student_loss_weight=1.0,
    )


def dkd(embedding):
    mix = kd.losses.mix(kd.losses.DecoupledKD())
    mix["distillation_loss_weights"] = [schedules.warm_up(3)]  # the paper's 20 of 240 epochs
    return mix


def hint_behind_a_connector(embedding):
    """As the reference implementation has it, although the widths are equal: with a normalisation."""
    connector = kd.connectors.Connector(32, "relu", dtype="float32")
    return kd.losses.mix(kd.losses.Hint("stage2", "stage2_out", connector=connector))


def rkd(embedding):
    layers = ("embedding", embedding)
    return kd.losses.mix(kd.losses.RKDDistance(*layers), kd.losses.RKDAngle(*layers))


def crd_kd(embedding):
    mix = kd.losses.mix(
        kd.losses.ContrastiveDistillation("embedding", embedding), kd.losses.SoftTargets(4.0)
    )
    mix["distillation_loss_weights"][1] = 1.0  # beside CRD, not 0.9
    return mix


# Each takes the name of the student's last pooling, and returns arguments of the Distiller.
ROWS = {
    "alone": alone,
    "label_smoothing": alone,
    "KD": lambda _: kd.losses.mix(kd.losses.SoftTargets(4.0)),
    "DKD": dkd,
    "DIST": lambda _: kd.losses.mix(kd.losses.DIST(beta=2.0, gamma=2.0, temperature=4.0)),
    "standardised_KD": lambda _: kd.losses.mix(kd.losses.SoftTargets(2.0, standardize=True)),
    "Hint": lambda _: kd.losses.mix(kd.losses.Hint("stage2", "stage2_out")),
    "Hint_connector": hint_behind_a_connector,
    "AT": lambda _: kd.losses.mix(kd.losses.AttentionTransfer(STAGES, STUDENT_STAGES)),
    "SP": lambda _: kd.losses.mix(kd.losses.SimilarityPreserving("stage3", "stage3_out")),
    "RKD": rkd,
    "CRD_KD": crd_kd,
}


def smoothed(y_true, y_pred):
    """Cross-entropy with 0.1 of the label spread over all classes."""
    labels = keras.ops.one_hot(keras.ops.reshape(y_true, (-1,)), 10)
    return keras.losses.categorical_crossentropy(
        labels, y_pred, from_logits=True, label_smoothing=0.1
    )


# The teacher, once


def store(arguments, folder: Path) -> None:
    """Write views of the training images, with what the teacher says of them, and its test logits."""
    unfinished = folder.with_name(f"{folder.name}_unfinished")
    unfinished.mkdir(parents=True, exist_ok=True)
    with np.load(arguments.data) as file:
        x, x_test, y_test = file["x_train"], file["x_test"], file["y_test"].reshape(-1)
        x, y = x[: arguments.images], file["y_train"].reshape(-1)[: arguments.images]
    teacher = keras.models.load_model(arguments.teacher)
    teacher = keras.Model(
        teacher.input,
        {name: teacher.get_layer(layer).output for name, (layer, _) in LAYERS.items()},
    )
    answer = tf.function(lambda images: teacher(cifar10.of_teacher(images), training=False))

    def array(name, shape, dtype):
        shape = (VIEWS, len(x), *shape)
        return np.lib.format.open_memmap(unfinished / f"{name}.npy", "w+", dtype, shape)

    stored = {"image": array("image", x.shape[1:], "uint8")}
    for name, (_, dtype) in LAYERS.items():
        stored[name] = array(name, teacher.output[name].shape[1:], dtype)
    views = data.arrays(x, y, batch_size=500, augment=data.CropAndFlip(), shuffle=False)
    for view in range(VIEWS):
        epoch.begin(view)
        at = 0
        for images, _ in views:
            place = slice(at, at + len(images))
            for name, value in {"image": images, **answer(images)}.items():
                stored[name][view, place] = value.numpy()
            at += len(images)
        print(f"View {view + 1} of {VIEWS} stored.", flush=True)
    tested = [
        answer(tf.constant(x_test[i : i + 500], "float32"))["logits"]
        for i in range(0, len(x_test), 500)
    ]
    for name, value in {"y": y, "x_test": x_test, "y_test": y_test}.items():
        np.save(unfinished / f"{name}.npy", value)
    np.save(unfinished / "test_logits.npy", np.concatenate(tested))
    for each in stored.values():
        each.flush()
    unfinished.rename(folder)


class Answer(keras.layers.Layer):
    """Of a dict of what is stored the logits; so all of it belongs to one network."""

    def call(self, stored):
        return stored["logits"]


def stored_teacher(shapes: dict) -> keras.Model:
    """A model that answers what it is given: a list of arrays in, logits out, each through a named layer."""
    inputs = {name: keras.Input(shape) for name, shape in shapes.items()}
    stored = {name: keras.layers.Identity(name=name)(x) for name, x in inputs.items()}
    return keras.Model(list(inputs.values()), Answer()(stored))


def batches(stored: dict, y, seed: int) -> tf.data.Dataset:
    """({name: float32 array}, class numbers), in an order that follows from (seed, epoch).

    Args:
        stored: arrays (views, images, ...); epoch e reads view e mod views.
        y: class numbers (images,).
    """
    views, count = stored["image"].shape[:2]
    held = {name: tf.constant(a.reshape(-1, *a.shape[2:])) for name, a in stored.items()}
    labels = tf.constant(y, tf.int32)

    def indices(_):
        number = tf.identity(epoch.variable())
        chosen = tf.cast(order_of_epoch(seed, number, count), tf.int64)
        chosen = tf.data.Dataset.from_tensor_slices(chosen).batch(BATCH, drop_remainder=True)
        return chosen.map(lambda index: (index, index + number % views * count))

    def gather(index, place):
        batch = {name: tf.cast(tf.gather(a, place), tf.float32) for name, a in held.items()}
        batch["image"] = cifar10.of_student(batch["image"])
        return batch, tf.gather(labels, index)

    chosen = tf.data.Dataset.from_tensors(0).flat_map(indices)
    chosen = chosen.apply(tf.data.experimental.assert_cardinality(count // BATCH))
    return epoch.without_autotuning(chosen.map(gather).prefetch(2))


# One run


class Seconds(keras.callbacks.Callback):
    """Notes how long each epoch takes."""

    def __init__(self):
        super().__init__()
        self.taken = []

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.taken.append(time.perf_counter() - self.start)


def run(row: str, seed: int, epochs: int, folder: Path) -> dict:
    """Train one student and return what was measured."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    student = kd.students.build("resnet8", (32, 32, 3), 10, activation=None)
    mix = ROWS[row](student.layers[-2].name)
    for layer in student.layers:
        if getattr(layer, "kernel_regularizer", None) is not None:
            layer.kernel_regularizer.l2 /= mix.scale

    read = {name for loss in mix["distillation_losses"] for name in _layers(loss)} | {"logits"}
    names = [name for name in LAYERS if name in read]
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ["image", *names]}
    distiller = kd.Distiller(
        stored_teacher({name: arrays[name].shape[2:] for name in names}),
        student,
        **mix,
        teacher_inputs=lambda batch: [batch[name] for name in names],
        student_inputs="image",
        teacher_activation="linear",
    )
    train = batches(arrays, np.load(folder / "y.npy"), seed)
    steps = len(train)
    distiller.compile(
        keras.optimizers.SGD(
            keras.optimizers.schedules.CosineDecay(
                0.0, (epochs - 1) * steps, warmup_target=RATE * mix.scale, warmup_steps=steps
            ),
            momentum=0.9,
            nesterov=True,
        ),
        loss=smoothed if row == "label_smoothing" else "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    seconds = Seconds()
    history = distiller.fit(train, epochs=epochs, verbose=0, callbacks=[seconds]).history
    x_test = cifar10.of_student(np.load(folder / "x_test.npy").astype("float32"))
    answers = student.predict(x_test, batch_size=500, verbose=0).argmax(-1)
    return {
        "accuracy": round(float(np.mean(answers == np.load(folder / "y_test.npy"))), 4),
        "agreement": round(
            float(np.mean(answers == np.load(folder / "test_logits.npy").argmax(-1))), 4
        ),
        "train_accuracy": round(history["accuracy"][-1], 4),
        "seconds_per_epoch": round(statistics.median(seconds.taken[1:]), 2),
        "weights": _weights(mix),
        "learning_rate": RATE * mix.scale,
    }


def _layers(loss) -> list[str]:
    names = getattr(loss, "teacher_layer_name", None) or []
    return [names] if isinstance(names, str) else list(names)


def _weights(mix) -> dict[str, float]:
    """The weights of the papers' sum: of the hard labels, and of each loss."""
    share = mix["student_loss_weight"]
    weights = {"labels": share * mix.scale}
    with schedules.at(step=0, epoch=1000):
        for loss, weight in zip(
            mix["distillation_losses"], mix["distillation_loss_weights"], strict=True
        ):
            weights[loss.name] = float(schedules.value(weight)) * (1 - share) * mix.scale
    return {name: round(weight, 6) for name, weight in weights.items() if weight}


# All runs


@contextlib.contextmanager
def lock(path: Path, wait: bool):
    """Hold the file for this process, for as long as it lives; False where another one has it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def collected(arguments, stored: Path, runs: Path) -> dict:
    """What all runs that are finished have measured."""
    right = np.load(stored / "test_logits.npy").argmax(-1) == np.load(stored / "y_test.npy")
    found = {
        row: {
            path.stem: json.loads(path.read_text()) for path in sorted((runs / row).glob("*.json"))
        }
        for row in ROWS
    }
    return {
        "epochs": arguments.epochs,
        "images": arguments.images,
        "views": VIEWS,
        "teacher_accuracy": round(float(right.mean()), 4),
        "rows": {row: seeds for row, seeds in found.items() if seeds},
    }


def table(report: dict) -> str:
    """Mean ± standard deviation over the seeds, in percent."""

    def spread(runs, name):
        values = [100 * run[name] for run in runs]
        deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.2f}{deviation} %"

    rows = [("teacher", f"{100 * report['teacher_accuracy']:.2f} %", "", "", "", "")]
    for name, seeds in report["rows"].items():
        runs = list(seeds.values())
        weights = ", ".join(f"{loss} {weight:g}" for loss, weight in runs[0]["weights"].items())
        seconds = statistics.median(run["seconds_per_epoch"] for run in runs)
        rows.append(
            (
                name,
                spread(runs, "accuracy"),
                spread(runs, "agreement"),
                weights,
                len(runs),
                f"{seconds:.1f}",
            )
        )
    columns = ("", "accuracy", "agreement with the teacher", "weights", "seeds", "s / epoch")
    return measure.table(columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="an .npz file")
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--work", type=Path, default=Path("methods-cifar-work"))
    parser.add_argument("--results", type=Path, default=measure.RESULTS / "methods_cifar.json")
    parser.add_argument("--table", action="store_true", help="print the results, train nothing")
    arguments = parser.parse_args()
    if not arguments.table:
        stored = arguments.work / f"{arguments.images}_images"
        runs = stored.with_name(f"{stored.name}_{arguments.epochs}_epochs")
        runs.mkdir(parents=True, exist_ok=True)
        with lock(arguments.work / "store.lock", wait=True):
            if not stored.exists():
                store(arguments, stored)
        for seed in arguments.seeds:
            for row in arguments.rows:
                path = runs / row / f"{seed}.json"
                path.parent.mkdir(exist_ok=True)
                with lock(path.with_suffix(".lock"), wait=False) as mine:
                    if not mine or path.exists():
                        continue
                    found = run(row, seed, arguments.epochs, stored)
                    part = path.with_suffix(".part")
                    part.write_text(json.dumps(found))
                    part.rename(path)
                print(row, seed, found, flush=True)
                measure.write(arguments.results, collected(arguments, stored, runs))
        measure.write(arguments.results, collected(arguments, stored, runs))
    print(table(json.loads(arguments.results.read_text())))


if __name__ == "__main__":
    main()
