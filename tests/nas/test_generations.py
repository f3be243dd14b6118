"""A search gives the same history with one worker or several, however often they are killed."""

import multiprocessing
import os
import random
import time

import numpy as np
import pytest
from networks import TinySpace, in_order

from effnet.errors import InputError
from effnet.nas.generations import Generations, is_behind, run_generations
from effnet.nas.history import Trained
from effnet.nas.storage import Waiting
from effnet.nas.study import Unit, open_study, seed_of

EXTENT = Generations(key="a search", total=12, size=3)
SPACE = TinySpace(choices=3, decisions=4)


def quick(said=None):
    return Waiting(say=(said if said is not None else []).append, pause=lambda seconds: time.sleep(0.01))


def train(genome, seed, history):
    """Train in no time: the score depends on the choices, the seed and the history, as a stopped training's does."""
    rungs = (float(np.random.default_rng(seed).random()), float(sum(genome)))
    stopped = is_behind(rungs[0], history, rung=0)
    return {"score": rungs[0] if stopped else sum(rungs), "share": 0.1 if stopped else 1.0, "rungs": rungs}


def run(storage, *, train=train, extent=EXTENT, options=None, **how):
    with open_study(str(storage), waiting=quick(), options=options or {}, key="data") as study:
        return run_generations(study, SPACE, in_order, extent, train=train, **how)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return run(tmp_path_factory.mktemp("alone") / "search.log")


def worker(storage):
    def slowly(genome, seed, history):
        time.sleep(0.03)
        return train(genome, seed, history)

    run(storage, train=slowly)
    os._exit(0)


def start(storage):
    process = multiprocessing.get_context("fork").Process(target=worker, args=(storage,))
    process.start()
    return process


def test_the_history_has_every_generation_in_order(alone):
    assert [(each.generation, each.slot) for each in alone] == [(g, s) for g in range(4) for s in range(3)]
    assert len({each.genome for each in alone}) == 12
    assert all(each.seed == seed_of("a search", each.generation, each.slot) for each in alone)
    assert {each.share for each in alone} == {0.1, 1.0}


@pytest.mark.parametrize("workers", [2, 3])
def test_several_workers_give_the_history_of_one(alone, tmp_path, workers):
    storage = tmp_path / "search.log"
    processes = [start(storage) for _ in range(workers)]
    for process in processes:
        process.join(300)
    assert run(storage, train=None) == alone  # everything is done: nothing is trained again


@pytest.mark.elsewhere
def test_twenty_kills_at_random_moments_change_nothing(alone, tmp_path):
    storage, rng = tmp_path / "search.log", random.Random(0)
    for number in range(20):
        one, other = start(storage), start(storage) if number % 4 == 0 else None
        one.join(rng.uniform(0.02, 0.14))
        for process in filter(None, (one, other)):
            process.kill()
            process.join(300)
    with open_study(str(storage), waiting=quick(), options={}, key="data") as study:
        kept = len(study.results())
    assert kept > 0
    assert run(storage) == alone


def test_a_failing_training_is_free_for_others_at_once(alone, tmp_path):
    def fail(genome, seed, history):
        if history:
            raise OSError("no space left")
        return train(genome, seed, history)

    with pytest.raises(OSError, match="no space"):
        run(tmp_path / "search.log", train=fail)
    assert run(tmp_path / "search.log") == alone


def test_a_search_that_is_late_returns_what_there_is(tmp_path, alone):
    done = []

    def counted(genome, seed, history):
        done.append(genome)
        return train(genome, seed, history)

    assert run(tmp_path / "search.log", train=counted, late=lambda: len(done) >= 4) == alone[:4]


def test_a_small_space_ends_the_search_early(tmp_path):
    extent = Generations(key="a search", total=1600, size=4)
    assert len(run(tmp_path / "search.log", extent=extent)) == 3**4


def test_a_search_with_other_options_is_refused(tmp_path):
    run(tmp_path / "search.log", options={"seed": 0, "algorithm": "random"})
    with pytest.raises(InputError, match="algorithm was 'random', now 'evolution'"):
        run(tmp_path / "search.log", options={"seed": 0, "algorithm": "evolution"})


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "search.log").write_text("{\n{\n")
    with pytest.raises(InputError, match=r"search\.log must hold a search; it cannot be read"):
        run(tmp_path / "search.log")


def test_a_worker_of_another_machine_is_taken_over_when_it_is_silent(tmp_path):
    """Its signs of life are counted by this process's clock, so a clock that jumps cannot end it."""
    now = [0.0]
    waiting = Waiting(say=[].append, clock=lambda: now[0], pause=lambda seconds: None, silent_seconds=100.0)
    with open_study(str(tmp_path / "search.log"), waiting=waiting, options={}, key="") as study:
        far = study._study.ask()
        far.set_user_attr("worker", "of another machine")
        far.set_user_attr("unit", [0, 0])
        assert study.work(Unit(0, 0), lambda: {"score": 1.0}) is None
        now[0] = 90.0
        far.set_user_attr("beat", 1)
        assert study.work(Unit(0, 0), lambda: {"score": 1.0}) is None
        now[0] = 180.0
        assert study.work(Unit(0, 0), lambda: {"score": 1.0}) is None
        now[0] = 300.0
        assert study.work(Unit(0, 0), lambda: {"score": 1.0}) == {"score": 1.0}
        assert study.results() == {Unit(0, 0): {"score": 1.0}}


def test_a_training_is_behind_if_it_is_below_the_best_two_thirds_and_later_below_the_best_third():
    history = [Trained(genome=(i,), generation=0, slot=i, seed=0, score=0.0, rungs=(i / 10,) * 2) for i in range(9)]
    values = (0.0, 0.2, 0.3, 0.5, 0.6, 0.9)
    assert [is_behind(value, history, rung=0) for value in values] == [True, True, False, False, False, False]
    assert [is_behind(value, history, rung=1) for value in values] == [True, True, True, True, False, False]
    assert not is_behind(0.0, history[:2], rung=0)
    assert not is_behind(0.0, history, rung=2)


def test_seeds_differ_and_are_the_same_everywhere():
    assert len({seed_of("a search", g, s) for g in range(50) for s in range(5)}) == 250
    assert 0 <= seed_of("x") < 2**31
