"""weights and pull: published weights, and bundles made of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effnet.cli.console import amount, make_console, print_json, print_table, print_text
from effnet.cli.networks import Format, Output

if TYPE_CHECKING:
    from effnet.weights.catalog import PublishedWeights
    from effnet.weights.download import Progress

app = typer.Typer(
    help="Browse published ImageNet weights.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Id = Annotated[str, typer.Argument(metavar="ID", help="An id of `effnet weights list`, or a network's name.")]


class Family(StrEnum):
    """The families that published weights belong to."""

    v1 = "v1"
    lite = "lite"
    edgetpu = "edgetpu"
    v2 = "v2"
    resnet = "resnet"


@app.command("list")
def list_weights(
    family: Annotated[Family | None, typer.Option(help="Only this family of networks.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Only weights that are already downloaded.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Also weights that effnet cannot use.")] = False,
    output: Format = Output.table,
) -> None:
    """List published weights with their size, accuracy and licence."""
    from effnet.weights.catalog import entries
    from effnet.weights.download import cached

    known = entries(family=family, supported_only=False)
    shown = [e for e in known if everything or not (e.unsupported or e.untrained)]
    places = {e.id: cached(e) for e in shown}
    if offline:
        shown = [e for e in shown if places[e.id]]
    if output is Output.json:
        print_json([_facts(e, places[e.id]) for e in shown])
        return
    print_table(
        ("id", "network", "params", "MB", "top-1 %", "pixels", "licence", "state"),
        [_row(e, places[e.id]) for e in shown],
        left=("id", "network", "licence", "state"),
    )
    rest = "" if offline else _rest([e for e in known if e not in shown])
    print_text(f"{len(shown)} published weights{rest}; `effnet weights info ID` shows the details of one")


def _row(entry: "PublishedWeights", place: Path | None) -> tuple[Any, ...]:
    state = "untrained" if entry.untrained else "unsupported" if entry.unsupported else "downloaded" if place else ""
    size, top1 = f"{entry.size_bytes / 1e6:.0f}", "-" if entry.top1 is None else f"{entry.top1:g}"
    network = f"{entry.network} (pruned)" if entry.pruned else entry.network
    return (entry.id, network, amount(entry.params), size, top1, entry.test_resolution, entry.licence, state)


def _rest(hidden: "list[PublishedWeights]") -> str:
    """Return the number of hidden entries, with the reason."""
    if not hidden:
        return ""
    untrained = sum(e.untrained for e in hidden)
    counts = ((len(hidden) - untrained, "that effnet cannot build"), (untrained, "names without weights"))
    return "; --all shows " + " and ".join(f"{count} {what}" for count, what in counts if count) + " as well"


@app.command()
def convert(
    weights: Annotated[str, typer.Argument(metavar="ID|FILE|BUNDLE", help="As for `effnet fit --weights`.")],
    to: Annotated[
        str, typer.Option(metavar="SCHEME", help="timm, torchvision, lukemelas, keras, tensorflow or effnet.")
    ],
    out: Annotated[Path, typer.Option(help="The safetensors file to write.")],
    model: Annotated[str, typer.Option(help="Architecture of FILE, if it cannot be inferred.")] = "",
) -> None:
    """Write weights under the names and in the layout of another project."""
    from effnet.weights.convert import convert as convert_weights

    count = convert_weights(weights, to=to, out=out, model=model or None)
    print_text(f"wrote {count} arrays under the names of {to} to {out}")


@app.command()
def info(
    name: Annotated[str, typer.Argument(metavar="ID|FILE|BUNDLE", help="An id of `effnet weights list`, or a path.")],
    model: Annotated[str, typer.Option(help="Architecture of FILE, if it cannot be inferred.")] = "",
    output: Format = Output.table,
) -> None:
    """Show the details of one set of weights, published or your own."""
    from effnet.weights.catalog import entries, find
    from effnet.weights.download import cached

    if Path(name).exists() and all(name != entry.id for entry in entries(supported_only=False)):
        facts = _own_facts(Path(name), model=model or None)
    else:
        entry = find(name)
        facts = _facts(entry, cached(entry))
    if output is Output.json:
        print_json(facts)
        return
    rows = [(key, _text(value)) for key, value in facts.items() if value not in ("", [])]
    print_table(("fact", "value"), rows, left=("fact", "value"))


def _facts(entry: "PublishedWeights", place: Path | None) -> dict[str, Any]:
    from effnet.weights.catalog import preprocess_of

    return {
        "id": entry.id,
        "network": entry.network,
        "family": entry.family,
        "usable": "no" if entry.unsupported or entry.untrained else "yes",
        "why_not": entry.unsupported or ("no weights were published" if entry.untrained else ""),
        "params": entry.params,
        "size_bytes": entry.size_bytes,
        "num_classes": entry.num_classes,
        "pruned": entry.pruned,
        "top1": [{"percent": top1, "resolution": resolution} for top1, resolution in entry.accuracies],
        "top1_source": entry.accuracy_source if entry.accuracies else "",
        "licence": entry.licence,
        "licence_source": entry.licence_source,
        "source": entry.source,
        "url": entry.page,
        "file": entry.file,
        "older_files": list(entry.legacy_files),
        "hashes": list(entry.hashes),
        "hashes_of": _hashed_file(entry),
        "preprocess": preprocess_of(entry).to_dict(),
        "preprocess_of_training": preprocess_of(entry, test=False).to_dict(),
        "note": entry.note,
        "downloaded_to": str(place) if place else "",
    }


def _own_facts(path: Path, *, model: str | None) -> dict[str, Any]:
    from effnet.arch.cost import cost
    from effnet.bundle.config import read_config
    from effnet.report.card_published import UNKNOWN_LICENCE
    from effnet.weights.hub_config import is_bundle
    from effnet.weights.pretrained import load_pretrained
    from effnet.weights.provenance import origin_words

    found = load_pretrained(str(path), model=model)
    made_of = origin_words(path, read_config(path)) if is_bundle(path) else ""
    return {
        "id": found.published,
        "network": found.spec.name,
        "params": cost(found.spec).params,
        "num_classes": found.spec.num_classes,
        "top1": [] if found.top1 is None else [{"percent": found.top1, "resolution": found.preprocess.resolution}],
        "top1_source": "" if found.top1 is None else "published for these very weights",
        "licence": found.licence or UNKNOWN_LICENCE,
        "source": made_of or str(path),
        "preprocess": found.preprocess.to_dict(),
        "notes": list(found.notes),
    }


def _hashed_file(entry: "PublishedWeights") -> str:
    """Return the name of the file that the published hashes are of."""
    if not entry.hashes:
        return ""
    return entry.legacy_files[0] if entry.hub else entry.file


def _text(value: Any) -> str:
    """Format a fact for a reader."""
    match value:
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case [{"percent": _}, *_]:
            return ", ".join(f"{row['percent']:g} % at {row['resolution']} pixels" for row in value)
        case {"resolution": side, "crop": crop, "mode": mode, "interpolation": how, "mean": mean, "std": std}:
            numbers = " ".join(f"{v:.4g}" for v in mean), " ".join(f"{v:.4g}" for v in std)
            return f"{side} pixels, {mode}, crop {crop:g}, {how}; mean {numbers[0]}; std {numbers[1]}"
        case list():
            return ", ".join(map(str, value))
    return str(value)


def pull(
    name: Id,
    out: Annotated[Path | None, typer.Option(help="Folder of the new bundle; effnet-NAME by default.")] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The published file, if you already have it.")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not use the network; fail if the file is not cached.")
    ] = False,
) -> None:
    """Make a bundle of published weights, ready to predict."""
    from effnet.bundle.config import read_config
    from effnet.bundle.names import ONNX
    from effnet.jobs.pull import pull as pull_bundle

    with _download_bar() as progress:
        folder = pull_bundle(name, out=out, file=weights, offline=offline, progress=progress)
    config = read_config(folder)
    published = config.origin.published if config.origin else ""
    print_text(f"{folder} is a bundle of {published or config.arch.name} now.")
    if not published:
        print_text(
            f"No published hash proves that {weights} is the published file: the bundle has neither its name nor its "
            "accuracy."
        )
    if (folder / ONNX).is_file():
        print_text(f"Classify images: effnet predict {folder} IMAGES")


@contextmanager
def _download_bar() -> "Iterator[Progress | None]":
    """Yield a callback that shows the progress of a download, on a terminal only."""
    console = make_console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("downloading"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, visible=False)
        yield lambda done, total: bar.update(task, total=total or None, completed=done, visible=True)
