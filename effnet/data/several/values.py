"""The values of several outputs in the label of an image: their check, their text, and their strata.

The label of an image maps a key to the value of each output that is known: `name=` to a class, `name:` to a list of
tags, `name` to a number. Keys come from the names and the kinds of the outputs.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from effnet.data.labels import Names, class_name
from effnet.errors import DataError
from effnet.system.bounds import is_number
from effnet.system.text import brief, printable

Kind = Literal["one", "many", "number"]
"""What an output answers: one of its classes, any of its tags, or a number."""

KIND_MARKS: Mapping[Kind, str] = {"one": "=", "many": ":", "number": ""}
"""The character between the name of an output and that of its class or tag, by which columns are read back."""

KIND_WORDS: Mapping[Kind, str] = {"one": "label", "many": "tags", "number": "number"}
"""The word for each kind in the columns of a manifest, as in tags:weather."""

TAG_SEPARATOR = "|"
"""It separates the tags in a cell of a manifest; alone in its cell, it says that the image has none."""

LARGEST_NUMBER = 1e30
"""The largest size of a number to learn: float32 holds it, and float64 its square."""

_LONGEST_NAME, _LONGEST_COLUMN = 200, 1000
_NUM_BINS = 5


def output_name(text: str) -> str:
    """Return the name of an output: NFC, without surrounding blanks; raise DataError for one that cannot be one."""
    name = class_name(text)
    if not name or any(character in name for character in "=:,|"):
        raise DataError(f"the name of an output must be text without = : , and |; got {brief(text)}: rename it")
    if len(name) > _LONGEST_NAME:
        raise DataError(
            f"the name of an output must have at most {_LONGEST_NAME} characters; got {len(name):,}: rename it"
        )
    return name


def check_class(name: str, value: Any) -> str:
    """Return the class of an output; raise DataError if it cannot be one. Whole numbers are classes too."""
    if isinstance(value, bool) or not isinstance(value, str | int) or not (text := class_name(str(value))):
        raise DataError(f"{printable(name)} must be the name of a class; got {brief(value)}")
    return _short(name, text)


def check_tags(name: str, value: Any) -> list[str]:
    """Return the tags of an output, sorted and once each; raise DataError if they cannot be its tags."""
    if not isinstance(value, list | tuple | set | frozenset):
        raise DataError(f"{printable(name)} must be a list of tags; got {brief(value)}")
    tags = {check_class(name, tag) for tag in value}
    if wrong := sorted(tag for tag in tags if TAG_SEPARATOR in tag):
        raise DataError(
            f"{printable(name)} must have tags without {TAG_SEPARATOR}, which separates them in a cell; got "
            f"{brief(wrong[0])}: rename it"
        )
    return sorted(tags)


def check_number(name: str, value: Any) -> float:
    """Return the number of an output; raise DataError if it cannot be learnt."""
    if not is_number(value) or abs(value) > LARGEST_NUMBER:
        raise DataError(
            f"{printable(name)} must be a number such as 3.5, at most {LARGEST_NUMBER:g} in size; got {brief(value)}"
        )
    return float(value)


def _short(name: str, text: str) -> str:
    if len(name) + 1 + len(text) > _LONGEST_COLUMN:
        raise DataError(
            f"{printable(name)} must have classes and tags of at most {_LONGEST_COLUMN:,} characters, with its own; "
            f"got {len(name) + 1 + len(text):,}: {brief(text)}"
        )
    return text


def label_text(values: Mapping[str, Any]) -> str:
    """Return the label of an image as text: values by `output=`, `output:` and `output`, unknown ones left out."""
    return json.dumps(values, ensure_ascii=False)


@lru_cache(maxsize=4096)  # each label has the same keys
def split_key(key: str) -> tuple[str, Kind]:
    """Return the name and the kind of an output from its key in the labels of images."""
    for kind, mark in KIND_MARKS.items():
        if mark and key.endswith(mark):
            return key[:-1], kind
    return key, "number"


def names_from(texts: Iterable[str], keys: Iterable[str] = ()) -> Names:
    """Return the names of the columns that labels need: outputs in the order of `keys`, classes and tags sorted."""
    found: dict[str, set[str]] = {key: set() for key in keys}
    for text in texts:
        for key, value in json.loads(text).items():
            kind = split_key(key)[1]
            found.setdefault(key, set()).update([value] if kind == "one" else value if kind == "many" else ())
    return tuple(key + name for key, some in found.items() for name in sorted(some) or _without_classes(key))


def _without_classes(key: str) -> tuple[str, ...]:
    """Return the one column of a number, which has no classes; raise DataError for other outputs without any."""
    name, kind = split_key(key)
    if kind != "number":
        what = "class" if kind == "one" else "tag"
        raise DataError(f"the output {printable(name)} must have a {what} in at least one image; it has none")
    return ("",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadLabels:
    """Labels that a program gave, one list of texts for each split; `keys` are those of the outputs, in order."""

    keys: tuple[str, ...]
    texts: list[list[str]]


def read_mappings(labels: Sequence[Sequence[Any]], *, places: Sequence[Sequence[str]] | None = None) -> ReadLabels:
    """Return labels that map the name of each output to its value; None, NaN or a missing name is unknown.

    A text is a class, a list (tuple, set) holds tags, a number is a number. All values of one output are of one kind.
    Raises DataError if they are not, and for an image of which no output is known; `places` name the images.
    """
    keys: dict[str, str | None] = {}
    places = places or [[f"the label of image {index}" for index in range(len(some))] for some in labels]
    split_values = [
        [_known(label, place, keys) for label, place in zip(*pairs, strict=True)]
        for pairs in zip(labels, places, strict=True)
    ]
    if unknown := [name for name, key in keys.items() if key is None]:
        raise DataError(
            f"the output {printable(unknown[0])} must be known of at least one image; it is None in all: leave it out"
        )
    texts = [[label_text(_in_order(values, keys)) for values in some] for some in split_values]
    return ReadLabels(keys=tuple(key for key in keys.values() if key), texts=texts)


def _known(label: Any, place: str, keys: dict[str, str | None]) -> dict[str, Any]:
    """Return the known values of an image by key, and add the names of its outputs to `keys`."""
    if not isinstance(label, Mapping):
        raise DataError(f"{place} must be a mapping as those of others are; got {brief(label)}")
    values = {}
    for given, value in label.items():
        try:
            name, key, read = _value(given, value)
        except DataError as error:
            raise DataError(f"{place}: {error}") from error
        if keys.setdefault(name, key or None) is None:
            keys[name] = key or None
        if not key:
            continue
        if keys[name] != key:
            one, other = (KIND_WORDS[split_key(found)[1]] for found in (keys[name] or key, key))
            raise DataError(
                f"{place}: {printable(name)} must be of one kind in all images; got {brief(value)}, "
                f"{other}, after {one}: a text is a class, a list holds tags, a number is a number"
            )
        values[key] = read
    if not values:
        raise DataError(f"{place} must have at least one known output; leave such images out")
    return values


def _value(given: Any, value: Any) -> tuple[str, str, Any]:
    """Return the name, the key (empty for an unknown value) and the checked value of an output."""
    if not isinstance(given, str):
        raise DataError(f"the name of an output must be text; got {brief(given)}")
    marked = given[-1:] in ("=", ":")
    name = output_name(given[:-1] if marked else given)
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return name, "", None
    if isinstance(value, str):
        return name, f"{name}=", check_class(name, value)
    if isinstance(value, list | tuple | set | frozenset):
        return name, f"{name}:", check_tags(name, value)
    return name, name, check_number(name, value)


def _in_order(values: Mapping[str, Any], keys: Mapping[str, str | None]) -> dict[str, Any]:
    return {key: values[key] for key in keys.values() if key and key in values}


def strata_of(texts: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the strata of each label: its class and tags of each output, and which fifth of the values a number is."""
    labels = [json.loads(text) for text in texts]
    values: dict[str, list[float]] = {}
    for label in labels:
        for key, value in label.items():
            if split_key(key)[1] == "number":
                values.setdefault(key, []).append(value)
    shares = np.arange(1, _NUM_BINS) / _NUM_BINS
    edges = {key: np.unique(np.quantile(some, shares, method="lower")) for key, some in values.items()}

    def strata(key: str, value: Any) -> list[str]:
        if key in edges:
            return [f"{key}={np.searchsorted(edges[key], value)}"]
        return [key + tag for tag in value] if split_key(key)[1] == "many" else [key + value]

    return [tuple(name for key, value in label.items() for name in strata(key, value)) for label in labels]
