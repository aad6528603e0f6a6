"""Teachers out of `.tflite` files: float32 or quantised, run by LiteRT (or what else is installed).

    teacher = kd.teachers.load("mobilenet_v2_quant.tflite", num_threads=4)

It takes what the file takes: a float file its own floats (the normalisation that its metadata may name is not
applied), a uint8 file pixels 0..255 as integers, or floats that are then rounded to the file's steps.
"""

import threading

import keras
import numpy as np
from keras import ops

from keras_distill.activations import UNKNOWN, Head
from keras_distill.teacher_files.base import FileTeacher
from keras_distill.train_step import call_numpy_flat

_ENDS: dict[str | None, Head] = {
    "SOFTMAX": Head("softmax"),
    "LOGISTIC": Head("sigmoid"),
    **dict.fromkeys(("FULLY_CONNECTED", "CONV_2D", "BATCH_MATMUL", "LOG_SOFTMAX"), Head()),
}


@keras.saving.register_keras_serializable(package="keras_distill")
class TFLiteTeacher(FileTeacher):
    """A `.tflite` file. It runs once per training step, outside the graph, in float32 to the outside.

    Args:
        path: the file.
        num_threads: of the interpreter; None leaves the choice to it.
        inputs, activation, sha256: as for `FileTeacher`.

    Raises:
        ValueError: the file is damaged, or cannot be run here.
    """

    def __init__(self, path, num_threads=None, inputs=None, activation="auto", sha256=None):
        from tflite_export import runtime

        super().__init__(path, inputs, activation, sha256)
        self.num_threads = num_threads
        self._interpreter = runtime.load(self.path, num_threads=num_threads)
        self._lock = threading.Lock()  # an interpreter holds one batch at a time
        # In the order of keras.tree, which sorts the names of several outputs.
        self._outputs = sorted(self._interpreter.outputs, key=lambda output: output.name)
        made = dict(zip(self._interpreter.outputs, runtime.makers(self.path), strict=True))
        self._ends = [_ENDS.get(made[output][0], UNKNOWN) for output in self._outputs]
        self._steps = [made[output][1] for output in self._outputs]
        self._heads()  # a wrong word is told now

    @property
    def input_shapes(self) -> dict[str, tuple]:
        """Name → shape, with None where any size will do."""
        return {one.name: (None, *one.shape[1:]) for one in self._interpreter.inputs}

    @property
    def output_shapes(self) -> dict[str, tuple]:
        """The same of the outputs."""
        return {one.name: (None, *one.shape[1:]) for one in self._outputs}

    @property
    def input_dtypes(self) -> dict[str, str]:
        """Name → "float32", "uint8", …"""
        return {one.name: one.dtype for one in self._interpreter.inputs}

    def _shown(self) -> list[Head]:
        return self._ends

    def _answer(self, x):
        names = [one.name for one in self._interpreter.inputs]
        given = (
            list(x.values()) if isinstance(x, dict) else x if isinstance(x, list | tuple) else [x]
        )
        if len(given) == len(names) == 1:
            self.check_input(names[0], tuple(given[0].shape), self.input_shapes[names[0]])

        def run(*arrays):
            with self._lock:
                answers = self._interpreter.run(keras.tree.pack_sequence_as(x, list(arrays)))
            answers = answers if isinstance(answers, dict) else {self._outputs[0].name: answers}
            return [np.asarray(answers[one.name], "float32") for one in self._outputs]

        specs = [((None, *one.shape[1:]), "float32") for one in self._outputs]
        answers = call_numpy_flat(run, keras.tree.flatten(x), specs)
        if len(answers) == 1:
            return answers[0]
        return {one.name: answer for one, answer in zip(self._outputs, answers, strict=True)}

    def _logits(self, output, activation: str, place: int):
        step = self._steps[place]
        if activation != "linear" and step:
            # A quantised 0 is any probability below half a step; its logarithm is not −∞.
            output = ops.clip(output, step / 2, 1 - step / 2)
        return super()._logits(output, activation, place)

    def get_config(self) -> dict:
        """Return the arguments of the constructor."""
        return {"num_threads": self.num_threads, **super().get_config()}
