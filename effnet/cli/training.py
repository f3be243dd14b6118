"""fit, train and search: from images to a bundle."""

from typing import Any

from effnet.cli.configs import takes_options
from effnet.cli.console import TerminalListener, print_text
from effnet.cli.launched import is_first
from effnet.cli.options import Data
from effnet.jobs.fit.config import FitConfig, TrainConfig
from effnet.jobs.search.config import SearchConfig
from effnet.system.text import percent


@takes_options(FitConfig, data=Data)
def fit(values: dict[str, Any]) -> None:
    """Train the most accurate EfficientNet that meets the budget, and verify it in its runtime.

    Exit code 3 if the budget is missed, 4 if the machine is too busy to judge it.
    """
    from effnet import fit as fit_data

    with TerminalListener() as listener:
        result = fit_data(**values, listener=listener)
    if is_first():
        _print_result(result)


@takes_options(TrainConfig, data=Data)
def train(values: dict[str, Any]) -> None:
    """Train one network of your choice; like fit, without a budget."""
    from effnet import train as train_data

    with TerminalListener() as listener:
        result = train_data(**values, listener=listener)
    if is_first():
        _print_result(result)


@takes_options(SearchConfig, data=Data)
def search(values: dict[str, Any]) -> None:
    """Search a network for your images and device, train it, and verify it; takes an hour or more.

    Exit code 3 if the budget is missed, 4 if the machine is too busy to judge it.
    """
    from effnet import search as search_data

    with TerminalListener() as listener:
        result = search_data(**values, listener=listener)
    _print_result(result)
    print_text(result.searched.sentence)


def _print_result(result) -> None:
    from effnet.measurement.budget import LABELS, say
    from effnet.report.provenance import method_sentence

    report = result.report
    print_text()
    print_text(method_sentence(report))
    if report.task == "classification":
        _print_test(report)
    else:
        _print_score(report)
    for name, limit in report.budget.asked().items():
        print_text(f"{LABELS[name]}: {say(name, getattr(report.measured, name))} of {say(name, limit)}")
    print_text(f"Bundle: {result.folder}    Report: {result.folder / 'report.html'}")
    if number := report.report_images:
        print_text(f"report.html holds {number} of your test images: share it only if you may share them")


def _print_test(report) -> None:
    """Print the result of a classifier on the test images, with the warnings."""
    from effnet.measurement.classification.text import balanced_lines

    test = report.test
    low, high = test.confidence
    print_text(
        f"Test accuracy {percent(test.accuracy)} on {test.images} images "
        f"(95 % confidence {percent(low, 1)} to {percent(high, 1)}), scored on the exported file"
    )
    for line in balanced_lines(test):
        print_text(line[0].upper() + line[1:])
    if not test.chance:  # its warning says so as well
        usual = test.most_frequent
        print_text(f"Always answering {usual.name!r} would reach {percent(usual.share)}")
    for warning in report.warnings:
        print_text(f"WARNING: {warning}")
    if test.cost is not None:
        print_text(test.cost.sentence())
    _print_unknown(report)


def _print_score(report) -> None:
    """Print the result of another task on the test images."""
    from effnet.measurement.evaluate import scoring_of
    from effnet.tasks.registry import find_task

    for line in scoring_of(find_task(report.task)).lines(report.test):
        print_text(line)


def _print_unknown(report) -> None:
    """Print the threshold, if one was requested, and how many images of none of the classes were rejected."""
    calibration, answered, unknown = report.calibration, report.test.answered, report.test.unknown
    if report.known is not None:
        print_text(report.known.sentence)
        if report.known.fallback:
            print_text(f"WARNING: {report.known.fallback}")
    if calibration.coverage is None and calibration.max_error is None:
        return
    if answered is None:
        print_text(calibration.sentence)
    else:
        error = "" if answered.error is None else f", {answered.error:.2%} of them wrong"
        print_text(f"Threshold {answered.threshold:.4g}: {percent(answered.coverage)} are answered{error}")
    if unknown is not None:
        rejected = "" if unknown.rejected is None else f"{percent(unknown.rejected)} rejected, "
        plain = unknown.probability_auroc
        beside = "" if plain is None else f" ({plain:.3f} by the largest probability)"
        print_text(f"Unknown images: {rejected}AUROC {unknown.auroc:.3f}{beside} on {unknown.images}")
