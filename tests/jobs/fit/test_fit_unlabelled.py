"""fit --unlabelled: what is learnt, said and kept; resumed fits; what is refused."""

import json
import shutil
from functools import partial
from types import SimpleNamespace

import numpy as np
import procedures
import pytest
import safetensors.numpy
from more import more
from PIL import Image

import effnet
from effnet.errors import DataError, InputError
from effnet.jobs.fit.checks import check
from effnet.jobs.fit.config import FitConfig
from effnet.jobs.fit.job import job_of
from effnet.jobs.fit.transfer import finetune as finetune_module
from effnet.jobs.fit.transfer.length import TimeLimit
from effnet.jobs.fit.unlabelled import rounds as rounds_module
from effnet.jobs.fit.unlabelled import student as student_module
from effnet.jobs.fit.unlabelled.student import least_seconds, plan_epochs
from effnet.jobs.fit.unlabelled.verdict import judge, speaks_against
from effnet.measurement.paired import Paired
from effnet.planner.events import Said
from effnet.planner.timetable import Pace, use_of
from effnet.report.provenance import method_sentence

pytestmark = pytest.mark.usefixtures("one_thread")


def fit(data, **options):
    said = []
    options = {"max_macs": 162_000, "epochs": 2, "listener": said.append} | options
    result = procedures.fit(data, **options)
    return result, [event.text for event in said if isinstance(event, Said)]


@pytest.fixture(scope="module")
def folder(stripes, tmp_path_factory):
    """Images like the stripes, and a copy of a labelled one."""
    root, rng = tmp_path_factory.mktemp("more"), np.random.default_rng(5)
    for i in range(60):
        wave = 50 * np.sign(np.sin(np.arange(16) * np.pi / 2 + rng.uniform(0, 6.3)))
        pattern = (0, wave[:, None], wave[None])[i % 3]
        pixels = np.clip(128 + pattern + rng.normal(0, 50, (16, 16)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{i:02d}.png")
    shutil.copy(stripes / "rows" / "00.png", root / "copy.png")
    return root


@pytest.fixture(scope="module")
def learned(stripes, folder, small_bundle, tmp_path_factory):
    """A fit from the weights of a network for digits, whose student is kept."""
    root = tmp_path_factory.mktemp("learned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFFNET_CACHE", str(root / "cache"))
        patch.setattr(rounds_module, "judge", lambda *_, **__: (Paired(images=33, lost=0, gained=1), True))
        return (*fit(stripes, weights=small_bundle, unlabelled=folder, out=root / "out"), root / "out")


def weights(folder, name="model.safetensors"):
    return safetensors.numpy.load_file(folder / name)


def test_a_student_learns_from_the_folder_and_replaces_the_network(learned):
    result, said, out = learned
    facts = result.report.training.unlabelled
    assert (facts.images, facts.found, sum(facts.copies.values())) == (60, 61, 1)
    (found,) = facts.rounds
    assert found.kept
    assert found.answers >= 5
    assert found.precision >= 0.95
    assert 0 < found.used == found.passed == sum(found.classes) <= 60
    assert (found.epochs, found.labelled_epochs) == (2, 1)
    assert f"{found.passed:,} pseudo-labels have a confidence of at least" in " ".join(said)
    assert "1 images in" in " ".join(said)
    assert f"learnt from {found.used} pseudo-labels" in method_sentence(result.report)
    student = effnet.load_module(out / "run" / "attempt-1" / "student-1" / "bundle").state_dict()
    for name, tensor in effnet.load_module(out).state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), student[name].numpy())


def test_the_student_is_trained_with_noise_then_on_labelled_images(learned):
    result, *_ = learned
    recipe = result.report.training.recipe
    assert recipe["name"] == "noisy_student"
    assert (recipe["augment"]["policy"], recipe["model"]["dropout"], recipe["model"]["drop_path"]) == (
        "randaugment", 0.2, 0.1,
    )  # fmt: skip
    assert len(result.report.training.epochs) == 3
    assert [row.epoch for row in result.report.training.epochs] == [1, 2, 3]


def test_the_page_and_the_report_say_it(learned):
    result, _, out = learned
    page = (out / "report.html").read_text()
    for sentence in result.report.training.unlabelled.sentences:
        assert sentence.split(":")[0].split("'")[0] in page
    assert "Pseudo-labels of round 1" in page
    again = type(result.report).from_dict(result.report.to_dict())
    assert again.training.unlabelled == result.report.training.unlabelled


class Stopped(Exception):
    pass


@pytest.mark.parametrize("part", ["mixed", more("labelled")])
def test_a_fit_that_was_interrupted_in_its_student_gives_the_same_weights(
    part, learned, stripes, folder, small_bundle, tmp_path, monkeypatch
):
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(rounds_module, "judge", lambda *_, **__: (Paired(images=33, lost=0, gained=1), True))
    trained, steps = finetune_module.train_together, []

    def interrupted(training, ranks, *, listener):
        def listen(event):
            steps.append(training.folder.name)
            if steps.count(part) == 5:
                raise Stopped
            listener(event)

        return trained(training, ranks, listener=listen)

    options = {"weights": small_bundle, "unlabelled": folder, "out": tmp_path / "out"}
    options["procedure"] = procedures.made_up(checkpoint_seconds=0.0)
    monkeypatch.setattr(finetune_module, "train_together", interrupted)
    with pytest.raises(Stopped):
        fit(stripes, **options)
    monkeypatch.setattr(finetune_module, "train_together", trained)
    (folder / "later.png").unlink(missing_ok=True)
    fit(stripes, resume=True, **options)
    before, after = weights(learned[2]), weights(tmp_path / "out")
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_student_that_is_not_better_is_discarded(learned, stripes, small_bundle, folder, tmp_path, monkeypatch):
    """The resumed fit finds the trained student, and judges it again."""
    shutil.copytree(learned[2], tmp_path / "out")
    monkeypatch.setattr(rounds_module, "judge", lambda *_, **__: (Paired(images=33, lost=1, gained=1), False))
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))
    result, said = fit(stripes, weights=small_bundle, unlabelled=folder, out=tmp_path / "out", resume=True)
    assert "it is discarded, and the network stays as it was" in " ".join(said)
    assert result.report.training.recipe is None or result.report.training.recipe["name"] == "finetune"
    assert "Unlabelled images did not make it better" in method_sentence(result.report)
    student, kept = (weights(tmp_path / "out" / place) for place in ("run/attempt-1/student-1/bundle", "."))
    assert any(not np.array_equal(student[name], kept[name]) for name in kept)


def test_the_verdict_is_that_of_the_validation_images(stripes, small_bundle, tmp_path):
    """A network is not better than itself, and nothing speaks against it; a spoilt one is worse, trusted or not."""
    from effnet.data.datasets import read_dataset

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))
        good, _ = fit(stripes, weights=small_bundle, strategy="head", epochs=None, out=tmp_path / "good")
    bad = shutil.copytree(good.folder, tmp_path / "bad")
    config, state = effnet.load(bad).config, weights(bad)
    state["classifier.weight"] = -state["classifier.weight"]
    from effnet.bundle.weights import save_bundle
    from effnet.runtimes.onnxruntime.writer import export_onnx

    save_bundle(bad, config.uncalibrated(), state)
    export_onnx(bad, config.uncalibrated(), state)
    dataset = read_dataset(str(stripes))
    for trusted in (False, True):
        same, verdict = judge(good.folder, good.folder, dataset, trusted=trusted)
        assert (same.lost, same.gained, verdict) == (0, 0, trusted)
        worse, verdict = judge(good.folder, bad, dataset, trusted=trusted)
        assert worse.lost > worse.gained
        assert not verdict
        better, verdict = judge(bad, good.folder, dataset, trusted=trusted)
        assert (better.lost, better.gained, verdict) == (worse.gained, worse.lost, True)


@pytest.mark.parametrize(
    ("lost", "gained", "mean", "error", "against"),
    [
        (3, 0, -0.1, 0.1, False),  # 3 of 30: by chance one time in four
        (5, 0, -0.1, 0.1, True),
        (29, 16, -0.1, 0.1, True),
        (0, 0, 0.15, 0.1, True),
        (4, 3, 0.05, 0.1, False),
        (0, 9, -0.3, 0.1, False),
    ],
)
def test_images_speak_against_a_student_by_its_answers_or_its_losses(lost, gained, mean, error, against):
    images = 450
    spread = np.tile([-1.0, 1.0], images // 2)
    rises = mean + error * spread / spread.std(ddof=1) * np.sqrt(images)
    assert speaks_against(Paired(images=images, lost=lost, gained=gained), rises) is against


def test_one_image_says_nothing_by_its_loss():
    assert not speaks_against(Paired(images=1, lost=0, gained=0), np.array([5.0]))


def test_if_no_confidence_is_precise_enough_the_fit_goes_on_without(
    stripes, small_bundle, folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(rounds_module, "choose_threshold", lambda *_, **__: None)
    result, said = fit(stripes, weights=small_bundle, unlabelled=folder, epochs=1, out=tmp_path / "out")
    (found,) = result.report.training.unlabelled.rounds
    assert not found.kept
    assert found.threshold is None
    assert found.sentence == (
        "With no confidence are 85% of 5 or more answers to the 33 validation images right: the unlabelled images are "
        "not used"
    )
    assert found.sentence in said


def refused(match, data="digits", **options):
    with pytest.raises(InputError, match=match):
        check(job_of(FitConfig(data, epochs=1, **options)))


def test_options_that_contradict_it_are_refused(tmp_path):
    more = str(tmp_path)
    refused("unlabelled_rounds must", unlabelled=more, unlabelled_rounds=3, out=tmp_path / "o")
    refused("fit.unlabelled_rounds needs unlabelled images", unlabelled_rounds=2, out=tmp_path / "o")
    refused("unlabelled_method must be one of auto, noisy_student, freematch; got 'freemach'; did you mean 'freematch'",
            unlabelled=more, unlabelled_method="freemach", out=tmp_path / "o")  # fmt: skip
    refused("fit.unlabelled_method needs unlabelled images", unlabelled_method="freematch", out=tmp_path / "o")
    for reason, options in (
        ("it has no second round", {"unlabelled_rounds": 2}),
        ("it learns from no teacher", {"settings": {"loss.teacher": "bundle"}}),
        ("it cannot have this augment.mixup, loss.name", {"settings": {"augment.mixup": 0.2, "loss.name": "bce"}}),
    ):
        refused(f"fit.unlabelled_method=freematch is not possible: {reason}; leave one of the two out",
                unlabelled=more, unlabelled_method="freematch", out=tmp_path / "o", **options)  # fmt: skip
    refused("cannot sample classes", unlabelled=more, balance="sample", out=tmp_path / "o")
    with pytest.raises(InputError, match=r"trains the whole network, but fit\.strategy is head"):
        check(job_of(FitConfig("digits", unlabelled=more, strategy="head", weights="w", out=tmp_path / "o")))


def test_one_class_is_refused(folder, tmp_path):
    (tmp_path / "data" / "only").mkdir(parents=True)
    for path in sorted(folder.glob("*.png"))[:20]:
        shutil.copy(path, tmp_path / "data" / "only" / path.name)
    with pytest.raises(DataError, match=r"at least two classes are needed, received 1 \(only\)"):
        fit(tmp_path / "data", weights="none", unlabelled=folder, out=tmp_path / "out")


def test_two_labels_a_class_are_refused_with_and_without_it(folder, tmp_path):
    write_classes(tmp_path / "data", 2)
    with pytest.raises(DataError, match="no class has enough images to hold some out for val"):
        fit(tmp_path / "data", weights="none", unlabelled=folder, out=tmp_path / "out")


def write_classes(root, count):
    for number, name in enumerate(("a", "b", "c")):
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(np.full((16, 16), 60 * number + i, np.uint8)).save(root / name / f"{i}.png")


def test_three_labels_a_class_are_too_few_to_judge_pseudo_labels_and_that_is_said(folder, tmp_path):
    write_classes(tmp_path / "data", 3)
    result, said = fit(
        tmp_path / "data", weights="none", unlabelled=folder, unlabelled_method="noisy_student", epochs=1,
        out=tmp_path / "out",
    )  # fmt: skip
    assert not result.report.training.unlabelled.students
    assert (
        "The precision of pseudo-labels must be measured on at least 5 validation images; there are 3: the unlabelled "
        "images are not used"
    ) in said


@pytest.mark.parametrize("seconds, pseudo, epochs", [(1000.0, 300, 30), (60.0, 300, 12), (8.0, 153, 3)])
def test_the_time_decides_the_epochs_then_the_number_of_pseudo_labels(seconds, pseudo, epochs, monkeypatch):
    """Steps of 200 images per second, 150 with noise, and 1/300 s of reading are 100 images per second."""
    monkeypatch.setattr(student_module, "train_speed", lambda spec: 200.0)
    found = plan_epochs(None, labelled=60, pseudo=300, seconds=seconds, read=1 / 300, epochs=None)
    assert (found.pseudo, found.epochs) == (pseudo, epochs)
    views = found.epochs * (found.pseudo + max(60, -(-found.pseudo // 3)))
    assert views <= 0.8 * seconds * 100


def test_an_image_that_costs_two_steps_is_seen_less_often(monkeypatch):
    """150 steps per second with noise, two an image, without reading: 75 images per second, in 80 % of 64 seconds."""
    monkeypatch.setattr(student_module, "train_speed", lambda spec: 200.0)
    found = plan_epochs(None, labelled=60, pseudo=300, seconds=64.0, read=0.0, epochs=None, steps=2.0)
    assert (found.pseudo, found.epochs) == (300, 0.8 * 64 * 75 // 400)


def test_without_time_for_an_epoch_there_is_no_student(monkeypatch):
    monkeypatch.setattr(student_module, "train_speed", lambda spec: 200.0)
    assert plan_epochs(None, labelled=60, pseudo=300, seconds=0.5, read=0.0, epochs=None) is None
    # 120 images a second are 3 epochs of the labelled images and as many pseudo-labels in 3 s, or of 20 in 2 s.
    assert plan_epochs(None, labelled=60, pseudo=300, seconds=2.99, read=0.0, epochs=None) is None
    assert plan_epochs(None, labelled=60, pseudo=300, seconds=3.01, read=0.0, epochs=None).pseudo == 60
    assert plan_epochs(None, labelled=60, pseudo=20, seconds=2.01, read=0.0, epochs=None).pseudo == 20
    for pseudo in (300, 20):
        assert least_seconds(None, labelled=60, pseudo=pseudo, read=0.0) == pytest.approx(2 + (pseudo > 60))
    assert plan_epochs(None, labelled=60, pseudo=300, seconds=None, read=0.0, epochs=4).epochs == 4


def test_training_before_students_is_as_without_them_only_if_all_worthwhile_epochs_fit(monkeypatch):
    limit = partial(TimeLimit, minutes=None, pace=Pace(), left=lambda: 40.0)
    sizes = SimpleNamespace(train=range(100), val=range(0))
    monkeypatch.setattr(TimeLimit, "epoch", lambda *_: 1.2)  # 30 of them in 0.8 of the time: 45 s
    assert limit().rest(None, sizes, spent=0.0) == 40
    assert limit(students=14.0).rest(None, sizes, spent=0.0) == 40
    assert limit(students=16.0).rest(None, sizes, spent=0.0) == 56
    # Without a deadline.
    assert limit(students=14.0, minutes=1.0, pace=None).rest(None, sizes, spent=20.0) == 40
    assert limit(students=16.0, minutes=1.0, pace=None).rest(None, sizes, spent=20.0) == 56


@pytest.mark.parametrize("images_per_second", [200.0, more(150.0)])
def test_the_teacher_is_trained_as_without_students_if_that_leaves_them_enough(
    images_per_second, stripes, folder, small_bundle, tmp_path, monkeypatch
):
    """Regression: a discarded student had cost the network its epochs.

    Of about 55 s the students have 33, of which 11 may be taken. 30 epochs of 159 images need 30 s, or 40.
    """
    monkeypatch.setattr("effnet.jobs.fit.transfer.length.train_speed", lambda spec: images_per_second)
    slower = "effnet.jobs.fit.transfer.later_stages.train_speed"
    monkeypatch.setattr(slower, lambda spec, *, kept_stages: 2 * images_per_second)
    monkeypatch.setattr("effnet.jobs.fit.time_left.machine_pace", lambda read, **_: Pace(measure=0.1))

    def stop(*_, **__):
        raise Stopped

    monkeypatch.setattr(finetune_module, "train_together", stop)
    monkeypatch.setattr("effnet.jobs.fit.transfer.finetune.later_stages_", stop)
    recipes = []
    for unlabelled in (None, folder):
        out = tmp_path / f"out-{unlabelled is None}"
        with pytest.raises(Stopped):
            fit(
                stripes, weights=small_bundle, strategy="finetune", epochs=None, minutes=1, out=out,
                unlabelled=unlabelled, procedure=procedures.made_up(clock=lambda: 0.0),
            )  # fmt: skip
        recipes.append(json.loads((out / "run" / "attempt-1" / "recipe.json").read_text()))
    alone, teacher = recipes
    assert alone["train"]["epochs"] == 30
    assert (alone == teacher) == (images_per_second == 200)


@pytest.mark.parametrize("rounds, shares", [(1, (0.6, 0.0)), (2, (0.75, 0.0))])
def test_students_have_a_share_of_the_time_if_one_can_be_trained_in_it(
    rounds, shares, stripes, folder, small_bundle, tmp_path, monkeypatch
):
    """Regression: a student that learnt 148 images, or none, had cost the network six tenths of its time."""
    speeds, found = iter((1000.0, 10.0)), []
    monkeypatch.setattr("effnet.jobs.fit.time_left.machine_pace", lambda read, **_: Pace(measure=0.1))

    def stop(*_, job, **__):
        found.append(job.students_share)
        raise Stopped

    monkeypatch.setattr("effnet.jobs.fit.run.make_artifact", stop)
    for name in ("fast", "slow"):
        speed = next(speeds)
        monkeypatch.setattr(student_module, "train_speed", lambda spec, speed=speed: speed)
        asked = {"unlabelled": folder, "unlabelled_rounds": rounds, "out": tmp_path / name}
        said = []
        for resume in (False, True):
            with pytest.raises(Stopped):
                fit(
                    stripes, weights=small_bundle, strategy="finetune", epochs=None, minutes=1, resume=resume, **asked,
                    procedure=procedures.made_up(clock=lambda: 0.0),
                    listener=said.append,
                )  # fmt: skip
            monkeypatch.setattr(student_module, "train_speed", None)  # the plan is resumed as it was
        told = [event for event in said if isinstance(event, Said) and "for a student" in event.text]
        assert len(told) == (name == "slow")
    assert found == [shares[0]] * 2 + [shares[1]] * 2


def test_students_get_what_training_left_if_no_deadline_limits_it(monkeypatch):
    monkeypatch.setattr(rounds_module, "learning_minutes", lambda *_: 4.0)
    config = SimpleNamespace(unlabelled_rounds=2)
    job = SimpleNamespace(config=config, deadline=SimpleNamespace(limited=False), time_for_students=360.0)
    learned = SimpleNamespace(training=SimpleNamespace(seconds=300.0))
    own = SimpleNamespace(job=job, candidate=None)
    assert rounds_module._seconds(1, learned, own) == 150
    learned.training.seconds = 450.0  # with the first student
    assert rounds_module._seconds(2, learned, own) == 150


def test_students_share_the_time_of_training():
    sizes = SimpleNamespace(train=range(100), val=range(20), test=range(20))
    pace = Pace(read=1e-3, mac=1e-10, measure=0.1)
    alone = use_of(600.0, pace, sizes, 1e7, int8_steps=0, changed=False)
    shared = use_of(600.0, pace, sizes, 1e7, int8_steps=0, changed=False, students=0.6)
    assert alone.unlabelled == 0
    assert shared.learning + shared.unlabelled == pytest.approx(alone.learning)
    assert shared.unlabelled == pytest.approx(0.6 * alone.learning)
    assert shared.later == pytest.approx(alone.later + shared.unlabelled)
    assert any("students of the unlabelled images" in line for line in shared.in_words())
    assert "unlabelled" not in alone.to_dict()
