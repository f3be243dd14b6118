"""import: make a bundle of your own checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effnet.cli.console import print_text
from effnet.errors import InputError

if TYPE_CHECKING:
    from effnet.jobs.import_checkpoint import Imported


def import_(
    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="CHECKPOINT", help="Weights saved by timm, torchvision, Keras, Lightning, ..."),
    ],
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|DATA",
            help="Class names in the order of the outputs (.txt, .json), or the training data, or imagenet.",
        ),
    ] = None,
    class_order: Annotated[
        str | None, typer.Option(metavar="imagefolder|timm", help="Order in which training sorted the classes of DATA.")
    ] = None,
    model: Annotated[str, typer.Option(help="Network, or id of `effnet weights list`, if it cannot be inferred.")] = "",
    head: Annotated[
        str, typer.Option(metavar="NAME", help="Name of the classifier's linear layer, if it is not the usual one.")
    ] = "",
    resolution: Annotated[int | None, typer.Option(help="Input resolution in training, in pixels.")] = None,
    mean: Annotated[str | None, typer.Option(metavar="R,G,B", help="Mean of pixels scaled to 0..1.")] = None,
    std: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="Standard deviation of pixels scaled to 0..1.")
    ] = None,
    crop: Annotated[
        float | None, typer.Option(help="Fraction of the shorter side that is kept, such as 0.875.")
    ] = None,
    resize: Annotated[
        str | None, typer.Option(metavar="HOW", help="How images become square: center (crop), squash or pad.")
    ] = None,
    interpolation: Annotated[
        str | None, typer.Option(metavar="NAME", help="nearest, bilinear, bicubic or lanczos.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the new bundle; effnet-NAME by default.")] = None,
) -> None:
    """Make a bundle of your own checkpoint, with its classifier."""
    from effnet.jobs.import_checkpoint import import_checkpoint

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
    _print_imported(found, checkpoint)


def _print_imported(found: "Imported", checkpoint: Path) -> None:
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
    print_text(f"Check the classes and the preprocessing on labelled images: effnet evaluate {found.folder} DATA")


def _numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError as error:
        raise InputError(f"{option} must be comma-separated numbers, such as 0.5,0.5,0.5; got {text!r}") from error
