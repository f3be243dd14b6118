"""A module becomes a bundle whose deployed file gives its probabilities."""

import dataclasses

import numpy as np
import pytest
import torch
from bundles import assert_files_are_known

import effnet
from effnet.data.preprocess import Preprocess
from effnet.errors import BundleError, EffnetError, InputError, WeightsError

pytestmark = pytest.mark.usefixtures("one_thread")
SPEC = effnet.scale("b0", phi=-20, resolution=16)  # of no known name: import_checkpoint could not tell it


@pytest.fixture
def model():
    module = effnet.create_model(SPEC, num_classes=2, in_chans=1, seed=0)
    with torch.no_grad():
        for _ in range(30):
            module(torch.randn(16, 1, 16, 16))  # the statistics of BatchNorm
    return module


def test_the_bundle_predicts_what_the_module_does(model, tmp_path):
    assert effnet.save(model, tmp_path / "out", class_names=["no", "yes"]) == tmp_path / "out"
    assert model.training
    predictor = effnet.load(tmp_path / "out")
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 1), dtype=np.uint8)
    inputs = torch.stack([effnet.transforms(model)(image) for image in images])
    with torch.inference_mode():
        expected = model.eval()(inputs).softmax(1).numpy()
    found = predictor.probabilities(np.stack([predictor.prepare(image) for image in images]))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert predictor.config.class_names == ("no", "yes")
    assert predictor.config.arch == model.spec
    assert_files_are_known(tmp_path / "out")
    assert (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    again = effnet.create_model(tmp_path / "out").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items() if tensor.ndim)


def test_preprocessing_of_ones_own_and_no_classifier(model, tmp_path):
    model.reset_classifier(0)
    preprocess = Preprocess(resolution=24, mean=(0.1,), std=(0.2,))
    effnet.save(model, tmp_path / "out", preprocess=preprocess)
    config = effnet.load(tmp_path / "out").config
    assert (config.preprocess, config.arch.resolution, config.class_names) == (preprocess, 24, ())


def test_what_makes_no_bundle_leaves_nothing(model, tmp_path):
    with pytest.raises(BundleError, match="2 outputs needs as many class names; got 3"):
        effnet.save(model, tmp_path / "out", class_names="abc")
    with pytest.raises(BundleError, match="takes 1 channels"):
        effnet.save(model, tmp_path / "out", class_names="ab", preprocess=Preprocess(resolution=16))
    with pytest.raises(WeightsError, match=r"a whole network of effnet.* got FeatureMaps"):
        effnet.save(effnet.create_model(SPEC, features_only=True), tmp_path / "out")
    broken = effnet.create_model(dataclasses.replace(SPEC, num_classes=2), seed=0)
    with torch.no_grad():
        broken.classifier.weight[0, 0] = torch.nan
    with pytest.raises(EffnetError):
        effnet.save(broken, tmp_path / "out", class_names="ab")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(InputError, match="must be new or empty"):
        effnet.save(model, tmp_path / "out", class_names="ab")
