"""The options of a fit for views, flips, resizing and value ranges, and their automatic choice."""

import json

import numpy as np
import pytest
from PIL import Image
from procedures import TINIEST, UNTIMED, fit, made_up

import effnet
from effnet.data.datasets import read_dataset
from effnet.data.preprocess import resize_and_crop
from effnet.data.view.value_range import ValueRange
from effnet.errors import InputError
from effnet.planner.events import Said
from effnet.training.input.batches import eval_batches

pytestmark = pytest.mark.usefixtures("one_thread")


def write_folder(root, names, size, *, number=20):
    """Write noise with a brightness of its own for each class."""
    rng = np.random.default_rng(0)
    for place, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(number):
            pixels = np.clip(70 + 90 * place + rng.normal(0, 20, size), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:02d}.png")
    return root


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Classes with the names left and right, of images four times as wide as high, and the messages of their fit."""
    root, events = tmp_path_factory.mktemp("wide"), []
    data = write_folder(root / "data", ("left", "right"), (8, 32))
    result = fit(
        data, epochs=1, weights="none", max_macs=2e5, out=root / "out", listener=events.append,
        procedure=made_up(space=TINIEST),
    )  # fmt: skip
    return data, result, [event.text for event in events if isinstance(event, Said)]


def test_a_fit_finds_out_what_suits_the_images_and_says_it_everywhere(wide):
    _, result, said = wide
    config = json.loads((result.folder / "config.json").read_text())
    assert (config["preprocess"]["mode"], config["preprocess"]["crop"]) == ("squash", 1.0)
    assert result.report.training.recipe["augment"]["flip"] is False
    found = (
        "Images are squashed whole to the network's square input: a centre crop would lose 75% of the width of "
        "the median image, and nearly all have one aspect ratio.",
        'Images are not mirrored in training: the classes "left" and "right" differ only in left and right.',
    )
    for sentence in found:
        assert sentence in said
        assert sentence in result.report.dataset.notes
    assert not set(result.report.dataset.lines) & set(result.report.dataset.notes)
    assert result.report.dataset.findings.shapes.crop_loss == 0.75
    assert result.report.command.endswith(f"--epochs 1 --out {result.folder}")


def test_the_device_sees_images_as_training_did(wide):
    data, result, _ = wide
    predictor = effnet.load(result.folder)
    split = read_dataset(str(data)).test
    seen = [
        resize_and_crop(np.asarray(Image.open(path))[..., None], predictor.config.preprocess) for path in split.sources
    ]
    assert seen[0].shape == (16, 16, 1)
    found, expected = (predictor.predict(images, top=1) for images in (list(split.sources), seen))
    assert [p.probabilities for p in found] == [p.probabilities for p in expected]


def test_what_is_asked_comes_first_and_is_repeated_by_a_resumed_fit(wide, tmp_path):
    data, _, _ = wide
    settings = {"augment.flip": True, "train.batch_size": 8}
    words = {
        "epochs": 1,
        "weights": "none",
        "max_params": 1e5,
        "resize": "pad",
        "out": tmp_path / "out",
        "procedure": UNTIMED,
    }
    events = []
    report = fit(data, settings=settings, listener=events.append, **words).report.to_dict()
    recipe = report["training"]["recipe"]
    assert (recipe["augment"]["flip"], recipe["train"]["batch_size"]) == (True, 8)
    said = [event.text for event in events if isinstance(event, Said)]
    assert any(text.startswith("The recipe flips images, but the classes") for text in said)
    assert any("padded whole with the mean colour" in text and "as set by fit.resize=pad" in text for text in said)
    assert "--set augment.flip=true --set train.batch_size=8" in report["command"]
    assert " --set fit.resize=pad " in report["command"]
    (tmp_path / "out" / "report.json").unlink()
    with pytest.raises(InputError, match=r"--set was augment.flip=true train.batch_size=8, now not given"):
        fit(data, resume=True, **words)
    with pytest.raises(InputError, match="resize was 'pad', now 'squash'"):
        fit(data, settings=settings, resume=True, **(words | {"resize": "squash"}))


@pytest.fixture(scope="module")
def twelve_bits(tmp_path_factory):
    """Gradients of 12 bits in 16-bit files, a bright and a dim class."""
    root, rng = tmp_path_factory.mktemp("deep"), np.random.default_rng(0)
    for name, low, high in (("bright", 2300, 4095), ("dim", 0, 1800)):
        (root / name).mkdir()
        for i in range(20):
            values = np.linspace(low, high, 16) + rng.normal(0, 60, (16, 16))
            Image.fromarray(np.clip(values, 0, 4095).astype(np.uint16)).save(root / name / f"{i:02d}.png")
    return root


def test_values_of_12_bits_are_mapped_alike_in_training_and_on_the_device(twelve_bits, tmp_path):
    words = {"procedure": made_up(space=TINIEST), "weights": "none", "max_macs": 2e5, "epochs": 1}
    report = fit(twelve_bits, out=tmp_path / "out", **words).report.to_dict()
    predictor = effnet.load(tmp_path / "out")
    assert predictor.config.preprocess.value_range == ValueRange(low=0, high=4095)
    assert 0.3 < predictor.config.preprocess.mean[0] < 0.7
    sentence = "from 0..4095 are mapped to 0..255, as for 12 bits"
    assert sentence in str(report["dataset"]["notes"])
    card = (tmp_path / "out" / "README.md").read_text()
    assert sentence in card
    assert "(values - 0) * (255 / (4095 - 0))" in card
    assert "value_range" not in report["command"]

    dataset = read_dataset(str(twelve_bits))
    ((seen, _),) = eval_batches(dataset.test, predictor.config.preprocess)
    assert seen.max() > 200
    assert seen.min() < 20
    expected = [tuple(sorted(row, reverse=True)) for row in predictor.probabilities(seen).tolist()]
    raw = [np.asarray(Image.open(path))[..., None] for path in dataset.test.sources]
    for images in (list(dataset.test.sources), [Image.open(path) for path in dataset.test.sources], raw):
        found = [prediction.probabilities for prediction in predictor.predict(images)]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_range_that_is_asked_for_is_kept_and_repeated(twelve_bits, tmp_path):
    words = {"epochs": 1, "weights": "none", "max_params": 1e5, "out": tmp_path / "out", "procedure": UNTIMED}
    report = fit(twelve_bits, value_range=(0, 8000.5), **words).report.to_dict()
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["preprocess"]["value_range"] == {"low": 0.0, "high": 8000.5}
    assert " --set fit.value_range=0,8000.5 " in report["command"]
    (tmp_path / "out" / "report.json").unlink()
    with pytest.raises(InputError, match=r"fit\.value_range was \[0\.0, 8000\.5\], now 'auto'"):
        fit(twelve_bits, resume=True, **words)


def test_a_head_and_fine_tuning_honour_what_is_set(wide, small_bundle, tmp_path, monkeypatch):
    data, _, _ = wide
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))
    mirrors = []
    whole = effnet.jobs.fit.transfer.head.make_extractor
    monkeypatch.setattr(
        "effnet.jobs.fit.transfer.head.make_extractor",
        lambda *args, mirror: mirrors.append(mirror) or whole(*args, mirror=mirror),
    )
    settings = {"augment.flip": False, "train.lr": 0.004}
    report = fit(
        data,
        weights=small_bundle,
        strategy="finetune",
        epochs=1,
        settings=settings,
        out=tmp_path / "out",
        procedure=UNTIMED,
    ).report.to_dict()
    assert mirrors == [False]
    recipe = report["training"]["recipe"]
    assert (recipe["name"], recipe["augment"]["flip"], recipe["train"]["lr"]) == ("finetune", False, 0.004)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"value_range": (5, 1)}, "value_range must be LOW,HIGH, the smaller value first"),
        ({"resize": "pat"}, "fit.resize must be one of auto, center, squash, pad; got 'pat'"),
        ({"settings": {"augment.flop": False}}, "augment.flop"),
        (
            {"strategy": "head", "settings": {"train.lr": 0.1}},
            "--set train.lr has no effect with fit.strategy=head",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(options, message, tiny_images, tmp_path):
    with pytest.raises(InputError, match=message):
        fit(tiny_images, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
