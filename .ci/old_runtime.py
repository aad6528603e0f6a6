"""Files of each recipe on tflite-runtime 2.14, the last of its name and what is on devices in the field.

    python .ci/old_runtime.py make FOLDER       # in the main environment: files, inputs, expected outputs
    python .ci/old_runtime.py check FOLDER      # beside NumPy 1, tflite-runtime and our runtime.py alone

`check` prints which recipe needs which runtime. It fails where a file that should run answers otherwise,
and where one that should not is run all the same: `minimum_runtime` says which. `.ci/old_runtime` runs both.
"""

import json
import sys
from pathlib import Path

import numpy as np

RELEASE = "tflite-runtime 2.14.0"
# Kernels round at other places: the largest difference, as a share of the span of the outputs.
ROUNDING = {
    "float32": 1e-5,
    "float16": 1e-3,
    "dynamic_int8": 0.02,
    "int8": 0.03,
    "int16x8": 1e-3,
}  # others: 0.02
AWARE = "quantisation-aware"
RECIPES = ("float32", "float16", "dynamic_int8", "int8", "int16x8", "int4")
FILES = 2 * (len(RECIPES) + 1)  # with and without a dense layer


def network(keras, dense):
    """A small network; without a dense layer, of which the recipes with float activations need more."""
    image = keras.Input((12, 12, 3), name="image")
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(image)
    x = keras.layers.DepthwiseConv2D(3, padding="same")(x)
    x = keras.layers.Add()([x, keras.layers.Conv2D(8, 1)(x)])
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(5)(x) if dense else x)


def make(folder: Path) -> None:
    import keras

    import tflite_export as te

    keras.utils.set_random_seed(3)
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (40, 12, 12, 3)).astype("uint8")
    x = (pixels / 127.5 - 1).astype("float32")
    folder.mkdir(parents=True, exist_ok=True)
    for layers, dense in (("with a dense layer", True), ("convolutions alone", False)):
        net = network(keras, dense)
        # Channels of different sizes: whoever takes one scale for all is found out.
        net.set_weights([w * 2.0 ** rng.integers(-3, 3, w.shape[-1]) for w in net.get_weights()])
        for recipe in RECIPES:
            named = None if recipe == "float32" else recipe
            edges = ("uint8", ["a", "b", "c", "d", "e"], (127.5, 127.5)) if recipe == "int8" else ()
            edges = edges if dense else ()
            write(
                te,
                folder,
                recipe,
                layers,
                te.export(net, folder / "one", named, x, *edges),
                x,
                pixels,
            )
        aware = te.quantize_aware(net, x)
        write(te, folder, AWARE, layers, te.export(aware, folder / "one"), x, pixels)


def write(te, folder, recipe, layers, exported, x, pixels) -> None:
    given = (pixels if exported.inputs[0].dtype == "uint8" else x)[:8]
    needed = te.minimum_runtime(exported)
    stem = f"{recipe}, {layers}"
    exported.path.replace(folder / f"{stem}.tflite")
    np.savez(
        folder / f"{stem}.npz", given=given, want=te.load(folder / f"{stem}.tflite").run(given)
    )
    said = {"needs": needed.release, "reasons": needed.reasons, "runs": needed.runs_on(RELEASE)}
    (folder / f"{stem}.json").write_text(json.dumps({"recipe": recipe, **said}))


def check(folder: Path) -> None:
    from tflite_export.runtime import load

    blocked = {"tensorflow", "keras", "ai_edge_litert", "flatbuffers"} & set(sys.modules)
    wrong = [f"{sorted(blocked)} were loaded"] if blocked else []
    files = sorted(folder.glob("*.tflite"))
    if len(files) != FILES:
        wrong.append(f"{folder} holds {len(files)} files, and `make` writes {FILES}")
    print(f"{'file':38} {'needs':24} here, {RELEASE}")
    for path in files:
        said = json.loads(path.with_suffix(".json").read_text())
        with np.load(path.with_suffix(".npz")) as archive:
            given, want = archive["given"], archive["want"]
        try:
            answers = load(path, runtime="tflite-runtime").run(given)
        except ValueError as error:
            found, fine = f"refused: {str(error)[:60]}…", not said["runs"]
        else:
            off = float(np.abs(answers - want).max() / np.ptp(want))
            right = off <= ROUNDING.get(said["recipe"], 0.02)
            found, fine = f"{off:.1e} of the span off", right and said["runs"]
        print(f"{path.stem:38} {said['needs'] or 'none of those tried':24} {found}")
        for reason in said["reasons"]:
            print(f"{'':38} for {reason}")
        if not fine:
            wrong.append(
                f"{path.stem}: expected to {'run' if said['runs'] else 'be refused'}, {found}"
            )
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    {"make": make, "check": check}[sys.argv[1]](Path(sys.argv[2]))
