import numpy as np
import pytest
from PIL import Image, ImageOps

from effnet.data.annotated.sizes import sizes_at, small_objects, typical_share
from effnet.data.annotated.upright import turn_boxes, turn_mask, turn_points
from effnet.data.images.decode import image_header


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_points_and_masks_turn_as_pillow_turns_images(tmp_path, orientation):
    stored = np.zeros((30, 40), np.uint8)
    stored[3:9, 5:17] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "1.png", exif=exif)
    header = image_header(str(tmp_path / "1.png"))
    assert header.orientation == orientation
    with Image.open(tmp_path / "1.png") as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    assert (header.height, header.width) == upright.shape
    assert np.array_equal(turn_mask(stored, header), upright)
    rows, columns = np.nonzero(upright)
    expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert turn_boxes(np.array([[5.0, 3, 17, 9]]), header).tolist() == [expected]
    centre = turn_points(np.array([[11.0, 6]]), header)[0]
    assert centre.tolist() == [(expected[0] + expected[2]) / 2, (expected[1] + expected[3]) / 2]


def test_small_objects_are_a_sentence_with_an_input_that_is_large_enough(shared_data):
    from effnet.data.annotated.read import read_annotated

    images = read_annotated(str(shared_data("nuclei"))).images
    found = small_objects(images, height=320, width=320)
    assert found.sentence == "15 % of the boxes are under 8 px at 320: choose 512."
    sizes = sizes_at(images, height=320, width=320)
    assert found.count == (sizes < 8).sum() == 614
    assert (sizes_at(images, height=512, width=512) < 8).mean() <= 0.05
    assert small_objects(images, height=512, width=512) is None
    assert small_objects(images, height=192, width=320).sentence.endswith("at 320 x 192: choose 768 x 448.")
    assert small_objects(images, height=320, width=320, stride=64).sentence.endswith("or cut the images into tiles.")
    assert small_objects((), height=320, width=320) is None
    assert typical_share(images) == pytest.approx(np.median(sizes) / 320)
    assert typical_share(()) is None
