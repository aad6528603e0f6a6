"""The clients of examples/serving speak TF Serving's protocols, to a stub that loads the same version.

The stub is not TF Serving. It reads requests by the messages of tensorflow-serving-api, and by the JSON
that TF Serving's REST page documents.
"""

import base64
import contextlib
import http.server
import importlib.util
import json
import sys
import threading
from concurrent import futures
from pathlib import Path

import pytest
import tensorflow as tf

pytest.importorskip(
    "tensorflow_serving.apis",
    reason="tensorflow-serving-api is not installed: pip install 'keras-distill[serving]'",
)
import grpc
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

EXAMPLE = Path(__file__).parents[2] / "examples" / "serving"
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def module(name):
    spec = importlib.util.spec_from_file_location(f"serving_{name}", EXAMPLE / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    """The example's version, its folder with the photos, and the loaded model."""
    folder = tmp_path_factory.mktemp("example")
    exported = module("make_model").main(folder)
    return exported, folder, tf.saved_model.load(str(exported.path))


@contextlib.contextmanager
def rest_stub(signatures):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            assert self.path == "/v1/models/digits"
            states = [{"version": "1", "state": "AVAILABLE"}, {"version": "2", "state": "LOADING"}]
            self.answer(200, {"model_version_status": states})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/v1/models/digits:predict"
            assert set(body) == {"signature_name", "instances"}
            # A single input is given without its name, bytes as {"b64": …}.
            files = [base64.b64decode(one["b64"], validate=True) for one in body["instances"]]
            try:
                outputs = signatures[body["signature_name"]](image_bytes=tf.constant(files))
            except tf.errors.InvalidArgumentError as error:
                self.answer(400, {"error": str(error)})
                return
            columns = {
                name: [
                    [v.decode() if isinstance(v, bytes) else float(v) for v in row]
                    for row in t.numpy()
                ]
                for name, t in outputs.items()
            }
            rows = [
                dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
            ]
            self.answer(200, {"predictions": rows})

        def answer(self, code, body):
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextlib.contextmanager
def grpc_stub(signatures):
    class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            assert request.model_spec.name == "digits"
            inputs = {n: tf.constant(tf.make_ndarray(t)) for n, t in request.inputs.items()}
            response = predict_pb2.PredictResponse()
            for name, tensor in signatures[request.model_spec.signature_name](**inputs).items():
                response.outputs[name].CopyFrom(tf.make_tensor_proto(tensor.numpy()))
            return response

    server = grpc.server(futures.ThreadPoolExecutor(1))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_a_client_reads_the_digits(protocol, version):
    _, folder, loaded = version
    client = module(f"{protocol}_client")
    photos = [(folder / "photos" / f"{name}.png").read_bytes() for name in DIGITS]
    stub = {"rest": rest_stub, "grpc": grpc_stub}[protocol]
    with stub(loaded.signatures) as server:
        answers = client.classify(server, "digits", photos)
    assert [len(answer) for answer in answers] == [3] * 10
    assert sum(answer[0][0] == name for answer, name in zip(answers, DIGITS, strict=True)) >= 9
    for answer in answers:
        scores = [score for _, score in answer]
        assert scores == sorted(scores, reverse=True)
        assert 0 < sum(scores) <= 1 + 1e-5


def test_the_rest_client_tells_versions_and_the_server_s_own_sentence(version):
    client = module("rest_client")
    with rest_stub(version[2].signatures) as server:
        assert client.available(server, "digits") == ["1"]
        with pytest.raises(RuntimeError, match=r"400: .*Unknown image file format"):
            client.classify(server, "digits", [b"no photo"])
