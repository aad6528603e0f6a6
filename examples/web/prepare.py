"""Puts an exported .tflite beside the page, with what the page must know about it.

    python prepare.py student.tflite            # writes model.tflite and model.json here

The file's own metadata say what the labels are and what pixels mean; its graph says whether it ends in
logits or in probabilities. The page takes one picture in, float32 or uint8, of fixed size and a batch of 1,
and one score for each label out. It refuses other files, and says why.
"""

import argparse
import json
import shutil
from pathlib import Path

from tflite_export.app_code.facts import Facts
from tflite_export.runtime import makers

HERE = Path(__file__).parent
PROBABILITIES = ("SOFTMAX", "LOGISTIC")
LOGITS = (
    "FULLY_CONNECTED",
    "CONV_2D",
    "BATCH_MATMUL",
    "MEAN",
    "AVERAGE_POOL_2D",
    "ADD",
    "SUB",
    "LOG_SOFTMAX",
)


def describe(file) -> dict:
    """What the page reads in model.json.

    Raises:
        ValueError: the page cannot show what this file says.
    """
    facts = Facts.of(file)
    image, picture = facts.inputs[0], facts.inputs[0].picture
    known = image.info.dtype in ("float32", "uint8") and image.info.shape[:1] == (1,)
    if len(facts.inputs) != 1 or image.resized or not known:
        told = ", ".join(f"{t.info.dtype} {list(t.info.shape)}" for t in facts.inputs)
        raise ValueError(
            f"{file} takes {told}: LiteRT.js takes one image of fixed size, float32 or uint8. "
            "Export with batch_size=1 and inference_input_type='uint8' or 'float32'."
        )
    if picture is None:
        raise ValueError(
            f"{file} does not say what pixels mean, or its input {list(image.shape)} is no picture: "
            "export an image model with normalization=(mean, std)."
        )
    if image.info.dtype == "uint8" and picture.offset != 0:
        raise ValueError(f"{file} takes uint8 that are no pixels: export it with normalization=.")
    if facts.labelled is None:
        raise ValueError(
            f"{file} has no output of one score for each label: export a classifier with labels=[…]."
        )
    output, made_by = facts.outputs[facts.labelled].info, makers(file)[facts.labelled][0]
    if output.dtype not in ("float32", "uint8"):
        raise ValueError(
            f"{file} answers {output.dtype}, which LiteRT.js does not know: export it with "
            "inference_output_type='uint8' or 'float32'."
        )
    if made_by not in (*PROBABILITIES, *LOGITS):
        raise ValueError(
            f"{file} ends in {made_by or 'an activation'}, neither logits nor a softmax or sigmoid: the "
            "page would show wrong shares."
        )
    return {
        "labels": facts.labels,
        "input": {
            "shape": image.shape,
            "dtype": image.info.dtype,
            "mean": picture.mean,
            "std": picture.std,
        },
        "output": {
            "index": facts.labelled,
            "scale": output.scale,
            "zeroPoint": output.zero_point,
            "end": "probabilities" if made_by in PROBABILITIES else "logits",
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
    try:
        prepare(parser.parse_args().tflite)
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from None
