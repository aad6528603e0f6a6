"""Students that zip well: with many zeros, or with few different weights.

    pruned = prune(student, sparsity=0.7, steps=3 * len(train))     # a Keras model: distil it as any other
    distiller = keras_distill.Distiller(teacher, pruned, …); distiller.compile(…); distiller.fit(train, …)
    export(strip(pruned), "student.tflite", "float16")
    aware = quantize_aware(pruned); …; export(aware, "small.tflite")    # zeros stay zeros
    compressed_size("small.tflite")     # what the app store sends

tensorflow-model-optimization decides which weights go and where clusters lie (Zhu and Gupta 2017, arXiv
1710.01878; Han et al. 2016, arXiv 1510.00149). A `.tflite` file itself is as large as before: zeros are
stored too. What shrinks is its zip, as apps are sent.
"""

from __future__ import annotations

import functools
import os
import zlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tflite_export.altered import Altered, copy_of, seen
from tflite_export.rounding.calls import layers_and_operations, paths
from tflite_export.rounding.constraints import Clusters, Zeros, belongs, constrain
from tflite_export.rounding.rules import rule_of
from tflite_export.rounding.tfmot import first_centroids, pruning, tfmot
from tflite_export.runtime import content_of
from tflite_export.signature import require_tensorflow

# Few weights, each of which counts: tfmot leaves them too.
_LEFT = ("depthwise_kernel",)
_LEFT_LAYERS = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)


class _Constrained(Altered):
    """A student whose kernels are seen through layers of `constraints`."""

    preserved: str

    def __init__(self, student: Any, name: str | None = None, layers: Sequence[str] | None = None):
        super().__init__(student, name)
        named = paths(student)
        self.constraints: list[Any] = []
        wanted = None if layers is None else set(layers)
        for layer in layers_and_operations(student):
            path = named.get(id(layer), "")
            if wanted is not None and path not in wanted:
                continue
            found = {}
            for attribute in _kernels(layer):
                label = f"{path}_{attribute}_kept".replace("/", "_")
                one = self._constraint(getattr(layer, attribute), label)
                belongs(one, layer, attribute)
                found[attribute] = one
            self.constraints += found.values()
            if found:
                call = functools.partial(_call, layer, layer.call, found)
                object.__setattr__(layer, "call", functools.update_wrapper(call, layer.call))
        unknown = [] if wanted is None else sorted(wanted - set(named.values()))
        if unknown or not self.constraints:
            raise ValueError(
                f"layers={layers}: "
                + (
                    f"{unknown} are not in {student.name!r}"
                    if unknown
                    else "none of them has a kernel"
                )
                + f"; it has {[named[id(one)] for one in layers_and_operations(student) if _kernels(one)]}."
            )

    def _constraint(self, kernel: Any, name: str) -> Any:
        raise NotImplementedError

    def stripped(self) -> Any:
        student = super().stripped()
        constrain(self._student, student, self.constraints)
        return student


@keras.saving.register_keras_serializable(package="tflite_export")
class Pruned(_Constrained):
    """See `prune`, which makes it.

    Attributes:
        sparsity: share of zeros in the kernels that are pruned.
    """

    preserved = "sparsity"

    def __init__(
        self,
        student: Any,
        name: str | None = None,
        layers: Sequence[str] | None = None,
        schedule: Any = None,
        m_by_n: Sequence[int] | None = None,
    ):
        super().__init__(student, name, layers)
        if isinstance(schedule, dict):  # of a saved model
            kind = getattr(tfmot().sparsity.keras, schedule["class_name"])
            schedule = kind.from_config(schedule["config"])
        self.step = self.add_weight(
            name="pruning_step", dtype="int32", initializer="zeros", trainable=False
        )
        self.thresholds = [
            self.add_weight(name="threshold", initializer="zeros", trainable=False)
            for _ in self.constraints
        ]
        kept = {"layers": layers and list(layers), "m_by_n": m_by_n and list(m_by_n)}
        self.keep("_arguments", kept)
        self.keep("_schedule", schedule)

    def _constraint(self, kernel: Any, name: str) -> Zeros:
        return Zeros(np.ones(kernel.shape), name=name)

    def call(self, inputs: Any, training: Any = None, mask: Any = None, **kwargs: Any) -> Any:
        if training and self.trainable:
            self.step.assign_add(1)
            variables = [
                (getattr(*one.place).value, one.mask.value, threshold.value)
                for one, threshold in zip(self.constraints, self.thresholds, strict=True)
            ]
            by = self._arguments["m_by_n"]
            work = pruning(
                lambda: self.step.value, variables, self._schedule, (1, 1), "AVG", by and tuple(by)
            )
            work.conditional_mask_update()
        return super().call(inputs, training=training, mask=mask, **kwargs)

    @property
    def sparsity(self) -> float:
        """Share of zeros in the kernels that are pruned."""
        masks = [one.mask.numpy() for one in self.constraints]
        return float(1 - sum(m.sum() for m in masks) / sum(m.size for m in masks))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self._arguments, "schedule": self._schedule.get_config()}


@keras.saving.register_keras_serializable(package="tflite_export")
class Clustered(_Constrained):
    """See `cluster`, which makes it."""

    preserved = "clusters"

    def __init__(
        self,
        student: Any,
        name: str | None = None,
        layers: Sequence[str] | None = None,
        clusters: int = 16,
        init: str = "kmeans++",
        keep_zeros: bool = False,
    ):
        self.keep("_arguments", {"clusters": clusters, "init": init, "keep_zeros": keep_zeros})
        super().__init__(student, name, layers)
        self.keep("_arguments", {**self._arguments, "layers": layers and list(layers)})

    def _constraint(self, kernel: Any, name: str) -> Clusters:
        count, how, zeros = (self._arguments[k] for k in ("clusters", "init", "keep_zeros"))
        value = keras.ops.convert_to_tensor(kernel)
        count = min(count, int(np.prod(kernel.shape)))
        return Clusters(value, first_centroids(value, count, how, zeros), zeros, name=name)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self._arguments}


def prune(
    student: Any,
    sparsity: float = 0.5,
    steps: int = 1000,
    *,
    schedule: Any = None,
    layers: Sequence[str] | None = None,
    m_by_n: Sequence[int] | None = None,
) -> Pruned:
    """A copy of `student` whose smallest weights become 0 in training.

    Args:
        student: a Keras 3 model on the TensorFlow backend; it stays as it is.
        sparsity: share of each kernel that is 0 in the end.
        steps: batches of training over which it rises from 0, on a cubic curve; train for longer than that.
        schedule: a `tfmot.sparsity.keras` schedule instead of these two.
        layers: names of the layers to prune; all with kernels but depthwise ones when None.
        m_by_n: (2, 4) for two zeros in each four weights, at once; `sparsity` and `steps` do not count then.

    Raises:
        ValueError: an argument, or a name, that cannot be.
    """
    require_tensorflow("prune")
    if m_by_n is not None and not _is_m_by_n(m_by_n):
        raise ValueError(
            f"m_by_n={m_by_n!r}: give two whole numbers, 0 < m < n; (2, 4) is two zeros in each four."
        )
    if not 0 < sparsity < 1 or steps < 1:
        raise ValueError(
            f"sparsity={sparsity}, steps={steps}: give a share between 0 and 1, and 1 or more."
        )
    if schedule is None:
        every = max(1, steps // 50)
        schedule = tfmot().sparsity.keras.PolynomialDecay(
            0.0, sparsity, begin_step=0, end_step=-(-steps // every) * every, frequency=every
        )
    return Pruned(copy_of(student), layers=layers, schedule=schedule, m_by_n=m_by_n)


def cluster(
    student: Any,
    clusters: int = 16,
    *,
    init: str = "kmeans++",
    keep_zeros: bool = False,
    layers: Sequence[str] | None = None,
) -> Clustered:
    """A copy of `student` in which each kernel has few different weights, and keeps them in training.

    Args:
        student: a trained Keras 3 model on the TensorFlow backend; it stays as it is.
        clusters: how many different weights a kernel has.
        init: where they begin: "kmeans++", "linear" or "density".
        keep_zeros: weights that are 0 stay 0, as of a student that was pruned.
        layers: names of the layers; all with kernels but depthwise ones when None.

    Raises:
        ValueError: an argument, or a name, that cannot be.
    """
    require_tensorflow("cluster")
    if clusters < 2:
        raise ValueError(f"clusters={clusters}: give 2 or more different weights.")
    return Clustered(
        copy_of(student), layers=layers, clusters=clusters, init=init, keep_zeros=keep_zeros
    )


def compressed_size(file: Any) -> int:
    """Bytes of a file when it is zipped (deflate at its best), as apps and their updates are sent.

    Args:
        file: what `export` returned, a path, or bytes.
    """
    return len(
        zlib.compress(content_of(os.fspath(file) if hasattr(file, "__fspath__") else file)[0], 9)
    )


def _is_m_by_n(given: Any) -> bool:
    pair = isinstance(given, list | tuple) and len(given) == 2
    return pair and all(isinstance(one, int) for one in given) and 0 < given[0] < given[1]


def _kernels(layer: Any) -> list[str]:
    if isinstance(layer, _LEFT_LAYERS):
        return []
    return [k.attribute for k in rule_of(layer).kernels if k.attribute not in _LEFT]


def _call(layer: Any, original: Any, constraints: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
    with seen(layer, constraints):
        return original(*args, **kwargs)
