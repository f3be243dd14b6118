"""Provenance of a network in a report and in the terminal: from scratch, or from which pretrained weights."""

from effnet.arch.describe import pooled_in_words
from effnet.measurement.budget import LABELS
from effnet.report.cards.published import UNKNOWN_LICENCE
from effnet.report.facts import HeadFacts, TrainingFacts, WeightsFacts
from effnet.report.model import Report
from effnet.report.text import ABSENT, duration, integer, percent, significant
from effnet.tasks.registry import find_task


def method_sentence(report: Report) -> str:
    """Return a line on the training method of the report's network."""
    training = report.training
    epochs, best = len(training.epochs), training.best_epoch
    passes = _epochs(epochs)
    head = f"head on the frozen features of {weights_name(report)}"
    kept = f"; the weights of epoch {best} were kept" if best else ""
    if training.start is not None:
        found = f"A new decoder on the weights of {weights_name(report)}, trained for {passes}{kept}."
    elif training.method == "head":
        found = f"A linear {head}."
    elif training.method == "finetune":
        found = f"A {head}, then {_tuned(training, passes, kept)}."
    else:
        found = f"Trained from scratch for {passes}{kept}."
    return f"{found}{_students(training)}{_changes(training)}"


def _epochs(number: int) -> str:
    return f"{number} epoch{'s' if number != 1 else ''}"


def _tuned(training: TrainingFacts, passes: str, kept: str) -> str:
    """Return what was trained after a head; `kept` says which epoch's weights count, empty for those before it."""
    first, none = training.later, "; none was better than the head alone, which was kept"
    if first is None:
        return f"the whole network fine-tuned for {passes}{kept or none}"
    what = f"what follows stage {first.stages}, on kept feature maps of {first.views} views of each image"
    if training.recipe and training.recipe["kept"]["alone"]:
        return f"{what}, for {passes}{kept or none}"
    before = "; none was better than before, and those weights were kept" if first.best_epoch else none
    return f"{what}, for {_epochs(first.epochs)}, then the whole network for {passes}{kept or before}"


def _students(training: TrainingFacts) -> str:
    """Return a sentence, after a space, on what unlabelled images added; empty without any."""
    found = training.unlabelled
    if found is None:
        return ""
    if not found.students:
        return " Unlabelled images did not make it better, and were not used."
    if found.method == "freematch":
        return f" FreeMatch learnt from {found.used:,} unlabelled images as well, and its network replaced it."
    student = "A student of it" if found.students == 1 else "The second of two students of it"
    return f" {student} learnt from {found.used:,} pseudo-labels of unlabelled images as well, and replaced it."


def _changes(training: TrainingFacts) -> str:
    """Return a sentence, after a space, on the modifications of the trained network; empty without any."""
    share, activation = training.kept or 1, training.activation
    done = [f"given {activation} as its activation"] if activation else []
    done += [f"pruned to {share:.0%} of its {LABELS[training.kept_of or 'macs']}"] if share < 1 else []
    if not done:
        return ""
    how = (
        " and fine-tuned by distillation from the whole network"
        if training.recovery_seconds
        else ", its layers re-fitted by least squares"
    )
    sentence = ", ".join(done) + how
    return f" {sentence[0].upper()}{sentence[1:]}."


def weights_name(report: Report) -> str:
    """Return the id of the pretrained weights, or the name of their file; empty for a network from scratch."""
    found = report.training.pretrained
    return found.name if found else ""


def _penalty(value: float | None) -> str:
    if value is None:
        return ABSENT
    return f"{value:g}" if value else "none: the pretrained weights' own head was better"


def origin_rows(report: Report) -> list[tuple[str, str]]:
    """Return the facts on pretrained weights and on the head, each with its label; none if trained from scratch."""
    start, head = report.training.pretrained, report.training.head
    if start is None:
        return []
    rows = [
        ("Pretrained weights", start.name),
        ("Their licence", licence_words(start)),
        ("Their published accuracy", _published(start)),
    ]
    if head is None:
        return rows
    also = f"the last feature map and {pooled_in_words(head.pooled)}, pooled"
    return [
        *rows,
        *([("Head: features", also + _without(head))] if head.pooled else []),
        (f"Head: validation {find_task(report.task).figure.title}", _accuracy(head)),
        ("Head: penalty", _penalty(head.penalty)),
        ("Head: training images", integer(head.images) + (f", {head.views} views of each" if head.views > 1 else "")),
        ("Features", _features(head)),
        ("Features and head took", duration(head.seconds)),
    ]


def _without(head: HeadFacts) -> str:
    return "" if head.last_figure is None else f" (validation {percent(head.last_figure)} without the stages)"


def licence_words(found: WeightsFacts | None) -> str:
    """Return the licence of the pretrained weights, with its source, or that it is unknown."""
    if found is None or not found.licence:
        return UNKNOWN_LICENCE
    return f"{found.licence} ({found.licence_source})" if found.licence_source else found.licence


def _accuracy(head: HeadFacts) -> str:
    plain, balanced = percent(head.val_figure), percent(head.val_balanced_figure)
    return plain if balanced in (ABSENT, plain) else f"{plain} (balanced {balanced})"


def _published(found: WeightsFacts) -> str:
    if found.top1 is None:
        return "none known"
    at = f" at {found.top1_resolution} pixels" if found.top1_resolution else ""
    return f"{significant(found.top1)}\xa0% of ImageNet{at}"


def _features(head: HeadFacts) -> str:
    total, computed = head.features, head.computed
    if computed == total:
        return integer(total)
    return f"{integer(total)}, {integer(total - computed) if computed else 'all'} of them cached"
