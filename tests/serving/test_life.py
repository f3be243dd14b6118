"""The life of a server in this process: loading, proof, reload, metrics, log and clients that leave."""

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from bundles import make_bundle
from served import photo

from effnet.bundle.config import read_config, write_config
from effnet.errors import BundleError
from effnet.measurement.drift.expected import expected_answers
from effnet.measurement.drift.statistics import stability_index
from effnet.runtimes.predictor import Predictor
from effnet.runtimes.recorded import record_answers
from effnet.serving.batches.batcher import Batch, Waiting
from effnet.serving.batches.work import Runner, Task
from effnet.serving.logs import trace_of
from effnet.serving.versions.prove import prove
from effnet.serving.versions.reloading import Changes
from effnet.serving.versions.version import Source, best_batch
from effnet.tasks.classification import Prediction

KEY = b"k" * 20


@pytest.fixture
def place(bundles, tmp_path):
    """A folder with a copy of the bundle of digits, to change."""
    shutil.copytree(bundles / "tiny", tmp_path / "digits")
    return tmp_path / "digits"


def other_bundle(folder: Path) -> Path:
    """Write a bundle of three classes."""
    folder.mkdir()
    return make_bundle(folder, class_names=("one", "two", '<img src=x onerror="alert(1)">'))


def test_until_its_models_are_loaded_a_server_is_live_and_not_ready(serve_here, place):
    served = serve_here(str(place), load=False)
    client = served.client
    assert client.get("/v2/health/live").status_code == 200
    for path in ("/v2/health/ready", "/health", "/v2/models/digits/ready"):
        assert client.get(path).status_code == 503
    response = client.post("/predict", content=photo())
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert "effnet_model_ready" in client.get("/metrics").text
    served.state.models.load()
    assert client.get("/v2/health/ready").status_code == 200
    assert client.get("/v2/models/digits/ready").json() == {"name": "digits", "ready": True}


def test_a_draining_server_is_not_ready_and_closes_connections_but_answers(serve_here, place):
    served = serve_here(str(place))
    served.state.life.draining = True
    assert served.client.get("/v2/health/ready").status_code == 503
    assert served.client.get("/health").json()["status"] == "draining"
    response = served.client.post("/predict", content=photo())
    assert (response.status_code, response.headers["connection"]) == (200, "close")


def test_a_reload_swaps_the_version_and_closes_the_old_one(serve_here, place, tmp_path):
    served = serve_here(f"m={place}", keys=(KEY,))
    client, key = served.client, {"authorization": f"Bearer {KEY.decode()}"}
    before = client.post("/predict", content=photo(), headers=key).json()
    shutil.rmtree(place)
    other_bundle(place)
    response = client.post("/admin/reload", headers=key)
    assert response.status_code == 200
    after = client.post("/predict", content=photo(), headers=key).json()
    assert after["version"] == response.json()["models"][0]["version"] != before["version"]
    assert {each["label"] for each in after["predictions"]} == {"one", "two", '<img src=x onerror="alert(1)">'}
    page = client.get("/metrics", headers=key).text
    assert f'version="{after["version"]}"' in page.split("effnet_model_info{")[1].splitlines()[0]
    assert page.count("effnet_model_info{") == 1
    pinned = client.post("/predict", content=photo(), params={"version": before["version"]}, headers=key)
    assert pinned.status_code == 404


def test_a_bad_new_version_leaves_the_old_one_serving(serve_here, place):
    served = serve_here(f"m={place}", keys=(KEY,))
    client, key = served.client, {"authorization": f"Bearer {KEY.decode()}"}
    before = client.post("/predict", content=photo(), headers=key).json()["version"]
    (place / "model.onnx").write_bytes((place / "model.onnx").read_bytes()[:5000])
    response = client.post("/admin/reload", headers=key)
    assert response.status_code == 422
    assert "answers still" in response.json()["error"]
    assert client.get("/v2/health/ready").status_code == 200
    assert client.post("/predict", content=photo(), headers=key).json()["version"] == before
    assert 'effnet_model_load_failures_total{model="m"} 1.0' in client.get("/metrics", headers=key).text
    assert served.logged("load_failed")


def test_reloading_over_http_needs_a_key(serve_here, place):
    response = serve_here(str(place)).client.post("/admin/reload")
    assert response.status_code == 401
    assert "--keys" in response.json()["error"]


def test_two_versions_of_a_model_must_differ(serve_here, place):
    served = serve_here(f"m:a={place}", f"m:b={place}", f"n={place}")
    assert len(served.client.get("/v2/models/m").json()["versions"]) == 2
    same = serve_here(f"m={place}", f"m:{served.state.models.find('n').version}={place}", load=False)
    errors = [each.error for each in same.state.models.load()]
    assert "two versions of m must differ" in errors[1]


def test_a_bundle_is_proven_by_the_answers_that_it_records(place):
    predictor = Predictor(place)
    assert prove(predictor).against == "itself"
    record_answers(predictor, place)
    proven = prove(predictor)
    assert (proven.against, proven.images) == ("proof.json", 2)
    assert proven.difference < 1e-6
    data = json.loads((place / "proof.json").read_text())
    data["answers"]["onnx"]["values"][1][3] += 0.01
    (place / "proof.json").write_text(json.dumps(data))
    with pytest.raises(BundleError, match=r"must answer as proof.json does, within 0.001; it differs by 0.01"):
        prove(predictor)
    data["answers"]["onnx"]["sha256"] = "0" * 64
    (place / "proof.json").write_text(json.dumps(data))
    assert prove(predictor).against == "itself", "it is that of another file"
    for damaged in ("{", "[]", '{"format": 1, "answers": []}'):
        (place / "proof.json").write_text(damaged)
        with pytest.raises(BundleError, match=r"proof.json"):
            prove(predictor)
    record_answers(predictor, place)
    assert prove(predictor).against == "proof.json", "a damaged record is written again"


def test_export_records_the_answers(place):
    from effnet import export

    export(place)
    assert prove(Predictor(place)).against == "proof.json"


def test_a_file_that_answers_otherwise_than_model_onnx_is_refused(place):
    """As one of other weights, whose digest somebody recorded all the same."""
    shutil.copy(place / "model.onnx", place / "model.fp16.onnx")
    predictor = Predictor(place, format="onnx-fp16")
    assert prove(predictor).against == "model.onnx"
    other_bundle(place.parent / "three")
    shutil.copy(place.parent / "three" / "model.onnx", place / "model.fp16.onnx")
    with pytest.raises(BundleError, match="must map image"):
        prove(Predictor(place, format="onnx-fp16"))


def test_a_runtime_that_does_not_run_in_parallel_has_an_engine_for_each_worker(serve_here, place):
    from concurrent.futures import ThreadPoolExecutor

    from effnet import export
    from effnet.runtimes.installed import missing

    if missing("litert"):
        pytest.skip("LiteRT is not installed")
    export(place, to="litert")
    onnx, litert = (serve_here(f"m={place}", use=use, workers=3) for use in (None, "litert"))
    assert len(onnx.state.models.find().predictors) == 1, "one session serves all threads"
    version = litert.state.models.find()
    assert len({id(version.engine(number).engine) for number in range(3)}) == 3
    assert version.proven.against == "proof.json"
    images = [photo(seed=seed) for seed in range(12)]
    with ThreadPoolExecutor(6) as pool:
        answers = zip(pool.map(onnx.predict, images), pool.map(litert.predict, images), strict=True)
        for first, second in answers:
            assert first["predictions"][0]["label"] == second["predictions"][0]["label"]


def test_the_best_batch_is_the_smallest_of_about_the_least_time():
    class Model:
        """Takes 10 ms a run and 1 ms an image, by a clock that it moves."""

        now = 0.0

        class config:
            preprocess = type("P", (), {"size": (1, 1), "channels": 1})
            task_record = type("T", (), {"whole": None})

        def outputs(self, images):
            self.now += 0.010 + 0.001 * len(images)

    model = Model()
    assert best_batch(model, most=8, clock=lambda: model.now)[0] == 8
    model.outputs = lambda images: setattr(model, "now", model.now + 0.001 * len(images))
    assert best_batch(model, most=8, clock=lambda: model.now)[0] == 1


def test_a_change_counts_once_it_has_rested(place, tmp_path):
    source = Source(name="m", folder=tmp_path / "current")
    (tmp_path / "current").symlink_to(place)
    changes = Changes([source])
    assert changes.look() == ()
    os.utime(place / "config.json", ns=(1, 1))
    assert changes.look() == (), "it may be half-written"
    assert changes.look() == (source,)
    assert changes.look() == ()
    shutil.copytree(place, tmp_path / "next")
    (tmp_path / "link").symlink_to(tmp_path / "next")
    os.rename(tmp_path / "link", tmp_path / "current")
    changes.look()
    assert changes.look() == (source,)
    (tmp_path / "next" / "config.json").unlink()
    assert (changes.look(), changes.look()) == ((), ()), "what is gone is not loaded"


def test_one_bad_image_does_not_harm_its_batch(serve_here, place):
    served = serve_here(str(place))
    version, replies = served.state.models.find(), {}

    def task(name, read, write=lambda version, rows, times: len(rows)):
        return Task(
            version=version, kind="rows", read=read, write=write, reply=lambda answer: replies.update({name: answer})
        )

    def good(version):
        return [version.first.prepare(photo())] * 2

    def bad(version):
        raise ValueError("damaged")

    seen = []
    tasks = [task("a", good), task("b", bad), task("c", good, write=bad), task("d", good)]
    waiting = [Waiting(item=each, group="g", images=1, since=0.0) for each in tasks]
    Runner(seen=seen.append)(0, Batch(requests=waiting, group="g", images=4, started=1.0))
    assert replies["a"] == replies["d"] == 2
    assert replies["b"].status == replies["c"].status == 500
    assert seen[0].images == 6
    assert tasks[0].times.queue == 1.0


def test_a_client_that_leaves_is_taken_out_of_the_queue(serve_here, place):
    served = serve_here(str(place), workers=1)
    app, workers = served.client.app, served.state.workers

    async def leave():
        held = asyncio.Event()
        messages = [{"type": "http.request", "body": photo(), "more_body": False}]

        async def receive():
            if messages:
                return messages.pop()
            held.set()
            await asyncio.sleep(0.05)
            return {"type": "http.disconnect"}

        async def send(message):
            raise AssertionError("nobody reads an answer")

        scope = {
            "type": "http", "method": "POST", "path": "/predict", "raw_path": b"/predict", "query_string": b"",
            "headers": [], "client": None, "root_path": "",
        }  # fmt: skip
        with workers._changed:  # no engine takes a request meanwhile
            task = asyncio.ensure_future(app(scope, receive, send))
            await held.wait()
            assert workers.counts()[0] == 1
            await task
            assert workers.counts()[0] == 0

    # The condition's lock may be taken again by the thread that holds it.
    asyncio.run(leave())
    assert served.logged("request")[-1]["code"] == 499
    assert served.predict(photo())["predictions"]


def test_metrics_count_what_happens(serve_here, place):
    served = serve_here(f"m={place}")
    for seed in range(3):
        served.predict(photo(seed=seed))
    served.predict(photo(), threshold=1)
    served.client.post("/predict", content=b"hello")
    page = served.client.get("/metrics").text
    version = served.state.models.find().version
    for line in (
        f'effnet_requests_total{{code="200",model="m",route="/predict",version="{version}"}} 4.0',
        'effnet_rejected_total{reason="format"} 1.0',
        'effnet_unknown_total{model="m"} 1.0',
        'effnet_confidence_count{model="m"} 4.0',
        'effnet_decode_duration_seconds_count{model="m"} 4.0',
        'effnet_queue_duration_seconds_count{model="m"} 4.0',
        "effnet_queue_length 0.0",
        'effnet_model_ready{model="m"} 1.0',
    ):
        assert line in page
    assert "process_resident_memory_bytes" in page
    if shutil.which("promtool"):
        subprocess.run(["promtool", "check", "metrics"], input=page, text=True, check=True, capture_output=True)


def test_labels_of_metrics_are_bounded(serve_here, tmp_path):
    names = tuple(f"class {i}" for i in range(150))
    (tmp_path / "many").mkdir()
    served = serve_here(str(make_bundle(tmp_path / "many", class_names=names)))
    version = served.state.models.find()
    for name in names:
        served.state.saw(version, Prediction(labels=(name,), probabilities=(0.5,)))
    page = served.client.get("/metrics").text
    assert page.count("effnet_predictions_total{") == 101
    assert 'effnet_predictions_total{label="other",model="many"} 50.0' in page


def test_a_request_is_logged_with_its_trace(serve_here, place):
    served, trace = serve_here(str(place)), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    served.client.post("/predict", content=photo(), headers={"traceparent": trace})
    served.client.post("/predict", content=photo(), headers={"traceparent": "00-0-0-01\n"})
    first, second = served.logged("request")
    assert first["traceparent"] == trace
    assert (first["code"], first["model"], first["bytes"]) == (200, "digits", len(photo()))
    assert set(first["time_ms"]) == {"queue", "decode", "run"}
    assert "traceparent" not in second
    assert trace_of("00-" + "0" * 32 + "-b7ad6b7169203331-01") is None


def test_the_stability_index_is_zero_for_equal_shares_and_grows():
    assert stability_index(np.array([10.0, 30.0]), np.array([100.0, 300.0])) == pytest.approx(0)
    # By hand: (0.5 - 0.25) ln(0.5 / 0.25) + (0.5 - 0.75) ln(0.5 / 0.75)
    found = stability_index(np.array([25.0, 75.0]), np.array([50.0, 50.0]))
    assert found == pytest.approx(0.25 * np.log(2) - 0.25 * np.log(2 / 3))


def test_drift_is_measured_against_the_report_of_the_test_split(serve_here, place):
    names = read_config(place).class_names
    confusion = np.zeros((10, 10), int)
    confusion[:, :2] = 5  # all test images were answered "0" or "1", half each
    bins = [{"low": 0.6, "high": 2 / 3, "images": 100}]
    report = {"test": {"confusion": confusion.tolist(), "sureness": {"reliability": bins}}}
    (place / "report.json").write_text(json.dumps(report))
    served = serve_here(f"m={place}")
    version = served.state.models.find()
    line = 'effnet_drift_stability_index{model="m",of="%s",version="%s"} '

    def indices(label, probability):
        for _ in range(500):
            served.state.saw(version, Prediction(labels=(label,), probabilities=(probability,)))
        page = served.client.get("/metrics").text
        return [float(page.split(line % (of, version.version))[1].split()[0]) for of in ("label", "confidence")]

    assert "effnet_drift_stability_index{" not in served.client.get("/metrics").text
    indices(names[0], 0.64)
    assert indices(names[1], 0.65) == pytest.approx([0, 0], abs=1e-9)
    label, confidence = indices(names[2], 0.2)
    assert label > 1
    assert confidence > 1


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"test": {"confusion": [[1]], "sureness": {"reliability": []}}}'])
def test_a_bundle_without_a_report_of_its_classes_has_no_drift(place, text):
    (place / "report.json").write_text(text)
    assert expected_answers(place, ("a", "b")) is None


def test_the_description_names_every_route(serve_here, place):
    served = serve_here(str(place), keys=(KEY,))
    about = served.client.get("/openapi.json", headers={"authorization": f"Bearer {KEY.decode()}"}).json()
    paths = {route.path for route in served.client.app._router.routes}
    assert {path.rstrip("/") for path in paths} == set(about["paths"])
    for path, verbs in about["paths"].items():
        route = next(each for each in served.client.app._router.routes if each.path == path)
        assert {verb.upper() for verb in verbs if verb in ("get", "post")} <= route.methods
    assert json.dumps(about["security"]) == '[{"key": []}]'


def test_a_bundle_that_changes_while_it_is_loaded_is_refused(serve_here, place, monkeypatch):
    served = serve_here(str(place), load=False)

    def slow(predictor):
        config = read_config(place)
        write_config(config, place, digests={"model.onnx": "0" * 64})
        return prove(predictor)

    monkeypatch.setattr("effnet.serving.versions.version.prove", slow)
    (result,) = served.state.models.load()
    assert "must not change while it is loaded" in result.error
    assert not served.state.ready
