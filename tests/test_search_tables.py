"""The tables of trained networks on which the benchmarks search."""

import io
import pickle

import numpy as np
import pytest

from benchmarks import nas_tables, search_table
from benchmarks.nas_tables import TableSpace, read_macro, search
from effnet.nas.algorithms.by_name import ALGORITHMS, DEFAULT


@pytest.fixture
def table(shared_data):
    return read_macro(shared_data("nas_bench_macro"))


def test_a_search_never_trains_a_network_above_the_limit_nor_one_twice(table):
    space = TableSpace(table=table, limit=40e6)
    history = search(ALGORITHMS[DEFAULT], space, lambda g: table.accuracies[table.rows[g], 0], number=1000, seed=0)
    assert max(table.costs[table.rows[trained.genome]] for trained in history) <= 40e6
    networks = {space.network(genome) for genome in table.rows} - {None}
    assert {space.network(trained.genome) for trained in history} == networks
    assert len(history) == len(networks) < np.count_nonzero(table.costs <= 40e6), "identities may lie elsewhere"


def test_what_a_search_saw_is_not_in_its_result(table):
    space = TableSpace(table=table, limit=60e6)
    history = search(ALGORITHMS["random"], space, lambda g: table.accuracies[table.rows[g], 2], number=20, seed=0)
    best = max(history, key=lambda trained: trained.score)
    seen = table.accuracies[table.rows[best.genome]]
    assert table.honest(history, limit=60e6, seen=2) == pytest.approx((seen[0] + seen[1]) / 2)
    cheapest = min((table.rows[trained.genome] for trained in history), key=lambda row: table.costs[row])
    assert table.honest(history, limit=1.0, seen=2) == pytest.approx(table.accuracies[cheapest, :2].mean())


def test_missed_demands_are_named():
    good = {"random": (90.0, 91.0, 91.1), "surrogate": (91.2, 91.4, 91.5)}
    found = {
        (limit, name): np.tile(good.get(name, (91.0, 91.1, 91.2)), (5, 1))
        for limit in search_table.LIMITS
        for name in ALGORITHMS
    }
    assert search_table.missed_demands(found) == []
    found[60, "surrogate"] = found[60, "surrogate"] - 0.5
    found[80, "evolution"] = found[80, "random"] - 0.06
    missed = search_table.missed_demands(found)
    assert [line.split(":")[0] for line in missed] == ["60 M", "60 M", "60 M", "80 M"]
    assert "evolution is 0.060 below" in missed[-1]


def test_a_table_that_would_run_code_is_refused():
    class Runs:
        def __reduce__(self):
            return print, ("run",)

    with pytest.raises(pickle.UnpicklingError, match=r"plain values only; it names builtins\.print"):
        nas_tables._PlainUnpickler(io.BytesIO(pickle.dumps(Runs()))).load()
