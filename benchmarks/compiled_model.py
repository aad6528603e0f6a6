"""LiteRT's CompiledModel against its Interpreter, which `te.load` uses: do they answer alike, and how fast?

    python benchmarks/compiled_model.py student.tflite mobilenet_v2_1.0_224_quant.tflite

On the CPU, one thread; an answer counts from the array that goes in to the array that comes out. In turns.
"""

import argparse
from pathlib import Path

import measure
import numpy as np
from ai_edge_litert.compiled_model import CompiledModel
from ai_edge_litert.cpu_options import CpuOptions
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.options import Options


def compare(path: Path, rounds: int) -> dict:
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    x = np.random.default_rng(0).uniform(0, 255, given["shape"]).astype(given["dtype"])
    options = Options(cpu_options=CpuOptions(num_threads=1))
    compiled = CompiledModel.from_file(str(path), options=options)
    inputs, outputs = compiled.create_input_buffers(0), compiled.create_output_buffers(0)

    def interpreted() -> np.ndarray:
        interpreter.set_tensor(given["index"], x)
        interpreter.invoke()
        return interpreter.get_tensor(made["index"])

    def run() -> np.ndarray:
        inputs[0].write(x)
        compiled.run_by_index(0, inputs, outputs)
        return outputs[0].read(int(np.prod(made["shape"])), made["dtype"])

    difference = np.abs(interpreted().ravel().astype(float) - np.asarray(run(), float).ravel())
    seconds = measure.alternate({"interpreter": interpreted, "compiled": run}, rounds)
    return {
        "file": path.name,
        "milliseconds": {
            way: measure.summary([1000 * one for one in taken]) for way, taken in seconds.items()
        },
        "compiled_to_interpreter": measure.ratio(seconds, "compiled", "interpreter"),
        "largest_difference": float(difference.max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    rows = [compare(path, arguments.rounds) for path in arguments.files]
    for row in rows:
        ratio = row["compiled_to_interpreter"]
        print(
            f"{row['file']}: {row['milliseconds']['interpreter']['median']} ms, CompiledModel "
            f"{ratio['median']:.2f} ({ratio['quartile_1']:.2f}–{ratio['quartile_3']:.2f}) times as long, "
            f"answers differ by {row['largest_difference']:g}"
        )
    measure.write(measure.RESULTS / "compiled_model.json", {"rows": rows})


if __name__ == "__main__":
    main()
