import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from searched import trained

from effnet.errors import InputError
from effnet.measurement.budget import LABELS, Budget
from effnet.nas.objective import Objective, calibrated_weight, published_search_cost

ACCURACIES, COSTS = st.floats(0.05, 1.0), st.floats(1.0, 1e10)
NETWORKS = st.lists(st.tuples(ACCURACIES, COSTS), min_size=2, max_size=20)


@given(NETWORKS, COSTS, COSTS, st.floats(-1, 0))
def test_the_target_cannot_change_the_winner_of_the_published_reward(networks, first, second, weight):
    """ACC x (c/T)^w = T^-w x ACC x c^w: whatever T is, the scores have the same ratios."""
    scores = []
    for target in (first, second):
        objective = Objective(form="product", target=target, alpha=weight, beta=weight)
        scores.append(np.log([objective.score(accuracy, figures={"macs": cost}) for accuracy, cost in networks]))
    assert np.ptp(scores[0] - scores[1]) < 1e-9


@given(ACCURACIES, COSTS, COSTS)
def test_the_hard_form_is_accuracy_up_to_the_target_and_falls_above_it(accuracy, cost, target):
    """MnasNet's alpha 0, beta -1 is TuNAS' mnas_hard: q min((c/c0)^b, 1)."""
    objective = Objective(form="product", figure="latency_ms", target=target, alpha=0.0, beta=-1.0)
    score = objective.score(accuracy, figures={"latency_ms": cost})
    assert score == pytest.approx(accuracy * min(1.0, target / cost))


@given(ACCURACIES, st.floats(0.01, 10), st.sampled_from(sorted(LABELS)))
def test_the_absolute_form_is_best_at_the_target(accuracy, ratio, figure):
    objective = Objective(form="absolute", figure=figure, target=3.0)
    at, off = (objective.score(accuracy, figures={figure: 3.0 * r}) for r in (1.0, ratio))
    assert at == accuracy
    assert off == pytest.approx(accuracy - 0.07 * abs(ratio - 1))


def test_cross_entropy_decides_between_equal_accuracies_alone():
    objective = Objective()
    scores = [objective.score(a, figures={}, nll=nll) for a, nll in ((0.9, 0.2), (0.9, 0.5), (0.9001, math.inf))]
    assert scores[2] > scores[0] > scores[1]


def test_a_network_above_the_budget_is_admitted_only_by_the_published_search():
    budget = Budget(macs=100)
    published = Objective(form="product", target=100, strict_paper=True)
    for objective, above in ((Objective(), False), (Objective(form="absolute", target=100), False), (published, True)):
        assert objective.admits({"macs": 100.0}, budget=budget)
        assert objective.admits({"macs": 101.0}, budget=budget) is above


def test_the_published_search_says_what_it_cost():
    budget = Budget(macs=100)
    past = [trained((0,), 0.5, figures={"macs": 90.0}), trained((1,), 0.6, figures={"macs": 120.0}, share=0.5)]
    text = published_search_cost(past, budget=budget)
    assert text.startswith("The published reward trained 1 of 2 networks above the budget (MACs 100), 33.33% of")
    assert published_search_cost(past[:1], budget=budget) == ""


@pytest.mark.parametrize("target", [30e6, 40e6, 50e6, 60e6, 70e6])
def test_the_calibrated_reward_settles_around_the_target(target, shared_data):
    """On NAS-Bench-Macro: with the published exponent it settles at 34 M MACs, whatever the target is."""
    path = shared_data("nas_bench_macro") / "nas-bench-macro_cifar10.json"
    rows = json.loads(path.read_text(encoding="utf-8")).values()
    networks = [(row["mean_acc"] / 100, float(row["flops"])) for row in rows]
    below, above = (max(a for a, cost in networks if cost <= target * factor) for factor in (0.5**0.5, 2**0.5))
    weight = calibrated_weight(below, above)
    calibrated = Objective(form="product", target=target, alpha=weight, beta=weight)

    def winner(objective):
        return max(networks, key=lambda network: objective.score(network[0], figures={"macs": network[1]}))[1]

    assert 0.8 <= winner(calibrated) / target <= 1.19
    assert winner(Objective(form="product", target=target)) == pytest.approx(33.6e6, rel=0.01)


def test_the_calibration_follows_its_formula():
    assert calibrated_weight(0.8, 0.84) == pytest.approx(-math.log2(1.05))
    assert calibrated_weight(0.8, 0.7) == 0.0
    with pytest.raises(InputError, match="above 0 and be at most 1"):
        calibrated_weight(0.0, 0.9)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"form": "sum"}, "one of accuracy, product, absolute; got 'sum'"),
        ({"form": "product", "figure": "energy"}, "cost must be one of"),
        ({"form": "product", "target": 0}, "target must be above 0"),
        ({"form": "product", "alpha": 0.1}, "exponents must be at most 0"),
        ({"strict_paper": True}, "accuracy needs a hard limit"),
    ],
)
def test_an_objective_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        Objective(**fields)
