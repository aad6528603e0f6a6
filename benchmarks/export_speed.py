"""How long does a Keras model take to become a float `.tflite`: ours against TensorFlow's and Keras's way.

    python benchmarks/export_speed.py

`tflite_export.export`, `TFLiteConverter.from_keras_model` and `model.export(format="litert")`, each from
the model to the file, in one process and in turns, after one unmeasured turn each on the first net. The
three files are run on the same pictures, and must answer alike. Ours has besides checked that its file
runs. About five minutes on two quiet cores. `--quantization-aware` does so for MobileNetV2 with rounding.
"""

import argparse
import contextlib
import json
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import measure
import numpy as np
import tensorflow as tf

import tflite_export as te
from tflite_export.chatter import hushed

# Networks of keras.applications and their rounds: the big ones take the others half a minute a round.
ROUNDS = {
    "MobileNetV2": 4,
    "MobileNetV3Small": 4,
    "EfficientNetB0": 3,
    "ResNet50": 3,
    "DenseNet121": 3,
}
PEERS = ("from_keras_model", "model.export")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=list(ROUNDS), metavar="NAME")
    parser.add_argument("--rounds", type=int, help="for every net; left out, 4 or 3")
    parser.add_argument(
        "--quantization-aware",
        action="store_true",
        help="only MobileNetV2 with quantisation-aware training, against tfmot's in tf_keras",
    )
    parser.add_argument("--output", type=Path, default=measure.RESULTS / "export_speed.json")
    arguments = parser.parse_args()
    if arguments.quantization_aware:
        row = compare_aware(arguments.rounds or 2)
        earlier = json.loads(arguments.output.read_text())
        measure.write(arguments.output, {"rows": earlier["rows"], "quantization_aware": row})
        print(row)
        return
    rows = []
    for name in arguments.models:
        rounds = arguments.rounds or ROUNDS.get(name, 3)
        rows.append(compare(name, rounds, unmeasured=0 if rows else 1))
        print(name, {way: part["median"] for way, part in rows[-1]["seconds"].items()}, flush=True)
    print(table(rows))
    measure.write(arguments.output, {"rows": rows})


def compare(name: str, rounds: int, unmeasured: int) -> dict:
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    build = getattr(keras.applications, name)
    # Logits: the softmax of an untrained net hides differences.
    model = build(weights=None, input_shape=(224, 224, 3), classifier_activation=None)
    with tempfile.TemporaryDirectory() as folder:
        ours, converter, litert = (
            Path(folder) / f"{way}.tflite" for way in ("ours", "tf", "keras")
        )

        def from_keras_model() -> None:
            converter.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())

        seconds = measure.alternate(
            {
                "tflite_export": lambda: te.export(model, ours),
                "from_keras_model": quietly(from_keras_model),
                "model.export": quietly(
                    lambda: model.export(litert, format="litert", verbose=False)
                ),
            },
            rounds,
            unmeasured,
        )
        pictures = np.random.default_rng(0).uniform(0, 255, (2, 224, 224, 3)).astype("float32")
        files = dict(zip(seconds, (ours, converter, litert), strict=True))
        answers = {way: te.load(file).run(pictures) for way, file in files.items()}
        sizes = {way: file.stat().st_size for way, file in files.items()}
    largest = np.abs(answers["tflite_export"]).max()
    return {
        "model": name,
        "parameters": model.count_params(),
        "seconds": {way: measure.summary(taken) for way, taken in seconds.items()},
        "times_as_long_as_ours": {
            peer: measure.ratio(seconds, peer, "tflite_export") for peer in PEERS
        },
        "largest_difference_of_answers": {
            peer: float(np.abs(answers[peer] - answers["tflite_export"]).max() / largest)
            for peer in PEERS
        },
        "bytes": sizes,
    }


def compare_aware(rounds: int) -> dict:
    """The same for MobileNetV2 with rounding in it: ours, and what tfmot and TensorFlow's converter do."""
    import tf_keras

    from tflite_export.rounding.tfmot import tfmot

    shape = {"weights": None, "input_shape": (224, 224, 3)}
    ours = te.quantize_aware(keras.applications.MobileNetV2(**shape))
    pictures = np.random.default_rng(0).uniform(-1, 1, (8, 224, 224, 3)).astype("float32")
    ours.calibrate(pictures)
    theirs = tfmot().quantization.keras.quantize_model(tf_keras.applications.MobileNetV2(**shape))
    with tempfile.TemporaryDirectory() as folder:

        def from_keras_model() -> None:
            converter = tf.lite.TFLiteConverter.from_keras_model(theirs)
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            Path(folder, "theirs.tflite").write_bytes(converter.convert())

        ways = {
            "tflite_export": lambda: te.export(ours, Path(folder) / "ours.tflite"),
            "from_keras_model": quietly(from_keras_model),
        }
        seconds = measure.alternate(ways, rounds, unmeasured=0)
    return {
        "seconds": {way: measure.summary(taken) for way, taken in seconds.items()},
        "times_as_long_as_ours": measure.ratio(seconds, "from_keras_model", "tflite_export"),
    }


def quietly(way):
    """`way` without what TensorFlow's converter prints, on both channels."""

    def run() -> None:
        with hushed(), open(os.devnull, "w") as nowhere:
            kept = os.dup(1)
            os.dup2(nowhere.fileno(), 1)
            try:
                with contextlib.redirect_stdout(nowhere):
                    way()
            finally:
                os.dup2(kept, 1)
                os.close(kept)

    return run


def table(rows) -> str:
    def cell(row, way):
        seconds = f"{row['seconds'][way]['median']:.2f} s"
        if way == "tflite_export":
            return seconds
        return f"{seconds} ({row['times_as_long_as_ours'][way]['median']:.1f}×)"

    ways = ["tflite_export", *PEERS]
    return measure.table(
        ["", "ours", "`from_keras_model`", '`model.export(format="litert")`'],
        [[row["model"], *(cell(row, way) for way in ways)] for row in rows],
    )


if __name__ == "__main__":
    main()
