"""Several teachers, weighed for each example, against each of them and against none.

    python examples/multi_teacher.py            # 3 seeds
    python examples/multi_teacher.py --quick    # 2 seeds, fewer epochs

scikit-learn's handwritten digits: each of three teachers was trained on 150 labelled digits of its own, with
other augmentation; one of them on labels of which a third are wrong. The student sees no label, but what the
teachers say of all 1,347 digits: the mean of all (AVER), weighed by how sure each is (entropy, EBKD), by how
right it is (confidence, CA-MKD, which needs the labels of the digits), and of the best teacher alone.

It printed (test accuracy, mean ± standard deviation of 3 seeds):

    teacher 0                    95.2 ± 1.4 %
    teacher 1                    95.0 ± 0.8 %
    teacher 2, wrong labels      74.8 ± 1.9 %
    student of teacher 0         93.8 ± 2.3 %
    student of all, mean         96.1 ± 0.5 %
    student of all, entropy      96.0 ± 0.4 %
    student of all, confidence   96.6 ± 0.7 %

Together they teach better than the best of them, the one with wrong labels included; how they are weighed
matters less.
"""

import argparse
import os
import statistics
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_distill as kd
from keras_distill import epoch

LABELLED, WRONG = 150, 1 / 3


def network(width: int) -> keras.Model:
    x = inputs = keras.Input((8, 8, 1))
    x = keras.layers.Rescaling(1 / 255)(x)
    for filters in (width, 2 * width):
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = keras.layers.MaxPooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(x)))


def teachers(digits, seed: int, epochs: int) -> list[keras.Model]:
    rng = np.random.default_rng(seed)
    found = []
    for number in range(3):
        chosen = rng.permutation(len(digits.x_train))[:LABELLED]
        labels = digits.y_train[chosen]
        if number == 2:
            wrong = rng.random(LABELLED) < WRONG
            labels = np.where(wrong, rng.integers(0, 10, LABELLED), labels)
        augment = kd.data.Light(shift=0.05 + 0.03 * number, zoom=0.08)
        data = kd.data.arrays(digits.x_train[chosen], labels, 32, seed=seed, augment=augment)
        model = network(32)
        model.compile(
            keras.optimizers.Adam(0.002), keras.losses.SparseCategoricalCrossentropy(True)
        )
        model.fit(data, epochs=epochs, verbose=0, callbacks=[epoch.SetEpoch()], shuffle=False)
        found.append(model)
    return found


def taught(teacher, data, seed: int, epochs: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    student = network(8)
    with tempfile.TemporaryDirectory() as folder:
        labels = kd.SoftLabels.build(teacher, data, folder, views=4, verbose=False)
        loss = kd.losses.SoftTargets(temperature=4.0)
        distiller = kd.Distiller(labels, student, loss, student_loss_weight=0)
        distiller.compile(keras.optimizers.Adam(0.002))
        distiller.fit(labels.attach(data), epochs=epochs, verbose=0)
    return student


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    seeds, epochs = (2, 6) if arguments.quick else (arguments.seeds, arguments.epochs)
    digits = kd.data.digits()
    found: dict[str, list[float]] = {}

    def note(name: str, model: keras.Model) -> None:
        right = model.predict(digits.x_test, verbose=0).argmax(-1) == digits.y_test
        found.setdefault(name, []).append(float(np.mean(right)))

    for seed in range(seeds):
        keras.utils.set_random_seed(seed)
        several = teachers(digits, seed, 4 * epochs)
        for number, model in enumerate(several):
            note(f"teacher {number}{', wrong labels' if number == 2 else ''}", model)
        augment = kd.data.Light(shift=0.08, zoom=0.08)
        data = kd.data.arrays(digits.x_train, digits.y_train, 32, seed=seed, augment=augment)
        note("student of teacher 0", taught(several[0], data, seed, epochs))
        for weighting in ("mean", "entropy", "confidence"):
            ensemble = kd.teachers.Ensemble(several, weighting, temperature=4.0)
            note(f"student of all, {weighting}", taught(ensemble, data, seed, epochs))
        print(f"Seed {seed + 1} of {seeds} done.", flush=True)
    for name, values in found.items():
        std = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{name:28s} {100 * statistics.mean(values):.1f} ± {100 * std:.1f} %")


if __name__ == "__main__":
    main()
