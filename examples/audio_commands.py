"""Spoken digits on a microcontroller: a spectrogram CNN teaches one of 6,000 weights, all in int8.

    python examples/audio_commands.py                # 3 seeds, on telephone keys: a stand-in
    python examples/audio_commands.py --data fsdd    # on the wav files of the Free Spoken Digit Dataset
    python examples/audio_commands.py --quick        # 2 seeds, fewer epochs

Six people say the ten digits, 50 times each; the takes 0 to 4, 300 recordings, are for testing. Teacher and
student alone learn from 100 labelled recordings, or from all 2,700; the distilled student sees no label, but
what the teacher says of all recordings. All are trained for as many steps. Without --data the digits are
dialled instead of spoken: the tones of a telephone's keys in noise, made up here.

On the device a signal library computes the log-mel energies (windows of 32 ms, every 16 ms, 32 bands) and
gives them to the file as int8, a grey value less 128; mean and deviation of the training set are inside.

With --data fsdd it printed (test accuracy, last epoch, mean ± standard deviation of 3 seeds):

    audio_commands.tflite: 19,193 bytes
                            100 labels    2,700 labels
    teacher               89.8 ± 0.5 %    99.8 ± 0.2 %
    student alone         87.3 ± 1.2 %    98.6 ± 0.2 %
    student distilled     88.4 ± 2.8 %    98.2 ± 1.3 %
    … as int8             88.1 ± 3.4 %    98.0 ± 1.2 %

The teacher hardly helps here: the point gained with 100 labels is within the spread of the seeds, and with
labels of all recordings nothing is gained. int8 costs 0.3 points at most.
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


def active(x):
    return keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))


def network(layer: type, widths: tuple[int, ...], mean: float, std: float) -> keras.Model:
    """Grey values to ten logits; when a sound comes does not matter, its pitch does."""
    x = inputs = keras.Input((47, 32, 1))
    x = keras.layers.Rescaling(1 / std, -mean / std)(x)
    x = active(keras.layers.Conv2D(widths[0], 5, 2, padding="same", use_bias=False)(x))
    for width, strides in zip(widths[1:], (2, 1, 2), strict=True):
        x = active(layer(width, 3, strides, padding="same", use_bias=False)(x))
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D((x.shape[1], 1))(x))
    return keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Dropout(0.2)(x)))


def fitted(model: keras.Model, data, epochs: int, loss=None) -> None:
    rate = keras.optimizers.schedules.CosineDecay(0.003, epochs * len(data))
    model.compile(keras.optimizers.Adam(rate), loss)
    model.fit(data, epochs=epochs, verbose=0, callbacks=[epoch.SetEpoch()], shuffle=False)


def trained(x, y, labels: int, seed: int, epochs: int) -> tuple[keras.Model, ...]:
    """Teacher, student alone and student distilled, with so many labels."""
    keras.utils.set_random_seed(seed)
    scale = float(x.mean()), float(x.std())
    teacher = network(keras.layers.Conv2D, (32, 64, 64, 96), *scale)
    alone = network(keras.layers.SeparableConv2D, (16, 24, 32, 48), *scale)
    distilled = keras.models.clone_model(alone)
    distilled.set_weights(alone.get_weights())

    # The labelled ones again and again, so that an epoch has as many steps.
    rows = np.resize(np.random.default_rng(seed).permutation(len(x))[:labels], len(x))
    labelled = kd.data.arrays(x[rows], y[rows], BATCH, seed=seed, augment=augmented)
    everything = kd.data.arrays(x, y, BATCH, seed=seed, augment=augmented)
    hard = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    fitted(teacher, labelled, epochs, hard)
    fitted(alone, labelled, epochs, hard)
    soft = kd.losses.SoftTargets(temperature=2.0)
    distiller = kd.Distiller(teacher, distilled, soft, student_loss_weight=0)  # reads no label
    fitted(distiller, everything, epochs)
    return teacher, alone, distilled


def accuracy(model: keras.Model, x, y) -> float:
    return float(np.mean(model.predict(x, batch_size=len(x), verbose=0).argmax(-1) == y))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=pathlib.Path, help="a folder of DIGIT_SPEAKER_TAKE.wav")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", default="audio_commands.tflite", help="of the last training")
    arguments = parser.parse_args()
    seeds, epochs = (2, 4) if arguments.quick else (arguments.seeds, arguments.epochs)

    sounds, y, testing = spoken_digits(arguments.data) if arguments.data else telephone_keys()
    x = spectrograms(sounds)
    (x, x_test), (y, y_test) = ((one[~testing], one[testing]) for one in (x, y))
    found: dict[str, dict[int, list[float]]] = {}
    for seed in range(seeds):
        for labels in (FEW, len(x)):
            teacher, alone, distilled = trained(x, y, labels, seed, epochs)
            exported = te.export(
                distilled,
                arguments.output,
                quantization="int8",
                representative_dataset=x,
                inference_input_type="int8",
                inference_output_type="int8",
                normalization=(0, 1),  # the network takes grey values as they are
                labels=[str(digit) for digit in range(10)],
            )
            proof = te.verify(distilled, exported, (x_test, y_test))
            accuracies = {
                "teacher": accuracy(teacher, x_test, y_test),
                "student alone": accuracy(alone, x_test, y_test),
                "student distilled": proof.reference_accuracy,
                "… as int8": proof.accuracy,
            }
            for name, value in accuracies.items():
                found.setdefault(name, {}).setdefault(labels, []).append(value)
        print(f"Seed {seed + 1} of {seeds} done.", flush=True)
    print(f"{exported.path}: {exported.size_bytes:,} bytes")
    print(" " * 20, "   ".join(f"{labels:6,} labels" for labels in (FEW, len(x))))
    for name, columns in found.items():
        values = [
            (100 * statistics.mean(v), 100 * (statistics.stdev(v) if len(v) > 1 else 0.0))
            for v in columns.values()
        ]
        print(f"{name:20s}", "   ".join(f"{mean:5.1f} ± {std:.1f} %" for mean, std in values))


if __name__ == "__main__":
    main()
