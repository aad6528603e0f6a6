"""A teacher is looked at before it teaches: its troubles are found, and none is invented."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_distill as kd
from keras_distill.teacher_check.simple_features import simple_features

NAMES = ["cat", "dog", "eel", "fox"]


@pytest.fixture(scope="module")
def examples():
    """A picture of each class has its own bright quarter; (x, y), 400 of them."""
    rng = np.random.default_rng(5)
    y = rng.integers(0, 4, 400)
    x = rng.normal(size=(400, 8, 8, 1)).astype("float32")
    for place, one in zip(y, x, strict=True):
        row, column = divmod(int(place), 2)
        one[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 2
    return x, y


def answering(table, activation="linear"):
    """A teacher that answers `table[number]` to the example whose first pixel is `number`."""
    table = np.asarray(table, "float32")
    number = keras.Input((8, 8, 1))
    weights = keras.layers.Embedding(*table.shape, weights=[table])
    logits = weights(keras.ops.cast(number[:, 0, 0, 0], "int32"))
    return keras.Model(number, keras.layers.Activation(activation)(logits))


def numbered(examples):
    x, y = examples
    x = x.copy()
    x[:, 0, 0, 0] = np.arange(len(x))
    return x, y


def logits_of(y, answers, sure=3.0):
    """Logits of a teacher that gives these answers."""
    return sure * np.eye(4)[answers] + np.random.default_rng(1).normal(size=(len(y), 4)) * 0.3


def test_the_figures_are_those_of_a_count(examples):
    x, y = numbered(examples)
    rng = np.random.default_rng(2)
    answers = np.where(rng.uniform(size=400) < 0.05, (y + 1) % 4, y)
    table = logits_of(y, answers)
    check = kd.check_teacher(answering(table), (x, y), class_names=NAMES, baseline=False)
    assert check.examples == 400
    assert check.accuracy == pytest.approx(np.mean(answers == y))
    assert check.majority == pytest.approx(np.bincount(y).max() / 400)
    for i, name in enumerate(NAMES):
        share, count = check.per_class[name]
        assert count == np.sum(y == i)
        assert share == pytest.approx(np.mean(answers[y == i] == i))
    p = np.exp(table) / np.exp(table).sum(-1, keepdims=True)
    assert check.confidence == pytest.approx(p.max(-1).mean(), abs=1e-5)
    assert not check.reordered
    assert check.raise_if_wrong() is check
    assert "right" in str(check)


def test_a_good_teacher_gets_no_warning(examples):
    x, y = numbered(examples)
    teacher = answering(logits_of(y, y, sure=5.0))
    before = teacher.trainable
    check = kd.check_teacher(teacher, tf.data.Dataset.from_tensor_slices((x, y)).batch(50))
    assert check.warnings == ()
    assert teacher.trainable == before


def test_classes_in_another_order_are_refused(examples):
    x, y = numbered(examples)
    swapped = np.array([0, 2, 1, 3])[y]
    check = kd.check_teacher(answering(logits_of(y, swapped)), (x, y), class_names=NAMES)
    assert check.reordered == {"dog": "eel", "eel": "dog"}
    with pytest.raises(
        ValueError, match="'dog' as 'eel', 'eel' as 'dog': its classes are in another"
    ):
        check.raise_if_wrong()


def found(check, words):
    return [sentence for sentence in check.warnings if words in sentence]


def test_a_weak_teacher_is_told_beside_what_a_small_model_reaches(examples):
    x, y = numbered(examples)
    rng = np.random.default_rng(2)
    weak = np.where(rng.uniform(size=400) < 0.4, rng.integers(0, 4, 400), y)
    check = kd.check_teacher(answering(logits_of(y, weak, 1.0)), (x, y), train=(x, y))
    assert check.baseline > 0.95
    (sentence,) = found(check, "a weak teacher makes a weak student")
    assert f"{check.accuracy:.1%}" in sentence
    assert f"{check.baseline:.1%}" in sentence
    chance = kd.check_teacher(answering(rng.normal(size=(400, 4))), (x, y))
    assert found(chance, "it has nothing to teach")


def test_a_weak_class_is_named(examples):
    x, y = numbered(examples)
    answers = np.where((y == 2) & (np.arange(400) % 4 > 0), 3, y)
    check = kd.check_teacher(answering(logits_of(y, answers, 4.0)), (x, y), class_names=NAMES)
    (sentence,) = found(check, "In class 'eel'")
    assert "example_weighting='true_label'" in sentence
    assert not found(check, "In class 'cat'")


def test_certain_answers_want_a_temperature_and_memory_is_told(examples):
    x, y = numbered(examples)
    table = logits_of(y, y, sure=40.0)
    table[200:] = logits_of(y, (y + 1) % 4, sure=40.0)[200:] * (np.arange(200) % 3 == 0)[:, None]
    teacher = answering(table)
    check = kd.check_teacher(teacher, (x[200:], y[200:]), train=(x[:200], y[:200]))
    assert check.train_accuracy == 1.0
    assert found(check, "of its training data")
    assert found(check, f"temperature={check.temperature:g} shows more")
    assert check.temperature > 5
    softened = np.exp(table[:200] / check.temperature)
    softened /= softened.sum(-1, keepdims=True)
    share = -(softened * np.log(softened)).sum(-1).mean() / np.log(4)
    assert share >= 0.3 or check.temperature == 20


def test_one_unit_and_several_labels(rng):
    x = rng.normal(size=(300, 8, 8, 1)).astype("float32")
    x[:, 0, 0, 0] = np.arange(300)
    y = rng.integers(0, 2, 300)
    yes = np.where(y, 2.0, -2.0)[:, None]
    for labels in (y, y[:, None]):
        check = kd.check_teacher(answering(yes, "sigmoid"), (x, labels), class_names=["no", "yes"])
        assert check.accuracy == 1.0
        assert set(check.per_class) == {"no", "yes"}
    several = rng.integers(0, 2, (300, 3))
    wrong = np.where(np.arange(3) == 1, 1 - several, several)
    check = kd.check_teacher(
        answering(np.where(wrong, 3.0, -3.0), "sigmoid"), (x, several), class_names=["a", "b", "c"]
    )
    assert check.accuracy == pytest.approx(2 / 3)
    assert check.per_class["b"][0] == 0
    assert found(check, "In class 'b'")


ODD = {
    "no labels": (lambda x, y: (x, None), {}, "needs labels"),
    "other labels": (lambda x, y: (x, y + 1), {}, r"classes 0\.\.3, and the labels go from 1 to 4"),
    "strings": (lambda x, y: (x, y.astype(str)), {}, "the labels have shape"),
    "other number": (lambda x, y: (x, y[:9]), {}, "400 examples have 9 labels"),
    "none": (lambda x, y: [], {}, "was given no examples"),
    "names": (lambda x, y: (x, y), {"class_names": ["a"]}, "1 names, and the teacher answers 4"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_cannot_be_looked_at_is_said(name, examples):
    change, arguments, sentence = ODD[name]
    x, y = numbered(examples)
    with pytest.raises(ValueError, match=sentence):
        kd.check_teacher(answering(logits_of(y, y)), change(x, y), **arguments)


def test_answers_that_are_not_finite_are_refused(examples):
    x, y = numbered(examples)
    table = logits_of(y, y)
    table[70] = np.nan
    with pytest.raises(ValueError, match=r"examples 64\.\.127 is not finite"):
        kd.check_teacher(answering(table), (x, y))


def test_simple_features_of_all_kinds(rng):
    pictures = rng.normal(size=(5, 33, 20, 3)).astype("float32")
    rows = simple_features(pictures)
    assert rows.shape == (5, 8 * 8 * 3)
    assert rows.mean() == pytest.approx(pictures.mean(), abs=0.02)
    tokens = simple_features(np.array([[1, 1, 7], [300, 2, 2]]))
    assert tokens.shape == (2, 256)
    assert tokens[0, 1] == 2
    assert tokens[1, 300 % 256] == 1
    assert simple_features({"a": np.ones((4, 3)), "b": np.ones((4, 5000))}).shape == (4, 1027)
    words = np.array([["good"], ["bad"]])
    np.testing.assert_array_equal(simple_features(words), simple_features(words.astype(object)))
