"""Classification's part of the page: confusions and mistakes."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from pages import sample, typed

from effnet.report.classification.confusion import confusion_svg
from effnet.report.gallery import mistakes_shown


@pytest.mark.parametrize("classes, numbers", [(2, True), (20, True), (21, False), (100, False)])
def test_the_confusion_matrix_counts_few_classes_only(classes, numbers):
    some = typed(sample([f"class {i}" for i in range(classes)]))
    svg = confusion_svg(some.test.confusion, some.dataset.class_names)
    root = ElementTree.fromstring(svg)
    texts = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert ("9" in texts) == numbers
    assert ("class 1" in texts) == (classes <= 40)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (5, 4, 2), (5, 4, 3), (5, 4, 4), (300, 200, 8), (0, 4, 3)])
def test_images_of_any_number_of_bands_are_shown(shape):
    (mistake,) = mistakes_shown(typed(sample()).test.mistakes, [np.zeros(shape, np.uint8)])
    assert (mistake["image"] is None) == (0 in shape)
