"""Training with BatchNorm of their own for attacked images: the loss written out, resuming, and the export."""

import copy

import numpy as np
import onnxruntime
import pytest
import torch
from tiny_runs import PREPROCESS, RECIPE, TUNING, run, tiny_dataset, tiny_spec, weights
from torch.nn import functional

from effnet.bundle.config import ModelConfig
from effnet.bundle.weights import save_bundle, state_arrays
from effnet.data.preprocess import normalize
from effnet.errors import InputError
from effnet.nn.network import build
from effnet.runtimes.onnxruntime.writer import export_onnx
from effnet.training.adversarial.auxiliary import AuxiliaryNorms, with_attacks
from effnet.training.losses import Batch, cross_entropy
from effnet.training.recipe.augment import Augment
from effnet.training.recipe.file import with_values
from effnet.training.state.checkpoint import load_checkpoint_
from effnet.training.state.state import make_state

ATTACKED = with_values(RECIPE, {"augment.adversarial": 0.25, "augment.adversarial_eps": 4.0, "train.epochs": 2})


@pytest.fixture(scope="module", autouse=True)
def _alone(one_thread):
    pass


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacked")
    return folder, run(folder, recipe=ATTACKED)


def test_the_exported_network_is_that_of_the_main_batch_norm_exactly(trained, tmp_path):
    folder, result = trained
    plain = build(tiny_spec())
    assert set(result.model.state_dict()) == set(plain.state_dict()), "the auxiliary BatchNorm must not be exported"
    # The checkpoint has both, and they differ: the test could fail.
    state = make_state(build(tiny_spec()), ATTACKED, torch.device("cpu"))
    load_checkpoint_(folder, state, say=print)
    main = [norm for norm in state.model.modules() if isinstance(norm, torch.nn.BatchNorm2d)]
    pairs = list(zip(main, state.auxiliary.norms, strict=True))
    assert len(pairs) > 5
    assert not any(torch.equal(own.running_mean, other.running_mean) for own, other in pairs)
    assert not all(torch.equal(own.weight, other.weight) for own, other in pairs)
    plain.load_state_dict(result.model.state_dict())
    images = np.stack(tiny_dataset().test.sources)
    x = torch.from_numpy(normalize(images, PREPROCESS)).permute(0, 3, 1, 2)
    with torch.no_grad():
        wanted = plain.eval()(x)
        assert torch.equal(wanted, result.model.eval()(x))
        with AuxiliaryNorms(build(tiny_spec(), seed=5)).in_place_of(plain):
            assert not torch.allclose(plain(x), wanted, atol=1e-3)
        assert torch.equal(plain(x), wanted)
    config = ModelConfig(arch=tiny_spec(), preprocess=PREPROCESS, class_names=("a", "b", "c"))
    save_bundle(tmp_path, config, state_arrays(result.model))
    export_onnx(tmp_path, config, state_arrays(result.model))
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: images})
    assert np.abs(found - functional.softmax(wanted, 1).numpy()).max() < 1e-5


def test_a_killed_run_resumes_to_the_same_weights(trained, tmp_path):
    class Stop(Exception):
        pass

    seen = []

    def stop(event):
        seen.append(event)
        if len(seen) == 5:
            raise Stop

    with pytest.raises(Stop):
        run(tmp_path, recipe=ATTACKED, listener=stop, checkpoint_seconds=0.0)
    again = weights(run(tmp_path, recipe=ATTACKED))
    assert all(torch.equal(again[name], tensor) for name, tensor in weights(trained[1]).items())


def test_the_loss_and_its_gradient_are_those_written_out():
    torch.manual_seed(0)
    model = build(tiny_spec(), seed=1).train()
    twin, norms = copy.deepcopy(model), AuxiliaryNorms(model)
    batch = Batch(images=torch.rand(12, 1, 16, 16) * 2 - 1, labels=torch.arange(12) % 3)
    augment = Augment(adversarial=0.25, adversarial_eps=8.0)
    torch.manual_seed(3)
    loss = with_attacks(cross_entropy(), norms, augment, PREPROCESS)(model, batch)
    loss.backward()

    torch.manual_seed(3)
    size = 8 / 255 / 0.25
    start = batch.images[:3] + (2 * torch.rand(3, 1, 16, 16) - 1) * size
    start = start.clamp(-2, 2).requires_grad_()
    clean = functional.cross_entropy(twin(batch.images[3:]), batch.labels[3:])
    other = copy.deepcopy(twin)  # its BatchNorm is the auxiliary one, which begins as a copy
    for own in other.modules():
        if isinstance(own, torch.nn.BatchNorm2d):
            own.reset_running_stats()
    first = functional.cross_entropy(other(start), batch.labels[:3])
    (gradient,) = torch.autograd.grad(first, start, retain_graph=True)
    moved = (
        (start.detach() + size * gradient.sign()).clamp(batch.images[:3] - size, batch.images[:3] + size).clamp(-2, 2)
    )
    hard = functional.cross_entropy(other(moved), batch.labels[:3])
    wanted = (9 * clean + 3 * 0.5 * (first + hard)) / 12
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    wanted.backward()
    shared = [
        (a.grad, b.grad, c.grad)
        for (name, a), b, c in zip(model.named_parameters(), twin.parameters(), other.parameters(), strict=True)
        if a.ndim > 1
    ]
    for found, of_clean, of_attacked in shared:
        assert torch.allclose(found, of_clean + of_attacked, rtol=1e-3, atol=1e-5)


def test_frozen_batch_norm_cannot_be_trained_so(tmp_path):
    frozen = with_values(TUNING, {"augment.adversarial": 0.25})
    with pytest.raises(InputError, match="frozen or folded into its convolutions"):
        run(tmp_path, recipe=frozen)
    few = with_values(ATTACKED, {"train.batch_size": 4})
    with pytest.raises(InputError, match="at least two attacked and two clean images in a batch; got"):
        run(tmp_path, recipe=few)
