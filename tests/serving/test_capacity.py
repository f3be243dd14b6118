"""The simulation of servers against the formulas of queueing theory, and the plan that is made with it."""

import math

import numpy as np
import pytest

from effnet.serving.plan.capacity import plan, text_of
from effnet.serving.plan.simulate import Fleet, Service, poisson, simulate


def exponential(mean: float) -> Service:
    """Return engines whose time for an image is exponentially distributed."""
    share = (np.arange(2_000) + 0.5) / 2_000
    return Service(decode=[0.0], run={1: list(-mean * np.log(share))})


def arrivals(rate: float, count: int, seed: int = 1) -> np.ndarray:
    return poisson(rate, seconds=count / rate, rng=np.random.default_rng(seed))


def test_one_engine_is_an_m_m_1_queue():
    """The time in it is exponential, of rate 1 / mean - arrivals. Source: Kleinrock 1975, equation 5.118."""
    found = simulate(
        arrivals(60.0, 40_000), exponential(0.01), Fleet(replicas=1, engines=1, deadline_s=1e6, queue=10**6)
    )
    assert found.answered == 1
    assert found.busy == pytest.approx(0.6, rel=0.03)
    assert found.p50_s == pytest.approx(math.log(2) / 40, rel=0.06)
    assert found.p99_s == pytest.approx(math.log(100) / 40, rel=0.12)


@pytest.mark.parametrize("engines, queue", [(1, 3), (2, 4)])
def test_a_full_queue_refuses_as_an_m_m_c_k_queue(engines, queue):
    """Source: Kleinrock 1975, the birth-death chain of section 3.3."""
    rate, mean = 150.0, 0.01
    states = [1.0]
    for number in range(1, engines + queue + 1):
        states.append(states[-1] * rate * mean / min(number, engines))
    fleet = Fleet(replicas=1, engines=engines, deadline_s=1e6, queue=queue)
    found = simulate(arrivals(rate, 15_000), exponential(mean), fleet)
    assert found.refused == pytest.approx(states[-1] / sum(states), rel=0.15)
    assert found.overdue == 0


def test_replicas_at_random_are_alone_and_the_least_loaded_is_better():
    service = exponential(0.01)
    alone = simulate(arrivals(80.0, 10_000), service, Fleet(replicas=1, engines=1, deadline_s=1e6, queue=10**6))
    four, least = (
        simulate(
            arrivals(320.0, 10_000), service,
            Fleet(replicas=4, engines=1, deadline_s=1e6, queue=10**6, balance=balance),
        )
        for balance in ("random", "least")
    )  # fmt: skip
    assert four.p50_s == pytest.approx(alone.p50_s, rel=0.2)
    assert least.p99_s < 0.6 * four.p99_s


def test_in_an_overload_the_goodput_is_the_capacity_and_latency_stays_below_the_deadline():
    service = Service(decode=[0.002], run={1: [0.008], 2: [0.012]}, other=0.001)
    found = simulate(
        arrivals(3 * 2 / 0.008, 10_000), service, Fleet(replicas=1, engines=2, deadline_s=0.2, queue=10**4)
    )
    assert found.goodput == pytest.approx(2 / 0.008, rel=0.05)
    assert found.p99_s < 0.2 + 2 * 0.016
    assert found.refused == pytest.approx(2 / 3, abs=0.03)


def test_a_plan_is_the_least_number_that_is_enough():
    service = exponential(0.01)
    found = plan(1_000.0, service, engines=2, deadline_s=0.2, requests=2_000)
    assert 5 < found.replicas < 10, "5 would be busy all the time"
    enough = {row.replicas: row.enough for row in found.rows}
    assert enough[found.replicas]
    assert not any(ok for replicas, ok in enough.items() if replicas < found.replicas)
    text = text_of(found)
    assert f"1,000 images a second need {found.replicas} replicas of 2 cores" in text
    assert len([line for line in text.splitlines() if line.endswith(("yes", "no"))]) == len(found.rows)


def test_a_million_images_a_minute_scale_as_a_few_do():
    service = exponential(0.01)
    few, many = (
        plan(rate, service, engines=2, deadline_s=0.2, requests=2_000).replicas for rate in (1_000.0, 1e6 / 60)
    )
    assert many == pytest.approx(few * 1e3 / 60, rel=0.15)


def test_a_deadline_below_the_service_is_said():
    found = plan(10.0, Service(decode=[0.1], run={1: [0.5]}), engines=1, deadline_s=0.05, requests=200)
    assert "raise --deadline-ms" in text_of(found)


def test_the_command_measures_and_prints_a_plan(run_cli, bundles):
    done = run_cli("serve", bundles / "tiny", "--plan", "100", "--workers", "1")
    assert done.code == 0, done.err
    assert "100 images a second need" in done.out
    bad = run_cli("serve", bundles / "tiny", "--plan", "100", "--set", "serve.plan_image=nowhere.jpg")
    assert bad.code == 2
    assert "plan_image must be an image" in bad.err
