"""The answers to images as text: classes, and those of several outputs as a table, CSV or JSON."""

import csv
import sys
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from effnet.cli.console import print_json, print_table
from effnet.system.text import cell, percent, printable

if TYPE_CHECKING:
    from effnet.data.several.outputs import OutputSpec

_SEPARATOR = "|"


def classes_in_words(found: Any) -> str:
    """Return the classes of an image on one line."""
    from effnet.tasks.classification import UNKNOWN

    guesses = [
        f"{printable(label)} {percent(p, 1)}" for label, p in zip(found.labels, found.probabilities, strict=True)
    ]
    return ", ".join(guesses) if found.known else f"{UNKNOWN} (best guess: {guesses[0]})"


def print_answers(
    results: Iterable[tuple[str, Any]], specs: "Sequence[OutputSpec]", *, as_csv: bool = False, as_json: bool = False
) -> None:
    """Print the answers of several outputs, (path, answers by name) each."""
    if as_csv:
        _print_csv(results, specs)
    elif as_json:
        from effnet.tasks.writing.json_file import answers_data

        print_json([{"path": path} | answers_data(found) for path, found in results])
    else:
        names = tuple(spec.name for spec in specs)
        rows = [(printable(path), *(_in_words(found[name]) for name in names)) for path, found in results]
        if rows:
            print_table(("image", *names), rows, left=("image", *names))


def _in_words(answer: Any) -> str:
    """Return the answer of one output for a table: the best class alone, the tags, or the number."""
    from effnet.tasks.several import Tags

    if isinstance(answer, Tags):
        return ", ".join(f"{printable(tag)} {percent(answer.probabilities[tag], 1)}" for tag in answer.present) or "-"
    if isinstance(answer, float):
        return f"{answer:.6g}"
    best = f"{printable(answer.labels[0])} {percent(answer.probabilities[0], 1)}"
    return best if answer.known else f"{answer.label} (best guess: {best})"


def _print_csv(results: Iterable[tuple[str, Any]], specs: "Sequence[OutputSpec]") -> None:
    """Print a row an image: a column for each output's answer, then those of its probabilities."""
    writer = csv.writer(sys.stdout, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    head = ["path"]
    for spec in specs:
        head.append(spec.name)
        head += [f"{spec.name} probability"] if spec.kind == "one" else spec.columns if spec.kind == "many" else []
    writer.writerow(map(cell, head))
    for path, found in results:
        row: list[Any] = [cell(path)]
        for spec in specs:
            row += _cells(found[spec.name], spec)
        writer.writerow(row)


def _cells(answer: Any, spec: "OutputSpec") -> list[Any]:
    if spec.kind == "one":
        return [cell(answer.label), _number(answer.probabilities[0])]
    if spec.kind == "many":
        return [cell(_SEPARATOR.join(answer.present)), *(_number(answer.probabilities[tag]) for tag in spec.classes)]
    return [Decimal(f"{answer:.6g}")]


def _number(probability: float) -> Decimal:
    return Decimal(f"{probability:.6f}")
