"""The README.md of a golden folder: what the file is, and code for three languages.

readme(facts, described)       # described: what golden.json holds
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tflite_export.app_code.facts import Facts, shown
from tflite_export.app_code.kotlin import kotlin, kotlin_test
from tflite_export.app_code.python import python
from tflite_export.app_code.swift import refused, swift, swift_test


def readme(facts: Facts, described: Mapping[str, Any]) -> str:
    """Markdown. Code is in fenced blocks, and every name, size and type in it is the file's."""
    tolerances = [one["tolerance"] for one in described["outputs"]]
    runs = described["runs"]
    file = _text(facts.file)
    parts = [
        f"# {file}",
        f"{facts.size_bytes} bytes, SHA-256 `{described['sha256']}`.",
        "| | name | type | shape | scale | zero point |\n|---|---|---|---|---|---|\n"
        + "\n".join(
            _row(side, one) for side in ("input", "output") for one in described[f"{side}s"]
        ),
        *([_labels(facts)] if facts.labels is not None else []),
        *([_mediapipe(facts.file)] if _for_mediapipe(facts) else []),
        "## What was recorded",
        f"{runs} runs of this file on {described['recorded_on']}. `golden.json` says which numbers are in "
        "the `.bin` files: little-endian, one run after the other, row by row. An output may differ from its "
        "record by its `tolerance` (real values; after scale and zero point), on a GPU in float16 by its "
        "`float16_tolerance`, which is an estimate. `top_1` is the best class of each run, or -1 where it "
        "wins by less than twice the tolerance.",
        "The Python below was run when this package was tested. **The Kotlin and the Swift were not "
        "compiled or run on a device when this folder was written**: names, sizes, types and numbers in them "
        "were taken from the file by a program, and the rest is a template. Photos are stretched to the "
        "input's size; if the network was trained on crops, crop first.",
        "## Kotlin (Android, LiteRT)",
        _fenced("kotlin", kotlin(facts)),
        "The test:",
        _fenced("kotlin", kotlin_test(facts, tolerances, runs)),
        "## Swift (iOS, TensorFlowLiteSwift)",
    ]
    reason = refused(facts)
    if reason is not None:
        parts.append(_text(reason).replace("\\`", "`"))
    else:
        parts += [
            _fenced("swift", swift(facts)),
            "The test:",
            _fenced("swift", swift_test(facts, tolerances, runs)),
        ]
    parts += [
        "## Python (ai-edge-litert)",
        f"Beside `{shown(facts.file)}`; `check(FOLDER)` compares with the records in this folder.",
        _fenced("python", python(facts, tolerances, runs)),
    ]
    return "\n\n".join(parts) + "\n"


def _text(text: str) -> str:
    """A name in the middle of Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", shown(text))


def _row(side: str, one: Mapping[str, Any]) -> str:
    scale, zero = (one["scale"], one["zero_point"]) if one["scale"] else ("", "")
    return f"| {side} | {_text(one['name'])} | {one['dtype']} | {one['shape']} | {scale} | {zero} |"


def _labels(facts: Facts) -> str:
    assert facts.labels is not None
    first = ", ".join(map(_text, facts.labels[:5]))
    more = ", …" if len(facts.labels) > 5 else ""
    return (
        f"{len(facts.labels)} labels ({first}{more}) are inside the file, and for Kotlin and Swift in "
        f"`labels.txt`, one a line, in the order of output {facts.labelled}."
    )


def _for_mediapipe(facts: Facts) -> bool:
    """ImageClassifier wants one RGB picture of uint8 or float32, and one mean for all its channels."""
    if facts.labels is None or len(facts.inputs) != 1 or len(facts.outputs) != 1:
        return False
    picture, kinds = facts.inputs[0].picture, ("float32", "uint8")
    return (
        picture is not None
        and picture.channels == 3
        and len(set(picture.mean)) == len(set(picture.std)) == 1
        and facts.inputs[0].info.dtype in kinds
        and facts.outputs[0].info.dtype in kinds
    )


def _mediapipe(file: str) -> str:
    return (
        "MediaPipe Tasks' `ImageClassifier` loads this file as it is: labels, size and normalisation are "
        f'in its metadata. On Android: `ImageClassifier.createFromFile(context, "{shown(file)}")`.'
    )


def _fenced(language: str, code: str) -> str:
    fence = "```"
    while fence in code:
        fence += "`"
    return f"{fence}{language}\n{code}\n{fence}"
