"""fit and train: from images to a bundle."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from effnet.cli.console import TerminalListener, print_text
from effnet.cli.fit_options import (
    Balance,
    Coverage,
    Device,
    MaxDrop,
    MaxError,
    MaxLatencyMs,
    MaxMacs,
    MaxMemoryMB,
    MaxParams,
    MaxSizeMB,
    Model,
    Precision,
    Resize,
    Runtime,
    Settings,
    Storage,
    Strategy,
    Trials,
    UnknownFrom,
    Weights,
)
from effnet.cli.launched import is_first
from effnet.cli.options import Data, GroupBy, ValueRange
from effnet.runtimes.registry import DEFAULT
from effnet.system.text import percent

Threads = Annotated[int, typer.Option(help="Threads of the runtime on the device.")]
Epochs = Annotated[int | None, typer.Option(help="Training epochs.")]
Minutes = Annotated[
    float | None,
    typer.Option(help="Minutes from start to bundle, instead of --epochs; default: 10 minutes of training."),
]
Out = Annotated[Path | None, typer.Option(help="Folder of the finished bundle; effnet-NAME by default.")]
Seed = Annotated[int | None, typer.Option(help="Seed of split, weights and augmentation; default: the recipe's, or 0.")]
Channels = Annotated[int | None, typer.Option(help="Input channels; by default detected from the data.")]
Strict = Annotated[bool, typer.Option("--strict", help="Fail if a file cannot be used.")]
NoReportImages = Annotated[
    bool, typer.Option("--no-report-images", help="Leave misclassified test images out of report.html.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the interrupted fit in --out.")]


def fit(
    data: Data,
    max_latency_ms: MaxLatencyMs = None,
    max_params: MaxParams = None,
    max_macs: MaxMacs = None,
    max_size_mb: MaxSizeMB = None,
    max_memory_mb: MaxMemoryMB = None,
    runtime: Runtime = DEFAULT,
    precision: Precision = "auto",
    max_drop: MaxDrop = 0.5,
    device: Device = None,
    trials: Trials = None,
    storage: Storage = "",
    weights: Weights = "auto",
    strategy: Strategy = "auto",
    model: Model = "",
    coverage: Coverage = None,
    max_error: MaxError = None,
    unknown_from: UnknownFrom = None,
    threads: Threads = 1,
    epochs: Epochs = None,
    minutes: Minutes = None,
    out: Out = None,
    seed: Seed = None,
    channels: Channels = None,
    resize: Resize = "auto",
    value_range: ValueRange = "auto",
    balance: Balance = None,
    settings: Settings = None,
    strict: Strict = False,
    no_report_images: NoReportImages = False,
    group_by: GroupBy = "",
    resume: Resume = False,
) -> None:
    """Train the most accurate EfficientNet that meets the budget, and verify it in its runtime.

    Exit code 3 if the budget is missed, 4 if the machine is too busy to judge it.
    """
    from effnet import fit as fit_data
    from effnet.cli.recipes import read_settings
    from effnet.planner.budget import parse_amount

    with TerminalListener() as listener:
        result = fit_data(
            data,
            max_latency_ms=max_latency_ms,
            max_params=parse_amount(max_params) if max_params is not None else None,
            max_macs=parse_amount(max_macs) if max_macs is not None else None,
            max_size_mb=max_size_mb,
            max_memory_mb=max_memory_mb,
            threads=threads,
            epochs=epochs,
            minutes=minutes,
            out=out,
            seed=seed,
            channels=channels,
            strict=strict,
            report_images=not no_report_images,
            group_by=group_by,
            resize=resize,  # type: ignore[arg-type]
            value_range=value_range,  # type: ignore[arg-type]
            balance=balance,
            settings=read_settings(settings or []),
            weights=weights,
            strategy=strategy,  # type: ignore[arg-type]  # checked with the other options
            model=model,
            coverage=coverage,
            max_error=max_error,
            unknown_from=unknown_from,
            runtime=runtime,
            precision=precision,  # type: ignore[arg-type]
            max_drop=max_drop,
            device=device,
            trials=trials,
            storage=storage,
            resume=resume,
            listener=listener,
        )
    if is_first():
        _print_result(result)


def train(
    data: Data,
    model: Annotated[str, typer.Option(help="A network's name, a bundle, or a spec as JSON.")] = "b0",
    resolution: Annotated[
        int | None, typer.Option(help="Input resolution, in pixels; by default the network's own.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="A name from `effnet recipes`, a JSON file, or a .py file that defines recipe(spec); it is run.",
        ),
    ] = None,
    settings: Settings = None,
    batch: Annotated[
        str | None,
        typer.Option(metavar="N|auto", help="Batch size; auto keeps it and finds the largest micro-batch in memory."),
    ] = None,
    epochs: Epochs = None,
    minutes: Minutes = None,
    out: Out = None,
    seed: Seed = None,
    channels: Channels = None,
    resize: Resize = "auto",
    value_range: ValueRange = "auto",
    balance: Balance = None,
    strict: Strict = False,
    no_report_images: NoReportImages = False,
    group_by: GroupBy = "",
    resume: Resume = False,
) -> None:
    """Train one network of your choice; like fit, without a budget."""
    from effnet import train as train_data
    from effnet.cli.recipes import read_settings

    with TerminalListener() as listener:
        result = train_data(
            data,
            model=model,
            resolution=resolution,
            recipe=recipe,
            settings=read_settings(settings or []),
            batch=_read_batch(batch),
            epochs=epochs,
            minutes=minutes,
            out=out,
            seed=seed,
            channels=channels,
            strict=strict,
            report_images=not no_report_images,
            group_by=group_by,
            resize=resize,  # type: ignore[arg-type]
            value_range=value_range,  # type: ignore[arg-type]
            balance=balance,
            resume=resume,
            listener=listener,
        )
    if is_first():
        _print_result(result)


def _read_batch(text: str | None) -> int | Literal["auto"] | None:
    """Parse --batch; raise InputError if it is neither a whole number nor auto."""
    from effnet.errors import InputError
    from effnet.system.text import brief

    if text is None:
        return None
    if text == "auto":
        return "auto"
    # No batch size has this many digits.
    if not text.isdecimal() or len(text) > 20:
        raise InputError(f"--batch must be a whole number of images, or auto; got {brief(text)}")
    return int(text)


def _print_result(result) -> None:
    from effnet.cli.evaluate import balanced_lines
    from effnet.planner.budget import LABELS, Budget, say
    from effnet.report.provenance import method_sentence

    report = result.report
    print_text()
    print_text(method_sentence(report))
    low, high = report["test"]["confidence"]
    print_text(
        f"Test accuracy {percent(report['test_accuracy'])} on {report['test']['images']} images "
        f"(95 % confidence {percent(low, 1)} to {percent(high, 1)}), scored on the exported file"
    )
    for line in balanced_lines(report["test"]):
        print_text(line[0].upper() + line[1:])
    if not report["test"]["chance"]:  # its warning says so as well
        usual = report["test"]["most_frequent"]
        print_text(f"Always answering {usual['name']!r} would reach {percent(usual['share'])}")
    for warning in report["warnings"]:
        print_text(f"WARNING: {warning}")
    _print_unknown(report)
    for name, limit in Budget(**report["budget"]).asked().items():
        print_text(f"{LABELS[name]}: {say(name, report['measured'][name])} of {say(name, limit)}")
    print_text(f"Bundle: {result.folder}    Report: {result.folder / 'report.html'}")
    if number := report["report_images"]:
        print_text(f"report.html holds {number} of your test images: share it only if you may share them")


def _print_unknown(report) -> None:
    """Print the threshold, if one was requested, and how many images of none of the classes were rejected."""
    calibration, test = report["calibration"], report["test"]
    if calibration["coverage"] is None and calibration["max_error"] is None:
        return
    answered, unknown = test["answered"], test["unknown"]
    if answered is None:
        print_text(calibration["sentence"])
    else:
        error = "" if answered["error"] is None else f", {answered['error']:.2%} of them wrong"
        print_text(f"Threshold {answered['threshold']:.4g}: {percent(answered['coverage'])} are answered{error}")
    if unknown is not None:
        rejected = "" if unknown["rejected"] is None else f"{percent(unknown['rejected'])} rejected, "
        print_text(f"Unknown images: {rejected}AUROC {unknown['auroc']:.3f} on {unknown['images']}")
