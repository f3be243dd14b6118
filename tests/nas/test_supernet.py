"""A supernet, small and on the CPU: its parts are the networks built alone, and learn together."""

import dataclasses

import pytest
import torch
from strategies import build_trained
from tiny_runs import PREPROCESS, RECIPE, tiny_dataset
from torch.nn import functional

from effnet import get_spec, scale
from effnet.arch.scale import with_eca, with_total_stride
from effnet.errors import InputError
from effnet.nas.spaces.elastic import elastic, slices_of, subnet, take
from effnet.nas.supernet import Parts, Scorer, Supernet, check_device, sandwich_loss, train_supernet
from effnet.nn.network import build
from effnet.training.classification.learning import validate
from effnet.training.input.batches import held_out
from effnet.training.loop import train
from effnet.training.losses import Batch
from effnet.training.recipe.file import with_values
from effnet.training.state.state import network_for

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
PLAIN = with_values(RECIPE, {"train.epochs": 6, "train.ema_decay": 0.9, "train.fused": False, "model.dropout": 0.0})


def tiny(name="b0"):
    base = with_eca("b0") if name == "eca" else get_spec(name)
    base = scale(dataclasses.replace(base, num_classes=3, in_channels=1), width=0.3, depth=1.0, resolution=16)
    return with_total_stride(dataclasses.replace(base, stages=base.stages[:3], head_channels=32), 8)


def batch_of(images=12):
    generator = torch.Generator().manual_seed(3)
    return Batch(images=torch.randn(images, 1, 16, 16, generator=generator), labels=torch.arange(images) % 3)


def alone(space, genome, network):
    """Return the part, built alone with the network's weights."""
    spec, state = subnet(space, genome=genome, state=network.state_dict())
    found = build(spec)
    found.load_state_dict(state, strict=False)
    return found


@pytest.mark.parametrize("name", ["b0", "eca", "v2_b0"])
def test_a_part_trains_as_the_network_that_is_built_alone(name):
    space = elastic(tiny(name))
    network = build_trained(space.base, resolution=16).train()
    statistics = {name: buffer.clone() for name, buffer in network.named_buffers()}
    parts, batch = Parts(space), batch_of()
    for genome in (space.smallest, tuple(index % 2 for index in range(len(space.decisions)))):
        single = alone(space, genome, network).train()
        network.zero_grad(set_to_none=True)
        found, expected = parts.logits(network, genome, batch.images), single(batch.images)
        assert torch.equal(found, expected)
        functional.cross_entropy(found, batch.labels).backward()
        functional.cross_entropy(expected, batch.labels).backward()
        places = slices_of(space, space.part(genome))
        taught = {places[name].source for name, _ in single.named_parameters()}
        for name, parameter in single.named_parameters():
            whole = network.get_parameter(places[name].source).grad
            assert torch.equal(take(whole, places[name]), parameter.grad), name
            assert whole.norm() == pytest.approx(float(parameter.grad.norm()), rel=1e-5)  # nothing outside of the part
        assert all(p.grad is None for name, p in network.named_parameters() if name not in taught)
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in network.named_buffers())


def test_the_whole_network_learns_the_labels_and_the_parts_learn_its_answers():
    space = elastic(tiny())
    network, batch = build(space.base, seed=0).train(), batch_of()
    recipe = with_values(PLAIN, {"loss.label_smoothing": 0.1})
    torch.manual_seed(5)
    loss = sandwich_loss(space, tiny_dataset(), recipe, device=CPU)(network, batch)
    torch.manual_seed(5)
    drawn = [tuple(int(torch.randint(len(d.choices), ())) for d in space.decisions) for _ in range(2)]
    assert space.smallest not in drawn
    assert drawn[0] != drawn[1]
    answers = network(batch.images).detach()
    terms = [functional.cross_entropy(answers, batch.labels, label_smoothing=0.1)]
    for genome in (space.smallest, *drawn):
        logits = alone(space, genome, network).train()(batch.images)
        terms.append(-(answers.softmax(1) * logits.log_softmax(1)).sum(1).mean())
    assert loss.item() == pytest.approx(sum(term.item() for term in terms) / 4, rel=1e-5)
    found = torch.autograd.grad(loss, list(network.parameters()))
    # The parts' terms have no gradient with respect to the answers that they learn.
    labels = functional.cross_entropy(network(batch.images), batch.labels, label_smoothing=0.1)
    parts = [Parts(space).logits(network, genome, batch.images) for genome in (space.smallest, *drawn)]
    total = labels - sum((answers.softmax(1) * logits.log_softmax(1)).sum(1).mean() for logits in parts)
    expected = torch.autograd.grad(total / 4, list(network.parameters()))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def dataset():
    return tiny_dataset(num=96)


@pytest.fixture(scope="module")
def supernet(dataset, tmp_path_factory):
    space = elastic(tiny())
    return train_supernet(space, dataset, PLAIN, PREPROCESS, folder=tmp_path_factory.mktemp("supernet"), device=CPU)


@pytest.fixture(scope="module")
def scorer(supernet, dataset):
    return Scorer(supernet, dataset)


def test_parts_learn_what_a_network_that_trains_alone_does_not_teach_them(supernet, scorer, dataset, tmp_path):
    model = network_for(supernet.space.base, PLAIN)
    single = train(model, dataset, PLAIN, PREPROCESS, folder=tmp_path, device=CPU).model
    untaught = Scorer(dataclasses.replace(supernet, network=single), dataset)
    space = supernet.space
    assert untaught.score(space.largest).score > 0.7
    assert scorer.score(space.largest).score > 0.7
    assert scorer.score(space.smallest).score > 0.7
    assert scorer.score(space.smallest).nll < untaught.score(space.smallest).nll - 0.1


def test_a_score_is_that_of_the_network_which_is_saved(supernet, scorer, dataset):
    genome = tuple(index % 2 for index in range(len(supernet.space.decisions)))
    spec, arrays = scorer.weights(genome)
    assert spec == supernet.space.network(genome)
    network = build(spec)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()}, strict=False)
    found = validate(network, held_out(dataset.val, PREPROCESS)(), PREPROCESS, CPU)
    scored = scorer.score(genome)
    assert (scored.score, scored.nll) == (found.accuracy, pytest.approx(found.loss, rel=1e-5))


def test_statistics_are_those_of_the_part(supernet, scorer, dataset):
    """With those of the whole network, which its supernet tracked, the smallest part would be worse."""
    space = supernet.space
    stale = alone(space, space.smallest, supernet.network)
    found = validate(stale, held_out(dataset.val, PREPROCESS)(), PREPROCESS, CPU)
    assert scorer.score(space.smallest).nll < found.loss
    before = {name: buffer.clone() for name, buffer in supernet.network.named_buffers()}
    scorer.score(space.smallest)
    assert all(torch.equal(buffer, before[name]) for name, buffer in supernet.network.named_buffers())


def test_an_interrupted_training_goes_on_to_the_same_weights(supernet, dataset, tmp_path):
    class Stop(Exception):
        pass

    def stop(event):
        if getattr(event, "step", 0) == 9:
            raise Stop

    recipe, space = with_values(PLAIN, {"train.epochs": 2}), supernet.space
    once = train_supernet(space, dataset, recipe, PREPROCESS, folder=tmp_path / "once", device=CPU)
    with pytest.raises(Stop):
        train_supernet(space, dataset, recipe, PREPROCESS, folder=tmp_path / "twice", device=CPU, listener=stop)
    again = train_supernet(space, dataset, recipe, PREPROCESS, folder=tmp_path / "twice", device=CPU)
    expected = once.network.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.network.state_dict().items())


def test_without_a_cuda_device_it_refuses_and_says_why(supernet, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"needs a CUDA device; .* days on a CPU. Use --algorithm surrogate or"):
        train_supernet(supernet.space, dataset, PLAIN, PREPROCESS, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert check_device() == torch.device("cuda")


def test_a_teacher_is_refused(supernet, dataset, tmp_path):
    recipe = with_values(PLAIN, {"loss.teacher": "teacher/"})
    with pytest.raises(InputError, match=r"teaches its parts itself; got loss\.teacher='teacher/'"):
        train_supernet(supernet.space, dataset, recipe, PREPROCESS, folder=tmp_path, device=CPU)


def test_a_supernet_is_frozen(supernet):
    assert isinstance(supernet, Supernet)
    with pytest.raises(dataclasses.FrozenInstanceError):
        supernet.network = None
