"""Which layers of a teacher and of a student belong together: those at the ends of equal stages.

    suggest_pairs(teacher=keras.applications.ResNet50(), student=keras.applications.MobileNetV2())
    # [("conv1_relu", "expanded_conv_project_BN"), ("conv2_block3_out", "block_2_add"),
    #  ("conv3_block4_out", "block_5_add"), ("conv4_block6_out", "block_12_add"),
    #  ("conv5_block3_out", "out_relu")]

A stage is where features have one size: that of the input divided by 2, 4, 8, … whatever the input is. It
ends with the last block through which everything flows before the features shrink again.
"""

import contextlib
import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import keras

from keras_distill.layer_tree import held_layers, reachable
from keras_distill.symbolic import input_specs, symbolically
from keras_distill.taps import noting_calls

TOKENS = "tokens"
_ANY_SIDE = 256  # what a network is tried with that takes any size

_ELEMENTWISE = (
    keras.layers.Activation,
    keras.layers.BatchNormalization,
    keras.layers.Dropout,
    keras.layers.ELU,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.LeakyReLU,
    keras.layers.PReLU,
    keras.layers.ReLU,
)
_MERGES = ("Add", "Average", "Concatenate", "Maximum")  # as layers and as operations: `x + y`
# Parts of the class names of layers that make no features, but only move, scale or drop what they are given.
_NO_FEATURES = ("Cropping", "Dropout", "Identity", "Padding", "Random", "Rescaling")


def suggest_pairs(teacher: keras.Model, student: keras.Model) -> list[tuple[str, str]]:
    """Return (teacher's layer, student's layer) for each stage that both networks have, shallow to deep.

    A stage is told by input size / feature size, so that inputs may differ: 28×28 of a teacher's 224×224 and
    12×12 of a student's 96×96 are one. In tokens, and where just one stage is common, the student's k-th
    block of n is paired with the teacher's block at k/n of its depth.

    The names are for `teacher_layer_name=` and `student_layer_name=` of a loss. Features of a pair differ in
    channels, and in size where the inputs do.

    Raises:
        ValueError: no stage is common (the sentence lists those of both), or a network is not built.
    """
    for model in (teacher, student):
        if not isinstance(model, keras.Model):
            raise ValueError(f"suggest_pairs takes two keras.Models, got {type(model).__name__}.")
    theirs, ours = stages(teacher), stages(student)
    common = [stage for stage in ours if stage in theirs]
    if not common:
        raise ValueError(
            f"The teacher '{teacher.name}' and the student '{student.name}' have no stage in common, where a "
            "stage is input size / feature size. "
            f"The teacher has {_listed(theirs)}; the student has {_listed(ours)}. Choose layers "
            "yourself: teacher_layer_name= and student_layer_name= of a loss."
        )
    pairs = []
    for stage in common:
        if stage == TOKENS or len(common) == 1:
            pairs += _by_depth(theirs[stage], ours[stage])
        else:
            pairs.append((theirs[stage][-1], ours[stage][-1]))
    return pairs


def stages(model: keras.Model) -> dict[Any, list[str]]:
    """Return the names of the layers that end a block of `model`, stage by stage, shallow to deep.

    Features of 1×1 are no stage, and nothing is one before the first layer that has learned something. A
    layer that holds layers counts as one block, unless the features shrink to less than half in it.

    Returns:
        The names by input size / feature size, rounded to a power of two: 4, or `(4, 2)` where height and
        width differ; and by `"tokens"` for features `(batch, tokens, channels)` of another rank than the
        input's. The last name of a list is the end of that stage.

    Raises:
        ValueError: the model has not seen an input yet.
    """
    calls = _learned(_calls(model))
    spatial = [call.stage for call in calls if isinstance(call.stage, tuple)]
    coarsest = max(spatial, key=math.prod, default=None)
    if coarsest is not None:  # a decoder that enlarges them again is left out
        last = max(i for i, call in enumerate(calls) if call.stage == coarsest)
        calls = calls[: last + 1] + [call for call in calls[last + 1 :] if call.stage == TOKENS]
    trunk = _trunk(calls)
    found: dict[Any, list[str]] = {}
    for stage in [*sorted(set(spatial), key=math.prod), TOKENS]:
        chains = _chains([call for call in trunk if call.stage == stage])
        if not chains and stage != TOKENS:  # cells that read the last two: there is no trunk
            merges = [call for call in calls if call.stage == stage and _merges(call)]
            chains = [[call] for call in merges]
        ends = [chain for chain in chains if _ends_block(chain)] or chains
        if stage == coarsest and chains:
            ends = [*ends, chains[-1]]
        names = list(dict.fromkeys(chain[-1].name for chain in ends))
        if names:
            found[stage[0] if stage != TOKENS and len(set(stage)) == 1 else stage] = names
    return found


def flat_layers(model: keras.Model) -> list[str]:
    """Return the names of the layers with features `(batch, features)` before the top, shallow to deep.

    Everything flows through each of them; the activation or normalisation behind a layer counts with it. The
    top is the last layer with a kernel.

    Raises:
        ValueError: the model has not seen an input yet.
    """
    chains = _chains(_trunk(_learned(_calls(model))))
    tops = [i for i, chain in enumerate(chains) if any(map(_has_kernel, chain))]
    below = [chain[-1] for chain in chains[: tops[-1]]] if tops else []
    return [call.name for call in below if call.output is not None and len(call.output.shape) == 2]


@dataclasses.dataclass(eq=False)
class _Call:
    """One call of a layer. `stage` is None where the output is no feature map; `name` is for a tap."""

    layer: keras.Operation
    name: str
    inputs: list
    outputs: list
    output: Any  # where there is one
    stage: Any
    stage_before: Any  # of its first input


def _calls(model: keras.Model) -> list[_Call]:
    """The calls of one pass, in their order, of the layers that count as one."""
    specs = input_specs(model)
    if specs is None:
        raise ValueError(
            f"The features of '{model.name}' have no sizes yet: call it on a batch once, or build it."
        )
    specs = keras.tree.map_structure(_sized, specs)
    image = next((one for one in keras.tree.flatten(specs) if len(one.shape) > 2), None)
    calls: list[_Call] = []

    def note_of(path, layer):
        def note(arguments, result):
            inputs = [one for one in keras.tree.flatten(arguments) if hasattr(one, "shape")]
            outputs = keras.tree.flatten(result)
            output = outputs[0] if len(outputs) == 1 else None
            before = _stage(inputs[0], image) if inputs else None
            stage = _stage(output, image)
            calls.append(_Call(layer, path, inputs, outputs, output, stage, before))

        return note

    def run(inputs):
        with contextlib.ExitStack() as stack:
            for path, layer in reachable(model):
                stack.enter_context(noting_calls(layer, note_of(path, layer)))
            return model(inputs, training=False)

    symbolically(run, specs)
    opened = {call.name for call in calls if held_layers(call.layer) and not _is_block(call)}
    calls = [
        call
        for call in calls
        if call.name not in opened
        and all(str(parent) in opened for parent in PurePosixPath(call.name).parents[:-1])
    ]
    times = Counter(call.name for call in calls)
    seen: Counter = Counter()
    for call in calls:
        path = call.name
        if times[path] > 1:
            call.name = f"{path}:{seen[path]}"
        seen[path] += 1
    return calls


def _learned(calls: list[_Call]) -> list[_Call]:
    """Those of `calls` with a kernel, or behind one: no preprocessing, and no masks."""
    found: list[_Call] = []
    made: set[int] = set()
    for call in calls:
        if _has_kernel(call) or any(id(tensor) in made for tensor in call.inputs):
            found.append(call)
            made.update(map(id, call.outputs))
    return found


def _has_kernel(call: _Call) -> bool:
    # One number for each channel only moves and scales: a normalisation of the input.
    return any(len(weight.shape) > 1 for weight in getattr(call.layer, "weights", []))


def _sized(spec: keras.KerasTensor) -> keras.KerasTensor:
    """`spec` with a size for an image or signal of any."""
    batch, *sizes = spec.shape
    if len(sizes) > 1:
        sizes = [size or _ANY_SIDE for size in sizes]
    return keras.KerasTensor((batch, *sizes), spec.dtype)


def _stage(tensor, image) -> Any:
    """What the sides of `image` are divided by in `tensor`, `TOKENS`, or None."""
    try:
        shape = tuple(tensor.shape)
    except (AttributeError, ValueError):  # several tensors, or of unknown rank
        return None
    if image is not None and len(shape) == len(image.shape):
        sides = list(zip(_sides(image.shape), _sides(shape), strict=True))
        if all(side is not None for _, side in sides) and any(side > 1 for _, side in sides):
            return tuple(2 ** max(0, round(math.log2(whole / side))) for whole, side in sides)
        return None
    return TOKENS if len(shape) == 3 and shape[1] != 1 else None


def _sides(shape) -> tuple:
    return shape[2:] if keras.config.image_data_format() == "channels_first" else shape[1:-1]


def _is_block(call: _Call) -> bool:
    """Whether a layer that holds layers is one block: the features shrink to half at most."""
    before, after = call.stage_before, call.stage
    if before is None or after is None or TOKENS in (before, after):
        return before is not None and before == after
    return all(b <= 2 * a for a, b in zip(before, after, strict=True))


def _trunk(calls: list[_Call]) -> list[_Call]:
    """Those of `calls` that everything flows through: nothing made before them is read after them."""
    made_at: dict[int, int] = {}
    read_until = [-1] * len(calls)  # for what each call makes
    for i, call in enumerate(calls):
        for tensor in call.inputs:
            if id(tensor) in made_at:
                read_until[made_at[id(tensor)]] = i
        if call.output is not None:
            made_at[id(call.output)] = i
    trunk, reach = [], -1
    for i, call in enumerate(calls):
        if reach <= i:
            trunk.append(call)
        reach = max(reach, read_until[i])
    return trunk


def _chains(calls: list[_Call]) -> list[list[_Call]]:
    """`calls` of one stage, each with the normalisation and activation behind it, without mere padding."""
    chains: list[list[_Call]] = []
    for call in calls:
        follows = chains and any(one is chains[-1][-1].output for one in call.inputs)
        if follows and isinstance(call.layer, _ELEMENTWISE):
            chains[-1].append(call)
        elif not _is_named(call, _NO_FEATURES):
            chains.append([call])
    pooled = [chain for chain in chains if len(chain) == 1 and _is_named(chain[0], ("Pool",))]
    return [chain for chain in chains if chain not in pooled] or pooled


def _ends_block(chain: list[_Call]) -> bool:
    """Whether it merges branches, is a block of layers, or a linear bottleneck (no activation behind it)."""
    first, last = chain[0], chain[-1]
    linear = len(chain) > 1 and isinstance(last.layer, keras.layers.BatchNormalization)
    return linear or _merges(first) or bool(held_layers(first.layer))


def _merges(call: _Call) -> bool:
    return type(call.layer).__name__ in _MERGES and len(call.inputs) > 1


def _is_named(call: _Call, words: Sequence[str]) -> bool:
    kind = type(call.layer).__name__
    return kind == "Normalization" or any(word in kind for word in words)


def _by_depth(theirs: list[str], ours: list[str]) -> list[tuple[str, str]]:
    """Each of `ours` with the one of `theirs` that is proportionally as deep; none of `theirs` twice."""
    count = len(theirs) / len(ours)
    pairs = {theirs[math.ceil((k + 1) * count) - 1]: name for k, name in enumerate(ours)}
    return list(pairs.items())


def _listed(found: dict[Any, list[str]]) -> str:
    return ", ".join(f"{stage} ({names[-1]})" for stage, names in found.items()) or "none"
