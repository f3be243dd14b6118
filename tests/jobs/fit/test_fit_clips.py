"""A fit of clips whose frames alone do not tell the class, and its bundle."""

import json

import numpy as np
import pytest
from clips import plain, write_clip, write_colour_bundle
from procedures import fit

import effnet
from effnet.bundle.config import read_config
from effnet.data.clips.record import FRAMES

pytest.importorskip("av", reason="the extra video is not installed")
pytestmark = pytest.mark.usefixtures("one_thread")


def test_clips_are_fitted_evaluated_predicted_and_watched(tmp_path, run_cli):
    """Mostly red or mostly blue: each clip has frames of both colours."""
    rng = np.random.default_rng(0)
    for colour, other in (("red", "blue"), ("blue", "red")):
        (tmp_path / "clips" / f"mostly-{colour}").mkdir(parents=True)
        for number in range(12):
            images = np.array([plain(colour)] * 12 + [plain(other)] * 4)
            rng.shuffle(images)
            noisy = np.clip(images + rng.normal(0, 15, images.shape), 0, 255).astype(np.uint8)
            write_clip(tmp_path / "clips" / f"mostly-{colour}" / f"{number}.mp4", noisy)
    out = tmp_path / "bundle"
    backbone = write_colour_bundle(tmp_path / "backbone")
    result = fit(tmp_path / "clips", weights=backbone, strategy="head", settings={"augment.flip": False}, out=out)
    clip = read_config(out).preprocess.clip
    assert (clip.frames, clip.seconds) == (FRAMES, pytest.approx(1.6, abs=0.11))
    model = effnet.load(out)
    scored = effnet.evaluate(model, tmp_path / "clips")
    assert scored.images == 4, "clips of the test split, not frames"
    assert scored.accuracy == 1
    assert result.test_accuracy == 1
    path = tmp_path / "clips" / "mostly-red" / "0.mp4"
    (found,) = model.predict([path])
    assert found.label == "mostly-red"
    ran = run_cli("predict", out, path, "--format", "json")
    assert json.loads(ran.out)[0]["predictions"][0]["label"] == "mostly-red", ran.err
    ran = run_cli("watch", path, "--model", out, "--max-fps", 0, "--set", "watch.every_frame=true")
    last = [line for line in map(json.loads, ran.out.splitlines()) if line["event"] == "answer"][-1]
    assert last["predictions"][0]["label"] == "mostly-red"
