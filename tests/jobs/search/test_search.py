"""A search from images to a bundle: every network within the budget, a final with the best scaled one, one bundle."""

import dataclasses
import functools
import multiprocessing
import os
from types import SimpleNamespace

import numpy as np
import pytest
from devices import timing
from procedures import made_up

import effnet
from effnet.arch.codec import spec_to_dict
from effnet.arch.cost import cost
from effnet.arch.layers import named_layers
from effnet.arch.scale import scale
from effnet.bundle.names import RUN
from effnet.errors import DataError, InputError
from effnet.jobs.fit.job import job_of
from effnet.jobs.fit.reading import read_data
from effnet.jobs.search import final, measured
from effnet.jobs.search.config import SearchConfig
from effnet.jobs.search.run import _final_length
from effnet.jobs.search.trainings import around_best
from effnet.jobs.search.worker import Worker
from effnet.nas.history import Trained
from effnet.nas.policy import Policy
from effnet.nas.study import Unit
from effnet.planner.events import Said
from effnet.progress import EpochEnd
from effnet.report.model import load_report

BUDGET_MS = 0.3
POLICY = Policy(
    size=2, references=1, scaled=1, finalists=1, seeds=2, final_epochs=1, least_train=300, least_val=50, timed=2
)
OPTIONS = {
    "max_latency_ms": BUDGET_MS,
    "trainings": 4,
    "images": 60,
    "epochs": 1,
    "precision": "fp32",
}


def device(**changes):
    """A made-up device, on which latency grows with the MACs alone."""
    found = made_up(lambda path: timing(0.2), candidate=lambda found: timing(found.cost.macs * 1e-6))
    policy = dataclasses.replace(POLICY, **changes)
    return dataclasses.replace(found, search=policy)


@functools.cache
def images():
    """The zeros, ones and twos of scikit-learn's digits, 537 images."""
    from sklearn.datasets import load_digits

    found = load_digits()
    some = found.target < 3
    return effnet.Dataset.from_arrays(
        found.images[some].astype(np.uint8) * 15, found.target[some], class_names=list("012")
    )


def run(out, *, data=None, policy=None, **options):
    return effnet.search(data or images(), out=out, procedure=device(**(policy or {})), **(OPTIONS | options))


@pytest.fixture(scope="module")
def said():
    return []


@pytest.fixture(scope="module")
def found(tmp_path_factory, said):
    return run(tmp_path_factory.mktemp("search") / "out", listener=said.append)


def test_the_result_is_an_ordinary_bundle(found):
    digit = np.zeros((8, 8), np.uint8)
    assert found.model.predict([digit])[0].label in set("012")
    assert found.test_accuracy > 0.2
    assert load_report(found.folder) == found.report
    assert found.report.network.macs * 1e-6 <= BUDGET_MS


def test_every_network_is_scaled_to_the_budget_and_says_its_scores(found):
    searched = found.searched
    assert len(searched.networks) == 1 + 4  # one that fit would choose
    within = [row.figures["latency_ms"] / (0.9 * BUDGET_MS) for row in searched.networks if row.generation >= 0]
    assert all(0.94 < share <= 1.05 for share in within), within
    assert all(row.predicted == () for row in searched.networks), "all are measured"
    assert all(0 <= row.value <= 1 and row.nll > 0 and row.rungs for row in searched.networks)
    assert {row.scaled for row in searched.networks} == {True, False}


def test_the_final_holds_the_best_scaled_network_and_its_winner_is_deployed(found):
    finals = found.searched.finals
    assert [row.scaled for row in finals] == [True, False]
    assert all(len(row.values) == 2 for row in finals)
    (winner,) = [row for row in finals if row.winner]
    assert winner.name == found.report.network.name
    assert winner.scaled is not found.searched.found
    low, high = found.searched.interval
    assert low <= found.searched.gain <= high


def test_the_page_shows_the_search(found):
    page = (found.folder / "report.html").read_text()
    assert "What the search changed" in page
    assert page.count(">taken<") >= 1
    for row in found.searched.networks:
        assert row.title in page


def test_the_command_in_the_report_repeats_the_search(found):
    assert found.report.command.startswith("effnet search DATA --max-latency-ms 0.3 ")
    assert "--set fit.trainings=4" in found.report.command


def test_a_finished_search_resumes_at_once(found):
    again = run(found.folder, resume=True)
    assert again.searched == found.searched


def test_a_folder_with_a_search_is_not_overwritten(found):
    with pytest.raises(InputError, match="add --resume"):
        run(found.folder)


def test_a_search_with_other_options_is_refused(found):
    with pytest.raises(InputError, match="trainings was 4, now 7"):
        run(found.folder, resume=True, trainings=7)


def _worker(out, storage):
    run(out, storage=storage, resume=out.exists())
    os._exit(0)


@pytest.mark.elsewhere
def test_two_workers_killed_at_times_make_the_search_of_one(found, tmp_path):
    """Their trainings run in other processes, at other times, and give the same scores to the last bit."""
    storage = str(tmp_path / "shared" / "search.log")
    for seconds in (6.0, 9.0):  # in the plan or the first trainings; later
        process = multiprocessing.get_context("spawn").Process(target=_worker, args=(tmp_path / "one", storage))
        process.start()
        process.join(seconds)
        process.kill()
        process.join(300)
    again = run(tmp_path / "two", storage=storage)
    assert [dataclasses.asdict(row) for row in again.searched.networks] == [
        dataclasses.asdict(row) for row in found.searched.networks
    ]
    assert again.searched.finals == found.searched.finals
    assert not list((tmp_path / "shared").glob(".worker-*"))


def test_too_few_images_are_refused_with_the_reason(tmp_path):
    with pytest.raises(DataError, match="needs at least 5,000 training and 50 validation images; got 375 and 81"):
        run(tmp_path / "out", policy={"least_train": 5000})


def test_too_little_time_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(InputError, match="time to train at least 10 networks for 9 epochs of 375 images"):
        run(tmp_path / "out", trainings=None, images=None, epochs=None, minutes=0.05)


def test_a_final_too_short_to_decide_is_refused(tmp_path):
    words = r"the best scaled network and a searched one for [\d,]{6,} epochs each, about \d+ minutes here; got 5: "
    policy = {"final_epochs": None, "least_worth": 1e6, "fewest": 1, "least_images": 1}
    with pytest.raises(InputError, match=words):
        run(tmp_path / "out", policy=policy, trainings=None, images=None, epochs=None, minutes=5)


def test_the_winner_is_not_trained_twice(found, said):
    trained = [each.text for each in said if isinstance(each, Said) and each.text.startswith("Training ")]
    assert len(trained) == 5, "two networks with two seeds each, and the winner's, which is finished"
    title = found.report.network.title
    assert trained[-1] == f"Training {title} for 1 epochs"
    folder = found.folder / RUN
    assert not (folder / "final").exists()
    assert any(isinstance(each, Said) and "its training in the final" in each.text for each in said)
    (epoch,) = found.report.training.epochs
    ended = [each.seconds for each in said if isinstance(each, EpochEnd)]
    assert len(ended) == 4
    assert epoch.seconds in ended[:2], "that of the final with the first seed"
    winner = next(row for row in found.searched.finals if row.winner)
    assert epoch.figures["val_accuracy"] == winner.values[0]


def test_a_final_that_divided_too_little_time_says_what_that_costs():
    worthwhile = _final_length((188, 188), networks=2, most=188)
    assert worthwhile == ["A training of the final had 188 epochs; the winner's is that of the model"]
    length, price = _final_length((46, 60), networks=2, most=188)
    assert "46 to 60 epochs, in equal time" in length
    assert price.startswith("2 networks divided the time of the final, which was too short for the 188 epochs")
    assert _final_length((46, 46), networks=1, most=188)[1:] == [], "one network had all the time"
    assert _final_length((), networks=2, most=188) == []


def test_more_epochs_than_those_of_the_final_are_trained_anew(tmp_path):
    found = run(tmp_path / "out", epochs=2, trainings=2, policy={"seeds": 1})
    assert "one epoch" in found.searched.notes[0]
    assert len(found.report.training.epochs) == 2


def test_an_interrupted_final_goes_on_where_it_was(tmp_path):
    options = OPTIONS | {"epochs": 3, "trainings": 1, "out": tmp_path / "out"}
    procedure = dataclasses.replace(device(final_epochs=3, seeds=1), checkpoint_seconds=0.0)
    heard = []

    def listener(event):
        if isinstance(event, EpochEnd):
            heard.append(event.epoch)
            if heard == [1, 2]:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        effnet.search(images(), procedure=procedure, listener=listener, **options)
    found = effnet.search(images(), procedure=procedure, listener=listener, resume=True, **options)
    assert heard[2] == 3
    assert [epoch.epoch for epoch in found.report.training.epochs] == [1, 2, 3]


@pytest.mark.parametrize(("host", "epochs", "answer"), [("here", None, (7, True)), ("elsewhere", None, (7, False)),
                                                        ("here", 9, (0, False))])  # fmt: skip
def test_a_training_of_the_final_is_taken_where_it_is(tmp_path, monkeypatch, host, epochs, answer):
    monkeypatch.setattr(final.socket, "gethostname", lambda: "here")
    folder, out = tmp_path / "final" / "1", tmp_path / "out"
    folder.mkdir(parents=True)
    (folder / "checkpoint").write_text("trained")
    (out / RUN).mkdir(parents=True)
    rows = {Unit(4, 1): {"host": host, "folder": str(folder), "epochs": 7}}
    worker = SimpleNamespace(
        job=SimpleNamespace(out=out, config=SimpleNamespace(epochs=epochs)),
        study=SimpleNamespace(results=lambda: rows),
        after=lambda stage, slot: Unit(3 + stage, slot),
    )
    assert final.take_training(worker, [(0,), (1,)], (1,)) == answer
    assert (out / RUN / "attempt-1" / "checkpoint").is_file() == answer[1]
    assert final.take_training(worker, [(0,), (1,)], (0,)) == (0, False), "there was no time for it"


def test_a_budget_far_above_every_network_is_refused_before_memory_is_full(tmp_path):
    with pytest.raises(InputError, match="must not be far above the largest network of a search"):
        run(tmp_path / "out", max_latency_ms=None, max_macs=1e12)
    assert not (tmp_path / "out").exists()


def test_a_size_counts_the_graph_beside_the_weights(tmp_path):
    """Files hold the weights and, here, a kilobyte for each layer; predictions find that out."""

    def size_mb(spec):
        return cost(spec).weight_bytes() / 1e6 + 1e-3 * len(named_layers(spec))

    job = job_of(SearchConfig("digits", max_size_mb=0.5, max_macs=1e9, out=tmp_path / "out", precision="fp32"))
    some, other = [scale("b0", phi=phi) for phi in (-6, -3, 0)], scale("lite0", phi=-2)
    rows = [{"spec": spec_to_dict(spec), "size_mb": size_mb(spec)} for spec in some]
    predict = measured._predictors(job, "fp32", rows)
    assert predict.keys() == {"size_mb"}
    assert predict["size_mb"](other) == pytest.approx(size_mb(other), rel=1e-6)


def test_references_are_measured_as_fit_measures_them(tmp_path):
    """Predictions come from B0s; here V2 networks, of which they know nothing, are three times as fast."""

    def ms(spec):
        return cost(spec).macs * (1e-6 if spec.lineage.base == "b0" else 3e-7)

    options = OPTIONS | {"out": tmp_path / "out", "max_latency_ms": 1.0}
    procedure = device(references=3)
    job = dataclasses.replace(job_of(SearchConfig(images(), **options)), procedure=procedure)
    source = read_data(job)

    def measure(candidate):
        return timing(ms(candidate.spec))

    rows = measured.measure_networks(job, source, "fp32", measure)
    specs, more = measured.references_of(job, source, "fp32", rows, measure)
    known = dict(map(measured.figures_of, more))
    assert {spec.lineage.base for spec in specs} == {"b0", "lite0", "v2_b0"}, "one of each family"
    for spec in specs:
        assert known[spec]["latency_ms"] == pytest.approx(ms(spec))
        assert ms(spec) <= 0.9
    space = measured.space_of(job, source, "fp32", rows)
    assert any(space.share(spec) > 1.2 for spec in specs), "predictions alone would leave it out"


def test_a_network_above_the_budget_at_every_width_is_not_trained(tmp_path):
    """Here searched networks with attention in their first stage are slow, whatever their width."""

    def ms(found):
        slow = any(block.se_channels or block.eca_kernel for block in found.spec.stages[0])
        return 2 * BUDGET_MS if slow and "searched" in found.spec.name else found.cost.macs * 1e-6

    said = []
    procedure = dataclasses.replace(device(), oracle=lambda found, *_, **__: timing(ms(found)))
    found = effnet.search(
        images(), out=tmp_path / "out", procedure=procedure, listener=said.append, **OPTIONS | {"trainings": 8}
    )
    text = " ".join(event.text for event in said if isinstance(event, Said))
    assert "above the budget, so not trained" in text
    assert len(found.searched.networks) < 1 + 8
    assert all(row.share and row.figures["latency_ms"] <= BUDGET_MS for row in found.searched.networks)


@pytest.mark.parametrize("better", ["b0", "v2_b0"])
def test_the_space_is_around_the_family_that_was_best_in_short_trainings(tmp_path, better):
    def around(name, **changes):
        job = job_of(SearchConfig(images(), **OPTIONS | {"out": tmp_path / "out", "max_latency_ms": 1.0}, **changes))
        job = dataclasses.replace(job, procedure=device())
        source = read_data(job)
        rows = [{"spec": spec_to_dict(scale("b0", phi=phi)), "latency_ms": 2.0**phi} for phi in (-4, -2, 0)]
        space = measured.space_of(job, source, "fp32", rows)
        references = {(-1, 0): effnet.get_spec("b0"), (-1, 1): effnet.get_spec("v2_b0")}
        worker = Worker(
            job=job, source=source, study=None, plan=SimpleNamespace(precision="fp32", measured=rows), space=space,
            references=references, scaled={*space.baselines, *references}, slowness=lambda spec: 1.0, extent=None,
            measure=None,
        )  # fmt: skip
        scores = [0.5 if spec.lineage.base == name else 0.3 for spec in references.values()]
        trained = [
            Trained(genome=genome, generation=-1, slot=slot, seed=0, score=score)
            for slot, (genome, score) in enumerate(zip(references, scores, strict=True))
        ]
        return around_best(worker, trained)

    found = around(better)
    assert found.space.base.lineage.base == better
    assert set(found.scaled) == {*found.space.baselines, (-1, 0), (-1, 1)}
    assert all(len(genome) == len(found.space.decisions) for genome in found.space.baselines)
    assert around(better, base="lite0").space.base.lineage.base == "lite0", "as requested"


def test_the_published_reward_needs_an_objective_that_weighs_cost(tmp_path):
    with pytest.raises(InputError, match=r"fit\.strict_paper leaves the budget to the objective"):
        run(tmp_path / "out", strict_paper=True)


def test_fit_knows_the_values_of_its_search(tmp_path):
    with pytest.raises(InputError, match=r"fit\.search must be off or auto; got 'foo'"):
        effnet.fit("digits", search="foo", out=tmp_path / "out", max_latency_ms=1.0)


def test_a_search_needs_a_budget(tmp_path):
    with pytest.raises(InputError, match="a search needs a device budget"):
        run(tmp_path / "out", max_latency_ms=None)
    assert not (tmp_path / "out" / RUN).exists()


def test_workers_on_a_cluster_need_a_storage(tmp_path):
    with pytest.raises(InputError, match="need a storage that all of them reach"):
        run(tmp_path / "out", ray="local")


def test_a_cluster_that_does_not_answer_is_named(tmp_path):
    pytest.importorskip("ray")
    with pytest.raises(InputError, match=r"--ray must be the address of a Ray cluster; nothing answers at 127"):
        run(tmp_path / "out", ray="127.0.0.1:1", storage=str(tmp_path / "search.log"))


@pytest.mark.elsewhere
def test_a_worker_on_each_node_of_a_local_cluster_makes_one_bundle(tmp_path):
    pytest.importorskip("ray")
    said = []
    options = {"max_latency_ms": None, "max_macs": 3e5, "trainings": 1, "epochs": None, "minutes": 1.0}
    found = run(
        tmp_path / "out",
        data="digits",
        ray="local",
        storage=str(tmp_path / "search.log"),
        listener=said.append,
        **options,
    )
    assert found.folder.name.startswith("out-")
    assert len(found.searched.networks) >= 1
    texts = [event.text for event in said if hasattr(event, "text")]
    assert any(text.startswith("The worker on ") and text.endswith(" has ended") for text in texts)


def test_a_supernet_is_refused_without_a_device_for_it(tmp_path):
    with pytest.raises(InputError, match="a supernet needs a CUDA device; this machine has none"):
        run(tmp_path / "out", algorithm="supernet")


@pytest.mark.elsewhere
def test_the_parts_of_a_supernet_are_searched_and_one_is_trained(tmp_path):
    """On a CPU, which only a test may ask for."""
    policy = {"device": "cpu", "most": 4, "searching": 0.02}
    found = run(tmp_path / "out", algorithm="supernet", policy=policy, max_latency_ms=1.0, minutes=1.0)
    parts = [row for row in found.searched.networks if not row.scaled]
    assert parts
    assert all("part" in row.title for row in parts)
    assert found.searched.algorithm == "supernet"
    assert found.report.network.macs * 1e-6 <= 1.0
