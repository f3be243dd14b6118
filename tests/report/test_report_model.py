"""The report as a value: the class of its score is that of its task, and report.json repeats the score's headline."""

import pytest
from pages import sample, typed

from effnet.errors import BundleError
from effnet.measurement.classification.score import ClassificationScore


def test_the_file_is_read_and_written_alike():
    found = typed(sample())
    assert isinstance(found.test, ClassificationScore)
    assert found.training.epochs[0].figures == {"val_accuracy": 0.6}
    written, some = found.to_dict(), sample()
    assert list(written) == list(some)
    assert all(written[key] == some[key] for key in ("task", "test_accuracy", "test"))
    assert written["training"]["epochs"] == some["training"]["epochs"]


@pytest.mark.parametrize(
    "changes, said",
    [
        (
            {"task": "captioning"},
            "a task must be one of classification, several, embedding, detection, segmentation; got 'captioning'",
        ),
        ({"test_accuracy": 0.5}, r"must repeat .*'test_accuracy': 0.9889.* of its test; got .*'test_accuracy': 0.5"),
        ({"test_loss": 1.0}, "must repeat .* of its test; got .*test_loss"),
        ({"test": {}}, "the report.test lacks images, accuracy"),
        ({"tsk": 1}, "the report has no field 'tsk'; did you mean 'task'"),
    ],
)
def test_a_report_that_contradicts_itself_or_its_task_is_refused(changes, said):
    with pytest.raises(BundleError, match=said):
        typed(sample() | changes)


def test_a_figure_that_is_no_number_is_refused():
    some = sample()
    some["training"]["epochs"][1]["val_accuracy"] = "high"
    with pytest.raises(BundleError, match=r"epochs\[1\].figures.val_accuracy must be a number; got 'high'"):
        typed(some)
