"""import: a checkpoint of one's own becomes a bundle."""

from pathlib import Path
from typing import Annotated

import typer

from effnet.cli.console import print_text
from effnet.errors import InputError


def import_(
    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="CHECKPOINT", help="Weights that timm, torchvision, Keras, Lightning, ... saved."),
    ],
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|DATA",
            help="Class names in the order of the outputs (.txt, .json), or the training data, or imagenet.",
        ),
    ] = None,
    class_order: Annotated[
        str | None, typer.Option(metavar="imagefolder|timm", help="How the training sorted the classes of DATA.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="Network, or id of `effnet weights list`, if the file does not tell it.")
    ] = "",
    head: Annotated[
        str, typer.Option(metavar="NAME", help="Linear layer that is the classifier, if it has a name of its own.")
    ] = "",
    resolution: Annotated[int | None, typer.Option(help="Side of the input in training, in pixels.")] = None,
    mean: Annotated[str | None, typer.Option(metavar="R,G,B", help="Mean of pixels scaled to 0..1.")] = None,
    std: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="Standard deviation of pixels scaled to 0..1.")
    ] = None,
    crop: Annotated[float | None, typer.Option(help="Share of the shorter side that is kept, such as 0.875.")] = None,
    resize: Annotated[
        str | None, typer.Option(metavar="HOW", help="How images become square: center (crop), squash or pad.")
    ] = None,
    interpolation: Annotated[
        str | None, typer.Option(metavar="NAME", help="nearest, bilinear, bicubic or lanczos.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the new bundle; effnet-NAME by default.")] = None,
) -> None:
    """Make a bundle of your own checkpoint, with its classifier."""
    from effnet.exporting.importing import import_checkpoint

    found = import_checkpoint(
        checkpoint,
        classes=classes,
        class_order=class_order,  # type: ignore[arg-type]  # checked with the classes
        model=model or None,
        head=head or None,
        preprocess={
            "resolution": resolution,
            "mean": _numbers(mean, "--mean"),
            "std": _numbers(std, "--std"),
            "crop": crop,
            "mode": resize,
            "interpolation": interpolation,
        },
        out=out,
    )
    config = found.config
    for note in found.notes:
        print_text(f"- {note}")
    how = config.preprocess
    means, stds = (" ".join(f"{value:.4g}" for value in values) for values in (how.mean, how.std))
    print_text(
        f"- {how.resolution} pixels, {how.mode}, crop {how.crop:g}, {how.interpolation}; mean {means}; std {stds}"
    )
    source = config.origin.source if config.origin else checkpoint.name
    print_text(f"{found.folder} is a bundle of {config.arch.name} with {len(config.class_names):,} classes, {source}.")
    print_text(f"Labelled images show whether classes and preprocessing are right: effnet evaluate {found.folder} DATA")


def _numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError as error:
        raise InputError(f"{option} must be numbers with commas between, such as 0.5,0.5,0.5; got {text!r}") from error
