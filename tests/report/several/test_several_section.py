"""The page and the card of several outputs."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from outputs import SPECS, made, report_of, scored
from pages import NASTY, card_of, page_of, sample, typed, words_of

from effnet.data.several.outputs import OutputSpec
from effnet.report.several.plots import number_svg, outputs_svg


def report(count=200, *, specs=SPECS, **kwargs):
    return report_of(scored(*made(count, specs=specs, **kwargs), specs), specs)


def images_for(some):
    return [np.full((8, 9, 3), 7, np.uint8) for _ in some["test"]["mistakes"]]


def test_the_page_shows_each_output_beside_its_baseline():
    some = report()
    page = page_of(some, images=images_for(some))
    words = words_of(page)
    kind, scene, year = typed(some).test.outputs
    assert (
        f"has a mean score of {100 * typed(some).test.mean_score:.1f} % over 3 outputs on the 200 test images" in words
    )
    low, high = kind.interval
    assert f"kind accuracy {100 * kind.value:.1f} % {100 * low:.1f} % to {100 * high:.1f} %" in words
    assert f"scene mAP {100 * scene.value:.1f} %" in words
    assert f"{100 * scene.baseline:.1f} % a random ranking {scene.known} better" in words
    assert f"The mean error is {year.value:.2f}; always answering the median, {year.number.median:g}" in words
    assert page.tags["img"] == len(some["test"]["mistakes"]) == 24
    assert "This page holds 24 of your test images" in words
    assert page.tags["svg"] == 5  # candidates, two curves; all outputs, and the number
    assert "accuracy of the classes" not in words


def test_the_page_says_what_is_no_better_or_unknown_first():
    rows, targets = made(200)
    rows[:] = [0.5, 0.3, 0.2, 0.5, 0.5, 0.5, 2010.0]
    targets[:, 4] = np.nan
    some = report_of(scored(rows, targets))
    words = words_of(page_of(some))
    assert words.index("The output year is not scored: no test image has a known value of it.") < words.index(
        "Budget Figure"
    )
    assert words.count("not better") == 2
    assert "not scored" in words
    assert "kind accuracy" in words
    card = card_of(some)
    assert "| year | mean error (MAE) | – |" in card


def test_the_card_is_complete_and_says_how_to_run_it_alone():
    card = card_of(report())
    assert "- Output `scene`: float32, `[batch, 3]`, the probability of each tag, on its own." in card
    assert "- Output `year`: float32, `[batch, 1]`, the number." in card
    assert "\n- accuracy\n- mean_average_precision\n- mae\n" in card
    assert "in the order of `class_names`" not in card
    assert "This is a network of several outputs of the EfficientNet family." in card
    assert "effnet predict BUNDLE image.jpg" in card


@pytest.mark.parametrize("specs", [SPECS[:1], SPECS[1:2], SPECS[2:]])
def test_a_single_output_of_any_kind_has_a_page(specs):
    some = report(specs=specs)
    page = page_of(some)
    assert page.tags["svg"] == 3 + (specs[0].kind == "number")
    assert outputs_svg(typed(some)) is None
    figure = {"one": "accuracy", "many": "mAP", "number": "mean error (MAE)"}[specs[0].kind]
    assert f"has, for its only output {specs[0].name}, {figure} " in words_of(page)
    if specs[0].kind == "one":
        card_of(some)


def test_nasty_names_break_neither_page_nor_card():
    classes = tuple(f"{name}{i}" for i, name in enumerate(NASTY))
    specs = tuple(
        OutputSpec(name=f"{name}x{i}", kind=kind, classes=() if kind == "number" else classes)
        for i, (name, kind) in enumerate(zip(NASTY, ["one", "many", "number"] * 4, strict=True))
        if "=" not in name and ":" not in name
    )
    rows, targets = made(60, specs=specs)
    some = report_of(scored(rows, targets, specs), specs)
    page_of(some, images=images_for(some))
    card_of(some)


def test_plots_are_svg_of_any_numbers():
    for targets in ([1.0, 1.0], [1e9, -1e9], [0.001, 0.002, 0.003], [1e30, 1e30], [0.0, 0.0]):
        spec = (SPECS[2],)
        score = scored(np.array(targets)[:, None], np.array(targets)[:, None], spec)
        ElementTree.fromstring(number_svg(score.outputs[0], number=0))
        assert score.outputs[0].number.points == tuple((true, true) for true in targets)
    svg = outputs_svg(typed(report()))
    assert "scene" in "".join(ElementTree.fromstring(svg).itertext())


def test_many_classes_come_weakest_first():
    specs = (OutputSpec(name="kind", kind="one", classes=tuple(f"class {i}" for i in range(25))),)
    some = report(400, specs=specs)
    page = words_of(page_of(some))
    rows = [row for row in typed(some).test.outputs[0].classes.per_class if row.support]
    weakest = min(rows, key=lambda row: row.f1)
    assert page.index(f"{weakest.name} ") < page.index("The other 15")


def test_hierarchy_and_costs_are_said():
    specs = (
        OutputSpec(
            name="what", kind="one", classes=("animal/cat", "animal/dog", "car"), miss=(1.0, 5.0, 1.0), threshold=0.4
        ),
    )
    some = report(specs=specs)
    words = words_of(page_of(some))
    assert "By the summed probabilities of the parents, accuracy" in words
    assert "at level 1, of 2 classes" in words
    assert "Costs decide its answers: a mean cost of" in words
    assert "Below a probability of 0.4 the answer is “unknown”" in words
    assert "A threshold rejects many images of anything else" in card_of(some)


def test_a_report_of_classes_says_hierarchy_and_costs_too():
    some = sample()
    some["test"] |= {
        "cost": {"mean": 0.5, "without": 0.7, "constant": 1.0},
        "levels": [{"level": 1, "classes": 2, "accuracy": 0.75, "confidence": [0.6, 0.9]}],
    }
    for text in (words_of(page_of(some)), card_of(some)):
        assert (
            "By the summed probabilities of the parents, accuracy 75.00% (60.00% to 90.00%) at level 1, of 2 classes."
            in text
        )
        assert "Costs decide its answers: a mean cost of 0.5 an image; without the costs" in text
    assert "the least expected cost" in card_of(some)
    assert "cost" not in words_of(page_of(sample()))


def test_images_of_a_single_class_cannot_tell():
    rows, targets = made(60, unknown=0)
    targets[:, 0] = 1
    words = words_of(page_of(report_of(scored(rows, targets))))
    assert "one class only" in words
