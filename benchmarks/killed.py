"""Killed at random moments and called again, labelling and training end as if nothing had happened.

    python benchmarks/killed.py --times 20

Both run in processes of their own, which get SIGKILL after a random part of the time that a whole run takes,
until each has been killed so often; then they may end. What they wrote is compared byte for byte with an
uninterrupted run's: shards and manifest of the labels, weights of the student and the history.
"""

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import measure


def networks():
    import keras

    keras.utils.set_random_seed(0)

    def network(width):
        x = inputs = keras.Input((16, 16, 3))
        x = keras.layers.Conv2D(width, 3, activation="relu")(x)
        x = keras.layers.Dropout(0.2)(keras.layers.GlobalAveragePooling2D()(x))
        return keras.Model(inputs, keras.layers.Dense(10)(x))

    return network(32), network(8)


def data():
    import numpy as np

    import keras_distill as kd

    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (4_000, 16, 16, 3), dtype="uint8")
    y = rng.integers(0, 10, len(x))
    return kd.data.arrays(x, y, batch_size=50, augment=kd.data.CropAndFlip())


def label(folder: Path) -> None:
    import keras_distill as kd
    from keras_distill.soft_labels import plan

    plan._SHARD_ROWS = 80  # hundreds of shards, to be killed between and in
    kd.SoftLabels.build(networks()[0], data(), folder / "labels", views=3, verbose=False)


def train(folder: Path) -> None:
    import keras
    import numpy as np

    import keras_distill as kd

    label(folder)
    labels = kd.SoftLabels(folder / "labels")
    student = networks()[1]
    model = kd.Distiller(labels, student, kd.losses.SoftTargets())
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    resume = kd.callbacks.Resume(folder / "state.npz")
    model.fit(labels.attach(data()), epochs=20, verbose=0, callbacks=[resume])
    np.savez(folder / "end.npz", *student.get_weights(), *resume.history.values())


JOBS = {"label": label, "train": train}


def digest(folder: Path) -> str:
    """Of all files but hidden ones (locks) and what they are named."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("[!.]*")):
        if path.is_file():
            whole.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return whole.hexdigest()


def run(job: str, folder: Path, seconds: float | None = None) -> bool:
    """Run it, for so long at most; whether it came to its end."""
    process = subprocess.Popen([sys.executable, __file__, "--job", job, "--folder", str(folder)])
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return False
    if code:
        raise SystemExit(f"{job} ended with {code}.")
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default=measure.RESULTS / "killed.json")
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        JOBS[arguments.job](arguments.folder)
        return
    moments = random.Random(arguments.seed)
    result = {}
    for job in JOBS:
        with tempfile.TemporaryDirectory() as name:
            whole, killed = Path(name) / "whole", Path(name) / "killed"
            for folder in (whole, killed):
                folder.mkdir()
            start = time.perf_counter()
            run(job, whole)
            taken = time.perf_counter() - start
            runs = kills = 0
            while kills < arguments.times:
                runs += 1
                if run(job, killed, moments.uniform(0.3, 1.0) * taken):
                    for path in sorted(killed.rglob("*"), reverse=True):  # too fast: from the start
                        path.rmdir() if path.is_dir() else path.unlink()
                else:
                    kills += 1
            run(job, killed)
            same = digest(whole) == digest(killed)
        result[job] = {"killed": kills, "seconds_of_a_whole_run": round(taken, 1), "same": same}
        print(job, result[job], flush=True)
    measure.write(arguments.output, result)
    if not all(one["same"] for one in result.values()):
        raise SystemExit("What a killed run ended with differs.")


if __name__ == "__main__":
    main()
