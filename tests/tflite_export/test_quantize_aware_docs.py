"""The table of networks is true, as far as there is time to try; and each layer is computed as trained."""

import importlib.util
from pathlib import Path

import keras
import numpy as np
import pytest

import tflite_export as te
from tflite_export.layer_errors import layer_errors

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("build", DOCS / "build_quantize_aware.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["MobileNetV2", "resnet8", "ViT"])
def test_a_row_of_the_table(build, name):
    cells = [cell.strip() for cell in build.rows(build.PAGE.read_text())[name].split("|")[2:]]
    layers, roundings, kinds, floats, within, largest = build.measured(name)
    assert cells[:4] == [layers, roundings, kinds, floats]
    assert float(within.removesuffix(" %")) >= 98
    assert float(cells[4].removesuffix(" %")) >= 98
    assert int(largest) <= 3


def test_the_page_has_all_networks(build):
    assert list(build.rows(build.PAGE.read_text())) == list(build.NETWORKS)


def test_a_layer_that_the_file_computes_otherwise_is_found(net, examples, tmp_path):
    aware = te.quantize_aware(net, examples)
    exported = te.export(aware, tmp_path / "a.tflite")
    assert all(e.within_two_steps >= 0.99 for e in layer_errors(aware, exported, examples[:2]))
    convolution, relu = (
        next(one for one in aware.layers if isinstance(one, kind))
        for kind in (keras.layers.Conv2D, keras.layers.ReLU)
    )
    convolution.kernel.assign(convolution.kernel * 1.5)
    errors = {e.layer: e for e in layer_errors(aware, exported, examples[:2])}
    changed = errors.pop(f"{relu.name} output")
    assert changed.within_two_steps < 0.9
    # What comes behind goes on from the file's values.
    assert min(e.within_two_steps for e in errors.values()) >= 0.99


def test_a_file_of_another_model_is_refused(net, examples, tmp_path):
    exported = te.export(net, tmp_path / "f.tflite")
    with pytest.raises(ValueError, match="exported from this model"):
        layer_errors(te.quantize_aware(net, np.asarray(examples)), exported, examples[:1])
