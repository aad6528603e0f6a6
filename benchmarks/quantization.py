"""What each recipe of `quantization=` costs and gives: bytes, accuracy, latency on LiteRT, oldest runtime.

    python benchmarks/quantization.py --cifar10 cifar10.npz \\
        --model resnet8.h5 pixels --model resnet20.keras imagenet --model mobilenet.keras one

After each model's path stands what it was trained on: "pixels" 0..255, "one" for -1..1, or "imagenet" for
pixels / 255 less ImageNet's mean, over its deviation. Models of 32x32 and 10 classes are measured on
CIFAR-10's test images with their labels. Others have no test set here: they see the same pictures, enlarged,
and the figures are the agreement with the float network and the signal-to-noise ratio of the outputs, which
are no accuracy.
The examples to calibrate on are training images, the same for all. One thread; latencies taken in turns.
"""

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import measure
import numpy as np
from litert_quantizer import recipe as recipes
from PIL import Image

import tflite_export as te
from keras_distill import teachers

RESULTS = measure.RESULTS / "quantization.json"
NORMALIZATIONS = {
    "pixels": (0.0, 1.0),
    "one": (127.5, 127.5),
    "imagenet": ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
}
RECIPES = {
    "float32": None,
    "float16": "float16",
    "dynamic_int8": "dynamic_int8",
    "int8": "int8",
    "int16x8": "int16x8",
    "int4": "int4",
    "int4, explicit dequantise": recipes.weight_only_wi4_afp32(),
    "int4, blocks of 32": recipes.dynamic_wi4b32_afp32(),
}
COLUMNS = ("recipe", "bytes", "accuracy", "agreement", "SNR", "latency", "runs from")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cifar10", type=Path, required=True)
    parser.add_argument("--model", nargs=2, action="append", required=True)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--enlarged", type=int, default=200, help="of them, for larger inputs")
    parser.add_argument("--calibration", type=int, default=200)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = []
    for path, kind in arguments.model:
        rows += model_rows(Path(path), NORMALIZATIONS[kind], arguments)
    measure.write(arguments.output, {"rows": rows, "calibration_examples": arguments.calibration})


def model_rows(path, normalization, arguments):
    model = teachers.load(path)
    side, classes = model.inputs[0].shape[1], model.outputs[0].shape[-1]
    labelled = side == 32 and classes == 10
    with np.load(arguments.cifar10) as archive:
        count = arguments.test if labelled else arguments.enlarged
        test, seen = archive["x_test"][:count], archive["x_train"][: arguments.calibration]
        y = archive["y_test"][:count].ravel() if labelled else None
    x, seen = (taken(pixels, side, normalization) for pixels in (test, seen))
    rows, files = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, recipe in RECIPES.items():
            exported = te.export(
                model, Path(folder) / f"{len(rows)}.tflite", recipe, seen,
                num_calibration_examples=len(seen),
            )  # fmt: skip
            files.append(exported)
            compared = te.verify(files[0], exported, x if y is None else (x, y))
            rows.append(
                {
                    "model": path.stem,
                    "recipe": name,
                    "bytes": exported.size_bytes,
                    "accuracy": compared.accuracy,
                    "agreement": compared.agreement,
                    "snr_db": round(compared.snr_db, 1) if np.isfinite(compared.snr_db) else None,
                    "examples": compared.examples,
                    "runs_from": te.minimum_runtime(exported).release,
                }
            )
        told = te.benchmark(files, num_threads=1, runs=arguments.runs, measure_memory=False)
    for row, one in zip(rows, told, strict=True):
        row["median_ms"] = round(one.median_ms, 3)
        row["xnnpack_pieces"] = one.delegate_partitions
    print(f"\n{path.stem}, {len(x)} pictures\n\n{measure.table(COLUMNS, [shown(r) for r in rows])}")
    keras.backend.clear_session()
    return rows


def taken(pixels, side, normalization):
    """Pictures as the model takes them."""
    if side != pixels.shape[1]:
        pixels = np.stack([np.asarray(Image.fromarray(p).resize((side, side))) for p in pixels])
    mean, deviation = (np.asarray(value, "float32") for value in normalization)
    return ((pixels - mean) / deviation).astype("float32")


def shown(row):
    return (
        row["recipe"],
        f"{row['bytes']:,}",
        "" if row["accuracy"] is None else f"{row['accuracy']:.1%}",
        f"{row['agreement']:.1%}",
        "" if row["snr_db"] is None else f"{row['snr_db']:.1f} dB",
        f"{row['median_ms']:.2f} ms",
        row["runs_from"],
    )


if __name__ == "__main__":
    main()
