"""The views of the page: what each shows."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from effnet.serving.http.errors import HttpError
from effnet.serving.http.state import State
from effnet.serving.page import confusions
from effnet.serving.page.decisions import Decision, Decisions
from effnet.serving.page.gallery import SIDES, Gallery
from effnet.serving.page.review import ORDERS, item_of, queue_of, read_number, read_order
from effnet.serving.page.scores import Round, Scored
from effnet.serving.versions.version import Version
from effnet.tasks.drawing.colours import colours, hex_of
from effnet.tasks.drawing.regions import background_of

# Thumbnails of a cell, of the review's next images, and of the images most similar to one.
_MOST_IN_CELL, _NEXT, _SIMILAR = 60, 8, 6
# Classes of the map with a colour of their own; the others share one.
_COLOURED = 7
_MAP_WIDTH, _MAP_HEIGHT, _MAP_MARGIN = 1000, 640, 18


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shown:
    """What a view may show: the server's state, the images of --review with their scores, and the request's query."""

    state: State
    gallery: Gallery | None
    decisions: Decisions | None
    current: Round | None
    query: Mapping[str, str]

    def version(self) -> Version:
        """Return the model that is chosen, by default the first; raise HttpError if it does not answer."""
        return self.state.models.find(self.query.get("model") or None)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A view: its path, its name, its template, and its values."""

    path: str
    title: str
    template: str
    values: Callable[[Shown], dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumb:
    """An image to show: its number, its name, and a line under it; `wrong` if its answer is not its label."""

    number: int
    name: str
    line: str = ""
    wrong: bool = False


def _try(shown: Shown) -> dict[str, Any]:
    version = shown.version()
    config, names = version.config, version.config.class_names
    task = config.task_record
    kind = "several" if config.specs else task.output.name if task.whole is None else task.name
    background = background_of(names) if task.name == "segmentation" else None
    drawn = dict(zip(names, colours(len(names)), strict=True)) if task.whole is not None else {}
    return {
        "version": version, "models": shown.state.models.names, "kind": kind, "names": names,
        "heat": task.whole is None and version.has_maps, "format": version.first.format.name,
        "colours": {name: hex_of(drawn[name]) for i, name in enumerate(names) if name in drawn and i != background},
        "max_body": shown.state.settings.max_body, "max_pixels": shown.state.settings.max_pixels,
        "sound": config.preprocess.sound is not None,
    }  # fmt: skip


def _about_images(shown: Shown) -> dict[str, Any]:
    """Return what the views of --review share."""
    current, gallery = shown.current, shown.gallery
    return {
        "gallery": gallery, "sides": SIDES, "current": current, "count": len(gallery) if gallery else 0,
        "done": len(current.scored) if current else 0, "corrections": shown.state.settings.corrections,
        "data": shown.state.settings.review or "", "bundle": os.path.basename(shown.version().source.folder.resolve()),
    }  # fmt: skip


def _review(shown: Shown) -> dict[str, Any]:
    values = _about_images(shown) | {"orders": ORDERS, "order": read_order(shown.query.get("order", "uncertain"))}
    current, gallery, decisions = shown.current, shown.gallery, shown.decisions
    if gallery is None or decisions is None or current is None or not current.reviewable:
        return values | {"item": None, "made": {}, "changed": 0, "left_out": 0, "next": [], "names": (), "past": None}
    made = decisions.made
    queue = queue_of(current, made, values["order"], gallery)
    asked = shown.query.get("image")
    number = read_number(asked, len(gallery), "image") if asked is not None else queue[0] if queue else None
    if number is not None and number not in current.scored:
        raise HttpError(404, f"image {number} is not scored yet; look again in a moment")
    after = _after(queue, number)
    return values | {
        "item": None if number is None else item_of(current, gallery, number),
        "past": None if number is None else made.get(number), "made": made,
        "changed": sum(each.label is not None and each.label != each.old for each in made.values()),
        "left_out": sum(each.label is None for each in made.values()),
        "next": [_thumb(gallery, current, each) for each in after[:_NEXT]],
        "names": current.version.config.class_names,
    }  # fmt: skip


def _after(queue: list[int], number: int | None) -> list[int]:
    """Return the images that follow one in the queue, and then those before it."""
    if number not in queue:
        return queue
    place = queue.index(number)
    return queue[place + 1 :] + queue[:place]


def _thumb(gallery: Gallery, current: Round, number: int) -> Thumb:
    scored, names = current.scored.get(number, Scored(digest="")), current.version.config.class_names
    label = current.known.labels.get(number)
    line = f"{names[scored.best[0]]} {100 * scored.probabilities[0]:.0f} %" if scored.best else ""
    wrong = bool(scored.best) and label is not None and label != scored.best[0]
    return Thumb(number=number, name=gallery.names[number], line=line, wrong=wrong)


def _confusions(shown: Shown) -> dict[str, Any]:
    version, current = shown.version(), shown.current
    report = confusions.of_report(version.first.folder, version.config.class_names)
    # The images of --review are scored by the first model alone.
    own = current if current is not None and current.version.group == version.group and current.reviewable else None
    live = confusions.of_round(own) if own is not None and own.known.labels else None
    of = shown.query.get("of", "test" if report is not None else "review")
    found = report if of == "test" else live
    values = _about_images(shown) | {
        "version": version, "models": shown.state.models.names, "of": of, "report": report, "live": live,
        "found": found, "rows": [], "pairs": [], "cell": None, "most": confusions.MOST_CLASSES, "largest": 0,
        "tested": len(own.known.tested) if own else 0, "right": 0, "images": 0,
    }  # fmt: skip
    if found is None:
        return values
    rows = confusions.rows_of(found)
    values |= {"images": int(found.counts.sum()), "right": int(found.counts.trace()), "rows": rows}
    values["pairs"] = confusions.pairs_of(found)
    if "true" in shown.query and "predicted" in shown.query:
        values["cell"] = _cell(shown, found, own, tested=of == "test")
    return values


def _cell(shown: Shown, found: confusions.Confusion, own: Round | None, *, tested: bool) -> dict[str, Any]:
    count = len(found.names)
    true, predicted = (read_number(shown.query[name], count, name) for name in ("true", "predicted"))
    numbers = confusions.images_in(own, true=true, predicted=predicted, tested=tested, most=_MOST_IN_CELL)
    names = found.names[true], found.names[predicted]
    thumbs = [_thumb(shown.gallery, own, number) for number in numbers] if shown.gallery and own else []
    mistakes = [each for each in found.mistakes if (each.label, each.predicted) == names]
    return {
        "true": true, "predicted": predicted, "names": names, "count": int(found.counts[true, predicted]),
        "thumbs": thumbs, "mistakes": mistakes if not thumbs else [],
    }  # fmt: skip


def _map(shown: Shown) -> dict[str, Any]:
    values = _about_images(shown) | {"points": [], "legend": [], "open": None, "shares": (0, 0), "waiting": None}
    values |= {"width": _MAP_WIDTH, "height": _MAP_HEIGHT, "near": [], "labelled": False, "others": False}
    current, gallery = shown.current, shown.gallery
    if gallery is None or current is None or current.no_points:
        return values
    if current.points is None:
        return values | {"waiting": (len(current.vectors), len(current.wanted))}
    classes = _classes(current)
    coloured = _most_frequent(classes)
    points = []
    for number, place in zip(current.points.numbers, current.points.places.tolist(), strict=True):
        thumb = _thumb(gallery, current, number)
        points.append(
            {
                "number": number, "thumb": thumb, "colour": coloured.get(classes.get(number, -1), _COLOURED),
                "x": round(_MAP_MARGIN + place[0] * (_MAP_WIDTH - 2 * _MAP_MARGIN), 1),
                "y": round(_MAP_HEIGHT - _MAP_MARGIN - place[1] * (_MAP_HEIGHT - 2 * _MAP_MARGIN), 1),
            }
        )  # fmt: skip
    names = current.version.config.class_names
    values |= {"points": points, "shares": current.points.shares, "labelled": bool(current.known.labels)}
    values["legend"] = [(place, names[number]) for number, place in coloured.items()]
    values["others"] = len(set(classes.values())) > len(coloured)
    if "image" in shown.query:
        number = read_number(shown.query["image"], len(gallery), "image")
        values["open"] = {
            "thumb": _thumb(gallery, current, number),
            "label": names[current.known.labels[number]] if number in current.known.labels else None,
        }
        near = current.points.nearest(number, most=_SIMILAR)
        values["near"] = [_thumb(gallery, current, each) for each in near]
    return values


def _classes(current: Round) -> dict[int, int]:
    """Return the class of each image of the map: its label, else the best answer."""
    found = {}
    for number in current.points.numbers if current.points else ():
        scored, label = current.scored.get(number), current.known.labels.get(number)
        if label is not None:
            found[number] = label
        elif scored is not None and scored.best:
            found[number] = scored.best[0]
    return found


def _most_frequent(classes: Mapping[int, int]) -> dict[int, int]:
    """Return the place of the colour of each class that has one: the most frequent ones, in the order of classes."""
    counts: dict[int, int] = {}
    for number in classes.values():
        counts[number] = counts.get(number, 0) + 1
    most = sorted(sorted(counts, key=lambda number: (-counts[number], number))[:_COLOURED])
    return {number: place for place, number in enumerate(most)}


VIEWS = (
    View(path="/", title="Try", template="try.html.j2", values=_try),
    View(path="/review", title="Review", template="review.html.j2", values=_review),
    View(path="/confusions", title="Confusions", template="confusions.html.j2", values=_confusions),
    View(path="/map", title="Map", template="map.html.j2", values=_map),
)
"""The views, in the order of the page's navigation."""

__all__ = ["VIEWS", "Decision", "Shown", "View"]
