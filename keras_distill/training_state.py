"""All that the next epoch of a training depends on, in one file that is written whole.

write(model, "state.npz", epochs=12, history={"loss": [...]})
epochs, history = restore(model, "state.npz")

That are the variables of the model (the states of its random seeds among them) and of its optimizer, what
else it stores of itself, how many epochs are done, and their history. The data need no state: their order
and augmentation are functions of (seed, epoch), see `keras_distill.epoch`.
"""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_distill.training import DistillationModel
from tflite_export.whole_file import write_whole

_PROGRESS = "progress"  # the entry that is JSON
_OWN = "own_"  # entries that `model.save_own_variables` gives

History = dict[str, list[float]]


def write(model: keras.Model, file: Path, epochs: int, history: History) -> None:
    """Write the state of a compiled model after `epochs` epochs.

    Raises:
        OSError: it cannot be written. The state that was there stays.
    """
    progress = {"epochs": epochs, "history": history}
    content = io.BytesIO()
    arrays: dict[str, Any] = {**_state(model), _PROGRESS: np.array(json.dumps(progress))}
    np.savez(content, **arrays)
    write_whole(file, content.getvalue())


def restore(model: keras.Model, file: Path) -> tuple[int, History]:
    """Put a state into a compiled model: returns how many epochs are done, and their history.

    Raises:
        ValueError: the file is damaged, or holds the state of another model.
    """
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    way_out = "remove it, and this training begins anew."
    try:
        with np.load(file, allow_pickle=False) as archive:
            found = dict(archive)
        progress = json.loads(str(found.pop(_PROGRESS)))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} is damaged: {way_out}") from error
    present = _state(model)
    if {k: (v.shape, v.dtype) for k, v in found.items()} != {
        k: (v.shape, v.dtype) for k, v in present.items()
    }:
        raise ValueError(f"{file} holds the state of another model: {way_out}")
    for number, variable in enumerate(_variables(model)):
        variable.assign(found[f"variable_{number}"])
    own = len(_OWN)
    model.load_own_variables({k[own:]: v for k, v in found.items() if k.startswith(_OWN)})
    if isinstance(model, DistillationModel):
        model.after_epoch()  # it tells the student what it has seen
    return progress["epochs"], progress["history"]


def joined(first: History, second: dict[str, list]) -> History:
    """Return the history of one training and what came after it."""
    names = first or second
    return {name: [*first.get(name, []), *map(float, second[name])] for name in names}


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
