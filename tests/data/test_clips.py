"""Folders of clips as a data set, and the answer to a clip."""

import io

import numpy as np
import pytest
from clips import COLOURS, plain, write_clip
from PIL import Image

from effnet.data.clips.frames import ClipFrame, by_clip
from effnet.data.clips.reading import clip_seconds, sampled_frames
from effnet.data.clips.record import FRAMES, Clip
from effnet.data.datasets import read_dataset
from effnet.data.groups import joined
from effnet.data.inspection.clips import with_clip
from effnet.data.preprocess import Preprocess
from effnet.data.sources.folder import list_images
from effnet.errors import DataError, ImageError
from effnet.tasks.classification import over_frames

pytest.importorskip("av", reason="the extra video is not installed")


def nearest(image):
    return min(COLOURS, key=lambda name: np.abs(image.reshape(-1, 3).mean(0) - COLOURS[name]).sum())


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Twelve clips of three classes; not to change."""
    root = tmp_path_factory.mktemp("clips")
    for colour in COLOURS:
        (root / colour).mkdir()
        for number in range(4):
            images = [plain(colour)] * (10 + number) + [plain("red")] * 2
            write_clip(root / colour / f"{number}.mp4", images)
    return root


def test_frames_are_spread_evenly_over_the_clip(tmp_path):
    images = [plain("blue")] * 10 + [plain("red")] * 10 + [plain("green")] * 20
    path = write_clip(tmp_path / "a.mp4", images)
    assert clip_seconds(path) == pytest.approx(4.0, abs=0.11)
    shown = [nearest(image) for image in sampled_frames(path, 8)]
    assert shown == ["blue"] * 2 + ["red"] * 2 + ["green"] * 4
    assert [nearest(image) for image in sampled_frames(path, 1)] == ["green"]
    short = write_clip(tmp_path / "b.mp4", [plain("blue")])
    assert len(sampled_frames(short, 8)) == 8
    (tmp_path / "c.mp4").write_bytes(b"nothing")
    with pytest.raises(ImageError, match=r"c\.mp4"):
        sampled_frames(tmp_path / "c.mp4", 8)


def test_a_folder_of_clips_is_a_data_set_whose_clips_are_not_split(clips):
    data = with_clip(read_dataset(clips))
    assert data.class_names == tuple(COLOURS)
    assert sum(len(split) for split in (data.train, data.val, data.test)) == 12 * FRAMES
    sides = {}
    for name in ("train", "val", "test"):
        for source in getattr(data, name).sources:
            assert sides.setdefault(source.path, name) == name
    assert len(sides) == 12
    assert len(set(joined(data.groups).values())) >= 12
    assert data.clip.frames == FRAMES
    assert data.clip.seconds == pytest.approx(1.4, abs=0.3)
    first = data.train.sources[0]
    image = np.array(Image.open(io.BytesIO(first.read())))
    assert nearest(image) == data.class_names[data.train.labels[0]]
    assert any("12 clips" in note for note in data.notes)


def test_a_few_videos_among_photographs_are_left_out(tmp_path):
    for colour in COLOURS:
        (tmp_path / colour).mkdir()
        for number in range(5):
            Image.fromarray(plain(colour, width=40 + number)).save(tmp_path / colour / f"{number}.png")
    write_clip(tmp_path / "red" / "a.mp4", [plain("red")] * 3)
    data = read_dataset(tmp_path)
    assert data.clip is None
    assert not any(isinstance(source, ClipFrame) for source in data.train.sources)
    assert any(note.startswith("1 videos were ignored") for note in data.notes)
    assert not any(path.endswith("mp4") for path in list_images(str(tmp_path)).paths)
    assert any(path.endswith("mp4") for path in list_images(str(tmp_path), videos=True).paths)


def test_the_answer_to_a_clip_is_the_head_of_the_mean_of_its_features():
    rng = np.random.default_rng(0)
    features, weight, bias = rng.normal(size=(8, 16)), rng.normal(size=(3, 16)), rng.normal(size=3)

    def softmax(logits):
        found = np.exp(logits - logits.max(-1, keepdims=True))
        return (found / found.sum(-1, keepdims=True)).astype(np.float32)

    each = softmax(features @ weight.T + bias)
    np.testing.assert_allclose(over_frames(each), softmax(features.mean(0) @ weight.T + bias), atol=1e-5)
    certain = np.array([[1, 0], [1, 0]], np.float32)
    np.testing.assert_allclose(over_frames(certain), [1, 0], atol=1e-20)


def test_images_of_clips_are_found_by_clip():
    sources = [ClipFrame("a", 0), ClipFrame("b", 0), ClipFrame("a", 1), ClipFrame("b", 1)]
    assert by_clip(sources, [0, 2, 3]) == [[0, 1], [2]]
    assert by_clip(["a.png"], [0]) is None


def test_a_bundle_records_its_clips():
    preprocess = Preprocess(resolution=32, clip=Clip(seconds=2.5))
    assert Preprocess.from_dict(preprocess.to_dict()) == preprocess
    assert "clip" not in Preprocess(resolution=32).to_dict()
    for wrong in ({"seconds": 0}, {"seconds": 1, "frames": 0}, {"frames": 3}, {"seconds": True}, [1]):
        with pytest.raises(DataError, match="clips must"):
            Clip.from_dict(wrong)
