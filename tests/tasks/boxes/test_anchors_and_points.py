import doctest

import numpy as np
import pytest

from effnet.data.view import letterbox as letterbox_module
from effnet.data.view import windows
from effnet.errors import DataError
from effnet.tasks.boxes import points as points_module
from effnet.tasks.boxes.anchors import ROUNDED_RATIOS, anchors, decode, encode
from effnet.tasks.boxes.points import boxes_at, distances_to, level_sizes, points


@pytest.mark.parametrize("module", [points_module, letterbox_module, windows])
def test_examples_are_right(module):
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed


# Source: EfficientDet's configurations; the counts of published outputs.
@pytest.mark.parametrize(
    "side, levels, count",
    [
        (512, range(3, 8), 49_104),
        (640, range(3, 8), 76_725),
        (768, range(3, 8), 110_484),
        (896, range(3, 8), 150_381),
        (1024, range(3, 8), 196_416),
        (320, range(3, 8), 19_206),
        (384, range(3, 8), 27_621),
        (448, range(3, 8), 37_629),
    ],
)
def test_anchor_counts_are_those_of_efficientdet(side, levels, count):
    assert len(anchors(side, side, levels=levels)) == count


def automl_anchors(height, width, levels, scale, ratios):
    """Return anchors, top, left, bottom, right, in the loops of google/automl's Anchors._generate_boxes."""
    sizes = [(height, width)]
    for _ in range(max(levels)):
        height, width = (height - 1) // 2 + 1, (width - 1) // 2 + 1
        sizes.append((height, width))
    every = []
    for level in levels:
        of_level = []
        stride = sizes[0][0] / float(sizes[level][0]), sizes[0][1] / float(sizes[level][1])
        for octave in range(3):
            for across, down in ratios:
                half_x = scale * stride[1] * 2 ** (octave / 3.0) * across / 2.0
                half_y = scale * stride[0] * 2 ** (octave / 3.0) * down / 2.0
                x = np.arange(stride[1] / 2, sizes[0][1], stride[1])
                y = np.arange(stride[0] / 2, sizes[0][0], stride[0])
                xv, yv = np.meshgrid(x, y)
                xv, yv = xv.reshape(-1), yv.reshape(-1)
                boxes = np.vstack((yv - half_y, xv - half_x, yv + half_y, xv + half_x))
                of_level.append(np.expand_dims(np.swapaxes(boxes, 0, 1), axis=1))
        every.append(np.concatenate(of_level, axis=1).reshape([-1, 4]))
    return np.vstack(every)


@pytest.mark.parametrize("sides, scale", [((320, 320), 3.0), ((512, 512), 4.0), ((192, 320), 4.0), ((640, 384), 5.0)])
@pytest.mark.parametrize("levels", [range(3, 8), range(3, 9)])
def test_anchors_are_those_of_automl(sides, scale, levels):
    found = anchors(*sides, scale=scale, ratios=ROUNDED_RATIOS, levels=levels)
    expected = automl_anchors(*sides, levels, scale, ROUNDED_RATIOS)
    assert np.abs(found[:, [1, 0, 3, 2]] - expected).max() < 1e-4


def test_codes_are_those_of_automl_and_decoding_undoes_encoding():
    rng = np.random.default_rng(0)
    every = anchors(320, 320, scale=3.0).astype(np.float64)
    codes = rng.normal(0, 0.5, every.shape)
    found = decode(codes, every)
    # automl's decode_box_outputs, with top, left, bottom, right.
    top, left, bottom, right = every[:, 1], every[:, 0], every[:, 3], every[:, 2]
    ty, tx, th, tw = codes.T
    high, wide = np.exp(th) * (bottom - top), np.exp(tw) * (right - left)
    y, x = ty * (bottom - top) + (top + bottom) / 2, tx * (right - left) + (left + right) / 2
    assert np.abs(found - np.stack((x - wide / 2, y - high / 2, x + wide / 2, y + high / 2), axis=1)).max() < 1e-9
    assert np.abs(encode(found, every) - codes).max() < 1e-9
    assert np.isfinite(decode(np.full((1, 4), 1e30), every[:1])[:, 2:]).all()


def test_points_of_a_square_and_of_16_to_9():
    square = points(320, 320)
    assert len(square) == 2125
    assert np.bincount(square.levels).tolist() == [1600, 400, 100, 25]
    assert square.centres[:2].tolist() == [[4, 4], [12, 4]]
    assert square.centres[-1].tolist() == [288, 288]
    wide = points(192, 320)
    assert level_sizes(192, 320, levels=(3, 4, 5, 6)) == ((24, 40), (12, 20), (6, 10), (3, 5))
    assert len(wide) == 60 / 100 * len(square)
    assert wide.centres[40].tolist() == [4, 12]  # the second row
    odd = points(320, 320, levels=[7])
    assert odd.strides[0] == pytest.approx([320 / 3, 320 / 3])
    assert odd.centres[-1] == pytest.approx([320 - 320 / 6] * 2)


def test_distances_and_boxes_undo_each_other():
    every = points(192, 320)
    rng = np.random.default_rng(0)
    distances = rng.uniform(-1, 8, (len(every), 4))
    boxes = boxes_at(distances, every.centres, every.strides)
    assert np.abs(distances_to(boxes, every.centres, every.strides) - distances).max() < 1e-9
    assert boxes_at(np.array([[1.0, 2, 3, 4]]), every.centres[:1], every.strides[:1]).tolist() == [[-4, -12, 28, 36]]


def test_sides_below_one_are_errors():
    with pytest.raises(DataError, match="must be at least 1; got 0 x 3"):
        points(0, 3)
