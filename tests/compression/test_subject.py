import json

import pytest

from effnet.compression.subject import mirrored_as_trained
from effnet.data.datasets import read_dataset


@pytest.mark.parametrize(
    "recipe, mirrored",
    [
        ({"augment": {"flip": False}}, False), ({"augment": {"flip": True}}, True), ({"augment": None}, True),
        ([], True), (None, True),
    ],
)  # fmt: skip
def test_recovery_mirrors_no_more_than_training_did(recipe, mirrored, tiny_images, tmp_path):
    if recipe is not None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "recipe.json").write_text(json.dumps(recipe))
    assert mirrored_as_trained(read_dataset(str(tiny_images)), tmp_path).mirror_safe is mirrored
