"""What a folder of results was begun with: the same command goes on, another one is refused.

    record = Record("out", arguments, {"photos": of_photos(root, files), "teacher": of("teacher.keras")})
    summary = record.finished()           # of an earlier, finished run, or None
    with record.started() as states:      # out/unfinished/, for the states of the trainings
        ...
        summary = record.finish(figures)  # out/summary.json; out/unfinished/ goes

What is recorded: the arguments, and what is *in* the files and folders among them. Where: in
`unfinished/arguments.json` before the first step, in `summary.json` after the last; beside the former
each training keeps its state, see `keras_distill.app.training`. How it is compared: value by value; a
file by its SHA-256, photos by their names and sizes. Where folders lie does not matter.

Every file is written beside its place and renamed, `summary.json` last. A run that is killed leaves
whole files and perhaps one hidden temporary file, which the next run removes.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_distill.app import results
from keras_distill.locking import only_one
from keras_distill.teacher_files import fingerprint

# What a file, a folder or a set of photos is known by.
Source = dict[str, Any]

MODELS = ("student.keras", "student.tflite", "teacher.keras")
TEXTS = ("labels.txt", "history.csv", "summary.json")
FREE = ("output", "strict")  # arguments that the results do not depend on
WAY_OUT = "give another --output, or the first arguments"


def of(path: str | os.PathLike) -> Source | None:
    """What a file or folder is known by, or None where there is none (a name of keras.applications)."""
    path = Path(path)
    return {"name": path.name, "sha256": fingerprint(path)} if path.exists() else None


def of_photos(root: str | os.PathLike, files: Sequence[Path]) -> Source:
    """What photos below `root` are known by: their names and sizes. Reading all of them takes too long."""
    digest, total = hashlib.sha256(), 0
    for file in sorted(files):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(root)} {size}\n".encode())
        total += size
    return {"name": f"{len(files)} photos of {total:,} bytes", "sha256": digest.hexdigest()}


def holds_run(folder: Path) -> bool:
    """Whether a folder holds a run that a `Record` was kept of, finished or not."""
    summary = folder / "summary.json"
    return (folder / "unfinished").exists() or (summary.is_file() and "sources" in _read(summary))


class Record:
    """The record of one run, in the folder of its results.

    Args:
        folder: of the results; nothing is written into it before `started`.
        arguments: {name: value} that the results depend on, as JSON has them.
        sources: {name: `of` or `of_photos`} of those that are files and photos, in place of their
            paths; those that are None are left to `arguments`.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        arguments: Mapping[str, Any],
        sources: Mapping[str, Source | None],
    ):
        self.folder = Path(folder)
        self.unfinished = self.folder / "unfinished"
        self.begun = {
            "arguments": json.loads(json.dumps(dict(arguments))),
            "sources": {name: source for name, source in sources.items() if source is not None},
        }

    def finished(self) -> dict | None:
        """The summary of the finished run with these arguments, or None where there is none.

        Raises:
            ValueError: the folder holds a run, finished or not, that began with other arguments; the
                sentence says which. Or it holds files of these names that no run wrote.
        """
        self._check()
        summary = self.folder / "summary.json"
        whole = all((self.folder / name).is_file() for name in (*MODELS[:2], *TEXTS))
        if not whole:
            return None
        shutil.rmtree(self.unfinished, ignore_errors=True)  # of a run that was killed in `finish`
        return _read(summary)

    @contextlib.contextmanager
    def started(self) -> Iterator[Path]:
        """Make the folder, for this process alone; yields the one for the states of the trainings.

        Raises:
            ValueError: the folder cannot be written, or another process is at work in it, or has been
                since `finished` looked.
        """
        results.make_folder(self.folder)
        self.unfinished.mkdir(exist_ok=True)
        busy = f"Another run is writing into {self.folder}: wait for it, or give another --output."
        with only_one(self.folder, busy):
            self._check()
            self._remove_remains()
            begun = self.unfinished / "arguments.json"
            versions = results.versions()
            if begun.is_file():
                results.say(
                    f"{self.folder} holds an unfinished run with these arguments: going on."
                )
                _warn(_read(begun).get("versions", {}), versions)
            else:
                results.write_json(begun, {**self.begun, "versions": versions})
            yield self.unfinished

    def finish(self, figures: Mapping[str, Any]) -> dict:
        """Write `summary.json`, which ends the run, and remove the states; returns what it holds."""
        summary = results.write_summary(self.folder / "summary.json", {**figures, **self.begun})
        shutil.rmtree(self.unfinished)
        return summary

    def _check(self) -> None:
        records = (self.folder / "summary.json", self.unfinished / "arguments.json")
        known = [file for file in records if file.is_file()]
        for file in known:
            self._compare(_read(file), file)
        others = [name for name in (*MODELS, *TEXTS) if os.path.lexists(self.folder / name)]
        others += [str(f.relative_to(self.folder)) for f in self.unfinished.glob("[!.]*")]
        if others and not known:
            raise ValueError(
                f"{self.folder} holds {', '.join(others)}, and no record of a run that wrote them: "
                f"they would be written over. Give another --output."
            )

    def _compare(self, earlier: dict, file: Path) -> None:
        if "sources" not in earlier or "arguments" not in earlier:
            raise ValueError(
                f"{file} is of a run that does not say what it was made of: give another --output."
            )
        found = differences(earlier, self.begun)
        if found:
            begun = file.parent == self.unfinished
            anew = f", or remove {self.folder} to begin anew" if begun else ""
            raise ValueError(
                f"{self.folder} holds a run with other arguments: {'; '.join(found)}: {WAY_OUT}{anew}."
            )

    def _remove_remains(self) -> None:
        """Temporary files of a run that was killed while it wrote."""
        for name in (*MODELS, *TEXTS):
            for pattern in (f".{name}.*.part", f".{Path(name).stem}.*.keras"):
                for file in self.folder.glob(pattern):
                    file.unlink()
        for file in self.unfinished.glob(".*.part"):
            file.unlink()


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two runs, as "epochs was 30, is now 40".

    A source, file or photos, is compared by what is in it, and takes the place of its argument.
    """
    found = []
    for name in {**then["arguments"], **now["arguments"]}:
        if name in FREE:
            continue
        was, has = (run["sources"].get(name, run["arguments"].get(name)) for run in (then, now))
        if _identity(was) != _identity(has):
            found.append(f"{name} was {_words(was)}, is now {_words(has)}")
    return found


def _identity(value):
    return value["sha256"] if isinstance(value, dict) else value


def _words(value) -> str:
    if isinstance(value, dict):
        return f"{value['name']} ({value['sha256'][:8]}…)"
    return "not given" if value is None else str(value)


def _read(file: Path) -> dict:
    try:
        content = json.loads(file.read_text())
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ValueError(f"{file} is damaged: remove it, or give another --output.")
    return content


def _warn(then: Mapping[str, str], now: Mapping[str, str]) -> None:
    changed = [
        f"{name} {then[name]}, now {now.get(name)}" for name in then if then[name] != now.get(name)
    ]
    if changed:
        results.say(
            f"It began with other versions ({'; '.join(changed)}): what it ends with may differ a "
            f"little from what an uninterrupted run would give."
        )
