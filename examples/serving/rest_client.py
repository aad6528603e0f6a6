"""Asks a TF Serving server over REST what is on photos. Needs nothing but Python.

python rest_client.py digits photos/*.png --server http://localhost:8501
"""

import argparse
import base64
import json
import urllib.error
import urllib.request
from pathlib import Path


def call(url: str, body: dict | None = None, timeout: float = 10.0) -> dict:
    """POSTs `body` as JSON, or GETs; RuntimeError with the server's own sentence where it refuses."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise RuntimeError(
            f"{url}: {error.code}: {error.read().decode(errors='replace')}"
        ) from None


def available(server: str, model: str) -> list[str]:
    """The versions that answer requests."""
    states = call(f"{server}/v1/models/{model}")["model_version_status"]
    return [one["version"] for one in states if one["state"] == "AVAILABLE"]


def classify(server: str, model: str, photos: list[bytes]) -> list[list[tuple[str, float]]]:
    """(label, score) for each encoded photo, the best first."""
    body = {
        "signature_name": "image_bytes",
        "instances": [{"b64": base64.b64encode(photo).decode()} for photo in photos],
    }
    rows = call(f"{server}/v1/models/{model}:predict", body)["predictions"]
    return [list(zip(row["classes"], row["scores"], strict=True)) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--server", default="http://localhost:8501")
    asked = parser.parse_args()
    answers = classify(asked.server, asked.model, [path.read_bytes() for path in asked.photos])
    for path, answer in zip(asked.photos, answers, strict=True):
        print(f"{path}: {', '.join(f'{label} {score:.3f}' for label, score in answer)}")


if __name__ == "__main__":
    main()
