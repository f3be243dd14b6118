"""predict, bench, evaluate, export: verbs over a bundle."""

import csv
import glob
import json
import os
import sys
from collections.abc import Iterator
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from effnet.cli.console import counter, fail, print_table
from effnet.cli.networks import Format, Output
from effnet.errors import ImageError, InputError


class Rows(StrEnum):
    """How predictions are printed."""

    table = "table"
    json = "json"
    csv = "csv"


class Part(StrEnum):
    """Which pictures of a data set are meant."""

    train = "train"
    val = "val"
    test = "test"
    all = "all"


Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder that `effnet fit` or `effnet pull` wrote.")]
Threads = Annotated[int, typer.Option(min=0, help="Threads of the runtime; 0 is one a core.")]


def predict(
    bundle: Bundle,
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGES...", help="Files, folders, globs; - reads a list of paths.")
    ],
    top: Annotated[int, typer.Option(min=1, help="How many classes to print.")] = 5,
    output: Annotated[Rows, typer.Option("--format", help="How to print the result.")] = Rows.table,
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="P", help="Below this probability a picture is unknown; the bundle's own by default, 0 never."
        ),
    ] = None,
    threads: Threads = 1,
) -> None:
    """Name the classes of pictures. Exit code 2 if any picture could not be read."""
    from effnet.runtime.predictor import load, to_prediction

    model = load(bundle, threads=threads)
    least = model.chosen_threshold(threshold)
    bad = 0

    def results() -> Iterator[tuple[str, Any]]:
        nonlocal bad
        import numpy as np

        paths = expand(images)
        while chunk := list(islice(paths, 16)):
            names, prepared = [], []
            for path in chunk:
                try:
                    prepared.append(model.prepare(path))
                    names.append(path)
                except ImageError as error:
                    bad += 1
                    fail(str(error))
            if prepared:
                for name, row in zip(names, model.probabilities(np.stack(prepared)), strict=True):
                    yield name, to_prediction(row, model.config.class_names, top=top, threshold=least)

    _print_predictions(results(), output)
    if bad:
        fail(f"{bad} {'picture was' if bad == 1 else 'pictures were'} not readable")
        raise typer.Exit(2)


def expand(words: list[str]) -> Iterator[str]:
    """Yields the picture files that files, folders, globs and - (a list on stdin) stand for.

    Raises InputError for a word that stands for nothing.
    """
    from effnet.data.decode import IMAGE_SUFFIXES

    for word in words:
        if word == "-":
            sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]  # names are bytes
            yield from (line for line in (line.rstrip("\r\n") for line in sys.stdin) if line)
            continue
        # A file's own name may hold brackets, so it is looked up before it is read as a pattern.
        if os.path.isfile(word):
            yield word
        elif os.path.isdir(word):
            found = sorted(str(p) for p in Path(word).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
            if not found:
                raise InputError(f"there must be pictures in {word}; none were found")
            yield from found
        else:
            found = sorted(p for p in glob.glob(word, recursive=True) if os.path.isfile(p))
            if not found:
                raise InputError(f"there is no file, folder or match for {word}")
            yield from found


def _print_predictions(results: Iterator[tuple[str, Any]], output: Rows) -> None:
    if output is Rows.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(("path", "rank", "label", "probability", "known"))
        for path, found in results:
            for rank, (label, p) in enumerate(zip(found.labels, found.probabilities, strict=True), 1):
                writer.writerow((path, rank, label, f"{p:.6f}", str(found.known).lower()))
    elif output is Rows.json:
        data = [
            {
                "path": path,
                "known": found.known,
                "predictions": [
                    {"label": label, "probability": round(p, 6)}
                    for label, p in zip(found.labels, found.probabilities, strict=True)
                ],
            }
            for path, found in results
        ]
        print(json.dumps(data, ensure_ascii=False, indent=1))
    else:
        from effnet.data.decode import printable

        rows = [(printable(path), _in_words(found)) for path, found in results]
        if rows:
            print_table(("picture", "classes"), rows, left=("picture", "classes"))


def _in_words(found: Any) -> str:
    """Returns the classes of a picture on one line."""
    from effnet.data.decode import printable
    from effnet.runtime.predictor import UNKNOWN

    guesses = [f"{printable(label)} {p:.1%}" for label, p in zip(found.labels, found.probabilities, strict=True)]
    return ", ".join(guesses) if found.known else f"{UNKNOWN} (best guess: {guesses[0]})"


def bench(
    bundle: Bundle,
    threads: Annotated[str, typer.Option(help="Numbers of threads, with commas.")] = "1",
    batch: Annotated[str, typer.Option(help="Batch sizes, with commas.")] = "1,8,32",
    output: Format = Output.table,
) -> None:
    """Measure latency, throughput and memory of a bundle in ONNX Runtime on this machine."""
    from effnet.measure.machine import machine, versions
    from effnet.measure.timing import time_onnx
    from effnet.runtime.config import ONNX, read_config

    config = read_config(bundle)
    settings = [(t, b) for t in _numbers(threads, "--threads") for b in _numbers(batch, "--batch")]
    rows = []
    with counter("measuring") as progress:
        for number, (t, b) in enumerate(settings):
            if progress:
                progress(number, len(settings))
            rows.append(time_onnx(bundle / ONNX, threads=t, batch=b, rounds=5))
    if output is Output.json:
        import dataclasses

        data = [dataclasses.asdict(row) | {"images_per_second": row.images_per_second} for row in rows]
        print(
            json.dumps(
                {"network": config.arch.name, "machine": machine(), "versions": versions(), "rows": data},
                indent=1,
            )
        )
        return
    print(
        f"{config.arch.name}, {rows[0].size_mb:.2f} MB, on {machine()['cpu']}, ONNX Runtime {versions()['onnxruntime']}"
    )
    print_table(
        ("threads", "batch", "p50 ms", "p95 ms", "images/s", "load ms", "memory MB"),
        [
            (
                r.threads,
                r.batch,
                f"{r.p50_ms:.3g}",
                f"{r.p95_ms:.3g}",
                f"{r.images_per_second:.0f}",
                f"{r.load_ms:.0f}",
                f"{r.memory_mb:.1f}",
            )
            for r in rows
        ],
    )


def _numbers(text: str, option: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1 or max(found) > 4096:
        raise InputError(f"{option} must be whole numbers from 1 to 4096 with commas, such as 1,2; got {text!r}")
    return found


def evaluate(
    bundle: Bundle,
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A folder, a manifest, shards, hf:NAME, or digits, as for fit.")
    ],
    split: Annotated[
        Part, typer.Option(help="Which pictures; train, val and test are those of the bundle's `fit`.")
    ] = Part.test,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the split; the bundle's own by default.")] = None,
    unknown_from: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Pictures of none of the classes, to see how many are rejected.")
    ] = None,
    threads: Threads = 1,
    output: Format = Output.table,
) -> None:
    """Score a bundle's ONNX file on labelled pictures."""
    from effnet.runtime.predictor import load
    from effnet.training.evaluate import evaluate as evaluate_split
    from effnet.training.evaluate import labelled_split
    from effnet.training.unknown import unknown_pictures

    model = load(bundle, threads=threads)
    if unknown_from is not None:
        unknown_pictures(unknown_from)  # what is wrong with it is better said before scoring than after
    pictures = labelled_split(data, split.value, config=model.config, seed=seed)
    with counter("scoring") as progress:
        found = evaluate_split(model, pictures, unknown_from=unknown_from, progress=progress)
    if output is Output.json:
        print(json.dumps(found.to_dict(), ensure_ascii=False, indent=1))
        return
    for line in _score_lines(found):
        print(line)
    shown = [c for c in found.per_class if c.support]
    print_table(
        ("class", "precision", "recall", "f1", "pictures"),
        [(c.name, f"{c.precision:.1%}", f"{c.recall:.1%}", f"{c.f1:.3f}", c.support) for c in shown],
        left=("class",),
    )
    if len(shown) < len(found.per_class):
        print(f"{len(found.per_class) - len(shown)} more classes have no picture here.")


def _score_lines(found: Any) -> Iterator[str]:
    """Yields what a score says beside its classes."""
    low, high = found.confidence
    yield (
        f"accuracy {found.accuracy:.2%} on {found.images} pictures (95 % confidence {low:.2%} to {high:.2%}; "
        f"bootstrap {found.bootstrap[0]:.2%} to {found.bootstrap[1]:.2%})"
    )
    if found.top5 is not None:
        yield f"top-5 accuracy {found.top5:.2%}"
    sure, raw = found.sureness, found.uncalibrated
    yield (
        f"calibration error (ECE) {sure.ece:.2%}, negative log-likelihood {sure.nll:.3f}; "
        f"without the temperature {raw.ece:.2%} and {raw.nll:.3f}"
    )
    if found.answered is not None:
        error = "" if found.answered.error is None else f", {found.answered.error:.2%} of them wrong"
        yield f"threshold {found.answered.threshold:.4g}: {found.answered.coverage:.2%} are answered{error}"
    if found.unknown is not None:
        unknown = found.unknown
        rejected = "" if unknown.rejected is None else f"{unknown.rejected:.2%} rejected, "
        unreadable = f" ({unknown.unreadable} more could not be read)" if unknown.unreadable else ""
        yield f"unknown pictures: {rejected}AUROC {unknown.auroc:.3f} on {unknown.images}{unreadable}"


def export(
    bundle: Bundle,
    data: Annotated[str | None, typer.Option(help="Pictures to check the export on; random ones otherwise.")] = None,
) -> None:
    """Write model.onnx from a bundle's weights, and check it against the trained network."""
    from effnet.exporting.job import export as export_bundle

    found = export_bundle(bundle, data=data)
    kind = "pictures" if data else "random pictures"
    print(
        f"wrote {bundle / 'model.onnx'}: largest difference of a probability {found.max_difference:.1e}, "
        f"same class on {found.agreement:.1%} of {found.images} {kind}"
    )
