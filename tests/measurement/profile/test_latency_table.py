import random
import statistics

import numpy as np
import pytest
from made_up import latency_ms, make_profile, memory_mb
from scipy.optimize import nnls

from effnet.arch.catalog import get_spec
from effnet.arch.cost import cost
from effnet.errors import InputError
from effnet.measurement.profile.networks import is_mixture, profile_networks, random_network
from effnet.measurement.profile.regression import non_negative_least_squares
from effnet.measurement.profile.table import LinearModel, fit_latency, left_out_error, predict


@pytest.fixture(scope="module")
def others():
    """Networks that are in no profile of these tests."""
    known = {row.spec for row in make_profile().measured}
    rng = random.Random(4242)
    found = [random_network(rng) for _ in range(30)]
    assert not known & set(found)
    return found


def errors(profile, specs, precision="fp32"):
    predicted = [predict(spec, profile, precision=precision) for spec in specs]
    latency = [abs(p.latency_ms / latency_ms(s) - 1) for p, s in zip(predicted, specs, strict=True)]
    memory = [abs(p.memory_mb / memory_mb(s) - 1) for p, s in zip(predicted, specs, strict=True)]
    return statistics.median(latency), statistics.median(memory)


def test_a_device_that_follows_the_sum_is_recovered_in_networks_never_measured(others):
    latency, memory = errors(make_profile(), others)
    assert latency < 0.02
    assert memory < 0.02


def test_times_that_other_processes_lengthened_do_not_mislead(others):
    latency, _ = errors(make_profile(noise=0.05), others)
    assert latency < 0.06


def test_outliers_are_seen_through(others):
    specs = [row.spec for row in make_profile().measured]
    rng = np.random.default_rng(1)
    times = [latency_ms(spec) * (3.0 if rng.random() < 0.1 else 1.0) for spec in specs]
    model = fit_latency(specs, times)
    assert statistics.median(abs(model.predict(s) / latency_ms(s) - 1) for s in others) < 0.04


def test_a_larger_network_is_predicted_to_take_longer_also_beyond_what_was_measured():
    profile = make_profile()
    latencies = [predict(get_spec(name), profile).latency_ms for name in ("lite0", "b2", "b4")]
    assert latencies == sorted(latencies)
    assert latencies[-1] == pytest.approx(latency_ms(get_spec("b4")), rel=0.25)


def test_a_precision_that_was_not_measured_is_refused():
    with pytest.raises(InputError, match="measured in int8; it was in fp32"):
        predict(get_spec("lite0"), make_profile(), precision="int8")


def test_each_precision_has_its_own_predictions(others):
    profile = make_profile(precision="int8")
    assert errors(profile, others, "int8")[0] < 0.02


def test_the_error_within_a_profile_is_that_of_networks_left_out():
    rows = make_profile(noise=0.3).measured
    error = left_out_error(
        rows, fit=fit_latency, value=lambda row: row.latency_ms, counts=lambda row: not is_mixture(row.spec)
    )
    model = fit_latency([row.spec for row in rows], [row.latency_ms for row in rows])
    seen = statistics.median(
        abs(model.predict(row.spec) / row.latency_ms - 1) for row in rows if not is_mixture(row.spec)
    )
    assert error > seen > 0
    assert left_out_error(rows[:5], fit=fit_latency, value=lambda r: r.latency_ms, counts=lambda r: True) is None


def test_least_squares_without_negative_rates_equal_scipys():
    rng = np.random.default_rng(0)
    for _ in range(20):
        matrix, target = rng.normal(size=(30, 12)), rng.normal(size=30)
        ours = non_negative_least_squares(matrix, target, ridge=1e-12)
        assert ours == pytest.approx(nnls(matrix, target)[0], abs=1e-6)
        assert (ours >= 0).all()


def test_the_networks_of_a_profile_are_always_the_same_and_each_once():
    specs = profile_networks(networks=30, mixtures=20)
    assert specs == profile_networks(networks=30, mixtures=20)
    assert len(set(specs)) == len(specs) == 50
    assert specs[0] != specs[1]
    kinds = [is_mixture(spec) for spec in specs[:10]]
    assert 3 <= sum(kinds) <= 7
    assert {spec.activation for spec in specs} == {"silu", "relu", "relu6", "hard_swish"}
    assert max(cost(spec).macs for spec in specs if is_mixture(spec)) <= 150_000_000


def test_work_that_no_network_does_has_no_rate():
    specs = [get_spec(name, num_classes=10) for name in ("lite0", "lite1", "lite2", "b0")]
    model = LinearModel(
        specs, [1.0, 2.0, 3.0, 4.0], ridge=1e-3, smooth=False,
        features=lambda spec: {"blocks": float(len(spec.blocks)), "nothing": 0.0},
    )  # fmt: skip
    assert dict(zip(model.names, model.rates, strict=True))["nothing"] == 0
    assert model.predict(specs[0]) > 0
