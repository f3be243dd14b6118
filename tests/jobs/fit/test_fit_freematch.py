"""fit --unlabelled with few labels a class: FreeMatch is chosen, trained, judged, reported and resumed."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import procedures
import pytest
import safetensors.numpy
from PIL import Image

import effnet
from effnet.errors import InputError
from effnet.jobs.fit.config import FitConfig
from effnet.jobs.fit.job import job_of
from effnet.jobs.fit.transfer import finetune as finetune_module
from effnet.jobs.fit.unlabelled import rounds as rounds_module
from effnet.jobs.fit.unlabelled.freematch import check_method, chosen_method
from effnet.measurement.paired import Paired
from effnet.planner.events import Said
from effnet.report.provenance import method_sentence
from effnet.training.distributed.ranks import Ranks

pytestmark = pytest.mark.usefixtures("one_thread")


def write_stripes(folder, number, count, rng):
    """Write images of stripes, the class `number`: none, rows or columns."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        wave = 50 * np.sign(np.sin(np.arange(16) * np.pi / 2 + rng.uniform(0, 6.3)))
        pattern = (0, wave[:, None], wave[None])[number]
        pixels = np.clip(128 + pattern + rng.normal(0, 40, (16, 16)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}{i:02d}.png")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Five labelled images a class, of which three are for training, and a folder of 45 without labels."""
    root, rng = tmp_path_factory.mktemp("few"), np.random.default_rng(5)
    for number, name in enumerate(("plain", "rows", "columns")):
        write_stripes(root / "data" / name, number, 5, rng)
        write_stripes(root / "more", number, 15, rng)
    return root


def fit(images, weights, out, **options):
    said = []
    result = procedures.fit(
        images / "data", unlabelled=images / "more", weights=weights, out=out, max_macs=162_000, epochs=2,
        listener=said.append, **options,
    )  # fmt: skip
    return result, [event.text for event in said if isinstance(event, Said)]


@pytest.fixture(scope="module")
def learned(images, small_bundle, tmp_path_factory):
    """A fit whose student is kept."""
    root = tmp_path_factory.mktemp("freely")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFFNET_CACHE", str(root / "cache"))
        patch.setattr(rounds_module, "judge", lambda *_, **__: (Paired(images=3, lost=0, gained=1), True))
        return (*fit(images, small_bundle, root / "out"), root / "out")


def test_with_three_labels_a_class_the_fit_learns_by_freematch(learned):
    result, said, out = learned
    facts = result.report.training.unlabelled
    assert facts.method == "freematch"
    assert (
        f"The unlabelled images are learnt by FreeMatch, with {facts.notes[-1].split()[-6]} labelled" in facts.notes[-1]
    )
    (found,) = facts.rounds
    assert found.kept
    assert (found.used, found.seen, found.epochs, found.labelled_epochs) == (45, 45, 2, 0)
    assert found.passed == sum(found.classes) <= 45
    assert len(found.thresholds) == 3
    assert max(found.thresholds) == pytest.approx(found.threshold)
    assert f"in the last epoch {found.passed} of 45 answers passed the threshold of their class" in " ".join(said)
    assert "FreeMatch learnt from 45 unlabelled images as well" in method_sentence(result.report)
    assert result.report.training.recipe["name"] == "freematch"
    page = (out / "report.html").read_text()
    assert f"plain {found.classes[result.report.dataset.class_names.index('plain')]} (from " in page
    again = type(result.report).from_dict(result.report.to_dict())
    assert again.training.unlabelled == facts


def test_the_bundle_holds_the_network_without_its_thresholds(learned):
    *_, out = learned
    state = effnet.load_module(out).state_dict()
    assert not any("thresholds" in name for name in state)
    student = effnet.load_module(out / "run" / "attempt-1" / "student-1" / "bundle").state_dict()
    for name, tensor in state.items():
        np.testing.assert_array_equal(tensor.numpy(), student[name].numpy())


class Stopped(Exception):
    pass


def test_a_fit_that_was_interrupted_gives_the_same_weights_and_thresholds(
    learned, images, small_bundle, tmp_path, monkeypatch
):
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(rounds_module, "judge", lambda *_, **__: (Paired(images=3, lost=0, gained=1), True))
    trained, steps = finetune_module.train_together, []

    def interrupted(training, ranks, *, listener):
        def listen(event):
            steps.append(training.folder.name)
            if steps.count("mixed") == 2:
                raise Stopped
            listener(event)

        return trained(training, ranks, listener=listen)

    options = {"procedure": procedures.made_up(checkpoint_seconds=0.0)}
    monkeypatch.setattr(finetune_module, "train_together", interrupted)
    with pytest.raises(Stopped):
        fit(images, small_bundle, tmp_path / "out", **options)
    monkeypatch.setattr(finetune_module, "train_together", trained)
    result, _ = fit(images, small_bundle, tmp_path / "out", resume=True, **options)
    before, after = (
        safetensors.numpy.load_file(out / "model.safetensors") for out in (learned[2], tmp_path / "out")
    )  # fmt: skip
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    first, second = (each.report.training.unlabelled.rounds[0] for each in (learned[0], result))
    assert second.thresholds == first.thresholds
    assert second.classes == first.classes


def job(method="auto", *, ranks=None, **options):
    found = job_of(FitConfig("digits", unlabelled="more", unlabelled_method=method, out="o", **options))
    return found if ranks is None else dataclasses.replace(found, ranks=ranks)


@pytest.mark.parametrize(
    "method, a_class, expected",
    [
        ("auto", 3.0, "freematch"),
        ("auto", 5.0, "freematch"),
        ("auto", 5.1, "noisy_student"),
        ("noisy_student", 2.0, "noisy_student"),
        ("freematch", 50.0, "freematch"),
    ],
)
def test_labels_a_class_choose_the_method_unless_it_is_named(method, a_class, expected):
    found, sentence = chosen_method(job(method), SimpleNamespace(images_a_class=a_class))
    assert found == expected
    assert f"{a_class:.3g} labelled training images a class" in sentence


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"ranks": Ranks(rank=0, size=2)}, "it trains in one process, not in 2"),
        ({"unlabelled_rounds": 2}, "it has no second round"),
        ({"settings": {"train.micro_batch": 8}}, r"it cannot have this train\.micro_batch"),
    ],
)
def test_what_freematch_cannot_do_is_said_by_auto_and_refused_by_name(changes, reason):
    found, sentence = chosen_method(job(**changes), SimpleNamespace(images_a_class=3.0))
    assert found == "noisy_student"
    assert sentence == f"The unlabelled images are learnt by Noisy Student, not by FreeMatch: {reason}".replace(
        "\\", ""
    )
    with pytest.raises(InputError, match=reason):
        check_method(job("freematch", **changes))
    check_method(job("noisy_student", **changes))
