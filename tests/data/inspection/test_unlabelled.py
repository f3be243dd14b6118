"""Images without labels: none of them has the bytes or the pixels of a labelled one."""

import shutil

import numpy as np
import pytest
from PIL import Image

from effnet.data.datasets import Dataset, read_dataset
from effnet.data.inspection.unlabelled import read_unlabelled
from effnet.errors import InputError


@pytest.fixture
def folder(tmp_path):
    """A folder of five images of its own."""
    rng, root = np.random.default_rng(7), tmp_path / "more"
    (root / "deep" / "er").mkdir(parents=True)
    for i in range(5):
        pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(root / ("deep/er" if i % 2 else ".") / f"{i}.png")
    return root


@pytest.fixture
def dataset(tiny_images):
    return read_dataset(str(tiny_images))


def names(found, root):
    return sorted(path.removeprefix(f"{root}/") for path in found.paths)


OWN = ["0.png", "2.png", "4.png", "deep/er/1.png", "deep/er/3.png"]


def test_every_image_below_the_folder_is_found(folder, dataset):
    found = read_unlabelled(folder, dataset)
    assert names(found, folder) == OWN
    assert found.sentences == (f"5 of the 5 images in {folder} have no label",)
    assert len(found.split) == 5


def test_copies_of_labelled_images_are_left_out_in_any_format(folder, dataset):
    test, val, train = (getattr(dataset, name).sources for name in ("test", "val", "train"))
    shutil.copy(test[0], folder / "a.png")  # the same file
    Image.open(test[1]).save(folder / "b.bmp")  # the same pixels
    Image.open(val[0]).convert("RGB").save(folder / "c.tif")  # the same to a network of one channel
    shutil.copy(train[0], folder / "deep" / "d.png")
    found = read_unlabelled(folder, dataset)
    assert names(found, folder) == OWN
    assert found.copies == {"test": 2, "val": 1, "train": 1}
    assert "4 images in" in found.sentences[1]
    assert "(2 of test, 1 of val, 1 of train)" in found.sentences[1]


def test_a_changed_pixel_makes_another_image(folder, dataset):
    pixels = np.array(Image.open(dataset.test.sources[0]))
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(folder / "other.png")
    assert "other.png" in names(read_unlabelled(folder, dataset), folder)


def test_an_image_counts_once_and_a_file_that_is_none_is_reported(folder, dataset):
    shutil.copy(folder / "0.png", folder / "again.png")
    (folder / "bad.png").write_bytes(b"no image")
    found = read_unlabelled(folder, dataset)
    assert (len(found.paths), found.repeated, len(found.unreadable)) == (5, 1, 1)
    assert found.unreadable[0].path == str(folder / "bad.png")
    assert "bad.png: it is not an image" in found.sentences[-1]


def test_images_in_memory_are_known_by_their_pixels(folder):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 8, 8, 1), dtype=np.uint8)
    dataset = Dataset.from_arrays(images, [i % 3 for i in range(30)])
    Image.fromarray(images[4, ..., 0]).save(folder / "known.png")
    found = read_unlabelled(folder, dataset)
    assert (names(found, folder), sum(found.copies.values())) == (OWN, 1)


def test_a_draw_is_the_same_for_the_same_seed_and_is_said(folder, dataset):
    first, again, other = (read_unlabelled(folder, dataset, most=3, seed=seed) for seed in (0, 0, 3))
    assert first.paths == again.paths != other.paths
    assert (len(first.paths), first.unread) == (3, 2)
    assert "there was no time for more" in first.sentences[-1]


def test_progress_counts_every_image_once(folder, dataset):
    counts = []
    read_unlabelled(folder, dataset, progress=lambda done, total: counts.append((done, total)))
    assert counts == [(number, 65) for number in range(1, 66)]


def test_the_folder_of_the_test_images_is_refused(dataset, tmp_path):
    for number, path in enumerate(dataset.test.sources):
        shutil.copy(path, tmp_path / f"{number}.png")
    with pytest.raises(InputError, match=r"must hold images other than the labelled ones; 9 images .* \(9 of test\)"):
        read_unlabelled(tmp_path, dataset)


def test_a_folder_without_images_and_what_is_no_folder_are_refused(dataset, tmp_path):
    with pytest.raises(InputError, match="must be a folder of images; there are none in"):
        read_unlabelled(tmp_path, dataset)
    with pytest.raises(InputError, match=r"must be a folder of images; .*nowhere is none"):
        read_unlabelled(tmp_path / "nowhere", dataset)
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="cannot be read and were left out"):
        read_unlabelled(tmp_path, dataset)
