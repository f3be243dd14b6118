"""evaluate, export, bench and inspect: verbs over bundles and data sets."""

import json
import shutil

import pytest
from messages import refused
from PIL import Image
from procedures import QUICK

from effnet.bundle.config import write_digests


def test_evaluate_repeats_the_reports_score(run_cli, small_bundle):
    found = json.loads(run_cli("evaluate", small_bundle, "digits", "--format", "json").out)
    report = json.loads((small_bundle / "report.json").read_text())
    assert found == report["test"]
    first, table = run_cli("evaluate", small_bundle, "digits").out.split("\n", 1)
    assert first == "The bundle was fitted on these data: the test split (269 images) is scored."
    assert table.startswith(f"accuracy {report['test_accuracy']:.2%} on 269 images (95 % confidence ")


def test_evaluate_says_how_sure_it_is_and_what_it_rejects(run_cli, bundle_copy, tiny_images, tmp_path):
    path = bundle_copy / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"threshold": 0.3}))
    strange = shutil.copytree(tiny_images, tmp_path / "strange")
    (strange / "broken.png").write_bytes(b"no image")
    words = ["evaluate", bundle_copy, "digits", "--unknown-from", strange]
    found = json.loads(run_cli(*words, "--format", "json").out)
    assert (found["answered"]["threshold"], found["unknown"]["images"], found["unknown"]["unreadable"]) == (0.3, 60, 1)
    lines = run_cli(*words).out.splitlines()[1:]
    low, high = found["balanced_bootstrap"]
    balanced = f"balanced accuracy {found['balanced_accuracy']:.2%} (bootstrap {low:.2%} to {high:.2%})"
    assert lines.pop(1) == f"{balanced}: the mean recall of the classes"
    name, recall, support = (found["lowest"][key] for key in ("name", "recall", "support"))
    assert lines.pop(1) == f"lowest recall: {recall:.2%} of the {support} images of {name}"
    usual = lines.pop(1)
    assert usual == f"always answering {found['most_frequent']['name']!r} would reach 10.04%"
    low, high = found["bootstrap"]
    assert lines[0].endswith(f"; bootstrap {low:.2%} to {high:.2%})")
    assert lines[1] == f"top-5 accuracy {found['top5']:.2%}"
    assert lines[2].startswith(f"calibration error (ECE) {found['sureness']['ece']:.2%}, negative log-likelihood ")
    assert lines[3].startswith(f"threshold 0.3: {found['answered']['coverage']:.2%} are answered, ")
    rejected, auroc = found["unknown"]["rejected"], found["unknown"]["auroc"]
    assert lines[4] == (f"unknown images: {rejected:.2%} rejected, AUROC {auroc:.3f} on 60 (1 more could not be read)")


def test_evaluate_names_a_folder_without_unknown_images_at_once(run_cli, small_bundle, tmp_path):
    message = refused(run_cli("evaluate", small_bundle, "digits", "--unknown-from", tmp_path / "gone"))
    assert message == f"unknown images must be in a folder; {tmp_path / 'gone'} is not a folder"


def test_evaluate_takes_each_split_and_all_of_them(run_cli, small_bundle):
    sizes = {
        split: json.loads(run_cli("evaluate", small_bundle, "digits", "--split", split, "--format", "json").out)[
            "images"
        ]
        for split in ("train", "val", "test", "all")
    }
    assert sizes == {"train": 1259, "val": 269, "test": 269, "all": 1797}


def test_evaluate_names_a_class_that_the_model_does_not_know(run_cli, small_bundle, tiny_images):
    message = refused(run_cli("evaluate", small_bundle, tiny_images))
    assert message == "the model has no class 'dark'; it has 10 classes"


def test_evaluate_takes_data_with_some_of_the_models_classes(run_cli, small_bundle, tiny_images, tmp_path):
    shutil.copytree(tiny_images / "dark", tmp_path / "0")
    shutil.copytree(tiny_images / "light", tmp_path / "8")
    found = json.loads(run_cli("evaluate", small_bundle, tmp_path, "--split", "all", "--format", "json").out)
    assert found["images"] == 40
    assert [row["support"] for row in found["per_class"]] == [20, 0, 0, 0, 0, 0, 0, 0, 20, 0]


@pytest.mark.parametrize("data", ["folder", "rows of test"])
def test_a_folder_with_one_image_a_class_is_scored_whole(data, run_cli, small_bundle, tmp_path):
    for digit in range(0, 10, 3):
        (tmp_path / "one" / str(digit)).mkdir(parents=True)
        Image.new("L", (8, 8), 25 * digit).save(tmp_path / "one" / str(digit) / "1.png")
    rows = "".join(f"one/{digit}/1.png,{digit},test\n" for digit in range(0, 10, 3))
    (tmp_path / "m.csv").write_text("path,label,split\n" + rows)
    source = tmp_path / ("one" if data == "folder" else "m.csv")
    first, second, *_ = run_cli("evaluate", small_bundle, source).out.splitlines()
    assert first == "The bundle was fitted on other data: all 4 images of these data are scored."
    assert " on 4 images (95 % confidence " in second
    if data == "folder":
        message = refused(run_cli("evaluate", small_bundle, source, "--split", "test"))
        assert message.startswith(
            "the part test must be in the data, but they are not split, and the bundle was not fi"
        )
        ran = run_cli("export", small_bundle, "--data", source, "--out", tmp_path / "out")
        assert " on 4 images of these data, " in ran.out
        assert (tmp_path / "out" / "split.json").is_file()


def test_export_writes_the_same_file_again_and_proves_it(run_cli, bundle_copy, tiny_images):
    path = bundle_copy / "model.onnx"
    before = path.read_bytes()
    path.unlink()
    ran = run_cli("export", bundle_copy)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"wrote {path}: largest difference of a probability ")
    assert ran.out.endswith("same class on 100.0% of 64 random images\n")
    assert path.read_bytes() == before
    assert " of 60 images; not scored: the model has no" in run_cli("export", bundle_copy, "--data", tiny_images).out


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_export_names_truncated_weights(share, run_cli, bundle_copy):
    path = bundle_copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert f"{path} is not a complete safetensors file" in refused(run_cli("export", bundle_copy))
    assert run_cli("predict", bundle_copy, "-").code == 0


def test_bench_measures_every_setting(run_cli, small_bundle):
    found = json.loads(run_cli("bench", small_bundle, "--batch", "1,4", "--format", "json", procedure=QUICK).out)
    assert [(row["threads"], row["batch"]) for row in found["rows"]] == [(1, 1), (1, 4)]
    for row in found["rows"]:
        assert 0 < row["p50_ms"] <= row["p95_ms"]
        assert row["images_per_second"] == pytest.approx(1e3 * row["batch"] / row["p50_ms"])
    assert found["machine"]["cores"] >= 1
    assert "onnxruntime" in found["versions"]


@pytest.mark.parametrize("words", [["--threads", "0"], ["--batch", "1,many"], ["--batch", ""], ["--batch", "9999"]])
def test_bench_refuses_what_it_cannot_measure(words, run_cli, small_bundle):
    assert f"{words[0]} must be comma-separated whole numbers from 1 to 4096" in refused(
        run_cli("bench", small_bundle, *words)
    )


def test_bench_names_a_truncated_onnx_file(run_cli, bundle_copy):
    path = bundle_copy / "model.onnx"
    path.write_bytes(path.read_bytes()[:1000])
    message = refused(run_cli("bench", bundle_copy, procedure=QUICK))
    assert message.startswith(f"{path} must have the SHA-256 in config.json (")
    write_digests(bundle_copy, {})  # as in a config.json written by hand
    message = refused(run_cli("bench", bundle_copy, procedure=QUICK))
    assert message.startswith(f"measuring {path} failed: ONNX Runtime ")


@pytest.mark.parametrize("verb", [["bench"], ["export"], ["evaluate", "digits"], ["predict", "x.png"]])
def test_a_folder_that_is_no_bundle_is_named(verb, run_cli, tmp_path):
    message = refused(run_cli(verb[0], tmp_path, *verb[1:]))
    assert message == f"a bundle is a folder with a config.json; {tmp_path} has none that can be read"


def test_inspect_says_the_same_in_words_and_as_json(run_cli, tiny_images):
    found = json.loads(run_cli("data", "inspect", tiny_images, "--format", "json").out)
    text = run_cli("data", "inspect", tiny_images).out
    assert "60 images, 3 classes (42 train, 9 val, 9 test)" in text
    assert {"dark", "light", "middle"} <= set(json.dumps(found).replace('"', " ").split())


def test_inspect_strict_makes_a_damaged_image_an_error(run_cli, tiny_images, tmp_path):
    data = shutil.copytree(tiny_images, tmp_path / "shades")
    (data / "dark" / "00.png").write_bytes(b"no image")
    assert run_cli("data", "inspect", data).code == 0
    ran = run_cli("data", "inspect", data, "--strict")
    assert ran.code == 2
    assert "strict needs every file to be usable, but 1 cannot be used" in ran.err
    assert str(data / "dark" / "00.png") in ran.err


def test_inspect_keeps_odd_class_names_on_one_line(run_cli, tmp_path):
    for name in ("line\nbreak", "[red]bold"):
        (tmp_path / name).mkdir()
        for i in range(8):
            Image.new("L", (8, 8), 20 * i).save(tmp_path / name / f"{i}.png")
    ran = run_cli("data", "inspect", tmp_path)
    assert ran.code == 0
    assert "line\\nbreak" in ran.out
    assert "[red]bold" in ran.out
