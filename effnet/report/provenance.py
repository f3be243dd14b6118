"""Provenance of a network in a report and in the terminal: from scratch, or from which pretrained weights."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from effnet.measurement.budget import LABELS
from effnet.report.card_published import UNKNOWN_LICENCE
from effnet.report.text import ABSENT, duration, integer, percent, significant


def method_sentence(report: Mapping[str, Any]) -> str:
    """Return a line on the training method of the report's network; empty if it is unknown."""
    training, name = report.get("training") or {}, weights_name(report)
    epochs, best = len(training.get("epochs") or []), training.get("best_epoch")
    passes = f"{epochs} epoch{'s' if epochs != 1 else ''}"
    head = f"head on the frozen features of {name}"
    kept = f"; the weights of epoch {best} were kept" if best else ""
    match training.get("method"):
        case "head":
            found = f"A linear {head}."
        case "finetune":
            if best == 0:
                kept = "; none was better than the head alone, which was kept"
            found = f"A {head}, then the whole network fine-tuned for {passes}{kept}."
        case "scratch":
            found = f"Trained from scratch for {passes}{kept}."
        case _:
            found = f"Trained for {passes}{kept}." if epochs else ""
    return f"{found}{_changes(training)}".lstrip()


def _changes(training: Mapping[str, Any]) -> str:
    """Return a sentence, after a space, on the modifications of the trained network; empty without any."""
    share, activation = training.get("kept") or 1, training.get("activation")
    done = [f"given {activation} as its activation"] if activation else []
    done += [f"pruned to {share:.0%} of its {LABELS[training.get('kept_of', 'macs')]}"] if share < 1 else []
    if not done:
        return ""
    # Older reports lack the time of fine-tuning.
    trained = training.get("recovery_seconds", 1.0) > 0
    how = (
        " and fine-tuned by distillation from the whole network"
        if trained
        else ", its layers re-fitted by least squares"
    )
    sentence = ", ".join(done) + how
    return f" {sentence[0].upper()}{sentence[1:]}."


def weights_name(report: Mapping[str, Any]) -> str:
    """Return the id of the pretrained weights, or the name of their file; empty for a network from scratch."""
    training = report.get("training") or {}
    head = training.get("head") or {}
    return str(head.get("name") or PurePath(str(training.get("weights") or "")).name)


def _penalty(value: float | None) -> str:
    if value is None:
        return ABSENT
    return f"{value:g}" if value else "none: the pretrained weights' own head was better"


def origin_rows(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the facts on pretrained weights and on the head, each with its label; none if trained from scratch."""
    head = (report.get("training") or {}).get("head") or {}
    if not head:
        return []
    views = head.get("views") or 1
    return [
        ("Pretrained weights", weights_name(report)),
        ("Their licence", licence_words(report)),
        ("Their published accuracy", _published(head)),
        ("Head: validation accuracy", _accuracy(head)),
        ("Head: penalty", _penalty(head.get("penalty"))),
        ("Head: training images", integer(head.get("images")) + (f", {views} views of each" if views > 1 else "")),
        ("Features", _features(head)),
        ("Features and head took", duration(head.get("seconds"))),
    ]


def licence_words(report: Mapping[str, Any]) -> str:
    """Return the licence of the pretrained weights, with its source, or that it is unknown."""
    head = (report.get("training") or {}).get("head") or {}
    licence, source = head.get("licence"), head.get("licence_source")
    if not licence:
        return UNKNOWN_LICENCE
    return f"{licence} ({source})" if source else str(licence)


def _accuracy(head: Mapping[str, Any]) -> str:
    plain, balanced = (percent(head.get(key)) for key in ("val_accuracy", "val_balanced_accuracy"))
    return plain if balanced in (ABSENT, plain) else f"{plain} (balanced {balanced})"


def _published(head: Mapping[str, Any]) -> str:
    if head.get("top1") is None:
        return "none known"
    at = f" at {head['top1_resolution']} pixels" if head.get("top1_resolution") else ""
    return f"{significant(head['top1'])}\xa0% of ImageNet{at}"


def _features(head: Mapping[str, Any]) -> str:
    total, computed = head.get("features"), head.get("computed")
    if total is None or computed is None or computed == total:
        return integer(total)
    return f"{integer(total)}, {integer(total - computed) if computed else 'all'} of them cached"
