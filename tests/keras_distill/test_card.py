"""A card travels inside the `.keras` file, and Keras reads the file as before."""

import zipfile

import keras
import numpy as np
import pytest

from keras_distill import card

CARD = card.Card(["Katze", "Hündin"], normalization=(127.5, 127.5), image_size=(96, 128))


@pytest.fixture
def model():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])


def test_a_model_with_a_card_loads_as_before(model, tmp_path):
    path = card.save(model, tmp_path / "model.keras", CARD)
    loaded = keras.models.load_model(path)
    x = np.ones((1, 3), "float32")
    np.testing.assert_array_equal(loaded(x), model(x))
    assert card.read_card(path) == CARD
    assert [file.name for file in tmp_path.iterdir()] == ["model.keras"]


def test_a_card_is_put_in_place_of_another(model, tmp_path):
    path = tmp_path / "model.keras"
    model.save(path)
    assert card.read_card(path) is None
    each = card.Card(normalization=([123.7, 116.3, 103.5], [58.4, 57.1, 57.4]))
    for one in (CARD, each):
        card.write_card(path, one)
    mean, std = card.read_card(path).normalization
    assert (list(mean), list(std)) == each.normalization
    assert zipfile.ZipFile(path).namelist().count(card.ENTRY) == 1
    keras.models.load_model(path)


def test_what_is_no_keras_file_has_no_card(tmp_path):
    (tmp_path / "x.keras").write_text("not a zip")
    assert card.read_card(tmp_path / "x.keras") is None


def test_a_card_that_cannot_be_written_leaves_the_file_alone(model, tmp_path):
    path = card.save(model, tmp_path / "model.keras", CARD)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        card.write_card(path, card.Card([object()]))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.keras"]
