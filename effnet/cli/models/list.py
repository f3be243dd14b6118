"""models list: the networks and their published weights, without torch."""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effnet.cli.console import amount, print_json, print_table, print_text
from effnet.cli.options import Format, Output
from effnet.errors import InputError

if TYPE_CHECKING:
    from effnet.weights.catalog import PublishedWeights


class Family(StrEnum):
    """The families of networks."""

    v1 = "v1"
    lite = "lite"
    edgetpu = "edgetpu"
    v2 = "v2"
    resnet = "resnet"
    efficientdet = "efficientdet"
    efficientdet_lite = "efficientdet_lite"


class Task(StrEnum):
    """What the listed networks answer."""

    classification = "classification"
    detection = "detection"


_TITLES = {
    "v1": "EfficientNet",
    "lite": "EfficientNet-Lite",
    "edgetpu": "EfficientNet-EdgeTPU",
    "v2": "EfficientNetV2",
    "resnet": "ResNet",
}
_DETECTOR_TITLES = {"efficientdet": "EfficientDet", "efficientdet_lite": "EfficientDet-Lite"}
_COLUMNS = ("network", "weights", "params", "GMACs", "MB", "pixels", "top-1 %", "licence", "state")
_DETECTOR_COLUMNS = ("detector", "params", "GMACs", "pixels", "AP %", "AP % test-dev", "AP50 % test-dev")


def list_models(
    task: Annotated[Task | None, typer.Option(help="Only networks of this task.")] = None,
    family: Annotated[Family | None, typer.Option(help="Only this family of networks.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Only weights that are already downloaded.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Also weights that effnet cannot use.")] = False,
    output: Format = Output.table,
) -> None:
    """List the networks with their cost and accuracy, each with its published weights."""
    classifiers = () if task is Task.detection else tuple(name for name in _TITLES if family in (None, name))
    detectors = () if task is Task.classification else tuple(n for n in _DETECTOR_TITLES if family in (None, n))
    if not classifiers and not detectors:
        raise InputError(f"--family {family} has no networks for {task}; leave out one of the two")
    found = _Classifiers(classifiers, offline=offline, everything=everything) if classifiers else None
    rows = [facts for name in detectors for facts in _detectors(name)] if not offline else []
    if output is Output.json:
        print_json((found.as_json() if found else []) + rows)
        return
    if found:
        found.print()
    if rows:
        print_table(_DETECTOR_COLUMNS, [_detector_row(facts) for facts in rows], left=("detector",))
        print_text(f"{len(rows)} detectors of objects; AP is COCO's, on val2017 unless test-dev is said")
    elif detectors and not found:
        print_text("no weights of a detector are downloaded")


class _Classifiers:
    """The networks of some families that classify, with their published weights and where these are."""

    def __init__(self, families: Sequence[str], *, offline: bool, everything: bool) -> None:
        from effnet.weights.catalog import entries
        from effnet.weights.download import cached

        self.known = [entry for name in families for entry in entries(family=name, supported_only=False)]
        shown = [e for e in self.known if everything or not (e.unsupported or e.untrained)]
        self.places = {e.id: cached(e) for e in shown}
        self.shown = [e for e in shown if self.places[e.id]] if offline else shown
        self.offline = offline
        self.networks = list(_networks(self.shown, families=families, empty=not offline))

    def as_json(self) -> list[dict[str, Any]]:
        """Return a row for each network."""
        return [_as_json(facts, some, self.places) for facts, some in self.networks]

    def print(self) -> None:
        """Print the table and what it leaves out."""
        rows: list[Sequence[Any]] = []
        for facts, some in self.networks:
            rows += [_network_row(facts), *(_weights_row(entry, self.places[entry.id]) for entry in some)]
        print_table(_COLUMNS, rows, left=("network", "weights", "licence", "state"))
        rest = "" if self.offline else _rest([e for e in self.known if e not in self.shown])
        print_text(
            f"{len(self.networks)} networks, {len(self.shown)} published weights{rest}; "
            "`effnet models show ID` shows the details of one"
        )


def _detectors(family: str) -> Iterator[dict[str, Any]]:
    """Yield the facts of each detector of a family."""
    from effnet.arch.catalog import DETECTOR_FAMILIES, get_spec, published_ap
    from effnet.arch.cost import cost

    for name in DETECTOR_FAMILIES[_DETECTOR_TITLES[family]]:
        spec, found = get_spec(name), published_ap(name)
        total = cost(spec)
        yield {
            "name": name,
            "task": Task.detection.value,
            "family": family,
            "params": total.params,
            "macs": total.macs,
            "resolution": spec.resolution,
            "ap": found.val if found else None,
            "ap_test": found.test if found else None,
            "ap50_test": found.test_50 if found else None,
            "source": found.source if found else None,
            "weights": [],
        }


def _detector_row(facts: dict[str, Any]) -> tuple[Any, ...]:
    aps = ("" if facts[key] is None else f"{facts[key]:g}" for key in ("ap", "ap_test", "ap50_test"))
    return (facts["name"], amount(facts["params"]), f"{facts['macs'] / 1e9:.3f}", facts["resolution"], *aps)


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
        kind = {"task": Task.classification.value, "family": some[0].family}
        yield {"name": name, **kind, "params": some[0].params, **absent}, some


def _facts(name: str, family: str) -> dict[str, Any]:
    from effnet.arch.catalog import get_spec, published
    from effnet.arch.cost import cost

    spec, found = get_spec(name), published(name)
    total = cost(spec)
    return {
        "name": name,
        "task": Task.classification.value,
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
