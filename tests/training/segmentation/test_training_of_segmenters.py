import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from effnet.data.annotated.masks.codes import IGNORE
from effnet.data.annotated.masks.labels import MASKS
from effnet.data.datasets import Dataset
from effnet.data.preprocess import Preprocess, normalize
from effnet.errors import DataError, InputError
from effnet.progress import Step
from effnet.training.checks import check_run
from effnet.training.loop import train
from effnet.training.recipe.file import with_values
from effnet.training.recipe.schema import Recipe
from effnet.training.segmentation.inputs import held_out, read_pair
from effnet.training.segmentation.validated import validate

pytestmark = pytest.mark.usefixtures("one_thread")

PREPROCESS = Preprocess(resolution=32, crop=1.0, mode="corner", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
RECIPE = with_values(
    Recipe(),
    {
        "train.epochs": 6, "train.batch_size": 4, "train.lr": 0.02, "train.ema_decay": 0.9, "augment.jitter": 0.2,
        "augment.interpolation": "bilinear", "loss.label_smoothing": 0.0, "masks.quarter_turns": True,
        "masks.class_weights": 0.5,
    },
)  # fmt: skip


@pytest.fixture(scope="module")
def boxes():
    """Return bright squares on dark noise; the first row of each image is ignored."""
    rng = np.random.default_rng(0)
    images, masks = [], []
    for _ in range(14):
        height, width = rng.integers(34, 60, 2)
        mask = np.zeros((height, width), np.uint8)
        top, left = rng.integers(2, 16, 2)
        mask[top : top + 12, left : left + 12] = 1
        image = rng.integers(0, 90, (height, width, 3)).astype(np.uint8)
        image[mask == 1] += 120
        mask[0] = IGNORE
        images.append(image)
        masks.append(mask)
    return Dataset.from_arrays(images, masks, class_names=("ground", "square"), label_kind=MASKS)


def tiny():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 3, 2, 1))


def run(folder, dataset, *, recipe=RECIPE, listener=None):
    return train(
        tiny(), dataset, recipe, PREPROCESS, folder=folder, listener=listener, device=torch.device("cpu"),
        checkpoint_seconds=0,
    )  # fmt: skip


class Stop(Exception):
    pass


def test_the_loop_trains_it_and_resumes_exactly(tmp_path, boxes):
    whole = run(tmp_path / "whole", boxes)
    pixels = sum(label.pixels for label in boxes.val.labels)
    always_ground = pixels[0] / pixels[:2].sum() / 2
    assert whole.history[-1]["val_miou"] > always_ground + 0.05
    assert whole.history[-1]["loss"] < whole.history[0]["loss"]

    def stop(event):
        if isinstance(event, Step) and event.step == 8:
            raise Stop

    with pytest.raises(Stop):
        run(tmp_path / "parts", boxes, listener=stop)
    resumed = run(tmp_path / "parts", boxes)
    one, two = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_validation_is_that_of_each_image_on_its_own(boxes, scale):
    network = tiny().eval()
    batches = held_out(boxes.train, RECIPE, dataclasses.replace(PREPROCESS, scale=scale), batch_size=5, limit=10**8)
    found = validate(network, batches(), PREPROCESS, torch.device("cpu"))
    confusion, losses = np.zeros((2, 2), int), []
    for index in range(len(boxes.train)):
        image, mask = read_pair(boxes.train, index, PREPROCESS)
        if scale:
            padded = np.full((64, 64, 3), PREPROCESS.fill, np.uint8)
            padded[: len(image), : image.shape[1]] = image
        else:
            padded = image
        x = torch.from_numpy(normalize(padded, PREPROCESS)).permute(2, 0, 1)[None]
        if not scale:  # Pillow's resize of the letterbox is another than torch's: only the truth is compared
            confusion += np.bincount(mask[mask != IGNORE], minlength=2)[:, None] * np.eye(2, dtype=int)
            continue
        with torch.no_grad():
            logits = nn.functional.interpolate(network(x), (64, 64), mode="bilinear")[0, :, : len(image)]
        guessed = logits[:, :, : image.shape[1]].argmax(0).numpy()
        known = mask != IGNORE
        losses.append((guessed[known] == mask[known]).mean())
        confusion += np.bincount(mask[known] * 2 + guessed[known], minlength=4).reshape(2, 2)
    assert found.confusion.sum(1).tolist() == confusion.sum(1).tolist()
    if scale:  # windows see less around them than the whole image: they agree but for their borders
        assert np.abs(found.confusion - confusion).max() < 0.1 * confusion.sum()
    right = np.diagonal(found.confusion)
    ious = right / (found.confusion.sum(0) + found.confusion.sum(1) - right)
    assert found.miou == pytest.approx(ious.mean())
    assert found.figures == {"val_miou": found.miou}
    assert found.score(RECIPE) == (found.miou, -found.loss)
    assert found.words.startswith("mIoU ")
    assert found.images(boxes.class_names)["confusion"].shape[2] == 3


def test_the_loss_of_validation_is_cross_entropy(boxes):
    class Constant(nn.Module):
        def forward(self, x):
            logits = torch.tensor([0.0, 1.0])[None, :, None, None]
            return {"mask": logits.expand(len(x), 2, x.shape[2] // 4, x.shape[3] // 4)}

    batches = held_out(boxes.train, RECIPE, PREPROCESS, batch_size=5, limit=10**8)
    found = validate(Constant(), batches(), PREPROCESS, torch.device("cpu"))
    low, high = np.log1p(np.exp(-1)), np.log1p(np.exp(1))
    assert low < found.loss < high
    share = (high - found.loss) / (high - low)  # of the square
    squares = sum(label.pixels[1] for label in boxes.train.labels) / sum(
        label.pixels[:-1].sum() for label in boxes.train.labels
    )
    assert share == pytest.approx(squares, abs=0.02)
    assert found.ious[0] == 0


@pytest.mark.parametrize(
    "field, value",
    [
        ("augment.rotation", 10.0),
        ("augment.mixup", 0.2),
        ("augment.cutmix", 1.0),
        ("augment.erasing", 0.1),
        ("augment.policy", "randaugment"),
        ("loss.focal_gamma", 2.0),
        ("loss.teacher", "x"),
        ("balance.method", "sample"),
    ],
)
def test_what_masks_do_not_have_is_refused(boxes, field, value):
    with pytest.raises(InputError, match=f"for masks {field}"):
        check_run(tiny(), boxes, with_values(RECIPE, {field: value}))


def test_classes_without_pixels_are_said_and_masks_without_any_are_errors(boxes):
    images = [np.zeros((34, 34, 3), np.uint8)] * 4
    plain = [np.zeros((34, 34), np.uint8)] * 3
    other = np.full((34, 34), 2, np.uint8)
    names = ("a", "b", "c")
    found = Dataset.from_arrays(
        images[:3], [other, *plain[:2]], class_names=names, val=(images[:2], plain[:2]), test=(images[:1], [other]),
        label_kind=MASKS,
    )  # fmt: skip
    assert check_run(tiny(), found, RECIPE) == [
        "These classes have no pixels in train and cannot be learnt: b",
        "Validation has no pixels of these classes and cannot assess them: c",
    ]
    ignored = [np.full((34, 34), IGNORE, np.uint8)] * 3
    empty = Dataset.from_arrays(
        images[:3], ignored, class_names=names, val=(images[:2], plain[:2]), test=(images[:1], [other]),
        label_kind=MASKS,
    )  # fmt: skip
    with pytest.raises(DataError, match="all of theirs are ignored"):
        check_run(tiny(), empty, RECIPE)
    with pytest.raises(InputError, match=r"masks.zoom_out must lie in 0.05..1; got 2"):
        with_values(RECIPE, {"masks.zoom_out": 2.0})
