"""Videos with a drawn truth, decoded and watched to the end."""

import json

import numpy as np
import pytest
from clips import COLOURS, plain, with_shape, write_clip
from places import SHARED

import effnet
from effnet.data.clips.reading import BrokenVideo
from effnet.watching.record import Seen, Thing
from effnet.watching.rules.monitor import Monitor, Names
from effnet.watching.rules.read import read_rules
from effnet.watching.settings import Settings
from effnet.watching.sources.source import read_sources
from effnet.watching.sources.video import frames_of

av = pytest.importorskip("av", reason="the extra video is not installed")


def frames(path):
    (source,) = read_sources([str(path)])
    return list(frames_of(source, timeout=300))


def colour_of(image):
    mean = image.reshape(-1, 3).mean(0)
    return min(COLOURS, key=lambda name: np.abs(mean - COLOURS[name]).sum())


def test_the_frames_of_a_file_are_those_that_were_drawn(colour_clip):
    found = frames(colour_clip)
    assert [colour_of(frame.image()) for frame in found] == ["blue"] * 20 + ["red"] * 30 + ["green"] * 20
    assert [frame.at for frame in found] == pytest.approx([k / 10 for k in range(70)])
    assert found[0].image().shape == (48, 64, 3)


def test_times_are_those_of_the_file_also_if_its_frame_rate_changes(tmp_path):
    times = [0, 0.04, 0.08, 1.5, 3, 3.04]
    found = frames(write_clip(tmp_path / "a.mp4", [plain("red")] * 6, times=times))
    assert [frame.at for frame in found] == pytest.approx(times, abs=0.002)


def test_a_phone_held_upright_gives_upright_frames(tmp_path):
    """The file of a phone says by how much its frames are turned."""
    image = np.concatenate([plain("red"), plain("blue")])  # red above blue
    stored = write_clip(tmp_path / "stored.mp4", [np.rot90(image)] * 3)
    data = bytearray(stored.read_bytes())
    # The matrix of the track's header (ISO/IEC 14496-12, 8.3.2) follows 40 bytes after its version and flags.
    place = data.index(b"tkhd") + 4 + 4 + 36
    one = 1 << 16
    identity = b"".join(value.to_bytes(4, "big") for value in (one, 0, 0, 0, one, 0, 0, 0, 1 << 30))
    assert data[place : place + 36] == identity
    quarter = (0, one, 0, (1 << 32) - one, 0, 0, 48 << 16, 0, 1 << 30)  # a quarter turn clockwise when shown
    data[place : place + 36] = b"".join(value.to_bytes(4, "big") for value in quarter)
    (tmp_path / "turned.mp4").write_bytes(data)
    assert frames(stored)[0].image().shape == (64, 96, 3)
    shown = frames(tmp_path / "turned.mp4")[0].image()
    assert shown.shape == (96, 64, 3)
    assert (colour_of(shown[:40]), colour_of(shown[56:])) == ("red", "blue")


def test_a_damaged_file_is_read_as_far_as_it_goes(colour_clip, tmp_path):
    data = bytearray(colour_clip.read_bytes())
    place = data.index(b"mdat") + 8
    rng = np.random.default_rng(0)
    middle = place + (len(data) - place) // 4
    data[middle : middle + 200] = rng.bytes(200)
    (tmp_path / "damaged.mp4").write_bytes(data)
    assert len(frames(tmp_path / "damaged.mp4")) >= 10
    for name, content in (("empty.mp4", b""), ("text.mp4", b"no video at all"), ("cut.mp4", bytes(data[:300]))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BrokenVideo):
            frames(tmp_path / name)


def test_a_playlist_reaches_no_other_place(tmp_path, colour_clip):
    """A file with a video's name must not make FFmpeg read from the network, or through another protocol."""
    for target in (
        "http://127.0.0.1:9/a.ts",
        "concat:/etc/hostname|/etc/hostname",
        "subfile,,start,0,end,0,,:/etc/hostname",
    ):
        (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n")
        with pytest.raises(BrokenVideo):
            frames(tmp_path / "list.m3u8")


def test_a_camera_that_is_away_is_a_broken_stream_without_its_password():
    for word in ("rtsp://me:secret@127.0.0.1:9/live", "97"):
        (source,) = read_sources([word])
        with pytest.raises(BrokenVideo) as found:
            list(frames_of(source, timeout=2))
        assert "secret" not in str(found.value)


def test_shapes_that_pass_a_line_are_counted(tmp_path):
    """Objects found in the decoded pixels: one passes to the right, then another back."""
    way = np.linspace(0.15, 0.85, 15)
    places = [*((x, 0.4) for x in way), *[None] * 8, *((x, 0.6) for x in way[::-1])]
    empty = np.full((120, 160, 3), 128, np.uint8)
    clip = write_clip(tmp_path / "a.mp4", [empty if place is None else with_shape(place) for place in places])
    rules = read_rules(
        ["thing crosses gate", "line gate = 0.5,1 0.5,0", "count(thing) >= 1 for 1s"], labels=("thing",), objects=True
    )
    settings = Settings(model="m", gap_seconds=0.3, track_seconds=0.3)
    monitor, notes = Monitor(rules, Names(labels=("thing",), objects=True), settings), []
    for frame in frames(clip):
        found = find_red(frame.image())
        seen = Seen(scores=np.array([float(bool(found))]), things=found)
        notes += [(round(frame.at, 2), note.kind, note.facts.get("to")) for note in monitor.see(seen, frame.at)]
    kinds = [(kind, to) for _, kind, to in notes]
    assert kinds == [
        ("crossed", "right"), ("start", None), ("end", None), ("crossed", "left"), ("start", None),
    ]  # fmt: skip
    assert notes[0][0] == pytest.approx(0.8, abs=0.1)
    assert notes[1][0] == pytest.approx(1.1, abs=0.01), "counted from its second frame"


def find_red(image):
    """Return the bounding box of the red pixels as an object."""
    red = (image[..., 0].astype(int) - image[..., 2]) > 90
    if red.sum() < 20:
        return ()
    rows, columns = (np.flatnonzero(red.any(axis)) for axis in (1, 0))
    height, width = red.shape
    box = (columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height)
    return (Thing(label=0, score=0.9, box=box),)


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_a_clip_is_watched_by_a_bundle(run_cli, colour_bundle, colour_clip, tmp_path):
    ran = run_cli(
        "watch", f"yard={colour_clip}", "--model", colour_bundle, "--rule", "alarm: red > 0.8 for 1s", "--max-fps", 0,
        "--events", tmp_path / "events.jsonl", "--snapshots", tmp_path / "shots", "--set", "watch.smooth_seconds=0",
    )  # fmt: skip
    assert (ran.code, ran.out) == (0, ""), ran.err
    opened, start, end, ended = lines((tmp_path / "events.jsonl").read_text())
    assert (opened["event"], ended["event"]) == ("opened", "ended")
    assert (start["event"], start["rule"], start["source"]) == ("start", "alarm", "yard")
    assert (start["since"], start["at"]) == (2.0, 3.0)
    assert (end["event"], end["until"]) == ("end", 4.9)
    assert end["at"] == pytest.approx(5.4, abs=0.051)
    (shot,) = (tmp_path / "shots").iterdir()
    assert start["snapshot"] == shot.name
    from PIL import Image

    assert colour_of(np.array(Image.open(shot))) == "red"


def test_without_rules_labels_and_with_every_frame_answers_are_told(run_cli, colour_bundle, colour_clip):
    ran = run_cli(
        "watch", colour_clip, "--model", colour_bundle, "--max-fps", 5, "--set", "watch.every_frame=true",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    found = lines(ran.out)
    assert [each["label"] for each in found if each["event"] == "label"] == ["blue", "red", "green"]
    answers = [each for each in found if each["event"] == "answer"]
    assert [each["at"] for each in answers] == pytest.approx([k / 5 for k in range(35)], abs=0.11)
    model = effnet.load(colour_bundle)
    for answer, frame in zip(answers[:3], frames(colour_clip)[::2], strict=False):
        (wanted,) = model.predict(frame.image())
        shown = {each["label"]: each["probability"] for each in answer["predictions"]}
        assert shown == {k: round(v, 6) for k, v in zip(wanted.labels, wanted.probabilities, strict=True)}


def test_a_folder_of_images_is_watched_and_a_bad_file_is_told(run_cli, colour_bundle, tmp_path):
    from PIL import Image

    (tmp_path / "shots").mkdir()
    for number, colour in enumerate(("red", "red", "blue")):
        Image.fromarray(plain(colour)).save(tmp_path / "shots" / f"{number}.png")
    (tmp_path / "shots" / "3.png").write_bytes(b"no image")
    ran = run_cli("watch", tmp_path / "shots", "--model", colour_bundle, "--set", "watch.smooth_seconds=0")
    assert ran.code == 2
    assert "3.png" in ran.err
    assert [each["label"] for each in lines(ran.out) if each["event"] == "label"] == ["red"]
    ran = run_cli("watch", tmp_path / "shots" / "2.png", "--model", colour_bundle)
    assert (ran.code, [each.get("label") for each in lines(ran.out)]) == (0, [None, "blue", None])


@pytest.mark.parametrize(
    "words, message",
    [
        (["--rule", "pink > 0.5"], "the label of 'pink > 0.5' must be one"),
        (["--webhook", "ftp://x"], "--webhook must be"),
        (["--events", "/nowhere/x"], "--events must be a file"),
        (["--set", "watch.gap_seconds=-1"], "gap-seconds must lie"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(run_cli, colour_bundle, colour_clip, words, message):
    ran = run_cli("watch", colour_clip, "--model", colour_bundle, *words)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert len(ran.err.splitlines()) == 1


def test_objects_and_masks_are_watched(run_cli, bundles_of_places, colour_clip):
    """The answers of untrained networks are those of `predict` on the same frames."""
    for name, key in (("det", "objects"), ("seg", "shares")):
        bundle = bundles_of_places / name
        ran = run_cli(
            "watch", colour_clip, "--model", bundle, "--max-fps", 0.5, "--set", "watch.every_frame=true"
        )  # fmt: skip
        assert ran.code == 0, ran.err
        answers = [each for each in lines(ran.out) if each["event"] == "answer"]
        assert len(answers) == 4
        image = frames(colour_clip)[0].image()
        (wanted,) = effnet.load(bundle).predict(image)
        if key == "objects":
            assert len(answers[0]["objects"]) == len(wanted.scores)
        else:
            shown = answers[0]["shares"]
            names = effnet.load(bundle).config.class_names
            assert [shown.get(name, 0) for name in names] == pytest.approx(wanted.shares, abs=1e-6)


def test_a_real_camera_clip_is_decoded_whole():
    path = SHARED / "data" / "video" / "car-detection.mp4"
    if not path.is_file():
        pytest.skip("needs shared/data/video beside the repository")
    found = frames(path)
    assert len(found) == 377
    assert found[-1].at == pytest.approx(30.08)
    assert found[100].image().shape == (432, 768, 3)
    means = [found[k].image().mean() for k in (0, 188, 376)]
    assert all(50 < mean < 200 for mean in means), "no frame is black or grey"
