"""The pages and the cards of detectors and segmenters."""

import base64
import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from dense import (
    dense_report,
    detection_score,
    made_boxes,
    noisy_boxes,
    segmentation_score,
)
from pages import NASTY, card_of, page_of, typed, words_of
from PIL import Image

from effnet.data.annotated.masks.codes import MaskCode
from effnet.data.annotated.masks.folder import MaskSet
from effnet.data.annotated.record import AnnotatedSet, Finding
from effnet.data.annotated.sizes import small_objects
from effnet.measurement.detection import score as detection_scoring
from effnet.measurement.detection.score import score
from effnet.report.annotations import class_counts, object_facts, pixel_facts
from effnet.report.classification.confusion import confusion_svg
from effnet.report.detection.plots import precision_recall_svg, sizes_svg

ANIMALS = ("cat", "dog", "owl")
LAND = ("background", "road", "lake")


def drawn(page):
    """Return the images of a page, uint8 [height, width, 3] each."""
    found = []
    for tag, name, value in page.attributes:
        if (tag, name) == ("img", "src"):
            data = base64.b64decode(value.partition(",")[2])
            found.append(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    return found


def test_the_page_of_a_detector_says_what_was_measured():
    some = dense_report(detection_score(), ANIMALS)
    test = typed(some).test
    page = page_of(some)
    words = words_of(page)
    assert f"reaches an AP50 of {100 * test.ap50:.1f} % (AP {100 * test.ap:.1f} %) on the 20 test images" in words
    low, high = test.ap_interval
    assert f"95 % CI: {100 * low:.1f} % to {100 * high:.1f} %" in words
    assert f"From a score of 0.50, precision is {100 * test.operating.precision:.1f} %" in words
    assert "this threshold was chosen on the validation images" in words
    assert page.tags["svg"] == 6  # candidates, two curves; precision, sizes, confusions
    assert page.tags["img"] == 0
    cat = test.per_class[0]
    assert f"cat {100 * cat.ap:.1f} % {100 * cat.ap50:.1f} %" in words
    worst = test.mistakes[0]
    assert f"{worst.right} found, {worst.missed} missed, {worst.wrong} wrong folder/{worst.index}.png" in words
    assert "What was irregular" not in words
    assert page_of(some, draws=False).tags["svg"] == 0


def test_the_worst_images_show_what_is_missed_and_what_is_wrong():
    truths = made_boxes(6, ANIMALS)
    answers = noisy_boxes(truths, 3, drop=0.5)
    found = score(truths, answers, ANIMALS, input_size=(320, 320), threshold=0.5)
    some = dense_report(found, ANIMALS)
    images = [np.full((300, 400, 3), 128, np.uint8) for _ in found.mistakes]
    page = page_of(some, images=images, draws=False)
    shown = drawn(page)
    assert len(shown) == 2 * len(found.mistakes)
    assert f"This page holds {len(found.mistakes)} of your test images" in words_of(page)
    for worst, true, answer in zip(found.mistakes, shown[::2], shown[1::2], strict=True):
        for drawing, rows in ((true, worst.objects), (answer, worst.found)):
            for row in rows:
                left, _, right, bottom = row.box
                if right - left < 30 or left < 5 or right > 395 or bottom > 295:
                    continue
                line = drawing[round(bottom) - 1, round(left) + 3 : round(right) - 3].astype(int)
                redder = np.median(line[:, 0] - line[:, 2])  # of vermillion, not of blue; JPEG mixes the colours
                assert redder < -20 if row.right else redder > 20, (row, line[:5])


def test_images_of_any_scale_and_bands_are_drawn_on():
    found = detection_score(images=4)
    for shape in ((1500, 2000, 3), (30, 40), (150, 200, 1), (75, 100, 4)):
        images = [np.zeros(shape, np.uint8)] * len(found.mistakes)
        shown = drawn(page_of(dense_report(found, ANIMALS), images=images, draws=False))
        assert len(shown) == 2 * len(found.mistakes)
        assert max(max(image.shape) for image in shown) <= 480


def test_the_findings_of_the_reader_are_a_table():
    truths = made_boxes(12, ANIMALS)
    rotated = Finding(
        kind="rotated", count=2, sentence="2 images have an EXIF rotation.", examples=("a.jpg", "b|c.jpg")
    )
    data = AnnotatedSet(
        format="voc", parts={"train": tuple(truths[:6]), "test": tuple(truths[6:])}, class_names=ANIMALS,
        findings=(rotated,),
    )  # fmt: skip
    small = small_objects(data.images, height=96, width=96)
    facts = object_facts(data, small)
    some = dense_report(detection_score(), ANIMALS, annotations=facts)
    words = words_of(page_of(some, draws=False))
    assert "Finding Times First places 2 images have an EXIF rotation. 2 a.jpg; b|c.jpg" in words
    assert f"{small.sentence} {small.count}" in words
    assert "F1 Objects Images In train In test" in words
    for number, name in enumerate(ANIMALS):
        train, test = (counts[number] for counts in data.counts().values())
        row = words[words.index(f" {name} ", words.index("In train In test")) :]
        assert f" {train} {test} " in row[:80]
    assert "- 2 images have an EXIF rotation." in card_of(some, tag="object-detection")


def test_a_class_without_objects_in_train_is_marked():
    truths = made_boxes(12, ANIMALS)
    counts = {"train": (3, 0, 2), "test": (1, 4, 0)}
    facts = object_facts(AnnotatedSet(format="voc", parts={"train": tuple(truths)}, class_names=ANIMALS))
    assert class_counts(facts, 3)["unseen"] == []
    some = dense_report(detection_score(), ANIMALS, annotations=facts)
    some["dataset"]["annotations"]["counts"] = {split: list(each) for split, each in counts.items()}
    assert words_of(page_of(some, draws=False)).count("none in train") == 1
    assert class_counts(None, 3) == {"heads": [], "rows": [[], [], []], "unseen": []}


def test_the_card_of_a_detector_is_complete():
    some = dense_report(detection_score(), ANIMALS)
    card = card_of(some, tag="object-detection")
    assert "\n- mean_average_precision\n" in card
    assert "| Classes | AP | AP50 | Precision | Recall | Objects |" in card
    assert "effnet predict BUNDLE image.jpg" in card
    assert "onnxruntime.InferenceSession" not in card


def test_a_detector_that_finds_nothing_still_has_a_page():
    truths = made_boxes(5, ANIMALS)
    nothing = noisy_boxes(truths, 3, drop=1.1, extra=0)
    for found in (
        score(truths, nothing, ANIMALS, input_size=(320, 320)),
        score(made_boxes(1, ANIMALS, seed=6), nothing[:1], ANIMALS, input_size=(64, 128)),
    ):
        some = dense_report(found, ANIMALS)
        page_of(some, draws=False)
        card_of(some, tag="object-detection")
    assert precision_recall_svg(found) is None


def test_many_objects_are_stated_beside_coco_s_limit():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 380, (150, 2))
    truths = made_boxes(1, ("nucleus",))
    truths[0] = type(truths[0])(
        path="1.png", width=400, height=400, boxes=np.concatenate((low, low + 12), 1),
        classes=np.zeros(150, np.int64), difficult=np.zeros(150, bool), crowd=np.zeros(150, bool),
        areas=np.full(150, 144.0),
    )  # fmt: skip
    found = score(truths, noisy_boxes(truths, 1), ("nucleus",), input_size=(320, 320), threshold=0.5)
    words = words_of(page_of(dense_report(found, ("nucleus",)), draws=False))
    assert (
        "An image has up to 150 objects of a class, so the best 200 of its detections count; with COCO's 100" in words
    )


def test_the_page_of_a_segmenter_says_what_was_measured():
    score = segmentation_score()
    facts = pixel_facts(
        MaskSet(
            parts={}, code=MaskCode(kind="index", class_names=LAND, codes=(0, 1, 2)),
            counts={"train": np.array([5, 0, 7, 99]), "test": np.array([1, 2, 3, 0])},
            findings=(Finding(kind="snapped", count=1, sentence="1 mask has 3 pixels between two classes."),),
        )
    )  # fmt: skip
    some = dense_report(score, LAND, annotations=facts)
    images = [np.full((60, 96, 3), 128, np.uint8) for _ in score.mistakes]
    page = page_of(some, images=images)
    words = words_of(page)
    assert f"reaches a mean IoU of {100 * score.miou:.1f} % on the 6 test images" in words
    assert f"always “{score.constant.name}”: {100 * score.constant.miou:.1f} %" in words
    assert "1 mask has 3 pixels between two classes. 1 –" in words
    assert words.count("none in train") == 1
    road = score.per_class[1]
    assert f"{100 * road.iou:.1f} % {100 * road.dice:.1f} %" in words
    assert page.tags["svg"] == 4  # candidates, two curves; confusions
    shown = drawn(page)
    assert len(shown) == 2 * len(score.mistakes)
    assert (np.abs(shown[0].astype(int) - shown[1]) > 60).any()  # its masks differ
    card = card_of(some, tag="image-segmentation")
    assert "- 1 mask has 3 pixels between two classes." in card
    assert "\n- mean_iou\n" in card


def test_the_background_is_not_tinted_and_has_no_colour():
    score = segmentation_score(images=1)
    image = np.full((60, 96, 3), 128, np.uint8)
    page = page_of(dense_report(score, LAND), images=[image], draws=False)
    chips = [value for tag, name, value in page.attributes if (tag, name) == ("i", "style") and "background" in value]
    assert len(chips) == 2


@pytest.mark.parametrize("kind", ["detector", "segmenter"])
def test_nasty_names_break_neither_page_nor_card(kind):
    names = tuple(f"{name}{i}" for i, name in enumerate(NASTY))
    if kind == "detector":
        some, tag = dense_report(detection_score(names, images=3), names), "object-detection"
    else:
        some, tag = dense_report(segmentation_score(names, images=2), names), "image-segmentation"
    some["test"]["mistakes"][0]["source"] = NASTY[1]
    page_of(some, images=[np.zeros((60, 96, 3), np.uint8)] * 2)
    card_of(some, tag=tag)


def test_many_classes_come_weakest_first(monkeypatch):
    monkeypatch.setattr(detection_scoring, "bootstrap", lambda matches: {})  # seconds for 25 classes
    names = tuple(f"class {i}" for i in range(25))
    found = detection_score(names, images=25)
    words = words_of(page_of(dense_report(found, names), draws=False))
    weakest = min((each for each in found.per_class if each.ap is not None), key=lambda each: each.ap)
    assert words.index(f"{weakest.name} ") < words.index("The other 15 classes")
    found = segmentation_score(names, images=3)
    words = words_of(page_of(dense_report(found, names), draws=False))
    weakest = min((each for each in found.per_class if each.iou is not None), key=lambda each: each.iou)
    assert words.index(f"{weakest.name} ", words.index("The weakest classes")) < words.index("The other 15 classes")


def texts_of(svg):
    return ["".join(text.itertext()) for text in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_plots_hold_the_figures():
    found = detection_score()
    assert {"cat", "dog", "owl", "all classes", "score 0.50"} <= set(texts_of(precision_recall_svg(found)))
    shares = [f"{100 * each.found / each.objects:.0f} %" for each in found.sizes.bins if each.objects]
    assert [text for text in texts_of(sizes_svg(found)) if text.endswith("%")] == shares
    shown = texts_of(confusion_svg(((3, 0), (2, 0)), ("cat", "(background)"), background=True))
    assert shown.count("3") == shown.count("2") == 1
    assert "60 %" in texts_of(confusion_svg(((3, 2), (0, 1)), ("a", "b"), shares=True))
