"""Labels of several outputs that programs and shards give, and what can be learnt from them."""

import io
import json
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.data.datasets import Dataset, read_dataset
from effnet.data.inspection.inspect import describe, inspect_and_join, inspect_dataset
from effnet.data.inspection.mirrors import why_not_mirrored
from effnet.data.inspection.unreadable import drop
from effnet.data.several.outputs import SEVERAL, absent_columns, read_labels, to_targets, to_values
from effnet.data.several.values import label_text
from effnet.data.shards.write import write_shards
from effnet.data.sources.source import Part
from effnet.errors import DataError

nan = float("nan")


def pixels(count, *, side=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def labels(count):
    """Return labels of a class, tags and a number, some of them unknown."""
    found = [
        {
            "gender": ["Men", "Women"][n % 2],
            "tags": [tag for tag, every in (("sea", 2), ("sun", 3)) if n % every == 0],
            "year": 2000 + n % 11,
        }
        for n in range(count)
    ]
    for n in range(0, count, 5):
        del found[n]["year"]
    for n in range(1, count, 5):
        found[n]["gender"] = None
    for n in range(2, count, 10):
        found[n]["year"] = nan
    return found


def known(label):
    return {name: value for name, value in label.items() if value is not None and value == value}


def told(dataset):
    """Return what is known of each image by its pixels."""
    return {
        np.load(io.BytesIO(source.read())).tobytes(): to_values(target, dataset.class_names)
        for split in (dataset.train, dataset.val, dataset.test)
        for source, target in zip(split.sources, split.labels, strict=True)
    }


def test_mappings_are_labels_of_several_outputs():
    images, given = pixels(60), labels(60)
    dataset = Dataset.from_arrays(images, given)
    assert dataset.task == "several"
    assert dataset.class_names == ("gender=Men", "gender=Women", "tags:sea", "tags:sun", "year")
    assert told(dataset) == {image.tobytes(): known(label) for image, label in zip(images, given, strict=True)}
    assert len(dataset.test) == pytest.approx(9, abs=2)


def test_the_items_of_a_torch_data_set_may_have_mappings_of_tensors():
    torch = pytest.importorskip("torch")
    images, given = pixels(40), labels(40)
    items = [
        (image, {name: torch.tensor(float(value)) if name == "year" and value is not None else value
                 for name, value in label.items()})
        for image, label in zip(images, given, strict=True)
    ]  # fmt: skip
    first, second = Dataset.from_torch(items), Dataset.from_arrays(images, given)
    assert told(first) == told(second)
    item = first.train.to_torch()[0]
    assert item[1].shape == (4,)


@pytest.mark.parametrize(
    "given, said",
    [
        ([{"a": "x"}, "y"], "the label of image 1 must be a mapping as those of others are; got 'y'"),
        (
            [{"a": "x"}, {"a": 3}],
            "the label of image 1: a must be of one kind in all images; got 3, number, after label",
        ),
        ([{"a": ["x"]}, {"a": "x"}], "a must be of one kind in all images; got 'x', label, after tags"),
        ([{"a": True}], "the label of image 0: a must be a number such as 3.5, .*got True"),
        ([{"a": float("inf")}], "a must be a number such as 3.5, at most 1e.30 in size; got inf"),
        ([{"a": 10**400}], "a must be a number such as 3.5, at most 1e.30 in size"),
        ([{"a": {}}], "a must be a number such as 3.5"),
        ([{"a": ["x", 1.5]}], "the label of image 0: a must be the name of a class; got 1.5"),
        ([{"a": ["x|y"]}], r"a must have tags without \|, which separates them in a cell; got 'x\|y': rename it"),
        ([{"a": ["|"]}], r"a must have tags without \|"),
        ([{"a": " "}], "a must be the name of a class; got ' '"),
        ([{"a=b": 3}], "the label of image 0: the name of an output must be text without = : , and .; got 'a=b'"),
        ([{"a:b": 3}], "the name of an output must be text without"),
        ([{"": 3}], "the name of an output must be text without"),
        ([{3: 3}], "the name of an output must be text; got 3"),
        ([{"a": None}, {"a": 1}], "the label of image 0 must have at least one known output; leave such images out"),
        ([{"a": 1, "b": None}, {"a": 2}], "the output b must be known of at least one image; it is None in all"),
        ([{"a": []}, {"a": []}], "the output a must have a tag in at least one image; it has none"),
    ],
)
def test_labels_that_are_not_of_outputs_are_refused(given, said):
    with pytest.raises(DataError, match=said):
        Dataset.from_arrays(pixels(len(given)), given)


def test_class_names_belong_to_labels_of_classes():
    with pytest.raises(DataError, match="class_names must be left out: labels of several outputs name their classes"):
        Dataset.from_arrays(pixels(9), labels(9), class_names=["a", "b"])


_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="|"), min_size=1, max_size=6).filter(
    str.strip
)
_names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="=:,|"), min_size=1, max_size=6)


@given(
    st.dictionaries(
        _names.filter(str.strip), _texts | st.lists(_texts, min_size=1) | st.floats(-1e30, 1e30), min_size=1
    )
)
def test_labels_are_read_back_from_their_targets(label):
    found = read_labels([[label, label]], None)
    if found.kind is not SEVERAL:
        return
    again = to_values(to_targets(found.texts[0][:1], found.names)[0], found.names)
    once = read_labels([[again, again]], None)
    assert (once.names, once.texts) == (found.names, found.texts)
    assert list(map(type, again.values())) == list(map(type, (json.loads(found.texts[0][0])).values()))


def test_shards_keep_the_labels(make_folder, tmp_path):
    images, given = pixels(60), labels(60)
    dataset = Dataset.from_arrays(images, given)
    write_shards(dataset, tmp_path / "out", per_shard=10)
    read = read_dataset(tmp_path / "out")
    assert read.class_names == dataset.class_names
    assert read.listed.outputs == dataset.listed.outputs
    for name in ("train", "val", "test"):
        first, second = getattr(dataset, name), getattr(read, name)
        rows = [sorted(map(str, split.labels.tolist())) for split in (first, second)]
        assert rows[0] == rows[1]
    with tarfile.open(next((tmp_path / "out").glob("train-*.tar"))) as archive:
        name = next(name for name in archive.getnames() if name.endswith(".json"))
        assert set(json.loads(archive.extractfile(name).read())["label"]) <= {"gender", "tags", "year"}
    (tmp_path / "out" / "effnet-shards.json").unlink()
    assert read_dataset(tmp_path / "out").class_names == dataset.class_names


@pytest.mark.parametrize(
    "change, said",
    [
        (
            lambda text: text.replace(b"Women", b"Womem"),
            r"must be those of effnet-shards.json; gender=Womem .* 'gender=Wo",
        ),
        (lambda text: b"{}", r"train-000000.tar: the image .*\.npy must have a label"),
        (
            lambda text: b'{"label": {"gender": [1, {}]}}',
            r"train-000000.tar/.*\.npy: gender must be the name of a class",
        ),
        (lambda text: b'{"label": {}}', r"train-000000.tar/.*\.npy must have at least one known output"),
        (
            lambda text: b'{"label": "Men"}',
            r"train-000000.tar/.*\.npy must be a mapping as those of others are; got 'M",
        ),
        (lambda text: b'{"label": {"a": NaN}}', "finite numbers"),
    ],
)
def test_shards_whose_labels_were_changed_are_refused(tmp_path, change, said):
    write_shards(Dataset.from_arrays(pixels(30), labels(30)), tmp_path / "out")
    path = tmp_path / "out" / "train-000000.tar"
    with tarfile.open(path) as archive:
        members = [(info.name, archive.extractfile(info).read()) for info in archive]
    changed = False
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            if name.endswith(".json") and not changed and b"Women" in data:
                data, changed = change(data), True
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    index = json.loads((tmp_path / "out" / "effnet-shards.json").read_text())
    for row in index["shards"]:
        row.update(sha256="", size_bytes=0)
    (tmp_path / "out" / "effnet-shards.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match=said) as refused:
        read_dataset(tmp_path / "out")
    assert "\n" not in str(refused.value)


def part(*values):
    return Part(sources=tuple(map(str, range(len(values)))), labels=tuple(map(label_text, values)))


def test_what_cannot_be_measured_is_said():
    train = part({"g=": "a", "t:": ["x", "y"]}, {"g=": "b", "t:": ["x"], "n": 1.0}, {"n": 2.0})
    parts = {"train": train, "val": part({"g=": "a"}), "test": part({"g=": "a", "n": 1.0})}
    names, notes = SEVERAL.name(parts, (), False)
    assert names == ("g=a", "g=b", "t:x", "t:y", "n")
    assert notes == [
        "No image of val has a known t, so it cannot be measured there.",
        "No image of test has a known t, so it cannot be measured there.",
        "Every image of train has the tag x of t.",
        "No image of val has a known n, so it cannot be measured there.",
        "These classes and tags have no test images and cannot be measured: b (g).",
    ]
    with pytest.raises(DataError, match=r"strict needs at least 2 images per class and tag, but .*: b \(g\), y \(t\)"):
        SEVERAL.name(parts, (), True)
    with pytest.raises(DataError, match=r"these have none there: c \(g\); move some there, empty these cells"):
        SEVERAL.name(parts, ("g=a", "g=b", "g=c", "t:x", "t:y", "n"), False)
    with pytest.raises(DataError, match="at least one output must be known of one image; none is"):
        SEVERAL.name({"train": part({}, {})}, (), False)


def test_an_output_or_a_class_without_images_left_is_not_dropped_silently(make_folder):
    folder = make_folder({"all": 20})
    lines = [f"all/{n:03d}.png,{'ab'[n % 2]},{'x' if n == 0 else 'y'},{n}" for n in range(20)]
    (folder / "m.csv").write_text("\n".join(["path,label:g,tags:t,number:n", *lines]))
    dataset = read_dataset(folder / "m.csv")
    left = drop(dataset, [dataset.train.sources[5]], reason="because")
    assert len(left.train) == len(dataset.train) - 1
    assert left.train.labels.shape[1] == 4
    with pytest.raises(DataError, match="these classes have no usable image left in train: t:x"):
        drop(dataset, [str(folder / "all" / "000.png")], reason="because")
    targets = np.array([[0, 1, 0, nan], [nan, nan, nan, nan]])
    assert absent_columns(targets, ("g=a", "g=b", "t:x", "t:y", "n")) == ["g=b", "t:y", "n"]


def test_inspection_counts_each_output(make_folder):
    folder = make_folder({"all": 40})
    lines = [f"all/{n:03d}.png,{'ab'[n % 2]},{['x', 'x|y', '|', ''][n % 4]},{n or ''}" for n in range(40)]
    (folder / "m.csv").write_text("\n".join(["path,label:g,tags:t,number:n", *lines]))
    dataset, report = inspect_and_join(read_dataset(folder / "m.csv"))
    g, t, n = report.outputs
    assert [(c.name, c.train + c.val + c.test) for c in g.classes] == [("a", 20), ("b", 20)]
    assert [(c.name, c.train + c.val + c.test) for c in t.classes] == [("x", 20), ("y", 10)]
    assert (t.none, t.small, t.unknown.train + t.unknown.val + t.unknown.test) == (10, ("x", "y"), 10)
    assert (n.spread.minimum, n.spread.median, n.spread.maximum) == (1, 20, 39)
    assert (n.known.train, n.classes) == (int((~np.isnan(dataset.train.labels[:, -1])).sum()), ())
    said = describe(report)
    assert said[0] == f"m: 40 images, 3 outputs ({len(dataset.train)} train, {len(dataset.val)} val, 6 test)"
    assert "label g: 2 classes" in said
    assert "tags t: 2 tags, 10 images without any, 25.0% unknown" in said
    assert "number n: 1 / 20 / 39 (smallest / median / largest), 2.5% unknown" in said
    assert any(line.startswith("  tags with fewer than 20 train images (2): x, y") for line in said)
    assert json.dumps(report.to_dict())


def test_copies_with_different_labels_are_named(make_folder):
    folder = make_folder({"all": 20})
    (folder / "all" / "copy.png").write_bytes((folder / "all" / "000.png").read_bytes())
    names = [path.name for path in sorted(folder.glob("all/*.png"))]
    lines = [f"all/{name},{'ab'[n % 2]},{n}" for n, name in enumerate(names)]
    (folder / "m.csv").write_text("\n".join(["path,label:g,number:n", *lines]))
    report = inspect_dataset(read_dataset(folder / "m.csv"))
    (found,) = report.across_labels
    assert sorted(found.labels) == ["g a; n 0", "g a; n 20"]
    (folder / "m.csv").write_text("\n".join(["path,label:g,number:n", *lines[:-1], lines[-1].replace(",20", ",")]))
    assert not inspect_dataset(read_dataset(folder / "m.csv")).across_labels  # an unknown number is no other number


def test_left_and_right_among_the_classes_of_an_output_forbid_mirroring():
    images = pixels(40)
    given = [{"side": ["left shoe", "right shoe"][n % 2], "year": n} for n in range(40)]
    reason = why_not_mirrored(Dataset.from_arrays(images, given))
    assert reason == 'the classes "left shoe" and "right shoe" differ only in left and right.'
    given = [{"tags": [["arrow left", "arrow right"][n % 2]], "year": n} for n in range(40)]
    assert "arrow left" in why_not_mirrored(Dataset.from_arrays(images, given))


def test_an_output_whose_images_are_mirrored_is_found_by_its_pixels():
    rng = np.random.default_rng(0)
    images = np.full((200, 32, 32, 3), 128, np.uint8)
    given = []
    for image in images:
        number = int(rng.integers(2))
        ramp = np.linspace(20, 235, 32)[:: -1 if number else 1]
        image[:] = np.clip(ramp[None, :, None] + rng.normal(0, 10, (32, 32, 1)), 0, 255)
        given.append({"way": ["a", "b"][number], "year": float(rng.integers(9))})
    reason = why_not_mirrored(Dataset.from_arrays(images, given))
    assert reason.startswith("by way, mirrored images of the class")
    assert why_not_mirrored(Dataset.from_arrays(images, [{"year": label["year"]} for label in given])) == ""
