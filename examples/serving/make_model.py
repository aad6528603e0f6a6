"""A small classifier of handwritten digits as a version for TF Serving, and photos to ask about.

    python make_model.py            # models/digits/1, and photos/*.png; again: models/digits/2

For a student of yours: te.export_saved_model(student, "models/NAME", warmup=…, labels=…, normalization=…).
"""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

import tflite_export as te

HERE = Path(__file__).parent
LABELS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def main(folder: Path = HERE, epochs: int = 15) -> te.ExportedSavedModel:
    """Trains, exports, and writes the last picture of each digit as a PNG named after it."""
    keras.utils.set_random_seed(0)
    digits = load_digits()
    pixels = np.round(digits.images * 255 / 16).astype("uint8")[..., None]
    x, y = pixels.astype("float32") / 255, digits.target
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, name="logits"),
        ]
    )
    model.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    model.fit(x[:1500], y[:1500], epochs=epochs, batch_size=32, verbose=0)
    print(f"accuracy {model.evaluate(x[1500:], y[1500:], verbose=0)[1]:.3f} on 297 digits")
    (folder / "photos").mkdir(exist_ok=True)
    for digit, label in enumerate(LABELS):
        image = Image.fromarray(pixels[np.flatnonzero(y == digit)[-1], ..., 0])
        image.save(folder / "photos" / f"{label}.png")
    exported = te.export_saved_model(
        model, folder / "models" / "digits", x[:8], LABELS, (0, 255), top_k=3
    )
    print(
        f"{exported.path}: {', '.join(exported.signatures)}; {exported.warmup_records} warm-up records"
    )
    return exported


if __name__ == "__main__":
    main()
