"""Versions appear whole, each under a number of its own, whoever else exports at the same time."""

import os
import signal
import subprocess
import sys

import pytest

from tflite_export.serving.version_folder import new_version

WRITE = """
import sys
from tflite_export.serving.version_folder import new_version
for turn in range(int(sys.argv[2])):
    with new_version(sys.argv[1]) as version:
        (version.building / "a").write_text(sys.argv[3])
        (version.building / "b").mkdir()
        (version.building / "b" / "c").write_text(sys.argv[3])
"""


def make(folder, text="x"):
    with new_version(folder) as version:
        (version.building / "file").write_text(text)
    return version


@pytest.mark.parametrize(
    ("there", "number"),
    [([], 1), (["1", "2"], 3), (["9", "10"], 11), (["007"], 8), (["1", "x", ".9.part", "-4"], 2)],
)
def test_the_next_number(there, number, tmp_path):
    for name in there:
        (tmp_path / "served" / name).mkdir(parents=True)
    version = make(tmp_path / "served")
    assert version.number == number
    assert version.path == tmp_path / "served" / str(number)
    assert version.path.joinpath("file").read_text() == "x"


def test_a_file_with_a_number_for_a_name_is_not_replaced(tmp_path):
    (tmp_path / "3").write_text("a file")
    assert make(tmp_path).number == 4
    assert (tmp_path / "3").read_text() == "a file"


def test_rights_are_the_usual_ones(tmp_path):
    (tmp_path / "plain").mkdir()
    assert make(tmp_path).path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_number_that_another_takes_meanwhile_is_left_to_it(tmp_path):
    """The other one is there after the numbers were looked at and before the renaming."""
    with new_version(tmp_path) as version:
        (version.building / "file").write_text("mine")
        make(tmp_path, "theirs")
    assert version.number == 2
    assert (tmp_path / "1" / "file").read_text() == "theirs"
    assert (tmp_path / "2" / "file").read_text() == "mine"


def test_renaming_onto_a_version_of_another_takes_the_next_number(tmp_path, monkeypatch):
    from tflite_export.serving import version_folder

    looked = iter([1, 1, 2])  # before the work, before the first renaming, before the second
    monkeypatch.setattr(version_folder, "_next", lambda _: next(looked))
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "file").write_text("theirs")
    assert make(tmp_path, "mine").number == 2
    assert (tmp_path / "1" / "file").read_text() == "theirs"


def test_three_processes_at_once(tmp_path):
    count = 15
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITE, tmp_path, str(count), name])
        for name in ("one", "two", "three")
    ]
    assert [p.wait() for p in processes] == [0, 0, 0]
    assert sorted(int(p.name) for p in tmp_path.iterdir()) == list(range(1, 3 * count + 1))
    written = [
        ((path / "a").read_text(), (path / "b" / "c").read_text()) for path in tmp_path.iterdir()
    ]
    assert sorted(written) == sorted([(n, n) for n in ("one", "two", "three")] * count)


def test_an_error_leaves_nothing(tmp_path):
    def half():
        with new_version(tmp_path) as version:
            (version.building / "file").write_text("half")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        half()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_leaves_nothing_that_is_a_version(tmp_path):
    code = WRITE.replace('(version.building / "b").mkdir()', 'print("half", flush=True); input()')
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path, "1", "x"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"half\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".")
    assert left.name.endswith(".part")
    assert make(tmp_path).number == 1


def test_what_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="is a file, not a folder"):
            make(folder)
    (tmp_path / str(2**63 - 1)).mkdir()
    with pytest.raises(ValueError, match="after which there is no number"):
        make(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
