"""Times taken in turns, and where they were taken: what every benchmark here shares.

    seconds = measure.alternate({"ours": ours, "theirs": theirs}, rounds=20)
    rows = {name: measure.summary(taken) for name, taken in seconds.items()}
    measure.write("results/speed.json", {"rows": rows})

Run as `python benchmarks/speed.py`, whose folder Python searches for `import measure`.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("keras-distill", "keras", "tensorflow", "ai-edge-litert", "numpy", "pillow")


def alternate(
    ways: Mapping[str, Callable[[], object]],
    rounds: int,
    unmeasured: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds that each way took in each round.

    All ways run once in a round, so that what else the machine does hits them alike, and every
    second round in reverse, so that none of them always comes after the same one. A way must wait
    for its result itself.

    Args:
        unmeasured: rounds before, in which functions are traced and files come into memory.
        clock: `time.process_time` counts the work of all cores, whatever else the machine does.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(unmeasured + rounds):
        for name in list(ways) if turn % 2 == 0 else reversed(ways):
            start = clock()
            ways[name]()
            taken = clock() - start
            if turn >= unmeasured:
                seconds[name].append(taken)
    return seconds


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Median and quartiles (method "inclusive"), with the number of rounds."""
    low, median, high = (
        statistics.quantiles(seconds, n=4, method="inclusive")
        if len(seconds) > 1
        else [seconds[0]] * 3
    )
    return {
        "median": _rounded(median),
        "quartile_1": _rounded(low),
        "quartile_3": _rounded(high),
        "rounds": len(seconds),
    }


def ratio(seconds: Mapping[str, Sequence[float]], one: str, other: str) -> dict[str, float]:
    """How many times as long `one` took as `other`, from the ratio of each round."""
    return summary([a / b for a, b in zip(seconds[one], seconds[other], strict=True)])


def machine() -> dict[str, object]:
    """What the figures depend on, beside the versions."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write(path: str | os.PathLike[str], result: Mapping[str, object]) -> None:
    """The result as JSON, with versions and machine."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {**result, "versions": versions(), "machine": machine()}
    path.write_text(json.dumps(whole, indent=1) + "\n")
    print(f"Written to {path}.")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """The rows as a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor()
