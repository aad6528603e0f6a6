"""One training whose progress is shown, and which goes on from its state file after it was killed.

    model.compile(...)
    history = fit(model, train, validation, epochs=30, title="Student", state="out/student.npz")

What a killed training goes on from is written at the end of every epoch by `callbacks.Resume`.
"""

from pathlib import Path

import keras

from keras_distill import callbacks, epoch, training_state
from keras_distill.app.progress import Progress


def fit(
    model: keras.Model,
    train,
    validation,
    epochs: int,
    title: str,
    first_epoch: int = 0,
    state: str | Path | None = None,
) -> dict[str, list[float]]:
    """Train a compiled model, and return the history of all its epochs.

    Args:
        model: compiled, with its variables made.
        train, validation: data sets as `fit` takes them.
        epochs: how many there are to be in all.
        title: of the progress bar.
        first_epoch: number of the first of them; order and augmentation follow from it.
        state: file that the training goes on from, if it is there, and is recorded in.

    Raises:
        ValueError: the file is damaged, or holds the state of another model.
        OSError: the state cannot be written. The one of the epoch before stays.
    """
    file = None if state is None else Path(state)
    history: training_state.History = {}
    done = 0
    if file is not None and file.exists():
        found = training_state.restore(model, file)
        done, history = found.epochs - first_epoch, found.history
    if done < epochs:
        with Progress(title, epochs, len(train), epochs_done=done) as progress:
            shown: list[keras.callbacks.Callback] = [epoch.SetEpoch(), progress.callback]
            if file is not None:
                shown.append(callbacks.Resume(file, delete=False))
            fitted = model.fit(
                train,
                validation_data=validation,
                initial_epoch=first_epoch + done,
                epochs=first_epoch + epochs,
                shuffle=False,
                verbose=0,
                callbacks=shown,
            )
        history = training_state.joined(history, fitted.history)
    # What follows reads the views of the last epoch, whether it has just been trained or was before.
    epoch.begin(first_epoch + epochs - 1)
    return history
