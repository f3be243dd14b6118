import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from effnet.data.annotated.masks.codes import IGNORE, MaskCode
from effnet.data.annotated.masks.labels import MASKS, MaskLabel, label_of_mask
from effnet.data.datasets import Dataset, Split
from effnet.data.preprocess import Preprocess
from effnet.training.input.batches import train_batches
from effnet.training.recipe.file import with_values
from effnet.training.recipe.schema import Recipe
from effnet.training.segmentation.inputs import foreground_of, held_out, read_pair, views

pytestmark = pytest.mark.usefixtures("one_thread")

COLOURS = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200], [200, 200, 30]], np.uint8)
PREPROCESS = Preprocess(resolution=64, crop=1.0, mode="corner", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
PLAIN = with_values(Recipe(), {"augment.interpolation": "bilinear", "train.batch_size": 4, "loss.label_smoothing": 0.0})


def scene(height, width, seed, block=12):
    """Return an image whose colours are those of its classes, and its mask."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 4, (-(-height // block), -(-width // block))).astype(np.uint8)
    mask = coarse.repeat(block, 0).repeat(block, 1)[:height, :width]
    return COLOURS[mask], mask


def split_of(*pairs):
    texts = [label_of_mask(mask, ("a", "b", "c", "d")) for _, mask in pairs]
    labels = MASKS.to_targets(texts, ("a", "b", "c", "d"))
    return Split(sources=[image for image, _ in pairs], labels=labels)


def scaled(scale):
    return dataclasses.replace(PREPROCESS, scale=scale)


def shown(split, recipe=PLAIN, *, index=0, seed=0, preprocess=PREPROCESS):
    made = views(split, recipe, preprocess, limit=10**8)
    return made.view(index, recipe, np.random.default_rng(seed))


@given(
    st.integers(0, 99),
    st.integers(20, 150),
    st.integers(20, 150),
    st.sampled_from([0.0, 0.4, 1.0, 3.0]),
    st.booleans(),
)
@settings(max_examples=20, deadline=None)
def test_a_mask_moves_with_its_image(seed, height, width, scale, turns):
    pair = scene(height, width, seed, block=30)
    recipe = with_values(PLAIN, {"masks.quarter_turns": turns})
    image, mask = shown(split_of(pair), recipe, seed=seed, preprocess=scaled(scale))
    assert (image.shape, image.dtype, mask.shape, mask.dtype) == ((64, 64, 3), np.uint8, (64, 64), np.uint8)
    # Pixels far from the border and from other classes: bilinear enlarging mixes as many as the factor.
    framed = np.pad(mask, 7, constant_values=99)
    lines = np.all([framed[7 + y : 71 + y, 7:71] == mask for y in range(-7, 8)], axis=0)
    inside = lines & np.all([np.roll(lines, x, 1) & (np.roll(mask, x, 1) == mask) for x in range(-7, 8)], axis=0)
    inside[:, :7] = inside[:, -7:] = False
    known = inside & (mask != IGNORE)
    assert np.abs(image[known].astype(int) - COLOURS[mask[known]]).max(initial=0) <= 1
    assert (image[inside & (mask == IGNORE)] == 128).all()  # the fill colour, outside the image
    assert (mask != IGNORE).any()


def test_a_view_depends_on_its_generator_alone_and_flips_and_turns_are_drawn():
    pair = scene(90, 120, 1)
    recipe = with_values(PLAIN, {"masks.quarter_turns": True, "masks.zoom_in": 1.0, "masks.zoom_out": 1.0})
    split = split_of((pair[0][:90, :90], pair[1][:90, :90]))
    whole, _ = shown(split, with_values(recipe, {"augment.flip": False, "masks.quarter_turns": False}))
    seen = {shown(split, recipe, seed=seed)[0].tobytes() for seed in range(60)}
    turned = {np.rot90(one, k).tobytes() for one in (whole, whole[:, ::-1]) for k in range(4)}
    assert seen == turned
    first, again = (shown(split, recipe, seed=7) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("place", [(0, 0), (399, 299), (200, 3)])
def test_every_view_has_a_pixel_of_the_foreground(place):
    mask = np.zeros((400, 300), np.uint8)
    mask[:40] = IGNORE
    mask[place] = 2
    split = split_of((COLOURS[np.minimum(mask, 3)], mask))
    recipe = with_values(PLAIN, {"masks.zoom_in": 1.5, "masks.zoom_out": 0.9})
    made = views(split, recipe, scaled(1.0), limit=10**8)
    rows = [made.view(0, recipe, np.random.default_rng(seed))[1] for seed in range(40)]
    # At 0.9 pixels a pixel the nearest may be another.
    assert sum((row == 2).any() for row in rows) >= 36
    empty = split_of((COLOURS[np.zeros((70, 70), int)], np.full((70, 70), IGNORE, np.uint8)))
    assert (shown(empty)[1] == IGNORE).all()


def test_classes_of_an_image_are_drawn_evenly():
    mask = np.zeros((300, 300), np.uint8)
    mask[290:, 290:] = 1
    mask[70:80, 100:110] = 3
    mask[150:] = np.where(mask[150:], mask[150:], IGNORE)
    split = split_of((COLOURS[np.minimum(mask, 3)], mask))
    recipe = with_values(PLAIN, {"masks.even_classes": True, "masks.zoom_in": 1.5, "masks.zoom_out": 1.0})
    made = views(split, recipe, scaled(1.0), limit=10**8)
    found = [made.view(0, recipe, np.random.default_rng(seed))[1] for seed in range(60)]
    shares = [np.mean([(view == number).any() for view in found]) for number in (1, 3)]
    assert min(shares) > 0.2  # a third of the views is drawn for each, of which 0.1 % of the pixels are
    assert all((view != IGNORE).any() for view in found)
    first = np.argwhere(np.stack([view == 3 for view in found]))[:, 1:]
    assert np.ptp(first, axis=0).min() > 30  # anywhere in the view
    empty = split_of((COLOURS[np.zeros((70, 70), int)], np.full((70, 70), IGNORE, np.uint8)))
    assert (shown(empty, recipe)[1] == IGNORE).all()


def test_the_foreground_is_every_class_but_the_most_frequent():
    split = split_of((np.zeros((4, 4, 3), np.uint8), np.array([[1, 1, 1, 0]] * 3 + [[255, 255, 255, 3]], np.uint8)))
    assert np.flatnonzero(foreground_of(split.labels)).tolist() == [0, 2, 3]


def test_batches_are_the_same_however_many_threads_and_wherever_they_begin():
    split = split_of(*[scene(50 + 9 * seed, 80, seed) for seed in range(9)])

    def batches(start=0, workers=1, limit=10**8):
        made = views(split, PLAIN, PREPROCESS, limit=limit)
        found = train_batches(
            lambda index: split.sources[index], split.labels, PLAIN, PREPROCESS, epoch=2, start=start,
            workers=workers, views=made,
        )  # fmt: skip
        return list(found)

    whole = batches()
    assert [(len(images), masks.shape, masks.dtype) for images, masks in whole] == [
        (4, (4, 64, 64), np.uint8),
        (5, (5, 64, 64), np.uint8),
    ]
    for other in (batches(workers=3), batches(limit=0), [whole[0], *batches(start=1)]):
        assert all(
            np.array_equal(a, b) for one, two in zip(whole, other, strict=True) for a, b in zip(one, two, strict=True)
        )


def test_large_images_are_cached_no_larger_than_training_needs():
    split = split_of(scene(900, 1200, 0, block=100))
    made = views(split, PLAIN, PREPROCESS, limit=10**8)
    made.view(0, PLAIN, np.random.default_rng(0))
    assert made.kept[0].image.shape == (96, 128, 3)  # fits 64 pixels, enlarged at most twice
    tight = views(split, PLAIN, PREPROCESS, limit=1000)
    tight.view(0, PLAIN, np.random.default_rng(0))
    assert not tight.kept


def test_files_are_read_upright_and_held_out_whole_or_in_windows(tmp_path):
    image, mask = scene(80, 100, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown, the image is turned by 90 degrees to the right
    Image.fromarray(np.rot90(image)).save(tmp_path / "1.png", exif=exif)
    Image.fromarray(np.rot90(mask)).save(tmp_path / "1_mask.png")
    (tmp_path / "2.png").write_bytes(b"no image")
    code = MaskCode(kind="index", class_names=("a", "b", "c", "d"), codes=(0, 1, 2, 3))
    labels = np.empty(2, object)
    labels[:] = [MaskLabel(file=str(tmp_path / "1_mask.png"), code=code, pixels=np.zeros(5, int))] * 2
    split = Split(sources=[str(tmp_path / "1.png"), str(tmp_path / "2.png")], labels=labels)
    read = read_pair(split, 0, PREPROCESS)
    assert np.array_equal(read[0], image)
    assert np.array_equal(read[1], mask)
    for scale, count in ((0.0, 1), (1.0, 4)):
        for limit in (10**8, 0):
            ((windows, truths),) = held_out(split, PLAIN, scaled(scale), batch_size=8, limit=limit)()
            assert windows.shape == (count, 64, 64, 3)
            assert np.array_equal(truths[0].truth, mask)
    small = split_of(*[scene(30, 40, seed) for seed in range(5)])
    sizes = [len(images) for images, _ in held_out(small, PLAIN, PREPROCESS, batch_size=2, limit=10**8)()]
    assert sizes == [2, 2, 1]


def test_a_dataset_of_arrays():
    pairs = [scene(40, 50 + seed, seed) for seed in range(8)]
    found = Dataset.from_arrays(
        [a for a, _ in pairs], [b for _, b in pairs], class_names=("a", "b", "c", "d"), label_kind=MASKS
    )
    assert found.task == "segmentation"
    assert len(found.train) + len(found.val) + len(found.test) == 8
    masks = {mask.tobytes() for _, mask in pairs}
    for split in (found.train, found.val, found.test):
        for index in range(len(split)):
            image, mask = read_pair(split, index, PREPROCESS)
            assert mask.tobytes() in masks
            assert np.array_equal(COLOURS[mask], image)
