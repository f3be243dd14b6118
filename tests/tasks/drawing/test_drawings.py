import colorsys

import numpy as np
import pytest
from detected import detected, truth
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import NASTY
from PIL import Image, ImageDraw

from effnet.errors import DataError
from effnet.tasks.drawing import text
from effnet.tasks.drawing.boxes import Mark, draw_detections, draw_marks, draw_objects, shown_score
from effnet.tasks.drawing.colours import BLACK, WHITE, colours, hex_of, ink_on
from effnet.tasks.drawing.regions import draw_regions
from effnet.tasks.drawing.text import fitted, readable, text_size

GREY = np.full((400, 600, 3), 90, np.uint8)


def coloured(drawing, colour):
    return (drawing == colour).all(2)


# Brettel, Viénot, Mollon 1997 in the one-plane form of Viénot, Brettel, Mollon, Color Res. Appl. 24 (1999): another
# model than the one by which the colours are chosen.
RGB_TO_LMS = np.array(
    [[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]]
)  # fmt: skip
PROTAN = np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]])
DEUTAN = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])


def as_seen(rgb, deficiency):
    linear = (np.asarray(rgb) / 255.0) ** 2.2
    seen = linear @ (np.linalg.inv(RGB_TO_LMS) @ deficiency @ RGB_TO_LMS).T
    return 255 * np.clip(seen, 0, 1) ** (1 / 2.2)


@pytest.mark.parametrize("deficiency", [np.eye(3), PROTAN, DEUTAN])
def test_the_first_colours_differ_for_colour_blind_people_too(deficiency):
    seen = as_seen(colours(10), deficiency)
    assert closest(seen) > 20
    # Ten hues around the wheel, as libraries use them, fall together.
    wheel = [[255 * v for v in colorsys.hsv_to_rgb(i / 10, 0.9, 0.9)] for i in range(10)]
    assert deficiency[0, 0] == deficiency[1, 1] or closest(as_seen(wheel, deficiency)) < 0.7 * closest(seen)


def closest(seen):
    apart = np.abs(seen[:, None] - seen[None]).max(2)
    return apart[~np.eye(len(seen), dtype=bool)].min()


def test_colours_of_254_classes_all_differ_and_begin_alike():
    many = colours(254)
    assert len(set(many)) == 254
    for count in (0, 1, 7, 8, 20, 100):
        assert many[:count] == colours(count)


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_ink_has_the_better_contrast_by_wcag(colour):
    share = np.array(colour) / 255
    linear = np.where(share <= 0.03928, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    contrast = {WHITE: 1.05 / (luminance + 0.05), BLACK: (luminance + 0.05) / 0.05}
    assert contrast[ink_on(colour)] >= max(contrast.values()) - 0.01
    assert max(contrast.values()) > 4.5


def test_hex():
    assert hex_of((60, 16, 152)) == "#3C1098"


def test_a_box_is_drawn_where_it_is_and_nothing_else_changes():
    drawing = draw_marks(GREY, [Mark(box=(100.2, 50.0, 300.4, 200.0), colour=(230, 159, 0))])
    expected = Image.fromarray(GREY)
    ImageDraw.Draw(expected).rectangle((100, 50, 299, 199), outline=(230, 159, 0), width=2)
    line = coloured(np.asarray(expected), (230, 159, 0))
    assert (coloured(drawing, (230, 159, 0)) == line).all()
    inner = np.zeros(line.shape, bool)
    inner[52:198, 102:298] = True
    inner[53:197, 103:297] = False
    changed = (drawing != GREY).any(2)
    assert (changed == (line | inner)).all()


def test_labels_lie_within_the_image_and_never_overlap():
    rng = np.random.default_rng(0)
    low = rng.uniform(-30, 380, (9, 2))
    found = detected(np.concatenate((low, low + rng.uniform(20, 250, (9, 2))), 1), rng.random(9), np.arange(9))
    names = [f"name {i}" for i in range(9)]
    drawing = draw_detections(GREY, found, names)
    assert drawing.shape[1] == 600
    palette = colours(9)
    order = np.argsort(-found.scores)
    # The label of the best detection is never crossed: its whole rectangle has its colour and its ink.
    best = int(order[0])
    width, height = text_size(f"name {best} {found.scores[best]:.2f}", 11)
    pixels = coloured(drawing, palette[best])
    rows = np.lib.stride_tricks.sliding_window_view(pixels, (1, max(10, width // 3))).all((2, 3)).any(1)
    assert rows.sum() >= height // 3


def test_many_small_objects_stay_visible_under_their_boxes():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, [330, 500], (329, 2))
    found = detected(np.concatenate((low, low + rng.uniform(6, 22, (329, 2))), 1), rng.random(329))
    image = np.full((520, 348, 3), 40, np.uint8)
    drawing = draw_detections(image, found, ["nucleus"])
    assert (drawing[:520] == image).all(2).mean() > 0.55
    assert drawing.shape[0] > 520  # the legend says what the boxes are
    few = draw_detections(image, found.above(np.sort(found.scores)[-3]), ["nucleus"])
    assert few.shape == image.shape


@pytest.mark.parametrize("side", [1, 2, 16, 64, 320, 2500])
def test_images_of_any_size_can_be_drawn_on(side):
    image = np.zeros((side, max(1, side // 2), 1), np.uint8)
    found = detected([(0, 0, side / 2, side), (-9, -9, 1, 1), (9 * side, 0, 10 * side, 1)], [0.5, 0.6, 0.7], [0, 1, 2])
    drawing = draw_detections(image, found, ["a", "b" * 300, "c"])
    factor = max(1, 320 // side)
    assert drawing.shape[1:] == (max(1, side // 2) * factor, 3)
    assert drawing.shape[0] >= side * factor
    assert coloured(drawing, colours(3)[0]).any()


@pytest.mark.parametrize("name", [*NASTY, "🦉", "кошка", "γάτα", "བོད", "a\tb", "x" * 1000, "\U0010fffe"])
def test_names_in_any_script_can_be_drawn(name):
    drawing = draw_objects(GREY, truth([(200, 100, 500, 300)], crowd=[True], size=(600, 400)), [name])
    assert coloured(drawing, colours(1)[0]).sum() > 1000


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(codec=None), max_size=30), st.integers(1, 400), st.integers(11, 60))
def test_text_is_as_wide_as_there_is_room(name, width, size):
    line = readable(name, instead="class 3")
    assert line
    cut = fitted(line, width=width, size=size)
    assert text_size(cut, size)[0] <= width or cut == "..."
    if text_size(line, size)[0] <= width:
        assert cut == line


def test_a_name_without_glyphs_becomes_its_number(monkeypatch):
    assert readable("Ünïcödé, кошка", instead="class 7") == "Ünïcödé, кошка"  # by the font of matplotlib
    assert readable(" ", instead="class 7") == "class 7"
    monkeypatch.setattr(text, "_fonts", lambda: ("", "no such font.ttf"))
    text._font_name.cache_clear()
    assert readable("白鳥", instead="class 7") == "class 7"
    assert readable("Ünïcödé", instead="class 7") == "Unicode"
    text._font_name.cache_clear()


def test_scores_below_one_are_never_one():
    assert [shown_score(score) for score in (1.0, 0.999, 0.5, 0.004)] == ["1.00", "0.99", "0.50", "0.00"]


def test_detections_below_the_threshold_are_not_drawn():
    found = detected([(10, 10, 300, 300), (350, 100, 500, 300)], [0.9, 0.3], [0, 1])
    drawing = draw_detections(GREY, found, ["a", "b"], threshold=0.5)
    assert coloured(drawing, colours(2)[0]).any()
    assert not coloured(drawing, colours(2)[1]).any()


def test_regions_are_tinted_and_bordered_and_the_background_is_not():
    mask = np.zeros((400, 600), np.uint8)
    mask[100:300, 100:300] = 1
    mask[100:300, 300:500] = 2
    mask[350:, :] = 255
    drawing = draw_regions(GREY, mask, ["Background", "road", "lake"])
    legend = drawing[400:]
    assert (drawing[:400][(mask == 0) | (mask == 255)] == 90).all()
    for number, colour in enumerate(colours(3)):
        inside = drawing[110:290, 110:290] if number == 1 else drawing[110:290, 310:490]
        if number:
            assert (inside == np.round(90 * 0.55 + 0.45 * np.array(colour))).all()
            assert (drawing[100, 200 if number == 1 else 400] == colour).all()
        assert coloured(legend, colour).any() == (number > 0)
    assert draw_regions(GREY, mask, ["a", "b", "c"], legend=False).shape == GREY.shape


def test_the_legend_of_many_classes_ends():
    mask = np.arange(254, dtype=np.uint8).repeat(40).reshape(254, 40).repeat(10, axis=1)
    drawing = draw_regions(np.zeros((*mask.shape, 3), np.uint8), mask, [f"class {i}" for i in range(254)])
    assert 254 < drawing.shape[0] < 900


def test_bad_input_is_an_error():
    with pytest.raises(DataError, match="a mask must have its image's size, \\[400, 600\\]; got \\[2, 2\\]"):
        draw_regions(GREY, np.zeros((2, 2), np.uint8), ["a"])
    with pytest.raises(DataError, match="must be below 1, or 255; got 3"):
        draw_regions(GREY, np.full((400, 600), 3, np.uint8), ["a"])
    with pytest.raises(DataError, match="must be uint8"):
        draw_marks(np.zeros((4, 4)), [])
