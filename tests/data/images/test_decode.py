import io
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnet.data.images import opening
from effnet.data.images.decode import IMAGE_SUFFIXES, decode_image, fit_channels, image_header
from effnet.data.images.limits import MAX_PIXELS
from effnet.errors import ImageError

PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3
QUADRANTS = np.kron(np.array([[0, 80], [160, 240]], np.uint8), np.ones((16, 24), np.uint8))


def save(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_a_png_is_read_exactly_from_path_pathlike_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a b\nc é.png"
    path.write_bytes(save(Image.fromarray(PIXELS), "PNG"))
    for source in (path, str(path), path.read_bytes()):
        found = decode_image(source)
        np.testing.assert_array_equal(found, PIXELS)
        assert found.dtype == np.uint8
        assert found.flags.writeable
        assert found.flags.c_contiguous


def test_grey_is_the_luma_of_pillow() -> None:
    found = decode_image(save(Image.fromarray(PIXELS), "PNG"), channels=1)
    expected = np.rint(PIXELS @ np.array([0.299, 0.587, 0.114]))
    assert found.shape == (4, 6, 1)
    assert np.abs(found[..., 0] - expected).max() <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_image_upright(kind: str, orientation: int) -> None:
    # Source: EXIF 2.32, tag 0x0112: the transformation of the stored pixels for display.
    shown = {
        1: QUADRANTS,
        2: np.fliplr(QUADRANTS),
        3: np.rot90(QUADRANTS, 2),
        4: np.flipud(QUADRANTS),
        5: QUADRANTS.T,
        6: np.rot90(QUADRANTS, -1),
        7: np.rot90(QUADRANTS, 2).T,
        8: np.rot90(QUADRANTS),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = save(Image.fromarray(QUADRANTS).convert("RGB"), kind, exif=exif)
    found = decode_image(data, channels=1)[..., 0]
    assert found.shape == shown.shape
    assert np.abs(found.astype(int) - shown).mean() < 4
    header = image_header(data)
    assert (header.height, header.width) == shown.shape


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_exif_block_does_not_hide_the_image() -> None:
    data = save(Image.fromarray(PIXELS), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff garbage")
    assert decode_image(data).shape == (4, 6, 3)
    assert image_header(data).width == 6


def test_palettes_with_and_without_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.putdata([0, 1])
    plain = decode_image(save(image, "PNG"))
    np.testing.assert_array_equal(plain, [[[10, 20, 30], [200, 100, 0]]])
    for data in (save(image, "PNG", transparency=1), save(image, "GIF", transparency=1)):
        np.testing.assert_array_equal(decode_image(data), [[[10, 20, 30], [255, 255, 255]]])
        assert decode_image(data, channels=4)[0, :, 3].tolist() == [255, 0]
        assert image_header(data).channels == 4
    half = save(image, "PNG", transparency=bytes([255, 128]))
    expected = np.rint(np.array([200, 100, 0]) * 128 / 255 + 255 * 127 / 255)
    np.testing.assert_allclose(decode_image(half)[0, 1], expected, atol=1)


def test_alpha_is_composited_over_white_or_kept() -> None:
    rgba = np.array([[[100, 50, 0, 255], [100, 50, 0, 0], [100, 50, 0, 51]]], np.uint8)
    data = save(Image.fromarray(rgba), "PNG")
    expected = [[100, 50, 0], [255, 255, 255], [224, 214, 204]]
    np.testing.assert_allclose(decode_image(data)[0], expected, atol=1)
    np.testing.assert_array_equal(decode_image(data, channels=4), rgba)
    grey = save(Image.fromarray(np.array([[[40, 255], [40, 0]]], np.uint8), "LA"), "PNG")
    assert decode_image(grey, channels=1).tolist() == [[[40], [255]]]
    assert decode_image(grey)[0].tolist() == [[40, 40, 40], [255, 255, 255]]
    assert image_header(grey).channels == 2
    opaque = decode_image(save(Image.fromarray(PIXELS), "PNG"), channels=4)
    assert (opaque[..., 3] == 255).all()


def test_a_transparent_colour_key_counts_as_alpha() -> None:
    data = save(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    assert decode_image(data).tolist() == [[[255, 255, 255]]]


def test_cmyk_becomes_the_colours_of_pillow() -> None:
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    found = decode_image(save(cmyk, "JPEG", quality=95))
    assert np.abs(found.astype(int) - [255, 0, 0]).max() <= 4
    assert decode_image(save(cmyk, "TIFF"), channels=1)[0, 0, 0] == 76
    header = image_header(save(cmyk, "JPEG"))
    assert (header.mode, header.channels) == ("CMYK", 4)


def test_sixteen_bits_become_eight_by_a_shift(png_bytes) -> None:
    values = np.array([[0, 255, 256, 4255, 32768, 65535]], np.uint16)
    expected = (values >> 8).astype(np.uint8)
    for data in (png_bytes(values[..., None]), save(Image.fromarray(values), "TIFF")):
        np.testing.assert_array_equal(decode_image(data, channels=1)[..., 0], expected)
        np.testing.assert_array_equal(decode_image(data)[..., 2], expected)
        assert decode_image(data, channels=4)[0, 0].tolist() == [0, 0, 0, 255]
    color = np.stack([values, values[:, ::-1], values], axis=-1)
    np.testing.assert_array_equal(decode_image(png_bytes(color)), (color >> 8).astype(np.uint8))
    big_endian = Image.frombytes("I;16B", (6, 1), values.astype(">u2").tobytes())
    np.testing.assert_array_equal(decode_image(save(big_endian, "TIFF"), channels=1)[..., 0], expected)


def test_one_bit_and_32_bit_modes() -> None:
    bits = Image.fromarray(np.array([[True, False]]))
    assert decode_image(save(bits, "PNG"))[0].tolist() == [[255] * 3, [0] * 3]

    def grey(values: list[float], dtype: str) -> list[int]:
        data = save(Image.fromarray(np.array([values], dtype)), "TIFF")
        return decode_image(data, channels=1)[0, :, 0].tolist()

    assert grey([0, 0.5, 1.004], "float32") == [0, 127, 255]
    assert grey([float("nan"), 1, -0.004], "float32") == [0, 255, 0]
    with pytest.raises(ImageError, match=r"real numbers must lie in 0\.\.1 if no value range is known, .* 200\.4"):
        grey([0, 200.4], "float32")
    with pytest.raises(ImageError, match="int32 values need a value range"):
        grey([0, 128, 255], "int32")


def test_the_first_frame_of_an_animation_is_read() -> None:
    frames = [Image.new("RGB", (5, 3), color) for color in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = save(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert decode_image(data)[0, 0].tolist() == [255, 0, 0], kind


def test_npy_holds_any_number_of_channels(tmp_path: Path) -> None:
    for channels in (1, 2, 4, 5):
        values = np.random.default_rng(channels).integers(0, 65536, (3, 4, channels), dtype=np.uint16)
        path = tmp_path / f"{channels}.npy"
        np.save(path, values)
        np.testing.assert_array_equal(decode_image(path, channels=channels), values >> 8)
        assert image_header(path).channels == channels
    flat = tmp_path / "flat.npy"
    np.save(flat, np.asfortranarray(PIXELS[..., 0]))
    np.testing.assert_array_equal(decode_image(flat), np.repeat(PIXELS[..., :1], 3, axis=2))
    np.save(flat, PIXELS)
    expected = decode_image(save(Image.fromarray(PIXELS), "PNG"), channels=1)
    np.testing.assert_array_equal(decode_image(flat, channels=1), expected)
    with pytest.raises(ImageError, match="must have 5 channels but has 3"):
        decode_image(flat, channels=5)


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((2, 2), np.complex64),
        np.zeros(4, np.uint8),
        np.zeros((0, 2), np.uint8),
        np.array([[object()]], dtype=object),
    ],
    ids=["complex", "one axis", "empty", "pickle"],
)
def test_npy_of_other_content_is_refused(tmp_path: Path, values: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(ImageError, match=r"a\.npy: .npy must hold integers or real numbers"):
        decode_image(tmp_path / "a.npy")


def test_a_image_cannot_have_five_channels() -> None:
    with pytest.raises(ImageError, match=r"must have 5 channels but is a PNG image with 3; store 5 .* \.npy"):
        decode_image(save(Image.fromarray(PIXELS), "PNG"), channels=5)
    with pytest.raises(ImageError, match="at least 1"):
        decode_image(b"x", channels=0)
    assert fit_channels(PIXELS, 3) is PIXELS


def test_damaged_files_are_named_with_a_reason(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    jpeg, png = save(Image.fromarray(noise), "JPEG"), save(Image.fromarray(noise), "PNG")
    np.save(tmp_path / "whole.npy", noise)
    npy = (tmp_path / "whole.npy").read_bytes()
    cases = {
        "empty.jpg": (b"", "empty"),
        "text.jpg": (b"not an image at all", "not an image"),
        "cut.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "cut.png": (png[: len(png) // 2], "cannot be decoded"),
        "cut.npy": (npy[: len(npy) // 2], "cannot be decoded"),
        "head.npy": (npy[:20], "cannot be decoded"),
        "script.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    }
    for name, (data, reason) in cases.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(ImageError, match=f"{name}: .*{reason}"):
            decode_image(path)


def test_paths_that_are_no_files_are_refused(tmp_path: Path) -> None:
    loop = tmp_path / "loop.jpg"
    loop.symlink_to(loop)
    os.mkfifo(tmp_path / "pipe.jpg")
    for path, reason in (
        (loop, "symbolic links"),
        (tmp_path / "none.jpg", "no such file"),
        (tmp_path, "not a regular file"),
        (tmp_path / "pipe.jpg", "not a regular file"),
        (str(tmp_path / "a\0b.jpg"), "null"),
    ):
        with pytest.raises(ImageError, match=reason):
            decode_image(path)
        with pytest.raises(ImageError, match=reason):
            image_header(path)


@pytest.mark.parametrize("size", [(10_001, 10_000), (20_000, 10_000), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb_is_refused_from_its_header(png_bytes, size: tuple[int, int]) -> None:
    data = png_bytes(PIXELS, size=size)
    for read in (decode_image, image_header):
        with pytest.raises(ImageError, match="make it smaller"):
            read(data)


def test_the_limit_is_ours_and_not_the_lower_one_of_pillow(png_bytes) -> None:
    data = png_bytes(PIXELS, size=(10_000, 10_000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert image_header(data).width == 10_000
    assert MAX_PIXELS == Image.MAX_IMAGE_PIXELS == 100_000_000


def test_a_stricter_limit_of_the_user_stays() -> None:
    code = (
        "from PIL import Image; Image.MAX_IMAGE_PIXELS = 5\n"
        "import effnet.data.images.decode\nassert Image.MAX_IMAGE_PIXELS == 5"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_npy_bomb_is_refused_from_its_header() -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (9999, 9999, 9)})
    with pytest.raises(ImageError, match="may hold at most"):
        decode_image(stream.getvalue(), channels=9)


def test_a_wrong_suffix_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(save(Image.fromarray(PIXELS), "PNG"))
    np.testing.assert_array_equal(decode_image(path), PIXELS)
    assert image_header(path).format == "PNG"


def test_suffixes_are_lower_case_and_hold_npy() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp", ".npy"} <= IMAGE_SUFFIXES
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in IMAGE_SUFFIXES)
    assert set(opening.formats()) <= set(opening.FORMAT_SUFFIXES)


def test_importing_neither_torch_nor_scikit_learn() -> None:
    code = (
        "import sys, effnet.data.preprocess, effnet.data.datasets, effnet.data.inspection.inspect\n"
        "assert not {'torch', 'sklearn', 'scipy'} & set(sys.modules), 'too much is imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
