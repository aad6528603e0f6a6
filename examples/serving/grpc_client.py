"""Asks a TF Serving server over gRPC what is on photos: pip install 'keras-distill[serving]'.

python grpc_client.py digits photos/*.png --server localhost:8500
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


def classify(
    server: str, model: str, photos: list[bytes], timeout: float = 10.0
) -> list[list[tuple[str, float]]]:
    """(label, score) for each encoded photo, the best first."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = "image_bytes"
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(photos, tf.string))
    with grpc.insecure_channel(server) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        outputs = stub.Predict(request, timeout).outputs
    classes, scores = (tf.make_ndarray(outputs[name]) for name in ("classes", "scores"))
    return [
        [(label.decode(), float(score)) for label, score in zip(labels, row, strict=True)]
        for labels, row in zip(classes, scores, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--server", default="localhost:8500")
    asked = parser.parse_args()
    answers = classify(asked.server, asked.model, [path.read_bytes() for path in asked.photos])
    for path, answer in zip(asked.photos, answers, strict=True):
        print(f"{path}: {', '.join(f'{label} {score:.3f}' for label, score in answer)}")


if __name__ == "__main__":
    main()
