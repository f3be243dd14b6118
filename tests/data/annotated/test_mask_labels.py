import json
import pickle

import numpy as np
import pytest
from PIL import Image

from effnet.data.annotated.masks.codes import IGNORE, MaskCode
from effnet.data.annotated.masks.folder import read_mask_set
from effnet.data.annotated.masks.labels import (
    MASKS,
    label_of_mask,
    listing_of_drawn,
    listing_of_masks,
)
from effnet.data.annotated.masks.shapes import Polygons
from effnet.data.annotated.record import Annotated, AnnotatedSet
from effnet.data.datasets import Dataset, split_listing
from effnet.data.images.decode import ImageHeader, image_header
from effnet.errors import DataError

NAMES = ("sky", "road")


def header(height, width):
    return ImageHeader(width=width, height=height, channels=3, format="", mode="")


def written(tmp_path, count, *, colours=((128, 128, 128), (64, 0, 128))):
    """Write images with masks of colours: the road is a rectangle that grows; the last row is ignored."""
    truths = {}
    for number in range(count):
        classes = np.zeros((30, 40), np.uint8)
        classes[: 3 + number, :20] = 1
        mask = np.array(colours, np.uint8)[classes]
        mask[-1] = 0
        classes[-1] = IGNORE
        for folder, pixels in (("images", np.full((30, 40, 3), number, np.uint8)), ("masks", mask)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.png")
        truths[str(tmp_path / "images" / f"{number}.png")] = classes
    return truths


def test_a_folder_of_masks_becomes_a_data_set(tmp_path):
    truths = written(tmp_path, 12)
    code = MaskCode(kind="colour", class_names=NAMES, codes=(0x808080, 0x400080), ignored=(0,))
    listing = listing_of_masks(read_mask_set(str(tmp_path), code=code), name="road", root=str(tmp_path))
    found = split_listing(listing, seed=0)
    assert (found.task, found.class_names, found.channels) == ("segmentation", NAMES, 3)
    seen = {}
    for split in (found.train, found.val, found.test):
        assert len(split)
        for source, label in zip(split.sources, split.labels, strict=True):
            seen[source] = label.read(image_header(source))
            assert label.pixels.tolist() == [*np.bincount(truths[source].ravel(), minlength=256)[[0, 1, 255]]]
    assert seen.keys() == truths.keys()
    assert all(np.array_equal(seen[source], truths[source]) for source in truths)
    assert len({id(label.code) for label in found.train.labels}) == 1
    first = truths[found.train.sources[0]]
    share = (first == 1).sum() / (first != IGNORE).sum()
    assert MASKS.to_text(found.train.labels[0], NAMES) == f"{1 - share:.0%} sky, {share:.0%} road"
    again = pickle.loads(pickle.dumps(found))  # for other processes
    assert np.array_equal(again.train.labels[0].read(header(30, 40)), first)
    assert again.train.to_torch()[0][1].file == found.train.labels[0].file


def test_given_splits_and_classes_that_train_lacks():
    one, two = (label_of_mask(np.full((4, 4), number), NAMES) for number in range(2))
    names, notes = MASKS.name({"train": part(one, one), "test": part(two)}, NAMES, False)
    assert (names, notes) == (NAMES, ["These classes have no pixels in train and cannot be learnt: road."])
    with pytest.raises(DataError, match=r"strict needs every class to have pixels in train.*road"):
        MASKS.name({"train": part(one)}, NAMES, True)
    with pytest.raises(DataError, match="there are none"):
        MASKS.name({"test": part(one)}, NAMES, False)
    alone = label_of_mask(np.zeros((4, 4), int), ("sky",))
    with pytest.raises(DataError, match="must have at least 2 classes"):
        MASKS.name({"train": part(alone)}, (), False)


def part(*labels):
    from effnet.data.sources.source import Part

    return Part(sources=tuple(f"{number}.png" for number in range(len(labels))), labels=labels)


def test_masks_in_memory_have_any_size_and_classes_by_number_or_name():
    masks = [np.full((3 + n, 5), n % 2, np.int64) for n in range(6)]
    masks[0][0, 0] = IGNORE
    images = [np.zeros((*mask.shape, 3), np.uint8) for mask in masks]
    for names in (None, ("sky", "road")):
        found = Dataset.from_arrays(images, masks, class_names=names, label_kind=MASKS)
        assert found.class_names == (names or ("0", "1"))
        for split in (found.train, found.val, found.test):
            for label in split.labels:
                mask = next(mask for mask in masks if len(mask) == len(label.read(header(*_size(label)))))
                assert np.array_equal(label.read(header(*mask.shape)), mask)
    one_size = np.zeros((6, 4, 4), np.uint8)
    one_size[:, :2] = 1
    assert len(Dataset.from_arrays(np.zeros((6, 4, 4, 3), np.uint8), one_size, label_kind=MASKS).class_names) == 2


def _size(label):
    import io

    return Image.open(io.BytesIO(label.file)).size[::-1]


@pytest.mark.parametrize(
    "masks, names, why",
    [
        ([np.zeros((2, 2))] * 6, None, "must be its mask, whole numbers"),
        ([np.zeros(4, int)] * 6, None, "must be its mask, whole numbers"),
        ([np.full((2, 2), 3)] * 6, NAMES, "must be from 0 to 1, or 255 where none is known; got 3 to 3"),
        ([np.full((2, 2), -1)] * 6, NAMES, "must be from 0 to 1"),
        ([np.full((2, 2), 999)] * 6, None, "must have at most 254 classes; got a class 999"),
        ([np.zeros((0, 2), int)] * 6, NAMES, "must be whole numbers"),
    ],
)
def test_other_masks_in_memory_are_errors(masks, names, why):
    images = [np.zeros((2, 2, 3), np.uint8) for _ in masks]
    with pytest.raises(DataError, match=why):
        Dataset.from_arrays(images, masks, class_names=names, label_kind=MASKS)


def test_a_mask_of_another_size_is_an_error():
    (label,) = MASKS.to_targets([label_of_mask(np.zeros((4, 6), int), NAMES)], NAMES)
    with pytest.raises(DataError, match="must have its image's size, 7 x 4; it has 6 x 4"):
        label.read(header(4, 7))


def test_masks_are_drawn_from_objects():
    square = Polygons(parts=(np.array([[1.0, 1], [5, 1], [5, 4], [1, 4]]),))
    image = Annotated(
        path="1.jpg",
        width=8,
        height=6,
        boxes=np.array([[1.0, 1, 5, 4], [6, 0, 8, 2]]),
        classes=np.array([1, 0]),
        difficult=np.zeros(2, bool),
        crowd=np.zeros(2, bool),
        areas=np.array([12.0, 4]),
        shapes=(square, None),
    )
    found = AnnotatedSet(format="coco", parts={"": (image,)}, class_names=("cat", "dog"))
    listing = listing_of_drawn(found, name="pets")
    assert listing.class_names == ("background", "cat", "dog")
    (label,) = MASKS.to_targets(listing.parts[""].labels, listing.class_names)
    mask = label.read(header(6, 8))
    expected = np.zeros((6, 8), int)
    expected[1:4, 1:5] = 2
    expected[0:2, 6:8] = IGNORE  # a box without a mask
    assert np.array_equal(mask, expected)
    assert label.pixels.tolist() == [32, 0, 12, 4]
    assert json.loads(listing.parts[""].labels[0])["codes"] == {"background": 0, "cat": 1, "dog": 2}
    taken = AnnotatedSet(format="coco", parts={"": (image,)}, class_names=("background", "dog"))
    with pytest.raises(DataError, match="no class of objects may be called background"):
        listing_of_drawn(taken, name="pets")


def test_splits_are_stratified_by_the_rarest_class_and_few_images_are_split_too():
    rare = [label_of_mask(np.array([[0, 1]]), NAMES) for _ in range(10)]
    plain = [label_of_mask(np.array([[0, 0]]), NAMES) for _ in range(30)]
    assert MASKS.strata([*rare, *plain]) == ["road"] * 10 + ["sky"] * 30
    assert MASKS.strata([*rare[:2], *plain]) == [""] * 2 + ["sky"] * 30
    ignored = label_of_mask(np.full((1, 2), IGNORE), NAMES)
    assert MASKS.strata([ignored]) == [""]
    pixels = [np.array([[0, number % 2]]) for number in range(3)]
    found = Dataset.from_arrays([np.zeros((1, 2, 3), np.uint8)] * 3, pixels, class_names=NAMES, label_kind=MASKS)
    assert (len(found.train), len(found.val), len(found.test)) == (1, 1, 1)
    with pytest.raises(DataError, match="enough images to hold some out"):
        Dataset.from_arrays([np.zeros((1, 2, 3), np.uint8)], pixels[:1], class_names=NAMES, label_kind=MASKS)
