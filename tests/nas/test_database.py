"""A search whose storage is a PostgreSQL server: workers share it, and wait while it does not answer."""

import multiprocessing
import os
import threading
import time

import pytest
from networks import TinySpace, in_order
from postgres import Postgres

from effnet.errors import InputError
from effnet.nas.generations import Generations, run_generations
from effnet.nas.storage import Waiting
from effnet.nas.study import open_study

pytestmark = pytest.mark.elsewhere
EXTENT = Generations(key="a search", total=9, size=3)
SPACE = TinySpace(choices=3, decisions=3)


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("pg8000")
    found = Postgres()
    yield found
    found.remove()


@pytest.fixture
def storage(server):
    """An empty database."""
    import pg8000.native

    connection = pg8000.native.Connection("effnet", host="127.0.0.1", port=server.port, database="postgres")
    connection.run("DROP SCHEMA public CASCADE")
    connection.run("CREATE SCHEMA public")
    connection.close()
    return server.url


def train(genome, seed, history):
    time.sleep(0.05)
    return {"score": float(sum(genome) + seed % 7)}


def run(storage, *, said=None, train=train, options=None):
    waiting = Waiting(say=(said if said is not None else []).append, pause=lambda seconds: time.sleep(0.05))
    with open_study(storage, waiting=waiting, options=options or {}, key="data") as study:
        return run_generations(study, SPACE, in_order, EXTENT, train=train)


def worker(storage):
    run(storage)
    os._exit(0)


def test_several_workers_give_the_history_of_one(storage, tmp_path):
    processes = [multiprocessing.get_context("fork").Process(target=worker, args=(storage,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert run(storage, train=None) == run(str(tmp_path / "search.log"))


def test_a_worker_waits_for_a_database_that_dies_and_goes_on(server, storage, tmp_path):
    done, said = [], []

    def counted(genome, seed, history):
        done.append(genome)
        if len(done) == 4:
            server.stop()
            threading.Timer(1.0, server.start).start()
        return train(genome, seed, history)

    found = run(storage, said=said, train=counted)
    assert found == run(str(tmp_path / "search.log"))
    assert any("does not answer" in sentence for sentence in said)
    assert any(sentence.endswith("answers again") for sentence in said)
    assert not any("secret" in sentence for sentence in said)


def test_a_search_with_other_options_is_refused_without_its_password(storage):
    run(storage, options={"seed": 0})
    with pytest.raises(InputError, match="seed was 0, now 1") as caught:
        run(storage, options={"seed": 1})
    assert "secret" not in str(caught.value)
