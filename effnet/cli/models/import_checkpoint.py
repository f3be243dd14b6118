"""models import: a bundle of your own checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effnet.cli.console import print_text
from effnet.cli.recipes import read_settings
from effnet.errors import InputError

if TYPE_CHECKING:
    from effnet.jobs.import_checkpoint import Imported


def import_(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT", help="Weights saved by timm, torchvision, Keras, effdet, smp, Lightning, ..."
        ),
    ],
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|DATA",
            help="Class names in the order of the outputs (.txt, .json), or the training data, imagenet or coco.",
        ),
    ] = None,
    class_order: Annotated[
        str | None, typer.Option(metavar="imagefolder|timm", help="Order in which training sorted the classes of DATA.")
    ] = None,
    model: Annotated[str, typer.Option(help="Network, or id of `effnet models list`, if it cannot be inferred.")] = "",
    head: Annotated[
        str, typer.Option(metavar="NAME", help="Name of the classifier's linear layer, if it is not the usual one.")
    ] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Set a field of the preprocessing: resolution, mean and std (as R,G,B, of pixels scaled to 0..1), "
            "crop (fraction of the shorter side), mode (center, squash, pad, corner), interpolation (nearest, "
            "bilinear, bicubic, lanczos); repeatable.",
        ),
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
        preprocess=_read_preprocess(settings or []),
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


def _read_preprocess(words: list[str]) -> dict[str, Any]:
    """Parse the fields of --set; mean and std become tuples."""
    found = read_settings(words)
    for name in ("mean", "std"):
        if isinstance(text := found.get(name), str | int | float):
            found[name] = _numbers(str(text), name)
    return found


def _numbers(text: str, name: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError as error:
        raise InputError(f"{name} must be comma-separated numbers, such as 0.5,0.5,0.5; got {text!r}") from error
