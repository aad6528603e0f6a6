"""Keras's own tests of keras.distillation.Distiller, run on ours with nothing but the import changed."""

import importlib.util
import inspect
import sys
import warnings
from pathlib import Path

import keras
import pytest


def _kerass_tests(folder: Path):
    distillation = Path(inspect.getfile(keras.distillation.Distiller)).parent
    source = distillation / "distiller_test.py"
    if not source.exists():
        pytest.skip("this Keras comes without its tests")
    line = "from keras.src.distillation.distiller import Distiller"
    text = source.read_text()
    assert line in text
    path = folder / "kerass_distiller_test.py"
    path.write_text(text.replace(line, "from keras_distill import Distiller"))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    with warnings.catch_warnings():  # pytest does not know the mark of Keras's own configuration
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")
def test_kerass_tests_pass_on_ours(tmp_path):
    import unittest

    import keras_distill

    module = _kerass_tests(tmp_path)
    assert module.Distiller is keras_distill.Distiller
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(module.TestDistiller)
    result = unittest.TestResult()
    suite.run(result)
    problems = "\n".join(text for _, text in [*result.errors, *result.failures])
    assert not problems, problems
    assert result.testsRun >= 11


def test_constructor_takes_everything_that_kerass_takes():
    from keras_distill import Distiller

    theirs = inspect.signature(keras.distillation.Distiller.__init__).parameters
    ours = inspect.signature(Distiller.__init__).parameters
    for name, parameter in theirs.items():
        assert name in ours
        assert ours[name].default == parameter.default, name
