"""Full int8 after training: litert-quantizer against TensorFlow's converter, on networks you have.

    python benchmarks/quantizers.py --cifar10 cifar10.npz --photos PHOTOS \\
        --model resnet20.keras --model mobilenet_v1.keras

Models with 32×32 inputs are measured on CIFAR-10's test images, normalised by ImageNet's mean and
deviation, with accuracy; others on the photos, scaled to -1..1, against the float network alone.
`cifar10.npz` holds x_train, x_test and y_test (uint8), PHOTOS is a folder of images (searched).
The examples to calibrate on are the same for all, and none of them is measured on.
"""

import argparse
import json
import math
import os
import platform
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from litert_quantizer.utils import qsv_utils
from PIL import Image

from tflite_export import flatbuffer, quantize
from tflite_export.benchmark import benchmark
from tflite_export.chatter import hushed
from tflite_export.convert import convert
from tflite_export.runtime import load

RESULTS = Path(__file__).parent / "results" / "quantizers.json"
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
ENDINGS = {".jpg", ".jpeg", ".png", ".bmp"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, action="append", required=True)
    parser.add_argument("--cifar10", type=Path)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--calibration", type=int, default=200)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = []
    for path in arguments.model:
        model = keras.models.load_model(path, compile=False)
        seen, x, y = data(model, arguments)
        rows += measure(path.stem, model, seen, x, y)
    packages = ("tensorflow", "keras", "litert-quantizer", "ai-edge-litert", "numpy")
    result = {
        "rows": rows,
        "calibration_examples": arguments.calibration,
        "versions": {p: version(p) for p in packages},
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")


def data(model, arguments):
    """(examples to calibrate on, examples to test on, their classes or None)."""
    side = model.inputs[0].shape[1]
    if side == 32:
        with np.load(arguments.cifar10) as archive:
            seen = archive["x_train"][: arguments.calibration]
            x, y = archive["x_test"][: arguments.test], archive["y_test"][: arguments.test].ravel()
        return scaled(seen), scaled(x), y
    files = sorted(p for p in arguments.photos.rglob("*") if p.suffix.lower() in ENDINGS)
    files = [files[i] for i in np.random.default_rng(0).permutation(len(files))]
    files = files[: arguments.calibration + min(arguments.test, 300)]
    photos = [np.asarray(Image.open(f).convert("RGB").resize((side, side))) for f in files]
    x = (np.array(photos, "float32") / 127.5 - 1).astype("float32")
    return x[: arguments.calibration], x[arguments.calibration :], None


def scaled(pixels):
    return ((pixels / 255 - MEAN) / DEVIATION).astype("float32")


def measure(name, model, seen, x, y):
    converted = convert(model)
    reference = load(converted.content).run(x)
    files = {"float": (converted.content, 0.0)}
    for edge in ("float32", "uint8"):
        files[f"litert-quantizer {edge}"] = timed(ours, converted, seen, edge)
        files[f"litert-quantizer, moving average {edge}"] = timed(moving, converted, seen, edge)
        files[f"TensorFlow's converter {edge}"] = timed(theirs, model, seen, edge)
    latencies = benchmark([f for f, _ in files.values()], num_threads=1, measure_memory=False)
    rows = []
    print(f"\n{name}, {len(x)} examples")
    for (way, (content, seconds)), latency in zip(files.items(), latencies, strict=True):
        answers = load(content).run(x)
        operators = list(flatbuffer.operators(flatbuffer.read(content)))
        types = Counter((o.input_types or ("none",))[0] for o in operators)
        row = {
            "model": name,
            "way": way,
            "accuracy": None if y is None else float((answers.argmax(-1) == y).mean()),
            "agreement": float((answers.argmax(-1) == reference.argmax(-1)).mean()),
            "snr_db": decibels(reference, answers),
            "bytes": len(content),
            "operators": dict(types),
            "seconds": round(seconds, 2),
            "median_ms": round(latency.median_ms, 3),
        }
        rows.append(row)
        accuracy = "      -" if y is None else f"{row['accuracy']:7.2%}"
        print(
            f"  {way:43s} {accuracy}  agree {row['agreement']:7.2%}  {row['snr_db']:5.1f} dB  "
            f"{row['bytes']:>9,} bytes  {seconds:5.2f} s  {row['median_ms']:7.3f} ms  {row['operators']}"
        )
    return rows


def decibels(want, have):
    error = float(((want - have) ** 2).sum())
    return round(10 * math.log10(float((want**2).sum()) / error), 2) if error else math.inf


def timed(way, *arguments):
    start = time.perf_counter()
    content = way(*arguments)
    return content, time.perf_counter() - start


def ours(converted, seen, edge):
    examples = [{converted.inputs[0].name: e[None]} for e in seen]
    return quantize.quantize(converted.content, "int8", examples, edge)


def moving(converted, seen, edge):
    """The same with litert-quantizer's default way to sum ranges up."""
    smallest_and_largest = qsv_utils.min_max_update
    qsv_utils.min_max_update = qsv_utils.moving_average_update
    try:
        return ours(converted, seen, edge)
    finally:
        qsv_utils.min_max_update = smallest_and_largest


def theirs(model, seen, edge):
    """From the same kind of frozen graph, so that the quantiser alone is compared."""
    shape = (1, *seen.shape[1:])
    function = tf.function(lambda image: model(image, training=False))
    concrete = function.get_concrete_function(tf.TensorSpec(shape, tf.float32))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], model)
    converter.experimental_lower_to_saved_model = False
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([e[None]] for e in seen)
    converter.inference_input_type = tf.dtypes.as_dtype(edge)
    with hushed():
        return converter.convert()


if __name__ == "__main__":
    main()
