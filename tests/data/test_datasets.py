import importlib.util
from pathlib import Path

import numpy as np
import pytest

from effnet.data.datasets import Split, load_image, read_dataset
from effnet.data.sources.in_memory import list_digits
from effnet.errors import DataError, ImageError, MissingExtraError


def test_digits_are_the_real_ones() -> None:
    dataset = read_dataset("digits", seed=4)
    sizes = [len(s) for s in (dataset.train, dataset.val, dataset.test)]
    assert sum(sizes) == 1797
    assert sizes == [1259, 269, 269]
    assert dataset.class_names == tuple("0123456789")
    assert (dataset.channels, dataset.mirror_safe) == (1, False)
    image = load_image(dataset.train, 0, channels=1)
    assert (image.shape, image.dtype) == ((8, 8, 1), np.uint8)
    assert load_image(dataset.train, 0, channels=3).shape == (8, 8, 3)
    pixels = np.concatenate([np.asarray(s.sources) for s in (dataset.train, dataset.val, dataset.test)])
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert len(np.unique(pixels)) == 17
    assert dataset.train.labels.dtype == np.int64
    again = read_dataset("digits", seed=4)
    np.testing.assert_array_equal(again.test.labels, dataset.test.labels)


def test_digits_are_those_that_scikit_learn_loads() -> None:
    from sklearn.datasets import load_digits

    pixels, targets = load_digits(return_X_y=True)
    listed = list_digits().parts[""]
    np.testing.assert_array_equal(np.stack(listed.sources).reshape(-1, 64), np.rint(pixels * (255 / 16)))
    assert listed.labels == tuple(map(str, targets))


def test_digits_without_scikit_learn_say_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "effnet\[train\]"'):
        read_dataset("digits")


def test_a_folder_named_digits_is_noted(make_folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder({"a": 4, "b": 4}, root="digits")
    monkeypatch.chdir(tmp_path)
    assert any("write ./digits" in note for note in read_dataset("digits").notes)
    assert read_dataset("./digits").class_names == ("a", "b")


def test_sources_that_do_not_exist_are_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no digit; did you mean 'digits'"):
        read_dataset("digit")
    with pytest.raises(DataError, match=r"there is no .*nowhere"):
        read_dataset(tmp_path / "nowhere")
    (tmp_path / "photos.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"a manifest must end in .*unpack archives"):
        read_dataset(tmp_path / "photos.zip")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(DataError, match="there is no"):
        read_dataset(loop)


@pytest.mark.parametrize("options", [{"seed": -1}, {"seed": 0.5}, {"channels": 0}, {"seed": 2**32}, {"channels": 4097}])
def test_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(DataError, match=r"must lie in|whole number"):
        read_dataset("digits", **options)


def test_a_folder_that_cannot_be_read_is_an_error(make_folder, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder({"a": 2})

    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("effnet.data.sources.folder.os.scandir", refuse)
    with pytest.raises(DataError, match=r"must be readable.*Permission denied"):
        read_dataset(root)


def write_arrays(root: Path, channels: int, *, count: int = 4) -> Path:
    for label in ("a", "b"):
        (root / label).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            np.save(root / label / f"{channels}_{i}.npy", np.full((4, 5, channels), i, np.uint8))
    return root


def test_the_channels_of_npy_files_are_asked_for(tmp_path: Path) -> None:
    for channels in (1, 2, 3, 4, 7):
        dataset = read_dataset(write_arrays(tmp_path / str(channels), channels))
        assert dataset.channels == channels
        assert load_image(dataset.train, 0, channels=channels).shape == (4, 5, channels)
    write_arrays(tmp_path / "mixed", 5)
    with pytest.raises(DataError, match=r"same channels, but .npy files have \[2, 5\]"):
        read_dataset(write_arrays(tmp_path / "mixed", 2))


def test_load_image_of_an_array_checks_its_channels() -> None:
    split = Split(sources=np.zeros((1, 4, 4, 2), np.uint8), labels=np.zeros(1, np.int64))
    with pytest.raises(ImageError, match="must have 3 channels but has 2"):
        load_image(split, 0, channels=3)


def test_real_photographs_are_read(shared_data) -> None:
    dataset = read_dataset(shared_data("photos7"))
    assert len(dataset.class_names) == 7
    assert len(dataset.train) + len(dataset.val) + len(dataset.test) == 290
    assert load_image(dataset.test, 0, channels=3).shape == (256, 256, 3)
    dataset = read_dataset(shared_data("imagenette_mini"))
    assert [len(s) for s in (dataset.train, dataset.val, dataset.test)] == [510, 90, 300]
