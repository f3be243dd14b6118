"""How many replicas answer a rate of images within the deadline: the least that a simulation finds enough."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from effnet.serving.plan.simulate import Fleet, Outcome, Service, poisson, simulate

# A plan is enough if all but one in a thousand are answered, and 99 of 100 within the deadline.
_ANSWERED = 0.999
_REQUESTS, _SHARES = 10_000, (0.9, 1.0, 1.1, 1.25, 1.5, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One number of replicas, and what a simulation of one of them says."""

    replicas: int
    outcome: Outcome
    enough: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The least number of replicas that is enough, and the numbers around it."""

    rate: float
    deadline_s: float
    service: Service
    engines: int
    replicas: int
    rows: tuple[Row, ...]


def plan(
    rate: float,
    service: Service,
    *,
    engines: int,
    deadline_s: float,
    queue: int = 64,
    delay_s: float = 0.0,
    requests: int = _REQUESTS,
) -> Plan:
    """Return the replicas that `rate` images a second need, if a balancer spreads them at random.

    Requests that come independently of each other, and are spread at random, come to each replica as if it were alone:
    one is simulated, with `requests` at its share of the rate. A balancer that knows the open requests of each does
    better.
    """

    @functools.cache
    def row(replicas: int) -> Row:
        share = rate / replicas
        arrivals = poisson(share, seconds=requests / share, rng=np.random.default_rng(0))
        fleet = Fleet(replicas=1, engines=engines, deadline_s=deadline_s, queue=queue, delay_s=delay_s)
        found = simulate(arrivals, service, fleet)
        return Row(
            replicas=replicas, outcome=found, enough=found.answered >= _ANSWERED and found.p99_s <= deadline_s
        )  # fmt: skip

    low = max(1, math.floor(rate * service.image_seconds / engines))
    high = low
    while not row(high).enough:
        if high > 64 * low:
            break  # one image alone takes longer than the deadline
        low, high = high, 2 * high
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if row(middle).enough else (middle + 1, high)
    numbers = sorted({max(1, round(share * high)) for share in _SHARES})
    return Plan(
        rate=rate, deadline_s=deadline_s, service=service, engines=engines, replicas=high,
        rows=tuple(row(number) for number in numbers),
    )  # fmt: skip


def text_of(found: Plan) -> str:
    """Return a plan for people."""
    service, engines = found.service, found.engines
    decode, best = 1e3 * float(np.mean(service.decode)), 1e3 * service.image_seconds
    lines = [
        f"An image takes an engine {best:.2f} ms: {decode:.2f} to decode, {best - decode:.2f} to run, in batches of up "
        f"to {service.largest}.",
        f"{engines} engines a replica: at most {engines / service.image_seconds:,.0f} images a second.",
        "",
        *_table(found.rows, found.deadline_s),
        "",
    ]
    deadline = f"{1e3 * found.deadline_s:,.0f} ms"
    if any(row.enough for row in found.rows if row.replicas == found.replicas):
        lines += [
            f"{found.rate:,.0f} images a second need {found.replicas:,} replicas of {engines} cores, "
            f"{found.replicas * engines:,} cores: 99 of 100 are answered within {deadline}.",
            "Add as many as may fail, or be updated, at once.",
        ]
    else:
        lines.append(
            f"no number of replicas answers within {deadline}: raise --deadline-ms, or serve a faster model"
        )  # fmt: skip
    return "\n".join(lines)


def _table(rows: Sequence[Row], deadline_s: float) -> list[str]:
    head = ("replicas", "cores busy", "p50 ms", "p99 ms", "refused", "enough")
    found = [
        (
            f"{row.replicas:,}", f"{row.outcome.busy:.0%}", f"{1e3 * row.outcome.p50_s:.1f}",
            f"{1e3 * row.outcome.p99_s:.1f}", f"{row.outcome.refused + row.outcome.overdue:.2%}",
            "yes" if row.enough else "no",
        )
        for row in rows
    ]  # fmt: skip
    widths = [max(len(cell) for cell in column) for column in zip(head, *found, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in (head, *found)]
