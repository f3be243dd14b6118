"""The preprocessing of a model as a callable: what its deployed file sees, or random views for training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import effnet
from effnet.bundle.weights import load_module
from effnet.data.preprocess import Preprocess, normalize
from effnet.errors import DataError, ImageError, InputError
from effnet.training.recipe.file import with_values
from effnet.training.recipe.schema import Recipe

PREPROCESS = Preprocess(resolution=20, crop=0.9)


@pytest.fixture(scope="module")
def jpeg(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("transforms") / "large.jpg"
    ramp = np.add.outer(np.arange(300), 2 * np.arange(400))[..., None] * np.array([1, 2, 3])
    Image.fromarray((ramp % 256).astype(np.uint8)).save(path)
    return path


def test_it_is_what_the_deployed_file_predicts_from(small_bundle, tiny_images):
    predictor, module = effnet.load(small_bundle), load_module(small_bundle)
    paths = sorted(tiny_images.rglob("*.png"))[::10]
    for subject in (small_bundle, str(small_bundle), predictor, module, predictor.config.preprocess):
        transform = effnet.transforms(subject)
        inputs = torch.stack([transform(path) for path in paths])
    logits = module(inputs) / predictor.config.temperature
    expected = predictor.probabilities(np.stack([predictor.prepare(path) for path in paths]))
    torch.testing.assert_close(logits.softmax(1).detach(), torch.from_numpy(expected), rtol=1e-3, atol=1e-4)


def test_every_kind_of_image_gives_the_same_input(jpeg):
    transform, predictor_like = effnet.transforms(PREPROCESS), np.asarray(Image.open(jpeg))
    found = transform(jpeg)
    assert (found.shape, found.dtype, found.is_contiguous()) == ((3, 20, 20), torch.float32, True)
    assert torch.equal(found, transform(str(jpeg)))
    assert torch.equal(found, transform(jpeg.read_bytes()))
    whole = transform(Image.open(jpeg))  # decoded at full size
    assert torch.equal(whole, transform(predictor_like))
    assert (found - whole).abs().mean() < 0.1
    square = np.random.default_rng(0).integers(0, 256, (22, 22, 3), dtype=np.uint8)  # 20 / 0.9: not resampled
    expected = torch.from_numpy(normalize(square[1:21, 1:21], PREPROCESS)).permute(2, 0, 1)
    torch.testing.assert_close(transform(square), expected, rtol=0, atol=1e-6)


def test_a_model_without_weights_has_imagenets_preprocessing():
    module = effnet.build(effnet.get_spec("b0", num_classes=2))
    assert effnet.transforms(module).preprocess == Preprocess(resolution=224)
    assert effnet.transforms(effnet.create_model("lite0", features_only=True)).preprocess.resolution == 224


def test_training_views_are_random_reproducible_and_of_the_recipe(jpeg):
    transform = effnet.transforms(PREPROCESS, train=True)
    torch.manual_seed(0)
    views = [transform(jpeg) for _ in range(6)]
    torch.manual_seed(0)
    assert all(torch.equal(view, transform(jpeg)) for view in views)
    assert len({view.numpy().tobytes() for view in views}) == 6
    assert all(view.shape == (3, 20, 20) for view in views)
    for image in (jpeg.read_bytes(), Image.open(jpeg), np.asarray(Image.open(jpeg))):
        assert transform(image).shape == (3, 20, 20)
    still = with_values(Recipe(), {"augment.view": "none", "augment.flip": False})
    evaluated = effnet.transforms(PREPROCESS)(jpeg)
    assert torch.equal(effnet.transforms(PREPROCESS, train=True, recipe=still)(jpeg), evaluated)
    erased = with_values(Recipe(), {"augment.view": "none", "augment.flip": False, "augment.erasing": 1.0})
    assert not torch.equal(
        effnet.transforms(PREPROCESS, train=True, recipe=erased)(jpeg), effnet.transforms(PREPROCESS)(jpeg)
    )


def test_what_is_no_model_or_no_image_is_refused(jpeg, tmp_path):
    for subject in (None, 3, torch.nn.Linear(1, 1)):
        with pytest.raises(InputError, match=f"transforms takes .* got {type(subject).__name__}"):
            effnet.transforms(subject)
    with pytest.raises(InputError, match="recipe is for training"):
        effnet.transforms(PREPROCESS, recipe=Recipe())
    (tmp_path / "broken.jpg").write_bytes(jpeg.read_bytes()[:200])
    for train in (False, True):
        transform = effnet.transforms(PREPROCESS, train=train)
        with pytest.raises(InputError, match=r"an image must be a path.* got int"):
            transform(3)
        with pytest.raises(DataError, match=r"must be uint8 \[height, width, 3\]; got float64"):
            transform(np.zeros((4, 4, 3)))
        with pytest.raises(ImageError):
            transform(tmp_path / "broken.jpg")
