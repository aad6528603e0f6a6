"""What `.tflite` files cost on this machine, side by side, on each runtime that is asked for.

run(["student.tflite", "other.tflite"], runtime=["litert", "tensorflow"])[0]["median_ms"]
"""

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path

import tflite_export as te
from keras_distill.app import results
from tflite_export.chatter import hushed
from tflite_export.runtime import installed


def run(
    files: Sequence[str | Path],
    threads: int | None = None,
    runs: int = 50,
    warmup: int = 5,
    runtime: str | Sequence[str] = "auto",
    memory: bool = True,
) -> list[dict]:
    """Measure files in alternation; see `tflite_export.benchmark`.

    Args:
        runtime: a name, several, or "all" that are installed.

    Returns:
        For each file, on each runtime, what `tflite_export.Benchmark` holds, and `needs`, the oldest release
        that runs the file (None: not the newest either); `operators` is a list of {operator, types, count}.
        Where one of several runtimes refuses a file: `name`, `runtime`, `needs` and `refused`, a sentence.

    Raises:
        ValueError, OSError: a file that is not there, damaged or does not run.
    """
    names = [runtime] if isinstance(runtime, str) else list(runtime)
    if "all" in names:
        names = list(installed())
    pairs = [(file, name) for file in files for name in dict.fromkeys(names)]
    refused = _refused(pairs, threads) if len(names) > 1 else {}
    kept = [pair for pair in pairs if pair not in refused]
    measured = iter(
        te.benchmark(
            [file for file, _ in kept],
            num_threads=threads,
            runs=runs,
            warmup=warmup,
            runtime=[name for _, name in kept],
            measure_memory=memory,
        )
    )
    found = []
    for file, name in pairs:
        needs: dict = {"needs": te.minimum_runtime(file).release}
        if (file, name) in refused:
            known = {"name": str(file), "runtime": name, "refused": refused[file, name]}
            found.append({**known, **needs})
            continue
        one = next(measured)
        counts = [
            {"operator": operator, "types": types, "count": count}
            for (operator, types), count in sorted(one.operators.items())
        ]
        plain = dataclasses.asdict(dataclasses.replace(one, operators={}))
        found.append({**plain, **needs, "operators": counts})
    return found


def _refused(pairs: Sequence[tuple], threads: int | None) -> dict[tuple, str]:
    """Why a runtime does not run a file, where another one does."""
    why = {}
    for file, name in pairs:
        try:
            with warnings.catch_warnings(), hushed():
                warnings.simplefilter("ignore")  # TensorFlow calls its interpreter deprecated
                te.load(file, num_threads=threads, runtime=name)
        except ValueError as error:
            why[file, name] = str(error)
    for file in {file for file, _ in pairs}:
        if all((one, name) in why for one, name in pairs if one == file):
            raise ValueError(next(why[one, name] for one, name in pairs if one == file))
    return why


def show(measured: Sequence[dict]) -> None:
    """Print a table of the files, and one of the operators."""
    done = [one for one in measured if "refused" not in one]
    threads, runtimes = done[0]["num_threads"], sorted({one["runtime"] for one in measured})
    several = len(runtimes) > 1
    results.show(
        f"{', '.join(runtimes)}, {'default' if threads is None else threads} threads, "
        f"{done[0]['runs']} runs of each file",
        ("file", *(["runtime"] if several else []), "bytes", "median", "90 % below", "peak memory",
         "XNNPACK pieces", "runs from"),
        [_row(one, several) for one in measured],
    )  # fmt: skip
    for one in measured:
        if "refused" in one:
            results.tell(f"{one['runtime']}: {one['refused']}")
    first = list({one["name"]: one for one in done}.values())
    rows = sorted({(o["operator"], o["types"]) for one in first for o in one["operators"]})
    counts = [{(o["operator"], o["types"]): o["count"] for o in one["operators"]} for one in first]
    results.show(
        "",
        ("operator", "types", *(one["name"] for one in first)),
        [(*row, *(results.size(count.get(row)) for count in counts)) for row in rows],
    )


def _row(one: dict, several: bool) -> tuple[str, ...]:
    start = (one["name"], *([one["runtime"]] if several else []))
    needs = one["needs"] or "no release tried"
    if "refused" in one:
        return (*start, "", "refused", "", "", "", needs)
    return (
        *start,
        results.size(one["size_bytes"]),
        results.milliseconds(one["median_ms"]),
        results.milliseconds(one["p90_ms"]),
        results.size(one["peak_memory_bytes"]),
        results.size(one["delegate_partitions"]),
        needs,
    )
