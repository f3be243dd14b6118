"""The server as others' programs see it: promtool, tritonclient and schemathesis."""

import shutil
import subprocess

import numpy as np
import pytest
from served import photo


def test_promtool_accepts_the_metrics(serve_here, bundles):
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    served = serve_here(str(bundles / "tiny"))
    served.predict(photo())
    assert served.client.post("/predict", content=b"").status_code == 400
    page = served.client.get("/metrics").text
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.elsewhere
def test_tritonclient_works(serve_here, serve_socket, bundles):
    http = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
    served = serve_here(f"tiny:1={bundles / 'tiny'}")
    host, port = serve_socket(served.state)[:2]
    client = http.InferenceServerClient(f"{host}:{port}")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny", "1")
    facts = client.get_model_metadata("tiny")
    assert facts["inputs"][0]["name"] == "image"
    data = photo()
    expected = {row["label"]: row["probability"] for row in served.predict(data, top=10)["predictions"]}
    image = http.InferInput("image", [1], "BYTES")
    image.set_data_from_numpy(np.array([data], dtype=np.object_))
    best = http.InferRequestedOutput(facts["outputs"][0]["name"], class_count=3)
    rows = client.infer("tiny", [image], outputs=[best], request_id="7")
    assert rows.get_response()["id"] == "7"
    value, _, label = rows.as_numpy(facts["outputs"][0]["name"]).ravel()[0].decode().split(":")
    assert float(value) == pytest.approx(expected[label], abs=1e-4)
    predictor = served.state.models.find().first
    pixels = np.stack([predictor.prepare(data)] * 2)
    for binary in (True, False):
        tensor = http.InferInput("image", list(pixels.shape), "UINT8")
        tensor.set_data_from_numpy(pixels, binary_data=binary)
        wanted = http.InferRequestedOutput(facts["outputs"][0]["name"], binary_data=binary)
        found = client.infer("tiny", [tensor], outputs=[wanted]).as_numpy(facts["outputs"][0]["name"])
        np.testing.assert_allclose(found[0], found[1])
        assert float(found[0].max()) == pytest.approx(max(expected.values()), abs=1e-4)
    with pytest.raises(Exception, match="must be one of tiny"):
        client.get_model_metadata("tinny")
    client.close()


@pytest.mark.elsewhere
def test_no_request_that_schemathesis_makes_of_the_description_is_an_error_of_the_server(
    serve_here, serve_socket, bundles
):
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    from hypothesis import HealthCheck, given, settings

    served = serve_here(str(bundles / "tiny"))
    host, port = serve_socket(served.state)[:2]
    schema = schemathesis.openapi.from_url(f"http://{host}:{port}/openapi.json")
    codes = []
    for operation in schema.get_all_operations():

        @settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.ok().as_strategy())
        def check(case):
            response = case.call()
            codes.append(response.status_code)
            assert response.status_code < 500, (case.method, case.path, response.text)
            if response.status_code >= 400:
                assert "must" in response.json()["error"] or "takes" in response.json()["error"]

        check()
    assert {200, 400} <= set(codes)
