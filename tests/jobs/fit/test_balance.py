"""A fit that balances classes: once in the bundle, in the class prior of its probabilities, in every repetition."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import safetensors.numpy
from pages import sample, typed
from procedures import UNTIMED, fit

import effnet
from effnet.bundle.config import read_config
from effnet.compression.recovery import recovery_recipe
from effnet.data.datasets import read_dataset
from effnet.data.inspection.findings import describe
from effnet.data.inspection.inspect import inspect_dataset
from effnet.data.preprocess import Preprocess
from effnet.errors import BundleError, InputError
from effnet.jobs.fit.asked import with_balance
from effnet.measurement.classification.score import ClassScore
from effnet.measurement.classification.text import balanced_lines
from effnet.report.classification.balanced import prior_sentence
from effnet.report.runs.read import read_run
from effnet.training.recipe.balance import log_prior
from effnet.training.recipe.schema import Balance
from effnet.training.transfer.head import Head, train_head

pytestmark = pytest.mark.usefixtures("one_thread")


def classifier(folder):
    arrays = safetensors.numpy.load_file(folder / "model.safetensors")
    return arrays["classifier.weight"], arrays["classifier.bias"]


@pytest.fixture(scope="module")
def rare(stripes, tmp_path_factory):
    """The stripes with few images of the class plain."""
    root = tmp_path_factory.mktemp("rare") / "stripes"
    shutil.copytree(stripes, root)
    for path in sorted((root / "plain").iterdir())[20:]:
        path.unlink()
    return root


@pytest.fixture(scope="module")
def fits(rare, small_bundle, tmp_path_factory):
    """The same head without and with adjusted logits."""
    root = tmp_path_factory.mktemp("fits")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFFNET_CACHE", str(root / "cache"))
        # One penalty, so that both heads have the same weights.
        patch.setitem(train_head.__kwdefaults__, "penalties", (1e-2,))
        common = {"weights": small_bundle, "strategy": "head", "procedure": UNTIMED}
        return [fit(rare, balance=method, out=root / str(method), **common).folder for method in (None, "adjust")]


def test_the_bias_alone_changes_by_the_logarithm_of_the_frequencies(fits, rare):
    (weight, bias), (same, adjusted) = map(classifier, fits)
    assert np.array_equal(weight, same)
    prior = log_prior(read_dataset(str(rare)).train.labels, num_classes=3)
    np.testing.assert_allclose(bias - adjusted, prior, atol=1e-5)
    assert [read_config(folder).balanced for folder in fits] == [0.0, 1.0]


def test_the_exported_file_answers_as_the_balanced_network_and_the_report_says_what_it_assumes(fits, rare):
    test = read_dataset(str(rare)).test
    plain, balanced = (effnet.evaluate(effnet.load(folder), test) for folder in fits)
    report = json.loads((fits[1] / "report.json").read_text())
    assert report["test_balanced_accuracy"] == balanced.balanced_accuracy
    assert report["training"]["balance"] == {"method": "adjust", "strength": 1.0}
    recall = [next(c.recall for c in found.per_class if c.name == "plain") for found in (plain, balanced)]
    assert recall[1] >= recall[0]
    for page in ("README.md", "report.html"):
        text = (fits[1] / page).read_text()
        assert "Probabilities assume a uniform class prior, not that of training." in text
        assert "The balanced accuracy, the mean recall of the classes, is" in text
        assert "Probabilities assume" not in (fits[0] / page).read_text()
    assert "--set 'balance.method=\"adjust\"'" in report["command"]


def test_a_bundle_that_is_balanced_is_not_balanced_again(fits, rare, tmp_path, monkeypatch):
    """Its own head knows these data, so it may stay as it is; without balancing it gets the frequencies back."""
    monkeypatch.setattr("effnet.training.classification.learning.train_head", lambda *args, **kwargs: _hopeless())
    (_, plain), (_, adjusted) = map(classifier, fits)
    for balance, expected in (("adjust", adjusted), ("none", plain)):
        out = tmp_path / balance
        fit(rare, weights=fits[1], strategy="head", balance=balance, out=out, procedure=UNTIMED)
        np.testing.assert_allclose(classifier(out)[1], expected, atol=1e-5)


def _hopeless():
    nothing = np.zeros((3, 1), np.float32)
    return Head(weight=nothing, bias=nothing[:, 0], penalty=1.0, val_loss=9.0, val_figure=0.0, val_balanced_figure=0.0)


def test_the_terminal_says_what_accuracy_hides_and_nothing_twice():
    test = dataclasses.replace(typed(sample()).test, accuracy=0.9, balanced_accuracy=0.90001)
    test = dataclasses.replace(test, balanced_bootstrap=(0.85, 0.99999))
    assert list(balanced_lines(test)) == []
    lowest = ClassScore(name="ow\x1bl", precision=1.0, recall=0.9999999, f1=1.0, support=7)
    assert list(balanced_lines(dataclasses.replace(test, balanced_accuracy=0.87, lowest=lowest))) == [
        "balanced accuracy 87.00% (bootstrap 85.00% to 99.99%): the mean recall of the classes",
        "lowest recall: 99.99% of the 7 images of ow\\x1bl",
    ]


def test_inspection_says_where_the_imbalance_is_and_what_there_is_for_it(rare, stripes):
    lines = describe(inspect_dataset(read_dataset(str(rare))))
    (line,) = (line for line in lines if "fit.balance" in line)
    assert line.startswith("  plain has ")
    assert not any("fit.balance" in line for line in describe(inspect_dataset(read_dataset(str(stripes)))))


def test_runs_are_listed_with_both_accuracies(fits):
    row = read_run(fits[1], now=0.0).to_row()
    report = json.loads((fits[1] / "report.json").read_text())
    assert row["test_balanced_accuracy"] == report["test_balanced_accuracy"]
    assert row["val_balanced_accuracy"] == report["training"]["head"]["val_balanced_figure"]


def test_two_wishes_for_balance_that_differ_are_refused():
    assert with_balance({"train.lr": 0.1}, "sample") == {"train.lr": 0.1, "balance.method": "sample"}
    assert with_balance({"balance.method": "sample"}, None) == {"balance.method": "sample"}
    with pytest.raises(InputError, match=r"fit.balance=adjust and --set balance\.method=sample contradict each other"):
        with_balance({"balance.method": "sample"}, "adjust")
    with pytest.raises(InputError, match=r"balance\.method must be one of none, adjust, sample, weight"):
        fit("digits", balance="ajust")


def test_the_sentence_on_the_class_prior_tells_how_far_it_was_removed():
    assert "assume class frequencies to the power of 0.5" in prior_sentence(Balance(method="weight", strength=0.5))
    assert prior_sentence(Balance()) == ""


@pytest.mark.parametrize(("found", "expected"), [(None, 0.0), (0.5, 0.5)])
def test_a_config_of_before_is_not_balanced(fits, tmp_path, found, expected):
    data = json.loads((fits[1] / "config.json").read_text())
    assert data.pop("balanced") == 1.0
    (tmp_path / "config.json").write_text(json.dumps(data if found is None else data | {"balanced": found}))
    assert read_config(tmp_path).balanced == expected


@pytest.mark.parametrize("found", [1.5, -1, "all", None, [1]])
def test_a_config_whose_balance_is_no_share_is_refused(fits, tmp_path, found):
    data = json.loads((fits[1] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(data | {"balanced": found}))
    with pytest.raises(BundleError, match="balanced must be"):
        read_config(tmp_path)


def test_what_is_recovered_stays_balanced_and_what_was_not_is_not(stripes):
    dataset, preprocess = read_dataset(str(stripes)), Preprocess(resolution=16, mean=(0.5,), std=(0.25,))
    found = recovery_recipe(dataset, preprocess, epochs=1, balanced=0.5).balance
    assert (found.method, found.strength) == ("adjust", 0.5)
    assert recovery_recipe(dataset, preprocess, epochs=1).balance.method == "none"
