"""DICOM files against what pydicom's own functions make of them, and files that are wrong."""

import io
import os
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from dicoms import dicom

from effnet.data.datasets import read_dataset
from effnet.data.images.decode import Decoding, decode_image, image_header, stored_values
from effnet.data.inspection.inspect import describe, inspect_and_join
from effnet.data.view.value_range import ValueRange
from effnet.errors import DataError, ImageError, MissingExtraError

pydicom = pytest.importorskip("pydicom")

CT = np.random.default_rng(0).integers(0, 4096, (9, 7)).astype(np.uint16)
HOUNSFIELD = {"RescaleSlope": 1, "RescaleIntercept": -1024}


def values_of(data: bytes, *, channels: int = 1) -> np.ndarray:
    return np.concatenate(list(stored_values(data, Decoding(channels=channels))))


def by_pydicom(data: bytes) -> np.ndarray:
    file = pydicom.dcmread(io.BytesIO(data))
    return np.asarray(pydicom.pixels.apply_modality_lut(file.pixel_array, file))


@pytest.mark.parametrize(
    "syntax", ["ExplicitVRLittleEndian", "ImplicitVRLittleEndian", "DeflatedExplicitVRLittleEndian", "RLELossless"]
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_values_are_those_of_pydicom(syntax: str, dtype: str) -> None:
    stored = (CT.astype(int) - 2048 * (dtype == "int16")).astype(dtype)
    for tags in ({}, HOUNSFIELD, {"RescaleSlope": "0.25", "RescaleIntercept": "3"}):
        data = dicom(stored, syntax=syntax, **tags)
        kind = image_header(data).values
        assert kind == ("float32" if tags else dtype)
        if kind != "uint8":
            np.testing.assert_array_equal(values_of(data)[..., 0], by_pydicom(data).astype(kind))
        else:
            np.testing.assert_array_equal(decode_image(data, channels=1)[..., 0], stored)


def test_twelve_of_sixteen_bits_lose_what_lies_above_and_keep_their_sign() -> None:
    overlay = CT | np.uint16(0x8000)
    tags = {"BitsStored": 12, "HighBit": 11}
    np.testing.assert_array_equal(values_of(dicom(overlay, **tags))[..., 0], CT)
    signed = np.where(CT < 2048, CT.astype(int), CT.astype(int) - 4096)
    np.testing.assert_array_equal(values_of(dicom(CT, PixelRepresentation=1, **tags))[..., 0], signed)
    shifted = CT << np.uint16(4)
    np.testing.assert_array_equal(values_of(dicom(shifted, BitsStored=12, HighBit=15))[..., 0], CT)


def test_the_files_window_is_that_of_the_standard() -> None:
    data = dicom(CT, WindowCenter=[-600, 40], WindowWidth=[1500, 400], **HOUNSFIELD)
    file = pydicom.dcmread(io.BytesIO(data))
    shown = pydicom.pixels.apply_windowing(by_pydicom(data), file)
    expected = (shown + 1024) / 65535 * 255
    own = ValueRange(low=0.0, high=1.0, window=True)
    np.testing.assert_allclose(decode_image(data, channels=1, value_range=own)[..., 0], expected, atol=0.51)
    assert image_header(data).window == (-1350.0, 149.0)
    exact = dicom(CT, WindowCenter=-600, WindowWidth=1500, VOILUTFunction="LINEAR_EXACT", **HOUNSFIELD)
    assert image_header(exact).window == (-1350.0, 150.0)
    given = ValueRange(low=-160.0, high=240.0)  # 40 +- 400 / 2
    expected = np.clip((CT.astype(float) - 1024 + 160) / 400, 0, 1) * 255
    np.testing.assert_allclose(decode_image(data, channels=1, value_range=given)[..., 0], expected, atol=0.51)
    without = dicom(CT, **HOUNSFIELD)
    assert image_header(without).window is None
    fallback = ValueRange(low=-160.0, high=240.0, window=True)
    np.testing.assert_array_equal(
        decode_image(without, channels=1, value_range=fallback), decode_image(data, channels=1, value_range=given)
    )


def test_where_small_values_are_white_they_are_inverted_with_their_window() -> None:
    tags = {"BitsStored": 12, "HighBit": 11, "WindowCenter": 1000, "WindowWidth": 801}
    plain, inverse = dicom(CT, **tags), dicom(CT, PhotometricInterpretation="MONOCHROME1", **tags)
    np.testing.assert_array_equal(values_of(inverse), 4095 - values_of(plain))
    own = ValueRange(low=0.0, high=1.0, window=True)
    both = [decode_image(data, channels=1, value_range=own).astype(int) for data in (plain, inverse)]
    assert np.abs(both[0] + both[1] - 255).max() <= 1
    rescaled = dicom(CT, PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11, **HOUNSFIELD)
    np.testing.assert_array_equal(values_of(rescaled)[..., 0], 4095.0 - CT - 1024)
    eight = dicom(CT.astype(np.uint8), PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(decode_image(eight, channels=1)[..., 0], 255 - CT.astype(np.uint8))


def test_colours_and_frames() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (6, 5, 3)).astype(np.uint8)
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}
    np.testing.assert_array_equal(decode_image(dicom(rgb, **tags)), rgb)
    planar = dicom(np.ascontiguousarray(rgb.transpose(2, 0, 1)).reshape(6, 5, 3), PlanarConfiguration=1, **tags)
    np.testing.assert_array_equal(decode_image(planar), rgb)
    ybr = np.asarray(pydicom.pixels.convert_color_space(rgb, "RGB", "YBR_FULL"))
    found = decode_image(dicom(ybr, **tags | {"PhotometricInterpretation": "YBR_FULL"}))
    assert np.abs(found.astype(int) - rgb).max() <= 2
    frames = np.stack([CT, CT // 2, CT // 4])
    header = image_header(dicom(frames))
    assert (header.channels, header.exact) == (3, True)
    np.testing.assert_array_equal(values_of(dicom(frames), channels=3), frames.transpose(1, 2, 0))
    with pytest.raises(ImageError, match="it has 3 frames, and 1 channels are requested"):
        decode_image(dicom(frames), channels=1)


def test_a_lossless_photograph_is_read_by_pydicoms_plugin() -> None:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(CT.astype(np.uint8)).save(stream, "JPEG2000", no_jp2=True)
    data = dicom(CT.astype(np.uint8))
    file = pydicom.dcmread(io.BytesIO(data))
    file.PixelData = pydicom.encaps.encapsulate([stream.getvalue()])
    file.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    out = io.BytesIO()
    file.save_as(out)
    np.testing.assert_array_equal(decode_image(out.getvalue(), channels=1)[..., 0], CT.astype(np.uint8))


def with_syntax(syntax: str) -> bytes:
    """Return a file whose pixels are said to be compressed like this."""
    file = pydicom.dcmread(io.BytesIO(dicom(CT)))
    file.PixelData = pydicom.encaps.encapsulate([CT.tobytes()])
    file["PixelData"].VR = "OB"
    file.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    out = io.BytesIO()
    pydicom.dcmwrite(out, file, implicit_vr=False, little_endian=True, force_encoding=True)
    return out.getvalue()


def deflated_bomb() -> bytes:
    """Return a deflated file of 130 KB that inflates to 128 MB."""
    data = dicom(CT, syntax="DeflatedExplicitVRLittleEndian")
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    zeros = b"".join([packer.compress(bytes(2**24)) for _ in range(8)] + [packer.flush()])
    return data[: 144 + int.from_bytes(data[140:144], "little")] + zeros


@pytest.mark.parametrize("data, words", [
    (dicom(CT)[:-30], "its pixels must take 126 bytes; there are|damaged"),
    (dicom(CT)[:400], "damaged|without an image|truncated"),
    (dicom(CT, Rows=90), "its pixels must take 1,260 bytes; there are 126: the file is truncated"),
    (dicom(CT, BitsStored=17), "BitsAllocated 16, BitsStored 17"),
    (dicom(CT, BitsAllocated=12), "must have 8, 16 or 32 bits"),
    (dicom(CT, HighBit=3), "HighBit 3"),
    (dicom(CT, Rows=0), "must have pixels"),
    (dicom(CT, Rows=65535, Columns=65535), "must have at most 100,000,000 pixels"),
    (dicom(CT, Rows=9000, Columns=9000, NumberOfFrames=500), "decoding it must take at most"),
    (dicom(CT, PhotometricInterpretation="PALETTE COLOR"), "they are 'PALETTE COLOR' with 1 samples"),
    (dicom(CT, media="MediaStorageDirectoryStorage"), "it is a DICOMDIR, a list of files without an image"),
    (dicom(CT, Rows=None), "a DICOM file without an image"),
    (dicom(CT, RescaleSlope="1e400"), "RescaleSlope must be a number|inf"),
    (with_syntax("1.2.840.113619.5.2"), "its transfer syntax '1.2.840.113619.5.2' is a private compression"),
    (with_syntax("1.2.840.10008.1.2.4.80"), "JPEG-LS Lossless.*install .*pyjpegls"),
    (with_syntax("1.2.840.10008.1.2.4.90"), "its pixels cannot be decompressed"),
])  # fmt: skip
def test_files_that_are_wrong_end_in_one_line(data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words) as raised:
        decode_image(data, channels=1)
    assert "\n" not in str(raised.value)


def test_a_file_that_inflates_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("effnet.data.images.dicom.MAX_WHOLE_FILE", 2**24)
    with pytest.raises(ImageError, match="at most 33,554,432 bytes once inflated; it has more"):
        decode_image(deflated_bomb(), channels=1)


def test_damaged_files_are_read_or_refused() -> None:
    said: list[str] = []
    rng = np.random.default_rng(0)
    whole = dicom(CT, WindowCenter=40, WindowWidth=400, **HOUNSFIELD)
    for _ in range(150):
        data = bytearray(whole[: int(rng.integers(140, len(whole) + 1))])
        for place in rng.integers(132, len(data), 3):
            data[place] = rng.integers(0, 256)
        try:
            decode_image(bytes(data), channels=1, value_range=ValueRange(low=-1000.0, high=1000.0, window=True))
        except ImageError as error:
            said.append(str(error))
    assert len(said) > 10
    assert not any("\n" in text for text in said)


def study(root: Path, *, patients: int, suffix: str = "", **tags: object) -> Path:
    """Write four files of each patient, whose class is the patient's, under names such as 1.2.17."""
    rng = np.random.default_rng(0)
    for number in range(4 * patients):
        patient = number // 4
        path = root / f"kind {patient % 2}" / f"1.2.{number}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        stored = rng.integers(0, 4096, (8, 8)).astype(np.uint16)
        path.write_bytes(dicom(stored, PatientID=f"P{patient}", **tags))
    return root


def test_files_without_a_suffix_are_found_and_patients_stay_on_one_side(tmp_path: Path) -> None:
    root = study(tmp_path / "study", patients=12)
    (root / "kind 0" / "DICOMDIR").write_bytes((root / "kind 0" / "1.2.0").read_bytes())
    (root / "kind 0" / "notes").write_text("no image")
    dataset = read_dataset(root)
    sides = [{int(os.path.basename(path).split(".")[2]) // 4 for path in split.sources}
             for split in (dataset.train, dataset.val, dataset.test)]  # fmt: skip
    assert len(dataset.train) + len(dataset.val) + len(dataset.test) == 48
    assert not sides[0] & sides[1]
    assert not (sides[0] | sides[1]) & sides[2]
    (note,) = (note for note in dataset.notes if "PatientID" in note)
    assert note.startswith("48 images share a PatientID with others (12 patients), in 12 groups")
    _, report = inspect_and_join(dataset)
    assert not report.wrong_suffixes
    # A pattern of the user's replaces the tag.
    assert not any("PatientID" in note for note in read_dataset(root, group_by=r"1\.2\.(\d+)").notes)


def test_of_too_few_patients_it_is_said_that_they_are_not_separated(tmp_path: Path) -> None:
    dataset = read_dataset(study(tmp_path / "study", patients=2, suffix=".dcm"))
    assert any("have 2 PatientIDs, so a split does not separate patients" in note for note in dataset.notes)
    assert len(dataset.test) > 0


def test_window_is_each_files_own_and_the_median_for_others(tmp_path: Path) -> None:
    root = study(tmp_path / "study", patients=8, suffix=".dcm", WindowCenter=40, WindowWidth=400, **HOUNSFIELD)
    dataset, report = inspect_and_join(read_dataset(root), value_range="window")
    assert dataset.value_range == ValueRange(low=-160.0, high=239.0, window=True)
    assert ValueRange.from_dict(dataset.value_range.to_dict()) == dataset.value_range
    assert "each file's own window" in "\n".join(describe(report))
    plain = study(tmp_path / "plain", patients=8, suffix=".dcm", **HOUNSFIELD)
    with pytest.raises(DataError, match="value_range window needs files with a window"):
        inspect_and_join(read_dataset(plain), value_range="window")


def test_without_the_package_it_is_named_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, root = dicom(CT), study(tmp_path / "study", patients=3)
    for name in [name for name in sys.modules if name.partition(".")[0] == "pydicom"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImageError, match=r'it is DICOM: .*pip install "effnet\[medical\]"'):
        decode_image(data, channels=1)
    with pytest.raises(MissingExtraError, match=r'pip install "effnet\[medical\]"'):
        read_dataset(root)
