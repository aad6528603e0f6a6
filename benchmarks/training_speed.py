"""What does a step of distillation cost: ours against Keras's Distiller, and against the sum of its parts.

    python benchmarks/training_speed.py --rounds 20

Each way trains (or runs) through the same random images in blocks of one epoch, in turns:

    student            `fit` of the student alone
    teacher            the compiled `teacher(x, training=False)`
    keras              `keras.distillation.Distiller`, LogitsDistillation (another formula, as cheap)
    ours               `keras_distill.Distiller`, SoftTargets, as it comes
    ours, not folded   the same with fold_teacher=False

All with default settings (TensorFlow backend). Before the first measured block each way has run once; how
long that took, with the tracing, stands beside.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import measure
import networks
import numpy as np
import tensorflow as tf

import keras_distill as kd

STEPS = 20  # in a block


def resnets():
    """ResNet-20 teaches ResNet-8 on 32×32, batches of 128."""
    shape = (32, 32, 3)
    return (
        networks.resnet(20, shape, 10),
        kd.students.build("resnet8", shape, 10, activation=None),
        128,
    )


def mobilenets():
    """MobileNetV2 1.0 teaches MobileNetV2 0.35 on 96×96, batches of 32."""
    shape = (96, 96, 3)
    teacher = keras.applications.MobileNetV2(
        shape, weights=None, classes=10, classifier_activation=None
    )
    student = kd.students.build("MobileNetV2", shape, 10, width=0.35, activation=None)
    return teacher, student, 32


PAIRS = {"ResNet-20 → ResNet-8": resnets, "MobileNetV2 1.0 → 0.35": mobilenets}


def measured(pair: str, rounds: int) -> dict:
    keras.utils.set_random_seed(0)
    teacher, student, batch_size = PAIRS[pair]()
    count = STEPS * batch_size
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (count, *teacher.input_shape[1:])).astype("float32")
    y = rng.integers(0, 10, count).astype("int32")
    networks.like_trained(teacher, x[:batch_size])
    batches = [tf.constant(x[i : i + batch_size]) for i in range(0, count, batch_size)]
    answer = tf.function(lambda batch: teacher(batch, training=False))

    models = {
        "student": networks.copy(student),
        "keras": keras.distillation.Distiller(
            teacher, networks.copy(student), keras.distillation.LogitsDistillation(temperature=4.0)
        ),
        "ours": kd.Distiller(
            teacher, networks.copy(student), kd.losses.SoftTargets(temperature=4.0)
        ),
        "ours, not folded": kd.Distiller(
            teacher, networks.copy(student), kd.losses.SoftTargets(temperature=4.0)
        ),
    }
    for name, model in models.items():
        fold = {"fold_teacher": False} if name == "ours, not folded" else {}
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"], **fold)

    def fit(model):
        model.fit(x, y, batch_size=batch_size, verbose=0)

    first = {}
    for name, model in models.items():
        start = time.perf_counter()
        fit(model)
        first[name] = round(time.perf_counter() - start, 2)

    ways = {name: lambda model=model: fit(model) for name, model in models.items()}
    ways["teacher"] = lambda: [answer(batch) for batch in batches][-1].numpy()
    seconds = measure.alternate(ways, rounds)
    seconds["student + teacher"] = [
        a + b for a, b in zip(seconds["student"], seconds["teacher"], strict=True)
    ]
    return {
        "batch_size": batch_size,
        "steps_in_a_block": STEPS,
        "seconds_of_the_first_block": first,
        "microseconds_per_example": {
            name: measure.summary([1e6 * s / count for s in taken])
            for name, taken in seconds.items()
        },
        "ratios": {
            f"{name} / {other}": measure.ratio(seconds, name, other)
            for name in ("ours", "ours, not folded", "keras")
            for other in ("student + teacher", "keras", "student")
            if name != other
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--pair", choices=PAIRS, action="append", help="one of them, or both")
    parser.add_argument("--output", default=measure.RESULTS / "training_speed.json")
    arguments = parser.parse_args()
    result = {}
    for pair in arguments.pair or PAIRS:
        result[pair] = found = measured(pair, arguments.rounds)
        print(f"\n{pair}, batches of {found['batch_size']}, µs for an example:\n")
        rows = [
            (name, *(f"{row[key]:.0f}" for key in ("quartile_1", "median", "quartile_3")))
            for name, row in found["microseconds_per_example"].items()
        ]
        print(measure.table(("", "quartile 1", "median", "quartile 3"), rows))
        for name, row in found["ratios"].items():
            print(
                f"{name:45s} {row['median']:.3f}  ({row['quartile_1']:.3f}–{row['quartile_3']:.3f})"
            )
        print(f"First block, s: {found['seconds_of_the_first_block']}", flush=True)
    measure.write(arguments.output, {"pairs": result})


if __name__ == "__main__":
    main()
