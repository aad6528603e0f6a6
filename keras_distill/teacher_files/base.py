"""What all teachers out of files share: what they take, how they end, how a saved Distiller names them."""

import os
from typing import Any

import keras
from keras import ops

from keras_distill import activations
from keras_distill.checks import example_of_inputs
from keras_distill.network import Answer, select
from keras_distill.teacher_files.fingerprint import fingerprint
from keras_distill.teachers.base import Teacher


class FileTeacher(Teacher):
    """A teacher out of a file that is no `keras.Model`: it answers, and shows nothing of its inside.

    A Distiller that is saved holds its path and fingerprint, not the file itself.

    Args:
        path: the file or folder.
        inputs: a callable or a key into the batch, for a teacher that sees other inputs than the student.
        activation: what its outputs are: "auto" (the file shows it), "linear" (logits), "softmax" or
            "sigmoid"; for several outputs also a structure of these.
        sha256: what `fingerprint(path)` has to be; None for any.

    Raises:
        ValueError: the file is another one than `sha256` says, or `activation` is no such word.
    """

    def __init__(self, path, inputs=None, activation="auto", sha256=None):
        self.path = os.path.abspath(path)
        self.inputs = inputs
        self.activation = activation
        self.sha256 = fingerprint(self.path)
        if sha256 not in (None, self.sha256):
            raise ValueError(
                f"{self.path} is not the file that taught when this distiller was saved (its SHA-256 is "
                f"{self.sha256[:12]}…, and {sha256[:12]}… was expected): put that file back."
            )

    def fingerprint(self) -> str:
        """Return the digest of the file, and how it is read."""
        return f"{type(self).__name__} {self.activation} {self.sha256}"

    def _answer(self, x) -> Any:
        """What the file says of the inputs `x`: a tensor, list or dict."""
        raise NotImplementedError

    def _shown(self) -> list[activations.Head]:
        """How each output ends, as far as the file shows it."""
        raise NotImplementedError

    @property
    def input_shapes(self) -> dict[str, tuple]:
        """Name → shape, with None where any size will do."""
        raise NotImplementedError

    @property
    def input_dtypes(self) -> dict[str, str]:
        """Name → "float32", "uint8", …"""
        raise NotImplementedError

    @property
    def output_shapes(self) -> dict[str, tuple]:
        """Name → shape of an output."""
        raise NotImplementedError

    def targets(self, x, labels=None) -> Answer:
        """Return the file's answer to the batch `x`."""
        outputs = self._answer(select(x, self.inputs, "inputs"))
        flat = keras.tree.flatten(outputs)
        heads = self._heads(len(flat))
        logits = [
            self._logits(output, head.activation, i)
            for i, (output, head) in enumerate(zip(flat, heads, strict=True))
        ]
        pack = keras.tree.pack_sequence_as
        kinds = [head.activation for head in heads]
        return Answer(outputs, pack(outputs, logits), pack(outputs, kinds))

    def _logits(self, output, activation: str, place: int):
        logits = activations.to_logits(output, activation)
        return ops.expand_dims(logits, -1) if len(logits.shape) == 1 else logits

    def _heads(self, count: int | None = None) -> list[activations.Head]:
        heads = activations.declared(self._shown(), self.activation, "activation")
        return heads * count if len(heads) == 1 and count else heads

    @property
    def compilable(self) -> bool:
        """False: what it is made of is not known."""
        return False

    @property
    def known(self) -> bool:
        """Whether the file shows how it ends, or was declared."""
        return all(head.known for head in self._heads())

    def check_looks(self, x) -> None:
        """Look at one batch.

        Raises:
            ValueError: it looks like probabilities, and nobody said so.
        """
        batch = keras.tree.map_structure(ops.convert_to_tensor, x)
        flat = keras.tree.flatten(self._answer(select(batch, self.inputs, "inputs")))
        for output, head in zip(flat, self._heads(len(flat)), strict=True):
            found = None if head.known else activations.look_like(output)
            if found:
                raise ValueError(
                    f"{self.path} does not show how it ends, so its answers were taken for logits, but one "
                    f"batch of them looks like probabilities ({found}): pass teachers.load(..., "
                    f"activation='{found}'), or activation='linear' if they are logits."
                )

    def check_input(self, name: str, given, taken) -> None:
        """Refuse an input of another shape.

        Args:
            name: the input's name in the file.
            given: the shape of the batch, with None where it is not known.
            taken: the shape that the file takes, with None where any size will do.

        Raises:
            ValueError: with both shapes.
        """
        same_rank = len(given) == len(taken)
        if not same_rank or any(
            None not in (a, b) and a != b for a, b in zip(given[1:], taken[1:], strict=True)
        ):
            taken, given = (_open_batch(shape) for shape in (taken, given))
            raise ValueError(
                f"The teacher {self.path} takes {taken} as its input '{name}', and the batch has the shape "
                f"{given}: pass teachers.load(..., inputs=), a callable (for instance "
                f"inputs={example_of_inputs(given, taken)}) or a key into the batch."
            )

    def get_config(self) -> dict:
        """Return the arguments of the constructor, the fingerprint among them."""
        return {
            "path": self.path,
            "inputs": keras.saving.serialize_keras_object(self.inputs),
            "activation": self.activation,
            "sha256": self.sha256,
        }

    @classmethod
    def from_config(cls, config):
        """Return the teacher that `get_config` describes.

        Raises:
            ValueError: the file is not there any more, or is another one.
        """
        config = {**config, "inputs": keras.saving.deserialize_keras_object(config["inputs"])}
        if not os.path.exists(config["path"]):
            raise ValueError(
                f"The teacher of this distiller is {config['path']}, and it is not there: put it back, or "
                "load the student alone."
            )
        return cls(**config)


def _open_batch(shape) -> tuple:
    return (None, *shape[1:]) if len(shape) else ()
