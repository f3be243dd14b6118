"""Fits that modify a network already trained on these classes: fewer channels, another activation."""

from pathlib import Path

import pytest
from devices import timing
from procedures import UNTIMED, fit, made_up

from effnet.arch.cost import cost
from effnet.bundle.config import read_config
from effnet.errors import BudgetError
from effnet.jobs.fit.config import FitConfig
from effnet.jobs.fit.job import job_of
from effnet.jobs.fit.prune import learning_minutes
from effnet.planner.events import Said
from effnet.planner.pretrained import changes_of, list_pretrained, offer_of, slimmed
from effnet.planner.settings import PRUNING_SHARE
from effnet.weights.pretrained import load_pretrained

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", autouse=True)
def tiny():
    """Widths of a tiny network are pruned in multiples of four, and fine-tuning is short."""
    with pytest.MonkeyPatch.context() as patch:
        for place in ("planner.pretrained", "jobs.fit.prune"):
            patch.setattr(f"effnet.{place}.vector_width", lambda: 4)
        slimmed.cache_clear()
        yield
    slimmed.cache_clear()


def device(found):
    """A device that is fast only with ReLU6; 2 ms less a tenth are too little for the whole network even then."""
    per_param = (1.9 if found.spec.activation == "relu6" else 9.0) / cost(found.whole or found.spec).params
    return timing(per_param * found.cost.params)


def fit_changed(bundle, out, **options):
    events = []
    found = fit(
        "digits", weights=bundle, strategy="auto", precision="fp32", max_latency_ms=2, epochs=1, out=out,
        listener=events.append, procedure=made_up(candidate=device), **options,
    )  # fmt: skip
    return found, [event.text for event in events if isinstance(event, Said)]


@pytest.fixture(scope="module")
def changed(small_bundle, tmp_path_factory):
    return fit_changed(small_bundle, tmp_path_factory.mktemp("changed") / "out")


def test_where_only_a_changed_network_keeps_the_budget_it_is_made_and_deployed(changed, small_bundle):
    found, said = changed
    before, after = read_config(small_bundle).arch, read_config(found.folder).arch
    assert (before.activation, after.activation, after.se_gate) == ("silu", "relu6", "hard_sigmoid")
    assert cost(after).params < 0.95 * cost(before).params
    assert found.report.test.accuracy > 0.3  # by chance 0.1
    training = found.report.to_dict()["training"]
    assert (training["kept_of"], training["activation"]) == ("params", "relu6")
    assert cost(after).params <= training["kept"] * cost(before).params
    assert training["recovery_seconds"] > 0
    assert any("Smaller and faster: relu6 as the activation, pruning to" in text for text in said)
    # The report's statements on probabilities hold for the deployed network.
    assert found.report.calibration.temperature == read_config(found.folder).temperature
    assert " Given relu6 as its activation, pruned to" in (found.folder / "README.md").read_text()


@pytest.mark.elsewhere
def test_a_fit_that_was_killed_behind_the_change_goes_on_to_the_same_weights(
    changed, small_bundle, tmp_path, monkeypatch
):
    class Killed(Exception):
        pass

    def killed(bundle: Path, *_, **__):
        (bundle / "config.json").write_text("{}")  # the copy that deployment writes to may be left in any state
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("effnet.jobs.fit.attempt.deploy", killed)
        with pytest.raises(Killed):
            fit_changed(small_bundle, tmp_path / "out")
    found, said = fit_changed(small_bundle, tmp_path / "out", resume=True)
    assert not any("Exporting to ONNX, checking, scoring and timing" in text for text in said)
    for name in ("model.safetensors", "model.onnx"):
        assert (found.folder / name).read_bytes() == (changed[0].folder / name).read_bytes(), name


def test_weights_that_may_know_the_held_out_images_are_not_trusted_with_them(small_bundle, tmp_path):
    """Another seed gives another split: the bundle's own head was trained on images that are now in the test split."""
    events = []
    with pytest.raises(BudgetError):
        fit(
            "digits", weights=small_bundle, seed=1, max_params=0.8 * cost(read_config(small_bundle).arch).params,
            out=tmp_path / "out", listener=events.append, procedure=UNTIMED,
        )  # fmt: skip
    assert any("was trained with split seed 0" in event.text for event in events if isinstance(event, Said))


def test_changes_that_a_network_is_too_small_for_are_left_out(small_bundle, monkeypatch):
    monkeypatch.setattr("effnet.planner.pretrained.vector_width", lambda: 64)
    slimmed.cache_clear()
    offer = offer_of(load_pretrained(str(small_bundle)), num_classes=10, channels=1)
    found = list_pretrained([offer], changes=changes_of(offer.spec, can_train=True))
    assert 1.0 in {c.kept for c in found}
    assert 0.5 not in {c.kept for c in found}
    assert {c.spec.activation for c in found} == {"silu", "relu6", "hard_swish"}
    slimmed.cache_clear()


def test_training_before_a_change_leaves_time_for_what_the_change_needs(small_bundle):
    offer = offer_of(load_pretrained(str(small_bundle)), num_classes=10, channels=1)
    found = list_pretrained([offer], changes=changes_of(offer.spec, can_train=True))
    job = job_of(FitConfig("", minutes=10.0))
    for candidate in found:
        own = candidate.spec.activation == "silu"
        light = own and (candidate.kept == 1 or (candidate.kept_of == "params" and candidate.kept > 0.8))
        assert learning_minutes(candidate, job) == (10 if light else 10 * (1 - PRUNING_SHARE))
