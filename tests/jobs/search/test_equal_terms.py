"""Networks of a search on equal terms: trained for equal time, and each as wide as its measured figures allow."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from devices import timing

import effnet
from effnet.arch.codec import spec_to_dict
from effnet.arch.cost import cost
from effnet.errors import InputError
from effnet.jobs.search import final
from effnet.jobs.search.config import SearchConfig
from effnet.jobs.search.plan import _finalists, _shares, slowness_of
from effnet.jobs.search.widths import as_wide_as_allowed
from effnet.jobs.search.worker import Worker
from effnet.measurement.budget import Budget
from effnet.nas.generations import Generations
from effnet.nas.policy import Policy
from effnet.nas.spaces.genomes import generator, sample
from effnet.nas.spaces.macro import macro_space

BUDGET = Budget(latency_ms=1.0)


def space():
    return macro_space(
        "b0", num_classes=10, channels=3, short_side=32, budget=BUDGET.with_margin(),
        predictors={"latency_ms": lambda spec: cost(spec).macs * 1e-7},
    )  # fmt: skip


def worker(measure=None, **changes):
    made = space()
    job = SimpleNamespace(budget=BUDGET, config=SearchConfig("unread", max_latency_ms=1.0, **changes))
    source = SimpleNamespace(dataset=SimpleNamespace(train=range(5000)))
    plan = SimpleNamespace(precision="fp32")
    return Worker(
        job=job, source=source, study=None, plan=plan, space=made, references={}, scaled=(), extent=None,
        slowness=lambda spec: spec.resolution / 32, measure=measure,
    )  # fmt: skip


def genome_of(found):
    genomes = (sample(found.space.decisions, rng=generator(0, 0, slot)) for slot in range(50))
    return next(genome for genome in genomes if found.space.network(genome) is not None)


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.0, 1.3])
def test_a_finalist_is_as_wide_as_its_measured_latency_allows(factor):
    measured = []

    def measure(candidate):
        measured.append(candidate.spec)
        return timing(factor * candidate.cost.macs * 1e-7)

    found = worker(measure)
    genome = genome_of(found)
    spec, figures = as_wide_as_allowed(found, genome)
    share = BUDGET.with_margin().share(figures)
    assert 0.9 <= share <= 1.05
    assert figures["latency_ms"] == pytest.approx(factor * cost(spec).macs * 1e-7)
    assert measured[0] == found.spec(genome)
    if factor == 1.0:
        assert measured == [spec]
    else:
        assert (cost(spec).macs > cost(measured[0]).macs) == (factor < 1)
        assert len(measured) <= 4


def test_a_network_whose_latency_does_not_follow_its_width_stays_within_the_budget():
    answers = iter((0.5, 1.2, 1.1, 1.0))
    found = worker(lambda candidate: timing(next(answers)))
    _, figures = as_wide_as_allowed(found, genome_of(found))
    assert figures["latency_ms"] == 0.5


@pytest.mark.parametrize("power", [0.5, 1.0, 1.8])
@pytest.mark.parametrize("factor", [0.3, 1.0, 2.5])
def test_predictions_that_are_far_off_are_mended_by_a_few_measurements(power, factor):
    """A search uses nearly all of its budget, though latencies grow otherwise with the width than predicted."""
    found, shares = worker(lambda candidate: timing(factor * (candidate.cost.macs * 1e-7) ** power)), []
    genomes = [sample(found.space.decisions, rng=generator(1, 0, slot)) for slot in range(30)]
    for genome in [each for each in genomes if found.space.network(each) is not None][:6]:
        _, figures = as_wide_as_allowed(found, genome)
        shares.append(BUDGET.with_margin().share(figures))
    assert all(0.6 < share <= 1.05 for share in shares)
    assert np.median(shares) > 0.93


def test_what_trains_slowly_sees_fewer_images():
    found = worker()
    fast, usual, slow = (dataclasses.replace(effnet.get_spec("b0"), resolution=side) for side in (16, 32, 64))
    assert found.views(usual, 1000, 9) == {"images": 1000, "epochs": 9}
    assert found.views(fast, 1000, 9) == {"images": 2000, "epochs": 9}
    assert found.views(slow, 1000, 9) == {"images": 500, "epochs": 9}
    assert found.views(fast, 4000, 9) == {"images": 5000, "epochs": 14}, "all images, in more epochs"
    assert worker(strict_paper=True, objective="product").views(slow, 1000, 9) == {"images": 1000, "epochs": 9}


def test_slowness_is_relative_to_the_usual_network_and_bounded():
    specs = [effnet.scale("b0", phi=phi, resolution=32) for phi in (-8, -6, -4, -2, 0)]
    timed = [{"spec": spec_to_dict(spec), "ms": cost(spec).macs * 1e-7} for spec in specs]
    slowness = slowness_of(timed)
    assert slowness(specs[2]) == 1.0
    assert slowness(specs[0]) < slowness(specs[1]) < 1 < slowness(specs[3])
    assert slowness(effnet.scale("b0", phi=8, resolution=32)) == 3.0
    assert slowness_of(())(specs[0]) == 1.0


@pytest.mark.parametrize(("epochs", "networks"), [(110, 2), (160, 3), (210, 4), (9999, 4)])
def test_a_final_has_as_many_networks_as_can_be_trained_to_their_end(epochs, networks):
    assert _finalists(Policy(), epochs, most=200, minutes=60) == networks


def test_a_final_without_time_for_two_networks_names_the_minutes():
    with pytest.raises(InputError, match="for 50 epochs each, about 100 minutes here; got 80"):
        _finalists(Policy(), 80, most=200, minutes=80)


@pytest.mark.parametrize(
    ("left", "epochs", "seeds"),
    [(400, [10, 20], 1), (1200, [30, 60], 1), (4000, [60, 60], 2), (10**6, [60, 60], 2), (1, [1, 1], 1)],
)
def test_trainings_of_the_final_take_equal_time_up_to_all_worthwhile_epochs(monkeypatch, left, epochs, seeds):
    """An epoch of the first takes 18 s, one of the other 9."""
    monkeypatch.setattr(final, "_epoch_seconds", lambda worker, genome: {(0,): 18.0, (1,): 9.0}[genome])
    found = dataclasses.replace(
        worker(),
        plan=SimpleNamespace(most_epochs=60, proving=0.1),
        job=SimpleNamespace(
            deadline=SimpleNamespace(left=lambda: left + 100, seconds=1000),
            config=SearchConfig("unread"),
            procedure=SimpleNamespace(search=Policy()),
        ),
        study=SimpleNamespace(in_turn=lambda units, do: {unit: do(unit) for unit in units}),
        extent=Generations(key="", total=10, size=5),
    )
    assert final._settled(found, [(0,), (1,)]) == (dict(zip([(0,), (1,)], epochs, strict=True)), seeds)


def test_what_the_final_does_not_need_is_for_searching():
    policy = Policy()
    assert _shares(policy, 2.0) == pytest.approx((policy.searching, policy.deciding))
    searching, deciding = _shares(policy, 0.1)
    assert deciding == 0.1
    assert searching + deciding == pytest.approx(policy.searching + policy.deciding)
