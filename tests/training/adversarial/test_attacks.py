"""Attacks against those of the Adversarial Robustness Toolbox, and against arithmetic."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import effnet
from effnet.data.preprocess import Preprocess
from effnet.training.adversarial.attacks import fgsm, pgd, standardized

PREPROCESS = Preprocess(resolution=16)


@pytest.fixture(scope="module")
def case():
    """A network that knows its labels: those that it gives the images."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Flatten(), nn.Linear(8 * 256, 5)).eval()
    pixels = torch.rand(24, 3, 16, 16)
    with torch.no_grad():
        labels = network(standardized(pixels, PREPROCESS)).argmax(1)
    return network.requires_grad_(False), pixels, labels


@pytest.fixture
def art(case):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimators = pytest.importorskip("art.estimators.classification")
        attacks = pytest.importorskip("art.attacks.evasion")
        classifier = estimators.PyTorchClassifier(
            model=case[0],
            loss=nn.CrossEntropyLoss(),
            input_shape=(3, 16, 16),
            nb_classes=5,
            clip_values=(0.0, 1.0),
            preprocessing=(np.array(PREPROCESS.mean)[:, None, None], np.array(PREPROCESS.std)[:, None, None]),
            device_type="cpu",
        )
        yield classifier, attacks


@pytest.mark.elsewhere
def test_fgsm_is_arts(case, art):
    network, pixels, labels = case
    classifier, attacks = art
    theirs = attacks.FastGradientMethod(classifier, eps=4 / 255).generate(pixels.numpy(), labels.numpy())
    ours = fgsm(network, pixels, labels, PREPROCESS, eps=4 / 255)
    assert np.abs(ours.numpy() - theirs).max() < 1e-6


@pytest.mark.elsewhere
def test_pgd_without_its_random_start_is_arts(case, art):
    network, pixels, labels = case
    classifier, attacks = art
    attack = attacks.ProjectedGradientDescent(
        classifier, eps=8 / 255, eps_step=2 / 255, max_iter=7, num_random_init=0, verbose=False
    )
    theirs = attack.generate(pixels.numpy(), labels.numpy())

    class Middle:
        """A generator whose numbers lie in the middle: the start is the image."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", lambda shape, generator: torch.full(shape, 0.5))
        ours = pgd(network, pixels, labels, PREPROCESS, eps=8 / 255, steps=7, size=2 / 255, generator=Middle())
    assert (np.abs(ours.numpy() - theirs) > 1e-5).mean() < 1e-3  # signs of gradients near 0


@pytest.mark.parametrize("eps", [1 / 255, 8 / 255])
def test_attacks_stay_in_their_ball_and_raise_the_loss(case, eps):
    network, pixels, labels = case
    generator = torch.Generator().manual_seed(0)

    def loss(images):
        return nn.functional.cross_entropy(network(standardized(images, PREPROCESS)), labels).item()

    one = fgsm(network, pixels, labels, PREPROCESS, eps=eps)
    many = pgd(network, pixels, labels, PREPROCESS, eps=eps, steps=10, generator=generator)
    for found in (one, many):
        assert (found - pixels).abs().max() <= eps + 1e-7
        assert 0 <= found.min() <= found.max() <= 1
    assert loss(pixels) < loss(one) <= loss(many) * 1.02
    again = pgd(network, pixels, labels, PREPROCESS, eps=eps, steps=10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again, many)


def test_the_input_is_that_of_training():
    from effnet.training.device import to_input

    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    wanted = to_input(images, PREPROCESS, torch.device("cpu"))
    found = standardized(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, PREPROCESS)
    assert torch.allclose(found, wanted, atol=1e-6)
    assert effnet.evaluate.__module__ == "effnet.jobs.robustness.evaluate"
