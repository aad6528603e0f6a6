"""The small base of all ways of distilling: a `keras.Model` whose training step is four hooks.

    targets(x, y)                             what the teacher says; outside the gradient
    forward(x, training)                      what the student says; inside it
    mix(x, y, sample_weight, answer, targets)  one number to minimise; also updates the metrics
    after_step(x, answer)                     what follows an update

`train_step/` calls them in this order, one module for each Keras backend.
"""

import dataclasses
import math
from typing import Any

import keras
import numpy as np

from keras_distill import epoch, fit_data, train_step
from keras_distill.network import Answer

_SEEDS = "seeds"


@dataclasses.dataclass
class _Compiled:
    """The arguments of `compile`; not a dict, which Keras would search for metrics."""

    arguments: dict[str, Any]


class DistillationModel(keras.Model):
    """Base of `Distiller` and the other modes; see the module's docstring for the hooks."""

    train_function: Any

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._order_seed = keras.random.SeedGenerator()

    def targets(self, x, y=None):
        """Return what the student is to learn from for a batch."""
        raise NotImplementedError

    def forward(self, x, training: bool) -> Answer:
        """Run the student once on the batch `x`."""
        raise NotImplementedError

    def mix(self, x, y, sample_weight, answer: Answer, targets):
        """Return the scalar to minimise."""
        raise NotImplementedError

    def after_step(self, x, answer: Answer) -> None:
        """Called after each update of the weights, with what the student answered before it."""

    def wants_batch(self) -> bool:
        """Whether `look` is to be called before a training."""
        return False

    def look(self, x, y=None) -> None:
        """Look at the first batch, and refuse what cannot be meant."""

    def cannot_look(self, x) -> None:
        """Called instead of `look` where no batch can be taken out of the data `x`."""

    def views(self) -> int | None:
        """Return how many views of each example the teacher knows, or None for any number."""

    def output_spec(self):
        """Return `keras.KerasTensor`s like the outputs of `forward`, or None where they are not known."""

    def changed_by_forward(self) -> list:
        """Return the variables that `forward` may change, which a step that is stopped takes back."""
        return self.non_trainable_variables

    def begin(self, anew: bool) -> None:
        """Called when a `fit` begins; `anew` is False where one goes on (`initial_epoch`)."""

    def before_epoch(self) -> None:
        """Called before each epoch of `fit`."""

    def after_epoch(self) -> None:
        """Called after each epoch of `fit`."""

    def train_step(self, data):
        """One step of training; see `keras_distill.train_step`."""
        return train_step.train_step(self, data)

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        class_weight=None,
        sample_weight=None,
        initial_epoch=0,
        steps_per_epoch=None,
        validation_steps=None,
        validation_batch_size=None,
        validation_freq=1,
        **kwargs,
    ):
        """Train, as `keras.Model.fit` does, with the order of examples a function of (seed, epoch).

        Arrays are shuffled anew in each epoch from a seed that `save_weights` stores, so a training which
        `BackupAndRestore` resumes (saving at the ends of epochs, its default) sees the very batches that it
        would have seen. A `tf.data.Dataset`, `PyDataset` or generator keeps its own order: make that a
        function of `epoch.variable()`, as `keras_distill.data` does, if resumed runs are to be identical.

        Of arrays, and of stored labels of several views, each epoch begins anew: `steps_per_epoch` takes its
        first steps, so shuffle what `attach` returns.

        Args: as `keras.Model.fit`.
        Returns: a `keras.callbacks.History`.
        Raises: ValueError: stored labels of several views that have no end (`repeat()`).
        """
        first = _Finite()  # before any callback keeps what it finds wrong
        added: list[keras.callbacks.Callback] = [epoch.SetEpoch(self.views()), _AroundEpoch()]
        arrays = fit_data.are_arrays((x, y, sample_weight))
        if arrays and validation_split and validation_data is None:
            (x, y, sample_weight), validation_data = fit_data.split(
                (x, y, sample_weight), validation_split
            )
        elif validation_split and validation_data is None:
            kwargs["validation_split"] = validation_split  # Keras says for which data it works
        if self.wants_batch():
            batch, x = fit_data.first_batch(x, y, batch_size)
            if batch is not None:
                self.look(*batch)
            else:
                self.cannot_look(x)
        if initial_epoch == 0:
            self._order_seed.next()  # another `fit`, another order
        self.begin(anew=initial_epoch == 0)
        validation_batch_size = validation_batch_size or batch_size
        if validation_data is not None:
            parts = keras.utils.unpack_x_y_sample_weight(validation_data)
            if fit_data.are_arrays(parts) and validation_steps is None:
                validation_data = epoch.in_order(fit_data.pack(*parts), validation_batch_size or 32)
        if arrays and shuffle is True:
            shuffled = epoch.Shuffled(fit_data.pack(x, y, sample_weight), batch_size or 32)
            added.append(_SetSeed(self, shuffled.seed))
            x, y, sample_weight, batch_size, shuffle = shuffled.dataset, None, None, None, False
            if steps_per_epoch is not None:  # each epoch the first of its own order
                x, steps_per_epoch = x.take(steps_per_epoch), None
        elif _is_data_set(x):
            shuffle = False  # a tf.data.Dataset shuffles itself; Keras would warn
            if (self.views() or 1) > 1:
                x, steps_per_epoch = fit_data.begun_anew(x, steps_per_epoch), None
        if isinstance(callbacks, keras.callbacks.CallbackList):
            for callback in (first, *added):
                callback.set_model(self)
            callbacks.callbacks.insert(0, first)
            for callback in added:
                callbacks.append(callback)
        else:
            callbacks = [first, *keras.tree.flatten(callbacks or []), *added]
        try:
            with train_step.plain_errors():
                return super().fit(
                    x,
                    y,
                    batch_size=batch_size,
                    epochs=epochs,
                    verbose=verbose,
                    callbacks=callbacks,
                    validation_data=validation_data,
                    validation_steps=validation_steps,
                    validation_batch_size=validation_batch_size,
                    validation_freq=validation_freq,
                    shuffle=shuffle,
                    class_weight=class_weight,
                    sample_weight=sample_weight,
                    initial_epoch=initial_epoch,
                    steps_per_epoch=steps_per_epoch,
                    **kwargs,
                )
        finally:
            epoch.begin(0)  # as `SetEpoch` does where no error or Ctrl-C comes before
            # `BackupAndRestore` leaves the next `fit` to begin there too.
            self._initial_epoch = None

    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        steps=None,
        callbacks=None,
        return_dict=False,
        **kwargs,
    ):
        """As `keras.Model.evaluate`."""
        if fit_data.are_arrays((x, y, sample_weight)) and steps is None:
            x = epoch.in_order(fit_data.pack(x, y, sample_weight), batch_size or 32)
            y = batch_size = sample_weight = None
        return super().evaluate(
            x, y, batch_size, verbose, sample_weight, steps, callbacks, return_dict, **kwargs
        )

    def make_train_function(self, force=False):
        """As `keras.Model.make_train_function`; the step is traced once."""
        if self.train_function is None or force:
            super().make_train_function(force)
            self.train_function = train_step.building(self, self.train_function)

    def train_on_batch(self, x, *args, **kwargs):
        """As `keras.Model.train_on_batch`."""
        with train_step.plain_errors():
            return super().train_on_batch(x, *args, **kwargs)

    def compiled_with(self, arguments: dict[str, Any]) -> None:
        """Remember the arguments of `compile` as they were given, for saving."""
        self._compiled = _Compiled(arguments)

    def compile_arguments(self) -> dict[str, Any]:
        """Return the arguments of `compile`, as they were given."""
        # No property: Keras would find the optimizer in it, and save it under that name.
        return self._compiled.arguments

    def get_compile_config(self):
        """Return the arguments of `compile`, serialised."""
        if not self.compiled:
            return {}
        return {
            name: keras.saving.serialize_keras_object(value)
            for name, value in self.compile_arguments().items()
        }

    def compile_from_config(self, config):
        """Compile with what `get_compile_config` returned."""
        self.compile(
            **{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()}
        )
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def save_own_variables(self, store):
        """Store the states of the random seeds too (dropout, order of the data), which Keras leaves out."""
        super().save_own_variables(store)
        store[_SEEDS] = np.stack([keras.ops.convert_to_numpy(s) for s in self._seed_states()])

    def load_own_variables(self, store):
        """Read what `save_own_variables` stored."""
        own = {key: store[key] for key in store.keys() if key != _SEEDS}  # noqa: SIM118
        super().load_own_variables(own)
        states = self._seed_states()
        if _SEEDS in store.keys() and len(store[_SEEDS]) == len(states):  # noqa: SIM118
            for state, value in zip(states, store[_SEEDS], strict=True):
                state.assign(value)

    def _seed_states(self) -> list:
        # `variables` holds the seeds' states and `weights` does not; their order is that of the layers.
        weights = {id(weight) for weight in self.weights}
        return [variable for variable in self.variables if id(variable) not in weights]


def _is_data_set(x) -> bool:
    return type(x).__module__.startswith("tensorflow.")


class _Finite(keras.callbacks.Callback):
    """Looks at the loss where the step itself cannot (`finite`)."""

    def on_epoch_end(self, epoch, logs=None):
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise ValueError(
                f"The loss became {loss} in epoch {epoch + 1}: the teacher's answers or the data are not "
                "finite, or the learning rate is too high. Train without jit_compile and on one device to "
                "be told the step and the reason."
            )


class _AroundEpoch(keras.callbacks.Callback):
    """Calls the model's hooks."""

    def on_epoch_begin(self, epoch, logs=None):
        self.model.before_epoch()

    def on_epoch_end(self, epoch, logs=None):
        self.model.after_epoch()


class _SetSeed(keras.callbacks.Callback):
    """Hands the model's order seed to the shuffled arrays, after a backup may have restored it."""

    def __init__(self, distiller: DistillationModel, variable):
        super().__init__()
        self._distiller = distiller
        self._variable = variable

    def on_epoch_begin(self, epoch, logs=None):
        state = keras.ops.convert_to_numpy(self._distiller._order_seed.state)
        self._variable.assign(int(state[0]) * 1_000_003 + int(state[1]))
