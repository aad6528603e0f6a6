"""The device answers what it is sure of; figures are those of a direct count."""

import keras
import numpy as np
import pytest

import tflite_export as te

COUNT, CLASSES = 400, 4


@pytest.fixture(scope="module")
def answered():
    """(student's probabilities, teacher's, labels): one is right where it is sure, the other mostly."""
    rng = np.random.default_rng(5)
    truth = rng.integers(0, CLASSES, COUNT)
    sure = rng.uniform(0.3, 1.0, COUNT)
    right = rng.uniform(size=COUNT) < sure
    said = np.where(right, truth, (truth + 1) % CLASSES)
    student = np.full((COUNT, CLASSES), 1.0) * ((1 - sure) / (CLASSES - 1))[:, None]
    student[np.arange(COUNT), said] = sure
    teacher = np.eye(CLASSES)[
        np.where(rng.uniform(size=COUNT) < 0.95, truth, (truth + 2) % CLASSES)
    ]
    return student.astype("float32"), teacher.astype("float32"), truth


@pytest.fixture(scope="module")
def device():
    """A network that answers what it is given."""
    image = keras.Input((CLASSES,), name="answer")
    return keras.Model(image, keras.layers.Activation("linear", name="scores")(image))


def _counted(student, teacher, truth, threshold):
    alone = student.max(-1) >= threshold
    said = np.where(alone, student.argmax(-1), teacher.argmax(-1))
    return alone.mean(), np.mean(said == truth)


@pytest.mark.parametrize(
    "wish", [{"accuracy": 0.9}, {"accuracy": 0.94}, {"coverage": 0.5}, {"coverage": 1.0}]
)
def test_the_figures_are_those_of_a_count(wish, answered, device):
    student, teacher, truth = answered
    plan = te.cascade(device, teacher, (student, truth), **wish)
    for point in (plan.chosen, *plan.curve[::50]):
        assert (point.coverage, point.accuracy) == pytest.approx(
            _counted(student, teacher, truth, point.threshold)
        )
    if "accuracy" in wish:
        assert plan.chosen.accuracy >= wish["accuracy"]
        assert not [
            p
            for p in plan.curve
            if p.coverage > plan.chosen.coverage and p.accuracy >= wish["accuracy"]
        ]
    else:
        assert wish["coverage"] <= plan.chosen.coverage < wish["coverage"] + 0.01
    assert [p.coverage for p in plan.curve] == sorted(
        (p.coverage for p in plan.curve), reverse=True
    )
    assert (plan.curve[0].coverage, plan.curve[-1].coverage) == (1, 0)
    assert plan.curve[-1].accuracy == np.mean(teacher.argmax(-1) == truth)


def test_latency_and_bytes(answered, device):
    student, teacher, truth = answered
    plan = te.cascade(
        device, teacher, (student, truth), coverage=0.75, device_ms=2.0, server_ms=100.0
    )
    assert plan.chosen.latency_ms == pytest.approx(2 + 100 * (1 - plan.chosen.coverage))
    assert plan.chosen.bytes_sent == pytest.approx((1 - plan.chosen.coverage) * 4 * CLASSES)
    assert "chosen" in str(plan)


def test_logits_of_both_and_data_without_labels(answered, device):
    student, teacher, _ = answered
    logits = np.log(student) + 3.0
    plan = te.cascade(device, teacher, logits, accuracy=0.9)
    assert plan.compared_with == "the server"
    assert plan.chosen.accuracy == pytest.approx(
        _counted(student, teacher, teacher.argmax(-1), plan.threshold * (1 - 1e-6))[1]
    )


def test_a_unit_for_yes(rng):
    yes = rng.uniform(size=(50, 1)).astype("float32")
    image = keras.Input((1,))
    model = keras.Model(image, keras.layers.Identity()(image))
    plan = te.cascade(
        model, np.concatenate([1 - yes, yes], -1), (yes, yes[:, 0] > 0.5), coverage=0.5
    )
    assert plan.chosen.accuracy == 1
    assert plan.threshold == pytest.approx(np.sort(np.maximum(yes, 1 - yes)[:, 0])[25], abs=1e-6)


def test_the_threshold_goes_into_the_file(net, photos, examples, tmp_path):
    softmax = keras.Model(net.input, keras.layers.Softmax(name="scores")(net.output))
    exported = te.export(
        softmax,
        tmp_path / "s.tflite",
        "int8",
        examples,
        labels=["red", "green", "blue"],
        normalization=(127.5, 127.5),
    )
    before = te.load(exported.path).run(examples)
    plan = te.cascade(exported, net, (examples, photos[1]), coverage=0.6)
    assert plan.write(exported) == exported.path
    assert te.read_metadata(exported.path).outputs[0].score_threshold == pytest.approx(
        plan.threshold
    )
    assert te.read_metadata(exported.path).labels == ("red", "green", "blue")
    np.testing.assert_array_equal(te.load(exported.path).run(examples), before)
    logits = te.export(
        net, tmp_path / "l.tflite", labels=["red", "green", "blue"], normalization=(127.5, 127.5)
    )
    with pytest.raises(ValueError, match="end the student in a softmax"):
        plan.write(logits)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({}, "either accuracy= or coverage="),
        ({"accuracy": 0.9, "coverage": 0.5}, "either accuracy= or coverage="),
        ({"accuracy": 97}, "from 0 to 1"),
        ({"accuracy": 0.9999}, "No threshold reaches"),
    ],
)
def test_what_cannot_be_done_is_said(how, sentence, answered, device):
    student, teacher, truth = answered
    with pytest.raises(ValueError, match=sentence):
        te.cascade(device, teacher, (student, truth), **how)


def test_answers_that_do_not_fit(answered, device):
    student, teacher, truth = answered
    with pytest.raises(ValueError, match="the same classes"):
        te.cascade(device, teacher[:, :3], (student, truth), coverage=0.5)
    with pytest.raises(ValueError, match="no examples"):
        te.cascade(device, teacher[:0], student[:0], coverage=0.5)


def _file(path, units, activation, other=None):
    """A file of labelled scores; their logits are the input, ten times."""
    given = keras.Input((max(units, 1),), name="answer")
    scores = keras.layers.Dense(units, activation=activation, name="scores")
    model = keras.Model(given, scores(given))
    scores.set_weights([10 * np.eye(units, dtype="float32"), np.zeros(units, "float32")])
    return te.export(model, path, labels=[f"c{i}" for i in range(units)])


def test_sigmoids_of_several_units_are_compared_as_the_file_gives_them(answered, tmp_path):
    student, teacher, truth = answered
    logits = np.log(student) + 1
    exported = _file(tmp_path / "m.tflite", CLASSES, "sigmoid")
    plan = te.cascade(exported, teacher, (logits, truth), coverage=0.5)
    answers = te.load(exported).run(logits).max(-1)
    assert np.mean(answers >= plan.threshold) == pytest.approx(plan.chosen.coverage)
    plan.write(exported)


def test_one_unit_of_no_and_yes_gets_no_threshold_in_its_file(answered, tmp_path):
    truth = answered[2]
    exported = _file(tmp_path / "o.tflite", 1, "sigmoid")
    x = np.random.default_rng(0).normal(size=(COUNT, 1)).astype("float32")
    plan = te.cascade(exported, np.eye(2)[truth % 2], (x, truth % 2), coverage=0.5)
    with pytest.raises(ValueError, match=r"'scores' is one unit, .* two units and a softmax"):
        plan.write(exported)


def test_the_threshold_is_for_the_labelled_output(tmp_path, answered, device):
    given = keras.Input((CLASSES,), name="answer")
    scores = keras.layers.Dense(3, name="scores")(given)
    other = keras.layers.Dense(5, activation="softmax", name="other")(given)
    exported = te.export(
        keras.Model(given, [scores, other]), tmp_path / "two.tflite", labels=list("abc")
    )
    student, teacher, truth = answered
    plan = te.cascade(device, teacher, (student, truth), coverage=0.5)
    with pytest.raises(ValueError, match="'scores' ends in FULLY_CONNECTED"):
        plan.write(exported)


def test_several_inputs_as_a_list(answered):
    student, teacher, truth = answered
    inputs = [keras.Input((CLASSES,), name=name) for name in "ab"]
    model = keras.Model(inputs, keras.layers.Add()(inputs))
    plan = te.cascade(model, teacher, ([student, student * 0], truth), coverage=0.5)
    assert plan.chosen.bytes_sent == pytest.approx((1 - plan.chosen.coverage) * 2 * CLASSES * 4)


ODD = {
    "NaN": (lambda s, t, y: (t, (s / (np.arange(len(s))[:, None] != 3) * 0 + s, y)), "hold NaN in example 3"),
    "teacher's NaN": (lambda s, t, y: (t * np.nan, (s, y)), "teacher does not answer with finite"),
    "teacher of more": (lambda s, t, y: (np.concatenate([t, t]), (s, y)), r"the teacher \(800, 4\)"),
    "labels from 1": (lambda s, t, y: (t, (s, y + 1)), r"the classes 0\.\.3, .* from 1 to 4"),
    "several labels": (lambda s, t, y: (t, (s, np.ones_like(s))), "An example has several labels"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_what_makes_no_plan_is_refused(name, answered, device):
    change, sentence = ODD[name]
    teacher, data = change(*answered)
    with pytest.raises(ValueError, match=sentence):
        te.cascade(device, teacher, data, coverage=0.5)
    with pytest.raises(ValueError, match="device_ms=-1: give a number of 0 or more"):
        te.cascade(device, teacher, data, coverage=0.5, device_ms=-1)
