"""The demo, at a length that shows that its parts fit; its figures are the full run's."""

import json

import pytest

from keras_distill import data
from keras_distill.app import demo


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    output = tmp_path_factory.mktemp("demo")
    setting = demo.Setting(seeds=2, labelled=40, teacher_steps=20, student_steps=20)
    return output, demo.run(output, setting)


def test_files_and_summary(shown, capsys):
    output, summary = shown
    names = ["labels.txt", "student.keras", "student.tflite", "summary.json"]
    assert sorted(file.name for file in output.iterdir()) == names
    written = json.loads((output / "summary.json").read_text())
    for part in ("teacher", "alone", "distilled", "exported"):
        assert len(written[part]["accuracies"]) == 2
        assert written[part]["parameters"] > 1000
    assert written["exported"]["size_bytes"] == (output / "student.tflite").stat().st_size
    assert written["alone"]["size_bytes"] == pytest.approx(
        written["distilled"]["size_bytes"], rel=0.05
    )
    demo.show(summary, output)
    printed = capsys.readouterr().out
    assert "Student distilled" in printed
    assert "Why this setting" in printed


def test_both_students_get_the_same_steps_and_the_distilled_one_no_labels(monkeypatch):
    seen = {}

    def look(model, train, title):
        elements = train.element_spec
        seen[title.split(", ")[1]] = (len(train), isinstance(elements, tuple))

    monkeypatch.setattr(demo, "_fit", look)
    demo._train(data.digits(), demo.Setting(teacher_steps=3, student_steps=5), 0)
    assert seen == {
        "teacher": (3, True),
        "student alone": (5, True),
        "student distilled": (5, False),
    }


def test_a_run_of_distill_is_not_written_over(finished):
    output, _ = finished
    before = {file: file.read_bytes() for file in output.iterdir()}
    with pytest.raises(ValueError, match="holds a run of distill, which would be written over"):
        demo.run(output)
    assert {file: file.read_bytes() for file in output.iterdir()} == before
