"""The review: the order of the images, what the page shows of one, and what a decision must be."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from effnet.errors import nearest, shown
from effnet.serving.http.errors import HttpError, bad_request
from effnet.serving.page.decisions import Decision
from effnet.serving.page.gallery import Gallery
from effnet.serving.page.scores import Round

ORDERS = {
    "uncertain": "least certain first",
    "doubtful": "likely wrong labels first",
    "name": "by name",
}
"""How the images can be ordered, and how the page says it."""

MOST_QUEUED = 500

# Up to this many classes each has the same key for every image; of more, the most probable ones have keys.
_KEYED_CLASSES = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A class to choose for an image: its number, its name, its probability, None if unknown, and its key."""

    number: int
    name: str
    probability: float | None
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """An image as the review shows it: `kept` is the class that accepting it confirms, `label` its label if any."""

    number: int
    name: str
    label: str | None
    answer: str | None
    probability: float
    known: bool
    kept: int | None
    kept_name: str
    choices: tuple[Choice, ...]
    error: str


def queue_of(current: Round, made: Mapping[int, Decision], order: str, gallery: Gallery) -> list[int]:
    """Return the first MOST_QUEUED of the scored images that nobody has decided on, in an order of ORDERS."""
    scored = current.scored

    def place(number: int) -> tuple[Any, ...]:
        found = scored[number]
        if order == "name":
            return (gallery.names[number],)
        if order == "doubtful":
            return -found.doubt, -found.uncertain, number
        # What cannot be read is at the end: there is nothing to see, but it can be left out.
        return bool(found.error), -found.uncertain, number

    # Of many images not all are sorted: the page asks again and again, beside requests.
    return heapq.nsmallest(MOST_QUEUED, (number for number in list(scored) if number not in made), key=place)


def item_of(current: Round, gallery: Gallery, number: int) -> Item:
    """Return an image of the review."""
    names, scored = current.version.config.class_names, current.scored[number]
    label = current.known.labels.get(number)
    chances = dict(zip(scored.best, scored.probabilities, strict=True))
    if len(names) <= _KEYED_CLASSES:
        order = list(range(len(names)))
    else:
        order = [*scored.best, *((label,) if label is not None and label not in chances else ())]
    choices = tuple(
        Choice(
            number=each, name=names[each], probability=chances.get(each),
            key=str(place + 1) if place < _KEYED_CLASSES else "",
        )
        for place, each in enumerate(order)
    )  # fmt: skip
    kept = label if label is not None else scored.best[0] if scored.best else None
    return Item(
        number=number, name=gallery.names[number], label=None if label is None else names[label],
        answer=names[scored.best[0]] if scored.best else None,
        probability=scored.probabilities[0] if scored.best else 0.0, known=scored.known, kept=kept,
        kept_name="" if kept is None else names[kept], choices=choices, error=scored.error,
    )  # fmt: skip


def read_number(text: str, count: int, what: str) -> int:
    """Return the number of an image or a class; raise HttpError unless it is one from 0 to `count` - 1."""
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) < count):
        raise HttpError(404, f"{what} must be a number from 0 to {count - 1}; got {shown(text)}")
    return int(text)


def read_order(text: str) -> str:
    """Return the name of an order; raise HttpError for an unknown one."""
    if text not in ORDERS:
        raise bad_request(f"order must be one of {', '.join(ORDERS)}; got {shown(text)}{nearest(text, ORDERS)}")
    return text


def read_decision(data: Any, *, images: int, names: Sequence[str], label: Mapping[int, int]) -> tuple[int, Decision]:
    """Return the number of an image and its decision: {"image": 3, "class": 1}, or null for the class to leave it out.

    Raises HttpError for anything else.
    """
    if not isinstance(data, dict) or set(data) != {"image", "class"}:
        raise bad_request(
            f'a decision must be {{"image": NUMBER, "class": NUMBER or null}}, or {{"undo": true}}; got {shown(data)}'
        )
    image, chosen = data["image"], data["class"]
    for value, count, what in ((image, images, "image"), (0 if chosen is None else chosen, len(names), "class")):
        if type(value) is not int or not 0 <= value < count:
            raise bad_request(f"{what} must be a whole number from 0 to {count - 1}; got {shown(value)}")
    old = label.get(image)
    return image, Decision(label=None if chosen is None else names[chosen], old=None if old is None else names[old])
