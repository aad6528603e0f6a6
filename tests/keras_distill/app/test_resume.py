"""Interrupted at any moment and called again, `distill` ends as if nothing had happened."""

import itertools
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from keras_distill.app import classifier, cli, distill, progress, results, resume

SETTING = {"epochs": 3, "batch_size": 8, "teacher_epochs": 4, "teacher_image_size": 24}


class Killed(BaseException):
    """Stands for the end of the process: nothing in the program catches it."""


@pytest.fixture(scope="module")
def student_file(tmp_path_factory):
    """A small network with every kind of state: BatchNormalization's averages, Dropout's seeds."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, use_bias=False)(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.Dropout(0.3)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))
    path = tmp_path_factory.mktemp("student") / "small.keras"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def job(photos, teacher_file, student_file):
    """`distill.run` into a folder, as a fresh process would do it."""

    def run(output, **other):
        keras.utils.clear_session()  # layers are named anew, and names are in the .tflite file
        keras.utils.set_random_seed(int(time.time()))
        usual = {"photos": photos, "teacher": teacher_file, "student": student_file, **SETTING}
        return distill.run(output=output, **{**usual, **other})

    return run


@pytest.fixture(scope="module")
def uninterrupted(job, tmp_path_factory):
    output = tmp_path_factory.mktemp("uninterrupted") / "out"
    job(output)
    return output


def assert_same_results(output, expected):
    """All that a run leaves is the same, but for dates and times."""
    assert sorted(os.listdir(output)) == sorted(os.listdir(expected))
    for name in ("student.tflite", "history.csv", "labels.txt"):
        assert (output / name).read_bytes() == (expected / name).read_bytes(), name
    for name in ("student.keras", "teacher.keras"):  # there is a date in these files
        ours, theirs = (keras.models.load_model(f / name) for f in (output, expected))
        for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
    summaries = [json.loads((f / "summary.json").read_text()) for f in (output, expected)]
    for summary in summaries:
        del summary["seconds"], summary["exported"]["latency_ms"], summary["arguments"]["output"]
    assert summaries[0] == summaries[1]


def kill_at_step(monkeypatch, number):
    step, count = progress.Progress.step, 0

    def counted(self):
        nonlocal count
        count += 1
        if count == number:
            raise Killed
        step(self)

    monkeypatch.setattr(progress.Progress, "step", counted)


def kill_in(where, name):
    def patch(monkeypatch):
        def killed(*_, **__):
            raise Killed

        monkeypatch.setattr(where, name, killed)

    return patch


def kill_after_the_summary(monkeypatch):
    write = results.write_summary

    def written(*arguments):
        write(*arguments)
        raise Killed

    monkeypatch.setattr(results, "write_summary", written)


def test_killed_in_every_phase_it_ends_the_same(job, uninterrupted, tmp_path, monkeypatch, capsys):
    output = tmp_path / "out"
    # 20 photos in batches of 8: 3 steps an epoch; head 1 epoch, whole network 3, student 3.
    moments = [
        (lambda patch: kill_at_step(patch, 3 + 3 + 2), "Teacher, head 1/1", "Teacher, whole 2/3"),
        (lambda patch: kill_at_step(patch, 6 + 3 + 2), "Teacher, whole 2/3", "Student 2/3"),
        (kill_in(classifier.te, "export"), "Student 2/3", None),
        (kill_after_the_summary, "Exporting", "Student"),
    ]
    for kill, said, not_said in moments:
        with monkeypatch.context() as patch:
            kill(patch)
            with pytest.raises(Killed):
                job(output)
        assert (output / "unfinished" / "arguments.json").exists()
        told = capsys.readouterr().err
        assert said in told
        assert not_said is None or not_said not in told
        with pytest.raises(ValueError, match=r"temperature was 4\.0, is now 2\.0"):
            job(output, temperature=2.0)
    job(output)  # was killed after the last file: there is nothing left but to clean up
    assert "nothing is left to do" in capsys.readouterr().err
    assert_same_results(output, uninterrupted)


def command_line(photos, teacher, student, output, *more):
    """The arguments of `keras-distill` that are those of `job`."""
    options = {"teacher": teacher, "student": student, "output": output, **SETTING}
    pairs = [(f"--{name.replace('_', '-')}", str(value)) for name, value in options.items()]
    return ["distill", str(photos), *itertools.chain(*pairs), *more]


def start_until(command, file):
    """Start a command, and wait until it has written `file`."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what it runs in the background deaf to Ctrl-C, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not file.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return process


def test_ctrl_c_then_sigkill_then_the_same_command_again(
    uninterrupted, photos, teacher_file, student_file, tmp_path
):
    output = tmp_path / "out"
    arguments = command_line(photos, teacher_file, student_file, output, "--json")
    command = [sys.executable, "-c", "from keras_distill.app import cli; cli.main()", *arguments]

    process = start_until(command, output / "unfinished" / "teacher_head.npz")
    process.send_signal(signal.SIGINT)
    told, said = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in said
    sentence = "Stopped by Ctrl-C; the epochs that were finished are kept. To go on: keras-distill "
    assert said.endswith(f"keras-distill: {sentence}{shlex.join(arguments)}\n")
    assert json.loads(told)["error"].startswith(sentence)

    process = start_until(command, output / "unfinished" / "student.npz")
    process.kill()
    _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert "holds an unfinished run with these arguments: going on" in said
    assert "Teacher, head 1/1" not in said
    assert not (output / "summary.json").exists()
    (output / ".student.tflite.abc.part").touch()  # what a kill amid a write leaves
    (output / ".student.123.keras").touch()
    (output / "unfinished" / ".student.npz.abc.part").touch()

    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Student 1/3" not in done.stderr
    assert_same_results(output, uninterrupted)
    assert json.loads(done.stdout) == json.loads((output / "summary.json").read_text())


def test_a_finished_run_is_shown_again_without_training(
    job, uninterrupted, photos, teacher_file, student_file, monkeypatch, capsys
):
    before = {file: file.read_bytes() for file in uninterrupted.iterdir()}
    kill_at_step(monkeypatch, 1)
    summary = job(uninterrupted)
    assert summary == json.loads((uninterrupted / "summary.json").read_text())
    with pytest.raises(SystemExit) as end:
        cli.main(command_line(photos, teacher_file, student_file, uninterrupted))
    assert end.value.code == 0
    assert "On 4 validation photos, after the last epoch" in capsys.readouterr().out
    assert {file: file.read_bytes() for file in uninterrupted.iterdir()} == before


def test_other_arguments_are_refused_with_the_difference(
    job, uninterrupted, student_file, tmp_path
):
    before = {file: file.read_bytes() for file in uninterrupted.iterdir()}
    for other, sentence in (
        ({"epochs": 40}, "holds a run with other arguments: epochs was 3, is now 40: give another"),
        (
            {"width": 0.5, "seed": 1},
            r"width was not given, is now 0\.5; seed was 0, is now 1: give",
        ),
        ({"quantization": None}, "quantization was int8, is now not given"),
        ({"student": "resnet8"}, r"student was small.keras \(\w{8}…\), is now resnet8"),
    ):
        with pytest.raises(ValueError, match=sentence):
            job(uninterrupted, **other)
    again = tmp_path / "small.keras"
    again.write_bytes(student_file.read_bytes() + b" ")
    with pytest.raises(ValueError, match=r"student was small.keras \(.*, is now small.keras \("):
        job(uninterrupted, student=again)
    assert {file: file.read_bytes() for file in uninterrupted.iterdir()} == before


def test_other_photos_are_refused_and_the_same_photos_elsewhere_are_not(
    job, uninterrupted, photos, tmp_path
):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(photos, elsewhere)
    assert job(uninterrupted, photos=elsewhere)["photos"] == {"train": 20, "validation": 4}
    (elsewhere / "top" / "00.png").unlink()
    with pytest.raises(
        ValueError, match=r"photos was 24 photos of .* bytes .*, is now 23 photos of"
    ):
        job(uninterrupted, photos=elsewhere)


def test_results_of_another_program_are_not_written_over(job, tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps({"arguments": {"seeds": 3}}))
    with pytest.raises(ValueError, match=r"summary.json is of a run that does not say what it was"):
        job(tmp_path)
    assert os.listdir(tmp_path) == ["summary.json"]


@pytest.mark.parametrize("name", [*resume.MODELS, "labels.txt", "history.csv"])
def test_files_that_no_run_recorded_are_not_written_over(name, job, tmp_path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=rf"holds {name}, and no record of a run that wrote them"):
        job(tmp_path)
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("name", [*resume.MODELS, *resume.TEXTS])
def test_a_teacher_is_not_written_over(name, job, teacher_file, tmp_path):
    shutil.copy(teacher_file, tmp_path / name)
    with pytest.raises(ValueError, match="would be written over by this run: choose another"):
        job(tmp_path, teacher=tmp_path / name)
    assert (tmp_path / name).read_bytes() == teacher_file.read_bytes()


def test_a_run_that_began_and_died_since_is_not_gone_on_with(tmp_path):
    first, second = (resume.Record(tmp_path / "out", {"epochs": n}, {}) for n in (1, 2))
    assert first.finished() is second.finished() is None
    with first.started():
        pass
    with (
        pytest.raises(
            ValueError, match=r"epochs was 1, is now 2: .*, or remove .*out to begin anew"
        ),
        second.started(),
    ):
        pass
    with first.started():
        first.finish({})
    with pytest.raises(ValueError, match="epochs was 1, is now 2"), second.started():
        pass


def test_states_without_a_record_are_not_gone_on_with(tmp_path):
    record = resume.Record(tmp_path / "out", {"epochs": 1}, {})
    with record.started() as states:
        (states / "student.npz").touch()
    (states / "arguments.json").unlink()  # the next run cannot tell what the state is of
    with pytest.raises(ValueError, match=r"holds unfinished/student.npz, and no record of a run"):
        record.finished()
    assert (states / "student.npz").exists()


def test_a_folder_that_is_called_as_the_student_does_not_stand_for_it(
    photos, finished, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    output, summary = finished
    (tmp_path / "resnet8").mkdir()
    given = {**summary["arguments"], "photos": photos}
    assert distill.run(**given) == json.loads((output / "summary.json").read_text())


def test_two_runs_do_not_share_a_folder(tmp_path):
    first, second = (resume.Record(tmp_path / "out", {}, {}) for _ in range(2))
    with first.started(), pytest.raises(ValueError, match="Another run is writing into"):
        second.started().__enter__()
    with second.started():
        pass


def test_a_run_whose_files_are_gone_is_not_finished(tmp_path):
    record = resume.Record(tmp_path, {}, {})
    names = (*resume.MODELS[:2], "labels.txt", "history.csv")
    with record.started():
        summary = record.finish({})
        for name in names:
            (tmp_path / name).touch()
    assert record.finished() == summary
    for name in names:
        (tmp_path / name).rename(tmp_path / "elsewhere")
        assert record.finished() is None, name
        (tmp_path / "elsewhere").rename(tmp_path / name)


def test_photos_are_known_by_their_names_and_sizes(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"123")
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    first = resume.of_photos(tmp_path, files)
    assert resume.of_photos(tmp_path, files[::-1]) == first
    files[0].write_bytes(b"1234")
    assert resume.of_photos(tmp_path, files)["sha256"] != first["sha256"]
    files[1].write_bytes(b"12")  # as many bytes in all
    assert resume.of_photos(tmp_path, files)["sha256"] != first["sha256"]


def test_a_photo_in_another_class_is_another_photo(tmp_path):
    def known_in(*classes):
        root = tmp_path / "-".join(classes)
        for number, name in enumerate(classes):
            (root / name).mkdir(parents=True, exist_ok=True)
            (root / name / f"{number}.png").write_bytes(b"123")
        return resume.of_photos(root, list(root.glob("*/*")))

    assert known_in("cat", "dog", "cat") != known_in("cat", "dog", "dog")


def test_strict_and_the_place_do_not_make_another_run():
    def run(**arguments):
        return {"arguments": arguments, "sources": {}}

    then = run(strict=False, output="a", epochs=1, width=None)
    assert resume.differences(then, run(strict=True, output="b", epochs=1)) == []
    assert resume.differences(then, run(strict=True, output="b")) == [
        "epochs was 1, is now not given"
    ]


def test_going_on_with_other_versions_is_said(tmp_path, capsys):
    record = resume.Record(tmp_path / "out", {}, {})
    with record.started() as states:
        begun = states / "arguments.json"
    begun.write_text(begun.read_text().replace(keras.__version__, "3.0.0"))
    with record.started():
        pass
    assert f"keras 3.0.0, now {keras.__version__}" in capsys.readouterr().err


def test_a_folder_is_known_by_all_that_is_in_it(tmp_path):
    (tmp_path / "model" / "variables").mkdir(parents=True)
    inside = tmp_path / "model" / "variables" / "data"
    inside.write_text("one")
    first = resume.of(tmp_path / "model")
    assert first == resume.of(shutil.copytree(tmp_path / "model", tmp_path / "copy" / "model"))
    inside.write_text("two")
    assert resume.of(tmp_path / "model") != first
    assert resume.of("MobileNetV2") is None
