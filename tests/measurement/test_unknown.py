"""Images of none of the classes: found anywhere below a folder, counted, and separated from the others."""

import dataclasses

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

import effnet
from effnet.bundle.config import read_config, write_config
from effnet.data.datasets import read_dataset
from effnet.errors import DataError
from effnet.measurement.classification.unknown import area_under_roc, measure_unknown, unknown_images


class Judge:
    """A fake predictor whose confidence in an image is its first pixel in 255ths."""

    def __init__(self, threshold):
        self.config = type("Config", (), {"threshold": threshold})
        self.engine = None

    def prepare(self, path):
        from effnet.data.images.decode import decode_image

        return decode_image(path, channels=1)

    scored = False

    def outputs(self, images, *, scored):
        sure = images[:, 0, 0, 0] / 255
        return np.column_stack([sure, 0 * sure]).astype(np.float32)


@pytest.fixture
def strangers(tmp_path):
    """Return a folder of 40 images of confidence 100 to 139, in subfolders, with files that are no images."""
    for number in range(40):
        folder = tmp_path / f"{number % 3}" / "deep"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2), 100 + number).save(folder / f"{number}.png")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    return tmp_path


def test_the_share_rejected_and_the_area_counted_by_hand(strangers):
    (strangers / "0" / "broken.png").write_bytes(b"no image")
    found = measure_unknown(Judge(119.5 / 255), strangers, known=np.array([[200], [119.5]]) / 255)
    assert (found.images, found.unreadable) == (40, 1)
    assert found.rejected == 20 / 40
    assert found.auroc == pytest.approx((40 + 20) / 80)  # of 80 pairs, one image wins all 40, the other 20


def test_without_a_threshold_nothing_is_rejected_but_the_area_is_known(strangers):
    found = measure_unknown(Judge(None), strangers, known=np.array([[0.2]]))
    assert (found.rejected, found.auroc) == (None, 0.0)


@pytest.mark.parametrize("seed", range(6))
def test_the_area_is_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    # Few values, so that there are ties.
    known, strange = (rng.integers(0, 9, rng.integers(1, 40)) / 8 for _ in range(2))
    truth = np.repeat((1, 0), (len(known), len(strange)))
    assert area_under_roc(known, strange) == pytest.approx(roc_auc_score(truth, np.concatenate([known, strange])))


def test_a_folder_without_images_is_named(tmp_path):
    for folder, message in ((tmp_path, "images of none of the classes in"), (tmp_path / "x", "x is not a folder")):
        with pytest.raises(DataError, match=message):
            unknown_images(folder)
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"readable images in .*; there are none"):
        measure_unknown(Judge(0.5), tmp_path, known=np.array([[0.2]]))


def test_a_score_tells_of_unknown_images(bundle_copy, tiny_images):
    write_config(dataclasses.replace(read_config(bundle_copy), threshold=0.9), bundle_copy)
    found = effnet.evaluate(effnet.load(bundle_copy), read_dataset("digits").test, unknown_from=tiny_images)
    assert (found.unknown.images, found.unknown.unreadable) == (60, 0)
    assert found.unknown.rejected > 0.9
    assert 0 < found.unknown.auroc <= 1
