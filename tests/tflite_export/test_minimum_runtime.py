"""Which runtime a file needs: as tried with the releases (benchmarks/operator_releases.py), and what the
file itself says, so that an old runtime refuses what it would answer wrongly. `.ci/old_runtime` tries one."""

import keras
import numpy as np
import pytest
from litert_quantizer import recipe as recipes

import tflite_export as te
from tflite_export import flatbuffer

LAST_OF_ITS_NAME = "tflite-runtime 2.14.0"


@pytest.fixture(scope="module")
def files(net, examples, tmp_path_factory):
    """By recipe, of a network with a depthwise convolution and a dense layer."""
    folder = tmp_path_factory.mktemp("files")
    recipes = (None, "float16", "dynamic_int8", "int8", "int16x8", "int4")
    return {r: te.export(net, folder / f"{r}.tflite", r, examples) for r in recipes}


@pytest.mark.parametrize(
    ("recipe", "release", "on_the_old"),
    [
        (None, "tflite-runtime 2.7.0", True),
        ("float16", "ai-edge-litert 1.4.0", True),  # 1.1 to 1.3 cannot
        ("dynamic_int8", "ai-edge-litert 1.0.1", False),  # one scale for all channels before
        ("int8", "tflite-runtime 2.10.0", True),
        ("int16x8", "tflite-runtime 2.10.0", True),
        ("int4", "ai-edge-litert 1.1.2", False),
    ],
)
def test_the_release_that_a_recipe_needs(files, recipe, release, on_the_old):
    found = te.minimum_runtime(files[recipe])
    assert found.release == release
    assert found.untried == ()
    assert found.runs_on(LAST_OF_ITS_NAME) is on_the_old
    assert found.runs[-1] == found.releases[-1]
    old = release.startswith(("tflite-runtime", "ai-edge-litert 1.0"))
    assert ("numpy<2" in found.requirements) == old
    assert found.requirements[0] == release.replace(" ", ">=")
    assert release in str(found)


@pytest.mark.parametrize("recipe", ["dynamic_int8", "int4"])
def test_the_file_itself_keeps_old_runtimes_from_wrong_answers(files, recipe):
    model = flatbuffer.read(files[recipe].path.read_bytes())
    versions = dict(flatbuffer.versions(model))
    assert versions["FULLY_CONNECTED"] == 12
    assert versions["CONV_2D"] == (8 if recipe == "int4" else 1)
    assert all(flatbuffer.text(m.name) != "min_runtime_version" for m in model.metadata)
    assert "FULLY_CONNECTED" in " ".join(te.minimum_runtime(files["dynamic_int8"]).reasons)


def test_what_was_not_tried_is_judged_by_its_version_and_named(tmp_path):
    inputs = keras.Input((4, 4))
    model = keras.Model(inputs, keras.ops.sort(keras.ops.cumsum(inputs, 1), 1))
    found = te.minimum_runtime(te.export(model, tmp_path / "c.tflite"))
    assert any(one.startswith("CUMSUM float32") for one in found.untried)
    assert "judged by its version and types: CUMSUM" in str(found)


def test_types_of_what_was_not_tried_count(net, examples, tmp_path):
    """Blocks of int4: no release was tried with them, and those that do not know int4 cannot run them."""
    wide = keras.Sequential([keras.Input((64,)), keras.layers.Dense(4)])
    x = np.random.default_rng(0).normal(size=(4, 64)).astype("float32")
    exported = te.export(wide, tmp_path / "b.tflite", recipes.dynamic_wi4b32_afp32(), x)
    found = te.minimum_runtime(exported)
    assert found.untried == ("FULLY_CONNECTED float32×int4→float32, by block",)
    assert found.release == "ai-edge-litert 1.0.1"


def test_a_version_that_no_release_knows(files):
    model = flatbuffer.read(files[None].path.read_bytes())
    for code in model.operatorCodes:
        code.version = 99
    found = te.minimum_runtime(flatbuffer.write(model))
    assert (found.release, found.runs, found.requirements) == (None, (), ())
    assert str(found).startswith("Does not run on ai-edge-litert")
    with pytest.raises(ValueError, match="'tflite-runtime 9' was not tried; these were: tflite"):
        found.runs_on("tflite-runtime 9")


def test_kinds_name_types_channels_and_packed_weights(files):
    kinds = {
        r: set(flatbuffer.kinds(flatbuffer.read(f.path.read_bytes()))) for r, f in files.items()
    }
    assert "CONV_2D int8×int8×int32→int8, by channel" in kinds["int8"]
    assert "CONV_2D float32×float16×float32→float32" in kinds["float16"]
    assert "CONV_2D float32×float32×float32→float32" in kinds[None]
    assert np.any(["int4" in one and "by channel" in one for one in kinds["int4"]])
