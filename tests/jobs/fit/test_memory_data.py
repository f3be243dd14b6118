"""A fit takes a program's own images for a path, tests on the split that the program knows, and can be resumed."""

import dataclasses

import numpy as np
import pytest
from PIL import Image
from procedures import fit, train

import effnet
from effnet.errors import DataError, InputError

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ("light", "dark", "middle")  # not sorted


@pytest.fixture(scope="module")
def images(tiny_images):
    return np.stack([np.asarray(Image.open(path)) for name in NAMES for path in sorted((tiny_images / name).iterdir())])


@pytest.fixture(scope="module")
def labels():
    return np.repeat(np.arange(3), 20)


@pytest.fixture(scope="module")
def fitted(images, labels, tmp_path_factory):
    """A data set of arrays, and a training on it."""
    dataset = effnet.Dataset.from_arrays(images, labels, class_names=NAMES, name="shades", seed=5)
    out = tmp_path_factory.mktemp("memory") / "out"
    return dataset, train(dataset, model=effnet.scale("b0", phi=-20, resolution=16), epochs=2, out=out)


def test_the_bundle_has_the_programs_classes_and_test_split(fitted):
    dataset, result = fitted
    assert result.model.config.class_names == NAMES
    assert result.report.seed == 5
    score = effnet.evaluate(result.model, dataset)
    assert score.images == len(dataset.test) == result.report.test.images
    assert score.accuracy == effnet.evaluate(result.model, dataset.test).accuracy == result.test_accuracy
    assert (result.latency_ms, result.folder) == (result.report.measured.latency_ms, result.model.folder)
    assert result.report.command.startswith("effnet train DATA ")
    assert result.report.dataset.source == "shades"


def test_files_and_torchs_items_are_evaluated_whole(fitted, images, labels, tiny_images):
    _, result = fitted
    items = [(image, NAMES[label]) for image, label in zip(images, labels, strict=True)]
    assert effnet.evaluate(result.model, items).confusion == effnet.evaluate(result.model, tiny_images).confusion
    assert effnet.evaluate(result.model, items).images == 60


def test_it_is_resumed_with_the_same_arrays_alone(fitted, images, labels):
    _, result = fitted
    options = {"model": effnet.scale("b0", phi=-20, resolution=16), "epochs": 2, "out": result.folder, "resume": True}
    again = train(
        effnet.Dataset.from_arrays(images.copy(), labels, class_names=NAMES, name="shades", seed=5), **options
    )
    assert again.test_accuracy == result.test_accuracy
    changed = images.copy()
    changed[0, 0, 0] ^= 1
    other = effnet.Dataset.from_arrays(changed, labels, class_names=NAMES, name="shades", seed=5)
    with pytest.raises(InputError, match=r"needs the images that the fit in .* began with; they have changed since"):
        train(other, **options)


def test_a_split_that_would_be_another_is_refused(fitted, tmp_path):
    dataset, _ = fitted
    with pytest.raises(InputError, match="seed must be that of the data set's own split, 5; got 1"):
        fit(dataset, seed=1, out=tmp_path / "out")
    swapped = dataclasses.replace(dataset, test=dataset.train, train=dataset.test)
    with pytest.raises(InputError, match="its train split was changed: give the splits to from_arrays"):
        fit(swapped, out=tmp_path / "out")
    one_image = dataclasses.replace(dataset.train, sources=dataset.train.sources[:1] * len(dataset.train))
    with pytest.raises(InputError, match="its train split was changed"):  # the same labels
        fit(dataclasses.replace(dataset, train=one_image), out=tmp_path / "out")
    with pytest.raises(DataError, match="DATA must be a path, a Dataset of effnet or one of torch; got int"):
        fit(3, out=tmp_path / "out")
    assert not (tmp_path / "out" / "config.json").exists()
