"""A gradient-boosted teacher, a function of NumPy arrays, teaches a small Keras network for a phone.

    python examples/tabular.py            # 5 seeds, about a minute and a half on two cores
    python examples/tabular.py --quick    # 2 seeds, fewer epochs

scikit-learn's breast cancer data: 569 tumours, 30 measurements, benign or malignant. A quarter is for
testing, another split in each seed. The teacher is `HistGradientBoostingClassifier`, which Keras knows
nothing of: it teaches as a `CallableTeacher`. A student of 530 weights learns alone, and from the teacher;
both see the same numbers in the same order, with as many steps.

It printed (test accuracy, mean ± standard deviation of 5 seeds; the file has 4,208 bytes):

    teacher              95.7 ± 1.3 %
    student alone        97.1 ± 1.5 %
    student distilled    97.2 ± 1.3 %

A weak teacher: the small network alone is better than the trees, and has nothing to learn from them.
"""

import argparse
import os
import statistics

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import train_test_split

import keras_distill as kd
import tflite_export as te


def student_network() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((30,)),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )


def trained(teacher, data, seed: int, epochs: int) -> keras.Model:
    """A student taught by `teacher`, or by the labels alone."""
    x, y = data
    keras.utils.set_random_seed(seed)
    student = student_network()
    weight = 1.0 if teacher is None else 0.3
    loss = kd.losses.SoftTargets(temperature=2.0) if teacher else kd.losses.VirtualTeacher()
    distiller = kd.Distiller(teacher, student, loss, student_loss_weight=weight)
    distiller.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy")
    distiller.fit(x, y, batch_size=32, epochs=epochs, verbose=0)
    return student


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", default="tabular.tflite", help="of the first seed")
    arguments = parser.parse_args()
    seeds, epochs = (2, 20) if arguments.quick else (arguments.seeds, arguments.epochs)

    x, y = load_breast_cancer(return_X_y=True)
    found: dict[str, list[float]] = {"teacher": [], "student alone": [], "student distilled": []}
    for seed in range(seeds):
        parts = train_test_split(x, y, test_size=0.25, random_state=seed, stratify=y)
        x_train, x_test, y_train, y_test = parts
        mean, std = x_train.mean(0), x_train.std(0)
        x_train, x_test = ((one - mean) / std for one in (x_train, x_test))
        x_train, x_test = x_train.astype("float32"), x_test.astype("float32")
        boosted = HistGradientBoostingClassifier(random_state=seed).fit(x_train, y_train)
        teacher = kd.teachers.CallableTeacher(boosted.predict_proba, (2,), activation="softmax")
        alone = trained(None, (x_train, y_train), seed, epochs)
        distilled = trained(teacher, (x_train, y_train), seed, epochs)
        found["teacher"].append(boosted.score(x_test, y_test))
        for name, model in (("student alone", alone), ("student distilled", distilled)):
            answers = model.predict(x_test, verbose=0).argmax(-1)
            found[name].append(float(np.mean(answers == y_test)))
        if seed == 0:
            exported = te.export(distilled, arguments.output)
            agreement = te.verify(distilled, exported, x_test).agreement
            print(f"{arguments.output}: {exported.size_bytes:,} bytes, agreement {agreement:.2%}")
    for name, values in found.items():
        std = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{name:20s} {100 * statistics.mean(values):.1f} ± {100 * std:.1f} %")


if __name__ == "__main__":
    main()
