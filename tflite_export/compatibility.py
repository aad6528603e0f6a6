"""Which operators of a file do phone accelerators take, and which would fall back to the CPU?

    found = compatibility("student.tflite")
    print(found)
    found.delegates["gpu"].falls_back          # {"CAST": Fallback(count=1, reason="…")}

An answer from documents (delegate_tables.py names them), not from a device: operator names and number
types are compared; conditions on shapes, and what a driver refuses, are not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tflite_export import flatbuffer
from tflite_export.delegate_tables import TABLES, DelegateTable
from tflite_export.runtime import content_of


@dataclass(frozen=True)
class Fallback:
    """An operator that stays on the CPU: how often the file has it, and why."""

    count: int
    reason: str


@dataclass(frozen=True)
class DelegateFit:
    """What one delegate takes of a file.

    Attributes:
        title: the delegate's name for people.
        source: the document that says so.
        takes: {operator: count} of those that are documented.
        takes_undocumented: {operator: count} of those that only the delegate's source names
            (`source_of_rest`).
        falls_back: {operator: Fallback}.
        pieces: stretches of the file that the delegate gets; between two of them, data go to the CPU
            and back, which can cost more than it saves. 1 is best, 0 is none.
    """

    title: str
    source: str
    takes: Mapping[str, int]
    takes_undocumented: Mapping[str, int]
    source_of_rest: str | None
    falls_back: Mapping[str, Fallback]
    pieces: int

    @property
    def complete(self) -> bool:
        """Whether nothing falls back."""
        return not self.falls_back


@dataclass(frozen=True)
class Compatibility:
    """What delegates take of a file; `str()` is a table.

    Attributes:
        name: the file.
        recipe: how it computes: "float32", "float16", "dynamic_int8", "dynamic_int4", "int8",
            "uint8", "int16x8" or "mixed".
        operators: {operator: count}.
        delegates: {"gpu", "nnapi", "qualcomm", "mediatek", "coreml": DelegateFit}.
        advice: sentences.
    """

    name: str
    recipe: str
    operators: Mapping[str, int]
    delegates: Mapping[str, DelegateFit]
    advice: tuple[str, ...]

    def __str__(self) -> str:
        total = sum(self.operators.values())
        width = max(len(fit.title) for fit in self.delegates.values())
        lines = [
            f"{self.name}: {total} operators, {self.recipe}",
            f"{'':{width}}  takes  falls back  pieces",
        ]
        for fit in self.delegates.values():
            taken = sum(fit.takes.values()) + sum(fit.takes_undocumented.values())
            star = "*" if fit.takes_undocumented else " "
            lines.append(
                f"{fit.title:{width}}  {taken:5d}{star} {total - taken:10d}  {fit.pieces:6d}"
            )
        for fit in self.delegates.values():
            if fit.falls_back or fit.takes_undocumented:
                lines.append(f"{fit.title}:")
            for name, one in fit.falls_back.items():
                lines.append(f"  falls back: {one.count} {name} ({one.reason})")
            if fit.takes_undocumented:
                named = ", ".join(f"{n} {name}" for name, n in fit.takes_undocumented.items())
                lines.append(f"  * {named}: not in its documentation, but in {fit.source_of_rest}")
        lines += [*self.advice, "From documents, not from a device:"]
        return "\n".join(
            lines + [f"  {fit.title}: {fit.source}" for fit in self.delegates.values()]
        )


def compatibility(path: Any) -> Compatibility:
    """What the GPU delegate, NPUs and the Core ML delegate are documented to take of a file.

    Args:
        path: of a `.tflite` from anywhere, its bytes, or what `export` returned.

    Raises:
        ValueError: the file is damaged or no TFLite file.
        FileNotFoundError: there is no such file.
    """
    content, name = content_of(path)
    model = flatbuffer.read(content, name)
    operators = list(flatbuffer.operators(model))
    outside = len(model.subgraphs[0].operators or [])  # the rest is inside a WHILE, IF, …
    recipe = _recipe(operators)
    return Compatibility(
        name=name,
        recipe=recipe,
        operators=dict(Counter(o.name for o in operators)),
        delegates={key: _fit(table, operators, outside) for key, table in TABLES.items()},
        advice=_advice(recipe, model),
    )


def _fit(
    table: DelegateTable, operators: Sequence[flatbuffer.Operator], outside: int
) -> DelegateFit:
    takes: Counter[str] = Counter()
    undocumented: Counter[str] = Counter()
    back: dict[str, Fallback] = {}
    pieces, inside = 0, False
    for place, operator in enumerate(operators):
        reason = _refusal(table, operator, place >= outside)
        if reason is not None:
            count = back[operator.name].count if operator.name in back else 0
            back[operator.name] = Fallback(count + 1, reason)
        elif operator.name in table.documented or _is_float16_weight(operator):
            takes[operator.name] += 1
        else:
            undocumented[operator.name] += 1
        # float16 weights are widened once, when the file is loaded: they are no step of a run.
        if not _is_float16_weight(operator):
            pieces += reason is None and not inside
            inside = reason is None
    return DelegateFit(
        table.title, table.source, dict(takes), dict(undocumented), table.source_of_rest, back, pieces
    )  # fmt: skip


def _refusal(table: DelegateTable, operator: flatbuffer.Operator, nested: bool) -> str | None:
    """Why an operator would fall back, or None."""
    if nested:
        return "inside an operator that has a graph of its own"
    if _is_float16_weight(operator):
        return None
    if operator.name.startswith("CUSTOM"):
        return "a custom operator"
    if operator.name not in table.documented | table.in_source:
        return "not among its operators"
    for name, condition in table.unless:
        if operator.name == name:
            return condition
    for kind in (*operator.input_types, *operator.output_types):
        if kind in _NARROW and kind not in table.quantized:
            taken = ", ".join(["floats", *sorted(table.quantized)])
            return f"has {kind} numbers, and the delegate takes {taken}"
    return None


_NARROW = ("int4", "int8", "uint8", "int16")  # int32 is for shapes and indices too
_HEAVY = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "CONV_3D", "BATCH_MATMUL",
          "UNIDIRECTIONAL_SEQUENCE_LSTM")  # fmt: skip


def _is_float16_weight(operator: flatbuffer.Operator) -> bool:
    """A weight in float16, as files for GPUs hold it; such files are documented at both delegates."""
    return operator.name == "DEQUANTIZE" and operator.input_types == ("float16",)


def _recipe(operators: Sequence[flatbuffer.Operator]) -> str:
    half = any(map(_is_float16_weight, operators))
    heavy = [o.input_types[:2] for o in operators if o.name in _HEAVY and len(o.input_types) > 1]
    kinds = set()
    if not heavy:  # pools, sums: no weights
        types = {kind for o in operators for kind in o.input_types} & {"int8", "uint8", "int16"}
        kinds = {"int16x8" if "int16" in types else "int8"} if types else set()
    for activation, weight in heavy:
        if activation == "float32":
            kinds.add("float32" if "float" in weight else f"dynamic_{weight}")
        else:
            kinds.add("int16x8" if activation == "int16" else activation)
    if kinds <= {"float32"}:
        return "float16" if half else "float32"
    return kinds.pop() if len(kinds) == 1 else "mixed"


def _advice(recipe: str, model: Any) -> tuple[str, ...]:
    advice = []
    if recipe == "float16":
        advice.append("float16 is the recipe for GPUs and Core ML. NPUs want int8.")
    elif recipe == "float32":
        advice.append(
            "For GPUs, quantization='float16' is recommended: half the size, and they compute in it. "
            "For NPUs, 'int8'."
        )
    else:
        advice.append(
            "For GPUs, quantization='float16' is recommended: they compute in floats, and 8-bit files "
            "only where the app allows quantised models. Core ML takes floats alone."
        )
    graph = model.subgraphs[0]
    if any(None in flatbuffer.shape_of(graph.tensors[int(i)]) for i in graph.inputs):
        advice.append(
            "The file leaves sizes open, and delegates want fixed ones: export with batch_size=1."
        )
    return tuple(advice)
