"""Python for one file: ai-edge-litert, NumPy and nothing of this package.

python(facts, tolerances, 8)      # a module with load, the inputs, run, the outputs and check
"""

from __future__ import annotations

from collections.abc import Sequence

from tflite_export.app_code.facts import Facts, Picture, Tensor, number


def python(facts: Facts, tolerances: Sequence[float], runs: int) -> str:
    """A module that loads the file, makes its inputs, runs it, reads its outputs and checks them."""
    pictures = any(t.picture for t in facts.inputs)
    lines = [
        f"# pip install ai-edge-litert numpy{' pillow' if pictures else ''}",
        "from pathlib import Path",
        *(["import zipfile"] if facts.label_file else []),
        "",
        "import numpy as np",
        *(["from PIL import Image"] if pictures else []),
        "from ai_edge_litert.interpreter import Interpreter",
        "",
        f"MODEL = {facts.file!r}",
        "interpreter = Interpreter(model_path=MODEL)",
    ]
    for place, one in enumerate(facts.inputs):
        if one.resized:
            index = f'interpreter.get_input_details()[{place}]["index"]'
            lines.append(f"interpreter.resize_tensor_input({index}, {list(one.shape)})")
    lines.append("interpreter.allocate_tensors()")
    if facts.label_file:
        lines += [
            "with zipfile.ZipFile(MODEL) as archive:  # the labels are inside the file",
            f'    text = archive.read({facts.label_file!r}).decode("utf-8")',
            'labels = text.replace("\\r\\n", "\\n").removesuffix("\\n").split("\\n")',
        ]
    lines.append("")
    for place, one in enumerate(facts.inputs):
        lines += ["", f"# Input {place}: {one.told}.", *_maker(one), ""]
    names = ", ".join(f"{one.identifier}_stored: np.ndarray" for one in facts.inputs)
    given = ", ".join(f"{one.identifier}_stored" for one in facts.inputs)
    lines += [
        "",
        "# Takes and gives arrays as the file stores them, in its order.",
        f"def run({names}) -> list[np.ndarray]:",
        f"    for details, array in zip(interpreter.get_input_details(), [{given}], strict=True):",
        '        interpreter.set_tensor(details["index"], array)',
        "    interpreter.invoke()",
        '    return [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]',
        "",
    ]
    for place, one in enumerate(facts.outputs):
        lines += ["", f"# Output {place}: {one.told}.", *_reader(one), ""]
    lines += _classify(facts)
    lines += [
        "",
        "# The recorded inputs give the recorded outputs, or AssertionError.",
        'def check(folder: str = ".") -> None:',
        "    def recorded(name, dtype, shape):",
        f"        return np.fromfile(Path(folder) / name, dtype).reshape({runs}, *shape)",
        "",
    ]
    for place, one in enumerate(facts.inputs):
        lines.append(
            f'    {one.identifier}_stored = recorded("input_{place}.bin", "{_order(one)}", {list(one.shape)})'
        )
    each = ", ".join(f"{one.identifier}_stored[number]" for one in facts.inputs)
    lines += [f"    for number in range({runs}):", f"        outputs = run({each})"]
    for place, (one, tolerance) in enumerate(zip(facts.outputs, tolerances, strict=True)):
        lines += [
            f'        want = recorded("output_{place}.bin", "{_order(one)}", {list(one.shape)})[number]',
            f"        have = {one.identifier}_values(outputs[{place}]).astype(float)",
            f"        want = {one.identifier}_values(want).astype(float)",
            f"        np.testing.assert_allclose(have, want, rtol=0, atol={tolerance!r})",
        ]
    return "\n".join(lines)


def _order(one: Tensor) -> str:
    """The type with its byte order, whatever machine reads it."""
    return {"float32": "<f4", "int16": "<i2", "int32": "<i4", "int64": "<i8"}.get(
        one.info.dtype, one.info.dtype
    )


def _maker(one: Tensor) -> list[str]:
    name, dtype, shape = f"{one.identifier}_array", one.info.dtype, list(one.shape)
    if one.picture is not None:
        return _from_photo(one, one.picture)
    lines = [
        f"def {name}(values) -> np.ndarray:",
        f"    values = np.asarray(values).reshape({shape})",
    ]
    if one.info.quantization is None:
        return [*lines, f'    return values.astype("{dtype}")']
    return [*lines, f"    return {_stored(one, 'values')}"]


def _stored(one: Tensor, value: str) -> str:
    dtype = one.info.dtype
    steps = f"np.round({value} / {number(one.info.scale)}) + {one.info.zero_point}"
    ends = f'np.iinfo("{dtype}").min, np.iinfo("{dtype}").max'
    return f'np.clip({steps}, {ends}).astype("{dtype}")'


def _from_photo(one: Tensor, picture: Picture) -> list[str]:
    mode = "L" if picture.channels == 1 else "RGB"
    size = f"({picture.width}, {picture.height})"
    lines = [
        f"def {one.identifier}_array(photo) -> np.ndarray:",
        f'    image = Image.open(photo).convert("{mode}").resize({size}, Image.Resampling.BILINEAR)',
        f"    pixels = np.asarray(image).reshape({list(one.shape)})",
    ]
    mean, std = (", ".join(map(number, values)) for values in (picture.mean, picture.std))
    real = f"(pixels.astype(np.float32) - np.float32([{mean}])) / np.float32([{std}])"
    if picture.offset == 0:
        return [*lines, "    return pixels"]
    if picture.offset is not None:
        return [
            *lines,
            f'    return (pixels.astype(int) - {-picture.offset}).astype("{one.info.dtype}")',
        ]
    if one.info.quantization is None:
        return [*lines, f"    return {real}"]
    return [*lines, f"    values = {real}", f"    return {_stored(one, 'values')}"]


def _reader(one: Tensor) -> list[str]:
    lines = [f"def {one.identifier}_values(stored: np.ndarray) -> np.ndarray:"]
    if one.info.quantization is None:
        return [*lines, "    return stored"]
    scale, zero = number(one.info.scale), one.info.zero_point
    return [*lines, f"    return (stored.astype(np.float32) - {zero}) * np.float32({scale})"]


def _classify(facts: Facts) -> list[str]:
    if facts.labelled is None:
        return []
    one = facts.outputs[facts.labelled]
    given, inputs = ", ".join(f"{i.identifier}_stored" for i in facts.inputs), None
    if len(facts.inputs) == 1 and facts.inputs[0].picture is not None:
        given, inputs = "photo", f"{facts.inputs[0].identifier}_array(photo)"
    kept = f" if scores[i] >= {number(facts.threshold)}" if facts.threshold is not None else ""
    note = "" if facts.threshold is None else " Empty: no class is certain enough."
    return [
        "",
        f"# The best classes, with their scores.{note}",
        f"def classify({given}, top: int = 3) -> list[tuple[str, float]]:",
        f"    outputs = run({inputs or given})",
        f"    scores = {one.identifier}_values(outputs[{facts.labelled}]).reshape(-1)",
        f"    return [(labels[i], float(scores[i])) for i in np.argsort(-scores)[:top]{kept}]",
        "",
    ]
