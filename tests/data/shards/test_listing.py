"""Shards as data: compatible with the webdataset library, readable from many threads, and refused if damaged."""

import concurrent.futures
import gc
import gzip
import io
import json
import multiprocessing
import os
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import braceexpand
import numpy as np
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from effnet.data.datasets import list_source, load_image, read_dataset
from effnet.data.inspection.inspect import inspect_dataset
from effnet.data.shards.index import expand_braces
from effnet.data.shards.tar import list_members
from effnet.data.shards.write import write_shards
from effnet.data.sources.source import encoded, source_name
from effnet.errors import DataError

SPLITS = ("train", "val", "test")


def png(value=0, size=6):
    buffer = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def make_tar(path, members):
    """Write (name, bytes) pairs as a tar file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def samples(count, classes=2, *, start=0):
    """Return the members of this number of images, all different."""
    found = []
    for i in range(start, start + count):
        found += [(f"{i:05d}.png", png(i)), (f"{i:05d}.cls", str(i % classes).encode())]
    return found


def contents(dataset):
    """Return how often each split holds each (bytes, class)."""
    found = {}
    for name in SPLITS:
        split = getattr(dataset, name)
        pairs = []
        for source, label in zip(split.sources, split.labels, strict=True):
            file = encoded(source)
            data = file if isinstance(file, bytes) else Path(file).read_bytes()
            pairs.append((data, dataset.class_names[label]))
        found[name] = Counter(pairs)
    return found


@pytest.fixture(scope="module")
def sharded(photos, tmp_path_factory):
    """The folder `photos` as shards of at most 5 images, and the data set from which they were written."""
    out = tmp_path_factory.mktemp("shards") / "colours"
    dataset = read_dataset(photos)
    write_shards(dataset, out, per_shard=5)
    return out, dataset


def test_shards_hold_what_the_folder_held(sharded):
    out, before = sharded
    after = read_dataset(out)
    assert contents(after) == contents(before)
    assert (after.class_names, after.channels, after.name) == (before.class_names, before.channels, "colours")
    assert "The splits train, val and test are used as given." in after.notes
    assert sorted(path.name for path in out.glob("train-*")) == [f"train-{i:06d}.tar" for i in range(9)]


def test_a_image_from_a_shard_is_the_image_of_its_file(sharded):
    out, before = sharded
    after = read_dataset(out)
    # The stem of the file is in the name of the member; a class has each stem once.
    files = {
        (Path(path).stem, int(label)): index
        for index, (path, label) in enumerate(zip(before.train.sources, before.train.labels, strict=True))
    }
    for index, source in enumerate(after.train.sources):
        stem = source.name.rpartition("-")[2].removesuffix(".png")
        other = files[stem, int(after.train.labels[index])]
        np.testing.assert_array_equal(
            load_image(after.train, index, channels=3), load_image(before.train, other, channels=3)
        )


@pytest.mark.filterwarnings(
    "ignore:unclosed file:ResourceWarning"
)  # the library leaves closing to the garbage collector
def test_the_webdataset_library_reads_our_shards(sharded):
    out, before = sharded
    index = json.loads((out / "effnet-shards.json").read_text())
    for name in SPLITS:
        urls = [str(out / row["file"]) for row in index["shards"] if row["split"] == name]
        reader = webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8").to_tuple("png", "cls")
        found = Counter()
        for pixels, label in reader:
            found[pixels.tobytes(), index["class_names"][label]] += 1
        split = getattr(before, name)
        wanted = Counter(
            (load_image(split, i, channels=3).tobytes(), before.class_names[split.labels[i]]) for i in range(len(split))
        )
        assert found == wanted
    del reader
    gc.collect()


@pytest.mark.parametrize("field", ["cls", "json"])
def test_shards_of_the_webdataset_library_are_read(field, tmp_path):
    (tmp_path / "wds").mkdir()
    with webdataset.ShardWriter(str(tmp_path / "wds/%04d.tar"), maxcount=7, verbose=0) as writer:
        for i in range(20):
            label = {"cls": i % 2} if field == "cls" else {"json": {"label": i % 2, "caption": "a shade"}}
            writer.write({"__key__": f"sample/{i:03d}", "png": np.full((6, 8, 3), i, np.uint8), **label})
    dataset = read_dataset(tmp_path / "wds")
    assert dataset.class_names == ("0", "1")
    assert [len(getattr(dataset, name)) for name in SPLITS] == [12, 4, 4]
    for name in SPLITS:
        split = getattr(dataset, name)
        for index, source in enumerate(split.sources):
            pixels = load_image(split, index, channels=3)
            value = int(pixels[0, 0, 0])
            assert (pixels == value).all()
            assert value % 2 == split.labels[index]
            assert source.name == f"{value // 7:04d}.tar/sample/{value:03d}.png"


def test_real_photographs_survive(shared_data, tmp_path):
    folder = shared_data("photos7")
    before = read_dataset(folder, seed=3)
    written = write_shards(before, tmp_path / "shards", shard_mb=0.8)
    assert contents(read_dataset(tmp_path / "shards")) == contents(before)
    assert max(shard.size_bytes for shard in written.shards) < 0.8e6 + 2 * tarfile.RECORDSIZE
    assert len(written.shards) > 6
    report = inspect_dataset(read_dataset(tmp_path / "shards"))
    assert (report.num_examined, report.unreadable, report.wrong_suffixes) == (len(list(folder.rglob("*.*"))), (), ())


def test_class_names_come_from_the_index(sharded, tmp_path):
    out, before = sharded
    pattern = read_dataset(f"{out}/{{train,val,test}}-{{000000..000001}}.tar")
    assert pattern.class_names == before.class_names
    assert [len(getattr(pattern, name)) for name in SPLITS] == [10, 9, 9]
    one = read_dataset(out / "train-000003.tar")
    assert (sum(len(getattr(one, name)) for name in SPLITS), one.name) == (5, "train-000003")


def test_shards_without_splits_are_split_as_a_folder_is(tmp_path):
    for number in range(4):
        make_tar(tmp_path / "wds" / f"part{number}.tar", samples(10, start=10 * number))
    dataset = read_dataset(tmp_path / "wds", seed=7)
    assert [len(getattr(dataset, name)) for name in SPLITS] == [28, 6, 6]
    assert np.bincount(dataset.test.labels).tolist() == [3, 3]
    again, other = read_dataset(tmp_path / "wds", seed=7), read_dataset(tmp_path / "wds", seed=8)
    names = [[source.name for source in found.test.sources] for found in (dataset, again, other)]
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize(
    "names, sizes",
    [
        (("imagenet1k-train-00.tar", "imagenet1k-validation-00.tar"), (16, 4, 20)),
        (("train/00.tar", "val/00.tar"), (16, 4, 20)),
        (("test-00.tar", "test-01.tar"), (28, 6, 6)),
    ],
)
def test_names_of_shards_give_the_splits(names, sizes, tmp_path):
    for name in names:
        make_tar(tmp_path / name, samples(20))
    pattern = f"{tmp_path}/{{{','.join(names)}}}"
    dataset = read_dataset(pattern)
    assert tuple(len(getattr(dataset, name)) for name in SPLITS) == sizes


@given(
    st.lists(
        st.one_of(
            st.sampled_from(["a", "-", "x/y", "{a,b}", "{a,{b,c}}", "{,z}"]),
            st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 4)).map(
                lambda t: f"{{{t[0]:0{t[2]}d}..{t[1]:0{t[2]}d}}}"
            ),
        ),
        max_size=3,
    )
)
def test_braces_mean_what_the_library_says(parts):
    pattern = "".join(parts)
    assert expand_braces(pattern) == tuple(dict.fromkeys(braceexpand.braceexpand(pattern)))


@pytest.mark.parametrize(
    "pattern, message",
    [
        ("x-{}.tar", r"a brace must hold a list \{a,b\} or a range \{000..011\}, received \{\} in"),
        ("x-{7}.tar", r"received \{7\} in"),
        ("x-{0..3.tar", r"every brace of a pattern must be closed"),
        ("x-{0..99999999}.tar", r"at most 1,000,000 shards"),
        ("nowhere-{0..3}.tar", r"every shard of .* must exist, but 4 of 4 do not; the first is .*nowhere-0.tar"),
        ("nowhere.tar", r"must exist, but 1 of 1 do not"),
    ],
)
def test_a_pattern_that_means_nothing_is_refused(pattern, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_dataset(tmp_path / pattern)


GOOD = samples(4)
BAD_MEMBERS = [
    ([("a.txt", b"x")], "must hold images .*, but it has none"),
    ([], "must hold images"),
    ([*GOOD, ("b.png", png())], r"the image b\.png must have a label, b\.cls or b\.json"),
    ([*GOOD, ("b.png", png()), ("b.json", b'{"width": 3}')], r"the image b\.png must have a label"),
    ([*GOOD, ("b.png", png()), ("b.cls", b"-1")], r"b\.png: the label must be at least 0; received -1"),
    ([*GOOD, ("b.png", png()), ("b.cls", b"")], r"b\.cls must hold the number or the name of a class, received ''"),
    ([*GOOD, ("b.png", png()), ("b.json", b'{"label": 1.5}')], "received 1.5"),
    ([*GOOD, ("b.png", png()), ("b.json", b'{"label": true}')], "received True"),
    ([*GOOD, ("b.png", png()), ("b.json", b'{"label"')], r"b\.json must hold a label as text or JSON"),
    ([*GOOD, ("b.png", png()), ("b.cls", b"\xff\xfe")], r"b\.cls must hold a label as text or JSON"),
    ([*GOOD, *samples(1)], "must hold the members of a key together, but 00000 occurs again later"),
    ([*GOOD, GOOD[-1]], r"must hold each member once, but 00003\.cls is in it twice"),
    ([("b.png", png()), ("b.jpg", png()), ("b.cls", b"1")], r"one image per key, but b has b\.png and b\.jpg"),
]


@pytest.mark.parametrize("members, message", BAD_MEMBERS)
def test_a_shard_that_cannot_be_used_is_named_and_said_why(members, message, tmp_path):
    path = make_tar(tmp_path / "bad.tar", members)
    with pytest.raises(DataError, match=rf"bad\.tar.*{message}|{message}") as raised:
        read_dataset(path)
    assert "bad.tar" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_of_an_image_with_sound_the_image_is_read_and_of_a_sound_alone_the_sound(tmp_path):
    members = [("a.png", png()), ("a.wav", b"RIFF"), ("a.cls", b"0"), ("b.wav", b"RIFF"), ("b.png", png()),
               ("b.cls", b"1"), ("c.wav", b"RIFF"), ("c.cls", b"1")]  # fmt: skip
    with open(make_tar(tmp_path / "clips.tar", members), "rb") as file:
        assert [member.name for member in list_members(file, "clips.tar")] == ["a.png", "b.png", "c.wav"]


@pytest.mark.parametrize("kept", [0, 100, 512, 700, 1024, 3000])
def test_a_shard_that_is_cut_off_is_refused(kept, tmp_path):
    path = make_tar(tmp_path / "cut.tar", samples(3))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"cut\.tar must be a whole.* tar file, but it"):
        read_dataset(path)


def test_no_cut_before_the_end_mark_goes_unseen(tmp_path):
    content = make_tar(tmp_path / "whole.tar", samples(3)).read_bytes()
    whole = list_members(io.BytesIO(content), "whole.tar")
    # Headers and contents of six members, and a first block of zeros.
    end = content.rstrip(b"\0")
    needed = (len(end) // 512 + 2) * 512
    for kept in range(0, needed, 128):
        with pytest.raises(DataError):
            list_members(io.BytesIO(content[:kept]), "cut.tar")
    assert list_members(io.BytesIO(content[:needed]), "cut.tar") == whole


def test_a_compressed_shard_is_refused(tmp_path):
    make_tar(tmp_path / "x.tar", samples(3))
    (tmp_path / "gz.tar").write_bytes(gzip.compress((tmp_path / "x.tar").read_bytes()))
    with pytest.raises(DataError, match=r"gz\.tar must be a whole, uncompressed tar file"):
        read_dataset(tmp_path / "gz.tar")


def change_index(out, **changes):
    index = json.loads((out / "effnet-shards.json").read_text())
    (out / "effnet-shards.json").write_text(json.dumps(index | changes))
    return index


@pytest.fixture
def shards(tmp_path):
    """New shards of five images that a test may damage."""
    make_tar(tmp_path / "raw" / "raw.tar", samples(20))
    write_shards(read_dataset(tmp_path / "raw"), tmp_path / "out", per_shard=5)
    return tmp_path / "out"


def test_labels_beyond_the_class_names_are_refused(shards):
    change_index(shards, class_names=["only"])
    with pytest.raises(DataError, match=r"\.png: the label must be in 0\.\.0, as effnet-shards\.json has 1 class"):
        read_dataset(shards)


def test_a_label_by_name_must_be_a_class_of_the_index(shards):
    change_index(shards, class_names=["cat", "dog"])
    make_tar(shards / "train-000000.tar", [("a.png", png()), ("a.cls", b"dogg")])
    with pytest.raises(DataError, match=r"a\.png: the label dogg is not a class of .*; did you mean 'dog'\?"):
        read_dataset(_without_sizes(shards))


def _without_sizes(out):
    index = json.loads((out / "effnet-shards.json").read_text())
    for row in index["shards"]:
        row.update(size_bytes=0, count=0, sha256="")
    (out / "effnet-shards.json").write_text(json.dumps(index))
    return out


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "must be an index written by `effnet data shard`"),
        ('{"format": 2}', "its format is 2, this effnet reads 1"),
        ("[]", "must be an index"),
        ('{"format": 1, "class_names": ["a", "a"], "shards": []}', "a class name occurs twice"),
        (
            '{"format": 1, "class_names": [], "shards": [{"file": "../x.tar", "split": "train", "count": 1, '
            '"size_bytes": 1, "sha256": ""}]}',
            "not a shard beside it",
        ),
    ],
)
def test_an_index_that_is_damaged_is_refused(text, message, shards):
    (shards / "effnet-shards.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_dataset(shards)


def test_a_shard_that_its_index_does_not_describe_is_refused(shards):
    index = change_index(shards)
    index["shards"][0]["count"] += 1
    change_index(shards, shards=index["shards"])
    with pytest.raises(DataError, match=r"train-000000\.tar must hold 6 images, as in its index; it holds 5"):
        read_dataset(shards)
    (shards / "train-000001.tar").unlink()
    with pytest.raises(DataError, match=r"every shard that .* lists must be beside it, but 1 of .* train-000001\.tar"):
        read_dataset(shards)


def test_some_shards_of_a_split_and_others_of_none_are_refused(tmp_path):
    make_tar(tmp_path / "train-0.tar", samples(4))
    make_tar(tmp_path / "more-0.tar", samples(4))
    with pytest.raises(DataError, match=r"either all shards or none must be named after a split .* more-0\.tar is not"):
        read_dataset(tmp_path)


def test_a_damaged_image_in_a_shard_is_named(tmp_path):
    make_tar(tmp_path / "x.tar", [*samples(20), ("bad.png", b"no image"), ("bad.cls", b"1")])
    dataset = read_dataset(tmp_path / "x.tar")
    report = inspect_dataset(dataset)
    assert [item.path for item in report.unreadable] == ["x.tar/bad.png"]
    assert report.unreadable[0].reason.startswith("it is not an image in a format")


def test_equal_images_in_shards_are_found(tmp_path):
    make_tar(tmp_path / "x.tar", [*samples(20), ("copy.png", png(3)), ("copy.cls", b"0")])
    report = inspect_dataset(read_dataset(tmp_path / "x.tar"))
    assert [set(found.paths) for found in report.across_labels] == [{"x.tar/00003.png", "x.tar/copy.png"}]


def test_a_shard_that_vanishes_ends_the_work_with_its_name(shards):
    dataset = read_dataset(shards, channels=3)
    (shards / "train-000001.tar").unlink()
    split = dataset.train
    lost = [i for i, source in enumerate(split.sources) if source.name.startswith("train-000001")]
    with pytest.raises(DataError, match=r"the shard .*train-000001\.tar must be readable, but it is not \(No"):
        load_image(split, lost[0], channels=3)


def test_a_shard_that_changes_is_noticed(shards):
    dataset = read_dataset(shards, channels=3)
    with open(shards / "train-000001.tar", "ab") as file:
        file.write(bytes(512))
    split = dataset.train
    lost = next(i for i, source in enumerate(split.sources) if source.name.startswith("train-000001"))
    with pytest.raises(DataError, match=r"train-000001\.tar must not change"):
        load_image(split, lost, channels=3)


def test_a_shard_that_vanishes_stops_training_instead_of_being_skipped(shards):
    from effnet.data.preprocess import Preprocess
    from effnet.training.input.batches import cached_loader, train_batches
    from effnet.training.recipe.schema import Recipe, Train

    preprocess = Preprocess(resolution=8, mean=(0.5,) * 3, std=(0.2,) * 3)
    dataset = read_dataset(shards, channels=3)
    recipe = Recipe(train=Train(batch_size=4))

    def epoch():
        load = cached_loader(dataset.train, preprocess)
        return list(train_batches(load, dataset.train.labels, recipe, preprocess, epoch=0))

    (shards / "train-000001.tar").unlink()
    with pytest.raises(DataError, match=r"train-000001\.tar must be readable"):
        epoch()


def test_many_threads_read_while_files_are_closed_under_them(sharded, monkeypatch):
    monkeypatch.setattr("effnet.data.shards.store._MOST_OPEN", 2)
    out, _ = sharded
    split = read_dataset(out).train
    alone = [source.read() for source in split.sources]
    order = np.random.default_rng(0).integers(0, len(split), 3000).tolist()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda i: split.sources[i].read(), order)) == [alone[i] for i in order]


def test_files_that_are_not_read_any_more_are_closed(sharded):
    out, _ = sharded

    def open_shards():
        paths = [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        return sum(os.readlink(path).endswith(".tar") for path in paths)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("/proc is absent")
    before = open_shards()
    dataset = read_dataset(out, channels=3)
    for index in range(len(dataset.train)):
        load_image(dataset.train, index, channels=3)
    assert open_shards() == before + 9
    del dataset
    assert open_shards() == before


def test_another_process_reads_the_same_image(sharded):
    out, _ = sharded
    source = read_dataset(out).train.sources[7]
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        assert pool.submit(source.read).result() == source.read()


_FORK = """
import hashlib, os, sys
from effnet.data.datasets import read_dataset
source = read_dataset(sys.argv[1], channels=3).train.sources[7]
before = source.read()
with source.store._lock:  # as if another thread held it at the moment of the fork
    child = os.fork()
    if not child:
        os._exit(0 if source.read() == before else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_reads_although_another_thread_held_the_lock(sharded, run_python):
    ran = run_python("-c", _FORK, sharded[0])
    assert (ran.code, ran.out.strip(), ran.err) == (0, "0", "")


def test_the_names_of_images_are_what_reports_show(sharded):
    out, _ = sharded
    dataset = read_dataset(out)
    names = [source_name(source, "") for name in SPLITS for source in getattr(dataset, name).sources]
    assert len(set(names)) == len(names)
    assert names[0].startswith("train-000000.tar/00000000-")


def test_shards_without_a_training_split_are_listed_for_an_evaluation(shards, tmp_path):
    only = tmp_path / "held out"
    only.mkdir()
    for name in ("val-000000.tar", "test-000000.tar"):
        shutil.copy(shards / name, only / name)
    listing = list_source(only)
    assert set(listing.parts) == {"val", "test"}
    with pytest.raises(DataError, match="train must hold images, but only test, val has any"):
        read_dataset(only)
