"""What a run leaves behind: the final table, and files that are whole or not there."""

import csv
import io
import json
import platform
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import rich.console
import rich.table

from tflite_export.whole_file import write_whole

# A sentence stays one line, which a terminal breaks by itself and a log file can be searched for.
AS_IT_IS: dict = {"highlight": False, "markup": False, "soft_wrap": True}
PACKAGES = ("keras-distill", "keras", "tensorflow", "ai-edge-litert", "litert-quantizer", "numpy")


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: the first column to the left, figures to the right."""
    table = rich.table.Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=i == 0)
    for row in rows:
        table.add_row(*row)
    rich.console.Console().print(table)


def say(sentence: str) -> None:
    """Print a sentence about what is going on, beside the results."""
    rich.console.Console(stderr=True).print(sentence, **AS_IT_IS)


def tell(sentence: str) -> None:
    """Print a sentence that belongs to the results."""
    rich.console.Console().print(sentence, **AS_IT_IS)


def percent(share: float | None) -> str:
    """0.9123 → "91.2 %"."""
    return "" if share is None else f"{100 * share:.1f} %"


def size(count: int | None) -> str:
    """1234567 → "1,234,567"."""
    return "" if count is None else f"{count:,}"


def milliseconds(value: float | None) -> str:
    """1.234 → "1.23 ms", 0.0123 → "12.3 µs"."""
    if value is None:
        return ""
    return f"{value:.3g} ms" if value >= 0.1 else f"{1000 * value:.3g} µs"


def make_folder(folder: Path) -> None:
    """Make the folder for the results, and try it: whoever trains first must not find out afterwards.

    Raises:
        ValueError: it cannot be written, with the reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(
            f"The output folder {folder} cannot be written ({reason}): give another --output."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole."""
    write_whole(path, text.encode())


def write_json(path: Path, content: dict) -> None:
    """Write a JSON file, whole."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_summary(path: Path, summary: dict) -> dict:
    """Write `summary` as JSON, with the versions of what it was made with; returns what is written."""
    content = {**summary, "versions": versions()}
    write_json(path, content)
    return content


def write_history(path: Path, history: dict[str, list]) -> None:
    """Write a Keras history as CSV: one line for each epoch, counted from 1."""
    lines = io.StringIO(newline="")
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["epoch", *history])
    for number, row in enumerate(zip(*history.values(), strict=True), 1):
        writer.writerow([number, *(f"{float(value):.6g}" for value in row)])
    write_text(path, lines.getvalue())


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that the figures depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
