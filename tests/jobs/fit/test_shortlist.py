"""The weights that a fit starts from: the named ones, the best available, or none."""

import math
import os
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from devices import timing
from procedures import TINY, made_up

from effnet.data.datasets import read_dataset
from effnet.data.inspection.inspect import inspect_dataset
from effnet.errors import BudgetError, WeightsError
from effnet.jobs.fit.choice.shortlist import _hub_answers, choose
from effnet.jobs.fit.config import FitConfig
from effnet.jobs.fit.job import command_line, job_of
from effnet.jobs.procedure import Procedure
from effnet.measurement.speed.pace import DISTURBED
from effnet.measurement.speed.stopwatch import Stopwatch
from effnet.planner.events import Measured, Said
from effnet.weights.catalog import find

LITE0 = "timm/tf_efficientnet_lite0.in1k"
RESNET18 = "torchvision/resnet18.IMAGENET1K_V1"


@pytest.fixture(scope="module")
def read(photos, tiny_images):
    """The photos and the tiny images as a fit reads them."""

    def one(folder):
        dataset = read_dataset(str(folder))
        return dataset, inspect_dataset(dataset)

    return {"photos": one(photos), "tiny": one(tiny_images)}


@pytest.fixture
def chosen(read, tmp_path):
    """Return a function that chooses for the photos, and returns the taken candidate, the table and the messages.

    The device takes 0.1 ms for a million MACs.
    """
    device = made_up(candidate=lambda found: timing(found.cost.macs * 1e-7))

    def run(*, of="photos", budget=None, **options):
        events = []
        limits = {f"max_{name}": limit for name, limit in (budget or {"macs": 60e6}).items()}
        options = {"epochs": 1} | limits | options
        config = FitConfig("", out=tmp_path / "out", listener=events.append, procedure=device, **options)
        table = choose(job_of(config), *read[of])
        (taken,) = [c for c in table if c.status == "taken"]
        said = [event.text for event in events if isinstance(event, Said)]
        assert sum(isinstance(event, Measured) for event in events) <= 40
        return taken, table, said

    return run


@pytest.mark.parametrize("budget, pace_ms", [({"latency_ms": 1.0}, DISTURBED * 0.3), ({"memory_mb": 20.0}, math.inf)])
def test_a_plan_measures_with_productions_patience_and_without_a_latency_budget_each_candidate_once(
    budget, pace_ms, read, tmp_path
):
    """The pace of the quiet machine is measured once. A near miss, as of the first file here, is measured again."""
    paths, asked, pauses = [], [], []

    def once(path, **options):
        paths.append(path)
        asked.append(options)
        return timing(1.0 if len(paths) < 3 else 0.5)

    watch = Stopwatch(once=once, quiet_pace=lambda threads: asked.append(threads) or 0.3, pause=pauses.append)
    limits = {f"max_{name}": limit for name, limit in budget.items()}
    device = Procedure(stopwatch=watch, space=TINY)
    choose(job_of(FitConfig("", threads=2, epochs=1, out=tmp_path / "out", procedure=device, **limits)), *read["tiny"])
    expected = {"threads": 2, "rounds": 3, "seconds": 0.1, "pace_ms": pace_ms, "runtime": "onnxruntime"}
    assert asked.count(2) == ("latency_ms" in budget)
    assert [options for options in asked if options != 2] == [expected] * len(paths)
    assert pauses == ([0.5, 2.0] if "latency_ms" in budget else [])


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Empty caches; the hub's is returned."""
    from huggingface_hub import constants

    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def cached_lite0(caches, lite0_file):
    """Lite0's weights in the hub's cache, laid out as its client does."""
    commit, repository = "0" * 40, caches / f"models--{find(LITE0).hub.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    shutil.copy(lite0_file, snapshot / "model.safetensors")
    return snapshot / "model.safetensors"


@pytest.fixture
def alone(monkeypatch):
    """Fail a test that checks whether the hub can be reached."""
    monkeypatch.setattr("effnet.jobs.fit.choice.shortlist._hub_answers", lambda: pytest.fail("the hub was asked"))


@pytest.mark.usefixtures("caches")
def test_without_network_and_caches_a_fresh_network_is_trained_and_one_line_says_so(chosen, tmp_path):
    taken, table, said = chosen()
    assert {c.weights for c in table} == {""}
    assert taken.reason == "the largest that meets every budget with its margin"
    assert said == [
        f"Training from scratch: no pretrained weights are available, neither in {tmp_path / 'cache'} or the hub's "
        "cache nor from the hub; name weights on this machine with --weights FILE"
    ]


@pytest.mark.usefixtures("caches", "alone")
def test_tiny_images_are_trained_anew_and_one_line_says_why(chosen):
    taken, _, said = chosen(of="tiny")
    assert taken.weights == ""
    assert said == [
        "Training from scratch: images must have at least 48 pixels for weights that were trained on photographs; "
        "got 8: name weights with --weights to use them all the same"
    ]


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("options", [{"weights": "none", "strategy": "scratch"}, {"strategy": "scratch"}])
def test_who_wants_no_weights_gets_none_without_a_word(options, chosen, cached_lite0):
    taken, _, said = chosen(**options)
    assert (taken.weights, said) == ("", [])


@pytest.mark.usefixtures("caches")
@pytest.mark.parametrize(
    "of, message", [("photos", "no pretrained weights are available"), ("tiny", "images must have at least 48 pixels")]
)
def test_a_strategy_that_needs_weights_is_refused_where_there_are_none(of, message, chosen):
    with pytest.raises(WeightsError, match=f"^{message}"):
        chosen(of=of, strategy="head")


def test_what_is_in_a_cache_is_taken_without_the_network(chosen, cached_lite0):
    taken, table, said = chosen()
    assert (taken.weights, taken.family, said) == (LITE0, "lite", [])
    assert {c.weights for c in table} == {LITE0}
    assert taken.spec.name == f"{LITE0} at 80"  # 96 pixels would take more than 60 million MACs
    assert (taken.preprocess.resolution, taken.preprocess.mean) == (80, (0.5, 0.5, 0.5))
    assert taken.reason == "the most accurate that meets every budget with its margin"


def test_of_several_in_the_caches_the_most_accurate_is_taken(chosen, cached_lite0, tmp_path):
    entry = find(RESNET18)  # 69.8 % of ImageNet; Lite0 has 74.8 %
    path = tmp_path / "cache" / "weights" / entry.id / entry.file
    path.parent.mkdir(parents=True)
    path.touch()
    taken, table, _ = chosen(budget={"macs": 2e9})
    assert (taken.weights, taken.spec.resolution) == (LITE0, 224)
    assert {c.weights for c in table} == {LITE0, RESNET18}
    reason = "not measured: expected to be less accurate than Lite0 in1k, 224 px"
    assert {c.reason for c in table if c.weights == RESNET18 and c.status == "unmeasured"} == {reason}


@pytest.mark.elsewhere
def test_what_cannot_be_downloaded_gives_way_to_what_is_in_a_cache(chosen, cached_lite0, monkeypatch):
    """The hub answers, but downloads fail, here because they are forbidden: the next best are tried first."""
    monkeypatch.setattr("effnet.jobs.fit.choice.shortlist._hub_answers", lambda: True)
    taken, _, said = chosen()
    assert taken.weights == LITE0
    tried = {line.split()[0] for line in said if "is not downloaded yet, and the network may not be used" in line}
    assert len(tried) == len(said) == 3


def test_a_damaged_file_in_a_cache_is_named_before_a_fresh_network_is_trained(chosen, cached_lite0):
    cached_lite0.write_bytes(b"damaged")
    taken, _, (first, second) = chosen()
    assert taken.weights == ""
    assert f"{cached_lite0} must be a file of weights" in first
    assert second.startswith("Training from scratch: no pretrained weights are available")


def test_a_budget_too_small_for_any_pretrained_network_is_kept_by_a_fresh_one(chosen, cached_lite0):
    taken, _, (said,) = chosen(budget={"params": 1e6})
    assert taken.weights == ""
    assert said.startswith(
        f"Training from scratch: no resolution of {LITE0} has parameters of at most 1,000,000: the least is "
        f"Lite0 in1k, 224 px with 3,374,851, so ask for 3,374,851 or more"
    )
    with pytest.raises(BudgetError, match=f"^no resolution of {LITE0} has parameters"):
        chosen(budget={"params": 1e6}, strategy="head")


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    "budget, side",
    [
        ({}, 224),
        ({"params": 4e6}, 224),
        ({"macs": 500e6}, 224),
        ({"macs": 200e6}, 160),
        ({"macs": 35e6}, 64),
        ({"latency_ms": 50}, 224),
        ({"latency_ms": 15}, 128),
        ({"latency_ms": 4}, 64),
        ({"latency_ms": 50, "macs": 100e6}, 96),
    ],
)
def test_named_weights_are_taken_at_the_largest_resolution_that_keeps_the_budget(budget, side, chosen, lite0_file):
    budget = {"macs": None} | budget
    taken, table, said = chosen(weights=str(lite0_file), budget=budget)
    assert (taken.spec.resolution, taken.preprocess.resolution, said) == (side, side, [])
    assert taken.weights == str(lite0_file)
    assert [c.spec.resolution for c in table if c.precision == "fp32"] == [
        224,
        208,
        192,
        176,
        160,
        144,
        128,
        112,
        96,
        80,
        64,
    ]


@pytest.mark.parametrize("budget, least", [({"params": 1e6}, 224), ({"macs": 10e6}, 64), ({"latency_ms": 1.0}, 64)])
def test_named_weights_that_cannot_keep_the_budget_are_refused_with_the_nearest_that_they_can(
    budget, least, chosen, lite0_file
):
    budget = {"macs": None} | budget
    with pytest.raises(BudgetError) as caught:
        chosen(weights=str(lite0_file), budget=budget)
    message = str(caught.value)
    assert message.startswith(f"no resolution of {lite0_file} has ")
    assert f"the least is Lite0, {least} px with " in message
    assert message.endswith(" or more; or train a smaller network from scratch with --weights none")
    advice = float(message.rpartition("so ask for ")[2].split(" ")[0].replace(",", ""))
    (key,) = (name for name, value in budget.items() if value)
    assert chosen(weights=str(lite0_file), budget=budget | {key: advice})[0].spec.name.endswith(f"at {least}")


def test_weights_for_colours_see_grey_images_too(chosen, lite0_file):
    taken, _, _ = chosen(of="tiny", weights=str(lite0_file))
    assert (taken.spec.in_channels, taken.preprocess.channels, taken.spec.num_classes) == (1, 1, 3)


def test_networks_whose_features_would_take_too_long_are_left_out(chosen, monkeypatch):
    monkeypatch.setattr("effnet.jobs.fit.choice.shortlist._hub_answers", lambda: True)
    monkeypatch.setattr("effnet.jobs.fit.choice.shortlist._load", lambda *_: None)
    monkeypatch.setattr("effnet.jobs.fit.choice.shortlist.usable_cores", lambda: 2)
    _, table, _ = chosen(budget={"macs": None}, epochs=None, minutes=0.2)
    slow = [c for c in table if c.reason.startswith("training would be too slow, the features of")]
    # 120 images, each once or twice, in a quarter of 12 seconds, on two cores of 30 GMACs a second.
    assert min(c.cost.macs for c in slow) > 2 * 30e9 * 3 / 120 / 2
    assert all(c.cost.macs <= 2 * 30e9 * 3 / 60 for c in table if c not in slow)


@pytest.fixture
def hub(monkeypatch):
    """Return a function that sets up a hub which answers a HEAD with a status, or not at all."""
    servers = []

    def start(status):
        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                if status is None:
                    time.sleep(0.5)
                else:
                    self.send_response(status)
                    self.end_headers()

            def log_message(self, *_):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("status, answers", [(200, True), (404, True), (None, False)])
def test_a_hub_is_asked_for_a_moment_only(status, answers, hub, monkeypatch):
    hub(status)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("effnet.jobs.fit.choice.shortlist._HUB_SECONDS", 0.2 if status is None else 300)
    assert _hub_answers() is answers


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "no address"])
def test_a_hub_that_is_not_there_does_not_answer(endpoint, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert _hub_answers() is False


def test_who_is_offline_asks_no_hub(monkeypatch):
    monkeypatch.setattr(
        "effnet.jobs.fit.choice.shortlist.urllib.request.urlopen", lambda *_, **__: pytest.fail("it asked")
    )
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert _hub_answers() is False


@pytest.mark.parametrize(
    "options, words",
    [
        ({"weights": "auto", "strategy": "auto"}, ""),
        ({"weights": "auto", "strategy": "scratch"}, " --set fit.strategy=scratch"),
        ({"weights": "none", "strategy": "scratch"}, " --weights none --set fit.strategy=scratch"),
        ({"weights": "auto", "strategy": "head"}, " --set fit.strategy=head"),
        ({"weights": "my file.pth", "strategy": "auto", "model": "b0"}, " --weights 'my file.pth' --set fit.model=b0"),
        ({"weights": LITE0, "strategy": "finetune"}, f" --weights {LITE0} --set fit.strategy=finetune"),
    ],
)
def test_the_command_of_a_report_begins_alike(options, words):
    job = job_of(FitConfig("x", out="y", **options))
    assert command_line(job) == f"effnet fit x{words} --out y"
