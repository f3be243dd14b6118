import numpy as np
import pytest
from PIL import Image, ImageDraw

from effnet.data.annotated.holds import look_into
from effnet.data.annotated.index import list_files
from effnet.data.annotated.masks.codes import IGNORE, MaskCode, colour_of, discover_code, read_codes
from effnet.data.annotated.masks.read import count_pixels, draw_mask, mask_sentences, read_mask
from effnet.data.annotated.masks.shapes import Polygons
from effnet.data.annotated.record import Annotated
from effnet.data.images.decode import image_header
from effnet.errors import DataError

CODE = MaskCode(kind="index", class_names=("sky", "tree", "car"), codes=(0, 1, 2), ignored=(255,))
COLOURS = MaskCode(kind="colour", class_names=("red", "blue"), codes=(0xFF0000, 0x0000FF), ignored=(0x9B9B9B,))


@pytest.fixture
def image(write_image):
    return image_header(str(write_image("image.png", (40, 30))))


@pytest.fixture
def save(tmp_path):
    def write(values, name="mask.png", *, palette=None, **options):
        made = Image.fromarray(values) if not isinstance(values, Image.Image) else values
        if palette:
            made.putpalette(palette)
        made.save(tmp_path / name, **options)
        return str(tmp_path / name)

    return write


def stripes():
    """Return a mask, uint8 [30, 40], of three vertical stripes with a border to be ignored."""
    values = np.repeat(np.array([0, 1, 2], np.uint8), (10, 10, 20))[None].repeat(30, 0)
    values[0] = 255
    return values


def test_numbers_are_read_from_grey_palette_and_16_bit_files(image, save):
    values = stripes()
    palette = list(np.random.default_rng(0).integers(0, 256, 768))
    files = [
        save(values, "grey.png"),
        save(values, "palette.png", palette=palette),
        save(values.astype(np.uint16), "deep.png"),
        save(np.repeat(values[..., None], 3, 2), "rgb.png"),
        save(np.dstack((values, values, values, np.full_like(values, 9))), "rgba.png"),
        save(values, "a.tif"),
    ]
    for path in files:
        mask = read_mask(path, CODE, image=image)
        assert (mask.classes == values).all(), path
        assert mask.snapped == mask.unknown == 0
    counts = count_pixels([values, values], num_classes=3)
    assert counts.tolist() == [2 * 29 * 10, 2 * 29 * 10, 2 * 29 * 20, 2 * 40]
    with pytest.raises(DataError, match="must be below 2, or 255"):
        count_pixels([values], num_classes=2)


def test_colours_are_read_from_rgb_and_palette_files(image, save):
    colours = np.zeros((30, 40, 3), np.uint8)
    colours[:, :15], colours[:, 15:], colours[:3] = (255, 0, 0), (0, 0, 255), (0x9B,) * 3
    expected = np.where(np.arange(40) < 15, 0, 1)[None].repeat(30, 0)
    expected[:3] = IGNORE
    alpha = np.dstack((colours, np.zeros((30, 40), np.uint8)))
    for path in (
        save(colours, "rgb.png"),
        save(alpha, "transparent.png"),
        save(Image.fromarray(colours).quantize(8), "palette.png"),
    ):
        assert (read_mask(path, COLOURS, image=image).classes == expected).all(), path
    with pytest.raises(DataError, match="must be grey or have a palette; it has colours"):
        read_mask(save(colours), CODE, image=image)


def ellipse(size=(200, 150)):
    """Return an antialiased drawing of a blue ellipse on red, and the same without antialiasing."""
    large = Image.new("RGB", (size[0] * 4, size[1] * 4), "red")
    ImageDraw.Draw(large).ellipse((80, 80, size[0] * 4 - 90, size[1] * 4 - 100), fill="blue")
    sharp = np.asarray(large.resize(size, Image.Resampling.NEAREST))
    return large.resize(size, Image.Resampling.LANCZOS), sharp[..., 2] > 0


@pytest.mark.parametrize("suffix, options", [("png", {}), ("jpg", {"quality": 90, "subsampling": 0})])
def test_antialiased_edges_are_snapped_and_reported(save, write_image, suffix, options):
    drawn, expected = ellipse()
    header = image_header(str(write_image("image.png", drawn.size)))
    mask = read_mask(save(drawn, f"mask.{suffix}", **options), COLOURS, image=header)
    assert mask.snapped > 100
    assert np.isin(mask.classes, (0, 1)).all()
    assert (mask.classes != expected).mean() < 0.02
    (sentence,) = mask_sentences({"a.png": mask})
    assert sentence.startswith(f"1 mask has {mask.snapped:,} pixels between two classes, as antialiased edges")


def test_grey_edges_of_a_binary_mask_are_snapped_but_numbers_between_classes_are_not(image, save):
    values = np.zeros((30, 40), np.uint8)
    values[:, 20:], values[:, 19] = 255, 128
    binary = MaskCode(kind="index", class_names=("no", "yes"), codes=(0, 255))
    mask = read_mask(save(values), binary, image=image)
    assert mask.snapped == 30
    assert (mask.classes[:, 19] == 1).all()  # 128 is nearer to 255
    values = stripes()
    values[:, 19] = 7
    with pytest.raises(DataError, match=r"every number.*7 is none \(30 pixels, 30 of 1,200 are unknown\)"):
        read_mask(save(values), CODE, image=image)


def test_a_few_pixels_of_no_class_are_ignored_and_reported(save, write_image):
    drawn, expected = ellipse()
    values = np.zeros((*expected.shape, 3), np.uint8)
    values[~expected], values[expected], values[40:47, 60:67] = (255, 0, 0), (0, 0, 255), (0, 200, 0)
    header = image_header(str(write_image("image.png", drawn.size)))
    mask = read_mask(save(values), COLOURS, image=header)
    assert (mask.unknown, mask.unknown_code) == (9, "#00C800")  # its edges are taken from their neighbours
    assert (mask.classes[42:45, 62:65] == IGNORE).all()
    assert (
        "9 pixels of no class, which are ignored. The first: x.png, with #00C800." in mask_sentences({"x.png": mask})[1]
    )
    values[20:60] = (0, 200, 0)
    with pytest.raises(DataError, match=r"mask\.png: every colour.*#00C800 is none"):
        read_mask(save(values), COLOURS, image=header)


def test_masks_of_another_size_are_errors_and_those_of_rotated_images_turn(tmp_path, image, save, write_image):
    with pytest.raises(DataError, match=r"mask\.png: a mask must have its image's size, 40 x 30; it has 40 x 29"):
        read_mask(save(stripes()[1:]), CODE, image=image)
    rotated = image_header(str(write_image("r.jpg", (40, 30), orientation=6)))
    turned = read_mask(save(stripes()), CODE, image=rotated).classes
    assert (turned == np.rot90(stripes(), -1)).all()
    upright = np.ascontiguousarray(np.rot90(stripes(), -1))
    assert (read_mask(save(upright), CODE, image=rotated).classes == upright).all()


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"BM" + b"\0" * 60])
def test_damaged_masks_are_errors(tmp_path, image, content):
    path = tmp_path / "mask.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"mask\.png: "):
        read_mask(str(path), CODE, image=image)


def test_real_numbers_are_no_mask(image, save):
    with pytest.raises(DataError, match="must hold whole numbers"):
        read_mask(save(stripes().astype(np.float32), "mask.tif"), CODE, image=image)


def test_codes_are_found_from_areas_and_not_from_edges(save):
    drawn, _ = ellipse()
    colours = discover_code([save(drawn, "a.png")])
    assert (colours.kind, colours.class_names) == ("colour", ("#0000FF", "#FF0000"))
    voc = discover_code([save(np.kron(stripes(), np.ones((4, 4), np.uint8)), "b.png")], class_names=("a", "b", "c"))
    assert (voc.kind, voc.codes, voc.ignored, voc.class_names) == ("index", (0, 1, 2), (255,), ("a", "b", "c"))
    binary = np.zeros((30, 40), np.uint8)
    binary[10:20, 10:20] = 255
    assert discover_code([save(binary, "c.png")]).codes == (0, 255)
    bits = discover_code([save(Image.fromarray(binary).convert("1"), "d.png")])
    assert bits.codes == (0, 1)
    with pytest.raises(DataError, match="must be a name for each code of the masks, 0, 255; got 1"):
        discover_code([save(binary, "c.png")], class_names=("a",))
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    with pytest.raises(DataError, match="have 0 different values"):
        discover_code([save(noise, "e.png")])


@pytest.mark.parametrize(
    "fields, why",
    [
        ({"codes": (0, 1)}, "3 classes and 2 codes"),
        ({"codes": (0, 1, 1)}, "1 is used twice"),
        ({"codes": (0, 1, 70000)}, "from 0 to 65,535; got 0 to 255|from 0 to 65,535"),
        ({"kind": "colour", "codes": (0, 255, 2**24)}, "must differ; #0000FF|from 0 to 16,777,215"),
        ({"class_names": (), "codes": ()}, "1 to 254 classes"),
    ],
)
def test_codes_that_cannot_be_are_errors(fields, why):
    with pytest.raises(DataError, match=why):
        MaskCode(**{"kind": "index", "class_names": ("a", "b", "c"), "codes": (0, 1, 2), "ignored": (255,), **fields})


@pytest.mark.parametrize("text, code", [("#3C1098", 0x3C1098), ("3c1098", 0x3C1098), ("60, 16, 152", 0x3C1098)])
def test_colours_in_words(text, code):
    assert colour_of(text) == code
    for bad in ("", "#12345", "#GGGGGG", "1,2", "1,2,300", "1,2,x"):
        with pytest.raises(DataError, match="a colour must be like"):
            colour_of(bad)


def annotated(shapes, **fields):
    number = len(shapes)
    default = {
        "path": "a.png",
        "width": 40,
        "height": 30,
        "boxes": np.tile([[0.0, 0, 20, 20]], (number, 1)),
        "classes": np.arange(number),
        "difficult": np.zeros(number, bool),
        "crowd": np.zeros(number, bool),
        "areas": np.arange(number, 0.0, -1),
        "shapes": tuple(shapes),
    }
    return Annotated(**{**default, **fields})


def rectangle(left, top, right, bottom):
    return Polygons(parts=(np.array([[left, top], [right, top], [right, bottom], [left, bottom]], float),))


def test_masks_are_drawn_from_objects_small_ones_above():
    image = annotated([rectangle(5, 5, 35, 25), rectangle(10, 10, 15, 20), rectangle(0, 0, 5, 5), None])
    image = annotated(image.shapes, crowd=np.array([False, False, True, False]), areas=np.array([600.0, 50, 25, 400]))
    drawn = draw_mask(image)
    assert drawn.dtype == np.uint8
    assert (drawn[12, 12], drawn[22, 30], drawn[28, 38], drawn[2, 2]) == (2, 1, 0, IGNORE)
    assert (drawn[6, 6], drawn[2, 15]) == (IGNORE, IGNORE)  # the box without a mask, above the larger object
    assert draw_mask(image, background=False)[28, 38] == IGNORE
    assert draw_mask(image, background=False)[12, 12] == 1
    with pytest.raises(DataError, match="at most 254 classes"):
        draw_mask(annotated([None], classes=np.array([254])))


def test_the_aerial_masks_have_the_classes_of_their_source(shared_data):
    index = list_files(str(shared_data("aerial")))
    masks = {k: v for k, v in look_into(index).masks.items() if k.startswith(("tile3", "tile5"))}
    names = ("building", "land", "road", "vegetation", "water")
    colours = ("#3C1098", "#8429F6", "#6EC1E4", "#FEDD3A", "#E2A929")
    code = MaskCode(
        kind="colour", class_names=names, codes=tuple(map(colour_of, colours)), ignored=(colour_of("#9B9B9B"),)
    )
    read = {m: read_mask(index.absolute(m), code, image=image_header(index.absolute(i))) for i, m in masks.items()}
    counts = count_pixels([mask.classes for mask in read.values()], num_classes=5)
    assert counts.sum() == sum(mask.classes.size for mask in read.values())
    assert (counts[:5] > 0).all()
    assert "pixels between two classes" in mask_sentences(read)[0]
    found = discover_code([index.absolute(mask) for mask in list(masks.values())[:4]])
    assert set(found.codes) - {0} <= {*code.codes, *code.ignored}


def test_instance_masks_of_16_bits_hold_the_objects_of_their_annotations(shared_data):
    folder = shared_data("nuclei")
    codes = read_codes(str(folder / "instances" / "000.png"), "index")
    from effnet.data.annotated.read import read_annotated

    image = next(i for i in read_annotated(str(folder)).images if i.path.endswith("000.png"))
    assert codes.max() == len(image.boxes)
    rows, columns = np.nonzero(codes == 1)
    assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] in image.boxes.astype(int).tolist()
