"""Which release of the runtimes runs which operator, with which types: tried, not read.

    python benchmarks/operator_releases.py make FOLDER            # small files, with answers of this LiteRT
    OLD_PYTHON benchmarks/operator_releases.py run FOLDER         # in the environment of each release
    python benchmarks/operator_releases.py table FOLDER           # → tflite_export/operator_releases.json

`run` needs NumPy and one of tflite-runtime and ai-edge-litert. A release runs an operator with its types if
a file that holds it answers there as it does here, within 20 dB: there are releases that run a file and
answer wrongly. Versions of operators are tried with empty operators: a release that does not know one says
so. Operators that no file here holds are known by their version alone.
"""

import argparse
import json
import math
import pickle
import sys
from pathlib import Path

import numpy as np

EXAMPLES, ENOUGH_DB, MOST_VERSIONS = 6, 20.0, 20
TABLE = Path(__file__).parents[1] / "tflite_export" / "operator_releases.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("step", choices=("make", "run", "table"))
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    {"make": make, "run": run, "table": table}[arguments.step](arguments.folder)


# ---------------------------------------------------------------------- in the main environment


def models():
    """(name, a Keras model) of few layers: every operator that students are made of."""
    import keras

    def model(name, shape, *layers):
        start = keras.Input(shape, name="x")
        x = start
        for layer in layers:
            x = layer(x)
        return name, keras.Model(start, x, name=name.replace(" ", "_"))

    k = keras.layers
    ops = keras.ops
    image, sequence = (8, 8, 4), (6, 8)
    yield model("conv", image, k.Conv2D(32, 3))
    yield model("conv relu same stride", image, k.Conv2D(8, 3, 2, "same", activation="relu"))
    yield model("conv no bias", image, k.Conv2D(8, 3, use_bias=False))
    yield model("conv dilated", image, k.Conv2D(8, 3, dilation_rate=2))
    yield model("conv groups", image, k.Conv2D(8, 3, groups=2))
    yield model("depthwise", image, k.DepthwiseConv2D(3))
    yield model("depthwise dilated", image, k.DepthwiseConv2D(3, dilation_rate=2))
    yield model("transposed", image, k.Conv2DTranspose(6, 3, 2, "same"))
    yield model("conv1d", sequence, k.Conv1D(16, 3))
    yield model("separable", image, k.SeparableConv2D(8, 3))
    yield model("dense", (32,), k.Dense(16))
    yield model("dense bias", (32,), k.Dense(16, bias_initializer="normal"))
    yield model("dense 3d", sequence, k.Dense(16, bias_initializer="normal"))
    yield model("max pool", image, k.MaxPooling2D(2))
    yield model("average pool", image, k.AveragePooling2D(2))
    yield model("global average", image, k.GlobalAveragePooling2D())
    yield model("global max", image, k.GlobalMaxPooling2D())
    for name in ("relu", "relu6", "sigmoid", "tanh", "softmax", "hard_silu", "gelu", "leaky_relu",
                 "silu", "elu", "hard_sigmoid", "exponential", "softplus", "log_softmax"):  # fmt: skip
        yield model(name, (4, 8), k.Activation(name))
    yield model("add", image, lambda x: k.Add()([x, k.MaxPooling2D(3, 1, "same")(x)]))
    yield model("subtract", image, lambda x: k.Subtract()([x, k.MaxPooling2D(3, 1, "same")(x)]))
    yield model("multiply", image, lambda x: k.Multiply()([x, k.MaxPooling2D(3, 1, "same")(x)]))
    yield model("maximum", image, lambda x: k.Maximum()([x, k.AveragePooling2D(3, 1, "same")(x)]))
    yield model("minimum", image, lambda x: k.Minimum()([x, k.AveragePooling2D(3, 1, "same")(x)]))
    yield model("divide", image, lambda x: x / (k.MaxPooling2D(3, 1, "same")(x) + 3.0))
    yield model(
        "concatenate", image, lambda x: k.Concatenate()([x, k.MaxPooling2D(3, 1, "same")(x)])
    )
    yield model("nearest", image, k.UpSampling2D())
    yield model("bilinear", image, k.UpSampling2D(interpolation="bilinear"))
    yield model("pad", image, k.ZeroPadding2D())
    yield model("reflect", image, lambda x: ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], "reflect"))
    yield model("transpose", image, k.Permute((3, 1, 2)))
    yield model("reshape", image, k.Reshape((16, 16)))
    yield model("slice", image, k.Cropping2D())
    yield model("split", image, lambda x: ops.concatenate(ops.split(x, 2, -1)[::-1], -1))
    yield model("stack", sequence, lambda x: ops.stack([x, -x], 1))
    yield model("sum", image, lambda x: ops.sum(x, (1, 2)))
    yield model("layer norm", sequence, k.LayerNormalization())
    yield model(
        "squared difference", (8,), lambda x: ops.square(x - ops.mean(x, -1, keepdims=True))
    )
    yield model("root", (8,), lambda x: ops.sqrt(ops.abs(x) + 1.0))
    yield model("attention", sequence, lambda x: k.MultiHeadAttention(2, 4)(x, x))
    yield model("lstm", sequence, k.LSTM(4))
    yield model("lstm unrolled", sequence, k.LSTM(4, unroll=True))
    yield model("argmax", (8,), lambda x: ops.cast(ops.argmax(x, -1), "float32"))
    yield model("where", (8,), lambda x: ops.where(x > 0, x, x * 0.3))
    tokens = keras.Input((5,), dtype="int32", name="x")
    yield "embedding", keras.Model(tokens, k.Embedding(12, 16)(tokens))


def make(folder: Path) -> None:
    import warnings

    import keras

    import tflite_export as te
    from tflite_export import flatbuffer, quantize

    warnings.simplefilter("ignore")
    keras.utils.set_random_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    rng = np.random.default_rng(0)
    for name, model in models():
        if (
            name != "attention"
        ):  # a softmax that is sure of itself turns roundings into other answers
            model.set_weights([_uneven(w, rng) for w in model.get_weights()])
        shape = (40, *model.inputs[0].shape[1:])
        x = rng.normal(size=shape).astype("float32")
        if model.inputs[0].dtype == "int32":
            x = rng.integers(0, 12, shape).astype("int32")
        for recipe in quantize.RECIPES:
            try:
                path = te.export(
                    model, folder / "one.tflite", recipe, x, num_calibration_examples=40
                )
            except ValueError:
                continue
            content = path.path.read_bytes()
            answers = te.load(content).run(x[:EXAMPLES])
            kinds = sorted(set(flatbuffer.kinds(flatbuffer.read(content))))
            files.append((f"{name}, {recipe}", content, x[:EXAMPLES], answers, kinds))
    name, model = next(models())
    pixels = rng.integers(0, 256, (40, 8, 8, 4)).astype("uint8")
    x = (pixels / 64 - 2).astype("float32")
    path = te.export(model, folder / "one.tflite", "int8", x, "uint8", normalization=(128, 64))
    content, pixels = path.path.read_bytes(), pixels[:EXAMPLES]
    held = sorted(set(flatbuffer.kinds(flatbuffer.read(content))))
    files.append((f"{name}, uint8", content, pixels, te.load(content).run(pixels), held))
    (folder / "files.pickle").write_bytes(
        pickle.dumps((files, list(empty_operators())), protocol=4)
    )


def _uneven(weights, rng):
    """Channels of different sizes: a runtime that takes one scale for all of them answers wrongly."""
    return weights * 2.0 ** rng.integers(-3, 3, weights.shape[-1]) if weights.ndim > 1 else weights


def empty_operators():
    """(operator, version, a file of that one operator without operands)."""
    from tflite_export import damage, flatbuffer

    schema = flatbuffer.schema
    for number, name in damage.OPERATOR_NAMES.items():
        for version in range(1, MOST_VERSIONS):
            model = schema.ModelT()
            model.version = 3
            model.buffers = [schema.BufferT()]
            code = schema.OperatorCodeT()
            code.builtinCode, code.deprecatedBuiltinCode = number, min(number, 127)
            code.version = version
            model.operatorCodes = [code]
            graph, operator = schema.SubGraphT(), schema.OperatorT()
            operator.opcodeIndex, operator.inputs, operator.outputs = 0, [], []
            graph.tensors, graph.inputs, graph.outputs = [], [], []
            graph.operators = [operator]
            model.subgraphs = [graph]
            yield name, version, flatbuffer.write(model)


# ------------------------------------------------------------- in the environment of each release


def run(folder: Path) -> None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        from tflite_runtime.interpreter import Interpreter

        release = "tflite-runtime " + version("tflite-runtime")
    except (ImportError, PackageNotFoundError):
        from ai_edge_litert.interpreter import Interpreter

        release = "ai-edge-litert " + version("ai-edge-litert")
    files, operators = pickle.loads((folder / "files.pickle").read_bytes())
    found = {"release": release, "files": {}, "versions": {}}
    for name, content, x, want, _ in files:
        found["files"][name] = _tried(Interpreter, content, x, want)
    for name, number, content in operators:
        try:
            Interpreter(model_content=content)
        except (ValueError, RuntimeError) as error:
            if "find op for builtin" in str(error) or "not supported" in str(error):
                continue
        found["versions"][name] = max(number, found["versions"].get(name, 0))
    (folder / (release.replace(" ", "-") + ".json")).write_text(json.dumps(found))
    wrong = {k: v for k, v in found["files"].items() if v is not True}
    print(release, len(files) - len(wrong), "of", len(files), file=sys.stderr)


def _tried(make_interpreter, content, x, want):
    """True, or what went wrong."""
    try:
        interpreter = make_interpreter(model_content=content)
        interpreter.allocate_tensors()
        source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        answers = []
        for one in x:
            interpreter.set_tensor(source["index"], one[None])
            interpreter.invoke()
            answers.append(interpreter.get_tensor(target["index"])[0])
    except (ValueError, RuntimeError) as error:
        return " ".join(str(error).split())[:200]
    error = float(np.sum((np.array(answers, "float64") - want) ** 2))
    power = float(np.sum(np.square(want, dtype="float64")))
    decibels = 99.0 if error == 0 else 10 * math.log10(power / error) if power else -99.0
    return True if decibels >= ENOUGH_DB else f"{decibels:.1f} dB"


# ---------------------------------------------------------------------- in the main environment


def table(folder: Path) -> None:
    from tflite_export import flatbuffer

    files, _ = pickle.loads((folder / "files.pickle").read_bytes())
    measured = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    measured.sort(key=lambda one: (one["release"].startswith("ai"), _number(one["release"])))
    releases = [one["release"] for one in measured]
    versions = {
        name: [one["versions"].get(name, 0) for one in measured]
        for name in sorted({name for one in measured for name in one["versions"]})
    }
    good = [good_kinds(files, one) for one in measured]
    kinds = {
        kind: [i for i, one in enumerate(good) if kind not in one]
        for kind in sorted({kind for *_, held in files for kind in held})
    }
    for name, content, *_, held in files:  # does the table say what was measured?
        known = list(flatbuffer.versions(flatbuffer.read(content)))
        for i, one in enumerate(measured):
            said = not any(i in kinds[kind] for kind in held) and all(
                versions[operator][i] >= version for operator, version in known
            )
            if said != (one["files"][name] is True):
                print(
                    f"{name} on {releases[i]}: the table says {said}, measured {one['files'][name]}"
                )
    lines = ["{", f'"releases": {json.dumps(releases)},', '"kinds": {']
    lines.append(",\n".join(f"{json.dumps(k, ensure_ascii=False)}: {v}" for k, v in kinds.items()))
    lines += ["},", '"versions": {']
    lines.append(",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in versions.items()))
    TABLE.write_text("\n".join([*lines, "}", "}", ""]), "utf-8")
    print(f"{len(kinds)} kinds and {len(versions)} operators in {len(releases)} releases: {TABLE}.")


def good_kinds(files, measured):
    """The kinds of operators that one release runs. Each must be in a file that it runs rightly; and where
    a file of such kinds alone goes wrong, the one of them that goes wrong most often is not one."""
    from tflite_export import flatbuffer

    versions, right = measured["versions"], measured["files"]
    tried = {kind: [] for *_, held in files for kind in held}
    for name, *_, held in files:
        for kind in held:
            tried[kind].append(right[name] is True)
    good = {kind for kind, answers in tried.items() if any(answers)}
    for name, content, *_, held in files:
        known = flatbuffer.versions(flatbuffer.read(content))
        if any(versions.get(operator, 0) < version for operator, version in known):
            continue  # it is the version that is not there
        while right[name] is not True and set(held) <= good:
            good.discard(min(held, key=lambda kind: np.mean(tried[kind])))
    return good


def _number(release):
    return tuple(int(part) for part in release.split()[1].split("."))


if __name__ == "__main__":
    main()
