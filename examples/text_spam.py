"""A spam filter of some tens of kilobytes: a small student learns what a bidirectional LSTM says.

    python examples/text_spam.py --data sms_spam.tsv            # 3 seeds
    python examples/text_spam.py --data sms_spam.tsv --quick    # 2 seeds, fewer epochs
    python examples/text_spam.py                                # on a stand-in

DATA has lines of `ham` or `spam`, a tab and a message: the SMS Spam Collection (Almeida 2011). A third of the
messages is for testing, the teacher learns from another third, and the student has the last one: without
labels, but with what the teacher says; alone with 200 labels; and, to compare, alone with all of them.
Without DATA it learns which package a sentence out of a docstring belongs to, NumPy or Keras. Few messages
are spam, so that accuracy says little; F1 is of spam. The file takes words as numbers: vocab.txt beside it
has them.

With --data it printed (mean ± standard deviation of 3 seeds, last epoch):

    text_spam/student.tflite: 39,086 bytes, agreement 99.95%
    5,574 sentences, 13% spam
                                        accuracy      F1 of spam
    teacher                         97.8 ± 0.4 %    91.7 ± 1.3 %
    student alone, 200 labels       93.8 ± 2.4 %   71.8 ± 11.4 %
    student alone, all labels       97.9 ± 0.1 %    91.6 ± 0.5 %
    student distilled, no labels    97.5 ± 0.2 %    90.2 ± 1.0 %
    … as int8                       97.5 ± 0.2 %    90.2 ± 0.9 %

The teacher is worth nearly all the labels that the student does not have. Who has them needs no teacher.
"""

import argparse
import inspect
import os
import pathlib
import re
import statistics
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.metrics import f1_score
from sklearn.model_selection import train_test_split

import keras_distill as kd
import tflite_export as te
from tflite_export import runtime

WORDS, LENGTH = 2000, 40
LABELLED, BATCH = 200, 32


def messages(path: str) -> tuple[list[str], np.ndarray]:
    """Lines of label, tab and message."""
    lines = pathlib.Path(path).read_text(encoding="utf-8").strip("\n").split("\n")
    labels, texts = zip(*(line.split("\t", 1) for line in lines), strict=True)
    return list(texts), np.array([label == "spam" for label in labels], "int32")


def docstrings() -> tuple[list[str], np.ndarray]:
    """The stand-in: sentences out of the docstrings of NumPy (0) and of Keras (1)."""
    packages = [np.linalg, np.random, np.ndarray], [keras.ops, keras.losses]
    found: dict[str, int] = {}
    for label, modules in enumerate(packages):
        for module in modules:
            for name in dir(module):
                text = " ".join((inspect.getdoc(getattr(module, name)) or "").split())
                for sentence in re.findall(r"[A-Z][^.>]{30,200}\.", text):
                    found.setdefault(sentence, label)
    return list(found), np.array(list(found.values()), "int32")


def split(places: np.ndarray, y: np.ndarray, count: int, seed: int) -> list[np.ndarray]:
    """What is left of `places`, and `count` of them, with as much spam in both."""
    return train_test_split(places, test_size=count, random_state=seed, stratify=y[places])


def teacher_network() -> keras.Model:
    x = tokens = keras.Input((LENGTH,), dtype="int32")
    x = keras.layers.Embedding(WORDS, 32, mask_zero=True)(x)
    x = keras.layers.SpatialDropout1D(0.3)(x)
    x = keras.layers.Bidirectional(keras.layers.LSTM(32))(x)
    x = keras.layers.Dropout(0.5)(x)
    return keras.Model(tokens, keras.layers.Dense(2, activation="softmax")(x))


def student_network() -> keras.Model:
    x = tokens = keras.Input((LENGTH,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(WORDS, 16)(x)
    x = keras.layers.Conv1D(16, 3, activation="relu")(x)
    pools = keras.layers.GlobalMaxPooling1D(), keras.layers.GlobalAveragePooling1D()
    x = keras.layers.Concatenate()([pool(x) for pool in pools])
    return keras.Model(tokens, keras.layers.Dense(2, activation="softmax", name="scores")(x))


def trained(model: keras.Model, x, y, epochs: int) -> keras.Model:
    """`model`, trained on labels."""
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)
    return model


def distilled(teacher: keras.Model, student: keras.Model, x, epochs: int) -> keras.Model:
    """`student`, taught without labels; the teacher, slow as it is, reads each message once."""
    with tempfile.TemporaryDirectory() as folder:
        labels = kd.SoftLabels.build(teacher, x, folder, verbose=False)
        loss = kd.losses.SoftTargets(temperature=2.0)
        distiller = kd.Distiller(labels, student, loss, student_loss_weight=0)
        distiller.compile(keras.optimizers.Adam(0.003))
        distiller.fit(labels.attach(x, BATCH), epochs=epochs, verbose=0)
    return student


def spread(values: list[float]) -> float:
    """Standard deviation of the seeds; 0 of a single one."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="lines of ham or spam, tab, message; else the stand-in")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", default="text_spam", help="folder for the file and its words")
    arguments = parser.parse_args()
    seeds, epochs = (2, 5) if arguments.quick else (arguments.seeds, arguments.epochs)
    output = pathlib.Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)

    texts, y = messages(arguments.data) if arguments.data else docstrings()
    names = ["ham", "spam"] if arguments.data else ["NumPy", "Keras"]
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(seeds):
        rest, test = split(np.arange(len(y)), y, len(y) // 3, seed)
        theirs, ours = split(rest, y, len(y) // 3, seed)
        _, few = split(ours, y, LABELLED, seed)
        keras.utils.set_random_seed(seed)
        vectorize = keras.layers.TextVectorization(WORDS, output_sequence_length=LENGTH)
        vectorize.adapt([texts[i] for i in theirs])
        x = np.asarray(vectorize(texts), "int32")

        teacher = trained(teacher_network(), x[theirs], y[theirs], epochs)
        again = np.resize(few, len(ours))  # as many steps as with all
        student = distilled(teacher, student_network(), x[ours], epochs)
        models = {
            "teacher": teacher,
            f"student alone, {LABELLED} labels": trained(
                student_network(), x[again], y[again], epochs
            ),
            "student alone, all labels": trained(student_network(), x[ours], y[ours], epochs),
            "student distilled, no labels": student,
        }
        answers = {name: model.predict(x[test], verbose=0) for name, model in models.items()}
        exported = te.export(
            student,
            output / "student.tflite",
            quantization="int8",
            representative_dataset=x[ours],
            labels=names,
        )
        (output / "vocab.txt").write_text("\n".join(vectorize.get_vocabulary()), encoding="utf-8")
        answers["… as int8"] = runtime.load(exported).run(x[test])
        agreement = te.verify(student, exported, x[test]).agreement
        for name, scores in answers.items():
            said = scores.argmax(-1)
            found.setdefault(name, []).append((np.mean(said == y[test]), f1_score(y[test], said)))
        print(f"Seed {seed + 1} of {seeds} done.", flush=True)
    print(f"{exported.path}: {exported.size_bytes:,} bytes, agreement {agreement:.2%}")
    print(f"{len(y):,} sentences, {np.mean(y):.0%} {names[1]}")
    print(f"{'':30s}{'accuracy':>14s}{f'F1 of {names[1]}':>16s}")
    for name, pairs in found.items():
        shown = [
            f"{100 * statistics.mean(one):.1f} ± {100 * spread(one):.1f} %"
            for one in zip(*pairs, strict=True)
        ]
        print(f"{name:30s}{shown[0]:>14s}{shown[1]:>16s}")


if __name__ == "__main__":
    main()
