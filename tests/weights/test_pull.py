"""effnet.jobs.pull from an archive as Google publishes them; its command line is tested with the others."""

import dataclasses
import tarfile

import pytest
import torch
from checkpoints import write_checkpoint

import effnet
from effnet.bundle.config import read_config
from effnet.bundle.weights import state_arrays
from effnet.errors import WeightsError
from effnet.jobs.pull import pull
from effnet.report.cards.published import published_card
from effnet.weights.catalog import find, preprocess_of
from effnet.weights.readers.crc32c import masked_crc32c
from effnet.weights.schemes import from_effnet

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def network():
    """EdgeTPU-S with random weights and 1001 classes, the first of them the background."""
    return effnet.build(effnet.get_spec("edgetpu_s", num_classes=1001), seed=2).eval()


@pytest.fixture(scope="module")
def archive(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "efficientnet-edgetpu-S"
    folder.mkdir()
    arrays = from_effnet(state_arrays(network), network.spec, scheme="tensorflow")
    # TensorBoard's checksum, with which the reader is tested, is too slow for a whole network.
    write_checkpoint(folder / "model.ckpt", arrays, checksum=masked_crc32c)
    path = folder.with_suffix(".tar.gz")
    with tarfile.open(path, "w:gz", compresslevel=1) as found:
        found.add(folder, folder.name)
    return path


def test_the_background_of_a_tensorflow_checkpoint_is_dropped(network, archive, tmp_path):
    folder = pull("tensorflow/efficientnet-edgetpu-S.in1k", file=archive, out=tmp_path / "out")
    pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(effnet.load_module(folder)(pixels), network(pixels)[:, 1:], atol=1e-5)
    config = read_config(folder)
    assert config.class_names[0] == "tench"
    assert config.preprocess.mean == (127 / 255,) * 3
    assert config.origin.published == ""  # no hash of these was published: they may be anybody's
    assert "77.23" not in (folder / "README.md").read_text(encoding="utf-8")


def test_the_archive_of_another_network_is_refused(archive, tmp_path):
    with pytest.raises(WeightsError):
        pull("tensorflow/efficientnet-b0.aa", file=archive, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "mode, crop, words",
    [
        ("squash", 0.875, "resized to 256 x 256, whatever its shape; the middle 224 x 224 are kept;"),
        ("squash", 1.0, "shape; interpolation"),
        ("pad", 1.0, "longer side is 224 pixels, then padded to 224 x 224 with the mean colour; interpolation"),
    ],
)
def test_the_card_says_how_images_become_square(mode, crop, words):
    entry = find("timm/tf_efficientnet_lite0.in1k")
    preprocess = dataclasses.replace(preprocess_of(entry), mode=mode, crop=crop)
    assert words in published_card(entry, effnet.get_spec(entry.network), preprocess, folder="x", checked=False)
