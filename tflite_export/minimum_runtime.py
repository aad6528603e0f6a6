"""Which runtime does a `.tflite` file need at least?

    print(minimum_runtime("student.tflite"))
    minimum_runtime("student.tflite").release          # "tflite-runtime 2.9.1"

The answer was tried, not read from the file: the version numbers in it are those of its converter, which a
quantiser leaves as they were, and there are releases that run a file and answer wrongly (tflite-runtime 2.14
takes one scale for all channels of a dense layer of "dynamic_int8"). operator_releases.json holds what each
release did with each operator and its types; `benchmarks/operator_releases.py` makes it. tflite-runtime has
the version numbers of TensorFlow and TensorFlow Lite; ai-edge-litert, which followed it, has its own.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tflite_export import flatbuffer
from tflite_export.runtime import content_of

_TABLE = Path(__file__).with_name("operator_releases.json")
# ai-edge-litert 1.0.1 was built against NumPy 1, as all of tflite-runtime was.
_NUMPY_1 = ("tflite-runtime", "ai-edge-litert 1.0")


@dataclass(frozen=True)
class MinimumRuntime:
    """What a file needs to run; `str()` says it in a few lines.

    Attributes:
        release: the oldest release from which on all that were tried run the file and answer rightly, such as
            "tflite-runtime 2.9.1"; None where the newest does not. The first of `releases` stands for all
            that are older.
        runs: all releases that run it and answer rightly: some may be older than one that does not.
        reasons: the operators, with their types, for which an older release is not enough.
        untried: operators with types that were not tried: they are judged by their version, and by
            what was tried with those types.
        releases: all that were tried, the oldest first.
    """

    release: str | None
    runs: tuple[str, ...]
    reasons: tuple[str, ...]
    untried: tuple[str, ...]
    releases: tuple[str, ...]

    @property
    def requirements(self) -> tuple[str, ...]:
        """For `pip install`: ("tflite-runtime>=2.9.1", "numpy<2"), or () where the newest does not run it.

        tflite-runtime ends with 2.14.0, which needs NumPy 1 and a Python up to 3.11.
        """
        if self.release is None:
            return ()
        package, _, number = self.release.partition(" ")
        old = any(self.release.startswith(one) for one in _NUMPY_1)
        return (f"{package}>={number}", *(["numpy<2"] if old else []))

    def runs_on(self, release: str) -> bool:
        """Whether one of `releases` runs the file and answers rightly.

        Raises:
            ValueError: that release was not tried.
        """
        if release not in self.releases:
            raise ValueError(f"{release!r} was not tried; these were: {', '.join(self.releases)}.")
        return release in self.runs

    def __str__(self) -> str:
        first, last = self.releases[0], self.releases[-1]
        if self.release is None:
            lines = [f"Does not run on {last}, the newest release that was tried."]
        elif self.release == first:
            lines = [f"Runs on {first}, the oldest release that was tried, and on all later."]
        else:
            lines = [f"Runs from {self.release} on."]
        at = self.releases.index
        older = [r for r in self.runs if self.release is None or at(r) < at(self.release)]
        if older:
            lines.append(f"  runs on some that are older: {', '.join(older)}")
        lines += [f"  needs it: {reason}" for reason in self.reasons]
        lines += [f"  not tried, judged by its version and types: {one}" for one in self.untried]
        if self.requirements:
            lines.append(f"  pip install {' '.join(map(repr, self.requirements))}")
        return "\n".join(lines)


def minimum_runtime(file: Any) -> MinimumRuntime:
    """The oldest runtime that runs a file and answers rightly.

    Args:
        file: a path, bytes, or what `export` returned.

    Raises:
        ValueError: the file is damaged or no TFLite file.
    """
    content, name = content_of(file)
    model = flatbuffer.read(content, name)
    table = _table()
    releases = tuple(table["releases"])
    bad: dict[str, set[int]] = {}  # operator: the releases that it does not run on
    untried = []
    pairs = zip(flatbuffer.kinds(model), flatbuffer.versions(model), strict=True)
    for kind, (operator, version) in sorted(set(pairs)):
        known = table["versions"].get(operator, [0] * len(releases))
        bad[f"{operator} version {version}"] = {i for i, most in enumerate(known) if most < version}
        if kind in table["kinds"]:
            bad[kind] = set(table["kinds"][kind])
        else:
            untried.append(kind)
            bad[kind] = _likely(operator, kind)
    wrong = {i for found in bad.values() for i in found}
    since = max(wrong, default=-1) + 1
    return MinimumRuntime(
        release=releases[since] if since < len(releases) else None,
        runs=tuple(one for i, one in enumerate(releases) if i not in wrong),
        reasons=tuple(reason for reason, found in bad.items() if since - 1 in found),
        untried=tuple(untried),
        releases=releases,
    )


def _types(kind: str) -> set[str]:
    """The types of "CONV_2D float32×int8→float32, by channel"."""
    before, _, after = kind.partition(",")[0].partition("→")
    return {*before.split(" ")[-1].split("×"), *after.split("×")} - {""}


def _likely(operator: str, kind: str) -> set[int]:
    """Releases that likely do not run what was not tried: those on which something of the same operator with
    the same types does not; where nothing was tried, those that run nothing at all with one of its types."""
    tried = {one: set(bad) for one, bad in _table()["kinds"].items()}
    types = _types(kind)
    near = [
        b for one, b in tried.items() if one.startswith(f"{operator} ") and _types(one) == types
    ]
    if near:
        return set.union(*near)
    held = [[b for one, b in tried.items() if each in _types(one)] for each in types]
    return {release for bad in held if bad for release in set.intersection(*bad)}


@functools.cache
def _table() -> Mapping[str, Any]:
    return json.loads(_TABLE.read_text("utf-8"))
