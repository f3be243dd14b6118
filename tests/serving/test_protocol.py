"""The Open Inference Protocol: JSON, binary tensors, encoded images and classification."""

import base64
import json
import struct

import numpy as np
import pytest
from served import photo

from effnet.runtimes.predictor import load

HEADER = "Inference-Header-Content-Length"


@pytest.fixture
def tiny(serve_here, bundles):
    return serve_here(str(bundles / "tiny")), load(bundles / "tiny")


def images_of(model, count=2, seed=0):
    size = (count, *model.config.preprocess.size, model.config.preprocess.channels)
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def tensor(images, **more):
    return {"name": "image", "datatype": "UINT8", "shape": list(images.shape), **more}


def infer(served, body, *, model="tiny", status=200, content=None, **headers):
    data = json.dumps(body).encode() if content is None else content
    response = served.client.post(f"/v2/models/{model}/infer", content=data, headers=headers)
    assert response.status_code == status, response.text
    return response


def values_of(response, place=0):
    output = response.json()["outputs"][place]
    assert output["datatype"] == "FP32"
    return np.array(output["data"], np.float32).reshape(output["shape"])


def test_the_server_and_the_model_describe_themselves(tiny):
    served, _ = tiny
    for path in ("/v2", "/v2/"):
        about = served.client.get(path).json()
        assert about["name"] == "effnet"
        assert "binary_tensor_data" in about["extensions"]
    about = served.client.get("/v2/models/tiny").json()
    assert about["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 16, 16, 1]}]
    assert about["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]}]
    (version,) = about["versions"]
    assert served.client.get(f"/v2/models/tiny/versions/{version}").json() == about
    assert served.client.get("/v2/models/tiny/ready").json() == {"name": "tiny", "ready": True}
    assert served.client.get("/v2/health/live").json() == {"live": True}
    assert served.client.get("/v2/health/ready").json() == {"ready": True}
    assert served.client.get("/v2/models/tinny").status_code == 404
    assert served.client.get("/v2/models/tiny/versions/9").status_code == 404


@pytest.mark.parametrize("nested", [False, True])
def test_numbers_in_json_flat_or_nested(tiny, nested):
    served, model = tiny
    images = images_of(model)
    data = images.tolist() if nested else images.ravel().tolist()
    response = infer(served, {"id": "seven", "inputs": [tensor(images, data=data)]})
    assert response.json()["id"] == "seven"
    assert response.json()["model_name"] == "tiny"
    assert np.array_equal(values_of(response), model.outputs(images)), "to the last bit"


def test_binary_tensors_in_and_out(tiny):
    served, model = tiny
    images = images_of(model)
    given = tensor(images, parameters={"binary_data_size": images.nbytes})
    wanted = [{"name": "probabilities", "parameters": {"binary_data": True}}]
    for outputs in ({"outputs": wanted}, {"parameters": {"binary_data_output": True}}):
        head = json.dumps({"inputs": [given], **outputs}).encode()
        response = infer(served, None, content=head + images.tobytes(), **{HEADER: str(len(head))})
        length = int(response.headers[HEADER])
        (output,) = json.loads(response.content[:length])["outputs"]
        rows = np.frombuffer(response.content[length:], "<f4").reshape(output["shape"])
        assert output["parameters"] == {"binary_data_size": rows.nbytes}
        assert np.array_equal(rows, model.outputs(images))


def test_encoded_images_binary_base64_and_raw(tiny):
    served, model = tiny
    files = [photo(seed=1), photo(seed=2, form="JPEG")]
    truth = model.outputs(np.stack([model.prepare(file) for file in files]))
    packed = b"".join(struct.pack("<I", len(file)) + file for file in files)
    given = {"name": "image", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(packed)}}
    head = json.dumps({"inputs": [given]}).encode()
    response = infer(served, None, content=head + packed, **{HEADER: str(len(head))})
    assert np.array_equal(values_of(response), truth)
    texts = [base64.b64encode(file).decode() for file in files]
    response = infer(served, {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [2, 1], "data": texts}]})
    assert np.array_equal(values_of(response), truth)
    raw = infer(served, None, content=files[0], **{HEADER: "0"})
    rows = np.frombuffer(raw.content[int(raw.headers[HEADER]) :], "<f4")
    assert np.array_equal(rows, truth[0])
    alone = json.dumps({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1]}]}).encode()
    response = infer(served, None, content=alone + files[0], **{HEADER: str(len(alone))})
    assert np.array_equal(values_of(response), truth[:1]), "as OpenVINO Model Server takes a file"


def test_classification_names_the_best_classes(tiny):
    served, model = tiny
    images = images_of(model)
    outputs = [{"name": "probabilities", "parameters": {"classification": 3}}]
    data = images.ravel().tolist()
    (output,) = infer(served, {"inputs": [tensor(images, data=data)], "outputs": outputs}).json()["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 3])
    rows = model.outputs(images)
    best = [(row, i) for row in rows for i in np.argsort(-row)[:3]]
    assert output["data"] == [f"{row[i]:f}:{i}:{i}" for row, i in best], "the digits' names are their numbers"


def test_several_outputs_are_several_tensors(serve_here, bundles):
    served, model = serve_here(str(bundles / "parts")), load(bundles / "parts")
    images = images_of(model, 1)
    response = infer(served, {"inputs": [tensor(images, data=images.ravel().tolist())]}, model="parts")
    found = [values_of(response, place) for place in range(4)]
    assert np.array_equal(np.concatenate(found, axis=1), model.outputs(images))
    assert [output["name"] for output in response.json()["outputs"]] == list(model.engine._names)


def test_a_detector_returns_its_raw_boxes(serve_here, bundles):
    served, model = serve_here(str(bundles / "det")), load(bundles / "det")
    images = images_of(model, 1)
    response = infer(served, {"inputs": [tensor(images, data=images.ravel().tolist())]}, model="det")
    found = [values_of(response, place).reshape(1, -1) for place in range(2)]
    assert np.array_equal(np.concatenate(found, axis=1), model.outputs(images))


IMAGE = {"name": "image", "datatype": "UINT8", "shape": [1, 16, 16, 1]}


@pytest.mark.parametrize(
    "body, message",
    [
        ([], "must be a JSON object"),
        ({}, "inputs must be a list of one tensor"),
        ({"inputs": [IMAGE, IMAGE]}, "inputs must be a list of one tensor"),
        ({"inputs": ["image"]}, "an input must be a JSON object"),
        ({"id": 7, "inputs": [IMAGE]}, "id must be a text"),
        ({"inputs": [IMAGE | {"name": "input"}]}, "the input must be one of image"),
        ({"inputs": [IMAGE | {"datatype": "FP32"}]}, "datatype of image must be UINT8"),
        ({"inputs": [IMAGE | {"data": [1, 2]}]}, "must be 256 values"),
        ({"inputs": [IMAGE | {"data": [300] * 256}]}, "from 0 to 255"),
        ({"inputs": [IMAGE | {"data": [0.5] * 256}]}, "whole numbers"),
        ({"inputs": [IMAGE | {"data": "x"}]}, "whole numbers"),
        ({"inputs": [IMAGE | {"data": [[1], [2, 3]]}]}, "full nested list"),
        ({"inputs": [IMAGE | {"data": [10**30] * 256}]}, "whole numbers"),
        ({"inputs": [IMAGE | {"shape": [1, 16, 16, -1]}]}, "list of whole numbers"),
        ({"inputs": [IMAGE | {"shape": [256, 1], "data": [0] * 256}]}, "must have 1 to 64 images"),
        ({"inputs": [IMAGE | {"shape": [1, 8, 32, 1], "data": [0] * 256}]}, "[images, 16, 16, 1]"),
        ({"inputs": [IMAGE | {"parameters": {"binary_data_size": 9}}]}, "binary_data_size must be the 0 bytes"),
        ({"inputs": [IMAGE | {"data": [0] * 256}], "outputs": [{"name": "x"}]}, "the output must be one of"),
        ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["%"]}]}, "base64"),
        ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [2], "data": ["aGk="]}]}, "must be 2 encoded"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused_with_what_must_hold(tiny, body, message):
    served, _ = tiny
    response = served.client.post("/v2/models/tiny/infer", json=body)
    assert 400 <= response.status_code < 500
    assert message in response.json()["error"]


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"id": NaN', b"1" * 5000])
def test_damaged_json_is_refused(tiny, text):
    served, _ = tiny
    response = infer(served, None, content=text, status=400)
    assert "must be" in response.json()["error"]


@pytest.mark.parametrize("length", ["-1", "x", "9" * 20, "100000"])
def test_a_wrong_length_of_the_json_is_refused(tiny, length):
    served, _ = tiny
    infer(served, None, content=b"{}", status=400, **{HEADER: length})


def test_tritonclient_gets_the_exact_outputs(serve_process, bundles):
    """A client that others wrote: JSON, binary, encoded images, classification, metadata and health."""
    http = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
    server, model = serve_process(str(bundles / "tiny"), "--set", "serve.log_requests=false"), load(bundles / "tiny")
    client = http.InferenceServerClient(f"127.0.0.1:{server.port}")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.get_server_metadata()["name"] == "effnet"
    about = client.get_model_metadata("tiny")
    assert client.is_model_ready("tiny", about["versions"][0])
    images = images_of(model)
    for binary in (True, False):
        given = http.InferInput("image", list(images.shape), "UINT8")
        given.set_data_from_numpy(images, binary_data=binary)
        wanted = http.InferRequestedOutput("probabilities", binary_data=binary)
        for outputs in ([wanted], None):
            found = client.infer("tiny", [given], outputs=outputs, request_id="7")
            assert np.array_equal(found.as_numpy("probabilities"), model.outputs(images))
            assert found.get_response()["id"] == "7"
    given = http.InferInput("image", [1], "BYTES")
    given.set_data_from_numpy(np.array([photo()], dtype=np.object_))
    wanted = http.InferRequestedOutput("probabilities", class_count=2)
    found = client.infer("tiny", [given], outputs=[wanted]).as_numpy("probabilities")
    row = model.outputs(model.prepare(photo())[None])[0]
    assert [text.decode() for text in found[0]] == [f"{row[i]:f}:{i}:{i}" for i in np.argsort(-row)[:2]]
    client.close()
