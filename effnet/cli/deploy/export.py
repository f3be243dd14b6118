"""export: write a bundle for other runtimes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effnet.cli.console import fail, make_console, print_text
from effnet.cli.options import Bundle
from effnet.cli.recipes import read_settings
from effnet.errors import InputError
from effnet.runtimes.registry import FEATURES, FORMATS, RUNTIMES
from effnet.system.text import brief, percent

if TYPE_CHECKING:
    from effnet.runtimes.write import Quantization


_CHOICES = {"method": ("minmax", "percentile", "entropy"), "bias_correction": ("fast", "full", "none")}


def export(
    bundle: Bundle,
    to: Annotated[
        str, typer.Option(metavar="FORMATS", help="Formats to write, comma-separated; `all`: all that are installed.")
    ] = "onnx",
    data: Annotated[
        str | None,
        typer.Option(
            help="Images to calibrate int8 and to check and score the exports; default: random images check them."
        ),
    ] = None,
    features: Annotated[
        bool, typer.Option("--features", help="Write files that return embeddings, for `effnet embed`.")
    ] = False,
    maps: Annotated[
        bool, typer.Option("--maps", help="Let the files return activation maps too, for `effnet explain`.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder to write to; by default the bundle.")
    ] = None,
    max_drop: Annotated[
        float, typer.Option(min=0, max=100, help="Maximum accuracy drop from quantization, in percentage points.")
    ] = 0.5,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Set a field of int8 quantization: images (of calibration, 256), method (minmax, percentile, "
            "entropy), bias_correction (fast, full, none; if the runtime supports it), float_layers "
            "(comma-separated names of `effnet models show --layers` that stay float); repeatable.",
        ),
    ] = None,
) -> None:
    """Write a bundle for other runtimes, and check each file against the trained network."""
    from effnet.errors import EffnetError
    from effnet.jobs.export.api import export_each

    quantization, images = _read_quantization(settings or [])
    code = 0
    with _status() as progress:
        for name, found in export_each(
            bundle, _formats(to, features=features, maps=maps), features=features, maps=maps, data=data, out=out,
            quantization=quantization, max_drop=max_drop / 100, progress=progress, **images,
        ):  # fmt: skip
            if isinstance(found, EffnetError):
                fail(f"{name}: {found}" if "," in to or to == "all" else str(found))
                code = max(code, found.exit_code)
            else:
                print_text(in_words(found), flush=True)
    if code:
        raise typer.Exit(code)


# The docstring is the help.
export.__doc__ = f"{export.__doc__}\n\n    Formats: {', '.join(FORMATS)}. With --features: {', '.join(FEATURES)}."


def _read_quantization(given: list[str]) -> tuple["Quantization", dict[str, int]]:
    """Parse --set: the settings of int8, and the number of images to calibrate it with, if it is given."""
    from effnet.runtimes.write import Quantization

    fields = read_settings(given)
    images = {"images": fields.pop("images")} if "images" in fields else {}
    if not all(type(number) is int for number in images.values()):
        raise InputError(f"images must be a whole number; got {brief(str(images['images']))}")
    if isinstance(layers := fields.get("float_layers"), str):
        fields["float_layers"] = tuple(words(layers))
    for name, value in fields.items():
        if name in _CHOICES and value not in _CHOICES[name]:
            raise InputError(f"{name} must be one of {', '.join(_CHOICES[name])}; got {brief(str(value))}")
        if name not in (*_CHOICES, "float_layers") or not isinstance(value, str | tuple):
            raise InputError(
                f"--set must be images, method, bias_correction or float_layers with a value; got {brief(name)}"
            )
    return Quantization(**fields), images


def words(text: str) -> list[str]:
    """Split a comma-separated text into words."""
    return [word for part in text.split(",") if (word := part.strip())]


def _formats(text: str, *, features: bool, maps: bool) -> list[str]:
    from effnet.runtimes.installed import missing

    if text == "all":
        known = FEATURES if features else FORMATS
        able = {name: target for name, target in known.items() if RUNTIMES[target.runtime].maps or not maps}
        return [name for name, target in able.items() if missing(target.runtime) is None]
    return words(text)


def in_words(found: Any) -> str:
    """Describe the result of one export on one line."""
    from effnet.tasks.known import SCORE

    text = f"wrote {found.path}: "
    if found.check is None:
        return f"{text}{found.size_bytes / 1e6:.2f} MB, converted, not run: this machine has no runtime for it"
    kind = "random images" if found.random else "images"
    if found.format.result == "features":
        return (
            f"{text}embeddings of {found.check.images} {kind} differ by at most {found.check.relative_error:.1e} of "
            f"their length, least cosine {found.check.cosine:.6f}; {found.size_bytes / 1e6:.2f} MB"
        )
    value, same = ("value", "answers") if found.several or found.in_image else ("probability", "class")
    agreed = f"same {same} on {percent(found.check.agreement, 1)} of {found.check.images} {kind}"
    if found.in_image:
        agreed = f"{percent(found.check.agreement, 1)} of the answers on {found.check.images} {kind} are the same"
    text += f"largest difference of a {value} {found.check.max_difference:.1e}, {agreed}"
    if found.accuracy is not None:
        scored = f"{found.scored} {'images of these data' if found.part == 'all' else 'test images'}"
        text += f"; accuracy {percent(found.accuracy)} on {scored}, {found.size_bytes / 1e6:.2f} MB"
    if found.judged is not None:
        drop = f"{found.judged.title} drop against fp32 {100 * found.judged.drop:+.2f} pp"
        text += f"; {drop} on {found.judged.images} labelled images"
    elif found.format.precision != "fp32" and found.random:
        text += "; accuracy not measured: give --data"
    if found.unscored:
        text += f"; not scored: {found.unscored}"
    if found.without_score:
        text += f"; it cannot return the score {SCORE!r}: the largest probability says which images are unknown"
    return text


@contextmanager
def _status() -> Iterator[Callable[[str, int, int], None] | None]:
    """Show the current step, on a terminal only."""
    console = make_console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with console.status("reading") as status:
        yield lambda text, done, total: status.update(f"{text}: {done} of {total}" if total else text)
