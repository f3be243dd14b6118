"""predict: images with any name and any defect."""

import csv
import io
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from messages import refused
from PIL import Image

import effnet


def paths_of(ran):
    assert ran.code == 0, ran.err
    return [row["path"] for row in json.loads(ran.out)]


def test_one_image_gets_its_classes_best_first(run_cli, small_bundle, images):
    (found,) = json.loads(run_cli("predict", small_bundle, images / "plain.png", "--format", "json").out)
    (expected,) = effnet.load(small_bundle).predict([images / "plain.png"])
    assert tuple(p["label"] for p in found["predictions"]) == expected.labels
    assert [p["probability"] for p in found["predictions"]] == pytest.approx(expected.probabilities, abs=1e-6)
    assert len(expected.labels) == 5


def test_top_says_how_many_classes(run_cli, small_bundle, images):
    (found,) = json.loads(run_cli("predict", small_bundle, images / "plain.png", "--top", 99, "--format", "json").out)
    assert len(found["predictions"]) == 10
    assert sum(p["probability"] for p in found["predictions"]) == pytest.approx(1, abs=1e-4)


def test_a_folder_is_all_images_below_it(run_cli, small_bundle, images):
    (images / "notes.txt").write_text("no image")
    found = paths_of(run_cli("predict", small_bundle, images, "--format", "json"))
    assert found == sorted(str(path) for path in images.rglob("*.png"))
    assert len(found) == 7


def test_a_file_with_brackets_is_itself_and_a_glob_is_its_matches(run_cli, small_bundle, images, monkeypatch):
    monkeypatch.chdir(images)
    assert paths_of(run_cli("predict", small_bundle, "[1].png", "--format", "json")) == ["[1].png"]
    assert paths_of(run_cli("predict", small_bundle, "p*.png", "--format", "json")) == ["plain.png"]
    assert paths_of(run_cli("predict", small_bundle, "**/*.png", "--format", "json"))[0] == "[1].png"


def test_a_dash_reads_the_list_from_stdin(run_cli, small_bundle, images):
    names = [str(images / name) for name in ("é 😀.png", "a b.png")]
    ran = run_cli("predict", small_bundle, "-", "--format", "json", stdin="\r\n".join([*names, "", ""]).encode())
    assert paths_of(ran) == names
    assert paths_of(run_cli("predict", small_bundle, "-", "--format", "json")) == []


def test_a_name_that_is_no_text_is_escaped_not_fatal(run_cli, small_bundle, images):
    raw = os.fsencode(images) + b"/\xff.png"
    try:
        shutil.copy(images / "plain.png", raw)
    except OSError:
        pytest.skip("this file system wants names in UTF-8")
    for output in ("json", "csv", "table"):
        ran = run_cli("predict", small_bundle, "-", "--format", output, stdin=raw)
        assert ran.code == 0, ran.err
        assert "\\udcff.png" in ran.out
    assert paths_of(run_cli("predict", small_bundle, "-", "--format", "json", stdin=raw)) == [os.fsdecode(raw)]


def test_csv_has_a_row_a_class_and_quotes_what_needs_it(run_cli, small_bundle, images):
    ran = run_cli("predict", small_bundle, images, "--format", "csv", "--top", 2)
    rows = list(csv.DictReader(io.StringIO(ran.out, newline="")))
    assert [row["path"] for row in rows[::2]] == sorted(str(path) for path in images.rglob("*.png"))
    assert [row["rank"] for row in rows] == ["1", "2"] * 7
    assert all(0 <= float(row["probability"]) <= 1 for row in rows)


def test_a_threshold_makes_images_unknown(run_cli, small_bundle, images):
    words = ["predict", small_bundle, images / "plain.png", "--threshold"]
    assert "unknown (best guess: " in run_cli(*words, 1).out
    assert "unknown" not in run_cli(*words, 0).out
    for threshold, known in ((1, False), (0, True)):
        (found,) = json.loads(run_cli(*words, threshold, "--format", "json").out)
        assert found["known"] is known
        assert len(found["predictions"]) == 5
        rows = list(csv.DictReader(io.StringIO(run_cli(*words, threshold, "--format", "csv").out)))
        assert [row["known"] for row in rows] == [str(known).lower()] * 5
    assert refused(run_cli(*words, 2)) == "the threshold must be a probability from 0 to 1; got 2.0"


def test_the_table_keeps_one_line_a_image(run_cli, small_bundle, images, monkeypatch):
    monkeypatch.chdir(images)
    lines = run_cli("predict", small_bundle, ".").out.strip().splitlines()
    names = [line.strip().split("  ")[0] for line in lines[2:]]
    assert names == [
        "[1].png",
        "a b.png",
        "deep er/last.png",
        r"new\nline.png",
        "plain.png",
        "quote\"'.png",
        "é 😀.png",
    ]


def test_more_images_than_a_batch_come_in_order(run_cli, small_bundle, images):
    words = [images / "plain.png", images / "a b.png"] * 20
    assert paths_of(run_cli("predict", small_bundle, *words, "--format", "json")) == list(map(str, words))


def test_unreadable_images_are_named_and_the_others_predicted(run_cli, small_bundle, images):
    (images / "broken\n.png").write_bytes((images / "plain.png").read_bytes()[:60])
    (images / "empty.png").touch()
    ran = run_cli("predict", small_bundle, images, "--format", "json")
    assert ran.code == 2
    assert len(json.loads(ran.out)) == 7
    lines = ran.err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"effnet: {images}/broken\\n.png: ")
    assert lines[1] == f"effnet: {images}/empty.png: the file is empty (0 bytes)"
    assert lines[2] == "effnet: 2 images were not readable"


def test_a_missing_file_on_stdin_is_an_unreadable_image(run_cli, small_bundle, images):
    ran = run_cli("predict", small_bundle, "-", "--format", "json", stdin=f"gone.png\n{images}/plain.png\n".encode())
    assert ran.code == 2
    assert ran.err == "effnet: gone.png: no such file or directory\neffnet: 1 image was not readable\n"
    assert len(json.loads(ran.out)) == 1


@pytest.mark.parametrize("word", ["gone.png", "gone/*.png", "x" * 400, ""])
def test_a_word_that_stands_for_nothing_is_named(word, run_cli, small_bundle):
    assert refused(run_cli("predict", small_bundle, word)) == f"there is no file, folder or match for {word}"


def test_an_empty_folder_is_said_to_be_empty(run_cli, small_bundle, tmp_path):
    assert "there must be images in" in refused(run_cli("predict", small_bundle, tmp_path))


def test_a_missing_bundle_is_named(run_cli, tmp_path, images):
    message = refused(run_cli("predict", tmp_path / "gone", images))
    assert message == f"a bundle is a folder with a config.json; {tmp_path / 'gone'} has none that can be read"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_truncated_onnx_file_is_one_clear_line(share, run_cli, bundle_copy, images):
    path = bundle_copy / "model.onnx"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    message = refused(run_cli("predict", bundle_copy, images))
    assert message.startswith(f"{path} must have the SHA-256 in config.json (")
    assert message.endswith(f"write it again with `effnet export {bundle_copy} --to onnx`")


def test_a_missing_onnx_file_says_how_to_make_it(run_cli, bundle_copy, images):
    (bundle_copy / "model.onnx").unlink()
    assert "`effnet export` writes it" in refused(run_cli("predict", bundle_copy, images))


def test_prediction_does_not_need_the_weights(run_cli, bundle_copy, images):
    (bundle_copy / "model.safetensors").unlink()
    assert run_cli("predict", bundle_copy, images).code == 0


@pytest.mark.parametrize(
    "old, new",
    [
        ('"format": 2,\n "library', '"format": 3,\n "library'),
        ('"class_names"', '"classes"'),
        ('"crop": 1.0', '"crop": "all"'),
        ('"kind": "mbconv"', '"kind": "mbcon"'),
        ('"arch": {', '"arch": ['),
        ("}", ""),
    ],
)
def test_a_damaged_config_is_one_clear_line(old, new, run_cli, bundle_copy, images):
    path = bundle_copy / "config.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    assert str(path) in refused(run_cli("predict", bundle_copy, images))


def test_a_config_that_does_not_belong_to_the_onnx_file_is_noticed(run_cli, bundle_copy, images):
    path = bundle_copy / "config.json"
    data = json.loads(path.read_text())
    data["preprocess"]["resolution"] = 48
    path.write_text(json.dumps(data))
    message = refused(run_cli("predict", bundle_copy, images))
    assert "must map image [48, 48, 1] to probabilities [10], as in config.json; it maps image [" in message


def test_a_folder_gives_what_a_data_set_would_find_and_names_the_rest(run_cli, small_bundle, tmp_path):
    for folder in ("in", "in/__MACOSX", "in/.ipynb_checkpoints", "elsewhere"):
        (tmp_path / folder).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / folder / "a.png")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    for name in ("photo.jxl", "._a.png", "notes.txt"):
        (tmp_path / "in" / name).write_bytes(b"x")
    done = run_cli("predict", small_bundle, tmp_path / "in", "--format", "json")
    assert done.code == 2
    assert [Path(row["path"]).parent.name for row in json.loads(done.out)] == ["in", "linked"]
    assert "photo.jxl: effnet does not read this format" in done.err
    assert "1 .txt" in done.err


def test_what_is_assumed_of_deep_images_is_said_on_stderr_once(run_cli, small_bundle, tmp_path):
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((8, 8), 4095, np.uint16)).save(tmp_path / name)
    done = run_cli("predict", small_bundle, tmp_path, "--format", "json")
    assert done.code == 0
    assert done.err.count("has no value range: 0..65535 is read as black to white") == 1
    assert len(json.loads(done.out)) == 2


def test_a_photograph_of_a_phone_is_read_or_named(run_cli, small_bundle, tmp_path, monkeypatch):
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.new("RGB", (32, 32), "red")).save(tmp_path / "phone.heic")
    done = run_cli("predict", small_bundle, tmp_path, "--format", "json")
    assert (done.code, len(json.loads(done.out))) == (0, 1)
    for name in ("pillow_heif", "pillow_heif.as_plugin", "pi_heif", "pi_heif.as_plugin"):
        monkeypatch.setitem(sys.modules, name, None)
    done = run_cli("predict", small_bundle, tmp_path)
    assert done.code == 2
    assert "phone.heic: it is HEIC: this needs pi-heif" in done.err
    assert 'pip install "effnet[heic]"' in done.err
