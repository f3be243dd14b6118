"""The whole search on digits: half of the multiply-accumulates, an ordinary bundle, the same after interruptions."""

import dataclasses

import numpy as np
import pytest
import torch
from strategies import build_trained

from effnet import cost, get_spec, load
from effnet.arch.codec import spec_from_dict, spec_to_dict
from effnet.arch.lineage import Lineage
from effnet.arch.scale import scale
from effnet.arch.spec import ArchSpec, StemSpec, stage
from effnet.bundle.config import ModelConfig
from effnet.bundle.weights import load_module, save_bundle, state_arrays
from effnet.compression.norm_statistics import right_answers
from effnet.compression.recovery import network_of
from effnet.compression.subject import Subject
from effnet.data.datasets import Split, read_dataset
from effnet.data.preprocess import Preprocess
from effnet.errors import BudgetError
from effnet.measurement.budget import Budget
from effnet.nas.assemble.alternatives import alternatives, own
from effnet.nas.assemble.assemble import Settings, assemble
from effnet.nas.assemble.library import Images, make_library, order_of
from effnet.nas.assemble.score import divergence, logits_of
from effnet.nn.network import build
from effnet.planner.events import Counted, Said
from effnet.progress import EpochEnd
from effnet.runtimes.onnxruntime.writer import export_onnx
from effnet.training.loop import train
from effnet.training.recipe.schema import Augment, Recipe, Train

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = Settings(images=64, round_to=4, shares=(0.4,), number=3, finalists=2, little=0.25)


@pytest.fixture(scope="module")
def digits():
    """Some of the digits: the accuracy is not tested here."""
    found = read_dataset("digits", channels=1)

    def part(split, count):
        return Split(sources=split.sources[:count], labels=split.labels[:count])

    return dataclasses.replace(
        found, train=part(found.train, 192), val=part(found.val, 100), test=part(found.test, 100)
    )


@pytest.fixture(scope="module")
def teacher(digits, tmp_path_factory):
    """A tiny network with large kernels and squeeze-and-excitation, trained on the digits from scratch."""
    rows = ((1, 1, 8, 12, 0.0), (2, 2, 12, 16, 0.25), (2, 2, 16, 24, 0.0))
    stages = tuple(
        stage("mbconv", repeats=n, kernel_size=5, stride=s, expand_ratio=4, in_channels=i, out_channels=o, se_ratio=se)
        for n, s, i, o, se in rows
    )
    spec = ArchSpec(
        lineage=Lineage(base="tiny"), in_channels=1, num_classes=10, resolution=16, activation="relu6",
        stem=StemSpec(channels=8, stride=1), stages=stages, head_channels=64,
    )  # fmt: skip
    preprocess = Preprocess(resolution=16, crop=1.0, mean=(0.3,), std=(0.35,))
    recipe = Recipe(train=Train(epochs=8, batch_size=32, lr=1e-2), augment=Augment(view="none", flip=False))
    found = train(build(spec, seed=0), digits, recipe, preprocess, folder=tmp_path_factory.mktemp("teacher"))
    config = ModelConfig(arch=spec, preprocess=preprocess, class_names=digits.class_names)
    return Subject(config=config, state=state_arrays(found.model))


def run(teacher, digits, folder, *, share=0.5, listener=lambda event: None, **options):
    budget = Budget(macs=share * cost(teacher.config.arch).macs)
    return assemble(
        teacher, digits, budget=budget, predict=lambda spec: {}, epochs=4, folder=folder, settings=QUICK,
        listener=listener, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def assembled(teacher, digits, tmp_path_factory):
    events = []
    return run(teacher, digits, tmp_path_factory.mktemp("assembled"), listener=events.append), events


def test_half_of_the_macs_in_two_rounds(assembled, teacher, digits):
    found, events = assembled
    spec, before = found.subject.config.arch, teacher.config.arch
    assert found.figures == {"macs": cost(spec).macs}
    assert 0.4 < cost(spec).macs / cost(before).macs <= 0.5
    assert len(found.rounds) == 2
    first, second = found.rounds
    assert first.limits["macs"] == pytest.approx(0.5**0.5 * cost(before).macs)
    assert all(each.figures["macs"] <= row.limits["macs"] for row in found.rounds for each in row.scored)
    assert min(each.val_loss for each in second.finalists) == second.winner.scores.val_loss
    assert [event.text for event in events if isinstance(event, Said) and event.heading][:2] == [
        "Round 1 of 2: alternatives of every block", "Round 2 of 2: alternatives of every block",
    ]  # fmt: skip
    counts = [event.done for event in events if isinstance(event, Counted) and event.label == "scoring alternatives"]
    assert counts[: len(counts) // 2] == list(range(1, len(alternatives(before)) + 1))

    def accuracy(subject):
        return right_answers(network_of(subject), digits.test, subject.config).mean()

    assert accuracy(teacher) > 0.7
    assert accuracy(found.subject) > 0.4  # of ten classes, after four epochs of 192 images


def test_the_result_is_an_ordinary_bundle(assembled, tmp_path):
    subject = assembled[0].subject
    spec = subject.config.arch
    assert spec_from_dict(spec_to_dict(spec)) == spec
    assert spec.name == f"tiny assembled pruned to {cost(spec).macs / 1e6:.3g}M MACs"
    save_bundle(tmp_path, subject.config, subject.state)
    export_onnx(tmp_path, subject.config, subject.state)
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 1), dtype=np.uint8)
    pixels = torch.from_numpy((images / 255 - 0.3) / 0.35).float().permute(0, 3, 1, 2)
    with torch.no_grad():
        wanted = load_module(tmp_path)(pixels).softmax(1)
    np.testing.assert_allclose(load(tmp_path).probabilities(images), wanted, atol=1e-4)


class Stop(Exception):
    """Ends a search from its listener."""


def test_an_interrupted_search_goes_on_to_the_same_network(assembled, teacher, digits, tmp_path):
    """Interrupted again and again: within each library, while networks are assembled, and in each training."""
    whole, _ = assembled
    kinds = {"scoring alternatives": (3,), "assembling networks": (2,), "epoch": (1, 3, 5)}
    seen, stops = dict.fromkeys(kinds, 0), 0

    def count(event):
        kind = event.label if isinstance(event, Counted) else "epoch" if isinstance(event, EpochEnd) else ""
        if kind:
            seen[kind] += 1
            if seen[kind] in kinds[kind]:
                raise Stop

    while True:
        try:
            found = run(teacher, digits, tmp_path, listener=count)
            break
        except Stop:
            stops += 1
    assert stops == 5
    assert found.subject.config == whole.subject.config
    assert [row.scored for row in found.rounds] == [row.scored for row in whole.rounds]
    assert all(np.array_equal(found.subject.state[name], array) for name, array in whole.subject.state.items())


def test_a_lower_resolution_is_a_finalist_and_one_round_is_enough_for_a_small_cut(teacher, digits, tmp_path):
    found = run(teacher, digits, tmp_path, share=0.7, resolutions=(12,))
    (only,) = found.rounds
    assert {each.resolution for each in only.finalists} == {16, 12}
    assert any(each.parts == () for each in only.scored if each.resolution == 12)  # the whole network fits there
    assert found.subject.config.preprocess.resolution == found.subject.config.arch.resolution


def test_a_teacher_that_meets_the_budget_is_returned(teacher, digits, tmp_path):
    found = run(teacher, digits, tmp_path, share=1.0)
    assert found.subject is teacher
    assert found.rounds == ()


def test_another_search_in_the_folder_begins_again(teacher, digits, tmp_path):
    run(teacher, digits, tmp_path, share=1.0)
    (tmp_path / "of the first").touch()
    run(teacher, digits, tmp_path, share=1.0)
    assert (tmp_path / "of the first").exists()
    run(teacher, digits, tmp_path, share=1.1)
    assert not (tmp_path / "of the first").exists()


def test_a_budget_that_nothing_meets_is_refused(teacher, digits, tmp_path):
    with pytest.raises(BudgetError, match="cannot be assembled within the budget"):
        run(teacher, digits, tmp_path, share=0.01)


def test_scores_of_a_library(tmp_path):
    """Kept parts score 0; every other is the divergence of the network with this part alone, also if it is resumed."""
    spec = scale(get_spec("b0", num_classes=5), width=0.25, depth=0.6, resolution=32)
    network = build_trained(spec, resolution=32).eval()
    batches = torch.randn(40, 3, 32, 32, generator=torch.Generator().manual_seed(0)).split(8)
    fit, score = batches[:4], batches[4:]
    images = Images(fit=fit, fit_logits=logits_of(network, fit), score=score, score_logits=logits_of(network, score))
    parts = ("stages.1.0", "stages.1.1", "head")
    wanted = {part: alternatives(spec, shares=(0.5,))[part] for part in parts}
    library = make_library(network, wanted, images, folder=tmp_path, seed=0, count=lambda done, total: None)
    assert [shelf.part for shelf in library] == list(parts)
    for shelf in library:
        assert shelf.scores[0] == 0.0
        assert shelf.alternatives[0] == own(spec, shelf.part)
        assert sorted(shelf.order) == list(range(own(spec, shelf.part).channels))
        assert min(shelf.scores) > -1e-6  # nothing is nearer to a teacher than itself
        assert len(set(shelf.scores)) > len(shelf.scores) / 2
    gone = next(number for number, each in enumerate(wanted["stages.1.1"]) if each.dropped)
    network.stages[1][1] = torch.nn.Identity()
    alone = divergence(images.score_logits, logits_of(network, images.score))
    assert library[1].scores[gone] == pytest.approx(alone, rel=1e-4)
    assert order_of(library).keys() == set(parts)
    network.stages[1][1] = build_trained(spec, resolution=32).eval().stages[1][1]
    (tmp_path / "stages.1.0.json").unlink()
    again = make_library(network, wanted, images, folder=tmp_path, seed=0, count=lambda done, total: None)
    assert again == library
