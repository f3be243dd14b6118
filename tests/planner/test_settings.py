import numpy as np
import pytest
from PIL import Image

from effnet import get_spec, scale
from effnet.data.datasets import Dataset, Split, read_dataset
from effnet.data.view import reduction
from effnet.planner.settings import (
    epochs_in,
    least_epochs,
    make_preprocess,
    make_recipe,
    most_epochs,
    training_need,
)


@pytest.mark.parametrize("num_train", [2, 200, 1257, 50_000, 10_000_000])
def test_fewer_epochs_are_enough_for_more_images(num_train):
    assert 1 <= least_epochs(num_train) <= most_epochs(num_train)
    assert least_epochs(num_train) >= least_epochs(10 * num_train)


def test_a_network_that_meets_the_need_gets_its_least_epochs_within_the_time():
    need = training_need(2000, minutes=3.0, cores=2, gpu=False)
    assert epochs_in(3.0, images_per_second=1.001 * need.images_per_second, num_train=2000) >= least_epochs(2000)
    assert epochs_in(3.0, images_per_second=0.5 * need.images_per_second, num_train=2000) < least_epochs(2000)
    assert epochs_in(1e9, images_per_second=1e6, num_train=2000) == most_epochs(2000)
    assert epochs_in(1e-9, images_per_second=1.0, num_train=2000) == 1


def test_preprocessing_has_the_statistics_of_the_training_images():
    digits = read_dataset("digits")
    pixels = np.stack(digits.train.sources) / 255
    found = make_preprocess(digits, resolution=16, short_side=8, seed=0)
    assert found.mean[0] == pytest.approx(pixels.mean(), abs=0.02)
    assert found.std[0] == pytest.approx(pixels.std(), abs=0.02)
    assert found.crop == 1.0
    assert make_preprocess(digits, resolution=4, short_side=8, seed=0).crop == 0.9


def test_a_large_photograph_is_decoded_as_for_evaluation(tmp_path, monkeypatch):
    def found():
        image = Image.effect_noise((512, 512), 60).convert("RGB")
        image.save(tmp_path / "noise.jpg")
        split = Split(sources=[str(tmp_path / "noise.jpg")] * 2, labels=np.zeros(2, np.int64))
        data = Dataset(
            name="noise", class_names=("a", "b"), channels=3, train=split, val=split, test=split, mirror_safe=True
        )
        return make_preprocess(data, resolution=16, short_side=512, seed=0)

    whole = found()
    monkeypatch.setattr(reduction, "LARGE_PIXELS", 250_000)
    small = found()
    assert small.mean == pytest.approx(whole.mean, abs=0.01)
    assert max(small.std) < min(whole.std) / 2  # at an eighth of the size, noise is averaged away


def test_images_of_one_colour_still_have_a_spread():
    split = Split(sources=[np.full((8, 8, 3), 255, np.uint8)] * 4, labels=np.zeros(4, np.int64))
    white = Dataset(
        name="white", class_names=("a", "b"), channels=3, train=split, val=split, test=split, mirror_safe=True
    )
    assert min(make_preprocess(white, resolution=8, short_side=8, seed=0).std) > 0


def test_digits_are_never_mirrored_and_photographs_are():
    digits = read_dataset("digits")
    recipe = make_recipe(digits, scale(get_spec("b0"), phi=-12), epochs=10, short_side=8, memory_gb=8.0, seed=3)
    assert (recipe.augment.flip, recipe.augment.view, recipe.train.seed) == (False, "shift", 3)
    assert recipe.model.drop_path == 0.0
    photos = Dataset(
        name="photos", class_names=("a", "b"), channels=3, train=digits.train, val=digits.val, test=digits.test,
        mirror_safe=True,
    )  # fmt: skip
    recipe = make_recipe(photos, get_spec("b0"), epochs=10, short_side=256, memory_gb=None, seed=0)
    assert (recipe.augment.flip, recipe.augment.view) == (True, "crop")
    assert recipe.model.drop_path > 0


def test_a_batch_shrinks_until_training_fits_into_half_the_memory():
    digits = read_dataset("digits")
    sizes = [
        make_recipe(digits, get_spec(name), epochs=1, short_side=256, memory_gb=memory, seed=0).train.batch_size
        for name, memory in (("b0", 16.0), ("b4", 16.0), ("b7", 16.0), ("b7", 1000.0))
    ]
    assert sizes == [*sorted(sizes[:3], reverse=True), 32]
    assert sizes[0] == 32
    assert sizes[2] < 8
