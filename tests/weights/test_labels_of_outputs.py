"""Data for a bundle of several outputs: matched by the names of outputs, classes and tags; its own split again."""

import dataclasses
import json

import numpy as np
import pytest

import effnet
from effnet.bundle.config import ModelConfig
from effnet.bundle.split_file import read_split, write_split
from effnet.data.datasets import Dataset, read_dataset
from effnet.data.inspection.leaks import fingerprint_of
from effnet.data.preprocess import Preprocess
from effnet.data.several.outputs import outputs_of
from effnet.errors import DataError, InputError
from effnet.measurement.sample import CHECKED, calibration_images, gather
from effnet.weights.labels import choose_images, numbered, read_as_fitted, split_record

NAMES = ("gender=Men", "gender=Women", "tags:sea", "tags:sun", "tags:trees", "year")
nan = np.nan


def config_of(names, *, task="several"):
    spec = effnet.get_spec("b0", num_classes=len(names))
    specs = outputs_of(names) if task == "several" else ()
    return ModelConfig(
        arch=spec, preprocess=Preprocess(resolution=16), class_names=tuple(names), split_seed=5, task=task, specs=specs
    )


@pytest.fixture
def config():
    return config_of(NAMES)


def table(folder, header, cells):
    paths = [f"all/{path.name}" for path in sorted(folder.glob("all/*.png"))]
    rows = [f"{path},{cells(number)}" for number, path in enumerate(paths)]
    path = folder / "m.csv"
    path.write_text("\n".join([f"path,{header}", *rows]) + "\n")
    return path


def cells(number):
    return f"{['Men', 'Women'][number % 2]},{['sea', 'sun|trees', '|', ''][number % 4]},{2000 + number % 5}"


@pytest.fixture
def data(make_folder):
    return table(make_folder({"all": 60}), "gender,tags,year", cells)


def read(data, **options):
    return read_dataset(data, outputs="gender,tags:tags,year", **options)


def test_the_split_of_the_fit_is_made_again_with_the_outputs_of_the_bundle(data, config, tmp_path):
    dataset = read(data, seed=5)
    write_split(split_record(dataset), tmp_path)
    assert read_split(tmp_path).outputs == ("label:gender", "tags:tags", "number:year")
    chosen = choose_images(data, folder=tmp_path, config=config)
    assert chosen.part == "test"
    assert list(chosen.split.sources) == list(dataset.test.sources)
    np.testing.assert_array_equal(chosen.split.labels, dataset.test.labels)
    again = read_as_fitted(data, folder=tmp_path, config=config)
    assert again.train.sources == dataset.train.sources
    found = gather(config, data, folder=tmp_path, calibrated=8)
    assert found.calibration.shape == (8, 16, 16, 3)
    assert list(found.judged.sources) == list(dataset.val.sources)
    assert len(gather(config, data, folder=tmp_path).check) == len(dataset.test) <= CHECKED


def test_a_single_output_of_classes_finds_its_column_again(data, tmp_path):
    dataset = read_dataset(data, outputs="gender", seed=5)
    write_split(split_record(dataset), tmp_path)
    config = config_of(("Men", "Women"), task="classification")
    chosen = choose_images(data, folder=tmp_path, config=config)
    assert list(chosen.split.sources) == list(dataset.test.sources)
    assert chosen.split.labels.dtype == np.int64


@pytest.mark.parametrize(
    "outputs, said",
    [
        (["gender"], "the outputs of a model must begin with label, tags, number and :; got 'gender'"),
        ([""], "outputs must be the names of columns"),
        ([3], "must hold texts; one is int"),
        ("label:gender", "must hold lists of paths; one is str"),
    ],
)
def test_a_split_record_that_something_else_wrote_is_refused(data, tmp_path, outputs, said):
    write_split(split_record(read_dataset(data, outputs="gender", seed=5)), tmp_path)
    record = json.loads((tmp_path / "split.json").read_text())
    (tmp_path / "split.json").write_text(json.dumps(record | {"outputs": outputs}))
    with pytest.raises(InputError, match=said):
        choose_images(data, folder=tmp_path, config=config_of(("Men", "Women"), task="classification"))


def test_other_data_are_matched_by_name(make_folder, config, tmp_path):
    folder = make_folder({"all": 4})
    other = table(folder, "number:year,label:gender,tags:tags", lambda n: f"{n},women,{'sun' * (n > 1)}")
    chosen = choose_images(other, folder=tmp_path, config=config)
    wanted = [[1, *([nan] * 3 if n < 2 else [0, 1, 0]), n] for n in range(4)]
    np.testing.assert_array_equal(chosen.split.labels, wanted)
    assert chosen.part == "all"
    with pytest.raises(
        DataError, match=r"at least one output of the model, label:gender, tags:tags, number:year; got pa"
    ):
        choose_images(table(folder, "x,y", lambda n: "1,2"), folder=tmp_path, config=config)


def test_images_that_were_trained_on_are_told_although_some_of_their_labels_are_missing(data, config, tmp_path):
    write_split(split_record(read(data, seed=5)), tmp_path)
    path = table(data.parent, "gender,x,y", lambda number: f"{['Men', 'Women'][number % 2]},,")
    assert (
        "about 100% of the images that it was trained on are among them"
        in choose_images(path, folder=tmp_path, config=config).sentence
    )


def test_an_output_that_the_data_lack_is_unknown(make_folder, config, tmp_path):
    other = table(make_folder({"all": 3}), "gender,x,y", lambda n: ["Women,1,2", ",1,2", "Men,1,2"][n])
    chosen = choose_images(other, folder=tmp_path, config=config)
    np.testing.assert_array_equal(chosen.split.labels, [[1, *[nan] * 4], [0, *[nan] * 4]])
    assert len(chosen.split) == 2  # nothing is known of the third


@pytest.mark.parametrize(
    "header, row, said",
    [
        (
            "label:gender,tags:tags",
            "Womem,sea",
            "the model has no class of gender 'Womem'; did you mean 'Women'.* 2 cl",
        ),
        (
            "label:gender,tags:tags",
            "Women,see",
            "the model has no tag of tags 'see'; did you mean 'sea'.* it has 3 tags",
        ),
    ],
)
def test_classes_and_tags_that_the_model_does_not_know_are_refused(make_folder, config, tmp_path, header, row, said):
    other = table(make_folder({"all": 3}), header, lambda n: row)
    with pytest.raises(DataError, match=said):
        choose_images(other, folder=tmp_path, config=config)
    found = gather(config, other, folder=tmp_path)  # its images can still be compared between runtimes
    assert "the model has no" in found.unscored
    assert found.scored is None
    assert len(found.check) == 3


def test_data_sets_of_a_program_are_matched_too(config, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    one = Dataset.from_arrays(np.repeat(images, 5, 0), [{"gender": ["Men", "Women"][n % 2]} for n in range(20)])
    assert one.task == "classification"
    chosen = choose_images(one, folder=tmp_path, config=config)
    assert chosen.split.labels.shape == (20, 5)
    assert np.isnan(chosen.split.labels[:, 1:]).all()
    other = Dataset.from_arrays(
        np.repeat(images, 5, 0), [{"price": float(n), "year": ["old", "new"][n % 2]} for n in range(20)]
    )
    with pytest.raises(DataError, match="the output year must be of the model's kind, number; got label"):
        choose_images(other, folder=tmp_path, config=config)
    strange = Dataset.from_arrays(np.repeat(images, 5, 0), [{"price": float(n)} for n in range(20)])
    with pytest.raises(DataError, match="the data must have one of the model's outputs, gender, tags, year; got price"):
        choose_images(strange, folder=tmp_path, config=config)


def test_labels_of_another_task_are_refused(config, tmp_path):
    with pytest.raises(DataError, match=r"must be those of the model's task, several; they are of classification"):
        choose_images("digits", folder=tmp_path, config=config)


def test_calibration_images_are_drawn_at_random_from_the_seed(data, config):
    dataset = read(data)
    train = numbered(dataset.train, dataset.class_names, config, kind=dataset.label_kind)
    first, again, other = (
        calibration_images(train, config.preprocess, class_names=NAMES, count=10, seed=seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_fingerprint_knows_the_labels(data):
    dataset = read(data)
    assert fingerprint_of(dataset.listed) == fingerprint_of(read(data, seed=3).listed)
    other = dataclasses.replace(dataset.listed.parts[""], labels=("{}",) * 60)
    assert fingerprint_of(dataclasses.replace(dataset.listed, parts={"": other})) != fingerprint_of(dataset.listed)
