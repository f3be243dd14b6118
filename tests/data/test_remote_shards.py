"""Shards from a real server: downloaded once, resumed, checked, and within the disk limit."""

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from file_server import serving
from PIL import Image

from effnet.data.datasets import load_image, read_dataset
from effnet.data.order import epoch_order
from effnet.data.preprocess import Preprocess
from effnet.data.shards.write import write_shards
from effnet.errors import DataError
from effnet.jobs.fit.resume import fingerprint
from effnet.training.input.batches import cached_loader, train_batches
from effnet.training.recipe.schema import Recipe, Train

SPLITS = ("train", "val", "test")
SIZE = 20_480


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve shards of noise, ten of train, 20 kB each, with their index."""
    root, rng = tmp_path_factory.mktemp("remote"), np.random.default_rng(0)
    for number in range(2):
        (root / "images" / "ab"[number]).mkdir(parents=True)
        for i in range(36):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / "ab"[number] / f"{i:02d}.png")
    write_shards(read_dataset(root / "images", channels=3), root / "shards", per_shard=5)
    return root / "shards"


@pytest.fixture
def served(folder, tmp_path, monkeypatch):
    """A server with the shards below data/, and an empty cache."""
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with serving() as server:
        server.files = {f"data/{path.name}": path.read_bytes() for path in folder.iterdir()}
        yield server


def on_disk(cache):
    total = 0
    for path in cache.rglob("*.tar"):
        with contextlib.suppress(FileNotFoundError):  # a thread that reads ahead may remove files meanwhile
            total += path.stat().st_size
    return total


def images(dataset):
    return [[source.read() for source in getattr(dataset, name).sources] for name in SPLITS]


def test_a_url_gives_what_the_folder_gives(folder, served):
    local, remote = read_dataset(folder), read_dataset(f"{served.url}/data")
    assert images(remote) == images(local)
    assert (remote.class_names, remote.name) == (local.class_names, "data")
    assert all(count == 1 for name, count in Counter(served.asked).items())
    np.testing.assert_array_equal(remote.train.labels, local.train.labels)


@pytest.mark.parametrize("tail", ["data/", "data/effnet-shards.json", "data/{train,val,test}-{000000..000001}.tar"])
def test_urls_may_be_written_in_several_ways(tail, served):
    dataset = read_dataset(f"{served.url}/{tail}")
    assert dataset.class_names == ("a", "b")
    assert "used as given" in dataset.notes[0]


def test_a_second_look_downloads_nothing_but_the_index(served):
    progress = []
    first = read_dataset(f"{served.url}/data", progress=lambda done, total: progress.append((done, total)))
    total = len(list(served.files)) - 1
    assert progress == [(number, total) for number in range(1, total + 1)]
    served.asked.clear()
    assert images(read_dataset(f"{served.url}/data")) == images(first)
    assert served.asked == ["data/effnet-shards.json"]


def test_what_is_in_the_cache_needs_no_network(served, monkeypatch):
    first = images(read_dataset(f"{served.url}/data"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    served.asked.clear()
    assert images(read_dataset(f"{served.url}/data")) == first
    assert served.asked == []
    with pytest.raises(DataError, match=r"other\.tar is not downloaded yet, and HF_HUB_OFFLINE forbids the network"):
        read_dataset(f"{served.url}/data/other.tar")


def test_a_dropped_connection_is_taken_up_again(served, folder):
    served.files = {name: data for name, data in served.files.items() if "index" not in name}
    path = folder / "train-000000.tar"
    served.files = {"x.tar": path.read_bytes()}
    served.drop_after = [3000, 4000]
    dataset = read_dataset(f"{served.url}/x.tar")
    assert sum(len(getattr(dataset, name)) for name in SPLITS) == 5
    assert served.asked.count("x.tar") == 3


def test_a_shard_that_is_not_there_is_one_line(served):
    with pytest.raises(
        DataError, match=r"nowhere\.tar must be a shard, but the server returned 404 Not Found"
    ) as raised:
        read_dataset(f"{served.url}/data/nowhere.tar")
    assert "\n" not in str(raised.value)
    with pytest.raises(DataError, match=r"a URL must end in \.tar or name a folder with effnet-shards\.json"):
        read_dataset(f"{served.url}/empty")


def test_nobody_at_the_other_end_is_one_line(served):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DataError, match=r"effnet-shards\.json cannot be downloaded \(.*\); check the URL and the netw"):
        read_dataset(f"http://127.0.0.1:{port}/data/x.tar")


@pytest.mark.parametrize("change", ["bytes", "length"])
def test_another_shard_than_the_listed_one_is_refused(change, served, tmp_path):
    name = "data/train-000003.tar"
    old = served.files[name]
    served.files[name] = old[:600] + b"?" + old[601:] if change == "bytes" else old + bytes(512)
    expected = (
        "must be the shard .*: expected sha256:[0-9a-f]{64}, received"
        if change == "bytes"
        else ("cannot be used .*: it must have 20,480 bytes, but the server announces 20,992")
    )
    with pytest.raises(DataError, match=rf"train-000003\.tar {expected}"):
        read_dataset(f"{served.url}/data")
    assert not list((tmp_path / "cache").rglob("train-000003.tar*[!k]"))
    served.files[name] = old
    read_dataset(f"{served.url}/data")


def test_a_shard_without_an_index_is_the_same_when_it_is_fetched_again(served, folder, tmp_path):
    served.files = {f"x{i}.tar": (folder / f"train-00000{i}.tar").read_bytes() for i in range(2)}
    dataset = read_dataset(f"{served.url}/x{{0,1}}.tar", channels=3)
    for path in (tmp_path / "cache").rglob("*.tar"):
        path.unlink()
    served.files["x1.tar"] = served.files["x0.tar"]
    split = dataset.train
    for index, source in enumerate(split.sources):
        if source.name.startswith("x0"):
            load_image(split, index, channels=3)
        else:
            with pytest.raises(DataError, match=r"x1\.tar must be the shard that was listed: expected sha256:"):
                load_image(split, index, channels=3)


@pytest.fixture
def narrow(served, monkeypatch):
    """The served data with cache space for five shards."""
    monkeypatch.setenv("EFFNET_SHARD_CACHE_GB", str(5 * SIZE / 1e9))
    return served


def test_few_shards_are_on_the_disk_while_an_epoch_is_trained(narrow, tmp_path, folder):
    cache = tmp_path / "cache"
    dataset = read_dataset(f"{narrow.url}/data")
    assert dataset.train.blocks.mixed == 3
    assert any("each epoch mixes 3 shards at a time" in note for note in dataset.notes)
    assert on_disk(cache) <= 5 * SIZE
    preprocess, recipe = Preprocess(resolution=16, mean=(0.5,) * 3, std=(0.2,) * 3), Recipe(train=Train(batch_size=4))
    load = cached_loader(dataset.train, preprocess, limit=0)
    labels, blocks = dataset.train.labels, dataset.train.blocks

    def epoch(start=0, workers=1):
        used = []
        for batch in train_batches(
            load, labels, recipe, preprocess, epoch=1, start=start, blocks=blocks, workers=workers
        ):
            # A walk that meets a removal and its successor counts both.
            used.append(min(on_disk(cache) for _ in range(3)))
            yield batch
        assert max(used) <= 5 * SIZE

    narrow.asked.clear()
    whole = list(epoch())
    # No shard is downloaded twice in an epoch; the last ones from the listing may still be cached.
    assert max(Counter(narrow.asked).values()) == 1
    assert len(narrow.asked) >= 5
    # A resumed run continues with the same batches, however many threads prepare them.
    for start, workers in ((5, 1), (9, 2)):
        for (images, classes), (others, same) in zip(whole[start:], epoch(start, workers), strict=True):
            np.testing.assert_array_equal(images, others)
            np.testing.assert_array_equal(classes, same)


def test_the_order_and_with_it_the_fingerprint_depend_on_the_room(served, monkeypatch):
    wide = read_dataset(f"{served.url}/data")
    monkeypatch.setenv("EFFNET_SHARD_CACHE_GB", str(5 * SIZE / 1e9))
    narrow, again = (read_dataset(f"{served.url}/data") for _ in range(2))
    assert fingerprint(narrow) == fingerprint(again) != fingerprint(wide)
    assert wide.train.blocks is None
    total = len(wide.train)
    by_room = [epoch_order(total, seed=0, epoch=0, blocks=found.train.blocks) for found in (wide, narrow)]
    assert (by_room[0] != by_room[1]).any()


@pytest.mark.parametrize("text", ["much", "0", "-1", "inf", "nan"])
def test_a_limit_that_is_no_number_is_refused(text, served, monkeypatch):
    monkeypatch.setenv("EFFNET_SHARD_CACHE_GB", text)
    with pytest.raises(DataError, match=f"EFFNET_SHARD_CACHE_GB must be a positive number, .* received '{text}'"):
        read_dataset(f"{served.url}/data")


_READ = """
import hashlib, sys
from effnet.data.datasets import read_dataset
dataset = read_dataset(sys.argv[1], channels=3)
digest = hashlib.sha256()
for split in (dataset.train, dataset.val, dataset.test):
    for source in split.sources:
        digest.update(source.read())
print(digest.hexdigest())
"""


def test_several_processes_download_each_shard_once(served):
    command = [sys.executable, "-c", _READ, f"{served.url}/data"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    found = {process.communicate(timeout=300)[0] for process in processes}
    assert len(found) == 1
    assert len(found.pop().strip()) == 64
    assert all(count == 1 for name, count in Counter(served.asked).items() if name.endswith(".tar"))


def test_threads_that_crowd_each_other_out_of_the_cache_all_read_right(served, folder, monkeypatch):
    monkeypatch.setenv("EFFNET_SHARD_CACHE_GB", str(2 * SIZE / 1e9))
    wanted = images(read_dataset(folder))[0]
    split = read_dataset(f"{served.url}/data").train
    wrong = []

    def read(seed):
        for index in np.random.default_rng(seed).integers(0, len(split), 60).tolist():
            if split.sources[index].read() != wanted[index]:
                wrong.append(index)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_without_permission_is_named(served, tmp_path):
    (tmp_path / "cache").mkdir(mode=0o555)
    with pytest.raises(DataError, match=r"cannot be kept in .* \(Permission denied\); set EFFNET_CACHE to another"):
        read_dataset(f"{served.url}/data")


def test_a_cache_that_is_a_file_is_named(served, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    with pytest.raises(DataError, match=r"cannot be kept in .* \(Not a directory\); set EFFNET_CACHE to another"):
        read_dataset(f"{served.url}/data")


def test_a_full_disk_is_said_and_the_whole_shards_stay(served, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    read_dataset(f"{served.url}/data/train-000000.tar")
    monkeypatch.setattr("effnet.data.shards.store.os.replace", full)
    with pytest.raises(DataError, match=r"cannot be kept in .* \(No space left on device\); set EFFNET_CACHE"):
        read_dataset(f"{served.url}/data/train-000001.tar")
    assert [path.name for path in (tmp_path / "cache").rglob("*.tar")] == ["train-000000.tar"]


def test_the_kept_list_of_a_shard_is_made_anew_where_it_is_damaged(served, tmp_path):
    first = images(read_dataset(f"{served.url}/data"))
    lists = [path for path in (tmp_path / "cache").rglob("*.json") if path.name != "effnet-shards.json"]
    assert len(lists) == len(served.files) - 1
    lists[0].write_text("{")
    lists[1].write_text(json.dumps({"format": 0}))
    assert images(read_dataset(f"{served.url}/data")) == first


def test_names_in_urls_may_be_quoted_and_followed_by_a_question(served, folder):
    served.files["a%20b.tar"] = (folder / "train-000000.tar").read_bytes()
    dataset = read_dataset(f"{served.url}/a%20b.tar?token=1")
    assert dataset.train.sources[0].name.startswith("a b.tar/")
    with tarfile.open(fileobj=io.BytesIO(served.files["a%20b.tar"])) as archive:
        assert {Path(name).suffix for name in archive.getnames()} == {".png", ".cls"}
