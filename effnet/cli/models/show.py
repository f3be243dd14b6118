"""models show: a network and its weights, without torch."""

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effnet.cli.console import print_json, print_table, print_text
from effnet.cli.options import Format, Output, Resolution

if TYPE_CHECKING:
    from effnet.arch.spec import ArchSpec
    from effnet.weights.catalog import PublishedWeights


def show(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="NAME|ID|FILE|BUNDLE|SPEC.json",
            help="A network's name, an id of `effnet models list`, weights, a bundle, or a spec.",
        ),
    ],
    resolution: Resolution = None,
    layers: Annotated[bool, typer.Option("--layers", help="Print every layer with its cost as well.")] = False,
    model: Annotated[str, typer.Option(help="Architecture of FILE, if it cannot be inferred.")] = "",
    output: Format = Output.table,
) -> None:
    """Show the facts of weights, published or your own, and the stages of their network as the paper's Table 1."""
    from effnet.arch.codec import spec_to_dict
    from effnet.arch.describe import describe

    spec, facts = _find(subject, model=model or None)
    if spec is not None and resolution is not None:
        spec = dataclasses.replace(spec, resolution=resolution)
    if output is Output.json:
        print_json({"weights": facts, "network": None if spec is None else spec_to_dict(spec)})
        return
    if facts is not None:
        rows = [(key, _text(value)) for key, value in facts.items() if value not in ("", [])]
        print_table(("fact", "value"), rows, left=("fact", "value"))
    if spec is not None:
        text = describe(spec)
        print_text((text if layers else text.split("\n\nlayer", 1)[0]).rstrip("\n"))


def _find(subject: str, *, model: str | None) -> "tuple[ArchSpec | None, dict[str, Any] | None]":
    """Return the network, if effnet can build it, and the facts of the weights, if `subject` names weights."""
    from effnet.bundle.spec_of import read_spec
    from effnet.weights.catalog import entries

    path = Path(subject)
    whole_id = any(subject == entry.id for entry in entries(supported_only=False))
    if not whole_id and os.path.isdir(subject):
        return _in_folder(path, model=model)
    is_weights = whole_id or (("/" in subject or "." in subject) and not _names_detector(subject))
    if path.suffix == ".json" or not (is_weights or path.exists()):
        return read_spec(subject), None
    return _published(subject) if whole_id or not path.exists() else _in_file(path, model=model)


def _names_detector(subject: str) -> bool:
    """Return whether this is a detector's name, perhaps with effdet's prefix; its weights are not in the catalog."""
    from effnet.arch.catalog import DETECTORS, short_name
    from effnet.errors import SpecError

    try:
        return short_name(subject) in DETECTORS
    except SpecError:
        return False


def _published(name: str) -> "tuple[ArchSpec | None, dict[str, Any]]":
    from effnet.arch.catalog import get_spec
    from effnet.weights.catalog import find
    from effnet.weights.download import cached

    entry = find(name)
    facts = published_facts(entry, cached(entry))
    if entry.unsupported or entry.pruned:  # the file alone says which channels a pruned network has kept
        return None, facts
    spec = get_spec(entry.network, num_classes=entry.num_classes)
    return dataclasses.replace(spec, resolution=entry.test_resolution), facts


def _in_folder(folder: Path, *, model: str | None) -> "tuple[ArchSpec, dict[str, Any]]":
    from effnet.bundle.config import read_config
    from effnet.weights.hub_config import is_bundle
    from effnet.weights.provenance import find_origin, origin_words, published_origin

    if not is_bundle(folder):
        return _in_file(folder, model=model)
    config = read_config(folder)
    entry, origin = published_origin(folder, config), find_origin(config)
    facts = _own_facts(
        config.arch,
        published=entry.id if entry else "",
        name=config.arch.name,
        top1=entry.top1 if entry else None,
        licence=origin.licence if origin else "",
        preprocess=config.preprocess,
    )
    return config.arch, facts | {"source": origin_words(folder, config)}


def _in_file(path: Path, *, model: str | None) -> "tuple[ArchSpec, dict[str, Any]]":
    from effnet.weights.pretrained import load_pretrained

    found = load_pretrained(str(path), model=model)
    facts = _own_facts(
        found.spec,
        published=found.published,
        name=found.spec.name,
        top1=found.top1,
        licence=found.licence,
        preprocess=found.preprocess,
    )
    return found.spec, facts | {"source": str(path), "notes": list(found.notes)}


def _own_facts(
    spec: "ArchSpec", *, published: str, name: str, top1: float | None, licence: str, preprocess: Any
) -> dict[str, Any]:
    from effnet.arch.cost import cost
    from effnet.report.cards.published import UNKNOWN_LICENCE

    return {
        "id": published,
        "network": name,
        "params": cost(spec).params,
        "num_classes": spec.num_classes,
        "top1": [] if top1 is None else [{"percent": top1, "resolution": preprocess.resolution}],
        "top1_source": "" if top1 is None else "published for these very weights",
        "licence": licence or UNKNOWN_LICENCE,
        "preprocess": preprocess.to_dict(),
    }


def published_facts(entry: "PublishedWeights", place: Path | None) -> dict[str, Any]:
    """Return what is known of published weights; `place` is where they were downloaded to."""
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
