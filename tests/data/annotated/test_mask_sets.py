import numpy as np
import pytest
from PIL import Image

from effnet.data.annotated.masks.codes import MaskCode
from effnet.data.annotated.masks.folder import read_class_table, read_mask_set
from effnet.data.annotated.record import describe
from effnet.errors import DataError


@pytest.fixture
def write_mask(tmp_path):
    def write(name, values):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(values, np.uint8)).save(path)

    return write


def halves(first=0, second=1):
    values = np.full((30, 40), first)
    values[:, 20:] = second
    return values


def kinds(found):
    return {finding.kind: finding.count for finding in found.findings}


def test_pairs_counts_and_irregularities(tmp_path, write_image, write_mask):
    for split, values in (("train", halves()), ("test", halves(0, 2))):
        write_image(f"{split}/images/1.png")
        write_mask(f"{split}/masks/1.png", values)
    write_image("train/images/2.png")
    write_mask("train/masks/2.png", halves()[1:])  # another size
    write_image("train/images/3.png")
    write_mask("train/masks/3.png", halves(0, 9))
    write_image("train/images/4.png")
    write_mask("train/masks/4.png", halves())
    (tmp_path / "train/images/4.png").write_bytes(b"x")
    code = MaskCode(kind="index", class_names=("a", "b", "c", "d"), codes=(0, 1, 2, 3))
    found = read_mask_set(str(tmp_path), code=code)
    assert {split: [i.path.split("/")[-1] for i in part] for split, part in found.parts.items()} == {
        "train": ["1.png"],
        "test": ["1.png"],
    }
    assert found.counts["train"].tolist() == [600, 600, 0, 0, 0]
    assert found.counts["test"].tolist() == [600, 0, 600, 0, 0]
    assert kinds(found) == {"damaged image": 1, "unusable mask": 2, "absent class": 1, "test only": 1}
    lines = describe(found.findings)
    assert "1 class has no pixels anywhere." in lines
    assert any("masks/2.png: a mask must have its image's size, 40 x 30; it has 40 x 29" in line for line in lines)
    assert any("masks/3.png: every number of a mask must be that of a class; 9 is none" in line for line in lines)


def test_a_code_is_found_and_named(tmp_path, write_image, write_mask):
    write_image("1.png")
    write_mask("1_mask.png", halves(0, 255))
    found = read_mask_set(str(tmp_path), class_names=("sky", "bird"))
    assert (found.code.codes, found.code.class_names) == ((0, 255), ("sky", "bird"))
    assert found.counts[""].tolist() == [600, 600, 0]
    assert not found.findings


def test_what_holds_no_usable_masks_is_an_error(tmp_path, write_image, write_mask):
    write_image("images/1.png")
    with pytest.raises(DataError, match=r"must hold images and masks of the same names.*without annotations"):
        read_mask_set(str(tmp_path))
    write_mask("masks/1.png", halves()[1:])
    with pytest.raises(DataError, match=r"one image with a mask; 1 image has a mask that cannot.*1\.png: a mask"):
        read_mask_set(str(tmp_path))


@pytest.mark.parametrize(
    "text, kind, codes",
    [
        ("name,r,g,b\nsky,128,128,128\ncar,64,0,128\nVoid,0,0,0\n", "colour", (0x808080, 0x400080)),
        ("class;colour\nsky;#808080\ncar;#400080\nunlabelled;#000000\n", "colour", (0x808080, 0x400080)),
        ("id,name\n7,sky\n8,car\n0,ignore\n", "index", (7, 8)),
    ],
)
def test_class_tables(write_text, text, kind, codes):
    found = read_class_table(str(write_text("class_dict.csv", text)))
    assert (found.kind, found.codes, found.class_names, found.ignored) == (kind, codes, ("sky", "car"), (0,))


@pytest.mark.parametrize(
    "text, why",
    [
        ("name,r,g,b\nsky,128,128,300\n", "line 2: a colour must be like"),
        ("name,value\nsky,x\n", "line 2: a class must have a value, a colour, or r, g and b"),
        ("name\nsky\n", "line 2: a class must have a value"),
        ("r,g,b\n1,2,3\n", "line 2: the columns name and value, or name"),
        ("name,value\nsky,0\ncar,0\n", "the codes of masks must differ; 0 is used twice"),
        ("name,value\nsky,0\nsky,1\n", "names of classes must differ"),
        ("name,value,colour\nsky,0,\ncar,,#000000\n", "must all have values or all have colours"),
        ("name,value\n", "must all have values or all have colours"),
        ("name,value\nvoid,0\n", "must have 1 to 254 classes"),
    ],
)
def test_other_class_tables_are_errors(write_text, text, why):
    with pytest.raises(DataError, match=why):
        read_class_table(str(write_text("t.csv", text)))


def tinted(first=(128, 0, 0), second=(0, 128, 0)):
    return np.array([first, second], np.uint8)[halves()]


def test_grey_numbers_among_colours_are_an_error(tmp_path, write_image, write_mask):
    for name, values in (("1", halves(1, 2)), ("2", tinted()), ("3", tinted())):
        write_image(f"images/{name}.png")
        write_mask(f"masks/{name}.png", values)
    with pytest.raises(DataError, match=r"masks/1\.png has numbers, such as 1, and others have colours"):
        read_mask_set(str(tmp_path))
    write_mask("masks/1.png", halves(0, 0))  # black is a colour too
    assert read_mask_set(str(tmp_path)).code.codes == (0, 0x008000, 0x800000)


def test_palette_and_rgb_masks_of_the_same_colours_are_alike(tmp_path, write_image, write_mask):
    for name in ("1", "2"):
        write_image(f"images/{name}.png")
    write_mask("masks/1.png", tinted())
    image = Image.fromarray(halves(7, 9).astype(np.uint8)).convert("P")
    image.putpalette([0] * 21 + [128, 0, 0, 0, 0, 0, 0, 128, 0])
    image.save(tmp_path / "masks/2.png")
    found = read_mask_set(str(tmp_path))
    assert found.code.codes == (0x008000, 0x800000)
    assert found.counts[""].tolist() == [1200, 1200, 0]


def test_a_thin_border_of_255_is_ignored(tmp_path, write_image, write_mask):
    values = halves(0, 1)
    values[:, 20] = 255
    write_image("images/1.png")
    write_mask("masks/1.png", values)
    found = read_mask_set(str(tmp_path))
    assert (found.code.codes, found.code.ignored) == ((0, 1), (255,))
    assert found.counts[""].tolist() == [600, 570, 30]


def test_codes_of_few_pixels_in_few_masks_are_ignored_unless_they_are_named(tmp_path, write_image, write_mask):
    for number in range(12):
        write_image(f"images/{number}.png", (200, 150))
        values = np.repeat(np.repeat(tinted(), 5, 0), 5, 1)
        if number == 3:
            values[4:8, 4:8] = (0, 0, 0)
        write_mask(f"masks/{number}.png", values)
    found = read_mask_set(str(tmp_path))
    assert (found.code.codes, found.code.ignored) == ((0x008000, 0x800000), (0,))
    assert found.counts[""].tolist() == [180_000, 179_984, 16]
    assert sum(image.pixels[-1] for image in found.parts[""]) == 16
    (line, example) = describe(found.findings)
    assert line.startswith("1 code of masks has too few pixels for a class, 16 in 1 of 12 masks: they are ignored.")
    assert example.strip() == "#000000"
    named = read_mask_set(str(tmp_path), class_names=("none", "grass", "roof"))
    assert named.counts[""].tolist() == [16, 180_000, 179_984, 0]
