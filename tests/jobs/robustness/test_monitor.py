"""monitor on real files: dark images, stored references, and what it refuses."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from bundles import add_score
from PIL import Image

import effnet
from effnet.bundle.config import read_config, write_config
from effnet.data.datasets import read_dataset
from effnet.errors import DataError, InputError
from effnet.jobs.robustness.monitor import moment_of
from effnet.tasks.known import KnownScore


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of digits that were not trained on: `same` as they are, `dark` at a quarter of their light."""
    root, test = tmp_path_factory.mktemp("new"), read_dataset("digits", seed=0).test
    for name, factor in (("same", 1.0), ("dark", 0.25)):
        (root / name).mkdir()
        for index in range(0, len(test), 2):
            pixels = (np.asarray(test.sources[index])[..., 0] * factor).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


def test_images_as_they_were_do_not_drift_and_dark_ones_do(small_bundle, folders):
    model = effnet.load(small_bundle)
    same = effnet.monitor(model, folders / "same", reference="digits")
    assert not same.drifted
    assert same.reference_images == 269
    assert len(same.shifts) == 15
    dark = effnet.monitor(model, folders / "dark", reference="digits")
    assert "brightness" in [each.name for each in dark.shifts if each.drifted]
    assert dark.drifted


@pytest.mark.parametrize("scored", [False, True])
def test_the_share_of_unknown_is_that_of_the_bundles_own_answers(scored, bundle_copy, folders, tmp_path):
    if scored:
        add_score(bundle_copy, KnownScore(method="energy"))
    model, paths = effnet.load(bundle_copy), sorted(map(str, (folders / "dark").iterdir()))
    # Without a score these are the largest probabilities.
    middle = float(np.median(model.scores(np.stack([model.prepare(path) for path in paths]))))
    config = read_config(bundle_copy)
    changed = {"known": replace(config.known, threshold=middle)} if scored else {"threshold": middle}
    write_config(replace(config, **changed), bundle_copy)
    model = effnet.load(bundle_copy)
    wanted = np.mean([not answer.known for answer in model.predict(paths)])
    assert 0 < wanted < 1
    found = effnet.monitor(model, folders / "dark", reference="digits", save=tmp_path / "kept.npz").unknown
    assert found.after == pytest.approx(wanted)
    again = effnet.monitor(model, folders / "dark", reference=tmp_path / "kept.npz").unknown
    assert (again.before, again.after) == (found.before, found.after)


def test_a_stored_reference_gives_the_same_and_is_refused_for_another_model(
    small_bundle, folders, bundle_copy, tmp_path
):
    model = effnet.load(small_bundle)
    first = effnet.monitor(model, folders / "dark", reference="digits", save=tmp_path / "kept.npz")
    again = effnet.monitor(model, folders / "dark", reference=tmp_path / "kept.npz")
    assert again.shifts == first.shifts
    assert again.indices == first.indices
    os.replace(tmp_path / "kept.npz", bundle_copy / "reference.npz")
    assert effnet.monitor(effnet.load(bundle_copy), folders / "dark").shifts == first.shifts
    config = json.loads((bundle_copy / "config.json").read_text())
    config["sha256"]["model.onnx"] = "0" * 64
    (bundle_copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="of another"):
        effnet.monitor(effnet.load(bundle_copy), folders / "dark")
    (bundle_copy / "reference.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="is not: `effnet monitor"):
        effnet.monitor(effnet.load(bundle_copy), folders / "dark")


def test_without_a_reference_the_figures_of_the_report_are_compared(small_bundle, folders):
    found = effnet.monitor(effnet.load(small_bundle), folders / "same")
    assert found.shifts == ()
    assert {each.name for each in found.indices} == {"label", "confidence"}
    assert found.reference_images == 269
    confusion = np.array(json.loads((small_bundle / "report.json").read_text())["test"]["confusion"])
    assert [each.before for each in found.labels] == pytest.approx((confusion.sum(0) / 269).tolist())


def test_only_files_changed_since_are_read(small_bundle, folders, tmp_path):
    for number, path in enumerate(sorted((folders / "same").iterdir())[:12]):
        copy = tmp_path / path.name
        copy.write_bytes(path.read_bytes())
        os.utime(copy, (1_000_000 + 86400 * number,) * 2)
    now = 1_000_000 + 86400 * 12
    found = effnet.monitor(effnet.load(small_bundle), tmp_path, since="7d", now=lambda: now)
    assert found.images == 6  # those of the last six days; the seventh is exactly as old
    with pytest.raises(DataError, match="none were found"):
        effnet.monitor(effnet.load(small_bundle), tmp_path, since="1h", now=lambda: now)


def test_a_time_is_read_or_refused():
    assert moment_of("12h", now=86400.0) == 43200
    assert moment_of("2026-11-30T00:00:00+00:00", now=0) == 1796083200 - 86400 * 0 - (1796083200 - 1795996800)
    for wrong in ("yesterday", "7", "-7d", "9" * 30 + "d"):
        with pytest.raises(InputError, match="since must be a time ago"):
            moment_of(wrong, now=0)


def test_the_command_prints_writes_and_exits(run_cli, small_bundle, folders, tmp_path):
    page = tmp_path / "drift.html"
    words = ("monitor", small_bundle, folders / "dark", "--reference", "digits")
    ran = run_cli(*words, "--out", page)
    assert ran.code == 0
    assert "Drift: yes" in ran.out
    assert "brightness" in ran.out
    text = page.read_text()
    assert "Drift found" in text
    assert "brightness" in text
    assert run_cli(*words, "--check").code == 3
    same = run_cli("monitor", small_bundle, folders / "same", "--reference", "digits", "--check", "--format", "json")
    assert same.code == 0
    assert json.loads(same.out)["drifted"] is False
    assert run_cli("monitor", small_bundle, tmp_path / "none").code == 2
