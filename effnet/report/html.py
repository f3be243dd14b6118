"""The report of a fit: report.json for programs, report.html for people, README.md for the hub."""

import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from effnet.planner.timetable import USES
from effnet.report import provenance as origin
from effnet.report import text as wording
from effnet.report.explanation.overlay import data_url
from effnet.report.facts import CandidateRow
from effnet.report.model import Report
from effnet.report.plots import fit as plots
from effnet.report.plots import front
from effnet.report.plots.sensitivity import sensitivity_sentence, sensitivity_svg
from effnet.report.render import render, replace_text
from effnet.report.search.plots import networks_svg, search_svg
from effnet.report.section import Section, section_of
from effnet.tasks.registry import BUILT_IN, find_task

_SHOWN_CANDIDATES = 8


def write_report(
    report: Report,
    folder: Path,
    *,
    images: Iterable[np.ndarray],
    overlays: Iterable[np.ndarray] = (),
    draws: bool = True,
) -> None:
    """Write report.json, report.html and README.md into an existing folder, each whole or not at all.

    `images` holds one uint8 [H, W, C] array for each of the test's mistakes, in the same order, or none: report.html
    shows them to everyone who opens it. `overlays` are the same images under maps, uint8 [H, W, 3], as far as there are
    any (effnet.report.explanation.overlay). Unless `draws`, it has no plots.
    Numbers that are not finite become null. Raises MissingExtraError without matplotlib or jinja2, before
    anything is written.
    """
    texts = {
        "report.html": render_html(report, images=images, overlays=overlays, draws=draws),
        "README.md": render_card(report),
        "report.json": json.dumps(report.to_dict(), allow_nan=False, ensure_ascii=False, indent=1) + "\n",
    }
    for name, text in texts.items():
        replace_text(folder / name, text)


def render_html(
    report: Report, *, images: Iterable[np.ndarray], overlays: Iterable[np.ndarray] = (), draws: bool = True
) -> str:
    """Return the report as one page that loads nothing from anywhere, with plots if `draws`."""
    report = report.as_stored()
    candidates, section = _ordered_candidates(report), section_of(report)
    figure = find_task(report.task).figure
    return render(
        section.page.template,
        {
            "report": report,
            "section": section,
            "verdict": _verdict(report, section),
            "budget_rows": _budget_rows(report),
            "drawn": _drawn if draws else _left_out,
            "candidates_plot": partial(plots.candidates_svg, report),
            "front_plot": partial(front.front_svg, report),
            "ladder_rows": front.ladder_rows(report),
            "sensitivity_plot": partial(sensitivity_svg, report.deployed.ladder),
            "sensitivity_sentence": sensitivity_sentence(report.deployed.ladder),
            "predicted": _predicted(report),
            "time_uses": USES,
            "candidates_caption": plots.candidates_caption(report),
            "candidates": candidates[:_SHOWN_CANDIDATES],
            "more_candidates": candidates[_SHOWN_CANDIDATES:],
            "method": origin.method_sentence(report),
            "origin_rows": origin.origin_rows(report),
            "loss_plot": partial(plots.learning_curve_svg, report, "loss"),
            "overlays": [data_url(image) for image in overlays],
            "figure_plot": partial(
                plots.learning_curve_svg, report, figure.key, title=figure.title, share=figure.share
            ),
        }
        | _search_part(report)
        | section.page.values(images),
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
        "search_plot": partial(search_svg, report, figure),
        "networks_plot": partial(networks_svg, report),
    }


def _drawn(plot: Callable[[], str | None]) -> str:
    from markupsafe import Markup

    return Markup(plot() or "")


def _left_out(plot: Callable[[], str | None]) -> str:
    return ""


def render_card(report: Report) -> str:
    """Return the report as a model card: Markdown with the hub's YAML front matter."""
    report = report.as_stored()
    section, task = section_of(report), find_task(report.task).of_names(report.dataset.class_names)
    channels, values, sound = report.dataset.channels, report.dataset.findings.values, report.dataset.findings.sound
    return render(
        section.card.template,
        {
            "report": report,
            "section": section,
            "task": task,
            "outputs": [
                replace(output, shape=tuple((report.network.outputs or {}).get(output.name, output.shape)))
                for output in task.outputs(report.dataset.class_names)
            ],
            "known": find_task(report.task) in BUILT_IN,
            "verdict": _verdict(report, section),
            "budget_rows": _budget_rows(report),
            "predicted": _predicted(report),
            "sensitivity_sentence": sensitivity_sentence(report.deployed.ladder),
            "method": origin.method_sentence(report),
            "base_model": _base_model(report),
            "weights_name": origin.weights_name(report),
            "licence": origin.licence_words(report.training.pretrained),
            "predict_command": f"effnet predict BUNDLE {'image.jpg' if sound is None else 'sound.wav'}",
            "sides": report.network.sides,
            "channels": channels,
            "mode": {1: "L", 3: "RGB", 4: "RGBA"}.get(channels) if sound is None else None,
            "value_range": values and values.value_range,
            "sound": sound,
        }
        | section.card.values(()),
    )


def _predicted(report: Report) -> str:
    """Return the figures of the budget that were predicted for another device, in words; empty if none was."""
    return " and ".join(wording.LABELS[key].lower() for key in report.deployed.predicted)


def _base_model(report: Report) -> Any:
    """Return the repository of the pretrained weights on the hub, for the card's metadata, or None."""
    from markupsafe import Markup

    hub = report.training.pretrained.hub if report.training.pretrained else ""
    return Markup(hub) if re.fullmatch(r"[\w.-]+/[\w.-]+", hub, re.ASCII) else None


def _verdict(report: Report, section: Section) -> dict[str, str]:
    """Return the kind (kept, missed or open), the words of a badge and the report's first sentence."""
    found = f"{report.network.title} {section.sentence} the {wording.integer(report.test.images)} test images"
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
