"""The images that a bundle is evaluated on: its fit's test split, or all of other data; and split.json."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import effnet
from effnet.bundle.config import ModelConfig
from effnet.bundle.split_file import SPLIT, SplitRecord, read_split, write_split
from effnet.data.datasets import read_dataset
from effnet.data.inspection.inspect import inspect_and_join
from effnet.data.preprocess import Preprocess
from effnet.data.shards.write import write_shards
from effnet.errors import BundleError, DataError, InputError
from effnet.weights.class_names import class_names
from effnet.weights.labels import choose_images, read_as_fitted, split_record

SPLITS = ("train", "val", "test")


@pytest.fixture
def config() -> ModelConfig:
    spec = effnet.get_spec("b0", num_classes=3)
    return ModelConfig(arch=spec, preprocess=Preprocess(resolution=16), class_names=("a", "b", "c"), split_seed=5)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of 20 smooth images, each a second time as a JPEG file, and a pair of equal files."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for i in range(20):
            coarse = Image.fromarray(rng.integers(0, 256, (7, 7, 3), dtype=np.uint8))
            image = coarse.resize((64, 64), Image.Resampling.BICUBIC)
            image.save(folder / f"{i}.png")
            image.save(folder / f"{i}-again.jpg", quality=70)
        shutil.copy(folder / "3.png", folder / "copy.png")
    return tmp_path / "photos"


def by_name(split) -> dict[str, int]:
    return {Path(source).name: int(label) for source, label in zip(split.sources, split.labels, strict=True)}


@pytest.mark.parametrize("group_by", ["", r"/1(\d)"])
def test_the_split_of_the_fit_is_made_again_wherever_the_data_lie(photos, config, tmp_path, group_by) -> None:
    read = read_dataset(photos, seed=5, group_by=group_by)
    dataset, _ = inspect_and_join(read)
    assert dataset.test.sources != read.test.sources
    (tmp_path / "bundle").mkdir()
    write_split(split_record(dataset), tmp_path / "bundle")
    moved = Path(shutil.copytree(photos, tmp_path / "moved"))
    for data in (photos, moved):
        for part in SPLITS:
            chosen = choose_images(data, folder=tmp_path / "bundle", config=config, part=part)
            assert by_name(chosen.split) == by_name(getattr(dataset, part))
            assert chosen.sentence == (
                f"The bundle was fitted on these data: the {part} split ({len(chosen.split)} images) is scored."
            )
        again = read_as_fitted(data, folder=tmp_path / "bundle", config=config)
        assert [by_name(getattr(again, part)) for part in SPLITS] == [by_name(getattr(dataset, p)) for p in SPLITS]
        assert choose_images(data, folder=tmp_path / "bundle", config=config).part == "test"
    assert len(choose_images(photos, folder=tmp_path / "bundle", config=config, part="all").split) == 82


def test_images_that_were_trained_on_are_told_under_other_names_and_in_shards(photos, config, tmp_path) -> None:
    dataset, _ = inspect_and_join(read_dataset(photos, seed=5))
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    write_split(split_record(dataset), bundle)
    renamed = tmp_path / "renamed"
    for number, path in enumerate(sorted(photos.rglob("*.*"))):
        (renamed / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, renamed / path.parent.name / f"other-{number}{path.suffix}")
    write_shards(dataset, tmp_path / "shards")
    for data in (renamed, tmp_path / "shards"):
        sentence = choose_images(data, folder=bundle, config=config, part="all").sentence
        assert "about 100% of the images that it was trained on are among them" in sentence


def test_other_data_are_scored_whole_and_what_was_trained_on_is_told(photos, config, tmp_path) -> None:
    dataset, _ = inspect_and_join(read_dataset(photos, seed=5))
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    assert choose_images(photos, folder=bundle, config=config).sentence == (
        "All 82 images of these data are scored. WARNING: the bundle has no split.json, so images that it was trained "
        "on may be among them; if it was fitted on these data, --seed 5 scores the test split."
    )
    published = dataclasses.replace(config, split_seed=None)
    assert choose_images(photos, folder=bundle, config=published).sentence == "All 82 images of these data are scored."
    write_split(split_record(dataset), bundle)
    shutil.move(photos / "a" / "0.png", tmp_path / "0.png")
    chosen = choose_images(photos, folder=bundle, config=config)
    assert chosen.part == "all"
    assert chosen.sentence.startswith(
        "The bundle was fitted on other data: all 81 images of these data are scored. WARN"
    )
    assert "of the images that it was trained on are among them, so the accuracy is too high" in chosen.sentence
    with pytest.raises(DataError, match=r"the part test must be in the data, but they are not split.*\(--split all\)"):
        choose_images(photos, folder=bundle, config=config, part="test")
    seeded = choose_images(photos, folder=bundle, config=config, seed=3)
    assert by_name(seeded.split) == by_name(read_dataset(photos, seed=3).test)
    assert (
        seeded.sentence == f"Of these data, split with seed 3, the test split ({len(seeded.split)} images) is scored."
    )
    with pytest.raises(InputError, match="--group-by is for a split with --seed N"):
        choose_images(photos, folder=bundle, config=config, group_by="x")


@pytest.mark.parametrize("kind", ["one each", "one class", "test folder", "val and test", "rows of test"])
def test_data_that_no_fit_could_take_can_be_scored(kind, config, tmp_path) -> None:
    folders = {
        "one each": ["a", "c"],
        "one class": ["b"],
        "test folder": ["test/a", "test/b"],
        "val and test": ["val/a", "val/b", "test/a", "test/b"],
        "rows of test": ["a", "c"],
    }[kind]
    for number, folder in enumerate(folders):
        (tmp_path / "data" / folder).mkdir(parents=True)
        Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(tmp_path / "data" / folder / "1.png")
    data = tmp_path / "data"
    if kind == "rows of test":
        data = data / "m.csv"
        data.write_text("path,label,split\na/1.png,a,test\nc/1.png,c,test\n")
    chosen = choose_images(data, folder=tmp_path, config=config)
    assert len(chosen.split) == len(folders)
    assert [config.class_names[i] for i in chosen.split.labels] == sorted(folder[-1] for folder in folders) or kind == (
        "val and test"
    )
    if kind in ("val and test", "rows of test"):
        assert choose_images(data, folder=tmp_path, config=config, part="test").part == "test"


def test_imagenets_classes_go_by_wordnet_id_and_by_names_in_other_letters(tmp_path) -> None:
    for number, name in enumerate(("n01440764", "Golden_Retriever", "great white shark")):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "data" / name / "1.png")
    names = class_names(1000)
    config = ModelConfig(arch=effnet.get_spec("b0"), preprocess=Preprocess(resolution=16), class_names=names)
    labels = choose_images(tmp_path / "data", folder=tmp_path, config=config).split.labels
    assert {names[label] for label in labels} == {"tench", "golden retriever", "great white shark"}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"format": 1}', '{"format": 2}', "[" * 10**5, '{"format": 1, "seed": NaN}']
    + [
        json.dumps(
            {"format": 1, "seed": 0, "fingerprint": "", "group_by": "", "joined": [], "leaked": [], "seen": []} | wrong
        )
        for wrong in (
            {"seed": -1},
            {"seed": "0"},
            {"joined": [["a", 1]]},
            {"joined": "a"},
            {"leaked": None},
            {"group_by": 3},
        )
    ],
)
def test_a_damaged_split_file_is_named(text, tmp_path) -> None:
    (tmp_path / SPLIT).write_text(text)
    with pytest.raises(
        BundleError, match=r"split\.json must be as effnet wrote it; it cannot be read .*: remove it"
    ) as raised:
        read_split(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_split_file_keeps_names_that_are_no_text(tmp_path) -> None:
    record = SplitRecord(
        seed=2**60, fingerprint="f", joined=(("é/\udc80.png", "b.png"),), leaked=("x\ny",), seen=("0",)
    )
    write_split(record, tmp_path)
    assert read_split(tmp_path) == record
    assert read_split(tmp_path / "nowhere") is None
