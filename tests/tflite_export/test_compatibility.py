"""What delegates are documented to take, counted by hand on files of a few operators."""

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import tflite_export as te
from tflite_export import flatbuffer
from tflite_export.damage import OPERATOR_NAMES
from tflite_export.delegate_tables import TABLES

FLOAT, INT8 = schema.TensorType.FLOAT32, schema.TensorType.INT8
INT16, HALF = schema.TensorType.INT16, schema.TensorType.FLOAT16


def chain(*operators, kind=FLOAT, shape=(1, 4)):
    """A file of operators with one operand each, one after the other."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs, model.buffers = 3, [graph], [schema.BufferT()]
    model.operatorCodes, graph.operators, graph.tensors = [], [], []
    for place in range(len(operators) + 1):
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.buffer = f"t{place}", kind, 0
        tensor.shape = np.array([d or 1 for d in shape], "int32")
        tensor.shapeSignature = np.array([-1 if d is None else d for d in shape], "int32")
        graph.tensors.append(tensor)
    for place, name in enumerate(operators):
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.customCode = "Mine" if name == "CUSTOM" else None
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        model.operatorCodes.append(code)
        operator.opcodeIndex, operator.inputs, operator.outputs = place, [place], [place + 1]
        graph.operators.append(operator)
    graph.inputs, graph.outputs = [0], [len(operators)]
    return flatbuffer.write(model)


@pytest.mark.parametrize("key", TABLES)
def test_the_tables_name_operators_of_the_schema_and_their_source(key):
    table = TABLES[key]
    assert table.documented | table.in_source <= set(OPERATOR_NAMES.values())
    assert not table.documented & table.in_source
    assert table.source
    assert bool(table.in_source) == (table.source_of_rest is not None)


def test_takes_and_falls_back_are_counted_with_the_pieces_between():
    found = te.compatibility(chain("RELU", "TANH", "CEIL", "RELU", "CUSTOM", "CEIL"))
    assert found.operators == {"RELU": 2, "TANH": 1, "CEIL": 2, "CUSTOM Mine": 1}
    ml = found.delegates["coreml"]
    assert ml.takes == {"RELU": 2, "TANH": 1}
    assert {n: (f.count, f.reason) for n, f in ml.falls_back.items()} == {
        "CEIL": (2, "not among its operators"),
        "CUSTOM Mine": (1, "a custom operator"),
    }
    assert ml.pieces == 2
    gpu = found.delegates["gpu"]
    assert gpu.takes == {"RELU": 2}
    assert gpu.takes_undocumented == {"TANH": 1, "CEIL": 2}
    assert list(gpu.falls_back) == ["CUSTOM Mine"]
    assert gpu.pieces == 2
    assert not gpu.complete


def test_core_ml_takes_no_integers_and_no_gpu_takes_int16():
    eight = te.compatibility(chain("RELU", kind=INT8)).delegates
    assert eight["gpu"].complete
    assert eight["coreml"].falls_back["RELU"].reason == (
        "has int8 numbers, and the delegate takes floats"
    )
    sixteen = te.compatibility(chain("RELU", kind=INT16)).delegates
    assert sixteen["gpu"].falls_back["RELU"].reason == (
        "has int16 numbers, and the delegate takes floats, int8, uint8"
    )
    assert sixteen["qualcomm"].complete


def test_a_reshape_needs_an_older_core_ml():
    fallen = te.compatibility(chain("RESHAPE")).delegates["coreml"].falls_back
    assert "coreMLVersion" in fallen["RESHAPE"].reason


@pytest.mark.parametrize(
    ("recipe", "advised"),
    [(None, "'float16' is recommended"), ("float16", "float16 is the recipe for GPUs"),
     ("dynamic_int8", "'float16' is recommended"), ("int8", "'float16' is recommended")],
)  # fmt: skip
def test_float16_is_recommended_for_gpus(tmp_path, recipe, advised):
    layers = [keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    x = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32")
    exported = te.export(model, tmp_path / "n.tflite", recipe, x if recipe == "int8" else None)
    found = te.compatibility(exported)
    assert found.recipe == (recipe or "float32")
    assert advised in found.advice[0]
    assert found.delegates["gpu"].pieces == 1
    # Weights in float16 are widened when the file is loaded: no delegate leaves them to the CPU.
    assert "DEQUANTIZE" not in found.delegates["coreml"].falls_back or recipe == "int8"


def test_open_sizes_are_named():
    advice = te.compatibility(chain("RELU", shape=(None, 4))).advice
    assert "batch_size=1" in advice[-1]
    assert len(te.compatibility(chain("RELU")).advice) == 1


def test_the_table_for_people_says_what_and_from_where():
    text = str(te.compatibility(chain("RELU", "TANH", "CUSTOM")))
    assert "this file: 3 operators, float32" in text
    assert "falls back: 1 CUSTOM Mine (a custom operator)" in text
    assert "* 1 TANH: not in its documentation, but in LiteRT source" in text
    for table in TABLES.values():
        assert table.source in text


def test_damaged_files_are_refused():
    with pytest.raises(ValueError, match="TFLite file"):
        te.compatibility(chain("RELU")[:40])


def test_a_file_of_integers_without_weights_is_no_float_file(tmp_path):
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, keras.layers.Softmax()(keras.layers.GlobalAveragePooling2D()(image)))
    x = np.random.default_rng(0).uniform(-1, 1, (20, 8, 8, 3)).astype("float32")
    for recipe in ("int8", "int16x8"):
        exported = te.export(model, tmp_path / "m.tflite", recipe, x)
        assert te.compatibility(exported).recipe == recipe
