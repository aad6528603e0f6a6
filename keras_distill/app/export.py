"""A `.keras` file becomes a `.tflite` file.

    run("student.keras", "student.tflite", quantization="int8", data="photos/", input_type="uint8")

Class names and normalisation are those on the file's card, where they are not given.
"""

from pathlib import Path

import numpy as np

import tflite_export as te
from keras_distill import card
from keras_distill.app import examples as app_examples
from keras_distill.app import model_file, results
from tflite_export.quantize import needs_examples


def run(
    file: str | Path,
    output: str | Path,
    quantization: str | None = None,
    data: str | Path | None = None,
    examples: int = 300,
    input_type: str = "float32",
    labels: str | Path | None = None,
    normalization: card.Normalization | None = None,
    strict: bool = False,
) -> dict:
    """Export a Keras model; see `tflite_export.export`.

    Args:
        file: the `.keras` file.
        output: the `.tflite` file to write; whole or not at all.
        quantization: None, "float16", "dynamic_int8", "int8", "int16x8" or "int4".
        data: for "int8" and "int16x8": a folder of photos, or arrays (see `keras_distill.app.examples`);
            of them `examples` are read, from everywhere.
        input_type: "float32", "uint8" or "int8".
        labels: a text file with one class name on each line.
        normalization: (mean, std).
        strict: refuse photos that cannot be read; else they are left out, and named.

    Returns:
        `path`, `size_bytes`, `quantization`, `inputs` and `outputs` (name, shape, dtype), `labels`,
        `normalization` ({input: {mean, std}}).

    Raises:
        ValueError: a file, or data, that cannot be used. Nothing is written then.
        OSError: `output` cannot be written. The file that was there stays.
    """
    file, output = Path(file), Path(output)
    if file.suffix == ".tflite":
        raise ValueError(f"{file} is a .tflite file already: give the .keras file it was made of.")
    for given in (file, data, labels):
        if given is not None and output.resolve() == Path(given).resolve():
            raise ValueError(f"{output} would be written over: choose another --output.")
    if output.suffix != ".tflite" and not output.is_dir():
        raise ValueError(f"{output} does not end in .tflite: give such a name as --output.")
    if needs_examples(quantization) and data is None:
        raise ValueError(
            f"{quantization} measures ranges on examples: give --data, a folder of photos, or a .npy or "
            ".npz file."
        )
    model = model_file.read(file, normalization)
    exported = te.export(
        model.model,
        output,
        quantization=quantization,
        representative_dataset=_examples(Path(data), model, examples, strict)
        if data is not None and needs_examples(quantization)
        else None,
        num_calibration_examples=examples,
        inference_input_type=input_type,
        labels=model.class_names if labels is None else _lines(Path(labels)),
        normalization=model.normalization,
    )
    return {
        "path": str(exported.path),
        "size_bytes": exported.size_bytes,
        "quantization": exported.quantization,
        "inputs": [_tensor(one) for one in exported.inputs],
        "outputs": [_tensor(one) for one in exported.outputs],
        "labels": None if exported.labels is None else list(exported.labels),
        "normalization": {
            name: {"mean": np.asarray(one.mean).tolist(), "std": np.asarray(one.std).tolist()}
            for name, one in exported.normalization.items()
        },
    }


def show(result: dict) -> None:
    """Print what was written."""
    results.show(
        f"{result['path']}: {results.size(result['size_bytes'])} bytes, "
        f"quantization {result['quantization'] or 'none'}",
        ("", "name", "shape", "type"),
        [
            (role, one["name"], str(tuple(one["shape"])), one["dtype"])
            for role in ("inputs", "outputs")
            for one in result[role]
        ],
    )
    for what, said in (("labels", result["labels"]), ("normalisation", result["normalization"])):
        if not said:
            results.say(f"There are no {what} in the file: apps will not know them.")


def _examples(path: Path, model: model_file.ModelFile, count: int, strict: bool) -> np.ndarray:
    if path.is_dir():
        return app_examples.some_photos(path, model, count, strict)
    x, _ = app_examples.arrays(path, prefer="train")
    chosen = np.linspace(0, len(x) - 1, min(count, len(x))).astype(int)  # x may be sorted by class
    return app_examples.taken(x[chosen], model, path)


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of labels {path}.")
    try:
        return path.read_text("utf-8-sig").splitlines()  # Windows puts a mark before the first
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text in UTF-8: give one class name on each line.") from None


def _tensor(info: te.TensorInfo) -> dict:
    return {"name": info.name, "shape": list(info.shape), "dtype": info.dtype}
