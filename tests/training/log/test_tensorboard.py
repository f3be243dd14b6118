"""TensorBoard events of a run, read back with TensorBoard's own reader."""

import dataclasses
import io
import mmap
import sys

import numpy as np
import pytest
import torch
from more import more
from PIL import Image
from sklearn.metrics import confusion_matrix
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_runs import PREPROCESS, RECIPE, Stop, run, run_saving, tiny_dataset, tiny_spec

from effnet.nn.network import build
from effnet.progress import EpochEnd, Step
from effnet.training.classification.learning import validate
from effnet.training.device import memory_mb
from effnet.training.input.batches import cached_loader, train_batches
from effnet.training.log.figures import confusion_image, image_sheet
from effnet.training.log.tensorboard import FOLDER, open_journal
from effnet.training.optim.schedule import learning_rate
from effnet.training.state.checkpoint import save_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")

TIMED = ("step/images_per_second", "step/memory_mb", "epoch/images_per_second")


def read(folder):
    """Return the events that TensorBoard shows: (step, value) of each scalar, (step, image) of each image."""
    found = EventAccumulator(str(folder / FOLDER), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    tags = found.Tags()
    scalars = {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in tags["scalars"]}
    images = {
        tag: [(e.step, np.asarray(Image.open(io.BytesIO(e.encoded_image_string)))) for e in found.Images(tag)]
        for tag in tags["images"]
    }
    return scalars, images


@pytest.fixture(scope="module")
def whole(tmp_path_factory, one_thread):
    """Return a run of three epochs of three steps: its folder, its events and its result."""
    folder, events = tmp_path_factory.mktemp("journal") / "whole", []
    result = run(folder, listener=events.append)
    return folder, events, result


def test_curves_over_steps_and_epochs_are_what_the_listener_heard(whole):
    folder, events, result = whole
    scalars, _ = read(folder)
    steps = [event for event in events if isinstance(event, Step)]
    epochs = [event for event in events if isinstance(event, EpochEnd)]
    assert [step for step, _ in scalars["step/loss"]] == list(range(1, 10))
    for key in ("loss", "learning_rate", "images_per_second", "memory_mb"):
        assert [v for _, v in scalars[f"step/{key}"]] == pytest.approx([getattr(e, key) for e in steps], rel=1e-6)
    for key in ("epoch", "loss", "val_loss", "val_accuracy", "learning_rate", "images_per_second"):
        values = [e.to_row()[key] for e in epochs]
        assert scalars[f"epoch/{key}"] == [(3 * i + 3, pytest.approx(v, rel=1e-6)) for i, v in enumerate(values)]
    assert [e.figures["val_accuracy"] for e in epochs] == [row["val_accuracy"] for row in result.history]


def test_steps_tell_the_learning_rate_of_the_schedule_and_the_memory_of_this_process(whole):
    _, events, _ = whole
    steps = [event for event in events if isinstance(event, Step)]
    assert [e.learning_rate for e in steps] == [
        learning_rate(RECIPE, i, total_steps=9, epoch_steps=3) for i in range(9)
    ]
    # A process that has loaded torch uses at least this much, and less than the machine has.
    assert all(50 < e.memory_mb < 100_000 for e in steps)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere only the peak is known")
def test_memory_grows_by_what_is_taken():
    before = memory_mb(torch.device("cpu"))
    with mmap.mmap(-1, 40_000_000) as taken:  # straight from the system: the heap may have that much free
        for place in range(0, 40_000_000, mmap.PAGESIZE):
            taken[place] = 1
        assert 30 < memory_mb(torch.device("cpu")) - before < 60
    assert memory_mb(torch.device("cpu")) - before < 30


def test_the_first_batches_are_shown_as_training_sees_them(whole):
    folder, _, _ = whole
    _, images = read(folder)
    shown = images["training images"]
    assert [step for step, _ in shown] == [1, 4, 7]
    train = tiny_dataset().train
    for epoch, (_, sheet) in enumerate(shown):
        batches = train_batches(cached_loader(train, PREPROCESS), train.labels, RECIPE, PREPROCESS, epoch=epoch)
        views, _ = next(batches)
        batches.close()
        assert np.array_equal(sheet, image_sheet(views))


def test_the_best_and_the_last_confusion_matrix_are_shown(whole):
    folder, _, result = whole
    _, images = read(folder)
    assert images["confusion/best"][-1][0] == 3 * result.best_epoch
    assert [step for step, _ in images["confusion/last"]] == [9]
    if result.best_epoch == 3:
        assert np.array_equal(images["confusion/best"][-1][1], images["confusion/last"][0][1])
    split = tiny_dataset().val
    batch = [(np.stack(split.sources), split.labels)]
    counts = validate(result.model, batch, PREPROCESS, torch.device("cpu")).confusion
    assert np.array_equal(images["confusion/best"][-1][1], confusion_image(counts, tiny_dataset().class_names))


def resume_later(folder):
    """Resume a run as if a minute had passed: TensorBoard orders the files of sessions by their second."""
    for path in (folder / FOLDER).iterdir():
        words = path.name.split(".")
        words[3] = str(int(words[3]) - 60)
        path.rename(path.with_name(".".join(words)))
    return run(folder)


def same_curves(folder, expected_folder, *, lost=()):
    """Assert that two runs have equal events, except for the `lost` steps."""
    (scalars, images), (expected, expected_images) = read(folder), read(expected_folder)
    assert scalars.keys() == expected.keys()
    for tag in scalars.keys() - set(TIMED):
        left = lost if tag.startswith("step/") else ()
        assert scalars[tag] == [(step, value) for step, value in expected[tag] if step not in left]
    assert images.keys() == expected_images.keys()
    for tag, shown in images.items():
        assert [step for step, _ in shown] == [step for step, _ in expected_images[tag]]
        for (_, first), (_, second) in zip(shown, expected_images[tag], strict=True):
            assert np.array_equal(first, second)


@pytest.mark.parametrize("at", [1, more(2), 3, more(4), more(6)])
def test_a_resumed_run_takes_back_what_it_does_again(whole, tmp_path, at):
    """The last checkpoint has `at` steps, the journal one more; a resumed run shows the same as one never stopped."""

    def stop(event):
        if isinstance(event, Step) and event.step == at + 1:
            raise Stop

    with pytest.raises(Stop):
        run_saving(tmp_path, listener=stop)
    assert max(step for step, _ in read(tmp_path)[0]["step/loss"]) == at + 1
    resume_later(tmp_path)
    same_curves(tmp_path, whole[0])


def test_an_epoch_whose_results_were_not_saved_is_shown_once(whole, tmp_path, monkeypatch):
    """Step and results have the same number; purging the results loses the step, one point of the curve."""

    with monkeypatch.context() as patch:
        patch.setattr("effnet.training.log.run_files.save_checkpoint", _unless_between_epochs)
        with pytest.raises(Stop):
            run_saving(tmp_path)
    assert read(tmp_path)[0]["epoch/loss"][0][0] == 3
    resume_later(tmp_path)
    same_curves(tmp_path, whole[0], lost=(3,))


def _unless_between_epochs(folder, position, state, *, keep):
    if position.batch == 0:
        raise Stop
    save_checkpoint(folder, position, state, keep=keep)


def test_a_long_run_is_drawn_at_five_hundred_steps(tmp_path):
    event = Step(
        epoch=1, epochs=1, step=0, total_steps=45_000, loss=1.0, val="", images_per_second=1.0,
        seconds_left=1.0,
    )  # fmt: skip
    with open_journal(tmp_path, purge_step=1) as journal:
        for step in range(1, 45_001):
            journal.step(dataclasses.replace(event, step=step))
    assert [step for step, _ in read(tmp_path)[0]["step/loss"]] == list(range(90, 45_001, 90))


@pytest.mark.parametrize("side, number, columns", [(128, 32, 8), (130, 16, 4)])
def test_a_sheet_of_large_images_holds_fewer(tmp_path, side, number, columns):
    images = np.random.default_rng(0).integers(0, 256, (40, side, side, 3), dtype=np.uint8)
    with open_journal(tmp_path, purge_step=1) as journal:
        journal.add_images(images, step=1)
    ((_, sheet),) = read(tmp_path)[1]["training images"]
    assert np.array_equal(sheet, image_sheet(images[:number], columns=columns))
    assert sheet.shape == (4 * (side + 2) + 2, columns * (side + 2) + 2, 3)


def test_the_confusion_of_a_network_is_that_of_scikit_learn():
    split = tiny_dataset(num=30).val
    model = build(tiny_spec(), seed=3)
    images = np.stack(split.sources)
    parts = [(images[:5], split.labels[:5]), (images[5:], split.labels[5:])]
    found = validate(model, parts, PREPROCESS, torch.device("cpu"))
    x = (torch.from_numpy(images).float().permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    with torch.no_grad():
        predicted = model.eval()(x).argmax(1).numpy()
    assert np.array_equal(found.confusion, confusion_matrix(split.labels, predicted, labels=range(3)))
    assert found.accuracy == pytest.approx(np.mean(predicted == split.labels))


def test_more_than_a_hundred_classes_have_no_confusion_matrix():
    model = build(tiny_spec(classes=101), seed=0)
    images = np.zeros((2, 16, 16, 1), np.uint8)
    assert validate(model, [(images, np.array([0, 100]))], PREPROCESS, torch.device("cpu")).confusion is None


def test_a_sheet_holds_every_image_enlarged():
    images = np.arange(5 * 4 * 6 * 3, dtype=np.uint8).reshape(5, 4, 6, 3)
    sheet = image_sheet(images, columns=3)
    # 640 // (3 * 6) is beyond the largest zoom of 8, and a gap of 2 is around each.
    assert sheet.shape == (2 * (4 * 8 + 2) + 2, 3 * (6 * 8 + 2) + 2, 3)
    for index, image in enumerate(images):
        top, left = 2 + 34 * (index // 3), 2 + 50 * (index % 3)
        assert np.array_equal(sheet[top : top + 32 : 8, left : left + 48 : 8], image)
    assert (sheet[36:, 102:] == 255).all()


@pytest.mark.parametrize("channels, shown", [(1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 1, 2]), (5, [0, 1, 2])])
def test_a_sheet_of_any_number_of_channels_is_in_colour(channels, shown):
    images = np.random.default_rng(0).integers(0, 256, (1, 200, 700, channels), dtype=np.uint8)
    sheet = image_sheet(images)
    assert np.array_equal(sheet[2:-2, 2:-2], images[0][..., shown])


def test_a_confusion_image_is_blue_where_right_and_vermillion_where_wrong():
    counts = np.array([[8, 0], [2, 6]])
    image = confusion_image(counts, ("cat", "dog"))
    edge = np.array(image.shape[:2]) - 8 - 2 * 48

    def corner(row, column):
        return tuple(int(v) for v in image[edge[0] + 48 * row + 3, edge[1] + 48 * column + 3])

    assert corner(0, 0) == (0, 114, 178)
    assert corner(0, 1) == (255, 255, 255)
    red, green, blue = corner(1, 0)  # a quarter of the dogs: 0.15 + 0.85 / 4 of vermillion
    assert (red, green, blue) == (240, 197, 163)


@pytest.mark.parametrize("number", [2, 20, 21, 40, 41, 100])
@pytest.mark.parametrize("name", ["白鳥 {}", "a very long name of a class {}", "nul\0 \n \udc80 {}", ""])
def test_any_number_of_classes_of_any_name_can_be_drawn(number, name):
    counts = np.eye(number, dtype=int)
    image = confusion_image(counts, [name.format(i) for i in range(number)])
    assert image.dtype == np.uint8
    assert image.shape[2] == 3
    assert 100 < image.shape[0] == image.shape[1] < 1000


@pytest.mark.parametrize("name", ["MM", "MMMMMM"])  # upright, and turned
def test_names_stand_beside_their_own_rows_and_above_their_own_columns(name):
    """Only one class has a name that is drawn."""
    for index in range(3):
        names = [name if i == index else "" for i in range(3)]
        ink = (confusion_image(np.zeros((3, 3), int), names) < 128).all(axis=2)
        edge = ink.shape[0] - 8 - 3 * 48
        rows = np.flatnonzero(ink[edge:, 22 : edge - 2].any(axis=1))
        columns = np.flatnonzero(ink[22 : edge - 2, edge:].any(axis=0))
        for place in (rows, columns):
            assert index * 48 < place.min()
            assert place.max() < (index + 1) * 48
