"""predict and evaluate with several outputs."""

import csv
import dataclasses
import io
import json

import numpy as np
import pytest
from messages import refused
from PIL import Image
from several_outputs import SPECS, random_images, random_state, several_config

import effnet
from effnet.bundle.weights import save_bundle
from effnet.data.several.outputs import OutputSpec
from effnet.runtimes.onnxruntime.writer import export_onnx

ODD = OutputSpec(name="=odd", kind="one", classes=("a/x", "a/y", "b"), miss=(1.0, 1.0, 1e6))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    config = several_config((*SPECS, dataclasses.replace(ODD, name="odd")))
    state = random_state(config)
    save_bundle(folder, config, state)
    export_onnx(folder, config, state)
    return folder


@pytest.fixture(scope="module")
def photos(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number, pixels in enumerate(random_images(effnet.load(bundle).config, 6)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def answers(bundle, photos):
    return effnet.load(bundle).predict(sorted(photos.iterdir()))


def test_the_table_has_a_column_for_each_output(run_cli, bundle, photos, answers):
    lines = run_cli("predict", bundle, photos).out.strip().splitlines()
    assert lines[0].split() == ["image", "gender", "year", "tags", "pool", "odd"]
    assert len(lines) == 2 + len(answers)
    for line, found in zip(lines[2:], answers, strict=True):
        assert f"{found['year']:.6g}" in line
        assert all(tag in line for tag in found["tags"].present)
        assert found["gender"].label in line


def test_csv_has_the_answers_and_their_probabilities(run_cli, bundle, photos, answers):
    rows = list(csv.DictReader(io.StringIO(run_cli("predict", bundle, photos, "--format", "csv").out)))
    assert list(rows[0]) == [
        "path", "gender", "gender probability", "year", "tags", "tags:sea", "tags:sun", "tags:trees", "pool",
        "pool probability", "odd", "odd probability",
    ]  # fmt: skip
    for row, found in zip(rows, answers, strict=True):
        assert row["gender"] == found["gender"].label
        assert float(row["gender probability"]) == pytest.approx(found["gender"].probabilities[0], abs=1e-6)
        assert row["tags"] == "|".join(found["tags"].present)
        assert float(row["tags:sun"]) == pytest.approx(found["tags"].probabilities["sun"], abs=1e-6)
        assert float(row["year"]) == pytest.approx(found["year"], rel=1e-5)


def test_json_is_nested(run_cli, bundle, photos, answers):
    rows = json.loads(run_cli("predict", bundle, photos, "--format", "json", "--top", 2).out)
    for row, found in zip(rows, answers, strict=True):
        gender, tags = row["outputs"]["gender"], row["outputs"]["tags"]
        assert gender["known"] == found["gender"].known
        assert [p["label"] for p in gender["predictions"]] == list(found["gender"].labels)
        assert "parents" not in gender
        assert tags["tags"] == list(found["tags"].present)
        assert tags["probabilities"] == pytest.approx(dict(found["tags"].probabilities), abs=1e-6)
        assert row["outputs"]["year"] == found["year"]
        assert row["outputs"]["odd"]["parents"]["a"] == pytest.approx(found["odd"].parents["a"], abs=1e-6)
        assert len(row["outputs"]["pool"]["predictions"]) == 2


def test_costs_decide_and_probabilities_stay(bundle, photos, answers):
    for found in answers:
        odd = dict(zip(found["odd"].labels, found["odd"].probabilities, strict=True))
        assert found["odd"].label == "b"  # missing it costs a million
        assert sum(odd.values()) == pytest.approx(1, abs=1e-5)
        assert found["odd"].parents == {"a": pytest.approx(odd["a/x"] + odd["a/y"], abs=1e-6)}


def test_a_threshold_replaces_those_of_all_outputs(run_cli, bundle, photos):
    words = ["predict", bundle, photos, "--format", "json", "--threshold"]
    known = {
        threshold: [
            output["known"]
            for row in json.loads(run_cli(*words, threshold).out)
            for output in row["outputs"].values()
            if isinstance(output, dict) and "known" in output
        ]
        for threshold in (0, 1)
    }
    assert known == {0: [True] * 18, 1: [False] * 18}


@pytest.fixture
def manifest(photos, tmp_path, answers):
    """A manifest of the images with the model's own answers, half of the years unknown."""
    path = tmp_path / "data.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label:gender", "number:year", "tags:tags", "label:pool", "label:odd"])
        for number, (photo, found) in enumerate(zip(sorted(photos.iterdir()), answers, strict=True)):
            year = found["year"] if number % 2 else ""
            tags = "|".join(found["tags"].present) or "|"
            writer.writerow([photo, found["gender"].labels[0], year, tags, found["pool"].labels[0], "b"])
    return path


def test_evaluate_says_each_output(run_cli, bundle, manifest):
    ran = run_cli("evaluate", bundle, manifest)
    assert ran.code == 0, ran.err
    assert "5 outputs on 6 images" in ran.out
    assert "gender: accuracy 100.00% on 6 images" in ran.out
    assert "year: mean error (MAE) " in ran.out
    row = next(line.split() for line in ran.out.splitlines() if line.startswith(" year "))
    assert (row[0], row[-1]) == ("year", "3")
    assert "odd: accuracy 100.00% on 6 images" in ran.out
    assert "a mean cost of 0 an image" in ran.out
    found = json.loads(run_cli("evaluate", bundle, manifest, "--format", "json").out)
    assert [output["known"] for output in found["outputs"]] == [6, 3, 6, 6, 6]
    assert found["outputs"][1]["value"] == pytest.approx(0, abs=1e-3)
    assert found["mistakes"] == []


def test_unknown_images_are_measured_for_each_output_of_classes(run_cli, bundle, manifest, photos):
    found = json.loads(run_cli("evaluate", bundle, manifest, "--unknown-from", photos, "--format", "json").out)
    gender, year, *_ = found["outputs"]
    assert gender["classes"]["unknown"] == {"images": 6, "unreadable": 0, "rejected": 0.0, "auroc": 0.5}
    assert year["classes"] is None
    assert (
        "unknown images: 0.00% rejected, AUROC 0.500 on 6"
        in run_cli("evaluate", bundle, manifest, "--unknown-from", photos).out
    )
    assert "must be in a folder" in refused(run_cli("evaluate", bundle, manifest, "--unknown-from", photos / "gone"))


def test_names_that_act_in_a_terminal_or_spreadsheet_are_harmless(run_cli, tmp_path):
    specs = (
        OutputSpec(name="-a\x1b[31m", kind="one", classes=("+x\x07", "@y")),
        OutputSpec(name="b", kind="many", classes=("[red]",)),
    )
    config = several_config(specs)
    state = random_state(config)
    save_bundle(tmp_path / "odd", config, state)
    export_onnx(tmp_path / "odd", config, state)
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "0.png")
    for form in ("table", "csv", "json"):
        ran = run_cli("predict", tmp_path / "odd", tmp_path / "0.png", "--format", form)
        assert ran.code == 0, ran.err
        assert not {"\x1b", "\x07"} & set(ran.out)
    rows = list(
        csv.reader(io.StringIO(run_cli("predict", tmp_path / "odd", tmp_path / "0.png", "--format", "csv").out))
    )
    assert all(not cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row)
