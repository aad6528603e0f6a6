"""Training progress with the time left, on standard error: results on standard output stay clean.

    with Progress("Student", epochs=30, steps_per_epoch=52) as progress:
        student.fit(train, epochs=30, verbose=0, callbacks=[progress.callback])

On a terminal a bar; in a log file one line for each epoch.
"""

import time

import keras
import rich.console
import rich.progress

from keras_distill.app import interrupt


class Progress:
    """A bar for one training, and the Keras callback that moves it.

    Args:
        title: what is trained.
        epochs, steps_per_epoch: of the whole training.
        epochs_done: of these, in an earlier start of the program.
    """

    def __init__(self, title: str, epochs: int, steps_per_epoch: int, epochs_done: int = 0):
        self.title = title
        self.epochs = epochs
        self.epochs_done = epochs_done
        self.total = epochs * steps_per_epoch
        self.earlier = self.done = epochs_done * steps_per_epoch
        self.started = 0.0
        self.callback = _Callback(self)
        self._console = rich.console.Console(stderr=True)
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TextColumn("left"),
            rich.progress.TimeRemainingColumn(),
            rich.progress.TextColumn("{task.fields[figures]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=self.total, completed=self.done, figures="")

    def __enter__(self):
        self.started = time.monotonic()
        self._bar.start()
        return self

    def __exit__(self, *_):
        self._bar.stop()

    def step(self):
        """One more batch is done.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed, and dropped by a library.
        """
        interrupt.check()
        self.done += 1
        self._bar.advance(self._task)

    def epoch(self, logs: dict):
        """One more epoch is done."""
        self.epochs_done += 1
        names = ("loss", "accuracy", "val_accuracy")
        figures = "  ".join(f"{name} {logs[name]:.3f}" for name in names if name in logs)
        self._bar.update(self._task, figures=figures)
        if not self._console.is_terminal:
            taken = (time.monotonic() - self.started) / max(1, self.done - self.earlier)
            left = taken * (self.total - self.done)
            self._console.print(
                f"{self.title} {self.epochs_done}/{self.epochs}  {figures}  {_clock(left)} left",
                highlight=False,
            )


class _Callback(keras.callbacks.Callback):
    def __init__(self, progress: Progress):
        super().__init__()
        self.progress = progress

    def on_train_batch_end(self, batch, logs=None):
        self.progress.step()

    def on_epoch_end(self, epoch, logs=None):
        self.progress.epoch(logs or {})


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d}"
