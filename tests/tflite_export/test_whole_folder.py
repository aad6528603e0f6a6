"""A folder appears whole or not at all, and nobody's files are lost."""

import subprocess
import sys

import pytest

from tflite_export import whole_folder
from tflite_export.whole_folder import write_whole_folder


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_a_folder_of_ours_is_replaced_as_a_whole(tmp_path):
    folder = write_whole_folder(tmp_path / "deep" / "f", {"a.bin": b"1", "b.bin": b"2"})
    write_whole_folder(folder, {"a.bin": b"3"}, r"[ab]\.bin")
    assert contents(folder) == {"a.bin": b"3"}
    assert [p.name for p in folder.parent.iterdir()] == ["f"]


def test_a_folder_with_somebody_elses_files_is_refused_and_left(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"1")
    (tmp_path / "thesis.txt").write_bytes(b"2")
    with pytest.raises(ValueError, match=r"holds thesis\.txt, which would be lost"):
        write_whole_folder(tmp_path, {"a.bin": b"3"}, r"a\.bin")
    assert contents(tmp_path) == {"a.bin": b"1", "thesis.txt": b"2"}


def test_a_file_in_the_way_is_refused_and_left(tmp_path):
    (tmp_path / "f").write_bytes(b"1")
    with pytest.raises(ValueError, match="f is a file"):
        write_whole_folder(tmp_path / "f", {"a": b""})
    assert contents(tmp_path) == {"f": b"1"}


def test_the_earlier_folder_stays_when_writing_fails(tmp_path, monkeypatch):
    folder = write_whole_folder(tmp_path / "f", {"a": b"1"})

    def full(path, content):
        raise OSError("No space left on device")

    monkeypatch.setattr(whole_folder, "write_whole", full)
    with pytest.raises(OSError, match="No space"):
        write_whole_folder(folder, {"a": b"2"}, "a")
    assert contents(folder) == {"a": b"1"}
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("path", ["f/y", "f/y/z"])
def test_a_path_below_a_file_is_refused(tmp_path, path):
    (tmp_path / "f").write_bytes(b"1")
    with pytest.raises(ValueError, match=r"f is a file, not a folder"):
        write_whole_folder(tmp_path / path, {"a": b""})
    assert contents(tmp_path) == {"f": b"1"}


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_one(tmp_path, exists):
    real, link = tmp_path / "real", tmp_path / "link"
    if exists:
        real.mkdir()
        (real / "a").write_bytes(b"1")
    link.symlink_to(real, target_is_directory=True)
    assert write_whole_folder(link, {"a": b"2"}, "a") == link
    assert link.is_symlink()
    assert contents(real) == {"a": b"2"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "real"]


def test_after_a_kill_between_the_renames_both_folders_are_beside(tmp_path):
    """As the docstring says."""
    write_whole_folder(tmp_path / "f", {"a": b"1"})
    program = f"""
import os
from pathlib import Path
from tflite_export.whole_folder import write_whole_folder
rename = Path.rename
Path.rename = lambda self, target: os._exit(9) if self.name == "new" else rename(self, target)
write_whole_folder({str(tmp_path / "f")!r}, {{"a": b"2"}}, "a")
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == 9
    (beside,) = tmp_path.iterdir()
    assert (beside.name[:3], beside.suffix) == (".f.", ".part")
    assert contents(beside / "earlier") == {"a": b"1"}
    assert contents(beside / "new") == {"a": b"2"}
