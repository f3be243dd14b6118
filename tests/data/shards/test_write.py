"""Writing shards: the same bytes each time, all or nothing."""

import hashlib
import json
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from effnet.data.datasets import load_image, read_dataset
from effnet.data.shards.write import write_shards
from effnet.errors import DataError

SPLITS = ("train", "val", "test")


def everything(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_images_give_the_same_bytes(make_folder, tmp_path):
    folder = make_folder({"cat": 12, "dog": 12})
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        write_shards(read_dataset(folder), tmp_path / name, per_shard=4, seed=seed)
    one, two, three = (everything(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two
    assert one != three
    assert one.keys() == three.keys()


def test_the_index_tells_size_and_hash_of_every_shard(make_folder, tmp_path):
    write_shards(read_dataset(make_folder({"cat": 12, "dog": 12})), tmp_path / "out", per_shard=4)
    index = json.loads((tmp_path / "out" / "effnet-shards.json").read_text())
    assert {row["file"] for row in index["shards"]} | {"effnet-shards.json"} == set(everything(tmp_path / "out"))
    for row in index["shards"]:
        data = (tmp_path / "out" / row["file"]).read_bytes()
        assert (row["size_bytes"], row["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        with tarfile.open(tmp_path / "out" / row["file"]) as archive:
            assert sum(name.endswith(".png") for name in archive.getnames()) == row["count"] <= 4


def test_a_shard_keeps_its_size(make_folder, tmp_path):
    dataset = read_dataset(make_folder({"cat": 40, "dog": 40}))
    written = write_shards(dataset, tmp_path / "out", shard_mb=0.03)
    # tarfile pads the file to whole records at the end.
    assert max(shard.size_bytes for shard in written.shards) <= 0.03e6 + 2 * 512 + tarfile.RECORDSIZE
    train = [shard.count for shard in written.shards if shard.split == "train"]
    assert len(train) > 2
    assert sum(train) == len(dataset.train)
    one = write_shards(dataset, tmp_path / "one", shard_mb=1e-6)
    assert {shard.count for shard in one.shards} == {1}


def test_progress_counts_every_image(make_folder, tmp_path):
    calls = []
    dataset = read_dataset(make_folder({"cat": 12, "dog": 12}))
    write_shards(dataset, tmp_path / "out", progress=lambda done, total: calls.append((done, total)))
    assert calls == [(number, 24) for number in range(1, 25)]


def test_the_digits_come_back_pixel_by_pixel(tmp_path):
    before = read_dataset("digits")
    write_shards(before, tmp_path / "out")
    after = read_dataset(tmp_path / "out")
    assert (after.class_names, after.channels, after.mirror_safe) == (before.class_names, 1, False)
    for name in SPLITS:
        one, other = getattr(before, name), getattr(after, name)
        images = sorted((one.sources[i].tobytes(), int(one.labels[i])) for i in range(len(one)))
        stored = sorted((load_image(other, i, channels=1).tobytes(), int(other.labels[i])) for i in range(len(other)))
        assert stored == images


def test_images_of_many_channels_are_kept(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("wet", "dry"):
        (tmp_path / "bands" / name).mkdir(parents=True)
        for i in range(8):
            np.save(tmp_path / "bands" / name / f"{i}.npy", rng.integers(0, 256, (6, 7, 5), dtype=np.uint8))
    before = read_dataset(tmp_path / "bands")
    write_shards(before, tmp_path / "out")
    after = read_dataset(tmp_path / "out")
    assert after.channels == before.channels == 5
    assert {load_image(after.train, i, channels=5).tobytes() for i in range(len(after.train))} == {
        load_image(before.train, i, channels=5).tobytes() for i in range(len(before.train))
    }


def test_a_file_with_another_suffix_gets_that_of_its_format(make_folder, tmp_path):
    folder = make_folder({"cat": 8, "dog": 8})
    Image.new("RGB", (6, 6), "red").save(folder / "cat" / "odd.jpg", "WEBP", lossless=True)
    write_shards(read_dataset(folder), tmp_path / "out")
    after = read_dataset(tmp_path / "out")
    names = [source.name for name in SPLITS for source in getattr(after, name).sources]
    assert [name.rpartition("-")[2] for name in names if "odd" in name] == ["odd.webp"]


def test_files_that_are_no_images_are_skipped_or_refused(make_folder, tmp_path):
    folder = make_folder({"cat": 12, "dog": 12})
    (folder / "cat" / "bad.png").write_bytes(b"no image")
    dataset = read_dataset(folder)
    (folder / "cat" / "003.png").unlink()
    written = write_shards(dataset, tmp_path / "out")
    reasons = {os.path.basename(item.path): item.reason for item in written.skipped}
    assert reasons == {
        "bad.png": "it is not an image in a format that effnet reads, or its header is damaged",
        "003.png": "no such file or directory",
    }
    assert sum(shard.count for shard in written.shards) == 23
    with pytest.raises(DataError, match=r"strict needs every file to be usable, but 2 cannot be used"):
        write_shards(dataset, tmp_path / "strict", strict=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]


@pytest.mark.parametrize(
    "limits, message",
    [
        ({"shard_mb": 1.0, "per_shard": 5}, "give --shard-mb or --per-shard, not both"),
        ({"shard_mb": 0}, "the size of a shard must be positive, received 0 MB"),
        ({"shard_mb": float("nan")}, "the size of a shard must be positive, received nan MB"),
        ({"per_shard": 0}, "a shard must hold at least 1 image, received 0"),
    ],
)
def test_limits_out_of_range_are_refused(limits, message, make_folder, tmp_path):
    with pytest.raises(DataError, match=message):
        write_shards(read_dataset(make_folder({"cat": 8, "dog": 8})), tmp_path / "out", **limits)


def test_a_folder_in_use_is_refused_and_an_empty_one_taken(make_folder, tmp_path):
    dataset = read_dataset(make_folder({"cat": 8, "dog": 8}))
    (tmp_path / "out").mkdir()
    write_shards(dataset, tmp_path / "out")
    before = everything(tmp_path / "out")
    with pytest.raises(DataError, match=r"OUT must be new or empty, but .*out is not; name another"):
        write_shards(dataset, tmp_path / "out")
    with pytest.raises(DataError, match=r"OUT must be new or empty"):
        write_shards(dataset, tmp_path / "out" / "effnet-shards.json")
    with pytest.raises(DataError, match=r"OUT must be a writable folder, .* \(Not a directory\)"):
        write_shards(dataset, tmp_path / "out" / "effnet-shards.json" / "below")
    assert everything(tmp_path / "out") == before


_SMALL_DISK = """
import resource, signal, sys
from effnet.data.datasets import read_dataset
from effnet.data.shards.write import write_shards
from effnet.errors import DataError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
dataset = read_dataset(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    write_shards(dataset, sys.argv[2], per_shard=1000)
except DataError as error:
    print(error)
"""


def test_a_disk_that_takes_no_more_leaves_nothing_behind(make_folder, tmp_path, run_python):
    folder = make_folder({"cat": 40, "dog": 40})
    ran = run_python("-c", _SMALL_DISK, folder, tmp_path / "out")
    assert ran.err == ""
    assert ran.out.startswith("OUT must be a writable folder, but ")
    assert ran.out.endswith("(File too large); no incomplete files were left\n")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_an_interruption_leaves_nothing_behind(make_folder, tmp_path):
    def stop(done, total):
        if done == 10:
            raise KeyboardInterrupt

    dataset = read_dataset(make_folder({"cat": 12, "dog": 12}))
    with pytest.raises(KeyboardInterrupt):
        write_shards(dataset, tmp_path / "out", per_shard=2, progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_shards_of_shards_are_the_same_images(make_folder, tmp_path):
    write_shards(read_dataset(make_folder({"cat": 12, "dog": 12})), tmp_path / "one", per_shard=4)
    one = read_dataset(tmp_path / "one")
    write_shards(one, tmp_path / "two", per_shard=7)
    two = read_dataset(tmp_path / "two")
    for name in SPLITS:
        before, after = getattr(one, name), getattr(two, name)
        assert sorted(source.read() for source in before.sources) == sorted(source.read() for source in after.sources)
