"""Puts an exported .tflite beside the page, with what the page must know about it.

    python prepare.py student.tflite            # writes model.tflite and model.json here

The file's own metadata say what the labels are and what pixels mean; its graph says whether it ends in
logits or in probabilities. The page takes one image in, float32 or uint8, a batch of 1, and labels.
"""

import argparse
import json
import shutil
from pathlib import Path

import tflite_export as te
from tflite_export.runtime import makers

HERE = Path(__file__).parent


def describe(file) -> dict:
    """What the page reads in model.json."""
    interpreter, metadata = te.load(file), te.read_metadata(file)
    (image,) = interpreter.inputs
    if len(image.shape) != 4 or image.shape[0] != 1 or image.dtype not in ("float32", "uint8"):
        raise SystemExit(
            f"{file} takes {image.dtype} {image.shape}: LiteRT.js takes one image of fixed size, "
            "float32 or uint8. Export with batch_size=1 and inference_input_type='uint8' or 'float32'."
        )
    if metadata.labels is None:
        raise SystemExit(f"{file} has no labels: export it with labels=[…].")
    normalization = metadata.inputs[0].normalization
    if image.dtype == "float32" and normalization is None:
        raise SystemExit(
            f"{file} does not say what pixels mean: export with normalization=(mean, std)."
        )
    index = next(i for i, one in enumerate(metadata.outputs) if one.label_file)
    output, (made_by, _) = interpreter.outputs[index], makers(file)[index]
    return {
        "labels": metadata.labels,
        "input": {
            "shape": image.shape,
            "dtype": image.dtype,
            "mean": normalization.mean if normalization else [0],
            "std": normalization.std if normalization else [1],
        },
        "output": {
            "index": index,
            "scale": output.scale,
            "zeroPoint": output.zero_point,
            "end": "probabilities" if made_by in ("SOFTMAX", "LOGISTIC") else "logits",
        },
    }


def prepare(file, folder=HERE) -> None:
    """Copies `file` and writes model.json."""
    about = describe(file)
    shutil.copyfile(file, Path(folder) / "model.tflite")
    (Path(folder) / "model.json").write_text(json.dumps(about, indent=2), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tflite")
    prepare(parser.parse_args().tflite)
