"""Batches of images with objects: held-out images as the device prepares them, views that no thread changes."""

import numpy as np
import pytest
from PIL import Image
from rectangles import PREPROCESS, rectangle_set, rectangle_split

from effnet.data.annotated.objects import CLASS, COLUMNS, present
from effnet.data.datasets import Split
from effnet.data.view.letterbox import fit_image
from effnet.training.detection import inputs
from effnet.training.input.batches import train_batches
from effnet.training.recipe.file import with_values
from effnet.training.recipe.progressive import recipe_at
from effnet.training.recipe.schema import Recipe

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = with_values(Recipe(), {"train.batch_size": 8, "boxes.mosaic": 0.5, "train.epochs": 20})


def batches(split, *, limit=10**9, epoch=3, **options):
    made = inputs.views(split, RECIPE, PREPROCESS, limit=limit)
    return list(train_batches(None, split.labels, RECIPE, PREPROCESS, epoch=epoch, views=made, **options))


def test_batches_are_the_same_with_threads_without_a_cache_and_from_any_start():
    split = rectangle_set(20).train
    one = batches(split)
    assert [len(images) for images, _ in one] == [8, 8, 4]
    for images, targets in one:
        assert images.shape[1:] == (64, 64, 1)
        assert images.dtype == np.uint8
        assert targets.dtype == np.float32
        assert targets.shape[2] == COLUMNS
        assert ((targets[..., CLASS] >= 0).sum(1) > 0).all()  # every view keeps an object
    for other in (batches(split, limit=0), batches(split, workers=3, ahead=6), [one[0], *batches(split, start=1)]):
        for (images, targets), (again, same) in zip(one, other, strict=True):
            assert (images == again).all()
            assert (targets == same).all()
    assert (one[0][0] != batches(split, epoch=4)[0][0]).any()


def test_held_out_images_are_those_of_the_letterbox_with_their_boxes(tmp_path):
    split = rectangle_split(5, side=90)
    paths = []
    for number, image in enumerate(split.sources):
        path = tmp_path / f"{number}.png"
        Image.fromarray(image[..., 0][:, : 60 + 6 * number]).save(path)
        paths.append(str(path))
    (tmp_path / "2.png").write_bytes(b"no image")
    files = Split(sources=paths, labels=split.labels)
    for limit in (0, 10**9):
        found = list(inputs.held_out(files, RECIPE, PREPROCESS, batch_size=3, limit=limit)())
        assert [len(images) for images, _ in found] == [3, 1]
        shown = [own for _, some in found for own in some]
        for own, place in zip(shown, (0, 1, 3, 4), strict=True):
            image = np.asarray(Image.open(paths[place]))[..., None]
            canvas, box = fit_image(
                image, input_height=64, input_width=64, fill=PREPROCESS.fill, interpolation="bicubic"
            )
            assert own.place == box
            assert (own.truth.boxes == present(split.labels[place])[:, :4]).all()
            assert own.targets[:, [1, 3]] == pytest.approx(own.truth.boxes[:, [1, 3]] * 64 / 90)
        images = np.concatenate([images for images, _ in found])
        assert (images[3] == canvas).all()


def test_the_last_epochs_have_no_mosaics():
    assert [recipe_at(RECIPE, epoch).boxes.mosaic for epoch in (0, 16, 17, 19)] == [0.5, 0.5, 0.0, 0.0]
