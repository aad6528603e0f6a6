"""Files with something changed, and a process of their own in which they are read: see test_fuzz.py.

    python mutations.py 0 2000 progress.txt float.tflite int8.tflite

Prints what became of them as JSON; `progress.txt` holds the number of the one that is being read. Imports
neither TensorFlow nor pytest.
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

KINDS = ("bits", "cut", "lost", "run", "swapped", "grown", "number")
NUMBERS = (0, 1, 12, 255, 65536, 2**20, 2**28, 2**31 - 1, 2**31, 2**32 - 1)
ADDRESS_SPACE = 6 << 30  # a reader that wants more is stopped before it takes the machine with it


def mutated(whole: bytes, seed: int) -> bytes:
    """A copy of a file with one to three changes of one kind; the same for the same seed."""
    rng = np.random.default_rng(seed)
    broken = bytearray(whole)
    kind = KINDS[seed % len(KINDS)]
    for _ in range(int(rng.integers(1, 4))):
        size = len(broken)
        if size < 16:
            break
        place = int(rng.integers(0, size))
        word = place // 4 * 4
        if kind == "bits":
            for bit in rng.integers(0, 8 * size, int(rng.integers(1, 9))):
                broken[bit // 8] ^= 1 << (bit % 8)
        elif kind == "cut":
            del broken[place:]
        elif kind == "lost":
            del broken[place : place + int(rng.integers(1, 64))]
        elif kind == "run":
            length = len(broken[place : place + int(rng.integers(1, 33))])
            broken[place : place + length] = bytes([int(rng.choice([0, 1, 127, 255]))]) * length
        elif kind == "swapped":
            other = int(rng.integers(0, size // 4)) * 4
            one, two = broken[word : word + 4], broken[other : other + 4]
            if len(one) == len(two) == 4:
                broken[word : word + 4], broken[other : other + 4] = two, one
        else:
            old = int.from_bytes(broken[word : word + 4], "little")
            grown = old * int(rng.choice([2, 3, 16, 256])) + int(rng.integers(0, 9))
            new = grown if kind == "grown" else int(rng.choice(NUMBERS))
            broken[word : word + 4] = (new % 2**32).to_bytes(4, "little")[: size - word]
    return bytes(broken)


def read_all(first: int, last: int, progress: Path, files: list[bytes]) -> dict:
    """What each reader made of the files: counts, what was no ValueError of one sentence, time, memory."""
    from tflite_export import flatbuffer, metadata, runtime
    from tflite_export.minimum_runtime import minimum_runtime

    def run(content: bytes) -> None:
        interpreter = runtime.load(content, num_threads=1)
        shapes = [[1 if d is None else d for d in one.shape] for one in interpreter.inputs]
        zeros = [np.zeros(s, i.dtype) for s, i in zip(shapes, interpreter.inputs, strict=True)]
        interpreter.run(zeros if len(zeros) > 1 else zeros[0])

    others = {
        "metadata": metadata.read_metadata,
        "minimum_runtime": minimum_runtime,
        "load": run,
    }
    told: dict = {"read": {}, "refused": {}, "wrong": [], "slowest": 0.0}

    def tried(seed: int, name: str, content: bytes, reader) -> bool:
        started = time.perf_counter()
        try:
            reader(content)
        except ValueError as error:
            told["refused"][name] = told["refused"].get(name, 0) + 1
            if "\n" in str(error) or not str(error).strip():
                told["wrong"].append([seed, name, str(error)])
            return False
        except Exception as error:
            told["wrong"].append([seed, name, repr(error)])
            return False
        finally:
            told["slowest"] = max(told["slowest"], time.perf_counter() - started)
        told["read"][name] = told["read"].get(name, 0) + 1
        return True

    for seed in range(first, last):
        progress.write_text(str(seed))
        content = mutated(files[seed % len(files)], seed)
        whole = tried(seed, "flatbuffer", content, flatbuffer.read)
        if (
            whole or seed % 10 == 0
        ):  # all of them begin with flatbuffer.read, and refuse what it does
            for name, reader in others.items():
                tried(seed, name, content, reader)
    return {**told, "peak_mb": peak_mb()}


def peak_mb() -> int:
    """The most memory that this process held. Linux counts in ru_maxrss what its parent held, too."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) >> 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 20


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    sys.path.insert(0, str(Path(__file__).parents[2]))
    _, first, last, progress, *paths = sys.argv
    contents = [Path(path).read_bytes() for path in paths]
    print(json.dumps(read_all(int(first), int(last), Path(progress), contents)))
