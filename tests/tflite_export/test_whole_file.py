"""Files appear whole or not at all; native chatter is hushed and comes back afterwards."""

import os

import pytest

from tflite_export.chatter import hushed
from tflite_export.whole_file import write_whole


def test_the_earlier_file_stays_when_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / "a.tflite"
    write_whole(path, b"earlier")

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"later")
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_folders_are_made_and_rights_are_the_usual_ones(tmp_path):
    path = write_whole(tmp_path / "new" / "a.tflite", b"x")
    (tmp_path / "plain").write_bytes(b"x")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    with pytest.raises(ValueError, match="is a folder"):
        write_whole(tmp_path / "new", b"x")


def test_a_device_or_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is no ordinary file"):
        write_whole(tmp_path / "pipe", b"x")
    assert (tmp_path / "pipe").is_fifo()


def test_hushed_covers_native_writes_and_ends_with_the_block(capfd):
    with hushed():
        os.write(2, b"from C++")
    os.write(2, b"after")
    with pytest.raises(OSError, match="none"), hushed():
        raise OSError(f"none {os.write(2, b'again')}")
    os.write(2, b".")
    assert capfd.readouterr().err == "after."
