"""How small a file can get: one student as floats, as int8, and pruned or clustered before it becomes int8.

    python examples/small_files.py             # 3 seeds
    python examples/small_files.py --quick     # 2 seeds, fewer epochs

scikit-learn's handwritten digits, 1,347 for training and 450 for testing. A wide network teaches a narrow
one. From that student on, each way trains as many epochs more with the teacher: in floats, with the rounding
of the int8 file in it (`quantize_aware`), and the same after most weights became 0 (`prune`) or one of 16
(`cluster`).
"Zipped" is what an app store sends.

It printed (test accuracy, mean ± standard deviation of 3 seeds):

                              accuracy         bytes   zipped
    float32                   98.2 ± 1.4 %    36,891   32,179
    int8                      98.2 ± 0.7 %    15,264   10,536
    int8, aware               97.9 ± 0.7 %    15,488   10,655
    int8, 80 % zeros, aware   85.9 ± 1.8 %    15,488    5,729
    int8, 16 clusters, aware  98.3 ± 0.8 %    15,280    7,911

int8 costs nothing here, so that rounding in the training has nothing to win. Sixteen clusters are free too,
and save a quarter of the zip; a network of 8,000 weights has no four fifths to spare.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

import keras_distill as kd
import tflite_export as te
from keras_distill import epoch

SCE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
PIXELS = (127.5, 127.5)  # -1..1 is what the networks take


def network(width: int) -> keras.Model:
    x = inputs = keras.Input((8, 8, 1))
    for filters in (width, 2 * width, 2 * width):
        x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(10)(x))


def train(model: keras.Model, data, epochs: int, rate: float, teacher=None) -> None:
    """With the labels alone, or with a teacher."""
    if teacher is not None:
        loss = kd.losses.SoftTargets(temperature=4.0)
        model = kd.Distiller(teacher, model, loss, student_loss_weight=0.1)
    model.compile(keras.optimizers.Adam(rate), SCE)
    callbacks = [epoch.SetEpoch()] if teacher is None else []
    model.fit(data, epochs=epochs, verbose=0, shuffle=False, callbacks=callbacks)


def ways(student: keras.Model, data, examples, epochs: int, teacher) -> dict[str, keras.Model]:
    """The student after `epochs` more, by the way that it takes to its file."""

    def more(model, epochs=epochs):
        train(model, data, epochs, 5e-4, teacher)
        return model

    copy = keras.models.clone_model(student)
    copy.set_weights(student.get_weights())
    half = epochs // 2  # to become sparse or clustered; the rest with rounding
    sparse = more(te.prune(student, sparsity=0.8, steps=max(1, half * len(data) * 2 // 3)), half)
    clustered = more(te.cluster(student, 16), half)
    return {
        "int8": more(copy),
        "int8, aware": more(te.quantize_aware(student, examples)),
        "int8, 80 % zeros, aware": more(te.quantize_aware(sparse, examples), epochs - half),
        "int8, 16 clusters, aware": more(te.quantize_aware(clustered, examples), epochs - half),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    seeds, epochs = (2, 12) if arguments.quick else (arguments.seeds, arguments.epochs)
    digits = kd.data.digits()
    x_train, x_test = (x / 127.5 - 1 for x in (digits.x_train, digits.x_test))
    augment = kd.data.Light(shift=0.08, zoom=0.08, brightness=0.05, contrast=0.1)
    found: dict[str, list[tuple[float, int, int]]] = {}
    for seed in range(seeds):
        keras.utils.set_random_seed(seed)
        pixels = kd.data.arrays(digits.x_train, digits.y_train, 32, seed=seed, augment=augment)
        data = pixels.map(lambda x, y: (x / 127.5 - 1, y))
        teacher, student = network(32), network(12)
        train(teacher, data, epochs, 0.002)
        train(student, data, epochs, 0.002, teacher)
        models = {
            "float32": student,
            **ways(student, data, x_train[:300], max(2, epochs // 2), teacher),
        }
        for name, model in models.items():
            with tempfile.TemporaryDirectory() as folder:
                aware = isinstance(model, te.QuantizeAware)
                exported = te.export(
                    model,
                    Path(folder) / "student.tflite",
                    quantization=name.split(",")[0] if name != "float32" else None,
                    representative_dataset=x_train[:300] if name == "int8" else None,
                    inference_input_type="uint8" if name == "int8" or aware else "float32",
                    normalization=PIXELS,
                )
                result = te.verify(model, exported, (x_test, digits.y_test))
                found.setdefault(name, []).append(
                    (result.accuracy, exported.size_bytes, te.compressed_size(exported))
                )
        print(f"Seed {seed + 1} of {seeds} done.", flush=True)
    print(f"{'':26s}{'accuracy':14s}{'bytes':>8s}{'zipped':>9s}")
    for name, rows in found.items():
        accuracies, sizes, zipped = zip(*rows, strict=True)
        std = 100 * statistics.stdev(accuracies) if len(rows) > 1 else 0.0
        mean = f"{100 * statistics.mean(accuracies):.1f} ± {std:.1f} %"
        bytes_of = (f"{round(statistics.mean(one)):,}" for one in (sizes, zipped))
        print(f"{name:26s}{mean:14s}{next(bytes_of):>8s}{next(bytes_of):>9s}")


if __name__ == "__main__":
    main()
