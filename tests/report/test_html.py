import copy
import dataclasses
import json
import re
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import NASTY, card_of, check_card, check_page, page_of, pretrained, sample, typed, words_of

from effnet.errors import BundleError, MissingExtraError
from effnet.report import html as report
from effnet.report import provenance as origin
from effnet.report import text as wording
from effnet.report.classification.confusion import confusion_svg
from effnet.report.model import load_report
from effnet.report.plots import fit as plots
from effnet.report.plots import front


def images_for(some, channels=3):
    return [np.full((8, 9, channels), 7, np.uint8) for _ in some["test"]["mistakes"]]


def test_the_page_says_what_was_found():
    some = sample()
    page = page_of(some, images=images_for(some))
    for words in (
        "Budget met B0 x1.10, 32 px is right on 98.9 % of the 19 test images and meets the whole budget.",
        "Latency 5 ms 3.90 ms met",
        "Memory – 21.2 MB no limit",
        "is cat predicted dog , 91.0 %",
        "differ by at most 3.0e-07",
        "14 candidates: 1 taken, 8 fit as well, 5 rejected. 2 without a measured latency are not drawn.",
        "2026-11-22 14:00 UTC",
        "Options Option Value Default What it does --max-latency-ms 5 – Limit cat. --set fit.threads 1 1 Threads.",
        "6 more, the nearest",
        "two columns cat",
    ):
        assert words in words_of(page)
    assert page.tags["svg"] == 6
    assert page.tags["img"] == 1


def test_the_card_says_what_was_found():
    text = report.render_card(typed(sample()))
    kinds = check_card(text)
    assert kinds["table_open"] == 2
    assert kinds["fence"] == 3
    assert "| Latency | 5\xa0ms | 3.90\xa0ms | met |" in text
    assert "`[batch, 32, 32, 3]`, RGB" in text


def test_page_and_card_say_that_the_page_holds_test_images():
    some = sample()
    said = "This page holds 1 of your test images and the names of their files."
    assert said in words_of(page_of(some, images=images_for(some)))
    assert "of your test images" not in words_of(page_of(some, draws=False))
    some["report_images"] = 1
    assert "`report.html` holds 1 of the test images: share it only if you may" in card_of(some)
    some["report_images"] = 0
    assert "share it" not in card_of(some)


def test_the_page_of_a_head_says_whose_features_it_is_on_and_shows_no_learning_curves():
    some = pretrained(sample(), "head", epochs=0, best=0)
    page = page_of(some)
    for words in (
        "A linear head on the frozen features of timm/tf_efficientnet_lite0.in1k.",
        "Pretrained weights timm/tf_efficientnet_lite0.in1k Their licence apache-2.0 (the model card on the hub)",
        "Their published accuracy 74.8 % of ImageNet at 224 pixels",
        "Head: validation accuracy 55.0 % Head: penalty 0.01 Head: training images 1,257, 2 views of each",
        "Features 2,784, 2,514 of them cached Features and head took 12.3 s",
        "All start from the pretrained weights timm/tf_efficientnet_lite0.in1k.",
    ):
        assert words in words_of(page)
    assert "epoch" not in words_of(page)
    assert page.tags["svg"] == 4


@pytest.mark.parametrize(
    "best, kept",
    [(2, "the weights of epoch 2 were kept."), (0, "none was better than the head alone, which was kept.")],
)
def test_the_page_of_a_fine_tuned_network_compares_it_with_its_head(best, kept):
    some = pretrained(sample(), "finetune", best=best)
    page = page_of(some)
    weights = "timm/tf_efficientnet_lite0.in1k"
    sentence = f"A head on the frozen features of {weights}, then the whole network fine-tuned for 3 epochs; "
    assert sentence + kept in words_of(page)
    assert page.tags["svg"] == 6
    for quantity in ("loss", "accuracy"):
        texts = "".join(ElementTree.fromstring(plots.learning_curve_svg(typed(some), quantity)).itertext())
        assert "the head alone" in texts
        assert ("best: 2" in texts) == (best == 2)


def test_a_network_from_scratch_says_so():
    some = sample()
    sentence = "Trained from scratch for 3 epochs; the weights of epoch 2 were kept."
    page = words_of(page_of(some, draws=False))
    card = card_of(some)
    for text in (page, card):
        assert sentence in text
        assert "retrained" not in text
    assert "the data's own licence may restrict the choice" in card


def test_the_card_names_the_weights_that_it_begins_with_and_their_licence():
    text = card_of(pretrained(sample(), "head", epochs=0, best=0))
    assert "\nbase_model: timm/tf_efficientnet_lite0.in1k\n" in text
    body = text.replace("\\", "")
    assert (
        "The network starts from the pretrained weights timm/tf_efficientnet_lite0.in1k, from timm, on the Hugging "
        "Face hub. Their licence: apache-2.0 (the model card on the hub). Their published accuracy on ImageNet is 74.8"
    ) in body
    assert "that of the pretrained weights and the data's own may restrict the choice" in body


@pytest.mark.parametrize("name", NASTY)
def test_weights_of_any_name_and_of_no_known_licence(name):
    some = pretrained(sample(), "head", name=name)
    some["training"]["head"] |= {"licence": "", "origin": "", "top1": None}
    assert "Their licence unknown: ask the author of the weights" in words_of(page_of(some, draws=False))
    card = card_of(some)
    assert "base_model" not in card
    assert "Their licence: unknown: ask the author of the weights." in card


def test_nasty_names_break_neither_page_nor_card_nor_json(tmp_path):
    some = sample(NASTY)
    some["failures"], some["honoured"] = list(NASTY), False
    some["candidates"][4]["title"] = some["network"]["title"] = some["network"]["name"] = NASTY[0]
    some["attempts"] *= 2
    report.write_report(typed(some), tmp_path, images=images_for(some))
    page = check_page((tmp_path / "report.html").read_text("utf-8"))
    for name in (*NASTY[:3], NASTY[5], NASTY[7], NASTY[8], "nul bell abc", r"bad \udc80 name"):
        assert " ".join(name.split()) in words_of(page)
    check_card((tmp_path / "README.md").read_text("utf-8"))
    assert list(load_report(tmp_path).dataset.class_names[:9]) == NASTY[:9]


@settings(max_examples=12, deadline=None)
@given(st.lists(st.text(st.characters(codec=None)), min_size=2, max_size=5))
def test_any_text_leaves_the_card_whole(names):
    card_of(sample(names))


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec=None)), st.integers(2, 12))
def test_printable_text_is_one_line_of_bounded_width(text, columns):
    line = wording.printable(text, columns=columns)
    assert wording.width(line) <= columns
    assert len(line.splitlines()) <= 1


def test_the_same_report_gives_the_same_bytes(tmp_path):
    some = typed(sample())
    for draw in (plots.candidates_svg, lambda some: confusion_svg(some.test.confusion, some.dataset.class_names)):
        assert draw(some) == draw(copy.deepcopy(some))
    for name in ("a.svg", "b.svg", "a.png", "b.png"):
        plots.save_candidates(some, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_legend_of_long_names_is_as_wide_as_its_figure_at_most():
    """Regression: six columns were wider than the figure, and docs/candidates.svg was cut at the right."""
    some = sample()
    for number, row in enumerate(some["candidates"]):
        row["family"] = f"tf_efficientnet_lite0 relu6 {number % 6}"
    figure = plots.candidates_figure(typed(some))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert (box.x0 >= figure.bbox.x0, box.x1 <= figure.bbox.x1) == (True, True)
    labels = {text.get_text() for text in legend.get_texts()}
    assert labels >= {f"tf_efficientnet_lite0 relu6 {number}" for number in range(6)}


def test_a_missed_budget_is_said_first():
    some = sample()
    some["honoured"], some["failures"] = False, ["Latency was 6.2 ms, over 5 ms."]
    some["measured"]["latency_ms"], some["measured"]["size_mb"] = 6.2, None
    text = words_of(page_of(some, draws=False))
    assert text.index("Budget missed B0 x1.10") < text.index("Latency was 6.2 ms") < text.index("Test accuracy")
    assert "5 ms 6.20 ms missed, 24.0 % over" in text
    assert "4 MB – not measured" in text
    assert "- Latency was 6.2 ms" in card_of(some)


def test_no_budget_is_no_verdict():
    some = sample()
    assert "budget 5" in plots.candidates_svg(typed(some)).replace("\xa0", " ")
    some["budget"] = dict.fromkeys(some["budget"])
    assert "**No budget.**" in card_of(some)
    assert "Budget not checked" in card_of({**sample(), "honoured": None})
    assert "budget 5" not in plots.candidates_svg(typed(some)).replace("\xa0", " ")


def test_a_report_is_read_back_from_its_file_as_it_was(tmp_path):
    found = typed(sample())
    report.write_report(found, tmp_path, images=[])
    assert load_report(tmp_path) == found
    assert json.loads((tmp_path / "report.json").read_text()) == found.to_dict()


@pytest.mark.parametrize("key", sorted(sample()))
def test_a_report_without_a_part_is_refused_by_its_name(key):
    some = sample()
    del some[key]
    with pytest.raises(BundleError, match=rf"the report lacks {key}: run effnet fit again"):
        typed(some)


@pytest.mark.parametrize(
    "path, value, words",
    [
        ("honoured", "yes", r"the report\.honoured must be true or false; got 'yes'"),
        ("seed", True, r"the report\.seed must be a whole number; got True"),
        ("test.images", "19", r"the report\.test\.images must be a whole number; got '19'"),
        ("test.confidence", [1.0], r"the report\.test\.confidence must be a list of 2; got \[1\.0\]"),
        ("test.mistakes", None, r"the report\.test\.mistakes must be a list; got None"),
        ("test.tset", 1, r"the report\.test has no field 'tset'"),
        ("candidates", [{}], r"the report\.candidates\[0\] lacks name, title, family"),
        ("deployed.precision", "int7", r"precision must be one of fp32, .*; got 'int7'"),
        ("budget.latency_ms", -1.0, r"the budget of latency must be .*; got -1"),
        ("machine", [], r"the report\.machine must be an object; got \[\]"),
    ],
)
def test_a_report_with_a_wrong_part_is_refused_with_its_place(path, value, words):
    some = sample()
    *outer, last = path.split(".")
    place = some
    for name in outer:
        place = place[name]
    place[last] = value
    with pytest.raises(BundleError, match=words):
        typed(some)


def test_one_epoch_no_mistake_and_no_latency():
    some = sample(wrong=0, latency=False)
    some["training"]["epochs"], some["training"]["best_epoch"] = some["training"]["epochs"][:1], 1
    some["test"]["accuracy"] = some["test_accuracy"] = 1.0
    some["measured"]["latency_ms"] = None
    page = page_of(some)
    assert "No mistakes on the test images." in words_of(page)
    assert "Parameters" in plots.candidates_svg(typed(some))


def test_numbers_that_are_not_finite_become_null(tmp_path):
    some = sample()
    some["training"]["epochs"][0]["loss"] = float("nan")
    some["training"]["epochs"][1]["val_loss"] = np.float64("inf")
    some["candidates"][0]["latency_ms"] = float("nan")
    report.write_report(typed(some), tmp_path, images=[])

    def refuse(constant):
        raise AssertionError(constant)

    read = json.loads((tmp_path / "report.json").read_text("utf-8"), parse_constant=refuse)
    assert read["training"]["epochs"][0]["loss"] is None
    assert read["training"]["epochs"][1]["val_loss"] is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "report.html", "report.json"]


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path):
    report.write_report(typed(sample()), tmp_path, images=[])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(BundleError, match=r"versions\.a must be a text"):
        report.write_report(dataclasses.replace(typed(sample()), versions={"a": object()}), tmp_path, images=[])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_an_absent_package_is_named_and_nothing_is_written(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package}.*effnet\[train\]"):
        report.write_report(typed(sample()), tmp_path, images=[])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [None, b"{", b"[]", b"\xff"])
def test_a_missing_or_damaged_report_is_a_bundle_error(content, tmp_path):
    if content is not None:
        (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"report\.json"):
        load_report(tmp_path)


@pytest.mark.parametrize("value, words", [(1.0, "100"), (0.9999, "99.9"), (0.5, "50.0"), (0.0, "0.0"), (None, None)])
def test_a_share_below_one_never_reads_as_all(value, words):
    assert wording.percent(value) == (f"{words}\xa0%" if words else wording.ABSENT)


@pytest.mark.parametrize("value, words", [(0, "0.00"), (3.9, "3.90"), (0.01234, "0.0123"), (12345.6, "12,346")])
def test_significant_digits(value, words):
    assert wording.significant(value) == words


def test_the_code_of_the_card_runs(tmp_path, monkeypatch, capsys):
    onnx = pytest.importorskip("onnx")
    from PIL import Image

    helper = onnx.helper
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Softmax", ["mean"], ["probabilities"]),
    ]
    image = helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["batch", 32, 32, 3])
    output = helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph(nodes, "g", [image], [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "config.json").write_text('{"class_names": ["red", "green", "blue"]}')
    Image.new("RGB", (50, 40), (10, 200, 30)).save(tmp_path / "image.jpg")
    code = re.search(r"```python\n(.*?)```", card_of(sample()), re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert capsys.readouterr().out.startswith("green 1.0")


def test_a_pruned_network_says_so():
    found = sample()
    found["training"] |= {"kept": 0.7, "kept_of": "macs", "activation": "relu6", "recovery_seconds": 3.0}
    assert origin.method_sentence(typed(found)).endswith(
        " Given relu6 as its activation, pruned to 70% of its MACs and fine-tuned by distillation from the whole "
        "network."
    )
    found["training"] |= {"kept": 0.88, "kept_of": "params", "activation": "", "recovery_seconds": 0.0}
    assert origin.method_sentence(typed(found)).endswith(
        " Pruned to 88% of its parameters, its layers re-fitted by least squares."
    )


def test_steps_towards_8_bits_are_shown_with_their_reasons():
    found = sample()
    step = {
        "name": "fp32", "format": "onnx", "done": "as it is", "accuracy": 0.9, "balanced_accuracy": 0.9,
        "paired": None, "latency_ms": 2.0, "base_ms": 2.0, "speed": 1.0, "size_mb": 4.0, "memory_mb": 20.0,
        "kept": True, "accepted": True, "reason": "the first", "seconds": 1.0,
    }  # fmt: skip
    worse = {"name": "int8 minmax", "format": "onnx-int8", "accuracy": 0.8, "kept": False, "accepted": False}
    worse |= {"reason": "over the 0.50 points allowed"}
    ladder = {
        "runtime": "onnxruntime", "budget": {}, "precision": None, "gate": {}, "steps": [step], "winner": "fp32",
        "format": "onnx", "network": "b0 phi 1", "changed": False, "quantization": None, "met": True,
        "sentence": "fp32 wins", "tested": {}, "sensitivity": [],
    }  # fmt: skip
    found["deployed"] |= {"ladder": ladder, "predicted": ["latency_ms"]}
    words = "Layers were not ranked by sensitivity to quantization: int8 was not tried."
    assert words in words_of(page_of(found, draws=False))
    ladder["steps"] = [step, {**step, **worse}]
    ladder["sensitivity"] = [{"layer": f"stages.{i}.conv", "harm": 1 / (i + 1)} for i in range(5)]
    ladder["quantization"] = {
        "method": "minmax", "bias_correction": "fast", "float_layers": ["stages.0.conv"], "pair_stem": False,
    }  # fmt: skip
    page = words_of(page_of(found))
    for text in (
        "Trials and quantization",
        "over the 0.50 points allowed",
        "latency above is predicted from its profile",
        "stages.4.conv",
        "Divergence of predictions from fp32",
    ):
        assert text in page
    assert [row["verdict"] for row in front.ladder_rows(typed(found))] == ["taken", "refused"]
    told = "Of 5 layers, the most sensitive to quantization are stages.0.conv, stages.1.conv, stages.2.conv; 1 stays"
    assert told in page
    assert told in card_of(found)
    assert front.pareto([(1, 0.5), (2, 0.4), (3, 0.9)]) == [(1, 0.5), (3, 0.9)]
