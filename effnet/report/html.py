"""The report of a fit: report.json for programs, report.html for people, README.md for the hub."""

import base64
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from io import BytesIO
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from effnet.measurement.classification import ClassScore
from effnet.planner.timetable import USES
from effnet.report import plot_front as front
from effnet.report import plot_reliability as sureness
from effnet.report import plots
from effnet.report import provenance as origin
from effnet.report import text as wording
from effnet.report.balanced import balanced_sentence, prior_sentence
from effnet.report.facts import CandidateRow
from effnet.report.model import Report
from effnet.report.plot_search import networks_svg, search_svg
from effnet.report.plot_sensitivity import sensitivity_sentence, sensitivity_svg
from effnet.report.render import render, replace_text
from effnet.report.section import Section, section_of
from effnet.tasks.registry import find_task

_LONG = 20
_SHOWN_CANDIDATES = 8
_SHOWN_CLASSES = 10
_WEAKEST_CLASSES = 3
_SHOWN_MISTAKES = 24
_SHOWN_CONFUSIONS = 8
_IMAGE_SIDE = 176


def write_report(report: Report, folder: Path, *, images: Iterable[np.ndarray]) -> None:
    """Write report.json, report.html and README.md into an existing folder, each whole or not at all.

    `images` holds one uint8 [H, W, C] array for each of the test's mistakes, in the same order, or none: report.html
    shows them to everyone who opens it.
    Numbers that are not finite become null. Raises MissingExtraError without matplotlib or jinja2, before
    anything is written.
    """
    texts = {
        "report.html": render_html(report, images=images),
        "README.md": render_card(report),
        "report.json": json.dumps(report.to_dict(), allow_nan=False, ensure_ascii=False, indent=1) + "\n",
    }
    for name, text in texts.items():
        replace_text(folder / name, text)


def render_html(report: Report, *, images: Iterable[np.ndarray]) -> str:
    """Return the report as one page that loads nothing from anywhere."""
    report = report.as_stored()
    candidates, section = _ordered_candidates(report), section_of(report)
    figure = find_task(report.task).figure
    return render(
        "report.html.j2",
        {
            "report": report,
            "section": section,
            "verdict": _verdict(report, section),
            "budget_rows": _budget_rows(report),
            "candidates_plot": plots.candidates_svg(report),
            "front_plot": front.front_svg(report),
            "ladder_rows": front.ladder_rows(report),
            "sensitivity_plot": sensitivity_svg(report.deployed.ladder),
            "sensitivity_sentence": sensitivity_sentence(report.deployed.ladder),
            "predicted": _predicted(report),
            "time_uses": USES,
            "candidates_caption": plots.candidates_caption(report),
            "candidates": candidates[:_SHOWN_CANDIDATES],
            "more_candidates": candidates[_SHOWN_CANDIDATES:],
            "method": origin.method_sentence(report),
            "origin_rows": origin.origin_rows(report),
            "loss_plot": plots.learning_curve_svg(report, "loss"),
            "figure_plot": plots.learning_curve_svg(report, figure.key, share=figure.share),
        }
        | _search_part(report)
        | ({} if section else _classes_part(report, images)),
    )


def _search_part(report: Report) -> dict[str, Any]:
    """Return the values of the section on an architecture search, if one chose the network."""
    searched, figure = report.searched, find_task(report.task).figure
    if searched is None:
        return {"searched": None}
    return {
        "searched": searched,
        "figure": figure,
        "value": lambda value: figure.in_words(figure.better(value)).removeprefix(f"{figure.title} "),
        "search_plot": search_svg(report, figure),
        "networks_plot": networks_svg(report),
    }


def _classes_part(report: Report, images: Iterable[np.ndarray]) -> dict[str, Any]:
    """Return the values of the sections on the test, the confidence and the mistakes of a classifier."""
    classes = _ordered_classes(report)
    long = len(classes) > _LONG
    return {
        "balanced": balanced_sentence(report.test),
        "prior": prior_sentence(report.training.balance),
        "confusion_plot": plots.confusion_svg(report),
        "confusions": _confusions(report),
        "mean_confidence": sureness.mean_confidence(report),
        "reliability_plot": sureness.reliability_svg(report),
        "risk_plot": sureness.risk_coverage_svg(report),
        "threshold_rows": sureness.threshold_rows(report),
        "classes": classes[:_SHOWN_CLASSES] if long else classes,
        "more_classes": classes[_SHOWN_CLASSES:] if long else [],
        "mistakes": _mistakes(report, images),
    }


def render_card(report: Report) -> str:
    """Return the report as a model card: Markdown with the hub's YAML front matter."""
    report = report.as_stored()
    section = section_of(report)
    channels, values = report.dataset.channels, report.dataset.findings.values
    return render(
        "card.md.j2",
        {
            "report": report,
            "section": section,
            "verdict": _verdict(report, section),
            "budget_rows": _budget_rows(report),
            "predicted": _predicted(report),
            "sensitivity_sentence": sensitivity_sentence(report.deployed.ladder),
            "method": origin.method_sentence(report),
            "base_model": _base_model(report),
            "weights_name": origin.weights_name(report),
            "licence": origin.licence_words(report.training.head),
            "predict_command": "effnet predict BUNDLE image.jpg",
            "side": report.network.resolution,
            "channels": channels,
            "mode": {1: "L", 3: "RGB", 4: "RGBA"}.get(channels),
            "value_range": values and values.value_range,
        }
        | ({} if section else _classes_card(report)),
    )


def _classes_card(report: Report) -> dict[str, Any]:
    """Return the values of the card's paragraphs on the accuracy and confidence of a classifier."""
    wrong = [row for row in report.test.per_class if row.f1 < 1]
    return {
        "balanced": balanced_sentence(report.test),
        "prior": prior_sentence(report.training.balance),
        "weakest": sorted(wrong, key=lambda row: row.f1)[:_WEAKEST_CLASSES],
    }


def _predicted(report: Report) -> str:
    """Return the figures of the budget that were predicted for another device, in words; empty if none was."""
    return " and ".join(wording.LABELS[key].lower() for key in report.deployed.predicted)


def _base_model(report: Report) -> Any:
    """Return the repository of the pretrained weights on the hub, for the card's metadata, or None."""
    from markupsafe import Markup

    hub = report.training.head.hub if report.training.head else ""
    return Markup(hub) if re.fullmatch(r"[\w.-]+/[\w.-]+", hub, re.ASCII) else None


def _verdict(report: Report, section: Section | None) -> dict[str, str]:
    """Return the kind (kept, missed or open), the words of a badge and the report's first sentence."""
    images = f"the {wording.integer(report.test.images)} test images"
    if section:
        found = f"{report.network.title} {section.sentence} on {images}"
    else:
        found = f"{report.network.title} is right on {wording.percent(report.test.accuracy)} of {images}"
    kind, badge, rest = "kept", "Budget met", " and meets the whole budget"
    if report.honoured is False:
        kind, badge, rest = "missed", "Budget missed", ", but misses the budget"
    elif not report.budget.asked():
        kind, badge, rest = "open", "No budget", ""
    elif report.undecided:
        kind, badge, rest = (
            "open",
            "Budget undecided",
            ", but the machine was too busy to tell whether it meets the budget",
        )
    elif report.honoured is None:
        kind, badge, rest = "open", "Budget not checked", ""
    return {"kind": kind, "badge": badge, "sentence": f"{found}{rest}."}


def _budget_rows(report: Report) -> list[dict[str, Any]]:
    """Return one row for each limit; `share` is measured / limit."""
    rows, exceeded = [], report.budget.exceeded(asdict(report.measured))
    for key, label in wording.LABELS.items():
        asked, got = getattr(report.budget, key), getattr(report.measured, key)
        share = got / asked if asked and got is not None else None
        if asked is None:
            kind, verdict = "open", "no limit"
        elif got is None:
            kind, verdict = "missed", "not measured"
        elif key not in exceeded:
            kind, verdict = "kept", "met"
        elif key == "latency_ms" and report.undecided:
            kind, verdict = "open", "the machine was too busy to tell"
        else:
            kind, verdict = "missed", f"missed, {wording.over(share)}"
        row = {"key": key, "label": label, "kind": kind, "verdict": verdict, "share": share}
        rows.append({**row, "asked": wording.limit(asked, key), "measured": wording.quantity(got, key)})
    return rows


def _ordered_candidates(report: Report) -> list[CandidateRow]:
    """Return the taken candidate, then the others by the distance of their MACs from its own."""
    centre = next((row.macs for row in report.candidates if row.status == "taken"), report.network.macs)
    return sorted(report.candidates, key=lambda row: (row.status != "taken", abs(math.log(row.macs / centre))))


def _ordered_classes(report: Report) -> Sequence[ClassScore]:
    """Return the classes in their own order if they are few, the weakest first if they are many."""
    classes = report.test.per_class
    return classes if len(classes) <= _LONG else sorted(classes, key=lambda row: row.f1)


def _confusions(report: Report) -> list[dict[str, Any]]:
    """Return the most frequent pairs of a true class and a wrong prediction."""
    names = report.dataset.class_names
    pairs: list[dict[str, Any]] = [
        {"label": names[i], "predicted": names[j], "count": count, "share": count / sum(row)}
        for i, row in enumerate(report.test.confusion)
        for j, count in enumerate(row)
        if i != j and count
    ]
    return sorted(pairs, key=lambda pair: (-pair["count"], -pair["share"]))[:_SHOWN_CONFUSIONS]


def _mistakes(report: Report, images: Iterable[np.ndarray]) -> list[dict[str, Any]]:
    mistakes = report.test.mistakes[:_SHOWN_MISTAKES]
    # A report read back from its file has no images; the text is still worth showing.
    some = islice(images, len(mistakes))
    shown = [{"image": _data_url(image), "small": max(image.shape[:2]) < 96} for image in some]
    none: Any = {"image": None, "small": False}
    return [asdict(mistake) | extra for mistake, extra in zip_longest(mistakes, shown, fillvalue=none)]


def _data_url(pixels: np.ndarray) -> str | None:
    """Return an image [H, W, C] as a small PNG in a data URL, of its first three bands or its first."""
    from PIL import Image

    bands = pixels if pixels.ndim == 3 else pixels[..., np.newaxis]
    if not bands.size:
        return None
    seen = bands[..., :3] if bands.shape[2] >= 3 else bands[..., 0]
    image = Image.fromarray(np.ascontiguousarray(seen, dtype=np.uint8))
    image.thumbnail((_IMAGE_SIDE, _IMAGE_SIDE))
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
