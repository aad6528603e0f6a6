"""Photos per second: `keras_distill.data.image_folder` against `keras.utils.image_dataset_from_directory`.

    python benchmarks/input.py                      # 1,250 JPEGs of 640×480 pixels, made here
    python benchmarks/input.py --photos FOLDER      # your own, one sub-folder for each class

One epoch of the training part (80 %) of a folder, in a new order each time, in turns after one unmeasured
turn each: held in memory (`.cache()`, then shuffled and batched) or decoded anew, as they are or
augmented (move, zoom, brightness, contrast). Beside it the work of the processor for each photo, which
other programs on the machine hardly change. Then the training of a student, MobileNetV2 0.35, on one
batch in memory and on the pipelines: what it takes longer there, it waits for photos.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import measure
import numpy as np
import tensorflow as tf
from PIL import Image

from keras_distill import data, epoch, students


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photos", type=Path, help="a folder of your own")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--training-rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=measure.RESULTS / "input.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = arguments.photos or made
        if arguments.photos is None:
            make_photos(Path(made))
        print(f"{arguments.image_size}×{arguments.image_size}, batches of {arguments.batch_size}")
        pipelines, first = build(folder, arguments.image_size, arguments.batch_size)
        count = sum(len(labels) for _, labels in pipelines["decoded, ours"])
        ways = {name: lambda p=p: [None for _ in p] for name, p in pipelines.items()}
        reading = measure.alternate(ways, arguments.rounds)
        work = measure.alternate(ways, arguments.rounds, clock=time.process_time)
        training = measure.alternate(trainings(pipelines, arguments), arguments.training_rounds)

    rows = {n: per_second(s, count) for n, s in reading.items()}
    student = {n: per_second(s, count) for n, s in training.items()}
    on_constant = training["one batch in memory"]
    result = {
        "photos": count,
        "made": "JPEGs of 640×480 pixels" if arguments.photos is None else "a folder of photos",
        "image_size": arguments.image_size,
        "batch_size": arguments.batch_size,
        "photos_per_second": rows,
        "processor_ms_per_photo": {
            n: measure.summary([1000 * seconds / count for seconds in s]) for n, s in work.items()
        },
        "seconds_until_the_first_epoch_is_over": first,
        "student_photos_per_second": student,
        "decoded_by_what_the_student_takes": round(
            rows["decoded, augmented, ours"]["median"] / student["one batch in memory"]["median"], 2
        ),
        "training_time_by_that_on_one_batch": {
            name: measure.summary([a / b for a, b in zip(taken, on_constant, strict=True)])
            for name, taken in training.items()
        },
    }
    print(table(rows, result["processor_ms_per_photo"]))
    print(measure.table(["the student trains on", "photos/s"], [
        [n, f"{s['median']:,.0f}"] for n, s in student.items()
    ]))  # fmt: skip
    measure.write(arguments.output, result)


def make_photos(folder: Path, classes: int = 5, each: int = 250) -> None:
    """Light and shade, coarse and fine texture, noise: about 60 kB each, as cameras write them."""
    rng = np.random.default_rng(0)
    for number in range(classes):
        (folder / f"class_{number}").mkdir()
        for index in range(each):
            pixels = rng.normal(0, 4, (480, 640, 3))
            for height, width, share in ((6, 8, 0.75), (120, 160, 0.2)):
                coarse = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype="uint8"))
                pixels += share * np.asarray(coarse.resize((640, 480), Image.Resampling.BICUBIC))
            photo = Image.fromarray(pixels.clip(0, 255).astype("uint8"))
            photo.save(folder / f"class_{number}" / f"{index}.jpg", quality=85)


def build(folder, side: int, batch_size: int):
    """The pipelines by name, and how long each took to be built and read once."""
    augment = keras.Sequential(
        [
            keras.layers.RandomTranslation(0.1, 0.1, fill_mode="nearest"),
            keras.layers.RandomZoom(0.1, fill_mode="nearest"),
            keras.layers.RandomBrightness(0.1),
            keras.layers.RandomContrast(0.2, value_range=(0, 255)),
        ]
    )

    def ours(held: bool, augmented: bool):
        return data.image_folder(
            folder,
            side,
            batch_size=batch_size,
            augment=data.Light() if augmented else None,
            cache_bytes=data.CACHE_BYTES if held else 0,
        ).train

    def theirs(held: bool, augmented: bool):
        photos = keras.utils.image_dataset_from_directory(
            folder,
            image_size=(side, side),
            batch_size=None if held else batch_size,
            validation_split=0.2,
            subset="training",
            seed=0,
            verbose=False,
        )
        if held:
            photos = photos.cache().shuffle(10_000).batch(batch_size)
        if augmented:
            photos = photos.map(
                lambda x, y: (augment(x, training=True), y), num_parallel_calls=tf.data.AUTOTUNE
            )
        return photos.prefetch(tf.data.AUTOTUNE)

    pipelines, first = {}, {}
    for held in (False, True):
        for augmented in (False, True):
            kind = f"{'held' if held else 'decoded'}{', augmented' if augmented else ''}"
            for who, way in (("ours", ours), ("Keras's", theirs)):
                start = time.perf_counter()
                pipelines[f"{kind}, {who}"] = way(held, augmented)
                for _ in pipelines[f"{kind}, {who}"]:
                    pass
                first[f"{kind}, {who}"] = round(time.perf_counter() - start, 2)
    return pipelines, first


def trainings(pipelines, arguments):
    """One epoch of training for each: on one batch again and again, and on the pipelines."""
    side = arguments.image_size
    student = students.build("MobileNetV2", (side, side, 3), 5, width=0.35)
    student.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    photos = pipelines["decoded, ours"]
    batch = next(iter(photos))
    constant = tf.data.Dataset.from_tensors(batch).repeat(len(photos)).prefetch(2)
    constant = epoch.without_autotuning(constant)  # a wait at the end of `fit` is no work
    ways = {"one batch in memory": constant}
    ways |= {name: p for name, p in pipelines.items() if "augmented" in name}
    return {name: lambda p=p: student.fit(p, verbose=0) for name, p in ways.items()}


def per_second(seconds, count):
    return measure.summary([count / s for s in seconds])


def table(rows, work) -> str:
    lines = []
    for kind in [name.removesuffix(", ours") for name in rows if name.endswith(", ours")]:
        names = [f"{kind}, {who}" for who in ("ours", "Keras's")]
        ours, theirs = (rows[name]["median"] for name in names)
        lines.append([kind, f"{ours:,.0f}", f"{theirs:,.0f}", f"{ours / theirs:.2f}"])
        lines[-1] += [f"{work[name]['median']:.2f}" for name in names]
    return measure.table(
        ["photos/s", "ours", "Keras's", "times", "ours, processor ms each", "Keras's"], lines
    )


if __name__ == "__main__":
    main()
