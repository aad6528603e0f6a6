"""Does the page answer as the file does in Python? Run on demand; needs npm and Chromium.

    cd examples/web && npm install && python check.py

A small network is trained on coloured pictures and exported as float32, uint8 and with a softmax. For
each, headless Chromium opens the page, photos are dropped on it, and what it shows is compared with what
LiteRT answers in Python. A photo of the model's size must give the same scores; a larger JPEG, which the
browser stretches with a filter of its own, the same class. $CHROMIUM is /usr/bin/chromium by default.
"""

import contextlib
import functools
import http.server
import json
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import keras
import numpy as np
from PIL import Image
from prepare import HERE, prepare

import tflite_export as te
from tflite_export.photo import read_photo

SIDE, LABELS = 32, ["红 red", "green, or so", "<blue>"]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Without a line for each request."""

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def served(folder):
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def pictures(count, rng):
    labels = rng.integers(0, 3, count)
    coarse = rng.uniform(0, 200, (count, 4, 4, 3)).repeat(SIDE // 4, 1).repeat(SIDE // 4, 2)
    coarse[np.arange(count), :, :, labels] += 55
    return coarse.astype("uint8"), labels


def network(activation):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3), name="photo"),
            keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation=activation, name="kind"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=activation is None)
    model.compile(keras.optimizers.Adam(0.02), loss)
    return model


def probabilities(values, activation):
    powers = np.exp(values - values.max())
    return values if activation else powers / powers.sum()


def main():
    rng = np.random.default_rng(0)
    pixels, labels = pictures(300, rng)
    x = (pixels / 127.5 - 1).astype("float32")
    with tempfile.TemporaryDirectory() as work, contextlib.ExitStack() as stack:
        work = Path(work)
        page = work / "page"
        page.mkdir()
        for name in ("index.html", "classify.js"):
            shutil.copyfile(HERE / name, page / name)
        (page / "node_modules").symlink_to(HERE / "node_modules")
        photos = []
        for number in range(3):
            photos.append(work / f"{number}.png")
            Image.fromarray(pixels[number]).save(photos[-1])
            photos.append(work / f"{number}.jpg")
            Image.fromarray(pixels[number]).resize((240, 180), Image.Resampling.BICUBIC).save(
                photos[-1]
            )
        url = stack.enter_context(served(page))
        for activation, kind in ((None, "float32"), (None, "uint8"), ("softmax", "float32")):
            model = network(activation)
            model.fit(x, labels, epochs=5, verbose=0)
            exported = te.export(
                model,
                work / "model.tflite",
                quantization="int8" if kind == "uint8" else None,
                representative_dataset=x if kind == "uint8" else None,
                inference_input_type=kind,
                labels=LABELS,
                normalization=(127.5, 127.5),
            )
            prepare(exported.path, page)
            done = subprocess.run(
                ["node", HERE / "check.mjs", url, *photos], stdout=subprocess.PIPE, check=True
            )
            said = json.loads(done.stdout)
            assert not said["problems"], said
            interpreter, largest = te.load(exported), 0.0
            for path, one in zip(photos, said["answers"], strict=True):
                assert one["answer"], one["status"]
                raw = read_photo(path, (SIDE, SIDE))
                fed = raw if kind == "uint8" else ((raw - 127.5) / 127.5).astype("float32")
                want = probabilities(interpreter.run(fed[None])[0], activation)
                have = {row["label"]: row["score"] for row in one["answer"]}
                assert one["answer"][0]["label"] == LABELS[want.argmax()], (path, have, want)
                assert one["rows"][0].startswith(LABELS[want.argmax()])
                if path.suffix == ".png":
                    largest = max(
                        largest, max(abs(have[n] - p) for n, p in zip(LABELS, want, strict=True))
                    )
            assert largest < 2e-3, largest
            print(f"{kind}, {activation or 'logits'}: 6 photos, the same classes; "
                  f"scores of unstretched ones within {largest:.1e}")  # fmt: skip


if __name__ == "__main__":
    main()
