"""What does each loss cost: milliseconds of a step, ResNet-56 → ResNet-20 on 32×32, batches of 64.

    python benchmarks/losses.py --rounds 8

All ways train through the same random images in blocks of some steps, in turns, with `fit` and all defaults
(TensorFlow backend, SGD, tf.data without its autotuner, whose thread may hold up the end of a `fit`):

    keras logits, keras features    Keras's Distiller with LogitsDistillation or FeatureDistillation
    ours logits, ours features      `kd.Distiller` with SoftTargets, or Hint on the same layers
    LogitMSE                        our cheapest loss: student, teacher and all that is around
    LogitMSE + …                    each loss beside it, so that the teacher runs to its end for all of them

"By itself" is a loss with its gradient on stored outputs of both networks: a difference of two steps knows no
tenths of a millisecond. The memory of RKDAngle is the growth of a fresh process's peak (Linux).
"""

import argparse
import multiprocessing
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import measure
import networks
import numpy as np
import tensorflow as tf

import keras_distill as kd
from keras_distill import epoch, losses

STEPS = 10  # in a block: `fit` itself takes some 50 ms
BATCH = 64
CALLS = 10  # of a loss by itself
STAGES = ["stage1", "stage2", "stage3"]
BASELINE = "LogitMSE"

LOSSES = {
    "SoftTargets": lambda: losses.SoftTargets(),
    "SoftTargets, standardised": lambda: losses.SoftTargets(2.0, standardize=True),
    "DecoupledKD": lambda: losses.DecoupledKD(),
    "DIST": lambda: losses.DIST(),
    "NormalizedKD": lambda: losses.NormalizedKD(),
    "VirtualTeacher": lambda: losses.VirtualTeacher(),
    "Hint": lambda: losses.Hint("stage2", "stage2"),
    "AttentionTransfer": lambda: losses.AttentionTransfer(STAGES, STAGES),
    "NeuronSelectivity": lambda: losses.NeuronSelectivity("stage3", "stage3"),
    "VariationalInformation": lambda: losses.VariationalInformation(STAGES, STAGES),
    "ReviewKD": lambda: losses.ReviewKD(STAGES, STAGES),
    "ChannelWise": lambda: losses.ChannelWise("stage3", "stage3"),
    "CosineFeatures": lambda: losses.CosineFeatures("stage3", "stage3"),
    "RKDDistance": lambda: losses.RKDDistance("embedding", "embedding"),
    "RKDAngle": lambda: losses.RKDAngle("embedding", "embedding"),
    "SimilarityPreserving": lambda: losses.SimilarityPreserving("stage3", "stage3"),
    "CorrelationCongruence": lambda: losses.CorrelationCongruence("embedding", "embedding"),
    "PKT": lambda: losses.PKT("embedding", "embedding"),
    "FSP": lambda: losses.FSP(STAGES, STAGES),
    "ContrastiveDistillation": lambda: losses.ContrastiveDistillation("embedding", "embedding"),
}


def distillers(teacher: keras.Model, student: keras.Model, names) -> dict[str, keras.Model]:
    """Each way, compiled."""
    theirs, layers = keras.distillation, ("stage3", "stage3")
    features = theirs.FeatureDistillation(
        "mse", teacher_layer_name=layers[0], student_layer_name=layers[1]
    )
    ways = {
        "keras logits": (theirs.Distiller, theirs.LogitsDistillation(temperature=4.0)),
        "ours logits": (kd.Distiller, losses.SoftTargets(4.0)),
        "keras features": (theirs.Distiller, features),
        "ours features": (kd.Distiller, losses.Hint(*layers)),
        BASELINE: (kd.Distiller, losses.LogitMSE()),
    }
    for name in names:
        ways[f"{BASELINE} + {name}"] = (kd.Distiller, [losses.LogitMSE(), LOSSES[name]()])
    models = {}
    for name, (distiller, loss) in ways.items():
        model = distiller(teacher, networks.copy(student), loss)
        # No learning: nothing diverges, whatever the weight.
        model.compile(
            keras.optimizers.SGD(0.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
        models[name] = model
    return models


def steps(teacher: keras.Model, student: keras.Model, names, rounds: int) -> dict:
    """Milliseconds of a step of each way."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (STEPS * BATCH, 32, 32, 3)).astype("float32")
    y = rng.integers(0, 10, len(x)).astype("int32")
    data = epoch.without_autotuning(tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH))
    models = distillers(teacher, student, names)
    for name, model in models.items():
        start = time.perf_counter()
        model.fit(data, shuffle=False, verbose=0)
        print(f"{name}: first block {time.perf_counter() - start:.1f} s", flush=True)
    ways = {
        name: lambda model=model: model.fit(data, shuffle=False, verbose=0)
        for name, model in models.items()
    }
    seconds = measure.alternate(ways, rounds, unmeasured=1)
    milliseconds = {name: [1e3 * s / STEPS for s in taken] for name, taken in seconds.items()}
    baseline = milliseconds[BASELINE]
    return {
        "milliseconds_per_step": {
            name: measure.summary(taken) for name, taken in milliseconds.items()
        },
        "milliseconds_above_the_baseline": {
            name: measure.summary(
                [a - b for a, b in zip(milliseconds[f"{BASELINE} + {name}"], baseline, strict=True)]
            )
            for name in names
        },
        "ratios": {
            f"ours / keras, {what}": measure.ratio(seconds, f"ours {what}", f"keras {what}")
            for what in ("logits", "features")
        },
    }


def by_itself(teacher: keras.Model, student: keras.Model, names, rounds: int) -> dict:
    """Milliseconds of each loss with its gradient, on outputs that are there."""
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, (BATCH, 32, 32, 3)).astype("float32")
    labels = tf.constant(rng.integers(0, 10, BATCH), tf.int32)
    layers = [*STAGES, "embedding", teacher.layers[-1].name]

    def outputs(model):
        tapped = [model.get_layer(layer).output for layer in [*layers[:-1], model.layers[-1].name]]
        return dict(zip(layers, keras.Model(model.input, tapped)(x, training=False), strict=True))

    stored = {"teacher": outputs(teacher), "student": outputs(student)}

    def read(loss, whose):
        name = getattr(loss, f"{whose}_layer_name")
        if isinstance(name, list):
            return [stored[whose][one] for one in name]
        return stored[whose][name or layers[-1]]

    def way(loss):
        of_teacher, of_student = read(loss, "teacher"), read(loss, "student")

        @tf.function
        def gradient(of_teacher, of_student):
            with tf.GradientTape() as tape:
                tape.watch(of_student)
                value = loss.compute_loss(of_teacher, of_student, labels=labels)
            return value, tape.gradient(
                value, [of_student, getattr(loss, "trainable_variables", [])]
            )

        loss.compute_loss(of_teacher, of_student, labels=labels)  # makes its weights
        return lambda: [gradient(of_teacher, of_student)[0].numpy() for _ in range(CALLS)]

    ways = {BASELINE: way(losses.LogitMSE()), **{name: way(LOSSES[name]()) for name in names}}
    seconds = measure.alternate(ways, rounds, unmeasured=2)
    return {
        name: measure.summary([1e3 * s / CALLS for s in taken]) for name, taken in seconds.items()
    }


def peak_of_angle(batch: int, max_examples: int) -> float:
    """MiB by which the peak of this process grows with RKDAngle and its gradient, 64 numbers an example."""
    loss = losses.RKDAngle(max_examples=max_examples)

    @tf.function(reduce_retracing=True)
    def gradient(teacher, student):
        with tf.GradientTape() as tape:
            tape.watch(student)
            value = loss.compute_loss(teacher, student)
        return tape.gradient(value, student)

    def once(size):
        gradient(*(tf.random.normal((size, 64)) for _ in range(2))).numpy()

    def mebibytes(what):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 2**10

    once(8)  # traces
    before = mebibytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    for _ in range(3):
        once(batch)
    return round(mebibytes("VmHWM") - before, 1)


def memory_of_angle() -> list[dict]:
    """Peaks for batches of 64, 256 and 512, with the default bound and without one, in fresh processes."""
    rows = []
    for batch in (64, 256, 512):
        for max_examples in sorted({128, max(batch, 128)}):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                mebibytes = pool.apply(peak_of_angle, (batch, max_examples))
            rows.append({"batch": batch, "max_examples": max_examples, "mebibytes": mebibytes})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--output", default=measure.RESULTS / "losses.json")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    teacher, student = networks.resnet(56), networks.resnet(20)
    x = np.random.default_rng(2).uniform(-1, 1, (BATCH, 32, 32, 3)).astype("float32")
    for network in (teacher, student):
        networks.like_trained(network, x)
    result = {
        "batch_size": BATCH,
        "by_itself_milliseconds": by_itself(
            teacher, student, arguments.losses, 2 * arguments.rounds
        ),
        **steps(teacher, student, arguments.losses, arguments.rounds),
        "peak_of_rkd_angle": memory_of_angle(),
    }
    whole = result["milliseconds_per_step"]
    print(f"\nms of a step, batches of {BATCH}:\n")
    first = [name for name in whole if not name.startswith(f"{BASELINE} + ")]
    print(measure.table(("", "a step"), [(name, f"{whole[name]['median']:.1f}") for name in first]))
    print("\nms of each loss:\n")
    rows = []
    for name in arguments.losses:
        above = result["milliseconds_above_the_baseline"][name]
        itself = result["by_itself_milliseconds"][name]["median"]
        quartiles = f"({above['quartile_1']:.1f} – {above['quartile_3']:.1f})"
        rows.append((name, f"{itself:.2f}", f"{above['median']:.1f} {quartiles}"))
    print(measure.table(("", "by itself", f"above a step with {BASELINE}"), rows))
    for name, row in result["ratios"].items():
        print(f"{name:30s} {row['median']:.3f}  ({row['quartile_1']:.3f}–{row['quartile_3']:.3f})")
    print(
        measure.table(
            ("batch", "max_examples", "MiB"),
            [tuple(row.values()) for row in result["peak_of_rkd_angle"]],
        )
    )
    measure.write(arguments.output, result)


if __name__ == "__main__":
    main()
