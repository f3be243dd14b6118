from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiffs import pages, tiff_of_bands

from effnet.data.inspection.channels import choose_channels
from effnet.errors import DataError

BANDS = np.random.default_rng(0).integers(0, 4000, (8, 9, 5)).astype(np.uint16)


def chosen(*files: bytes) -> tuple[int, str]:
    return choose_channels(list(map(Stored, files)), seed=0)


class Stored:
    """A file in memory, as a data set stores it."""

    def __init__(self, data: bytes) -> None:
        self.data, self.name, self.block = data, "image.tif", 0

    def read(self) -> bytes:
        return self.data


def test_bands_are_channels_and_so_are_pages_if_all_files_have_as_many() -> None:
    assert chosen(*[tiff_of_bands(BANDS)] * 3) == (
        5, "The input has 5 channels: all of the 3 sampled images are .tiff with that many."
    )  # fmt: skip
    number, note = chosen(*[pages(BANDS)] * 3)
    assert number == 5
    assert "TIFF files of 5 grey pages; channels=1 reads the first page only" in note


def test_of_other_numbers_of_pages_the_first_is_read_and_it_is_said(tmp_path: Path) -> None:
    number, note = chosen(pages(BANDS), pages(BANDS[..., :3]), pages(BANDS[..., :1]))
    assert number == 1
    assert note.endswith("are grey. Of 2 TIFF files with several pages, the first page is read.")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    number, note = chosen(pages(BANDS), (tmp_path / "a.png").read_bytes())
    assert (number, "the first page is read" in note) == (3, True)


def test_bands_beside_others_need_an_answer() -> None:
    with pytest.raises(DataError, match=r"but \.tiff files have \[5\] and others differ; set channels=N"):
        chosen(tiff_of_bands(BANDS), pages(BANDS[..., :1]))
    with pytest.raises(DataError, match=r"\.tiff files have \[4, 5\]"):
        chosen(tiff_of_bands(BANDS), tiff_of_bands(BANDS[..., :4]))
