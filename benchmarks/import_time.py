"""What `import keras_distill` costs beside `import keras`, and how soon `keras-distill --help` answers.

    python benchmarks/import_time.py --rounds 20

A fresh process each time, in turns. Beside the time on the wall stands the work of the processor, which
other programs on the machine hardly change.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import measure

COMMAND = (
    "import sys; sys.argv[0] = 'keras-distill'; from keras_distill.app.cli import main; main()"
)
WAYS = {
    "import keras": ["-c", "import keras"],
    "import keras_distill": ["-c", "import keras_distill"],
    "keras-distill --help": ["-c", COMMAND, "--help"],
    "python": ["-c", ""],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--output", type=Path, default=measure.RESULTS / "import_time.json")
    arguments = parser.parse_args()
    work = {name: [] for name in WAYS}

    def run(name):
        before = os.times()
        subprocess.run([sys.executable, *WAYS[name]], check=True, capture_output=True)
        after = os.times()
        work[name].append(
            after.children_user
            + after.children_system
            - before.children_user
            - before.children_system
        )

    wall = measure.alternate({n: lambda n=n: run(n) for n in WAYS}, arguments.rounds)
    work = {name: taken[-arguments.rounds :] for name, taken in work.items()}
    two = ("import keras_distill", "import keras")
    result = {
        "seconds": {name: measure.summary(taken) for name, taken in wall.items()},
        "processor_seconds": {name: measure.summary(taken) for name, taken in work.items()},
        "by_import_keras": measure.ratio(wall, *two),
        "by_import_keras_processor": measure.ratio(work, *two),
    }
    rows = [
        [f"`{name}`", *(f"{part[name]['median']:.2f}" for part in list(result.values())[:2])]
        for name in WAYS
    ]
    print(measure.table(["", "seconds", "processor seconds"], rows))
    print(
        f"import keras_distill takes {result['by_import_keras']['median']:.3f} times as long as "
        f"import keras, and {result['by_import_keras_processor']['median']:.3f} times the work."
    )
    measure.write(arguments.output, result)


if __name__ == "__main__":
    main()
