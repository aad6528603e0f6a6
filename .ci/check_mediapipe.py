#!/usr/bin/env python3
"""MediaPipe Tasks' ImageClassifier loads what `te.export` writes, and gives the right label.

    python3 .ci/check_mediapipe.py                      # makes both environments, in a temporary folder
    python .ci/check_mediapipe.py --mediapipe PYTHON    # PYTHON has mediapipe: no second one is made

MediaPipe cannot be installed beside TensorFlow. So this file runs twice: where `tflite_export` is
installed it makes a small classifier whose answers are known by construction, exports it, verifies each
file, and writes pictures; where MediaPipe is installed it classifies them. Ends with exit status 1 where a
label differs, or where a score differs from LiteRT's.
"""

import argparse
import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SIDE = 32
# Odd on purpose: a comma, and letters beyond ASCII.
LABELS = ["red, rouge", "grün", "青 $blue"]
NORMALIZATION = (127.5, 127.5)


def make(folder: Path) -> None:
    """Exports of one classifier, and pictures with the answers of LiteRT."""
    import keras
    import numpy as np
    from PIL import Image

    import tflite_export as te

    model = classifier(keras, np)
    rng = np.random.default_rng(0)
    names = [number % len(LABELS) for number in range(12)]
    pictures = np.stack([picture(rng, np, name, (SIDE, SIDE)) for name in names])
    x = (pictures / 127.5 - 1).astype("float32")
    files = {
        "float32": {},
        "float16": {"quantization": "float16"},
        "uint8": {
            "quantization": "int8",
            "representative_dataset": x,
            "inference_input_type": "uint8",
        },
    }
    files["uint8_both"] = files["uint8"] | {"inference_output_type": "uint8"}
    # In integer files the graph itself normalises, so each channel may have numbers of its own.
    files["uint8_channels"] = files["uint8"]
    described = {"labels": LABELS, "files": {}, "pictures": []}
    for name, arguments in files.items():
        normalization = NORMALIZATION
        if name == "uint8_channels":
            normalization = ([127.0, 127.5, 128.0], [127.5, 127.0, 128.0])
        exported = te.export(
            model,
            folder / f"{name}.tflite",
            labels=LABELS,
            normalization=normalization,
            name="colours",
            description="Says which colour a picture is.",
            version="1.2",
            author="Nobody, Íñigo",
            license="Apache-2.0",
            **arguments,
        )
        te.verify(model, exported, (x, np.array(names))).raise_if_worse(
            agreement=1.0, accuracy_drop=0.0
        )
        scores = te.load(exported).run(x if "uint8" not in name else pictures)
        described["files"][name] = scores.tolist()
    for number, (name, pixels) in enumerate(zip(names, pictures, strict=True)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
        described["pictures"].append({"file": f"{number}.png", "label": LABELS[name]})
        # Another size: MediaPipe stretches it, and the colour stays.
        wide = picture(rng, np, name, (50, 80))
        Image.fromarray(wide).save(folder / f"{number}_wide.png")
        described["pictures"].append({"file": f"{number}_wide.png", "label": LABELS[name]})
    (folder / "described.json").write_text(json.dumps(described), "utf-8")


def classifier(keras, np):
    """The largest of mean red, green and blue, through a convolution: right by construction."""
    image = keras.Input((SIDE, SIDE, 3), name="image")
    x = keras.layers.Conv2D(3, 3, strides=2, use_bias=False, name="conv")(image)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(len(LABELS), activation="softmax", name="probability")(x)
    model = keras.Model(image, x, name="colours")
    kernel = np.zeros((3, 3, 3, 3), "float32")
    kernel[:, :] = np.eye(3) / 9
    model.get_layer("conv").set_weights([kernel])
    model.get_layer("probability").set_weights(
        [4 * np.eye(3, dtype="float32"), np.zeros(3, "float32")]
    )
    return model


def picture(rng, np, colour, size):
    """A noisy picture in which one channel is clearly the strongest."""
    pixels = rng.integers(20, 140, (*size, 3))
    pixels[..., colour] += rng.integers(60, 110)
    return pixels.astype("uint8")


def classify(folder: Path) -> None:
    """Every picture with every file; what differs is printed, and ends this with an error."""
    import mediapipe as mp
    from mediapipe.tasks import python
    from mediapipe.tasks.python import vision

    described = json.loads((folder / "described.json").read_text("utf-8"))
    wrong = []
    for name, scores in described["files"].items():
        options = vision.ImageClassifierOptions(
            base_options=python.BaseOptions(model_asset_path=str(folder / f"{name}.tflite"))
        )
        errors = []
        with vision.ImageClassifier.create_from_options(options) as classifier:
            for number, one in enumerate(described["pictures"]):
                image = mp.Image.create_from_file(str(folder / one["file"]))
                (answer,) = classifier.classify(image).classifications
                first = answer.categories[0]
                if first.category_name != one["label"]:
                    wrong.append(
                        f"{name}, {one['file']}: {first.category_name!r}, not {one['label']!r}"
                    )
                if {c.category_name for c in answer.categories} != set(described["labels"]):
                    wrong.append(f"{name}, {one['file']}: labels {answer.categories}")
                if number % 2 == 0:  # of the input's own size: LiteRT saw the same pixels
                    want = scores[number // 2]
                    errors += [abs(c.score - want[c.index]) for c in answer.categories]
        largest = farthest(errors)
        if largest > 0.01:
            wrong.append(f"{name}: scores differ from LiteRT's by {largest:.3f}")
        print(
            f"{name}: {len(described['pictures'])} pictures, scores within {largest:.5f} of LiteRT's"
        )
    if wrong:
        sys.exit("MediaPipe answers otherwise:\n" + "\n".join(wrong))
    print(f"MediaPipe {mp.__version__}: every label is right.")


def farthest(errors) -> float:
    """The largest; infinity where one is NaN, or where nothing was compared."""
    return max((math.inf if math.isnan(e) else e for e in errors), default=math.inf)


def environment(folder: Path, *packages: str) -> Path:
    """The interpreter of a new virtual environment with these packages."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--classify", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--mediapipe", help="an interpreter that has mediapipe installed")
    arguments = parser.parse_args()
    if arguments.make:
        return make(arguments.make)
    if arguments.classify:
        return classify(arguments.classify)
    os.environ.setdefault("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        ours = sys.executable
        if importlib.util.find_spec("tflite_export") is None:
            ours = environment(work / "ours", "-e", str(ROOT))
        files = work / "files"
        files.mkdir()
        subprocess.run([ours, __file__, "--make", files], check=True)
        theirs = arguments.mediapipe or environment(work / "theirs", "mediapipe")
        # Status 1 without a traceback of ours: MediaPipe's own words stand above.
        sys.exit(subprocess.run([theirs, __file__, "--classify", files]).returncode)


if __name__ == "__main__":
    main()
