"""Corrupted and attacked accuracy in words and as tables."""

from collections.abc import Iterator

from effnet.measurement.evaluate import ScoreTable
from effnet.measurement.robustness.record import CLEAN, AttackScore, CorruptionScore
from effnet.system.text import percent

NETWORK = "network"
"""The name of the network in fp32, as torch computes it, on which attacks are made."""


def corruption_lines(found: CorruptionScore) -> Iterator[str]:
    """Yield the result in sentences."""
    severities = ", ".join(map(str, found.severities))
    unreadable = f" ({found.unreadable} more could not be read)" if found.unreadable else ""
    yield (
        f"{found.images:,} images{unreadable}, {len(found.kinds)} kinds of corruption at severity {severities}; "
        f"intervals are of 95 %"
    )
    for mean in found.means:
        clean = found.of(mean.format, CLEAN, 0)
        yield (
            f"{mean.format}: clean {percent(clean.accuracy)}, mean corrupted {percent(mean.accuracy)} "
            f"({_of(mean.interval)}), {percent(abs(mean.relative_drop))} of the clean accuracy "
            f"{'lost' if mean.relative_drop >= 0 else 'gained'}; calibration error {percent(clean.ece)} clean, "
            f"{percent(mean.ece)} corrupted"
        )
    if found.gap is not None:
        gap, low, high = found.gap, *found.gap.interval
        more = gap.corrupted - gap.clean
        yield (
            f"{gap.format} against {gap.other}: {100 * gap.clean:+.2f} pp clean, {100 * gap.corrupted:+.2f} pp "
            f"corrupted, so {100 * more:+.2f} pp from corruption ({100 * low:+.2f} to {100 * high:+.2f})"
        )


def corruption_table(found: CorruptionScore) -> ScoreTable:
    """Return a row for each kind and severity, with accuracy and calibration error of each export."""
    columns = ["corruption", "severity"]
    for name in found.formats:
        columns += [f"{name} accuracy", "95 %", "ECE", "95 % of ECE"]
    rows = []
    for kind, severity in [(CLEAN, 0), *((kind, each) for kind in found.kinds for each in found.severities)]:
        row = [kind.replace("_", " "), str(severity or "-")]
        for name in found.formats:
            each = found.of(name, kind, severity)
            row += [percent(each.accuracy), _of(each.interval), percent(each.ece), _of(each.ece_interval)]
        rows.append(row)
    return ScoreTable(columns=columns, left=("corruption",), rows=rows)


def attack_lines(found: AttackScore) -> Iterator[str]:
    """Yield the result in sentences."""
    unreadable = f" ({found.unreadable} more could not be read)" if found.unreadable else ""
    yield (
        f"{found.images:,} images{unreadable}; every pixel was changed by at most eps levels of 255. The attacks know "
        f"the network's weights (PGD: {found.steps} steps, random start); the exports get the same images, in uint8"
    )
    worst = min((row for row in found.rows if row.format == NETWORK), key=lambda row: row.accuracy)
    clean = found.of(NETWORK, "", 0)
    yield f"Clean {percent(clean.accuracy)}, worst {percent(worst.accuracy)} ({worst.method} at eps {worst.eps})"


def attack_table(found: AttackScore) -> ScoreTable:
    """Return a row for each method and eps, with the accuracy of the network and of each export."""
    names = (NETWORK, *found.formats)
    columns = ["attack", "eps", *(column for name in names for column in (name, "95 %"))]
    rows = []
    for method, eps in dict.fromkeys((row.method, row.eps) for row in found.rows):
        row = [method.upper() or "clean", str(eps or "-")]
        for name in names:
            each = found.of(name, method, eps)
            row += [percent(each.accuracy), _of(each.interval)]
        rows.append(row)
    return ScoreTable(columns=columns, left=("attack",), rows=rows)


def _of(interval: tuple[float, float]) -> str:
    return f"{percent(interval[0], 1)} to {percent(interval[1], 1)}"
