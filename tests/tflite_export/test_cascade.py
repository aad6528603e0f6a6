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
