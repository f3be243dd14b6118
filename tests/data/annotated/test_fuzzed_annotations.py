"""Damaged files of every format are read, reported or refused, and never anything else."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from effnet.data.annotated.masks.folder import read_mask_set
from effnet.data.annotated.read import read_annotated
from effnet.errors import DataError

XML = (
    "<annotation><filename>1.png</filename><size><width>40</width><height>30</height></size>"
    "<object><name>cat</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>11</xmax><ymax>12</ymax>"
    "</bndbox></object></annotation>"
)
COCO = json.dumps(
    {
        "images": [{"id": 1, "file_name": "1.png", "width": 40, "height": 30}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": [[1, 2, 3, 4, 5, 6]]},
            {
                "image_id": 1,
                "category_id": 1,
                "bbox": [9, 2, 3, 4],
                "segmentation": {"size": [30, 40], "counts": "PW12"},
            },
        ],
    }
)
FILES = {
    "1.xml": XML,
    "a.json": COCO,
    "1.txt": "0 0.5 0.5 0.2 0.2\n0 0.1 0.1 0.2 0.2 0.3 0.1\n",
    "b.csv": "path,xmin,ymin,xmax,ymax,label\n1.png,1,2,11,12,cat\n1.png,,,,,\n",
    "b.jsonl": '{"path": "1.png", "boxes": [[1, 2, 11, 12]], "labels": ["cat"]}\n',
    "data.yaml": "train: .\nnames:\n  0: cat\n  1: 'big dog'\n",
}
BYTES = st.one_of(
    st.sampled_from([b"<", b"&", b'"', b"\0", b"\xff", b"-", b"9" * 30, b"1e999", b"[", b"{", b"\n", b":", b""])
)
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), BYTES), min_size=1, max_size=4)


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "1.png")
    return tmp_path


@pytest.mark.parametrize("name", FILES)
@given(edits=EDITS)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_annotations_are_read_or_refused_with_a_short_error(folder, name, edits):
    data = FILES[name].encode()
    for place, length, inserted in edits:
        start = int(place * len(data))
        data = data[:start] + inserted + data[start + length :]
    if name == "data.yaml":
        (folder / "1.txt").write_text(FILES["1.txt"])
    (folder / name).write_bytes(data)
    for path in (folder, folder / name):
        found = _read(read_annotated, path)
        if found is None:
            continue
        for image in found.images:
            assert (image.boxes[:, :2] < image.boxes[:, 2:]).all()
            assert (image.boxes >= 0).all()
            assert (image.boxes <= (image.width, image.height) * 2).all()
            assert ((image.classes >= 0) & (image.classes < len(found.class_names))).all()
        assert all(finding.count >= len(finding.examples) > 0 for finding in found.findings)


@given(edits=EDITS)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_masks_are_read_or_refused(tmp_path, edits):
    Image.new("RGB", (40, 30)).save(tmp_path / "1.png")
    values = np.zeros((30, 40), np.uint8)
    values[:, 20:] = 1
    Image.fromarray(values).save(tmp_path / "1_mask.png")
    data = (tmp_path / "1_mask.png").read_bytes()
    for place, length, inserted in edits:
        start = int(place * len(data))
        data = data[:start] + inserted + data[start + length :]
    (tmp_path / "1_mask.png").write_bytes(data)
    found = _read(read_mask_set, tmp_path)
    assert found is None or found.counts[""].sum() == 1200


def _read(read, path):
    """Return what is read, None if it is refused."""
    try:
        return read(str(path))
    except DataError as error:
        text = str(error)
    assert len(text) < 2000
    return None
