"""A student that trains with the rounding of its int8 file in it.

    qat = quantize_aware(student, representative_dataset=train)
    distiller = keras_distill.Distiller(teacher, qat, …); distiller.compile(…); distiller.fit(…)
    export(qat, "student.tflite", inference_input_type="uint8", normalization=(127.5, 127.5))
    student = strip(qat)                    # the float student, trained
    print(qat.coverage())

`qat` is a Keras model with the student's own layers, under their names: any optimizer, callback, metric
and tap of Keras 3 works on it. tensorflow-model-optimization itself refuses Keras 3 models; here its
quantizers round what passes between the layers (rounding/placement.py says where, rounding/layers.py how).

Use it where an int8 file loses accuracy that matters: quantise after training first (`export`), and measure.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tflite_export import representative
from tflite_export.altered import Altered, copy_of, strip
from tflite_export.convert import ConversionError, float32_policies
from tflite_export.coverage import Coverage, LayerCoverage, covered
from tflite_export.rounding.activations import MEASURED, Range
from tflite_export.rounding.calls import is_float, layers_and_operations, paths, trace
from tflite_export.rounding.constraints import PRESERVED, constrain, constraints_of, described
from tflite_export.rounding.layers import Mode, Quantizers, attend, install
from tflite_export.rounding.one_step import rows_of
from tflite_export.rounding.placement import Placement, place
from tflite_export.rounding.quantizers import LEVELS
from tflite_export.rounding.rules import JOINED, KEPT, ROUNDED_INSIDE
from tflite_export.signature import Signature, require_tensorflow

_TOGETHER = 32  # examples of calibration in one pass


@keras.saving.register_keras_serializable(package="tflite_export")
class QuantizeAware(Altered):
    """See `quantize_aware`, which makes it."""

    def __init__(
        self,
        student: Any,
        keep_float: Sequence[str] = (),
        preserve: str | None = None,
        name: str | None = None,
        clusters: Mapping[str, Any] | None = None,
    ):
        super().__init__(student, name)
        named = paths(student)
        kept = _kept(named, student, keep_float)
        mode = Mode()
        edges = Quantizers("model", mode)
        made = []
        for layer in layers_and_operations(student):
            if type(layer) in ROUNDED_INSIDE and layer not in kept:
                made.append(Quantizers(named[id(layer)], mode))
                attend(layer, made[-1])
        with float32_policies(student), mode.set(observing=True):
            plan = place(trace(student), kept)
        self.constraints = []
        of_layer: dict[Any, Quantizers] = {}
        for placement in plan.placements:
            if _does_something(placement):
                layer, path = placement.layer, named[id(placement.layer)]
                constraints = constraints_of(
                    layer, placement.rule.kernels, preserve, path, clusters
                )
                self.constraints += list(constraints.values())
                steps = placement.like
                like = None
                if steps is not None:
                    owner = edges if steps.layer is None else of_layer[id(steps.layer)]
                    pooled = not isinstance(layer, keras.layers.UpSampling2D)
                    like = functools.partial(owner.again, steps.place, steps.fixed, pooled)
                of_layer[id(layer)] = install(placement, path, mode, constraints, like)
        if preserve == "clusters" and not self.constraints:
            raise ValueError(
                f"preserve='clusters', and no kernel of {student.name!r} has clusters (at most 256 "
                "different values, and half as many as weights): give what cluster() made of it."
            )
        made += of_layer.values()
        for number in plan.inputs:
            edges.make(f"input_{number}", spread=True)
        self.range_quantizers = [q for one in (edges, *made) for q in one.made.values()]
        self.keep("_arguments", {"keep_float": list(keep_float), "preserve": preserve})
        self.keep("_plan", plan)
        self.keep("_mode", mode)
        self.keep("_edges", edges)
        self.keep("_paths", named)

    def call(self, inputs: Any, training: Any = None, mask: Any = None, **kwargs: Any) -> Any:
        count = -1

        def enter(x: Any) -> Any:
            nonlocal count
            if not is_float(x):
                return x
            count += 1
            name = f"input_{count}"
            if name not in self._edges.made:
                return x
            return self._edges(name, x, self._mode.entry.get(count, MEASURED))

        with self._mode.set(training=bool(training)):
            inputs = keras.tree.map_structure(enter, inputs)
            return super().call(inputs, training=training, mask=mask, **kwargs)

    def coverage(self) -> Coverage:
        """Which layers the int8 file computes in integers, and which in floats."""
        found = [covered(p, self._paths[id(p.layer)]) for p in self._plan.placements]
        if self._plan.computes:
            kind = type(self._student).__name__
            found.append(LayerCoverage(self._student.name, kind, "", "float", "float"))
        return Coverage(found)

    def operators(self) -> list[tuple[str, ...]]:
        """Names of the layers that round something, those together that become one operator of the file."""
        found: dict[int, list[str]] = {}
        for one in self._plan.placements:
            if one.rule.inside == "int8" and one.rule.output != KEPT:
                found.setdefault(one.operator, []).append(self._paths[id(one.layer)])
        return [tuple(names) for names in found.values()]

    @contextlib.contextmanager
    def rounding_by(self, shares: Mapping[str, Any]) -> Iterator[None]:
        """Within this context a layer's rounding counts by a share from 0 to 1, by name; others' not."""
        with self._mode.set(shares=shares):
            yield

    @contextlib.contextmanager
    def watched_by(self, see: Callable[[str, Any, float], Any]) -> Iterator[None]:
        """Within this context `see(place, value, step)` gives what goes on in a rounded value's place; for
        models that run eagerly."""
        with self._mode.set(see=see):
            yield

    @contextlib.contextmanager
    def for_file(self, entry: Mapping[int, Range]) -> Iterator[None]:
        """Within this context the model is traced as the converter wants it.

        Args:
            entry: ranges of float inputs, by their number, that hold instead of those seen in training.
        """
        with self._mode.set(for_file=True, training=False, entry=entry):
            yield

    def require_ranges(self) -> None:
        """Raises ConversionError where no example was seen yet."""
        ends = [q.ends for q in self.range_quantizers]
        if ends and all(low == high for low, high in ends):
            raise ConversionError(
                f"{self.name!r} has seen no example yet, so that the ranges of its activations are not "
                "known: train it, or give quantize_aware a representative_dataset=."
            )

    def one_step_kernels(self) -> list[np.ndarray]:
        """Kernels in whole numbers, as `one_step.rows_of` makes them, whose channels share one step."""
        found = []
        channels = {
            (id(p.layer), kernel.attribute): kernel.channels
            for p in self._plan.placements
            for kernel in p.rule.kernels
        }
        for one in self.constraints:
            layer, attribute = one.place
            own = channels[id(layer), attribute]
            if one.one_step and own:
                kernel = np.asarray(one(keras.ops.convert_to_tensor(getattr(layer, attribute))))
                largest = np.abs(kernel).max()
                found.append(rows_of(np.round(kernel * (LEVELS / (largest or 1.0))), own))
        return found

    def calibrate(self, representative_dataset: Any, num_examples: int = 300) -> None:
        """Widen the ranges to what these examples lead to without rounding.

        Args:
            representative_dataset: as `export` takes it: tf.data, arrays or batches, in the form that
                the model takes.
            num_examples: how many of them are read.
        """
        inputs = Signature.of(self).inputs
        self.calibrate_on(representative.read(representative_dataset, inputs, num_examples))

    def calibrate_on(self, examples: Sequence[Mapping[str, Any]]) -> None:
        """The same, on what `representative.read` returned."""
        signature = Signature.of(self)
        names = [i.name for i in signature.inputs]
        with self._mode.set(observing=True):
            observe = _function(lambda *flat: signature.call(flat))
            for start in range(0, len(examples), _TOGETHER):
                some = examples[start : start + _TOGETHER]
                observe(*(np.concatenate([e[name] for e in some]) for name in names))

    def stripped(self) -> Any:
        """The float student with its trained weights; see `strip`."""
        student = super().stripped()
        constrain(self._student, student, self.constraints)
        return student

    def get_config(self) -> dict[str, Any]:
        clusters = described(self.constraints)
        return {**super().get_config(), **self._arguments, "clusters": clusters}


def quantize_aware(
    student: Any,
    representative_dataset: Any = None,
    keep_float: Sequence[str] = (),
    strict: bool = False,
    num_calibration_examples: int = 300,
    preserve: str | None = None,
) -> QuantizeAware:
    """A copy of `student` that rounds as its int8 file will, to be trained like any Keras model.

    Args:
        student: a trained Keras 3 model on the TensorFlow backend, or what `prune` or `cluster` made of
            it; it stays as it is.
        representative_dataset: what the ranges of activations start from, in the form that the model
            takes: tf.data, arrays or batches. Without it the first batch of training sets them.
        keep_float: names of layers (`"outer/inner"` in nested models) that stay in floats.
        strict: refuse a student of which the file would compute a layer in floats.
        num_calibration_examples: how many of the data set are read.
        preserve: "sparsity" keeps weights of 0 at 0, "clusters" those that are equal equal, so that the
            file stays as small when it is zipped; of what `prune` or `cluster` made this is so by itself.

    Raises:
        ValueError: a name is not known; a layer is computed in floats and `strict` is set; the student
            has no weights yet, or no clusters that could be preserved.
    """
    require_tensorflow("quantize_aware")
    if isinstance(student, QuantizeAware):
        raise ValueError(
            f"{student.name!r} is quantisation-aware already: train it, or give strip() of it."
        )
    if isinstance(student, Altered):  # pruned or clustered
        preserve = preserve or student.preserved
        student = strip(student)
    if preserve not in PRESERVED:
        raise ValueError(f"preserve={preserve!r}: it is one of {', '.join(map(repr, PRESERVED))}.")
    model = QuantizeAware(copy_of(student), keep_float, preserve)
    floats = [name for name in model.coverage().in_float if name not in keep_float]
    if strict and floats:
        raise ValueError(
            f"The int8 file of {student.name!r} computes {floats} in floats, which strict=True forbids: "
            "replace these layers, name them in keep_float=, or leave strict=False."
        )
    if representative_dataset is not None:
        model.calibrate(representative_dataset, num_calibration_examples)
    return model


def _kept(named: dict[int, str], student: Any, names: Sequence[str]) -> list[Any]:
    by_path = {named[id(one)]: one for one in layers_and_operations(student) if id(one) in named}
    unknown = [name for name in names if name not in by_path]
    if unknown:
        raise ValueError(
            f"keep_float names {unknown}; the layers of {student.name!r} are {list(by_path)}."
        )
    return [by_path[name] for name in names]


def _does_something(placement: Placement) -> bool:
    rule = placement.rule
    works = (placement.rounds_output, placement.rounds_inputs, placement.like, placement.reads > 2)
    composed = rule.steps is not None and not rule.steps.fused
    return any(works) or bool(rule.kernels) or rule.affine or composed or rule.output == JOINED


def _function(work: Any) -> Any:
    import tensorflow as tf

    return tf.function(work, autograph=False)
