"""The queue before the engines, with a clock that the tests set."""

import random
from collections import deque
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.serving.batches.batcher import Batcher, Refused


def batcher(**options) -> Batcher[str]:
    found = Batcher(**({"workers": 1, "bound": 4, "deadline_s": 1.0} | options))
    found.expect("a", seconds=0.1, largest=4)
    found.expect("b", seconds=0.1, largest=1)
    return found


def items(batch) -> list[str]:
    return [waiting.item for waiting in batch.requests]


def test_a_batch_is_what_waits_in_order_and_of_one_group():
    found = batcher()
    for item, group in (("1", "a"), ("2", "b"), ("3", "a"), ("4", "a")):
        found.offer(item, group=group, now=0.0)
    assert items(found.take(0.0)) == ["1", "3", "4"]
    assert items(found.take(0.0)) == ["2"]
    assert found.take(0.0) is None


def test_idle_engines_share_what_waits():
    found = batcher(workers=2)
    for item in "1234":
        found.offer(item, group="a", now=0.0)
    assert items(found.take(0.0)) == ["1", "2"], "the other engine is idle, and would wait"
    assert items(found.take(0.0)) == ["3", "4"]


def test_a_batch_is_at_most_the_largest_of_its_group():
    found = batcher(bound=20)
    for item in "123456":
        found.offer(item, group="a", now=0.0)
    assert items(found.take(0.0)) == ["1", "2", "3", "4"]


def test_a_request_of_many_images_runs_alone_and_is_not_lost():
    found = batcher()
    found.offer("many", group="a", images=9, now=0.0)
    found.offer("one", group="a", now=0.0)
    assert items(found.take(0.0)) == ["many"]
    assert items(found.take(0.0)) == ["one"]


def test_a_full_queue_refuses():
    found = batcher(bound=2)
    for item in "12":
        found.offer(item, group="a", now=0.0)
    with pytest.raises(Refused) as refused:
        found.offer("3", group="a", now=0.0)
    assert refused.value.reason == "queue"
    assert len(found) == 2


def test_a_long_expected_wait_refuses_by_time_not_by_count():
    found = batcher(bound=100)
    found.expect("slow", seconds=0.6)
    found.offer("1", group="slow", now=0.0)
    assert found.expected_wait(0.0) == pytest.approx(0.6)
    found.offer("2", group="slow", now=0.0)
    assert found.expected_wait(0.0) == pytest.approx(1.2)
    with pytest.raises(Refused) as refused:
        found.offer("3", group="a", now=0.0)
    assert refused.value.reason == "deadline"
    assert refused.value.retry_s == pytest.approx(1.2 - 1.0 / found.slower), "until the wait is short enough"


def test_the_rest_of_a_running_batch_counts_and_an_idle_engine_means_no_wait():
    found = batcher(workers=2)
    assert found.expected_wait(0.0) == 0
    found.offer("1", group="a", now=0.0)
    found.take(0.0)
    assert found.expected_wait(0.02) == 0, "the second engine is idle"
    found.offer("2", group="a", now=0.02)
    found.take(0.02)
    assert found.expected_wait(0.06) == pytest.approx((0.04 + 0.06) / 2)
    assert found.expected_wait(5.0) == 0, "a batch that is late is not expected to take time that it had"


def test_one_that_waited_longer_than_the_deadline_is_given_up():
    found = batcher()
    found.offer("late", group="a", now=0.0)
    found.offer("good", group="a", now=0.5)
    assert items(found.take(1.2)) == ["good"]
    assert [waiting.item for waiting in found.overdue()] == ["late"]
    assert found.overdue() == []


def test_the_time_of_an_image_follows_what_is_measured():
    found = batcher()
    for turn in range(60):
        found.offer("1", group="a", now=turn)
        found.done(found.take(turn), turn + 0.5)
    assert found.seconds_of("a") == pytest.approx(0.5, rel=0.01)


def test_a_delay_waits_for_a_batch_to_fill_but_no_longer():
    found = batcher(delay_s=0.05, bound=20)
    found.offer("1", group="a", now=0.0)
    assert found.take(0.01) is None
    assert found.pause(0.01) == pytest.approx(0.04)
    assert items(found.take(0.05)) == ["1"]
    for item in "1234":
        found.offer(item, group="a", now=1.0)
    assert items(found.take(1.0)) == ["1", "2", "3", "4"], "it is full"


def test_a_closed_queue_refuses_and_still_runs_what_waits():
    found = batcher()
    found.offer("1", group="a", now=0.0)
    found.close()
    with pytest.raises(Refused) as refused:
        found.check(0.0)
    assert refused.value.reason == "draining"
    assert items(found.take(0.0)) == ["1"]


def test_a_client_that_left_is_not_run():
    found = batcher()
    first = found.offer("1", group="a", now=0.0)
    found.offer("2", group="a", now=0.0)
    assert found.drop(first)
    assert not found.drop(first)
    assert items(found.take(0.0)) == ["2"]
    assert found.expected_wait(0.0) == pytest.approx(0.1)


@pytest.mark.parametrize("longer", [1.0, 1.6])
def test_in_an_overload_what_is_accepted_is_hardly_ever_overdue_and_engines_stay_busy(longer):
    """Images take `longer` than what the batcher learns, and vary: a third of the answers would come too late."""
    rng, now = random.Random(0), 0.0
    found = Batcher(workers=1, bound=1000, deadline_s=1.0)
    found.expect("a", seconds=0.02, largest=1)
    accepted = overdue = idle = 0
    for turn in range(4000):
        for _ in range(3):  # three times the capacity
            with suppress(Refused):
                found.offer("x", group="a", now=now)
                accepted += turn > 1000
        batch = found.take(now)
        overdue += len(found.overdue()) * (turn > 1000)
        idle += batch is None
        if batch is not None:
            found.done(batch, now + 0.02)
            now += 0.02 * longer * rng.choice([0.7, 0.8, 1.0, 1.5])
    assert idle == 0
    assert accepted > 2500
    assert overdue < 0.01 * accepted


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.sampled_from("ab"), st.integers(1, 5)),
        st.tuples(st.just("take")),
        st.tuples(st.just("done"), st.floats(0, 2)),
        st.tuples(st.just("drop"), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.floats(0, 0.7)),
    ),
    max_size=60,
)


@given(
    steps=STEPS, workers=st.integers(1, 3), bound=st.integers(1, 6), delay=st.sampled_from([0.0, 0.1]),
)  # fmt: skip
def test_no_request_is_lost_run_twice_or_out_of_order(steps, workers, bound, delay):
    """Whatever happens, each accepted request is run, given up or dropped, once; the queue never exceeds its bound."""
    found = Batcher(workers=workers, bound=bound, deadline_s=1.0, delay_s=delay)
    found.expect("a", seconds=0.2, largest=4)
    found.expect("b", seconds=0.3, largest=2)
    now, waiting, running, ended = 0.0, {}, deque(), []
    number = 0
    for step in steps:
        match step:
            case ("offer", group, images):
                number += 1
                expected, full = found.expected_wait(now) * found.slower, len(waiting) >= bound
                if full or expected > 1.0:
                    with pytest.raises(Refused, match="queue" if full else "deadline"):
                        found.offer(number, group=group, images=images, now=now)
                else:
                    waiting[number] = found.offer(number, group=group, images=images, now=now)
            case ("take",) if len(running) < workers:
                batch = found.take(now)
                for late in found.overdue():
                    assert now - late.since > 1.0
                    del waiting[late.item]
                    ended.append(late.item)
                assert all(now - each.since <= 1.0 for each in waiting.values())
                if batch is not None:
                    taken = items(batch)
                    assert taken == sorted(taken)
                    same = [n for n, each in waiting.items() if each.group == batch.group]
                    assert same[: len(taken)] == taken, "the first of its group come first"
                    assert taken[0] == min(waiting), "the oldest of all is in it"
                    assert len(taken) == 1 or batch.images <= found._most[batch.group]
                    ended += taken
                    for item in taken:
                        del waiting[item]
                    running.append(batch)
            case ("done", seconds) if running:
                now += seconds
                found.done(running.popleft(), now)
            case ("drop", place) if place < len(waiting):
                item = list(waiting)[place]
                assert found.drop(waiting.pop(item))
                ended.append(item)
            case ("wait", seconds):
                now += seconds
        assert len(found) == len(waiting) <= bound
        assert found.running == sum(len(batch.requests) for batch in running)
    assert len(ended) == len(set(ended))
    assert set(ended).isdisjoint(waiting)
