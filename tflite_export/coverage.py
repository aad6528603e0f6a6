"""Which layers of a quantisation-aware model are integers in its file, and which are floats.

print(qat.coverage())           # a table
qat.coverage().in_float         # names
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from tflite_export.rounding.placement import Placement
from tflite_export.rounding.rules import JOINED, KEPT


@dataclass(frozen=True)
class LayerCoverage:
    """How a layer of a quantisation-aware model is computed in the int8 file.

    Attributes:
        layer: its name, `"outer/inner"` in a nested model; one that holds layers, or the model itself, where
            it computes something between them, which is in floats.
        kind: its class.
        weights: "int8", or "float" or "" where it has none that count.
        inside: "int8" or "float".
        output: "int8" (rounded here), "as input", "in the next" (not stored) or "float".
    """

    layer: str
    kind: str
    weights: str
    inside: str
    output: str


class Coverage(tuple[LayerCoverage, ...]):
    """One `LayerCoverage` for each layer, in the order in which they run; prints as a table."""

    @property
    def in_float(self) -> list[str]:
        """Names of the layers that are computed in floats."""
        return [one.layer for one in self if one.inside == "float"]

    def __str__(self) -> str:
        rows = [("layer", "kind", "weights", "inside", "output")]
        rows += [(c.layer, c.kind, c.weights, c.inside, c.output) for c in self]
        widths = [max(len(row[n]) for row in rows) for n in range(5)]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )


def covered(placement: Placement, path: str) -> LayerCoverage:
    """The coverage of one layer, whose name is `path`."""
    rule = placement.rule
    weights = "int8" if rule.kernels else "float" if _own_weights(placement.layer) else ""
    if placement.folded:
        weights = "folded"
    if placement.rounds_output or rule.output == JOINED:
        output = "int8"
    elif rule.output == KEPT:
        output = "as input"
    else:
        output = "in the next" if rule.inside == "int8" else "float"
    return LayerCoverage(path, type(placement.layer).__name__, weights, rule.inside, output)


def _own_weights(layer: Any) -> list[Any]:
    """The weights that are not those of layers that it holds."""
    if not isinstance(layer, keras.Layer):
        return []
    of_others = {id(w) for one in list(layer._flatten_layers())[1:] for w in one.weights}
    return [w for w in layer.weights if id(w) not in of_others]
