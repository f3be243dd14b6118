from dataclasses import replace

import numpy as np
import pytest

from effnet.data.datasets import Dataset, Split, read_dataset
from effnet.data.inspection.mirrors import mirrored_names, why_not_mirrored, with_mirrors_judged
from effnet.weights.class_names import class_names


def data_set(images, labels, names=("a", "b")) -> Dataset:
    split = Split(sources=list(images), labels=np.asarray(labels, np.int64))
    return Dataset(
        name="made", class_names=names, channels=3, train=split, val=split, test=split, mirror_safe=True
    )  # fmt: skip


def arrows(number: int, *, mixed: bool = False) -> Dataset:
    """Noisy images with an arrow to the left (class 0) or right (1); if `mixed`, to either side in both classes."""
    rng, images = np.random.default_rng(0), []
    labels = np.arange(number) % 2
    for label in labels:
        image = rng.integers(40, 160, (32, 32, 3), dtype=np.uint8)
        row, column = rng.integers(12, 20, 2)
        for step in range(9):  # a filled head whose tip is on the right
            half = (8 - step) // 2
            image[row - half : row + half + 1, column - 4 + step] = 230
        right = rng.random() < 0.5 if mixed else label == 1
        images.append(image if right else image[:, ::-1])
    return data_set(images, labels)


@pytest.mark.parametrize(
    "names",
    [
        ("turn left", "turn right"), ("TurnLeft", "TurnRight"), ("go", "links_abbiegen", "rechts-abbiegen"),
        ("flèche à gauche", "flèche à droite"), ("bras gauche", "bras droit"), ("mano izquierda", "mano derecha"),
        ("sinistra", "destra"), ("seta à esquerda", "seta à direita"), ("vlevo", "vpravo"), ("налево", "направо"),
        ("左转", "右转"), ("왼손", "오른손"), ("SOL", "SAĞ"),
    ],
)  # fmt: skip
def test_names_of_left_and_right_are_found_in_many_languages(names):
    assert mirrored_names(names) == names[-2:]
    assert names[-1] in why_not_mirrored(data_set(np.zeros((2, 8, 8, 3), np.uint8), (0, 1), names))


@pytest.mark.parametrize("names", [("left", "up"), ("copyright", "other"), ("right", "wright"), ("clever", "cat"), ()])
def test_other_names_say_nothing(names):
    assert mirrored_names(names) is None


def test_no_two_classes_of_imagenet_are_each_others_mirror_image():
    assert mirrored_names(class_names(1000)) is None


def test_classes_that_are_each_others_mirror_image_are_found_in_the_pixels():
    data = with_mirrors_judged(arrows(240))
    assert not data.mirror_safe
    assert data.notes[-1].endswith('mirrored images of the class "a" look like those of "b", and vice versa.')
    assert with_mirrors_judged(data) is data


def test_nothing_speaks_against_mirroring_where_arrows_have_no_side_or_images_are_few():
    for data in (arrows(240, mixed=True), arrows(14), arrows(1)):
        assert with_mirrors_judged(data) is data


def test_characters_are_not_mirrored():
    digits = replace(read_dataset("digits"), mirror_safe=True)
    assert "simple classifier is right on" in why_not_mirrored(digits)


def test_files_that_cannot_be_read_are_left_out(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    data = arrows(240)
    split = Split(sources=[str(tmp_path / "bad.png"), *data.train.sources], labels=np.insert(data.train.labels, 0, 0))
    assert "look like" in why_not_mirrored(replace(data, train=split))


@pytest.mark.parametrize("name", ["photos7", "imagenette_mini"])
def test_photographs_are_mirrored(name, shared_data):
    data = read_dataset(str(shared_data(name)))
    assert with_mirrors_judged(data) is data
