import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.errors import DataError
from effnet.tasks.masks.plan import classes_in, joined, plan, segment, windows
from effnet.tasks.masks.record import Segmented, segmented

COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)


def painter(stride, seen=None):
    """Return a segmenter that knows the colours: the mean over each cell of how near its pixels are to each."""

    def run(images):
        if seen is not None:
            seen.append(len(images))
        distance = np.abs(images[..., None, :].astype(np.float32) - COLOURS.astype(np.float32)).sum(-1)
        n, height, width, classes = distance.shape
        cells = distance.reshape(n, height // stride, stride, width // stride, stride, classes).mean((2, 4))
        return -cells.transpose(0, 3, 1, 2) / 50

    return run


def scene(height, width, seed=0, side=16):
    """Return an image of rectangles with sides at multiples of `side`, and its mask."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 4, (-(-height // side), -(-width // side))).astype(np.uint8)
    mask = coarse.repeat(side, 0).repeat(side, 1)[:height, :width]
    return COLOURS[mask], mask


@given(st.integers(16, 200), st.integers(16, 200), st.sampled_from([1, 2, 4]), st.integers(0, 9))
@settings(max_examples=12, deadline=None)
def test_windows_give_what_the_whole_image_gives(height, width, stride, seed):
    image, mask = scene(height, width, seed)
    found = segment(image, painter(stride), input_height=64, input_width=96, fill=(9, 9, 9), scale=1.0)
    padded = np.zeros((-(-height // 8) * 8, -(-width // 8) * 8, 3), np.uint8)
    padded[:height, :width] = image
    whole = plan(*padded.shape[:2], input_height=padded.shape[0], input_width=padded.shape[1])
    expected = classes_in(painter(stride)(padded[None]), whole)[:height, :width]
    inner = np.s_[: height // 8 * 8 - 8, : width // 8 * 8 - 8]  # cells at the border hold other fill colours
    assert np.array_equal(found.mask[inner], expected[inner])
    if stride == 1:
        assert np.array_equal(found.mask, mask)
    assert found.shares == pytest.approx(np.bincount(found.mask.ravel(), minlength=4) / mask.size)


@pytest.mark.parametrize("size", [(320, 320), (180, 320), (320, 90), (1080, 1920), (640, 480)])
def test_a_whole_image_is_shown_in_a_letterbox_and_back(size):
    image, mask = scene(*size, side=max(16, max(size) // 12))
    found = segment(image, painter(4), input_height=320, input_width=320, fill=(9, 9, 9))
    inside = np.ones(mask.shape, bool)
    reach = int(np.ceil(4 * max(1, max(mask.shape) / 320)))
    for axis in (0, 1):
        for step in range(-reach, reach + 1):
            inside &= np.roll(mask, step, axis) == mask
    assert inside.mean() > 0.4
    assert (found.mask == mask)[inside].all()


def test_windows_overlap_lie_on_the_grid_and_are_run_in_batches():
    shown = plan(1001, 700, input_height=320, input_width=256, scale=0.5)
    assert (shown.inner_height, shown.inner_width) == (500, 350)
    tops, lefts = (sorted({place[axis] for place in shown.places}) for axis in (0, 1))
    assert all(place % 8 == 0 for place in tops + lefts)
    assert max(np.diff(tops)) <= 0.75 * 320 + 8
    assert tops[-1] + 320 >= 500 > tops[-1] + 320 - 8
    assert lefts[-1] + 256 >= 350
    seen = []
    image, _ = scene(101, 70)
    segment(image, painter(4, seen), input_height=32, input_width=24, fill=(0, 0, 0), scale=0.5, batch_size=3)
    assert seen == [3, 1]


def test_the_middle_of_a_window_counts_more_than_the_border_of_another():
    shown = plan(8, 112, input_height=8, input_width=64, scale=1.0)
    assert shown.places == ((0, 0), (0, 48))
    logits = np.zeros((2, 1, 8, 64), np.float32)
    logits[1] = 1
    row = joined(logits, shown)[0, 0]
    assert (row[:48] == 0).all()
    assert (row[64:] == 1).all()
    assert (np.diff(row[48:64]) > 0).all()
    assert row[55] + row[56] == pytest.approx(1)


def test_what_does_not_fit_is_an_error():
    shown = plan(100, 100, input_height=64, input_width=64, scale=1.0)
    with pytest.raises(DataError, match=r"logits must be \[4 windows, classes, h, w\]"):
        joined(np.zeros((1, 2, 16, 16)), shown)
    with pytest.raises(DataError, match=r"a stride of 1, 2, 4 or 8 in an input of 64 x 64; got 15 x 16"):
        joined(np.zeros((4, 2, 15, 16)), shown)
    with pytest.raises(DataError, match="the scale of windows must be above 0"):
        plan(10, 10, input_height=8, input_width=8, scale=-1.0)
    with pytest.raises(DataError, match="from 0 to 1; got 2"):
        segmented(np.array([[2]], np.uint8), num_classes=2)
    with pytest.raises(DataError, match=r"must be uint8 \[height, width\]"):
        Segmented(mask=np.zeros((2, 2)), shares=(1.0,))


def test_images_smaller_than_a_window_are_filled():
    image, _ = scene(48, 32)
    cut = windows(image, plan(48, 32, input_height=64, input_width=64, scale=1.0), fill=(1, 2, 3))
    assert cut.shape == (1, 64, 64, 3)
    assert np.array_equal(cut[0, :48, :32], image)
    assert (cut[0, 48:] == (1, 2, 3)).all()
