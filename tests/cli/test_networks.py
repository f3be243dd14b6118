"""models list, show, cost and scale: tables for people, JSON for programs."""

import json
import os

import pytest
from messages import refused

import effnet
from effnet.arch.catalog import DETECTORS
from effnet.arch.codec import spec_to_dict
from effnet.training.memory.predict import training_memory
from effnet.training.recipe.schema import Recipe, Train


def test_models_lists_every_named_network(run_cli):
    rows = json.loads(run_cli("models", "list", "--format", "json").out)
    classifiers = [row["name"] for row in rows if row["task"] == "classification"]
    assert classifiers == list(effnet.NAMES)
    assert [row["name"] for row in rows] == [*classifiers, *DETECTORS]
    b0 = rows[0]
    assert (b0["name"], b0["params"], b0["resolution"]) == ("b0", 5_288_548, 224)
    assert b0["top1"] == effnet.published("b0").top1
    table = run_cli("models", "list").out
    assert all(f"\n {name} " in table for name in effnet.NAMES)
    assert "5.29M" in table
    lite0 = next(row for row in rows if row["name"] == "lite0")
    assert "timm/tf_efficientnet_lite0.in1k" in [weights["id"] for weights in lite0["weights"]]


def test_models_lists_detectors_with_their_ap(run_cli):
    rows = json.loads(run_cli("models", "list", "--task", "detection", "--format", "json").out)
    assert [row["name"] for row in rows] == list(DETECTORS)
    assert (rows[0]["params"], rows[0]["ap"], rows[0]["ap50_test"], rows[0]["weights"]) == (3_880_067, 34.3, 53.0, [])
    table = run_cli("models", "list", "--family", "efficientdet_lite").out
    assert "efficientdet_lite3x" in table
    assert "42.64" in table
    assert "efficientdet_d0" not in table
    assert "resnet18" not in table
    assert "resnet18" not in run_cli("models", "list", "--task", "detection").out
    told = refused(run_cli("models", "list", "--task", "detection", "--family", "v1"))
    assert told == "--family v1 has no networks for detection; leave out one of the two"


def test_verbs_show_a_detector_or_say_that_they_take_none(run_cli, make_folder):
    shown = run_cli("models", "show", "efficientdet_lite0").out
    assert shown.startswith("efficientdet_lite0: 3 x 320 x 320 -> 90 classes\nparams 3243470")
    assert "feature pyramid, levels 3 to 7" in shown
    assert json.loads(run_cli("models", "cost", "efficientdet_lite0", "--format", "json").out)["macs"] == 973_589_696
    assert "\nparams 3877763, " in run_cli("models", "show", "effdet/efficientdet_d0").out
    photos = make_folder({f"{part}/{label}": 2 for part in ("train", "val", "test") for label in ("cat", "dog")})
    told = refused(run_cli("train", photos, "--model", "efficientdet_lite0", "--out", photos.parent / "out"))
    assert told.startswith("the task detection needs boxes of objects; ")
    told = refused(run_cli("models", "cost", "efficientdet_lite0", "--training"))
    assert told.startswith("--training predicts the memory of classifiers; efficientdet_lite0 has a decoder")
    for asked in (("--phi", 1), ("--grid",)):
        told = refused(run_cli("models", "scale", "efficientdet_lite0", *asked))
        assert told.startswith("a network to scale must be a classifier; efficientdet_lite0 has a decoder")


def test_show_prints_the_stages_then_every_layer(run_cli):
    whole, stages = run_cli("models", "show", "b0", "--layers").out, run_cli("models", "show", "b0").out
    assert whole == effnet.describe(effnet.get_spec("b0"))
    assert whole.startswith(stages.rstrip("\n"))
    assert "stem.conv" in whole
    assert "stem.conv" not in stages
    assert run_cli("models", "show", "b0", "--resolution", 64).out != stages


def test_cost_is_that_of_the_library(run_cli):
    found, total = (
        json.loads(run_cli("models", "cost", "b0", "--format", "json").out),
        effnet.cost(effnet.get_spec("b0")),
    )
    assert (found["params"], found["macs"]) == (total.params, total.macs)
    assert found["weight_bytes_int8"] == total.weight_bytes("int8")
    table = run_cli("models", "cost", "b0").out
    assert f"{total.params:,}" in table
    assert f"{total.macs:,}" in table
    smaller = json.loads(run_cli("models", "cost", "b0", "--resolution", 112, "--format", "json").out)
    assert (smaller["resolution"], smaller["params"]) == (112, total.params)
    assert smaller["macs"] < total.macs / 3


@pytest.mark.parametrize("option, key, limit", [("--max-macs", "macs", 100e6), ("--max-params", "params", 1e6)])
def test_scale_to_a_budget_keeps_it_and_uses_it(option, key, limit, run_cli, tmp_path):
    path = tmp_path / "net.json"
    assert run_cli("models", "scale", "b0", option, f"{limit / 1e6:g}M", "--out", path).code == 0
    spec = effnet.spec_from_dict(json.loads(path.read_text()))
    assert 0.7 * limit < getattr(effnet.cost(spec), key) <= limit


def test_scale_writes_a_network_that_the_other_verbs_read(run_cli, tmp_path):
    path = tmp_path / "small net.json"
    ran = run_cli("models", "scale", "b0", "--phi", -4, "--resolution", 96, "--out", path)
    assert (ran.code, ran.err) == (0, "")
    spec = effnet.spec_from_dict(json.loads(path.read_text()))
    assert spec == effnet.scale(effnet.get_spec("b0"), phi=-4, resolution=96)
    assert json.loads(run_cli("models", "cost", path, "--format", "json").out)["params"] == effnet.cost(spec).params
    assert run_cli("models", "show", path, "--layers").out == effnet.describe(spec)


def test_a_bundle_is_a_network_as_well(run_cli, small_bundle):
    found = json.loads(run_cli("models", "cost", small_bundle, "--format", "json").out)
    assert found["params"] == json.loads((small_bundle / "report.json").read_text())["measured"]["params"]


def test_an_unknown_network_suggests_the_nearest(run_cli):
    assert "did you mean 'b7'?" in refused(run_cli("models", "show", "b77"))


@pytest.mark.parametrize("text", ["", "[", "{}", "[" * 100_000, '{"format": 99}', "\x00"])
@pytest.mark.parametrize("verb", ["cost", "show"])
def test_a_damaged_spec_is_one_clear_line(verb, text, run_cli, tmp_path):
    (tmp_path / "net.json").write_text(text)
    refused(run_cli("models", verb, tmp_path / "net.json"))


@pytest.mark.parametrize(
    "words, message",
    [
        (["cost", "b0", "--resolution", 0], "resolution must be a positive integer, in pixels; got 0"),
        (["show", "b0", "--resolution", -1], "resolution must be an integer of at least 1; got -1"),
        (["cost", "x" * 400], "unknown network"),
        (["cost", "nowhere/net.json"], "must be a network as JSON"),
        (["scale", "b0", "--max-macs", "many"], "an amount must be a positive number"),
        (["scale", "b0", "--max-macs", "1k"], "no scaling of b0 meets these limits"),
        (["scale", "b0", "--max-macs", "9M", "--phi", 1], "leave out --phi, --width and --depth"),
        (["scale", "b0", "--phi", "nan"], "phi must be finite; got nan"),
        (["scale", "b0", "--width", -1], "must lie above 0"),
        (
            ["scale", "b0", "--phi", 1, "--powers", "1.2"],
            "--powers must be three numbers, such as 1.2,1.1,1.15; got '1.2'",
        ),
        (["scale", "b0", "--phi", 1, "--powers", "nan,1,1"], "must be"),
        (["scale", "b0", "--phi", 1, "--out", "nowhere/at/all.json"], "No such file or directory: nowhere/at/all.json"),
    ],
)
def test_what_cannot_be_used_is_one_clear_line(words, message, run_cli):
    assert message in refused(run_cli("models", *words))


def test_cost_shows_what_training_takes(run_cli):
    words = ("models", "cost", "b0", "--resolution", 128, "--training", "--batch", 8, "--format", "json")
    found = json.loads(run_cli(*words).out)
    recipe = Recipe(train=Train(batch_size=8))
    expected = training_memory(effnet.get_spec("b0"), recipe, resolution=128, fused=True).total
    assert (found["training_batch"], found["training_memory_bytes"]) == (8, expected)
    assert found["training_memory_bytes_recompute"] < expected < found["training_memory_bytes_plain"]
    assert "training_batch" not in json.loads(run_cli("models", "cost", "b0", "--format", "json").out)


@pytest.mark.parametrize("verb", ["show", "cost"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_spec_that_is_no_regular_file_is_not_read(verb, kind, run_cli, tmp_path):
    path = tmp_path / "spec.json"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    assert "is not a regular file" in refused(run_cli("models", verb, path))


@pytest.mark.parametrize("verb", ["show", "cost"])
def test_a_spec_of_any_size_is_one_clear_line(verb, run_cli, tmp_path):
    path = tmp_path / "spec.json"
    good = spec_to_dict(effnet.get_spec("b0"))
    for change in ({"stages": good["stages"] * 1_000}, {"head_channels": 10**12}, {"name": "x" * 10**6}):
        path.write_text(json.dumps(good | change))
        assert len(refused(run_cli("models", verb, path))) < 400


def test_the_grid_lists_networks_of_twice_the_exact_cost(run_cli):
    for options in ((), ("--literal",)):
        text = run_cli("models", "scale", "b0", "--grid", *options).out
        rows = [line.split() for line in text.splitlines() if line.strip()[:1].isdigit()]
        assert len(rows) >= 12
        for alpha, beta, gamma, product, ratio, *_ in rows:
            assert 1.94 <= float(ratio) <= 2.06
            assert float(product) == pytest.approx(float(alpha) * float(beta) ** 2 * float(gamma) ** 2, abs=0.02)
        assert "published 1.2, 1.1, 1.15 have a product of 1.92 but 2.573 times the MACs" in text
        assert sum("published," in row for row in rows) == (not options)


def test_a_row_of_the_grid_is_the_network_that_its_coefficients_give(run_cli, tmp_path):
    text = run_cli("models", "scale", "b0", "--grid").out
    alpha, beta, gamma = next(line.split() for line in text.splitlines() if line.strip().startswith("1.5"))[:3]
    path = tmp_path / "net.json"
    powers = ("--phi", "1", "--powers", f"{alpha},{beta},{gamma}", "--out", path)
    assert run_cli("models", "scale", "b0", *powers).code == 0
    ratio = effnet.cost(effnet.spec_from_dict(json.loads(path.read_text()))).macs / effnet.cost("b0").macs
    assert ratio == pytest.approx(2, rel=0.03)


@pytest.mark.parametrize("options", [("--literal",), ("--grid", "--phi", "1"), ("--grid", "--max-macs", "1G")])
def test_the_grid_comes_alone(options, run_cli):
    assert "belong to --grid, which goes with nothing else" in refused(run_cli("models", "scale", "b0", *options))
