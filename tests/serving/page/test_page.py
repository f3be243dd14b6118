"""The page without a browser: what it shows to whom, what it takes from whom, and the scores behind it."""

import json
import threading
import time

import numpy as np
import pytest
from page_names import HOSTILE
from PIL import Image
from served import photo

from effnet.data.corrections import read_corrections
from effnet.errors import DataError, InputError
from effnet.runtimes.predictor import Predictor
from effnet.serving.batches.work import Task
from effnet.serving.page.confusions import of_report, pairs_of, rows_of
from effnet.serving.page.gallery import read_gallery
from effnet.serving.page.projection import project
from effnet.serving.page.site import statics
from effnet.system.options import command_words

KEY = b"k" * 20
VIEWS = ("/", "/review", "/confusions", "/map")
WRITE = {"content-type": "application/json", "origin": "http://127.0.0.1"}


@pytest.fixture
def paged(serve_here, page_bundle, page_images, tmp_path):
    """Return what serves the page with the hostile images, and waits until all are scored and placed."""

    def start(*words, scored=True, **options):
        options = {"page": True, "review": str(page_images), "corrections": str(tmp_path / "c.jsonl")} | options
        served = serve_here(*(words or (f"m={page_bundle}",)), **options)
        until = time.monotonic() + 300
        while scored and "data-number" not in served.client.get("/map", headers=header(options)).text:
            assert time.monotonic() < until
            time.sleep(0.05)
        return served

    return start


def header(options):
    return {"authorization": f"Bearer {KEY.decode()}"} if options.get("keys") else {}


def test_every_view_is_html_that_can_run_nothing_else(paged):
    served = paged()
    for path in (*VIEWS, "/confusions?of=test&true=0&predicted=2", "/confusions?of=review", "/map?image=3"):
        response = served.client.get(path)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        assert response.headers["cache-control"] == "no-store"
        policy = dict(
            part.strip().partition(" ")[::2] for part in response.headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == "'self'"
        assert "unsafe" not in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "onerror=hacked" in response.text or path == "/review"
        assert not [name for name in HOSTILE[:2] if name in response.text]  # none is there unescaped
        assert " style=" not in response.text
        assert " onclick=" not in response.text


def test_the_whole_page_is_small_and_its_files_are_kept(paged):
    served = paged(review=None, scored=False)
    whole = len(served.client.get("/").content)
    for name, found in statics().items():
        response = served.client.get(found.path)
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        kind = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}[name.rpartition(".")[2]]
        assert response.headers["content-type"].startswith(kind)
        assert "http:" not in response.text.replace("http://www.w3.org/2000/svg", "")
        whole += len(response.content)
    assert whole <= 60_000
    for path in ("/review", "/map"):
        assert "effnet serve BUNDLE --review photos/" in served.client.get(path).text


def test_a_server_with_keys_shows_nothing_before_it_has_one(paged):
    served = paged(keys=(KEY,))
    for path in VIEWS:
        response = served.client.get(path)
        assert response.status_code == 401
        assert "This server needs a key" in response.text
        assert "hacked" not in response.text
        assert "24" not in response.text.split("</header>")[1]
        response = served.client.get(path, headers=header({"keys": True}))
        assert response.status_code == 200
        assert "This server needs a key" not in response.text
    assert all(served.client.get(found.path).status_code == 200 for found in statics().values())
    assert served.client.get("/review/images/0").status_code == 401
    assert served.client.get("/review/images/0", headers=header({"keys": True})).status_code == 200
    assert served.client.post("/review/decide", json={"image": 0, "class": 0}).status_code == 401


def test_decisions_are_lines_that_fit_reads(paged, page_images, tmp_path):
    served = paged()
    gallery = read_gallery(str(page_images))

    def decide(data):
        response = served.client.post("/review/decide", content=json.dumps(data), headers=WRITE)
        assert response.status_code == 200, response.text
        return response.json()["image"]

    assert decide({"image": 0, "class": 2}) == 0
    assert decide({"image": 1, "class": None}) == 1
    assert decide({"image": 2, "class": 1}) == 2
    assert decide({"undo": True}) == 2
    found = {each.path: each.label for each in read_corrections(tmp_path / "c.jsonl")}
    assert found == {gallery.names[0]: HOSTILE[2], gallery.names[1]: None}
    lines = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().splitlines()]
    assert [line.get("new") for line in lines] == [HOSTILE[2], None, HOSTILE[1], None]
    version = served.state.models.find().version
    assert (lines[0]["model"], lines[0]["version"], lines[0]["old"]) == ("m", version, HOSTILE[0])
    page = served.client.get("/review").text
    assert "2 decided: 1 corrected, 1 left out" in page
    assert decide({"undo": True}) == 1
    assert decide({"undo": True}) == 0
    assert decide({"undo": True}) is None
    assert read_corrections(tmp_path / "c.jsonl") == ()


def test_decisions_of_before_are_known_and_a_damaged_file_ends_the_start(paged, page_images, tmp_path):
    first = read_gallery(str(page_images)).names[0]
    (tmp_path / "c.jsonl").write_text(json.dumps({"path": first, "new": "plain"}))  # without its end of line
    served = paged()
    assert "1 decided: 1 corrected" in served.client.get("/review").text
    served.client.post("/review/decide", content='{"image": 1, "class": null}', headers=WRITE)
    assert len(read_corrections(tmp_path / "c.jsonl")) == 2
    (tmp_path / "bad.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"bad\.jsonl:1"):
        paged(corrections=str(tmp_path / "bad.jsonl"), scored=False)


REFUSED = [
    ({"image": 0, "class": 0}, {"content-type": "application/json"}, 403),
    ({"image": 0, "class": 0}, WRITE | {"origin": "http://evil.example"}, 403),
    ({"image": 0, "class": 0}, WRITE | {"origin": "null"}, 403),
    ({"image": 0, "class": 0}, WRITE | {"content-type": "text/plain"}, 415),
    ({"image": 24, "class": 0}, WRITE, 400),
    ({"image": 0, "class": 3}, WRITE, 400),
    ({"image": True, "class": 0}, WRITE, 400),
    ({"image": 0}, WRITE, 400),
    ([], WRITE, 400),
]


def test_a_decision_must_come_from_the_page_and_be_one(paged, tmp_path):
    served = paged()
    for data, headers, code in REFUSED:
        response = served.client.post("/review/decide", content=json.dumps(data), headers=headers)
        assert (response.status_code, "; " in response.json()["error"]) == (code, True), data
    assert not (tmp_path / "c.jsonl").exists()


def test_another_name_for_this_machine_gets_no_images(paged):
    """A page elsewhere whose name leads here: DNS rebinding."""
    served = paged()
    for path in (*VIEWS, "/review/images/0"):
        assert served.client.get(path, headers={"host": "evil.example"}).status_code == 403
        assert served.client.get(path, headers={"host": "localhost:8000"}).status_code == 200


def test_images_are_small_copies_without_what_a_camera_adds(serve_here, page_bundle, tmp_path):
    (folder := tmp_path / "one").mkdir()
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "a secret place", 6
    Image.fromarray(np.zeros((300, 900, 3), np.uint8)).save(folder / "a.jpg", exif=exif)
    served = serve_here(f"m={page_bundle}", page=True, review=str(folder))
    response = served.client.get("/review/images/0?size=176")
    assert response.headers["content-type"] == "image/jpeg"
    assert b"secret" not in response.content
    (tmp_path / "shown.jpg").write_bytes(response.content)
    with Image.open(tmp_path / "shown.jpg") as image:
        assert image.height == 176  # upright
        assert image.width < 70
    assert served.client.get("/review/images/1").status_code == 404
    assert served.client.get("/review/images/0?size=5000").status_code == 400
    (folder / "a.jpg").write_bytes(b"gone")
    assert served.client.get("/review/images/0").status_code == 422


def test_images_are_scored_only_while_no_engine_runs_and_are_none_of_the_metrics(paged, page_bundle):
    served = paged(scored=False, workers=1)
    workers, version = served.state.workers, served.state.models.find()
    running, go = threading.Event(), threading.Event()

    def read(version):
        running.set()
        assert go.wait(60)
        return (np.zeros((16, 16, 1), np.uint8),)

    def task(replied, read):
        return Task(version=version, kind="rows", read=read, write=lambda *a: None, reply=replied.append)

    answers = []
    workers.offer(task(answers, read), group="m rows")
    assert running.wait(60)
    assert workers.offer_if_idle(task(answers, read), group="m rows") is None
    assert workers.counts() == (0, 1)  # the review waits as well
    go.set()
    until = time.monotonic() + 300
    while "data-number" not in served.client.get("/map").text:
        assert time.monotonic() < until
        time.sleep(0.05)
    page = served.client.get("/metrics").text
    assert 'effnet_batch_size_sum{model="m"} 1.0' in page  # the one above
    assert "effnet_predictions_total{" not in page


def test_the_order_of_the_review_is_that_of_the_predictor(paged, page_bundle, page_images):
    served = paged()
    predictor, gallery = Predictor(page_bundle), read_gallery(str(page_images))
    rows = predictor.outputs(np.stack([predictor.prepare(path) for path in gallery.sources]))
    ordered = np.sort(rows, axis=1)
    least = int(np.argmax(1 - (ordered[:, -1] - ordered[:, -2])))
    assert f'data-image="{least}"' in served.client.get("/review").text
    labels = np.repeat(np.arange(3), 8)
    confusion = np.zeros((3, 3), int)
    np.add.at(confusion, (labels, rows.argmax(1)), 1)
    page = served.client.get("/confusions?of=review").text
    for true, predicted in np.ndindex(3, 3):
        count = confusion[true, predicted]
        assert (f"true={true}&amp;predicted={predicted}" in page) == bool(count)
    true, predicted = np.unravel_index(confusion.argmax(), (3, 3))
    page = served.client.get(f"/confusions?of=review&true={true}&predicted={predicted}").text
    shown = {int(part.split("?")[0]) for part in page.split("/review/images/")[1:]}
    assert shown == set(np.flatnonzero((labels == true) & (rows.argmax(1) == predicted)).tolist())


def test_the_matrix_of_the_report_has_its_counts_and_intervals(page_bundle, tmp_path):
    found = of_report(page_bundle, HOSTILE)
    rows = rows_of(found)
    assert [[cell.count for cell in row.cells] for row in rows] == [[5, 1, 2], [0, 8, 0], [3, 0, 5]]
    assert (rows[1].recall, rows[1].high) == (1.0, 1.0)
    assert rows[0].low < rows[0].recall == 5 / 8 < rows[0].high
    assert [(cell.true, cell.predicted, cell.count) for cell in pairs_of(found)] == [(2, 0, 3), (0, 2, 2), (0, 1, 1)]
    for text in ("{", "[]", '{"test": {"confusion": [[1, 2]]}}', '{"test": {"confusion": "no"}}', '{"test": 3}'):
        (tmp_path / "report.json").write_text(text)
        assert of_report(tmp_path, HOSTILE) is None


@pytest.mark.parametrize("shape", [(40, 12), (7, 30), (2, 3), (1, 3), (5, 1)])
def test_the_map_has_the_principal_components(shape):
    vectors = np.random.default_rng(1).normal(size=shape).astype(np.float32) * np.linspace(3, 1, shape[1])
    points, shares = project(vectors)
    centred = vectors - vectors.mean(0)
    left, sizes, _ = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    wanted = np.zeros((shape[0], 2))
    wanted[:, : min(2, len(sizes))] = (left * sizes)[:, :2]
    assert points.shape == (shape[0], 2)
    if shape[0] > 1:
        assert np.abs(points) == pytest.approx(np.abs(wanted), abs=1e-3)
        assert shares == pytest.approx(((wanted**2).sum(0) / (sizes**2).sum()).tolist(), abs=1e-4)


def test_a_heat_map_is_that_of_the_predictor(paged, page_bundle, serve_here, bundles):
    served, data = paged(review=None, scored=False), photo(mode="L")
    answer = served.predict(data, heatmap="1")
    predictor = Predictor(page_bundle)
    maps = predictor.maps(predictor.prepare(data)[None])[0]
    first = HOSTILE.index(answer["predictions"][0]["label"])
    assert answer["heatmap"]["view"] == {"mode": "center", "share": pytest.approx(16 / 18)}
    found = answer["heatmap"]["maps"][0]
    assert np.array(found["map"]) * found["limit"] == pytest.approx(
        maps[first] - maps.mean(0), abs=2e-3 * found["limit"]
    )
    assert np.abs(found["map"]).max() == 1
    other = serve_here(f"t={bundles / 'tiny'}")
    response = other.client.post("/predict?heatmap=1", content=data)
    assert (response.status_code, "effnet export BUNDLE --maps" in response.json()["error"]) == (400, True)
    assert other.client.post("/predict?heatmap=2", content=data).status_code == 400


def test_other_tasks_are_tried_and_mapped_but_not_reviewed(serve_here, bundles, page_images):
    words = [f"{name}={bundles / name}" for name in ("det", "seg", "parts")]
    served = serve_here(*words, page=True, review=str(page_images))
    for name, kind in (("det", "detection"), ("seg", "segmentation"), ("parts", "several")):
        assert f'data-kind="{kind}"' in served.client.get(f"/?model={name}").text
    until = time.monotonic() + 300
    while "Nothing to correct here" not in (page := served.client.get("/review").text):
        assert time.monotonic() < until, page
        time.sleep(0.05)
    assert served.client.get("/?model=other").status_code == 404


def test_a_review_needs_images_with_names(tmp_path):
    with pytest.raises(InputError, match="digits holds images without names"):
        read_gallery("digits")
    with pytest.raises(DataError):
        read_gallery(str(tmp_path))


def test_the_page_can_be_left_out(serve_here, page_bundle):
    from effnet.serving.settings import Settings

    assert Settings().page
    assert command_words(Settings(page=False)) == ["--no-page"]
    assert serve_here(f"m={page_bundle}").client.get("/").status_code == 404
