"""Outputs that are something else besides: an input, another output, or read further on."""

import keras
import numpy as np
import pytest

import tflite_export as te

RECIPES = [None, "float16", "dynamic_int8", "int8"]


def exported_and_compared(model, path, data, recipe, **arguments):
    exported = te.export(model, path, recipe, data, **arguments)
    result = te.verify(model, exported, data)
    result.raise_if_worse(agreement=0.9, snr_db=30)
    assert {o.dtype for o in exported.outputs} == {"float32"}
    return [o.name for o in exported.outputs], list(result.outputs)


@pytest.fixture
def data(examples):
    return examples[:32]


@pytest.fixture
def image():
    return keras.Input((12, 12, 3), name="image")


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_output_may_be_called_like_an_input(image, data, tmp_path, recipe):
    decoded = keras.layers.Conv2D(3, 3, padding="same")(image)
    mask = keras.layers.Conv2D(2, 1)(decoded)
    model = keras.Model(image, {"image": decoded, "mask": mask})
    path = tmp_path / "m.tflite"
    names, compared = exported_and_compared(model, path, data, recipe)
    assert sorted(names) == sorted(compared) == ["image", "mask"]
    answers = te.load(path).run({"image": data})
    np.testing.assert_allclose(answers["image"], model.predict(data, verbose=0)["image"], atol=0.1)
    assert {o.name for o in te.read_metadata(path).outputs} == {"image", "mask"}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("form", [list, dict])
def test_one_tensor_returned_twice_is_two_outputs(image, data, tmp_path, recipe, form):
    answer = keras.layers.Dense(4, name="d")(keras.layers.Flatten()(image))
    outputs = [answer, answer] if form is list else {"a": answer, "b": answer}
    names, compared = exported_and_compared(
        keras.Model(image, outputs), tmp_path / "m.tflite", data, recipe
    )
    assert names == compared == (["d", "d_1"] if form is list else ["a", "b"])


@pytest.mark.parametrize("batch", [1, None])
@pytest.mark.parametrize("recipe", RECIPES)
def test_an_input_may_be_an_output(image, data, tmp_path, recipe, batch):
    answer = keras.layers.Dense(4, name="d")(keras.layers.Flatten()(image))
    model = keras.Model(image, [answer, image])
    for _ in range(2):
        names, compared = exported_and_compared(
            model, tmp_path / "m.tflite", data, recipe, batch_size=batch
        )
        assert names == compared == ["d", "image"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_output_may_be_read_further_on(image, data, tmp_path, recipe):
    first = keras.layers.Conv2D(4, 3, activation="relu", name="first")(image)
    second = keras.layers.Conv2D(4, 3, activation="relu", name="second")(first)
    last = keras.layers.Dense(4, name="last")(keras.layers.Flatten()(second))
    names, _ = exported_and_compared(
        keras.Model(image, [first, second, last]), tmp_path / "m.tflite", data, recipe
    )
    assert names == ["first", "second", "last"]
