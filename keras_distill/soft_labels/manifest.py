"""The manifest of a folder of stored labels: what they are, of what, by whom.

manifest = Manifest.read(folder)
manifest.write(folder)              # whole or not at all
"""

import dataclasses
import hashlib
import json
import os
import secrets
from pathlib import Path

import numpy as np

NAME = "manifest.json"
FEATURES = "features/"  # the field of an inner layer begins so
# The checksum is made alike in each version. 3: sketches of other factors.
_FORMAT, _VERSION = "keras_distill soft labels", 3


@dataclasses.dataclass(frozen=True)
class Field:
    """One array of each example.

    Attributes:
        name: "sketch", "logits/0" for the first output, "features/block_3" for an inner layer.
        dtype: as NumPy writes it, little endian: "<f2".
        shape: of one example.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a folder of stored labels holds.

    Attributes:
        teacher: its fingerprint.
        fields: the arrays of a record, in their order.
        kind: the structure of the teacher's outputs, "one", "list" or "dict".
        names: of the outputs; of a dict its keys, sorted.
        activations: of each output, "linear", "softmax" or "sigmoid".
        classes: of each output, how many; of them `top_k` are stored, where that is not None.
        never_negative: those of the inner layers whose values cannot be below 0.
        top_k: how many of the classes' logits are stored.
        views: how many views of each example.
        rows_per_shard: examples in each shard but the last.
        examples: how many there are; None until all are labelled.
    """

    teacher: str
    fields: tuple[Field, ...]
    kind: str
    names: list[str]
    activations: tuple[str, ...]
    classes: tuple[int, ...]
    never_negative: tuple[str, ...]
    top_k: int | None
    views: int
    rows_per_shard: int
    examples: int | None = None

    @property
    def dtype(self) -> np.dtype:
        """Of a record."""
        return np.dtype([(field.name, field.dtype, field.shape) for field in self.fields])

    def packed(self, each):
        """Return a list with one for each output in the structure of the outputs."""
        each = list(each)
        if self.kind == "one":
            return each[0]
        return dict(zip(self.names, each, strict=True)) if self.kind == "dict" else each

    def write(self, folder: Path) -> None:
        """Write it into `folder`."""
        content = {"format": _FORMAT, "version": _VERSION, **dataclasses.asdict(self)}
        content["checksum"] = _checksum(content)
        part = folder / f".{NAME}.{secrets.token_hex(4)}.part"
        try:
            with part.open("w") as file:
                file.write(json.dumps(content, indent=1) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, folder / NAME)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Return the manifest of `folder`.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is damaged, of a newer version, or something else.
        """
        path = folder / NAME
        try:
            content = json.loads(path.read_text())
            checksum = content.pop("checksum", None)
        except (ValueError, AttributeError, TypeError):
            content = checksum = None
        if content is None or checksum != _checksum(content):
            raise ValueError(
                f"{path} is damaged: its checksum does not fit. Restore it, or label anew into another "
                "folder."
            )
        if content.pop("format", None) != _FORMAT:
            raise ValueError(f"{path} is not the manifest of stored labels.")
        version = content.pop("version")
        if version != _VERSION:
            raise ValueError(
                f"{path} has version {version}, and this keras-distill reads version {_VERSION}: "
                + ("update it." if version > _VERSION else "label anew into another folder.")
            )
        content["fields"] = tuple(
            Field(one["name"], one["dtype"], tuple(one["shape"])) for one in content["fields"]
        )
        for name in ("activations", "classes", "never_negative"):
            content[name] = tuple(content[name])
        return cls(**content)


def _checksum(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
