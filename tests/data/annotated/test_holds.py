import pytest

from effnet.data.annotated.holds import look_into, what_it_holds
from effnet.data.annotated.index import list_files

XML, COCO, LINE = b"<annotation><object/>", b'{"info": {}, "images": [', b"0 0.5 0.5 0.2 0.2\n"
BOTH = {"train": 1, "test": 1}
HEAD = b"path,xmin,ymin,xmax,ymax,label\n1.jpg,1,2,3,4,a"


@pytest.mark.parametrize(
    "files, kind, parts",
    [
        (
            {"train/1.jpg": b"", "train/1.xml": XML, "test/2.jpg": b"", "test/2.xml": XML},
            "voc",
            {"train": 1, "test": 1},
        ),
        ({"Annotations/1.xml": XML, "JPEGImages/1.jpg": b"", "ImageSets/Main/train.txt": b"1\n"}, "voc", {"": 1}),
        ({"1.jpg": b"", "1.xml": XML.decode().encode("utf-16")}, "voc", {"": 1}),
        ({"1.jpg": b"", "pom.xml": b"<project/>"}, "", {}),
        ({"annotations/instances_train2017.json": COCO, "train2017/1.jpg": b""}, "coco", {"": 1}),
        (
            {"train/_annotations.coco.json": COCO, "train/1.jpg": b"", "valid/_annotations.coco.json": COCO},
            "coco",
            {"train": 1, "val": 1},
        ),
        ({"1.jpg": b"", "package.json": b'{"name": "x"}'}, "", {}),
        ({"images/train/1.jpg": b"", "labels/train/1.txt": LINE, "images/val/2.jpg": b""}, "yolo", {"": 1}),
        (
            {
                "train/images/1.jpg": b"",
                "train/labels/1.txt": LINE,
                "valid/images/2.jpg": b"",
                "valid/labels/2.txt": b"",
            },
            "yolo",
            {"train": 1, "val": 1},
        ),
        ({"1.jpg": b"", "1.txt": LINE, "2.jpg": b"", "classes.txt": b"cat"}, "yolo", {"": 2}),
        ({"1.jpg": b"", "1.txt": b"a caption of the image"}, "", {}),
        ({"1.jpg": b"", "boxes.csv": HEAD}, "table", {"": 1}),
        ({"1.jpg": b"", "labels.csv": b"path,label\n1.jpg,a"}, "", {}),
        ({"images/1.jpg": b"", "masks/1.png": b""}, "masks", {"": 1}),
        ({"JPEGImages/1.jpg": b"", "SegmentationClass/1.png": b""}, "masks", {"": 1}),
        ({"1.jpg": b"", "1_mask.png": b"", "2.jpg": b"", "2_mask.png": b""}, "masks", {"": 2}),
        (
            {f"{split}/{kind}/1.png": b"" for split in ("train", "test") for kind in ("images", "masks")},
            "masks",
            {"train": 1, "test": 1},
        ),
        ({"train/1.png": b"", "trainannot/1.png": b"", "val/1.png": b""}, "", {}),
        ({"cat/1.jpg": b"", "dog/2.jpg": b""}, "classes", {"": 2}),
        ({"train/cat/1.jpg": b"", "test/dog/2.jpg": b""}, "classes", {"train": 1, "test": 1}),
        ({"1.jpg": b"", "2.jpg": b""}, "", {}),
        ({"a.txt": b""}, "", {}),
        ({}, "", {}),
    ],
)
def test_what_a_folder_holds(files, kind, parts):
    found = what_it_holds(sorted(files), files.__getitem__)
    assert found.kind == kind, found
    assert {split: len(paths) for split, paths in found.parts.items()} == parts
    assert found.why


def test_annotations_of_several_kinds_are_named():
    files = {"images/1.png": b"", "masks/1.png": b"", "a.json": COCO, "1.xml": XML}
    found = what_it_holds(sorted(files), files.__getitem__)
    assert (found.kind, found.also) == ("voc", ("coco", "masks"))
    found = what_it_holds(sorted(files), files.__getitem__, kinds=("masks",))
    assert (found.kind, dict(found.masks), found.also) == ("masks", {"images/1.png": "masks/1.png"}, ())


def test_the_real_sets_are_recognised(shared_data):
    kinds = {name: look_into(list_files(str(shared_data(name)))) for name in ("cards", "nuclei", "aerial", "photos7")}
    assert {name: found.kind for name, found in kinds.items()} == {
        "cards": "voc",
        "nuclei": "coco",
        "aerial": "masks",
        "photos7": "classes",
    }
    masks = kinds["aerial"].masks
    assert len(masks) == 63
    assert all(mask.replace("/masks/", "/images/")[:-4] == image[:-4] for image, mask in masks.items())


def test_links_are_followed_once_and_hidden_files_left_out(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").touch()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "2.jpg").touch()
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "gone")
    assert list_files(str(tmp_path)).files == ("a/1.jpg", "dangling.jpg")


def test_the_nearest_image_of_a_name_is_meant(tmp_path):
    for name in ("train/images/1.jpg", "val/images/1.jpg", "val/masks/1.jpg", "2.JPG", "x/3.jpg", "y/3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    index = list_files(str(tmp_path))
    assert index.find_image("C:\\data\\VAL\\images\\1.JPG", near="a.json") == "val/images/1.jpg"
    assert index.find_image("1.jpg", near="annotations/val.json") == "val/images/1.jpg"
    assert index.find_image("1.jpg", near="train/a.json") == "train/images/1.jpg"
    assert index.find_image("test/images/1.jpg", near="a.json") is None  # not that of another split
    assert index.find_image("1.jpg", near="test.json") is None
    assert index.find_image("3.jpg", near="test.json") is None  # either
    assert index.find_image("../../2.jpg", near="a.json") == "2.JPG"
    assert index.find_image("", near="a.json") is None
    assert index.find_stem("2", near="x/2.xml") == "2.JPG"
