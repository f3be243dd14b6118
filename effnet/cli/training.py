"""fit and train: from pictures to a bundle."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from effnet.cli.console import TerminalListener
from effnet.cli.data import Data
from effnet.cli.launched import is_first

Threads = Annotated[int, typer.Option(help="Threads that the device will run the model with.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training pictures.")]
Minutes = Annotated[float | None, typer.Option(help="Minutes of training, instead of --epochs; 10 by default.")]
Out = Annotated[Path | None, typer.Option(help="Folder of the finished bundle; effnet-NAME by default.")]
Seed = Annotated[int, typer.Option(help="Seed of split, weights and views.")]
Channels = Annotated[int | None, typer.Option(help="Input channels; found out where not given.")]
Strict = Annotated[bool, typer.Option("--strict", help="A file that cannot be used is an error.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the fit in --out that was interrupted.")]


def fit(
    data: Data,
    max_latency_ms: Annotated[float | None, typer.Option(help="Median time of one picture in the runtime.")] = None,
    max_params: Annotated[str | None, typer.Option(help="Parameters, such as 1M.")] = None,
    max_macs: Annotated[str | None, typer.Option(help="Multiply-accumulates of one picture, such as 50M.")] = None,
    max_size_mb: Annotated[float | None, typer.Option(help="Size of the model's file, in 10^6 bytes.")] = None,
    max_memory_mb: Annotated[
        float | None, typer.Option(help="Peak memory beyond the idle runtime, in 10^6 bytes.")
    ] = None,
    runtime: Annotated[
        str, typer.Option(metavar="NAME", help="What the device runs: onnxruntime, openvino, litert or executorch.")
    ] = "onnxruntime",
    precision: Annotated[
        str,
        typer.Option(metavar="auto|fp32|fp16|w8|int8", help="Bits of the file; auto: fewer if a budget asks."),
    ] = "auto",
    max_drop: Annotated[float, typer.Option(help="Points of accuracy that fewer bits may cost.")] = 0.5,
    device: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Profile of another device, by `effnet profile`, to plan for.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="Fresh networks that are tried before one is chosen; 8 from 30 minutes on.")
    ] = None,
    storage: Annotated[str, typer.Option(metavar="FILE|URL", help="Where machines share their trials.")] = "",
    weights: Annotated[
        str, typer.Option(metavar="ID|FILE|auto|none", help="Pretrained weights to begin with; `effnet weights list`.")
    ] = "auto",
    strategy: Annotated[
        str, typer.Option(metavar="auto|head|finetune|scratch", help="What is trained; auto fine-tunes where it pays.")
    ] = "auto",
    model: Annotated[str, typer.Option(help="The network of a --weights FILE that does not tell it.")] = "",
    coverage: Annotated[
        float | None, typer.Option(help='Share of pictures to answer, such as 0.95; the others are "unknown".')
    ] = None,
    max_error: Annotated[
        float | None, typer.Option(help='Largest error among the answers, such as 0.01; "unknown" else.')
    ] = None,
    unknown_from: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Pictures of none of the classes, to measure rejection on.")
    ] = None,
    threads: Threads = 1,
    epochs: Epochs = None,
    minutes: Minutes = None,
    out: Out = None,
    seed: Seed = 0,
    channels: Channels = None,
    strict: Strict = False,
    resume: Resume = False,
) -> None:
    """Train the best EfficientNet that keeps the budget, and prove it. Exit code 3 if the budget is missed."""
    from effnet import fit as fit_data
    from effnet.fitting.budget import parse_amount

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
            weights=weights,
            strategy=strategy,  # type: ignore[arg-type]  # checked with the other options
            model=model,
            coverage=coverage,
            max_error=max_error,
            unknown_from=unknown_from,
            runtime=runtime,  # type: ignore[arg-type]
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
        int | None, typer.Option(help="Side of the input, in pixels; the network's own by default.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="A name of `effnet recipes`, a JSON file, or a .py file, which is run: its recipe(spec) is taken.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="A field of the recipe, such as train.lr=0.1; repeatable."),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(metavar="N|auto", help="Pictures of a step; auto finds how many of them memory holds at once."),
    ] = None,
    epochs: Epochs = None,
    minutes: Minutes = None,
    out: Out = None,
    seed: Annotated[int | None, typer.Option(help="Seed of split, weights and views; the recipe's, or 0.")] = None,
    channels: Channels = None,
    strict: Strict = False,
    resume: Resume = False,
) -> None:
    """Train one network of your choice; like fit, without a budget."""
    from effnet import train as train_data
    from effnet.cli.networks import read_spec
    from effnet.cli.recipes import read_settings

    with TerminalListener() as listener:
        result = train_data(
            data,
            spec=read_spec(model),
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
            resume=resume,
            listener=listener,
        )
    if is_first():
        _print_result(result)


def _read_batch(text: str | None) -> int | Literal["auto"] | None:
    """Returns what --batch asks for; raises InputError where it is neither a whole number nor auto."""
    from effnet.errors import InputError

    if text is None:
        return None
    if text == "auto":
        return "auto"
    if not text.isdecimal():
        raise InputError(f"--batch must be a whole number of pictures, or auto; got {text!r}")
    return int(text)


def _print_result(result) -> None:
    from effnet.fitting.budget import LABELS, Budget, say
    from effnet.fitting.origin import method_sentence

    report = result.report
    print()
    print(method_sentence(report))
    low, high = report["test"]["confidence"]
    print(
        f"Test accuracy {report['test_accuracy']:.2%} on {report['test']['images']} pictures "
        f"(95 % confidence {low:.1%} to {high:.1%}), scored on the exported file"
    )
    _print_unknown(report)
    for name, limit in Budget(**report["budget"]).asked().items():
        print(f"{LABELS[name]}: {say(name, report['measured'][name])} of {say(name, limit)}")
    print(f"Bundle: {result.folder}    Report: {result.folder / 'report.html'}")


def _print_unknown(report) -> None:
    """Prints what became of the wish for a threshold, and of pictures of none of the classes, where there were any."""
    calibration, test = report["calibration"], report["test"]
    if calibration["coverage"] is None and calibration["max_error"] is None:
        return
    answered, unknown = test["answered"], test["unknown"]
    if answered is None:
        print(calibration["sentence"])
    else:
        error = "" if answered["error"] is None else f", {answered['error']:.2%} of them wrong"
        print(f"Threshold {answered['threshold']:.4g}: {answered['coverage']:.2%} are answered{error}")
    if unknown is not None:
        rejected = "" if unknown["rejected"] is None else f"{unknown['rejected']:.2%} rejected, "
        print(f"Unknown pictures: {rejected}AUROC {unknown['auroc']:.3f} on {unknown['images']}")
