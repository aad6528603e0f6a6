"""What `.tflite` files cost on this machine.

run(["student.tflite", "other.tflite"])[0]["median_ms"]
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tflite_export as te
from keras_distill.app import results


def run(
    files: Sequence[str | Path],
    threads: int | None = None,
    runs: int = 50,
    warmup: int = 5,
    runtime: str = "auto",
    memory: bool = True,
) -> list[dict]:
    """Measure files in alternation; see `tflite_export.benchmark`.

    Returns:
        For each file what `tflite_export.Benchmark` holds; `operators` is a list of {operator, types,
        count}.

    Raises:
        ValueError, OSError: a file that is not there, damaged or does not run.
    """
    measured = te.benchmark(
        list(files),
        num_threads=threads,
        runs=runs,
        warmup=warmup,
        runtime=runtime,
        measure_memory=memory,
    )
    return [
        {
            **dataclasses.asdict(dataclasses.replace(one, operators={})),
            "operators": [
                {"operator": name, "types": types, "count": count}
                for (name, types), count in sorted(one.operators.items())
            ],
        }
        for one in measured
    ]


def show(measured: Sequence[dict]) -> None:
    """Print a table of the files, and one of the operators."""
    threads = measured[0]["num_threads"]
    results.show(
        f"{measured[0]['runtime']}, {'default' if threads is None else threads} threads, "
        f"{measured[0]['runs']} runs of each file",
        ("file", "bytes", "median", "90 % below", "peak memory", "XNNPACK pieces"),
        [
            (
                one["name"],
                results.size(one["size_bytes"]),
                results.milliseconds(one["median_ms"]),
                results.milliseconds(one["p90_ms"]),
                results.size(one["peak_memory_bytes"]),
                results.size(one["delegate_partitions"]),
            )
            for one in measured
        ],
    )
    rows = sorted({(o["operator"], o["types"]) for one in measured for o in one["operators"]})
    counts = [
        {(o["operator"], o["types"]): o["count"] for o in one["operators"]} for one in measured
    ]
    results.show(
        "",
        ("operator", "types", *(one["name"] for one in measured)),
        [(*row, *(results.size(count.get(row)) for count in counts)) for row in rows],
    )
