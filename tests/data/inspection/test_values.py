from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnet.data.datasets import load_image, read_dataset
from effnet.data.inspection.inspect import describe, inspect_and_join, inspect_dataset
from effnet.data.inspection.values import suited_range, with_values
from effnet.data.view.value_range import ValueRange
from effnet.errors import DataError


def folder(root: Path, *groups: np.ndarray, suffix: str = ".tif") -> Path:
    """Write eight images of two classes for each kind of values in 0..1, given as [8, 12, 12]."""
    for number, images in enumerate(groups):
        for i, image in enumerate(images):
            path = root / ("dark" if i % 2 else "light") / f"{number}-{i}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, image) if suffix == ".npy" else Image.fromarray(image).save(path)
    return root


def shades(low: float, high: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    values = rng.uniform(low, high, (8, 12, 12))
    values[:, 0, 0], values[:, 0, 1] = low, high
    values[1::2] = low + (values[1::2] - low) / 3
    return values


def found_range(root: Path) -> tuple[float, float]:
    found = with_values(read_dataset(root))[0].value_range
    assert found is not None
    return found.low, found.high


@pytest.mark.parametrize("top, high", [(200, 255), (1000, 1023), (4095, 4095), (10_000, 16_383), (60_000, 65_535)])
def test_whole_numbers_have_a_bit_depth(tmp_path: Path, top: int, high: int) -> None:
    assert found_range(folder(tmp_path, shades(0, top).astype(np.uint16), suffix=".png")) == (0, high)


@pytest.mark.parametrize("low, top, expected", [
    (0, 1.0, (0, 1)), (0, 1.004, (0, 1)), (-1, 0.98, (-1, 1)), (0, 254.6, (0, 255)), (0, 65_000.0, (0, 65535)),
])  # fmt: skip
def test_real_numbers_have_a_common_range(tmp_path: Path, low: float, top: float, expected: tuple[int, int]) -> None:
    assert found_range(folder(tmp_path, shades(low, top).astype(np.float32))) == expected


@pytest.mark.parametrize("dtype, suffix", [("int32", ".tif"), ("int16", ".npy"), ("float64", ".npy")])
def test_hounsfield_units_have_what_nearly_all_of_them_are(tmp_path: Path, dtype: str, suffix: str) -> None:
    values = shades(-1024, 1500)
    values[0, 5, 5] = 30_000  # metal
    low, high = found_range(folder(tmp_path, values.astype(dtype), suffix=suffix))
    assert -1024 <= low < -900
    assert 1300 < high < 2500


def test_neighbours_of_a_little_more_than_one_stay_alike(tmp_path: Path) -> None:
    one = shades(0, 1).astype(np.float32)
    other = one.copy()
    other[1::2, 0, 1] = 1.004
    dataset, report = inspect_and_join(read_dataset(folder(tmp_path, one, other)))
    means = {
        Path(str(source)).name: load_image(split, i, channels=1, value_range=dataset.value_range).mean()
        for split in (dataset.train, dataset.val, dataset.test)
        for i, source in enumerate(split.sources)
    }
    for i in range(8):
        assert abs(means[f"0-{i}.tif"] - means[f"1-{i}.tif"]) < 3
    assert report.values is not None
    assert "from 0..1 are mapped to 0..255" in "\n".join(describe(report))


def test_eight_bit_images_beside_deep_ones_are_told_and_left_alone(tmp_path: Path) -> None:
    values = shades(0, 4095)
    root = folder(tmp_path, values.astype(np.uint16), (values / 16).astype(np.uint8), suffix=".png")
    dataset, report = inspect_and_join(read_dataset(root))
    text = "\n".join(describe(report))
    assert "8-bit images are unchanged" in text
    assert dataset.value_range == ValueRange(low=0, high=4095)
    whole = inspect_dataset(read_dataset(folder(tmp_path / "eight", (values / 16).astype(np.uint8), suffix=".png")))
    assert whole.values is None


def test_whole_and_real_numbers_together_need_an_answer(tmp_path: Path) -> None:
    values = shades(0, 1)
    root = folder(tmp_path, (4095 * values).astype(np.int32), values.astype(np.float32))
    with pytest.raises(DataError, match=r"these hold both \(.* float32.*--set fit.value_range=LOW,HIGH"):
        inspect_dataset(read_dataset(root))
    report = inspect_dataset(read_dataset(root), value_range=(0, 4095))
    assert "as set by value_range" in "\n".join(describe(report))


def test_a_few_far_values_are_told(tmp_path: Path) -> None:
    values = shades(100, 900)
    values[:, 3, 3] = 65_535
    images = np.kron(values, np.ones((4, 4))).astype(np.uint16)
    images[:, 12:16, 12:15] = images[:, 12:15, 12:16] = 100
    text = "\n".join(describe(inspect_dataset(read_dataset(folder(tmp_path, images, suffix=".png")))))
    assert "WARNING: 99.8 % of the values lie in 100..9" in text


def bands(root: Path, scales: tuple[float, ...], *, order: str = "C") -> Path:
    """Write .npy files of bands that go up to these values."""
    rng = np.random.default_rng(0)
    for i in range(12):
        path = root / ("dark" if i % 2 else "light") / f"{i}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.asarray(rng.uniform(0, scales, (16, 16, len(scales))).astype(np.uint16), order=order))
    return root


@pytest.mark.parametrize("order", ["C", "F"])
def test_bands_of_other_units_have_a_range_each(tmp_path: Path, order: str) -> None:
    scales = (9000.0, 40.0, 3000.0, 600.0)
    dataset, report = inspect_and_join(read_dataset(bands(tmp_path, scales, order=order)))
    found = dataset.value_range
    assert found is not None
    assert report.values is not None
    assert found.channels == dataset.channels == 4
    for channel, scale in enumerate(scales):
        low, high = found.of(channel).ends
        assert 0 <= low < 0.02 * scale
        assert 0.95 * scale < high <= scale
    image = load_image(dataset.train, 0, channels=4, value_range=found)
    assert image.reshape(-1, 4).std(axis=0).min() > 60
    assert "9000 (by channel)" not in report.values.sentences[0]
    assert (
        "(by channel) are mapped to 0..255, all but one in a thousand of each channel's" in report.values.sentences[0]
    )


def test_bands_of_one_unit_and_colours_keep_one_range(tmp_path: Path) -> None:
    assert found_range(bands(tmp_path / "alike", (4000.0, 3000.0, 2000.0, 1000.0))) == (0, 4095)
    assert found_range(bands(tmp_path / "rgb", (4000.0, 3000.0, 10.0))) == (0, 4095)


def test_images_of_nothing_have_a_range_all_the_same() -> None:
    for real in (False, True):
        found, _ = suited_range(np.full(9, -5.0), (-5.0, -5.0), real=real)
        assert found.low < found.high


def test_which_images_are_looked_at_and_what_is_found_is_always_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder(tmp_path, shades(-1000, 3000).astype(np.int32))
    monkeypatch.setattr("effnet.data.inspection.values._SAMPLE", 3)
    monkeypatch.setattr("effnet.data.inspection.values._KEPT", 50)
    found = [with_values(read_dataset(root)) for _ in range(2)]
    assert found[0][1] == found[1][1]
    assert sum(count for _, count in found[0][1].kinds) == 3
