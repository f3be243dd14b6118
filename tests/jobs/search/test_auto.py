"""fit with search=auto: a search where it can pay, else a plain fit that says why."""

import time
from types import SimpleNamespace

import pytest
from procedures import fit

from effnet.errors import DataError, InputError
from effnet.jobs.search import auto


def options(tmp_path, said, **changes):
    return {"search": "auto", "epochs": None, "out": tmp_path / "out", "listener": said.append} | changes


@pytest.fixture
def tried(monkeypatch):
    """The options of searches, which end as `tried.ends` says."""

    class Tried(list):
        ends: object = "found"
        seconds = 0.0

    found = Tried()

    def search(data, **options):
        found.append(options)
        time.sleep(found.seconds)
        if isinstance(found.ends, Exception):
            raise found.ends
        return found.ends

    monkeypatch.setattr(auto, "search", search)
    return found


def test_a_search_gets_the_options_of_the_fit(tried, tmp_path):
    given = options(tmp_path, [], max_latency_ms=1.0, minutes=45.0, seed=3)
    assert fit("digits", **given) == "found"
    (got,) = tried
    assert (got["max_latency_ms"], got["minutes"], got["seed"]) == (1.0, 45.0, 3)
    assert not got.keys() & {"search", "strategy", "trials"}
    assert got["procedure"].search.least_worth == 1.0, "it divides no time that one training needs"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"max_latency_ms": None, "minutes": 45.0}, "it has no budget"),
        ({"minutes": 0.05}, "it needs --minutes of at least 30"),
        ({"minutes": 45.0, "strategy": "head"}, "trains the published network as it is"),
    ],
)
def test_what_cannot_pay_is_fitted_plainly_with_the_reason(tried, tmp_path, changes, reason, monkeypatch):
    said = []
    monkeypatch.setattr("effnet.jobs.fit.api._run", lambda config, **_: "fitted")
    assert fit("digits", **options(tmp_path, said, max_latency_ms=1.0) | changes) == "fitted"
    assert not tried
    assert reason in said[0].text


@pytest.mark.parametrize(
    "error", [DataError("a search from scratch needs more. Add it"), InputError("a search needs time. Give more")]
)
def test_a_search_that_is_refused_becomes_a_plain_fit(tried, tmp_path, error, monkeypatch):
    said, tried.ends = [], error
    monkeypatch.setattr("effnet.jobs.fit.api._run", lambda config, **_: "fitted")
    assert fit("digits", **options(tmp_path, said, max_latency_ms=1.0, minutes=45.0)) == "fitted"
    assert said[0].text == f"Fitting without a search: {str(error).partition('. ')[0]}"


def test_the_time_of_a_refused_search_is_part_of_the_minutes(tried, tmp_path, monkeypatch):
    """The fit began its minutes again after it."""
    monkeypatch.setattr("effnet.jobs.fit.run.fit_data", lambda job, *_, **__: job.deadline.left())
    tried.ends, tried.seconds = InputError("a search needs time"), 0.5
    left = fit("digits", **options(tmp_path, [], max_latency_ms=1.0, minutes=45.0)).report
    assert left <= 60 * 45 - 0.5


@pytest.mark.parametrize(("made_by", "searches"), [({"trials": 8}, 0), ({"algorithm": "assemble"}, 1)])
def test_a_fit_that_was_begun_without_a_search_resumes_without_one(tried, tmp_path, monkeypatch, made_by, searches):
    monkeypatch.setattr("effnet.jobs.fit.api._run", lambda config, **_: "fitted")
    monkeypatch.setattr(auto, "read_plan", lambda out: SimpleNamespace(options=made_by))
    fit("digits", **options(tmp_path, [], max_latency_ms=1.0, minutes=45.0, resume=True))
    assert len(tried) == searches


def test_bad_data_are_not_hidden_by_a_plain_fit(tried, tmp_path):
    tried.ends = DataError("no images")
    with pytest.raises(DataError, match="no images"):
        fit("digits", **options(tmp_path, [], max_latency_ms=1.0, minutes=45.0))


def test_wrong_options_are_not_hidden_by_a_plain_fit(tried, tmp_path):
    tried.ends = InputError("threads must be at least 1; got 0")
    with pytest.raises(InputError, match="threads must be"):
        fit("digits", **options(tmp_path, [], max_latency_ms=1.0, minutes=45.0))
