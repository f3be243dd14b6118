import io
import struct
import sys

import numpy as np
import pytest
from PIL import Image

from effnet.data.images.decode import decode_image, image_header
from effnet.data.images.heic import check_items, is_heic
from effnet.errors import ImageError

heif = pytest.importorskip("pillow_heif")
BLOCKS = np.kron(np.array([[0, 80], [160, 240]], np.uint8), np.ones((48, 32), np.uint8))
COLOURS = np.stack([BLOCKS, BLOCKS[::-1], 255 - BLOCKS], axis=-1)


def save(image: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    heif.from_pillow(Image.fromarray(image)).save(stream, chroma=444, quality=95, **options)
    return stream.getvalue()


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, kind) + body


def test_a_photograph_is_read_like_any_other() -> None:
    data = save(COLOURS)
    header = image_header(data)
    assert (header.format, header.width, header.height, header.channels) == ("HEIF", 64, 96, 3)
    assert np.abs(decode_image(data).astype(int) - COLOURS).mean() < 3
    assert np.abs(decode_image(save(BLOCKS), channels=1)[..., 0].astype(int) - BLOCKS).mean() < 3


def test_ten_bits_and_alpha_become_what_they_show() -> None:
    stream = io.BytesIO()
    deep = heif.from_bytes("RGB;16", (64, 96), (COLOURS.astype(np.uint16) * 257).tobytes())
    deep.save(stream, chroma=444, quality=95)
    assert image_header(stream.getvalue()).values == "uint8"  # the file declares the white value
    assert np.abs(decode_image(stream.getvalue()).astype(int) - COLOURS).mean() < 3
    clear = np.dstack([COLOURS, np.zeros_like(BLOCKS)])
    assert decode_image(save(clear)).min() == 255
    assert decode_image(save(clear), channels=4)[..., 3].max() == 0


@pytest.mark.parametrize("turns", range(4))
def test_it_is_turned_upright(turns: int) -> None:
    data = save(COLOURS)
    marked = Image.fromarray(COLOURS)
    exif = marked.getexif()
    exif[0x0112] = 6
    marked.info["exif"] = exif.tobytes()
    stream = io.BytesIO()
    heif.from_pillow(marked).save(stream, chroma=444, quality=95)
    file = bytearray(stream.getvalue())
    place = file.index(b"irot") + 4
    file[place] = 0
    straight = decode_image(bytes(file))
    file[place] = turns
    found = decode_image(bytes(file))
    assert found.shape[:2] == (image_header(bytes(file)).height, image_header(bytes(file)).width)
    assert np.abs(found.astype(int) - np.rot90(straight, turns)).mean() < 2
    assert image_header(data).height == 96


def test_without_the_package_it_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = save(COLOURS)
    for name in ("pillow_heif", "pillow_heif.as_plugin", "pi_heif", "pi_heif.as_plugin"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImageError, match=r'it is HEIC: .*pip install "effnet\[heic\]"'):
        decode_image(data)


def test_broken_files_end_in_one_line() -> None:
    data = save(COLOURS)
    rng = np.random.default_rng(0)
    cases = [data[:length] for length in range(13, len(data), 97)]
    for _ in range(60):
        file = bytearray(data)
        for place in rng.integers(12, len(data), 3):
            file[place] = rng.integers(0, 256)
        cases.append(bytes(file))
    lie = bytearray(save(np.zeros((512, 512, 3), np.uint8)))
    struct.pack_into(">II", lie, lie.index(b"ispe") + 8, 16, 16)  # its stream is larger than declared
    cases.append(bytes(lie))
    said = []
    for case in cases:
        try:
            decode_image(case)
        except ImageError as error:
            said.append(str(error))
    assert len(said) > 30
    assert not any("\n" in text for text in said)
    with pytest.raises(ImageError, match="Security limit"):
        decode_image(bytes(lie))


def test_a_header_of_too_many_pixels_is_refused_before_decoding() -> None:
    file = bytearray(save(COLOURS))
    struct.pack_into(">II", file, file.index(b"ispe") + 8, 30_000, 30_000)
    with pytest.raises(ImageError, match="must have at most 100,000,000 pixels"):
        decode_image(bytes(file))


def test_images_that_are_made_of_others_without_end_are_refused() -> None:
    sizes = box(b"ispe", struct.pack(">III", 0, 9000, 9000))
    links = box(b"ipma", struct.pack(">II", 0, 2) + b"".join(struct.pack(">HBB", item, 1, 1) for item in (1, 2)))
    properties = box(b"iprp", box(b"ipco", sizes) + links)

    def file(*made_of: tuple[int, list[int]]) -> bytes:
        entries = b"".join(
            box(b"dimg", struct.pack(f">HH{len(parts)}H", item, len(parts), *parts)) for item, parts in made_of
        )
        return box(b"meta", bytes(4) + properties + box(b"iref", bytes(4) + entries))

    check_items(file((1, [2])))
    with pytest.raises(ImageError, match="with far more pixels"):
        check_items(file((1, [2] * 100)))
    with pytest.raises(ImageError, match="with far more pixels"):  # whichever of the two the decoder reads
        check_items(file((1, [2])) + file((1, [2] * 100)))
    with pytest.raises(ImageError, match="nested more than 8 levels"):
        check_items(file((1, [2]), (2, [1])))


def test_avif_is_not_taken_for_it() -> None:
    def start(*brands: bytes) -> bytes:
        return box(b"ftyp", brands[0] + bytes(4) + b"".join(brands[1:])) + bytes(32)

    assert is_heic(start(b"heic", b"mif1"))
    assert is_heic(start(b"mif1", b"heic"))
    assert not is_heic(start(b"avif", b"mif1"))
    assert not is_heic(start(b"mif1", b"avif"))
    assert not is_heic(b"\xff\xd8\xff" + bytes(61))
