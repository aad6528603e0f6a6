"""Does the int8 file of a trained network answer as its quantisation-aware model: in steps of the logits.

    python benchmarks/quantized_fidelity.py --model mobilenet.keras one --photos photos/ \
        --model resnet20.keras imagenet --cifar10 cifar10.npz

After each model's path stands how it takes pixels: "pixels" 0..255, "one" for -1..1, "imagenet" for pixels /
255 less ImageNet's mean, over its deviation. Models of 32×32 are asked about CIFAR-10's test images, others
about photos (some of each folder). A softmax at the end is taken off: it hides differences. Ranges are those
of the pictures themselves, without training. "Steps" are those in which the file stores its logits.
"""

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cifar10
import keras
import measure
import numpy as np

import keras_distill as kd
import tflite_export as te
from tflite_export import flatbuffer
from tflite_export.photo import find_photos, read_photos

FORMS = {
    "pixels": lambda x: x * 1.0,
    "one": lambda x: x / 127.5 - 1,
    "imagenet": cifar10.of_teacher,
}


def logits(path: str) -> keras.Model:
    """The network without the softmax at its end."""
    loaded = kd.teachers.load(path)
    loaded = getattr(loaded, "model", loaded)
    last = loaded.layers[-1]
    if isinstance(last, keras.layers.Activation | keras.layers.Softmax):
        return keras.Model(loaded.inputs[0], loaded.layers[-2].output, name=loaded.name)
    model = keras.models.clone_model(loaded)
    model.set_weights(loaded.get_weights())
    model.layers[-1].activation = keras.activations.linear
    return model


def pictures(model: keras.Model, arguments) -> np.ndarray:
    size = model.input_shape[1:3]
    if size == (32, 32):
        return cifar10.load(arguments.cifar10)[1][0][: arguments.count].astype("float32")
    files = find_photos(arguments.photos)
    chosen = np.linspace(0, len(files) - 1, min(arguments.count, len(files))).astype(int)
    return np.stack([one for _, one in read_photos([files[i] for i in chosen], size, 3)]).astype(
        "float32"
    )


def row(path: str, form: str, arguments) -> dict:
    model = logits(path)
    x = FORMS[form](pictures(model, arguments)).astype("float32")
    aware = te.quantize_aware(model, x)
    with tempfile.TemporaryDirectory() as folder:
        exported = te.export(aware, Path(folder) / "aware.tflite")
        tree = flatbuffer.read(exported.path.read_bytes())
        step = flatbuffer.maker(tree, int(tree.subgraphs[0].outputs[0]), ["DEQUANTIZE"]).step
        wanted, found = aware.predict(x, verbose=0), te.load(exported.path).run(x)
        verified = te.verify(aware, exported, x)
    apart = np.abs(wanted - found) / step
    return {
        "model": Path(path).stem,
        "pictures": len(x),
        "within_1_step": float(np.mean(apart <= 1.01)),
        "within_2_steps": float(np.mean(apart <= 2.01)),
        "largest_steps": float(apart.max()),
        "snr_db": next(iter(verified.outputs.values())).snr_db,
        "agreement": verified.agreement,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--model", nargs=2, action="append", required=True, metavar=("PATH", "FORM")
    )
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--cifar10", type=Path)
    parser.add_argument("--count", type=int, default=100)
    arguments = parser.parse_args()
    rows = [row(path, form, arguments) for path, form in arguments.model]
    for one in rows:
        print(one)
    measure.write(measure.RESULTS / "quantized_fidelity.json", {"rows": rows})


if __name__ == "__main__":
    main()
