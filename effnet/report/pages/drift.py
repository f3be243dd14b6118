"""The page of `effnet monitor`: the verdict, the tests, and the share of each class before and now."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from effnet.measurement.drift.compare import drift_lines
from effnet.measurement.drift.record import DriftScore, Label, Shift
from effnet.report.pages.frame import paragraphs, section, table, text, write_page

SHIFT_COLUMNS = ("quantity", "before", "now", "distance", "p", "verdict")
_MOST_LABELS = 50


def write_drift(found: DriftScore, path: Path, *, model: str, folder: str) -> None:
    """Write the page."""
    badge = ("missed", "Drift found") if found.drifted else ("kept", "No drift found")
    body = f'<p><span class="badge {badge[0]}">{badge[1]}</span></p>\n'
    body += section("Summary", paragraphs(drift_lines(found)))
    if found.shifts:
        rows = shift_rows(found.shifts)
        body += section("Scores and images", table(SHIFT_COLUMNS, rows, left=("quantity", "verdict")))
    body += section("Answers", _labels(found.labels))
    body += f'<p class="quiet">{text(_CAUTION)}</p>\n'
    write_page(path, title=f"Drift of {folder} for {model}", body=body)


_CAUTION = (
    "A change of the images need not harm the accuracy, and an accuracy can fall without one that these tests see: "
    "label some of the new images and run `effnet evaluate` on them."
)


def shift_rows(shifts: Sequence[Shift]) -> list[tuple[str, ...]]:
    """Return the tests as rows of a table, the largest distance first, those that found a change before others."""
    ordered = sorted(shifts, key=lambda each: (not each.drifted, -each.distance))
    return [
        (
            f"score of {each.name}" if each.of == "score" else each.name,
            f"{each.before:.3g}",
            f"{each.after:.3g}",
            f"{each.distance:.3f}",
            f"{each.p_value:.2g}",
            "changed" if each.drifted else "",
        )
        for each in ordered
    ]


def _labels(labels: Sequence[Label]) -> str:
    """Return two bars for each class, of its share of the answers before and now; the classes that changed most."""
    ordered = sorted(labels, key=lambda each: -abs(each.after - each.before))[:_MOST_LABELS]
    most = max([1e-9, *(max(each.before, each.after) for each in ordered)])
    rows = "".join(
        f'<tr><th scope="row">{text(each.name)}</th><td class="used">{_bar(each.before / most, "")}'
        f'{_bar(each.after / most, "missed")}</td><td class="num">{each.before:.1%}</td>'
        f'<td class="num">{each.after:.1%}</td></tr>\n'
        for each in ordered
    )
    left_out = len(labels) - len(ordered)
    note = f'<p class="quiet">{left_out} more classes changed less.</p>\n' if left_out else ""
    return (
        '<div class="scroll"><table>\n<thead><tr><th>class</th><th>answers: before (above), now (below)</th>'
        f'<th class="num">before</th><th class="num">now</th></tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n'
        f"{note}"
    )


def _bar(share: float, kind: str) -> str:
    return f'<span class="bar"><i class="{escape(kind)}" style="width:{100 * share:.1f}%"></i></span>'
