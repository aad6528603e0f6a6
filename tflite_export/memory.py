"""Peak memory of running a file, in a process of its own.

    peak_bytes("student.tflite", runtime="litert", num_threads=1)

Two fresh processes: one imports the runtime and stops, the other loads the file and runs it a few
times. The difference of their peaks is what the file costs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_RUNS = 3


def peak_bytes(
    path: str | Path,
    runtime: str = "auto",
    num_threads: int | None = None,
    shapes: Sequence[Sequence[int]] | None = None,
) -> int:
    """Peak resident memory above an import-only process. Raises RuntimeError if it crashes.

    Args:
        shapes: of the inputs, where the file leaves sizes open.
    """
    baseline = _fresh_process(None, runtime, num_threads, None)
    return max(0, _fresh_process(path, runtime, num_threads, shapes) - baseline)


def _fresh_process(
    path: str | Path | None,
    runtime: str,
    num_threads: int | None,
    shapes: Sequence[Sequence[int]] | None,
) -> int:
    task = json.dumps([None if path is None else str(path), runtime, num_threads, shapes])
    command = [sys.executable, "-c", "from tflite_export.memory import _task; _task()", task]
    # The package may be importable only from where this process found it.
    home = str(Path(__file__).resolve().parents[1])
    finished = subprocess.run(
        [*command[:2], f"import sys; sys.path.insert(0, {home!r}); {command[2]}", task],
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise RuntimeError(f"Measuring the memory of {path} failed: {finished.stderr[-500:]}")
    return int(finished.stdout.split()[-1])


def _task() -> None:
    path, runtime, num_threads, shapes = json.loads(sys.argv[1])
    from tflite_export.runtime import interpreter_class

    _, make = interpreter_class(runtime)
    if path is not None:
        # From the path, as apps do: the runtime maps the file instead of copying it.
        interpreter = make(model_path=path, num_threads=num_threads)
        inputs = interpreter.get_input_details()
        for detail, shape in zip(inputs, shapes or [], strict=False):
            if list(detail["shape"]) != shape:
                interpreter.resize_tensor_input(detail["index"], shape)
        interpreter.allocate_tensors()
        for _ in range(_RUNS):
            interpreter.invoke()
    print(_peak())


def _peak() -> int:
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts the parent's memory before exec, on Linux
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
