"""All that the next epoch of a training depends on, in one file that is written whole.

write(model, "state.npz", Progress(epochs=12, history={"loss": [...]}))
progress = restore(model, "state.npz")

That are the variables of the model (the states of its random seeds among them) and of its optimizer, what
else it stores of itself, how many epochs are done, and their history. The data need no state: their order
and augmentation are functions of (seed, epoch), see `keras_distill.epoch`.
"""

import dataclasses
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_distill.layer_tree import all_built
from keras_distill.training import DistillationModel
from tflite_export.whole_file import write_whole

_PROGRESS = "progress"  # the entry that is JSON
_OWN = "own_"  # entries that `model.save_own_variables` gives
_WAY_OUT = "remove it, and this training begins anew."

History = dict[str, list]  # of each metric a number, or a list of them, for each time it was taken


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes:
        epochs: how many are done.
        history: of these.
        ended: how many were wanted of a training that has ended, perhaps after fewer; else None.
        begun_with: what it depends on beside the model, see `keras_distill.begun_with`; None if nobody said.
    """

    epochs: int
    history: History
    ended: int | None = None
    begun_with: Mapping[str, Any] | None = None


def write(model: keras.Model, file: Path, progress: Progress) -> None:
    """Write the state of a compiled model.

    Raises:
        OSError: it cannot be written. The state that was there stays.
    """
    content = io.BytesIO()
    text = json.dumps(dataclasses.asdict(progress))
    arrays: dict[str, Any] = {**_state(model), _PROGRESS: np.array(text)}
    np.savez(content, **arrays)
    write_whole(file, content.getvalue())


def read_progress(file: Path) -> Progress:
    """Return how far the training is whose state this is.

    Raises:
        ValueError: the file is damaged.
    """
    return _read(file, [_PROGRESS])[0]


def restore(model: keras.Model, file: Path) -> Progress:
    """Put a state into a compiled model; returns how far it is.

    Raises:
        ValueError: the file is damaged, or holds the state of another model; or this one has no weights yet.
    """
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    progress, found = _read(file)
    present = _state(model)
    if {k: (v.shape, v.dtype) for k, v in found.items()} != {
        k: (v.shape, v.dtype) for k, v in present.items()
    }:
        if not all_built(model):
            raise ValueError(
                f"{file} holds weights, and {model.name} has layers that have none yet: give them a "
                "keras.Input, or call them on a batch before."
            )
        raise ValueError(f"{file} holds the state of another model: {_WAY_OUT}")
    for number, variable in enumerate(_variables(model)):
        variable.assign(found[f"variable_{number}"])
    own = len(_OWN)
    model.load_own_variables({k[own:]: v for k, v in found.items() if k.startswith(_OWN)})
    if isinstance(model, DistillationModel):
        model.after_epoch()  # it tells the student what it has seen
    return progress


def joined(first: History, second: dict[str, list]) -> History:
    """Return the history of one training and what came after it.

    A column may begin late and have gaps, as those of validation do (`validation_freq`).
    """
    after = {name: [np.asarray(one).tolist() for one in values] for name, values in second.items()}
    return {name: [*first.get(name, []), *after.get(name, [])] for name in {**first, **second}}


def _read(file: Path, names: list[str] | None = None) -> tuple[Progress, dict[str, np.ndarray]]:
    """The progress and the other entries, all or those of these names."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            found = {name: archive[name] for name in names or archive.files}
        return Progress(**json.loads(str(found.pop(_PROGRESS)))), found
    except Exception as error:  # zipfile, zlib, NumPy and JSON have a dozen kinds for a wrong byte
        raise ValueError(f"{file} is damaged: {_WAY_OUT}") from error


def _state(model: keras.Model) -> dict[str, np.ndarray]:
    own: dict[str, Any] = {}
    model.save_own_variables(own)
    return {
        **{f"variable_{i}": np.asarray(v) for i, v in enumerate(_variables(model))},
        **{f"{_OWN}{name}": np.asarray(value) for name, value in own.items()},
    }


def _variables(model: keras.Model) -> list:
    """Weights, states of the random seeds, and the optimizer's own; metrics start anew in each epoch."""
    return [*model.variables, *model.optimizer.variables]
