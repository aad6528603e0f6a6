"""How long does a Keras model take to become a float `.tflite`: ours against from_keras_model.

    python benchmarks/export_speed.py --rounds 7

Both in one process, in turns, after one unmeasured turn each; medians. "convert" is what compares
with `TFLiteConverter.from_keras_model(model).convert()`: from the model to the bytes, names written.
"export" also writes the file and loads it once.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

import tflite_export as te
from tflite_export.chatter import hushed
from tflite_export.convert import convert

RESULTS = Path(__file__).parent / "results" / "export_speed.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="MobileNetV2", help="a name in keras.applications")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    model = getattr(keras.applications, arguments.model)(weights=None)

    def peer() -> None:
        with hushed():
            tf.lite.TFLiteConverter.from_keras_model(model).convert()

    with tempfile.TemporaryDirectory() as folder:
        ways = {
            "convert": lambda: convert(model),
            "export": lambda: te.export(model, Path(folder) / "model.tflite"),
            "from_keras_model": peer,
        }
        seconds = {name: [] for name in ways}
        for turn in range(arguments.rounds + 1):
            for name, way in ways.items():
                start = time.perf_counter()
                with open(os.devnull, "w") as nowhere:
                    stdout = os.dup(1)
                    os.dup2(nowhere.fileno(), 1)  # Keras prints where it saved its SavedModel
                    way()
                    os.dup2(stdout, 1)
                    os.close(stdout)
                if turn:
                    seconds[name].append(time.perf_counter() - start)

    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    result = {
        "model": arguments.model,
        "rounds": arguments.rounds,
        "median_seconds": {name: round(value, 3) for name, value in medians.items()},
        "all_seconds": {name: [round(s, 3) for s in taken] for name, taken in seconds.items()},
        "times_faster": {
            name: round(medians["from_keras_model"] / medians[name], 2)
            for name in ("convert", "export")
        },
        "versions": {p: version(p) for p in ("tensorflow", "keras", "numpy")},
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    for name, value in medians.items():
        times = medians["from_keras_model"] / value
        print(f"{name:18s} {value:7.3f} s  {times:6.2f} times as fast as from_keras_model")


if __name__ == "__main__":
    main()
