"""POST /predict and /embed: every task's answers, in the form of the command line."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image
from served import photo
from typer.testing import CliRunner

from effnet.cli.main import app
from effnet.data.annotated.masks.shapes import Rle, counts_of, pixels_of
from effnet.runtimes.predictor import load


def printed(bundle, data, tmp_path, *options):
    """Return what `effnet predict --format json` prints for an image, without its path."""
    (tmp_path / "image").write_bytes(data)
    words = ["predict", str(bundle), str(tmp_path / "image"), "--format", "json", *options]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)
    del found["path"]
    return found


def without_head(answer, name):
    assert answer.pop("model") == name
    assert answer.pop("version")
    assert set(answer.pop("time_ms")) == {"queue", "decode", "run"}
    return answer


@pytest.mark.parametrize("name", ["tiny", "parts", "det", "seg"])
def test_an_answer_is_what_the_command_line_prints(serve_here, bundles, tmp_path, name):
    served, data = serve_here(str(bundles / name)), photo(form="JPEG", size=(200, 120))
    found, wanted = without_head(served.predict(data), name), printed(bundles / name, data, tmp_path)
    if name == "seg":
        assert (found.pop("mask"), wanted.pop("mask")) == (None, "")
    assert found == wanted


def test_top_and_threshold_are_those_of_the_command_line(serve_here, bundles, tmp_path):
    served, data = serve_here(str(bundles / "tiny")), photo()
    found = without_head(served.predict(data, top=2, threshold=0.999), "tiny")
    assert found == printed(bundles / "tiny", data, tmp_path, "--top", "2", "--threshold", "0.999")
    assert not found["known"]
    assert len(found["predictions"]) == 2
    detector = serve_here(str(bundles / "det"))
    assert detector.predict(data, threshold=0.999)["objects"] == []


def test_an_image_may_come_in_a_form_and_in_any_of_three_formats(serve_here, bundles):
    client = serve_here(str(bundles / "tiny")).client
    whole = client.post("/predict", content=photo(), headers={"content-type": "image/png"}).json()
    files = {"image": ("a.png", photo(), "image/png")}
    form = client.post("/predict", files=files, data={"note": "a field beside it"}).json()
    assert form["predictions"] == whole["predictions"]
    webp = client.post("/predict", content=photo(form="WEBP")).json()
    assert len(webp["predictions"]) == 5


def test_a_mask_comes_as_png_or_as_run_lengths(serve_here, bundles):
    served, data = serve_here(str(bundles / "seg")), photo(size=(90, 70))
    model = load(bundles / "seg")
    mask = model.predict(data)[0].mask
    png = served.predict(data, mask="png")["mask"]
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        assert np.array_equal(np.asarray(image), mask)
    for entry in served.predict(data, mask="rle")["mask"]:
        height, width = entry["size"]
        rle = Rle(height=height, width=width, counts=counts_of(entry["counts"]))
        number = model.config.class_names.index(entry["label"])
        assert np.array_equal(pixels_of(rle, height=height, width=width), mask == number)


def test_embeddings_come_from_the_file_of_features(serve_here, bundles, tmp_path):
    import shutil

    from effnet import export

    plain = serve_here(str(bundles / "tiny")).client.post("/embed", content=photo())
    assert plain.status_code == 400
    assert "effnet export" in plain.json()["error"]
    shutil.copytree(bundles / "tiny", tmp_path / "tiny")
    export(tmp_path / "tiny", features=True)
    found = serve_here(str(tmp_path / "tiny")).client.post("/embed", content=photo()).json()["embedding"]
    np.testing.assert_allclose(found, load(tmp_path / "tiny").embed(photo())[0], rtol=1e-6, atol=1e-8)


def test_many_requests_at_once_are_answered_as_one(serve_here, bundles):
    from concurrent.futures import ThreadPoolExecutor

    served = serve_here(str(bundles / "tiny"))
    images = [photo(seed=seed) for seed in range(24)]
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(served.predict, images))
    model = load(bundles / "tiny")
    for answer, prediction in zip(found, model.predict(images), strict=True):
        assert [each["label"] for each in answer["predictions"]] == list(prediction.labels)
        given = [each["probability"] for each in answer["predictions"]]
        np.testing.assert_allclose(given, prediction.probabilities, atol=2e-6)


@pytest.mark.parametrize(
    "query, message",
    [
        ({"topp": "3"}, "did you mean 'top'"),
        ({"top": "0"}, "top must be a whole number from 1"),
        ({"top": "9" * 50}, "top must be a whole number from 1"),
        ({"threshold": "nan"}, "threshold must be a probability"),
        ({"mask": "pgn"}, "did you mean 'png'"),
    ],
)
def test_a_wrong_parameter_is_refused(serve_here, bundles, query, message):
    response = serve_here(str(bundles / "tiny")).client.post("/predict", content=photo(), params=query)
    assert response.status_code == 400
    assert message in response.json()["error"]


def test_several_models_and_versions_are_found_by_name(serve_here, bundles):
    served = serve_here(f"a={bundles / 'tiny'}", f"b:1={bundles / 'parts'}", f"b:2={bundles / 'tiny'}")
    assert served.predict(photo())["model"] == "a"
    assert "outputs" in served.predict(photo(), model="b", version="1")
    assert served.predict(photo(), model="b")["version"] == "2", "the last one answers by default"
    missing = served.client.post("/predict", content=photo(), params={"model": "bb"})
    assert missing.status_code == 404
    assert "did you mean 'b'" in missing.json()["error"]
    missing = served.client.post("/predict", content=photo(), params={"model": "b", "version": "3"})
    assert missing.status_code == 404


def test_labels_are_text_whatever_they_hold(serve_here, tmp_path):
    from bundles import make_bundle

    (tmp_path / "odd").mkdir()
    names = ("Kühe und Äpfel 🍏", 'a "quoted" \\ one\n', "<img src=x onerror=alert(1)>")
    make_bundle(tmp_path / "odd", class_names=names)
    served = serve_here(str(tmp_path / "odd"))
    assert {each["label"] for each in served.predict(photo())["predictions"]} == set(names)
    assert served.client.get("/metrics").status_code == 200
