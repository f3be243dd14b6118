"""The report of a fit: report.json for programs, report.html for people, README.md for the hub."""

import base64
import json
import math
import re
from collections.abc import Iterable, Mapping
from io import BytesIO
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from effnet.errors import BundleError, InputError
from effnet.planner.timetable import USES
from effnet.report import plot_front as front
from effnet.report import plot_reliability as sureness
from effnet.report import plots
from effnet.report import provenance as origin
from effnet.report import text as wording
from effnet.report.balanced import balanced_sentence, prior_sentence
from effnet.report.plot_sensitivity import sensitivity_sentence, sensitivity_svg
from effnet.report.render import render, replace_text, strict
from effnet.report.section import section_of
from effnet.system.files import read_json
from effnet.system.text import reason_of
from effnet.tasks.registry import find_task

_LONG = 20
_SHOWN_CANDIDATES = 8
_SHOWN_CLASSES = 10
_WEAKEST_CLASSES = 3
_SHOWN_MISTAKES = 24
_SHOWN_CONFUSIONS = 8
_IMAGE_SIDE = 176

_BUDGET_LABELS = {
    "latency_ms": "Latency",
    "params": "Parameters",
    "macs": "MACs",
    "size_mb": "Size",
    "memory_mb": "Memory",
}


def write_report(report: Mapping[str, Any], folder: Path, *, images: Iterable[np.ndarray]) -> None:
    """Write report.json, report.html and README.md into an existing folder, each whole or not at all.

    `images` holds one uint8 [H, W, C] array for each of report["test"]["mistakes"], in the same order, or none:
    report.html shows them to everyone who opens it.
    Numbers that are not finite become null. Raises MissingExtraError without matplotlib or jinja2, before
    anything is written.
    """
    texts = {
        "report.html": render_html(report, images=images),
        "README.md": render_card(report),
        "report.json": json.dumps(strict(report), allow_nan=False, ensure_ascii=False, indent=1) + "\n",
    }
    for name, text in texts.items():
        replace_text(folder / name, text)


def load_report(folder: Path) -> dict[str, Any]:
    """Read the report.json of a bundle; raise BundleError if it is missing or damaged."""
    path = folder / "report.json"
    try:
        report = read_json(path)
    except OSError as error:
        found = "none" if isinstance(error, FileNotFoundError) else f"none that can be read ({reason_of(error)})"
        raise BundleError(f"a bundle made by effnet fit has a report.json, but {folder} has {found}") from error
    except ValueError as error:
        reason = reason_of(error)
        raise BundleError(f"{path} must be JSON, but it cannot be read ({reason}); run effnet fit again") from error
    if not isinstance(report, dict):
        raise BundleError(f"{path} must hold an object, but holds a {type(report).__name__}; run effnet fit again")
    return report


def render_html(report: Mapping[str, Any], *, images: Iterable[np.ndarray]) -> str:
    """Return the report as one page that loads nothing from anywhere; missing parts are left out."""
    report = strict(report)
    candidates = _ordered_candidates(report)
    classes = _ordered_classes(report)
    long = len(classes) > _LONG
    return render(
        "report.html.j2",
        {
            "report": report,
            "verdict": _verdict(report),
            "budget_rows": _budget_rows(report),
            "candidates_plot": plots.candidates_svg(report),
            "front_plot": front.front_svg(report),
            "ladder_rows": front.ladder_rows(report),
            "sensitivity_plot": sensitivity_svg(_ladder(report)),
            "sensitivity_sentence": sensitivity_sentence(_ladder(report)),
            "predicted": _predicted(report),
            "time_uses": USES,
            "candidates_caption": plots.candidates_caption(report),
            "candidates": candidates[:_SHOWN_CANDIDATES],
            "more_candidates": candidates[_SHOWN_CANDIDATES:],
            "method": origin.method_sentence(report),
            "origin_rows": origin.origin_rows(report),
            "balanced": balanced_sentence(report),
            "prior": prior_sentence(report),
            "loss_plot": plots.learning_curve_svg(report, "loss"),
            "accuracy_plot": _figure_plot(report),
            "section": section_of(report),
            "confusion_plot": plots.confusion_svg(report),
            "confusions": _confusions(report),
            "mean_confidence": sureness.mean_confidence(report),
            "reliability_plot": sureness.reliability_svg(report),
            "risk_plot": sureness.risk_coverage_svg(report),
            "threshold_rows": sureness.threshold_rows(report),
            "classes": classes[:_SHOWN_CLASSES] if long else classes,
            "more_classes": classes[_SHOWN_CLASSES:] if long else [],
            "mistakes": _mistakes(report, images),
        },
    )


def render_card(report: Mapping[str, Any]) -> str:
    """Return the report as a model card: Markdown with the hub's YAML front matter."""
    report = strict(report)
    classes = (report.get("test") or {}).get("per_class") or []
    wrong = [row for row in classes if row.get("f1") is not None and row["f1"] < 1]
    dataset = report.get("dataset") or {}
    channels = dataset.get("channels") or 3
    return render(
        "card.md.j2",
        {
            "report": report,
            "verdict": _verdict(report),
            "section": section_of(report),
            "budget_rows": _budget_rows(report),
            "predicted": _predicted(report),
            "sensitivity_sentence": sensitivity_sentence(_ladder(report)),
            "balanced": balanced_sentence(report),
            "prior": prior_sentence(report),
            "weakest": sorted(wrong, key=lambda row: row["f1"])[:_WEAKEST_CLASSES],
            "method": origin.method_sentence(report),
            "base_model": _base_model(report),
            "weights_name": origin.weights_name(report),
            "licence": origin.licence_words(report),
            "predict_command": "effnet predict BUNDLE image.jpg",
            "side": (report.get("network") or {}).get("resolution") or 224,
            "channels": channels,
            "mode": {1: "L", 3: "RGB", 4: "RGBA"}.get(channels),
            "value_range": ((dataset.get("findings") or {}).get("values") or {}).get("value_range"),
        },
    )


def _figure_plot(report: Mapping[str, Any]) -> str | None:
    """Return the curve of the figure that selection maximises, for the validation images."""
    try:
        figure = find_task(report.get("task") or "classification").figure
    except InputError:
        return None
    return plots.learning_curve_svg(report, figure.key, figure.share)


def _ladder(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the record of the quantization steps; empty if there were none."""
    return (report.get("deployed") or {}).get("ladder") or {}


def _predicted(report: Mapping[str, Any]) -> str:
    """Return the figures of the budget that were predicted for another device, in words; empty if none was."""
    keys = (report.get("deployed") or {}).get("predicted") or []
    return " and ".join(_BUDGET_LABELS[key].lower() for key in keys if key in _BUDGET_LABELS)


def _base_model(report: Mapping[str, Any]) -> Any:
    """Return the repository of the pretrained weights on the hub, for the card's metadata, or None."""
    from markupsafe import Markup

    hub = ((report.get("training") or {}).get("head") or {}).get("hub") or ""
    return Markup(hub) if re.fullmatch(r"[\w.-]+/[\w.-]+", hub, re.ASCII) else None


def _verdict(report: Mapping[str, Any]) -> dict[str, str]:
    """Return the kind (kept, missed or open), the words of a badge and the report's first sentence."""
    name = (report.get("network") or {}).get("name") or "The network"
    accuracy, images = report.get("test_accuracy"), (report.get("test") or {}).get("images")
    found, section = name, section_of(report)
    if section is not None:
        number = f"{wording.integer(images)} " if images else ""
        found += f" {section.sentence} on the {number}test images"
    elif accuracy is not None:
        number = f"{wording.integer(images)} " if images else ""
        found += f" is right on {wording.percent(accuracy)} of the {number}test images"
    joint = " and" if found != name else ""
    if report.get("honoured") is False:
        return {
            "kind": "missed",
            "badge": "Budget missed",
            "sentence": f"{found}{', but' if joint else ''} misses the budget.",
        }
    if all(value is None for value in (report.get("budget") or {}).values()):
        return {
            "kind": "open",
            "badge": "No budget",
            "sentence": f"{found if joint else name + ' is ready'}.",
        }
    if report.get("undecided"):
        sentence = f"{found}{', but' if joint else ':'} the machine was too busy to tell whether it meets the budget."
        return {"kind": "open", "badge": "Budget undecided", "sentence": sentence}
    if report.get("honoured") is None:
        return {"kind": "open", "badge": "Budget not checked", "sentence": f"{found}."}
    return {"kind": "kept", "badge": "Budget met", "sentence": f"{found}{joint} meets the whole budget."}


def _budget_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row for each limit; `share` is measured / limit."""
    budget, measured = report.get("budget") or {}, report.get("measured") or {}
    rows = []
    for key, label in _BUDGET_LABELS.items():
        asked, got = budget.get(key), measured.get(key)
        share = got / asked if asked and got is not None else None
        if asked is None:
            kind, verdict = "open", "no limit"
        elif got is None:
            kind, verdict = "missed", "not measured"
        elif got <= asked:
            kind, verdict = "kept", "met"
        elif key == "latency_ms" and report.get("undecided"):
            kind, verdict = "open", "the machine was too busy to tell"
        else:
            kind, verdict = "missed", f"missed, {wording.over(share)}"
        row = {"key": key, "label": label, "kind": kind, "verdict": verdict, "share": share}
        rows.append({**row, "asked": wording.limit(asked, key), "measured": wording.quantity(got, key)})
    return rows


def _ordered_candidates(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the taken candidate, then the others by the distance of their MACs from its own."""
    candidates = report.get("candidates") or []
    taken = [candidate for candidate in candidates if candidate.get("status") == "taken"]
    centre = (taken[0] if taken else report.get("network") or {}).get("macs") or 1

    def distance(candidate: Mapping[str, Any]) -> tuple[bool, float]:
        macs = candidate.get("macs")
        known = macs is not None and macs > 0
        return candidate.get("status") != "taken", abs(math.log(macs / centre)) if known else math.inf

    return sorted(candidates, key=distance)


def _ordered_classes(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the classes in their own order if they are few, the weakest first if they are many."""
    classes = (report.get("test") or {}).get("per_class") or []
    if len(classes) <= _LONG:
        return classes
    return sorted(classes, key=lambda row: (row.get("f1") is None, row.get("f1") or 0.0))


def _confusions(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the most frequent pairs of a true class and a wrong prediction."""
    rows = (report.get("test") or {}).get("confusion") or []
    names = (report.get("dataset") or {}).get("class_names") or []
    names = names if len(names) == len(rows) else [str(index) for index in range(len(rows))]
    pairs = [
        {"label": names[i], "predicted": names[j], "count": count, "share": count / sum(row)}
        for i, row in enumerate(rows)
        for j, count in enumerate(row[: len(names)])
        if i != j and count
    ]
    return sorted(pairs, key=lambda pair: (-pair["count"], -pair["share"]))[:_SHOWN_CONFUSIONS]


def _mistakes(report: Mapping[str, Any], images: Iterable[np.ndarray]) -> list[dict[str, Any]]:
    mistakes = ((report.get("test") or {}).get("mistakes") or [])[:_SHOWN_MISTAKES]
    # A report read back from its file has no images; the text is still worth showing.
    some = islice(images, len(mistakes))
    shown = [{"image": _data_url(image), "small": max(image.shape[:2]) < 96} for image in some]
    return [{**mistake, **extra} for mistake, extra in zip_longest(mistakes, shown, fillvalue={})]


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
