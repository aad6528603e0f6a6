"""A teacher that sees teaches a student that hears: digits as pictures, digits as sounds, without labels.

    python examples/cross_modal.py                                   # 3 seeds, on stand-ins
    python examples/cross_modal.py --data fsdd --images mnist.npz    # spoken and written digits
    python examples/cross_modal.py --quick                           # 2 seeds, fewer epochs

The teacher has learned to read 6,000 pictures of digits. In each epoch each of 2,700 recordings is laid
beside another picture of its digit, none that the teacher has learned from: the teacher sees the picture, the
student hears the recording, and learns what the teacher says (Gupta et al. 2016, arXiv 1507.00448). Set
against it is the same network with all labels and with 100, trained for as many steps; 300 recordings are for
testing. Without data the pictures are scikit-learn's, and the digits are dialled instead of spoken: the tones
of a telephone's keys in noise, made up here.

The temperature is 1: which digits look alike, as a higher one would tell, cannot be heard.

With spoken and written digits it printed (test accuracy, last epoch, mean ± standard deviation of 3 seeds):

    cross_modal.tflite: 19,081 bytes
    teacher, of pictures     97.2 ± 0.1 %
    student, 2,700 labels    97.2 ± 1.1 %
    student, 100 labels      83.8 ± 1.1 %
    student, no label        98.1 ± 0.4 %
    … as int8                97.9 ± 1.1 %

The student without a label hears as well as the one with all of them, and far better than the one with 100.
But somebody knew which recording and which picture belong together: the pairs are worth as much as labels.
"""

import argparse
import os
import pathlib
import statistics

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from scipy.io import wavfile

import keras_distill as kd
import tflite_export as te
from keras_distill import epoch

RATE, SAMPLES = 8000, 6000  # 0.75 s; what is longer is cut
FEW, BATCH = 100, 64


def spoken_digits(folder: pathlib.Path):
    """Recordings DIGIT_SPEAKER_TAKE.wav: (sounds, digits, which are for testing: takes 0 to 4)."""
    paths = sorted(folder.glob("*_*_*.wav"))
    if not paths:
        raise SystemExit(f"There is no DIGIT_SPEAKER_TAKE.wav in {folder}.")
    digits, _, takes = zip(*(path.stem.split("_") for path in paths), strict=True)
    sounds = [wavfile.read(path)[1] / 2**15 for path in paths]
    return sounds, np.array(digits, int), np.array(takes, int) < 5


def telephone_keys(count: int = 1500):
    """The stand-in: two tones for each key, as telephones dial, in noise; a fifth is for testing."""
    rng = np.random.default_rng(0)
    digits = np.arange(count) % 10
    sounds = rng.normal(size=(count, SAMPLES))
    for sound, digit in zip(sounds, digits, strict=True):
        row, column = divmod(digit - 1 if digit else 10, 3)  # 0 is below 8
        tones = np.array([[697, 770, 852, 941][row], [1209, 1336, 1477][column]])
        start, length = rng.integers(SAMPLES // 2), rng.integers(SAMPLES // 10, SAMPLES // 2)
        waves = np.sin(np.outer(np.arange(length), 2 * np.pi * tones / RATE) + rng.random(2))
        sound[start : start + length] += rng.uniform(0.3, 1.0) * waves.sum(-1)
    return sounds, digits, np.arange(count) % 50 < 10


def spectrograms(sounds) -> np.ndarray:
    """Log-mel energies, 80 dB as grey values 0..255: (examples, 47 frames, 32 bands, 1)."""
    cut = np.zeros((len(sounds), SAMPLES), "float32")
    for row, sound in zip(cut, sounds, strict=True):
        row[: len(sound)] = sound[:SAMPLES]
    mel = keras.layers.MelSpectrogram(  # its decibels are below the loudest of the whole batch
        256, 128, sampling_rate=RATE, num_mel_bins=32, min_freq=60, power_to_db=False
    )
    energies = np.concatenate([mel(part) for part in np.array_split(cut, 10)])
    decibels = 10 * np.log10(np.maximum(energies, 1e-10)).transpose(0, 2, 1)[..., None]
    decibels -= decibels.max((1, 2, 3), keepdims=True)
    return np.round(255 * np.clip(1 + decibels / 80, 0, 1))


def augmented(x, uniform):
    """Up to five frames earlier or later, up to six bands left out (SpecAugment)."""
    frames, bands = x.shape[1:3]
    move, first, width = tf.split(tf.cast(uniform(3) * (11, bands, 7), tf.int32), 3, axis=1)
    frame = tf.clip_by_value(tf.range(frames) + move - 5, 0, frames - 1)
    x = tf.gather(x, frame, axis=1, batch_dims=1)
    left_out = (tf.range(bands) >= first) & (tf.range(bands) < first + width)
    return tf.where(left_out[:, None, :, None], tf.reduce_mean(x, (1, 2, 3), keepdims=True), x)


def image_network(shape: tuple[int, int, int]) -> keras.Model:
    """The teacher: a picture of a digit to ten logits."""
    x = inputs = keras.Input(shape)
    x = keras.layers.Rescaling(1 / 255)(x)
    for width in (16, 32):
        x = keras.layers.Conv2D(width, 3, padding="same", activation="relu")(x)
        x = keras.layers.MaxPooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(x)))


def active(x):
    return keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))


def audio_network(mean: float, std: float) -> keras.Model:
    """The student: a spectrogram to ten logits. When a sound comes does not matter, its pitch does."""
    x = inputs = keras.Input((47, 32, 1))
    x = keras.layers.Rescaling(1 / std, -mean / std)(x)
    x = active(keras.layers.Conv2D(16, 5, 2, padding="same", use_bias=False)(x))
    for width, strides in ((24, 2), (32, 1), (48, 2)):
        layer = keras.layers.SeparableConv2D(width, 3, strides, padding="same", use_bias=False)
        x = active(layer(x))
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D((x.shape[1], 1))(x))
    return keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Dropout(0.2)(x)))


def pairs(sounds, images, digits):
    """Beside each recording of the data set `sounds` an image of its digit, drawn anew in each epoch."""
    groups = [images[digits == digit] for digit in range(10)]
    count = min(map(len, groups))
    groups = tf.constant(np.stack([group[:count] for group in groups]))

    def pair(audio, digit):
        chosen = tf.random.uniform(tf.shape(digit), maxval=count, dtype=tf.int32)
        return {"audio": audio, "image": tf.gather_nd(groups, tf.stack([digit, chosen], axis=1))}

    return sounds.map(pair)


def fitted(model: keras.Model, data, epochs: int, loss=None) -> None:
    rate = keras.optimizers.schedules.CosineDecay(0.003, epochs * len(data))
    model.compile(keras.optimizers.Adam(rate), loss)
    model.fit(data, epochs=epochs, verbose=0, callbacks=[epoch.SetEpoch()], shuffle=False)


def accuracy(model: keras.Model, x, y) -> float:
    return float(np.mean(model.predict(x, batch_size=300, verbose=0).argmax(-1) == y))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=pathlib.Path, help="a folder of DIGIT_SPEAKER_TAKE.wav")
    parser.add_argument("--images", help="an .npz with x_train, y_train, x_test, y_test")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", default="cross_modal.tflite", help="of the last seed")
    arguments = parser.parse_args()
    seeds, epochs = (2, 5) if arguments.quick else (arguments.seeds, arguments.epochs)

    pictures = np.load(arguments.images) if arguments.images else vars(kd.data.digits())
    names = "x_train", "y_train", "x_test", "y_test"
    seen, seen_y, shown, shown_y = (pictures[name][:6000] for name in names)
    seen, shown = seen.reshape(*seen.shape[:3], 1), shown.reshape(*shown.shape[:3], 1)
    sounds, y, testing = spoken_digits(arguments.data) if arguments.data else telephone_keys()
    x = spectrograms(sounds)
    (x, x_test), (y, y_test) = ((one[~testing], one[testing]) for one in (x, y))
    hard = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    found: dict[str, list[float]] = {}

    def heard(labels: int):
        """So many recordings, again and again: an epoch has as many steps whatever their number."""
        rows = np.resize(np.random.default_rng(seed).permutation(len(x))[:labels], len(x))
        return kd.data.arrays(x[rows], y[rows], BATCH, seed=seed, augment=augmented)

    for seed in range(seeds):
        keras.utils.set_random_seed(seed)
        teacher = image_network(seen.shape[1:])
        fitted(teacher, kd.data.arrays(seen, seen_y, BATCH, seed=seed), epochs, hard)
        student = audio_network(float(x.mean()), float(x.std()))
        start = student.get_weights()
        found.setdefault("teacher, of pictures", []).append(accuracy(teacher, shown, shown_y))
        for labels in (len(x), FEW):
            student.set_weights(start)
            fitted(student, heard(labels), epochs, hard)
            name = f"student, {labels:,} labels"
            found.setdefault(name, []).append(accuracy(student, x_test, y_test))
        student.set_weights(start)
        distiller = kd.Distiller(
            teacher,
            student,
            kd.losses.SoftTargets(temperature=1.0),
            student_loss_weight=0,
            teacher_inputs="image",
            student_inputs="audio",
        )
        fitted(distiller, pairs(heard(len(x)), shown, shown_y), epochs)
        exported = te.export(
            student,
            arguments.output,
            quantization="int8",
            representative_dataset=x,
            inference_input_type="int8",
            inference_output_type="int8",
            normalization=(0, 1),  # the network takes grey values as they are
            labels=[str(digit) for digit in range(10)],
        )
        proof = te.verify(student, exported, (x_test, y_test))
        found.setdefault("student, no label", []).append(proof.reference_accuracy)
        found.setdefault("… as int8", []).append(proof.accuracy)
        print(f"Seed {seed + 1} of {seeds} done.", flush=True)
    print(f"{exported.path}: {exported.size_bytes:,} bytes")
    for name, values in found.items():
        std = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{name:24s} {100 * statistics.mean(values):.1f} ± {100 * std:.1f} %")


if __name__ == "__main__":
    main()
