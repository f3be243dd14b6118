"""Audits and suggestions on images whose wrong labels, copies and groups are known."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from bundles import make_bundle
from PIL import Image, ImageOps

import effnet
from effnet.errors import InputError, WeightsError
from effnet.jobs.audit.files import COLUMNS, write_audit
from effnet.jobs.audit.record import describe_audit

LEVELS = {"dark": 40, "middle": 120, "light": 215}
EACH = 24
WRONG = "middle/light-3.png"


def picture(level: int, rng: np.random.Generator) -> Image.Image:
    """Return a grey image around a level, with large random blots."""
    blots = Image.fromarray(rng.integers(0, 60, (5, 5), np.uint8)).resize((48, 48), Image.Resampling.BICUBIC)
    return Image.fromarray(np.clip(np.asarray(blots, np.int16) + level - 30, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return images of three classes; one has another's label, one is there mirrored, under another label."""
    root, rng = tmp_path_factory.mktemp("audit") / "images", np.random.default_rng(0)
    for name, level in LEVELS.items():
        (root / name).mkdir(parents=True)
        for number in range(EACH):
            picture(level, rng).save(root / name / f"{name}-{number}.png")
    (root / "light" / "light-3.png").rename(root / WRONG)
    ImageOps.mirror(Image.open(root / "dark" / "dark-5.png")).save(root / "dark" / "mirrored.png")
    (root / "dark" / "damaged.png").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Return a bundle whose features tell levels of grey apart."""
    return make_bundle(tmp_path_factory.mktemp("audit-weights") / "bundle")


@pytest.fixture(scope="module")
def found(folder, weights) -> effnet.Audit:
    """Return the audit of the folder."""
    return effnet.audit(folder, weights=weights)


def test_the_wrong_label_comes_first_with_its_class(found, folder):
    first = found.label_errors[0]
    assert (first.path, first.given, first.likely) == (str(folder / WRONG), "middle", "light")
    assert first.probability > 0.2
    assert all(other.probability < first.probability for other in found.label_errors[1:])
    assert found.images == found.judged == 3 * EACH + 1
    assert 0 < found.noise_rate < 0.05
    assert found.expected_errors == pytest.approx(1, abs=0.8)


def test_a_mirrored_copy_is_a_near_duplicate(found, folder):
    pair = tuple(str(folder / "dark" / name) for name in ("dark-5.png", "mirrored.png"))
    assert pair in [tuple(sorted(each.paths)) for each in found.near_duplicates]


def test_the_table_and_the_page_hold_what_is_said(found, folder, tmp_path):
    table, page = write_audit(found, tmp_path / "new" / "audit")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert (rows[0]["path"], rows[0]["likely"], rows[0]["reason"]) == (str(folder / WRONG), "light", "label")
    assert page.read_text().count("<figure>") >= len(found.label_errors) + len(found.outliers)
    assert "data:image/jpeg" in page.read_text()
    assert WRONG in "\n".join(describe_audit(found))
    json.dumps(found.to_dict())


def test_the_same_seed_gives_the_same_audit(found, folder, weights):
    assert effnet.audit(folder, weights=weights) == found


def test_typical_images_are_of_all_kinds_and_unsure_ones_lie_between(folder, weights, tmp_path):
    typical = effnet.suggest(folder, weights=weights, number=9)
    assert {Path(path).name.split("-")[0] for path in typical.paths} >= set(LEVELS)
    assert (typical.by, typical.unreadable, typical.images) == ("centres", 1, 3 * EACH + 1)
    rng = np.random.default_rng(1)
    (tmp_path / "between").mkdir()
    for name, level in {"dark": 40, "light": 215, "half": 168}.items():
        for number in range(3):
            picture(level, rng).save(tmp_path / "between" / f"{name}-{number}.png")
    Image.open(folder / "dark" / "dark-1.png").save(tmp_path / "between" / "known.png")
    unsure = effnet.suggest(tmp_path / "between", weights=weights, labelled=folder, number=2)
    assert Path(unsure.paths[0]).name.startswith("half"), unsure
    assert (unsure.by, unsure.copies, unsure.images) == ("margin", 1, 9)
    assert list(unsure.margins) == sorted(unsure.margins)


def test_classes_of_one_image_have_no_judged_label_and_other_channels_are_refused(weights):
    images = np.random.default_rng(0).integers(0, 256, (24, 40, 40, 3), dtype=np.uint8)
    names = [f"c{number}" for number in range(24)]

    def dataset(pixels: np.ndarray) -> effnet.Dataset:
        held_out = (pixels[:1], names[:1])
        return effnet.Dataset.from_arrays(pixels, names, val=held_out, test=held_out)

    with pytest.raises(WeightsError, match=r"must read 3 channels, or as many .*, 3; .* reads 1"):
        effnet.audit(dataset(images), weights=weights)
    found = effnet.audit(dataset(images[..., :1]), weights=weights)
    assert (found.judged, found.noise_rate, found.label_errors) == (0, None, ())
    assert "No label is judged" in describe_audit(found)[0]


def test_suggestions_refuse_what_cannot_be_done(folder, weights, tmp_path):
    with pytest.raises(InputError, match="at least 500 images"):
        effnet.suggest(folder, weights=weights, number=500)
    with pytest.raises(InputError, match="none were found"):
        effnet.suggest(tmp_path, weights=weights)
    with pytest.raises(InputError, match="must be a folder"):
        effnet.suggest(tmp_path / "absent", weights=weights)
    with pytest.raises(InputError, match="must be at least 1"):
        effnet.suggest(folder, weights=weights, number=0)


def test_the_commands_print_and_write(folder, weights, tmp_path, run_cli):
    ran = run_cli("data", "inspect", folder, "--weights", weights, "--out", tmp_path / "audit")
    assert ran.code == 0, ran.err
    assert WRONG in ran.out
    assert f"Wrote {tmp_path / 'audit' / 'audit.html'}" in ran.out
    ran = run_cli("data", "inspect", folder, "--out", tmp_path / "audit")
    assert (ran.code, "--out needs --weights" in ran.err) == (2, True)
    ran = run_cli("suggest", folder, "--weights", weights, "--n", "2", "--format", "json")
    assert (ran.code, len(json.loads(ran.out)["images"])) == (0, 2)
