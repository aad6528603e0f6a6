"""What quantisation-aware training wins, with a teacher and without: accuracy, agreement, bytes, latency.

    python benchmarks/quantize_aware.py resnet8 --data cifar10.npz --teacher resnet56.keras \
        --student pretrainedResnet.h5
    python benchmarks/quantize_aware.py mobilenet --photos photos/ --teacher mobilenet_v1.keras \
        --student mobilenet_v2_notop.keras

resnet8: MLPerf Tiny's trained network on CIFAR-10 (pixels 0..255), taught by a public ResNet-56. mobilenet:
MobileNetV2 0.35 from ImageNet weights, distilled first on a folder of photos from a fine-tuned MobileNet
0.75. From the float student on, four ways train as many epochs with the same views in the same order: in
floats with the teacher, and quantisation-aware with the labels alone, with the teacher alone, and with both
(student_loss_weight 0.1). Each becomes an int8 file; "after training" is the float student's without further
training. Test accuracy of the last epoch; agreement is with the float student; "steps" compares a file's
logits with those of the model that it was made of. A row that is done is not trained again.
"""

import argparse
import json
import os
import statistics
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cifar10
import keras
import measure
import numpy as np

import keras_distill as kd
import tflite_export as te
from keras_distill import epoch
from keras_distill.app import finetune
from tflite_export import flatbuffer

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
WAYS = {  # quantisation-aware, the labels' share
    "float, on with the teacher": (False, 0.1),
    "aware, labels alone": (True, 1.0),
    "aware, teacher alone": (True, 0.0),
    "aware, teacher and labels": (True, 0.1),
}


class Task:
    """Data of raw pixels, a float student that is trained, and its teacher.

    Attributes:
        train: data set of pixels and classes, with views.
        test: (pixels, classes).
        student, teacher: networks, and `of_student`, `of_teacher`: how they take pixels.
        normalization: of the student.
    """


class Cifar(Task):
    def __init__(self, arguments, seed: int):
        (x, y), (x_test, y_test) = cifar10.load(arguments.data)
        chosen = np.random.default_rng(0).permutation(len(x))[: arguments.images]
        self.train = kd.data.arrays(
            x[chosen], y[chosen], 128, seed=seed, augment=kd.data.CropAndFlip()
        )
        self.test = x_test.astype("float32"), y_test
        self.teacher, self.of_teacher = (
            keras.models.load_model(arguments.teacher),
            cifar10.of_teacher,
        )
        loaded = kd.teachers.load(arguments.student)
        self.student = keras.models.clone_model(getattr(loaded, "model", loaded))
        self.student.set_weights(getattr(loaded, "model", loaded).get_weights())
        self.student.layers[
            -1
        ].activation = keras.activations.linear  # logits: a softmax hides errors
        self.normalization = (0, 1)

    def of_student(self, pixels):
        return pixels * 1.0


class Photos(Task):
    def __init__(self, arguments, seed: int):
        size, self.normalization = 96, kd.students.NORMALIZATION
        found = kd.data.image_folder(arguments.photos, size, 32, seed, augment=kd.data.Light())
        self.train = found.train
        self.test = tuple(np.concatenate(one) for one in zip(*found.validation, strict=True))
        body, _ = finetune.application("MobileNet", str(arguments.teacher), size)
        self.teacher = finetune.with_new_head(body, len(found.class_names))
        data = [
            d.map(lambda x, y: (self.of_student(x), y)) for d in (found.train, found.validation)
        ]
        finetune.fine_tune(self.teacher, *data, arguments.float_epochs)
        self.student = kd.students.build(
            "MobileNetV2",
            (size, size, 3),
            len(found.class_names),
            width=0.35,
            weights=str(arguments.student),
            activation=None,
        )
        distil(self, self.student, 0.1, arguments.float_epochs, 1e-3)

    def of_student(self, pixels):
        mean, std = self.normalization
        return (pixels - mean) / std

    of_teacher = of_student


def distil(task: Task, student, share: float, epochs: int, rate: float) -> None:
    distiller = kd.Distiller(
        task.teacher,
        student,
        kd.losses.SoftTargets(temperature=4.0),
        student_loss_weight=share,
        teacher_inputs=task.of_teacher,
        student_inputs=task.of_student,
    )
    falling = keras.optimizers.schedules.CosineDecay(rate, epochs * len(task.train))
    distiller.compile(keras.optimizers.Adam(falling), LOSS)
    distiller.fit(task.train, epochs=epochs, verbose=2, callbacks=[epoch.SetEpoch()], shuffle=False)


def measured(task: Task, floats, model, file: Path) -> dict:
    """Accuracy, agreement with `floats`, bytes and latency of a model's int8 file."""
    x, y = task.of_student(task.test[0]), task.test[1]
    examples = None if isinstance(model, te.QuantizeAware) else representative(task)
    exported = te.export(
        model,
        file,
        "int8",
        examples,
        inference_input_type="uint8",
        normalization=task.normalization,
    )
    found = te.verify(floats, exported, (x, y))
    own = te.verify(model, exported, (x, y))
    step = flatbuffer_step(exported)
    answers = te.load(exported).run(pixels_of(task.test[0], exported))
    apart = np.abs(answers - model.predict(x, verbose=0)) / step
    return {
        "model_accuracy": own.reference_accuracy,
        "within_2_steps_of_the_model": float(np.mean(apart <= 2.01)),
        "snr_db_to_the_model": next(iter(own.outputs.values())).snr_db,
        "accuracy": found.accuracy,
        "agreement": found.agreement,
        "bytes": exported.size_bytes,
        "latency_ms_1_thread": te.benchmark(
            exported, num_threads=1, measure_memory=False
        ).median_ms,
    }


def flatbuffer_step(exported) -> float:
    """The step in which the file stores its output."""
    tree = flatbuffer.read(exported.path.read_bytes())
    return flatbuffer.maker(tree, int(tree.subgraphs[0].outputs[0]), through=["DEQUANTIZE"]).step


def pixels_of(pixels: np.ndarray, exported) -> np.ndarray:
    return np.clip(np.round(pixels), 0, 255).astype(exported.inputs[0].dtype)


def representative(task: Task) -> np.ndarray:
    epoch.begin(0)
    batches = []
    for x, _ in task.train:
        batches.append(np.asarray(task.of_student(x)))
        if sum(map(len, batches)) >= 300:
            break
    return np.concatenate(batches)[:300]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("task", choices=["resnet8", "mobilenet"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--float-epochs", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("quantize-aware-work"))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    state = arguments.work / f"{arguments.task}.json"
    rows = json.loads(state.read_text()) if state.exists() else {}
    for seed in range(arguments.seeds):
        keras.utils.set_random_seed(seed)
        task = (Cifar if arguments.task == "resnet8" else Photos)(arguments, seed)
        floats = keras.models.clone_model(task.student)
        floats.set_weights(task.student.get_weights())
        file = arguments.work / f"{arguments.task}.tflite"
        done = rows.setdefault(str(seed), {})
        if "float student" not in done:
            x, y = task.test
            right = floats.predict(task.of_student(x), verbose=0).argmax(-1) == y
            done["float student"] = {"accuracy": float(np.mean(right))}
            done["int8 after training"] = measured(task, floats, floats, file)
        for name, (aware, share) in WAYS.items():
            if name in done:
                continue
            keras.utils.set_random_seed(seed)
            task.student.set_weights(floats.get_weights())
            student = (
                te.quantize_aware(task.student, representative(task)) if aware else task.student
            )
            distil(task, student, share, arguments.epochs, arguments.learning_rate)
            done[name] = measured(task, floats, student, file)
            state.write_text(json.dumps(rows, indent=1))
            print(seed, name, done[name], flush=True)
    table = {
        name: {key: [rows[seed][name][key] for seed in rows] for key in values}
        for name, values in rows["0"].items()
    }
    path = measure.RESULTS / "quantize_aware.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    shown = {k: v for k, v in vars(arguments).items() if isinstance(v, int | float)}
    measure.write(path, {**results, arguments.task: {"arguments": shown, "seeds": table}})
    for name, values in table.items():
        cells = [f"{name:28s}"]
        for key in ("accuracy", "agreement"):
            if key in values:
                many = values[key]
                spread = statistics.stdev(many) if len(many) > 1 else 0.0
                cells.append(f"{100 * statistics.mean(many):.2f} ± {100 * spread:.2f} %")
        if "within_2_steps_of_the_model" in values:
            steps, decibels = values["within_2_steps_of_the_model"], values["snr_db_to_the_model"]
            cells.append(f"{100 * min(steps):.1f} % within 2 steps, {min(decibels):.1f} dB")
        if "bytes" in values:
            cells.append(
                f"{values['bytes'][0]:,} bytes, {min(values['latency_ms_1_thread']):.2f} ms"
            )
        print("   ".join(cells))


if __name__ == "__main__":
    main()
