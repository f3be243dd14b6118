"""A search from pretrained weights: the network's blocks are assembled to meet a budget that it exceeds."""

import pytest
from procedures import UNTIMED

import effnet
from effnet.arch.cost import cost
from effnet.bundle.config import read_config
from effnet.errors import InputError, WeightsError

SHARE = 0.7


def search(out, **options):
    """Search with a budget of MACs, on a device that takes no time."""
    return effnet.search("digits", out=out, epochs=1, minutes=60.0, procedure=UNTIMED, **options)


@pytest.fixture(scope="module")
def limit(small_bundle):
    return SHARE * cost(read_config(small_bundle).arch).macs


@pytest.fixture(scope="module")
def found(small_bundle, limit, tmp_path_factory):
    out = tmp_path_factory.mktemp("assembled") / "out"
    return search(out, max_macs=limit, weights=small_bundle, algorithm="assemble")


def test_the_network_meets_the_budget_and_is_an_ordinary_bundle(found, small_bundle, limit):
    before, after = read_config(small_bundle).arch, read_config(found.folder).arch
    assert cost(after).macs <= limit
    assert len(after.blocks) <= len(before.blocks)
    assert effnet.evaluate(found.model, "digits").accuracy == found.test_accuracy
    assert found.report.honoured is True


def test_the_report_says_what_was_assembled(found, small_bundle):
    searched = found.searched
    assert searched.algorithm == "assemble"
    assert searched.scored >= len(searched.networks) >= 1
    assert searched.base_title == read_config(small_bundle).arch.title
    assert searched.changes
    assert searched.sentence in (found.folder / "report.html").read_text().replace("&#39;", "'")
    assert found.report.training.kept < SHARE + 0.01


def test_a_network_that_meets_the_budget_stays_as_it_is(small_bundle, limit, tmp_path):
    said = []
    found = search(
        tmp_path / "out", max_macs=2 * limit, weights=small_bundle, algorithm="assemble", listener=said.append
    )
    assert read_config(found.folder).arch == read_config(small_bundle).arch
    assert any("meets the budget as it is" in event.text for event in said if hasattr(event, "text"))


def test_assembling_needs_weights_and_one_machine(tmp_path, limit, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError):
        search(tmp_path / "out", max_macs=limit, algorithm="assemble")  # digits are too small for photographs' weights
    with pytest.raises(InputError, match="runs on one machine"):
        search(tmp_path / "other", max_macs=limit, algorithm="assemble", storage=str(tmp_path / "search.log"))
