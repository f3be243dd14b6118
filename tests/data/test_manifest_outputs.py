"""Manifests with several outputs: which columns are learnt, their cells, and their errors."""

import csv
import json
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from effnet.data.datasets import read_dataset
from effnet.data.inspection.counts import count_outputs
from effnet.data.manifests.columns import read_words
from effnet.data.manifests.manifest import read_manifest
from effnet.data.several.one_output import as_classes
from effnet.data.several.outputs import outputs_of, to_values
from effnet.errors import DataError, InputError

COLUMNS = ("gender", "tags", "year")


@pytest.fixture
def images(make_folder):
    return make_folder({"a": 40})


def write(images, text, name="m.csv"):
    path = images / name
    path.write_text(text, encoding="utf-8")
    return path


def values_of(number):
    """Return the three labels of an image, some of them unknown."""
    gender = None if number % 5 == 4 else ["Men", "Women"][number % 2]
    tags = None if number % 7 == 6 else [tag for tag, every in (("sea", 2), ("sun", 3)) if number % every == 0]
    return gender, tags, None if number % 9 == 8 else 2000 + number % 11


def table(images, header="path,label:gender,tags:tags,number:year", *, split=None):
    lines = [header]
    for number, path in enumerate(sorted(images.glob("a/*.png"))):
        gender, tags, year = values_of(number)
        cells = [f"a/{path.name}", gender or "", "" if tags is None else "|".join(tags) or "|", str(year or "")]
        lines.append(",".join(cells if split is None else [*cells, split(number)]))
    return "\n".join(lines) + "\n"


def known(dataset):
    """Return what is known of each image, by the name of its file."""
    return {
        source.rpartition("/")[2]: to_values(target, dataset.class_names)
        for split in (dataset.train, dataset.val, dataset.test)
        for source, target in zip(split.sources, split.labels, strict=True)
    }


def expected(number):
    found = zip(COLUMNS, values_of(number), strict=True)
    return {name: sorted(value) if name == "tags" else value for name, value in found if value is not None}


def test_columns_with_a_kind_are_the_outputs(images):
    dataset = read_dataset(write(images, table(images)))
    assert dataset.task == "several"
    assert dataset.class_names == ("gender=Men", "gender=Women", "tags:sea", "tags:sun", "year")
    assert dataset.listed.outputs == ("label:gender", "tags:tags", "number:year")
    assert dataset.train.labels.dtype == np.float64
    found = known(dataset)
    assert {name: found[name] for name in found} == {f"{n:03d}.png": expected(n) for n in range(40)}


def test_jsonl_says_the_same_with_lists_and_numbers(images):
    rows = []
    for number, path in enumerate(sorted(images.glob("a/*.png"))):
        row = {"path": f"a/{path.name}"} | dict(
            zip(("label:gender", "tags:tags", "number:year"), values_of(number), strict=True)
        )
        rows.append(json.dumps({key: value for key, value in row.items() if value is not None or number % 2}))
    first = read_dataset(write(images, "\n".join(rows), "m.jsonl"))
    second = read_dataset(write(images, table(images)))
    assert first.class_names == second.class_names
    for name in ("train", "val", "test"):
        one, other = getattr(first, name), getattr(second, name)
        assert one.sources == other.sources
        np.testing.assert_array_equal(one.labels, other.labels)


def test_plain_columns_are_chosen_and_their_kind_is_found(images):
    path = write(images, table(images, "path,Gender,tags,year"))
    dataset = read_dataset(path, outputs="Gender, year, tags:tags")
    assert [(spec.name, spec.kind) for spec in outputs_of(dataset.class_names)] == [
        ("Gender", "one"), ("year", "number"), ("tags", "many"),
    ]  # fmt: skip
    forced = read_dataset(path, outputs=["label:year", "Gender"])
    assert [spec.kind for spec in outputs_of(forced.class_names)] == ["one", "one"]
    assert "year=2003" in forced.class_names


@pytest.mark.parametrize("header, outputs", [("path,label:gender,x,y", ""), ("path,gender,tags:tags,y", "gender")])
def test_a_single_output_of_classes_is_classification(images, header, outputs):
    dataset = read_dataset(write(images, table(images, header)), outputs=outputs)
    assert (dataset.task, dataset.class_names) == ("classification", ("Men", "Women"))
    assert dataset.listed.outputs == ("label:gender",)
    assert dataset.train.labels.dtype == np.int64
    assert "8 images were left out because all their cells of labels are empty." in dataset.notes
    assert sum(len(split) for split in (dataset.train, dataset.val, dataset.test)) == 32


def test_a_plain_label_beside_others_is_an_output_of_that_name(images):
    dataset = read_dataset(write(images, table(images, "PATH,Label,TAGS:tags,extra")))
    assert [spec.name for spec in outputs_of(dataset.class_names)] == ["label", "tags"]
    alone = read_dataset(write(images, table(images, "path,label:gender,label,extra")), outputs="gender")
    assert alone.class_names == ("Men", "Women")


def test_the_labels_of_a_test_split_may_be_hidden(images):
    def split(number):
        return "test" if number >= 30 else "val" if number >= 20 else "train"

    text = table(images, "path,label:gender,tags:tags,number:year,split", split=split).splitlines()
    text[31:] = [f"{line.split(',')[0]},,,,test" for line in text[31:]]
    dataset = read_dataset(write(images, "\n".join(text)))
    assert "The labels of the 10 test images are all empty, so that split is not used." in dataset.notes
    assert [len(part) for part in (dataset.val, dataset.test)] == [3, 10]
    text[31:] = [f"{line.split(',')[0]},Men,,,test" for line in text[31:]]
    dataset = read_dataset(write(images, "\n".join(text)))
    assert "No image of test has a known year, so it cannot be measured there." in dataset.notes
    assert "These classes and tags have no test images and cannot be measured: Women (gender)." in dataset.notes


def manifest(header, *cells):
    """Return a manifest with an image for each text of cells."""
    return "\n".join([f"path,{header}", *(f"a/{number:03d}.png,{text}" for number, text in enumerate(cells))])


@pytest.mark.parametrize(
    "text, said",
    [
        ("path,number:n\na/000.png,old\n", "line 2: n must be a number such as 3.5; got 'old'"),
        ("path,number:n\na/000.png,1\na/001.png,inf\n", "line 3: n must be a number such as 3.5; got 'inf'"),
        ("path,number:n\na/000.png,nan\n", "line 2: n must be a number"),
        ("path,number:n\na/000.png,1e400\n", r"line 2: n must be a number .*, at most 1e\+30 in size; got inf"),
        ("path,number:n\na/000.png,1_000\n", "line 2: n must be a number"),
        ('path,number:n\na/000.png,"1,5"\n', "line 2: n must be a number"),
        ("path,tags:t\na/000.png,a||b\n", r"line 2: t must be tags with \| between them, or \| alone .*got 'a\|\|b'"),
        ("path,label:g\na/000.png,x//y\n", "line 2: a class with / in its name is a path such as animal/dog"),
        ("path,label\na/000.png,/y\n", "line 2: a class with / in its name is a path"),
        ("path,label:g,label:g\na/000.png,x,y\n", "line 1: each column must be named once, but label:g is named 2 t"),
        ("path,label:g,tags:g\na/000.png,x,y\n", "line 1: each output must be one column; label:g, tags:g are one"),
        ("path,label,label:label\na/000.png,x,y\n", "line 1: each output must be one column; label, label:label"),
        ("path,label:\na/000.png,x\n", "line 1: the column label:: the name of an output must be text without = : "),
        ("path,number:a=b\na/000.png,1\n", "line 1: the column number:a=b: the name of an output must be text"),
        ("path,tags:a:b\na/000.png,x\n", "line 1: the column tags:a:b: the name of an output"),
        ("path,label:g,number:n\na/000.png,,1\na/001.png,,2\n", "output g must have a class in at least one image"),
        (manifest("label:g,number:n", *["x,1", "x,2"] * 9), r"g must have at least two classes; got 1 \(x\): l"),
        (manifest("number:n,tags:t", *["7,x", "7,"] * 9), "n must have at least two values in train; all are 7"),
        ("path,tags:t,label:g\na/000.png,,\na/001.png,,\n", "cells of labels are empty in all rows of the 2 files"),
        ("path,tags:t\na/000.png,a\na/000.png,b\n", r"line 3: a/000.png must have one label.* in its cell: a\|b"),
        (manifest("label:g,number:n", *["x,", "y,"] * 9) + "\nb,x,3", "output n must be known of at least one image"),
        (manifest("label:g,split", "a,train", "c,train", "a,val", "b,test"), "every class must have images .*: b"),
        (
            manifest("label:g,number:n,split", "a,1,train", "b,2,train", "a,1,val", "c,3,test"),
            r"every class and tag must have images in train, but these have none there: c \(g\); move some there",
        ),
        (
            manifest("label:g,number:n,split", "a,,train", "b,,train", "a,2,val", "a,3,test"),
            "the output n must be known of at least one image of train; it is of none: leave it out",
        ),
        ("path,label:g,number:n\na/000.png," + "x" * 1000 + ",1\n", "g must have classes and tags of at most 1,000 c"),
        ("path,number:" + "n" * 201 + "\na/000.png,1\n", "name of an output must have at most 200 characters; got 201"),
        ("path," + ",".join(f"number:n{i}" for i in range(1000)), "at most 1000 columns, received 1,001"),
    ],
)  # fmt: skip
def test_what_cannot_be_learnt_says_where(images, text, said):
    with pytest.raises(DataError, match=said) as refused:
        read_dataset(write(images, text))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 700


@pytest.mark.parametrize(
    "row, said",
    [
        ('{"path": "a/000.png", "tags:t": ["a|b"]}', r"line 1: t must have tags without \|, .*got 'a\|b': rename it"),
        ('{"path": "a/000.png", "tags:t": ["|"]}', r"line 1: t must have tags without \|"),
        ('{"path": "a/000.png", "tags:t": [""]}', "line 1: t must be the name of a class; got ''"),
        ('{"path": "a/000.png", "tags:t": 3}', "line 1: t must be a list of tags; got 3"),
        ('{"path": "a/000.png", "label:t": 2.5}', "line 1: t must be the name of a class; got 2.5"),
        ('{"path": "a/000.png", "label:t": true}', "line 1: t must be the name of a class; got True"),
        ('{"path": "a/000.png", "number:t": true}', "line 1: t must be a number such as 3.5; got True"),
        ('{"path": "a/000.png", "number:t": [1]}', r"line 1: t must be a number such as 3.5; got \[1\]"),
        ('{"path": "a/000.png", "number:t": 1e400}', "line 1: not valid JSON .*finite"),
        ('{"tags:t": ["a"]}', "line 1: the columns path and label are needed; path is missing, received tags:t"),
    ],
)
def test_cells_of_jsonl_that_cannot_be_learnt_say_where(images, row, said):
    with pytest.raises(DataError, match=said):
        read_dataset(write(images, row, "m.jsonl"))


@pytest.mark.parametrize(
    "outputs, said",
    [
        ("gendr", r"line 1: outputs must be columns of the manifest; got 'gendr', its .*; did you mean 'gender'\?"),
        ("path", "outputs must be columns of the manifest; got 'path'"),
        ("number:gender", "line 2: gender must be a number such as 3.5; got 'Men'"),
        ("tags", r"line 2: tags must be one class an image; got 'sea\|sun': write tags:tags for several"),
        (
            "title",
            r"line 2: title must have classes that images share; 40 texts in 40 rows are different: .* label:title",
        ),
        ("age", r"line 5: age must be a number in all rows or in none; got 'NA': empty the cell .* or write label:age"),
    ],
)
def test_outputs_that_are_no_columns_are_refused(images, outputs, said):
    lines = table(images, "path,gender,tags,year").splitlines()
    more = ["title,age", *(f"shirt {number},{'NA' if number == 3 else number}" for number in range(40))]
    path = write(images, "\n".join(f"{line},{cells}" for line, cells in zip(lines, more, strict=True)))
    with pytest.raises(DataError, match=said):
        read_dataset(path, outputs=outputs)
    assert "shirt 0" in read_manifest(str(path), outputs=["label:title"]).parts[""].labels


def test_without_columns_of_labels_the_error_says_which_there_are(images):
    path = write(images, table(images, "path,gender,tags,year"))
    said = r"label is missing, received path, gender, tags, year. Choose others by name: --outputs gender"
    with pytest.raises(DataError, match=said):
        read_dataset(path)


def test_outputs_are_those_of_manifests_alone(images):
    with pytest.raises(DataError, match=r"outputs are columns of a CSV or JSONL manifest; got x for .*data"):
        read_dataset(images, outputs="x")
    with pytest.raises(DataError, match="got x for digits"):
        read_dataset("digits", outputs="x")
    for words in (",", "a,,b", "a,a", ["a", 3]):
        with pytest.raises(InputError, match="outputs must be the names of columns"):
            read_words(words)
    assert read_words("") == read_words(()) == ()


def test_data_of_a_model_may_lack_outputs_and_images_of_some_classes(images):
    words = ("label:gender", "number:price", "tags:tags")
    listing = read_manifest(str(write(images, table(images, "path,gender,tags,x"))), outputs=words, of_model=True)
    assert listing.label_kind.task == "several"
    assert listing.class_names == ("gender=Men", "gender=Women", "tags:sea", "tags:sun")
    with pytest.raises(DataError, match="a column for at least one output of the model, number:price; got path, gen"):
        read_manifest(str(images / "m.csv"), outputs=("number:price",), of_model=True)
    plain = read_manifest(str(write(images, table(images, "path,label,x,y").replace(",,", ",?,"))),
                          outputs=("label:gender",), of_model=True)  # fmt: skip
    assert plain.label_kind.task == "classification"


def test_999_outputs_are_read(images):
    rows = [["path", *(f"number:n{i}" for i in range(999))]]
    rows += [[f"a/{n:03d}.png", *(str((n * i) % 7 + n / 10) for i in range(1, 1000))] for n in range(20)]
    dataset = read_dataset(write(images, "\n".join(map(",".join, rows))))
    assert dataset.train.labels.shape == (len(dataset.train), 999)


def test_one_output_can_be_seen_as_classification(images):
    dataset = read_dataset(write(images, table(images)))
    found = as_classes(dataset, "gender")
    assert found.class_names == ("Men", "Women")
    pairs = {
        source.rpartition("/")[2]: found.class_names[label]
        for split in (found.train, found.val, found.test)
        for source, label in zip(split.sources, split.labels.tolist(), strict=True)
    }
    assert pairs == {f"{n:03d}.png": values_of(n)[0] for n in range(40) if values_of(n)[0]}


def test_a_real_table_is_read_as_it_is(shared_data):
    path = shared_data("fashion") / "fashion.csv"
    dataset = read_dataset(path, outputs="gender,articleType,season,year", channels=3)
    rows = {row["path"].rpartition("/")[2]: row for row in csv.DictReader(path.read_text().splitlines())}
    found = known(dataset)
    assert len(found) == len(rows) == 9583
    for name, values in found.items():
        assert values == {
            "gender": rows[name]["gender"],
            "articleType": rows[name]["articleType"],
            "season": rows[name]["season"],
            "year": float(rows[name]["year"]),
        }
    counts = {count.name: count for count in count_outputs(dataset)}
    assert (counts["year"].spread.minimum, counts["year"].spread.maximum) == (2008, 2018)
    for output in ("gender", "season"):
        for count in counts[output].classes:
            number = sum(row[output] == count.name for row in rows.values())
            assert count.train + count.val + count.test == number
            assert [count.val, count.test] == pytest.approx([0.15 * number] * 2, abs=3, rel=0.01)


def test_real_tags_are_read_as_they_are(shared_data):
    path = shared_data("scenes5") / "scenes5.csv"
    dataset = read_dataset(path, outputs="tags:tags", channels=3)
    rows = {row["path"].rpartition("/")[2]: row for row in csv.DictReader(path.read_text().splitlines())}
    assert known(dataset) == {name: {"tags": row["tags"].split("|")} for name, row in rows.items()}
    assert not dataset.notes[1:]


def test_the_commands_take_outputs(images, run_cli):
    path = write(images, table(images, "path,gender,tags,year"))
    report = run_cli("data", "inspect", path, "--outputs", "gender,tags:tags", "--format", "json")
    assert report.code == 0
    assert [output["name"] for output in json.loads(report.out)["outputs"]] == ["gender", "tags"]
    refused = run_cli("data", "inspect", path, "--outputs", "yaer")
    assert refused.code == 2
    assert "did you mean 'year'" in refused.err
    assert run_cli("data", "shard", path, images.parent / "shards", "--outputs", "tags:tags,year").code == 0
    said = run_cli("data", "inspect", images.parent / "shards")
    assert re.search(r"number year: 2000 / [\d.]+ / 2010", said.out)


def attempt(path):
    """Return the data set of a manifest, or the message of its error."""
    try:
        return read_dataset(path, channels=3), ""
    except DataError as error:
        return None, str(error)


_texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=5)
_cells = st.none() | _texts | st.integers(-(2**70), 2**70) | st.floats() | st.booleans() | st.lists(_texts, max_size=3)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["label:a", "tags:b", "number:c", "label", "x"]) | _texts,
                       st.lists(_cells, min_size=6, max_size=6), min_size=1, max_size=4))  # fmt: skip
def test_any_cells_are_read_or_refused_on_one_line(images, columns):
    rows = [
        json.dumps({"path": f"a/{n:03d}.png"} | {name: cells[n] for name, cells in columns.items() if name != "path"})
        for n in range(6)
    ]
    dataset, refused = attempt(write(images, "\n".join(rows), "m.jsonl"))
    assert "\n" not in refused
    assert bool(refused) != (dataset is not None)


_headers = st.lists(
    st.sampled_from(["label:a", "TAGS: b", "number:c", "label", "split", "group", "x", "path"]), min_size=1, max_size=5
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_headers, st.lists(st.text('ab|,"/:=1.-e \t\n', max_size=14), min_size=6, max_size=6), st.sampled_from(",;\t"))
def test_any_table_is_read_or_refused_on_one_line(images, header, cells, delimiter):
    rows = [delimiter.join(["path", *header]), *(f"a/{n:03d}.png{delimiter}{text}" for n, text in enumerate(cells))]
    dataset, refused = attempt(write(images, "\n".join(rows)))
    assert "\n" not in refused
    assert bool(refused) != (dataset is not None)


_labels = st.fixed_dictionaries(
    {},
    optional={
        "label:a": st.sampled_from(["x", "y=z", "a/b", "é"]),
        "tags:b": st.lists(st.sampled_from(["1", "two words", "k:v"]), max_size=3, unique=True),
        "number:c": st.floats(-1e30, 1e30),
    },
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_labels, min_size=12, max_size=12))
def test_what_is_written_is_what_is_learnt(images, labels):
    rows = [json.dumps({"path": f"a/{n:03d}.png"} | label) for n, label in enumerate(labels)]
    dataset, refused = attempt(write(images, "\n".join(rows), "m.jsonl"))
    expected = ("at least", "empty in all rows", "label is missing", "hold some out")
    assert not refused or any(word in refused for word in expected)
    if dataset is None or dataset.task == "classification":
        return
    wanted = {
        f"{n:03d}.png": {
            key.partition(":")[2]: sorted(value) if isinstance(value, list) else value for key, value in label.items()
        }
        for n, label in enumerate(labels)
        if label
    }
    assert known(dataset) == wanted
