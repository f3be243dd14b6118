"""Quantizing and pruning change the features that a score is of: it is left out, and that is said."""

import shutil
from pathlib import Path

import pytest
from bundles import add_score, make_bundle

import effnet
from effnet.tasks.known import KnownScore


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle with a score."""
    folder = tmp_path_factory.mktemp("scored") / "bundle"
    return add_score(make_bundle(folder), KnownScore(method="energy", threshold=0.5))


class Said(Exception):
    """Ends a job once it has said the sentence."""


def ends_at(event: object) -> None:
    text = getattr(event, "text", "")
    if "has no score energy" in text:
        raise Said(text)


def test_both_say_so_before_the_work(scored, tmp_path):
    assert effnet.load(scored).config.known is not None
    with pytest.raises(Said, match="quantized bundle has no score energy"):
        effnet.quantize(shutil.copytree(scored, tmp_path / "q"), data="digits", listener=ends_at)
    with pytest.raises(Said, match="pruned bundle has no score energy"):
        effnet.prune(scored, data="digits", out=tmp_path / "p", macs=0.5, listener=ends_at)


def test_without_a_score_nothing_is_said(tmp_path):
    with pytest.raises(effnet.errors.InputError, match="must be above 0"):
        effnet.prune(make_bundle(tmp_path / "b"), data="digits", out=tmp_path / "p", macs=7.0, listener=ends_at)
