import numpy as np
import pytest
from PIL import Image
from tiny_runs import PREPROCESS, tiny_dataset

from effnet.data.datasets import Split
from effnet.data.preprocess import Preprocess
from effnet.errors import ImageError
from effnet.training.input.batches import cached_loader, eval_batches, num_batches, train_batches
from effnet.training.recipe.file import with_values
from effnet.training.recipe.schema import Recipe

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_fourth_channel_does_not_change_the_others_when_images_are_shrunk():
    image = np.zeros((200, 100, 4), dtype=np.uint8)
    image[..., :3] = 200
    preprocess = Preprocess(resolution=16, mean=(0.5,) * 4, std=(0.5,) * 4)
    load = cached_loader(Split(sources=[image], labels=np.zeros(1, np.int64)), preprocess)
    assert load(0).shape == (64, 32, 4)
    assert (load(0) == [200, 200, 200, 0]).all()


def test_images_that_cannot_be_read_are_replaced_in_training_and_left_out_of_evaluation(tmp_path):
    paths = []
    for number in range(8):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.full((16, 16), 20 * number, dtype=np.uint8)).save(path)
        paths.append(str(path))
    (tmp_path / "3.png").write_bytes(b"no image")
    (tmp_path / "5.png").unlink()
    split = Split(sources=paths, labels=np.arange(8))
    recipe = with_values(Recipe(), {"train.batch_size": 8, "augment.view": "none", "augment.flip": False})
    load = cached_loader(split, PREPROCESS)
    ((images, labels),) = train_batches(load, split.labels, recipe, PREPROCESS, epoch=0)
    assert sorted(labels) == [0, 1, 2, 4, 4, 6, 6, 7]
    assert all((image == 20 * label).all() for image, label in zip(images, labels, strict=True))
    ((images, indices),) = eval_batches(split, PREPROCESS)
    assert list(indices) == [0, 1, 2, 4, 6, 7]
    for path in paths:
        (tmp_path / path).write_bytes(b"no image")
    with pytest.raises(ImageError, match="in a row cannot be read"):
        next(train_batches(cached_loader(split, PREPROCESS), split.labels, recipe, PREPROCESS, epoch=0))


def test_batches_are_the_same_however_many_threads_prepare_them_and_wherever_they_start():
    dataset, recipe = tiny_dataset(), with_values(Recipe(), {"train.batch_size": 8})
    load = cached_loader(dataset.train, PREPROCESS)

    def batches(**settings):
        return list(train_batches(load, dataset.train.labels, recipe, PREPROCESS, epoch=2, **settings))

    one, many, late = batches(), batches(workers=3, ahead=6), batches(start=4)
    assert len(one) == len(many) == len(late) + 4 == num_batches(48, 8)
    for (a, x), (b, y) in [*zip(one, many, strict=True), *zip(one[4:], late, strict=True)]:
        assert (a == b).all()
        assert (x == y).all()


@pytest.mark.parametrize(("images", "size"), [(2, 64), (64, 64), (65, 64), (66, 64), (128, 64), (129, 64), (7, 2)])
def test_no_batch_has_a_single_image(images, size):
    labels = np.zeros(images, dtype=np.int64)
    image = np.zeros((16, 16, 1), dtype=np.uint8)
    found = list(
        train_batches(
            lambda index: image, labels, with_values(Recipe(), {"train.batch_size": size}), PREPROCESS, epoch=0
        )
    )
    assert len(found) == num_batches(images, size)
    assert min(len(labels) for _, labels in found) >= 2
    assert sum(len(labels) for _, labels in found) == images
