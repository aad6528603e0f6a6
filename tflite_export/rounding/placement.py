"""Where an int8 file rounds: which weights, inputs and outputs of which layers.

    plan = place(trace(model))
    plan.of(layer).rounds_output        # False for a convolution whose BatchNormalization is folded in

What goes from one operator to another is rounded once, where it is stored. Nothing is stored between a
convolution, its BatchNormalization and its ReLU, which become one operator.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import keras

from tflite_export.rounding.activations import Range
from tflite_export.rounding.calls import LayerCall, Trace
from tflite_export.rounding.rules import (
    FLOAT,
    JOINED,
    KEPT,
    MEASURED,
    OPAQUE,
    ROUNDED_INSIDE,
    WHOLE_MEAN,
    Rule,
    is_fused_activation,
    rule_of,
)


@dataclass(frozen=True)
class Steps:
    """Whose steps a value is stored in.

    Attributes:
        layer: that has the quantizer; None for an input of the model, or for steps that TFLite prescribes.
        place: the quantizer's place in the layer, or in the model.
        fixed: the range that TFLite prescribes.
    """

    layer: Any
    place: str
    fixed: Range | None = None


@dataclass(frozen=True)
class Placement:
    """What is rounded at one layer.

    Attributes:
        layer: the layer.
        rule: how it is computed.
        rounds_inputs: places in its float inputs that come from a layer which does not round.
        rounds_output: whether what it returns is stored.
        folded: a BatchNormalization that is a part of the layer before it.
        requantizes: places in the inputs of a concatenation that are stored in other steps before.
        reads: how many float tensors it is given.
        ends: whether the model returns what it returns.
        operator: the same number for layers that become one operator of the file.
        like: of a layer that computes in the steps of what goes in, such as a mean of neighbours, whose steps
            these are.
    """

    layer: Any
    rule: Rule
    rounds_inputs: tuple[int, ...] = ()
    rounds_output: bool = False
    folded: bool = False
    requantizes: tuple[int, ...] = ()
    reads: int = 1
    ends: bool = False
    operator: int = 0
    like: Steps | None = None


@dataclass(frozen=True)
class Plan:
    """What is rounded in a model.

    Attributes:
        placements: in the order in which the layers run.
        inputs: those of the model, by their number, that are rounded.
        computes: whether the model computes something itself between its layers, which is in floats.
    """

    placements: tuple[Placement, ...]
    inputs: tuple[int, ...]
    computes: bool = False


def place(trace: Trace, keep_float: Collection[Any] = ()) -> Plan:
    """Decide for a traced model.

    Args:
        keep_float: layers that stay as they are, with all that they hold.
    """
    return _Placing(trace, keep_float).plan()


class _Placing:
    """What is known while the calls of a trace are gone through in their order."""

    def __init__(self, trace: Trace, keep_float: Collection[Any]):
        self._trace, self._kept = trace, list(keep_float)
        held = {id(one) for layer in keep_float for one in _held(layer)}
        held |= {id(one) for c in trace.calls if _is_one(c.layer) for one in _held(c.layer)[1:]}
        self._calls = [c for c in trace.calls if id(c.layer) not in held or c.layer in self._kept]
        self._rules = {
            id(c.layer): FLOAT if c.layer in self._kept else _rule(c)
            for c in self._calls
            if _is_leaf(c, held)
        }
        leaves = [c for c in self._calls if id(c.layer) in self._rules]
        self._times = Counter(id(c.layer) for c in leaves)
        self._readers: dict[int, list[LayerCall | None]] = defaultdict(list)
        self._sources: dict[int, list[LayerCall | None]] = defaultdict(list)
        writers = {number: call for call in leaves for number in call.writes}
        for call in leaves:
            for number in set(call.reads):
                self._readers[number].append(call)
                self._sources[id(call.layer)].append(writers.get(number))
        for number in trace.outputs:
            self._readers[number].append(None)
        self._stored: dict[int, Steps | None] = {}
        self._pending: dict[
            int, Placement
        ] = {}  # written by a layer that leaves rounding to its reader
        self._found: dict[int, Placement] = {}

    def plan(self) -> Plan:
        inputs = tuple(
            place
            for place, number in enumerate(self._trace.inputs)
            if any(c and self._rule_of(c).inside == "int8" for c in self._readers[number])
        )
        for place in inputs:
            self._stored[self._trace.inputs[place]] = Steps(None, f"input_{place}")
        for call in self._calls:
            rule = self._rules.get(id(call.layer))
            if rule is None:  # it holds layers that were dealt with
                known = set(self._stored) | set(self._pending)
                stored = isinstance(call.layer, keras.Model) or set(call.writes) <= known
                if stored and (not call.computes or type(call.layer) in ROUNDED_INSIDE):
                    continue
                made = Placement(call.layer, FLOAT) if stored else self._placed(call, FLOAT)
            else:
                made = self._placed(call, rule)
            placement = dataclasses.replace(
                made,
                ends=bool(set(call.writes) & set(self._trace.outputs)),
                reads=len(call.reads),
            )
            before = self._found.get(id(call.layer))
            self._found[id(call.layer)] = placement if before is None else _both(before, placement)
        return Plan(tuple(self._found.values()), inputs, self._trace.computes)

    def _placed(self, call: LayerCall, rule: Rule) -> Placement:
        """The placement of one call; notes whether what it writes is stored, or left to its reader."""
        known = [n in self._stored or n in self._pending for n in call.reads]
        source = self._pending.get(call.reads[0]) if call.reads else None
        operator = len(self._found) if source is None else source.operator
        made = Placement(call.layer, rule, operator=operator)
        if call.layer in self._kept:
            return made
        if rule.output == KEPT and not rule.kernels:
            steps = self._stored.get(call.reads[0]) if call.reads else None
            if known and all(known):
                self._store(call, steps)
            return dataclasses.replace(made, like=steps if rule.averages else None)
        made = dataclasses.replace(
            made, folded=rule.folds_away and source is not None and source.rule.folds
        )
        if rule.output == JOINED:
            self._store(call, Steps(call.layer, "inputs"))
            again = tuple(n for n, number in enumerate(call.reads) if number in self._stored)
            return dataclasses.replace(made, requantizes=again)
        if rule is not FLOAT:
            unknown = tuple(n for n, one in enumerate(known) if not one)
            made = dataclasses.replace(made, rounds_inputs=unknown)
            if rule.masks and call.masked:  # with room for what the mask takes down
                again = (0,) if call.reads[0] in self._stored else ()
                made = dataclasses.replace(made, rounds_inputs=(0,), requantizes=again)
        if self._is_left_to_reader(call, rule):
            self._pending[call.writes[0]] = made
            return made
        fixed = None if isinstance(rule.output, str) else rule.output
        self._store(call, Steps(call.layer, "output", fixed) if rule.output != KEPT else None)
        return dataclasses.replace(made, rounds_output=rule.output != KEPT)

    def _store(self, call: LayerCall, steps: Steps | None) -> None:
        self._stored.update((number, steps) for number in call.writes)

    def _is_left_to_reader(self, call: LayerCall, rule: Rule) -> bool:
        """Whether the one layer that reads what this call writes does the rounding."""
        reader = self._reader(call)
        if reader is None:
            return False
        read = self._rule_of(reader)
        if read.folds_away:  # in all its calls, if it has several
            return all(
                source is not None and self._rule_of(source).folds and self._reader(source)
                for source in self._sources[id(reader.layer)]
            )
        if is_fused_activation(read):
            return rule.takes_activation
        return read.output == JOINED and rule.output == MEASURED and rule.inside == "int8"

    def _reader(self, call: LayerCall) -> LayerCall | None:
        """The only call that reads what this one writes, if there is but one."""
        if self._times[id(call.layer)] > 1 or len(call.writes) != 1:
            return None
        readers = self._readers[call.writes[0]]
        return readers[0] if len(readers) == 1 else None

    def _rule_of(self, call: LayerCall) -> Rule:
        return self._rules[id(call.layer)]


def _both(one: Placement, other: Placement) -> Placement:
    """Of a layer that is called several times: it rounds where any of its calls needs it."""
    return dataclasses.replace(
        one,
        rounds_inputs=tuple(sorted({*one.rounds_inputs, *other.rounds_inputs})),
        rounds_output=one.rounds_output or other.rounds_output,
        folded=one.folded and other.folded,
        requantizes=tuple(sorted({*one.requantizes, *other.requantizes})),
        ends=one.ends or other.ends,
        like=one.like if one.like == other.like else None,
    )


def _rule(call: LayerCall) -> Rule:
    rule = FLOAT if call.fills else rule_of(call.layer)
    if rule.averages and call.whole:
        return WHOLE_MEAN
    return (
        dataclasses.replace(rule, inside="float") if call.masked and rule.masked_in_float else rule
    )


def _is_one(layer: Any) -> bool:
    """Whether the layers that it holds are a part of it."""
    return isinstance(layer, OPAQUE) or rule_of(layer) is not FLOAT


def _is_leaf(call: LayerCall, held: set[int]) -> bool:
    inside = [one for one in call.inside if id(one) not in held]
    return not inside or _is_one(call.layer)


def _held(layer: Any) -> list[Any]:
    return list(layer._flatten_layers()) if isinstance(layer, keras.Layer) else [layer]
