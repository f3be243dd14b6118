"""models list: the networks and their published weights, without torch."""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effnet.cli.console import amount, print_json, print_table, print_text
from effnet.cli.options import Format, Output

if TYPE_CHECKING:
    from effnet.weights.catalog import PublishedWeights


class Family(StrEnum):
    """The families of networks."""

    v1 = "v1"
    lite = "lite"
    edgetpu = "edgetpu"
    v2 = "v2"
    resnet = "resnet"


_TITLES = {
    "v1": "EfficientNet",
    "lite": "EfficientNet-Lite",
    "edgetpu": "EfficientNet-EdgeTPU",
    "v2": "EfficientNetV2",
    "resnet": "ResNet",
}
_COLUMNS = ("network", "weights", "params", "GMACs", "MB", "pixels", "top-1 %", "licence", "state")


def list_models(
    family: Annotated[Family | None, typer.Option(help="Only this family of networks.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Only weights that are already downloaded.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Also weights that effnet cannot use.")] = False,
    output: Format = Output.table,
) -> None:
    """List the networks with their cost and accuracy, each with its published weights."""
    from effnet.weights.catalog import entries
    from effnet.weights.download import cached

    known = entries(family=family, supported_only=False)
    shown = [e for e in known if everything or not (e.unsupported or e.untrained)]
    places = {e.id: cached(e) for e in shown}
    if offline:
        shown = [e for e in shown if places[e.id]]
    networks = list(_networks(shown, families=(family,) if family else tuple(_TITLES), empty=not offline))
    if output is Output.json:
        print_json([_as_json(facts, some, places) for facts, some in networks])
        return
    rows: list[Sequence[Any]] = []
    for facts, some in networks:
        rows += [_network_row(facts), *(_weights_row(entry, places[entry.id]) for entry in some)]
    print_table(_COLUMNS, rows, left=("network", "weights", "licence", "state"))
    rest = "" if offline else _rest([e for e in known if e not in shown])
    print_text(
        f"{len(networks)} networks, {len(shown)} published weights{rest}; "
        "`effnet models show ID` shows the details of one"
    )


def _networks(
    shown: "list[PublishedWeights]", *, families: Sequence[str], empty: bool
) -> "Iterator[tuple[dict[str, Any], list[PublishedWeights]]]":
    """Yield each network's facts with its weights; a network of none only if `empty`; last those effnet lacks."""
    from effnet.arch.catalog import FAMILIES, short_name
    from effnet.errors import SpecError

    of: dict[str, list[PublishedWeights]] = {}
    for entry in shown:
        try:
            of.setdefault(short_name(entry.network), []).append(entry)
        except SpecError:
            of.setdefault(entry.network, []).append(entry)
    for family in families:
        for name in FAMILIES[_TITLES[family]]:
            some = of.pop(name, [])
            if some or empty:
                yield _facts(name, family), some
    for name, some in of.items():
        absent = {"macs": None, "resolution": some[0].test_resolution, "top1": None, "source": None}
        yield {"name": name, "family": some[0].family, "params": some[0].params} | absent, some


def _facts(name: str, family: str) -> dict[str, Any]:
    from effnet.arch.catalog import get_spec, published
    from effnet.arch.cost import cost

    spec, found = get_spec(name), published(name)
    total = cost(spec)
    return {
        "name": name,
        "family": family,
        "params": total.params,
        "macs": total.macs,
        "resolution": spec.resolution,
        "top1": found.top1 if found else None,
        "source": found.source if found else None,
    }


def _as_json(facts: dict[str, Any], some: "list[PublishedWeights]", places: dict[str, Path | None]) -> dict[str, Any]:
    from effnet.cli.models.show import published_facts

    return facts | {"weights": [published_facts(entry, places[entry.id]) for entry in some]}


def _network_row(facts: dict[str, Any]) -> tuple[Any, ...]:
    gmacs = "" if facts["macs"] is None else f"{facts['macs'] / 1e9:.3f}"
    top1 = "" if facts["top1"] is None else f"{facts['top1']:g}"
    return (facts["name"], "", amount(facts["params"]), gmacs, "", facts["resolution"], top1, "", "")


def _weights_row(entry: "PublishedWeights", place: Path | None) -> tuple[Any, ...]:
    state = "untrained" if entry.untrained else "unsupported" if entry.unsupported else "downloaded" if place else ""
    size, top1 = f"{entry.size_bytes / 1e6:.0f}", "-" if entry.top1 is None else f"{entry.top1:g}"
    params = amount(entry.params) if entry.pruned else ""
    return ("", entry.id, params, "", size, entry.test_resolution, top1, entry.licence, state)


def _rest(hidden: "list[PublishedWeights]") -> str:
    """Return the number of hidden entries, with the reason."""
    if not hidden:
        return ""
    untrained = sum(e.untrained for e in hidden)
    counts = ((len(hidden) - untrained, "that effnet cannot build"), (untrained, "names without weights"))
    return "; --all shows " + " and ".join(f"{count} {what}" for count, what in counts if count) + " as well"
