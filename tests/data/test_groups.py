"""Identical files, groups by column and by pattern, and near-identical images: none is on two sides of a split."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from effnet.data.datasets import read_dataset
from effnet.data.groups import equal_files, with_groups
from effnet.data.inspection.alike import alike, look_at
from effnet.data.inspection.inspect import describe, inspect_and_join, inspect_dataset
from effnet.data.inspection.leaks import find_leaks, fingerprint_of
from effnet.data.sources.source import Group, Listing, Part
from effnet.data.split import HELD_OUT, stratified_split
from effnet.errors import DataError

SPLITS = ("train", "val", "test")


def sides(dataset) -> dict[str, str]:
    return {Path(source).name: split for split in SPLITS for source in getattr(dataset, split).sources}


def photo(seed: int, side: int = 96) -> Image.Image:
    """Return smooth shapes with a little noise, like a photograph; another seed gives another image."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    pixels = np.asarray(coarse, np.float32) + rng.normal(0, 4, (side, side, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("seed", range(4))
def test_copies_of_one_file_in_many_classes_are_on_one_side(make_folder, seed) -> None:
    root = make_folder(dict.fromkeys("abcdefgh", 12))
    copied = root / "a" / "000.png"
    for name in "bcdefgh":
        shutil.copy(copied, root / name / "copy.png")
    dataset = read_dataset(root, seed=seed)
    copies = {copied.read_bytes()}
    where = [
        split for split in SPLITS for source in getattr(dataset, split).sources if Path(source).read_bytes() in copies
    ]
    assert len(where) == 8
    assert len(set(where)) == 1
    assert not find_leaks(dataset).names
    assert (
        "8 images have files identical to others, in 1 group; a generated split keeps each group on one side."
        in dataset.notes
    )
    assert sum(len(getattr(dataset, split)) for split in SPLITS) == 103


def test_only_files_of_one_size_are_opened(make_folder, monkeypatch) -> None:
    root = make_folder({"a": 3})
    for number, path in enumerate(sorted((root / "a").iterdir())):
        path.write_bytes(bytes(100 + number))
    listing = Listing(
        name="x", parts={"": Part(sources=tuple(map(str, sorted((root / "a").iterdir()))), labels=("a",) * 3)}
    )
    with monkeypatch.context() as patch:
        patch.setattr("effnet.data.groups.open_regular", lambda path: pytest.fail(f"opened {path}"))
        assert equal_files(listing.parts.values()) == []
    large = [bytes(9000), bytes(8999) + b"x", bytes(9000), b"x" + bytes(8999)]
    paths = []
    for number, data in enumerate(large):
        paths.append(str(root / f"{number}.npy"))
        Path(paths[-1]).write_bytes(data)
    found = equal_files([Part(sources=tuple(paths), labels=("a",) * 4)])
    assert found == [Group(kind="identical", names=(paths[0], paths[2]))]


def old_split(labels, *, seed, names):
    """Return the split of the code before groups were added."""
    import zlib

    groups: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        groups.setdefault(label, []).append(index)
    chosen = {name: [] for name in ("train", *names)}
    for label, indices in groups.items():
        key = zlib.crc32(label.encode("utf-8", "surrogatepass"))
        shuffled = np.random.default_rng((seed, key)).permutation(indices).tolist()
        share = max(1, int(HELD_OUT * len(indices) + 0.5))
        for name in reversed(names):
            taken = min(share, len(shuffled) - 1)
            chosen[name].extend(shuffled[:taken])
            shuffled = shuffled[taken:]
        chosen["train"].extend(shuffled)
    return {name: sorted(indices) for name, indices in chosen.items()}


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.sampled_from(["a", "b", "c", "é"]), min_size=1, max_size=90),
    seed=st.integers(0, 2**40),
    names=st.sampled_from([("val",), ("val", "test")]),
)
def test_without_groups_the_split_is_what_it_always_was(labels, seed, names) -> None:
    found = stratified_split(labels, seed=seed, names=names)
    assert {name: indices.tolist() for name, indices in found.items()} == old_split(labels, seed=seed, names=names)
    alone = stratified_split(labels, seed=seed, names=names, groups={i: i for i in range(len(labels))})
    assert {name: indices.tolist() for name, indices in alone.items()} == old_split(labels, seed=seed, names=names)


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 25)), min_size=1, max_size=90),
    seed=st.integers(0, 99),
    names=st.sampled_from([("val",), ("val", "test")]),
)
def test_no_group_is_on_two_sides(rows, seed, names) -> None:
    labels, numbers = [label for label, _ in rows], dict(enumerate(number for _, number in rows))
    split = stratified_split(labels, seed=seed, names=names, groups=numbers)
    assert sorted(np.concatenate(list(split.values())).tolist()) == list(range(len(labels)))
    where: dict[int, set[str]] = {}
    for name, indices in split.items():
        for index in indices:
            where.setdefault(numbers[index], set()).add(name)
    assert all(len(names) == 1 for names in where.values())
    assert {labels[i] for i in split["train"]} == set(labels)


def test_groups_are_held_out_near_the_share(make_folder) -> None:
    labels = ["a"] * 200 + ["b"] * 200
    split = stratified_split(labels, seed=0, names=("val", "test"), groups={i: i // 8 for i in range(400)})
    for name in ("val", "test"):
        assert len(split[name]) == pytest.approx(60, abs=8)
    assert (
        len(stratified_split(["a"] * 20, seed=0, names=("test",), groups={i: i // 10 for i in range(20)})["test"]) == 10
    )


def test_a_groups_column_keeps_patients_whole(make_folder) -> None:
    root = make_folder({"ill": 24, "well": 24})
    rows = [
        {"path": f"{name}/{i:03d}.png", "label": name, "group": f"patient {i // 6}{name}"}
        for name in ("ill", "well")
        for i in range(24)
    ]
    path = root / "m.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    for seed in range(5):
        dataset = read_dataset(path, seed=seed)
        found = {split: {group_of(source) for source in getattr(dataset, split).sources} for split in SPLITS}
        assert all(found.values())
        assert not found["train"] & found["test"]
        assert not (found["train"] | found["test"]) & found["val"]


def group_of(source: str) -> tuple[str, int]:
    return Path(source).parent.name, int(Path(source).stem) // 6


def test_a_pattern_of_the_path_groups(make_folder) -> None:
    root = make_folder({f"{name}/{name}-clip{i}": 4 for name in "ab" for i in range(8)})
    dataset = read_dataset(root, group_by=r"[ab]-clip(\d)", seed=1)
    clips = {split: {Path(s).parent.name[-1] for s in getattr(dataset, split).sources} for split in SPLITS}
    assert not clips["train"] & (clips["val"] | clips["test"])
    assert not clips["val"] & clips["test"]
    with pytest.raises(DataError, match=r"group_by must be a regular expression; got '\('"):
        read_dataset(root, group_by="(")
    with pytest.raises(DataError, match=r"'patient' matches none of 64; the first path is 'a/a-clip0/000.png'"):
        read_dataset(root, group_by="patient")


def test_a_class_of_one_group_cannot_be_measured_and_is_named(make_folder) -> None:
    root = make_folder({"a": 8, "b": 8, "c/night": 8})
    dataset = read_dataset(root, group_by="night")
    assert 2 not in dataset.test.labels
    assert any("have no test images" in note and note.endswith(" measured: c.") for note in dataset.notes)


def test_all_images_in_one_group_cannot_be_held_out(make_folder) -> None:
    root = make_folder({"a": 8, "b": 8})
    with pytest.raises(DataError, match=r"16 images \(1 without copies and groups\) in 2 classes"):
        read_dataset(root, group_by=r"\.png")


@pytest.fixture
def recoded(tmp_path: Path) -> Path:
    """Two classes of 20 images, 8 of which also exist in another size or quality under another name."""
    root = tmp_path / "photos"
    for number, name in enumerate(("a", "b")):
        (root / name).mkdir(parents=True)
        for i in range(20):
            image = photo(100 * number + i)
            image.save(root / name / f"{name}{i}.png")
            if i < 2:
                image.save(root / name / f"{name}{i}-quality.jpg", quality=50)
            elif i < 4:
                image.resize((64, 64), Image.Resampling.LANCZOS).save(root / name / f"{name}{i}-small.png")
    return root


def test_near_identical_images_are_on_one_side(recoded) -> None:
    before = [read_dataset(recoded, seed=seed) for seed in range(4)]
    parted = 0
    for dataset in before:
        joined, report = inspect_and_join(dataset)
        where = sides(joined)
        for name in "ab":
            for i, suffix in enumerate(("quality.jpg", "quality.jpg", "small.png", "small.png")):
                assert where[f"{name}{i}-{suffix}"] == where[f"{name}{i}.png"]
        assert not report.across_splits
        assert not report.leaks.names
        assert sum(count.test for count in report.classes) == len(joined.test) == 8
        parted += sides(dataset) != where
        again, _ = inspect_and_join(dataset)
        assert sides(again) == where
    assert parted
    report = next(r for d in before if (r := inspect_dataset(d)).across_splits)
    assert any(
        "nearly identical (another size or encoding) are in more than one split" in line for line in describe(report)
    )


def test_other_images_are_not_alike() -> None:
    looks = [look_at(np.asarray(photo(seed))) for seed in range(300)]
    assert alike(looks) == []
    assert look_at(np.zeros((64, 64, 3), np.uint8)) is None
    assert look_at(np.asarray(photo(0))[:31]) is None
    assert alike([looks[0], looks[1], look_at(np.asarray(photo(0).convert("L"))[..., None]), looks[0]]) in (
        [[0, 2, 3]],
        [[0, 3]],
    )


def test_many_images_of_one_hash_are_compared_in_bounded_time() -> None:
    one = look_at(np.asarray(photo(0)))
    from dataclasses import replace

    rng = np.random.default_rng(0)
    looks = [replace(one, copy=rng.integers(0, 256, 768, dtype=np.uint8)) for _ in range(400)]
    assert alike([*looks, *looks[:3]]) == [[0, 400], [1, 401], [2, 402]]


@pytest.mark.parametrize("name", ["photos7", "imagenette_mini"])
def test_real_photographs_are_no_copies(shared_data, name) -> None:
    paths = sorted(p for p in shared_data(name).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    looks = []
    for path in paths[::2]:
        with Image.open(path) as image:
            image.draft("RGB", (128, 128))
            looks.append(look_at(np.asarray(image.convert("RGB"))))
    assert alike([look for look in looks if look]) == []


def test_a_given_split_that_leaks_is_told(make_folder) -> None:
    root = make_folder({"train/a": 10, "train/b": 10, "val/a": 4, "val/b": 4, "test/a": 5, "test/b": 5})
    shutil.copy(root / "train/a/003.png", root / "test/a/003.png")
    shutil.copy(root / "val/b/001.png", root / "test/b/004.png")
    dataset, report = inspect_and_join(read_dataset(root))
    assert [Path(name).name for name in find_leaks(dataset).names] == ["003.png", "004.png"]
    assert (
        "2 of the 10 test images leak: 2 are identical or nearly identical to images in train or val, so the accuracy "
        "on the whole test split is too high." in describe(report)
    )
    dataset, report = inspect_and_join(read_dataset(root, group_by=r"00[04]\.png"))
    assert report.leaks.copies == 2
    assert len(report.leaks.names) == 5
    assert "3 belong to the same group as images in train or val" in report.leaks.sentence


def test_the_fingerprint_is_that_of_the_data_wherever_they_lie(make_folder, tmp_path) -> None:
    root = make_folder({"a": 8, "b": 8})
    moved = shutil.copytree(root, tmp_path / "moved")
    first, second = (fingerprint_of(read_dataset(path, seed=seed).listed) for path, seed in ((root, 0), (moved, 7)))
    assert first == second
    (moved / "a" / "more.png").write_bytes((root / "a" / "000.png").read_bytes())
    assert fingerprint_of(with_groups(read_dataset(moved).listed)) != first
