"""The classes of your own checkpoint, in the order of its outputs.

An order is never guessed: if the two common orders differ for these names, the error shows both.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from effnet.data.datasets import list_source
from effnet.data.sources.names import HUB
from effnet.errors import DataError, InputError, nearest
from effnet.system.files import parse_json, read_bytes
from effnet.system.text import printable
from effnet.weights.class_names import class_names as imagenet_names
from effnet.weights.class_names import coco_names

ClassOrder = Literal["imagefolder", "timm"]
IMAGENET, COCO = "imagenet", "coco"

_MAX_BYTES = 10**7
_NAMES = (".txt", ".json", ".names")
_SHOWN = 4
_NUMBERED = re.compile(r"(?:(\d+)[\s,:;]+\D.*|.*\D[\s,:;]+(\d+))")


def read_classes(
    classes: str | os.PathLike[str] | Sequence[str] | None,
    *,
    told: Sequence[str],
    count: int,
    where: str,
    order: ClassOrder | None = None,
) -> tuple[tuple[str, ...], str]:
    """Return the names of the `count` classes of the checkpoint `where`, and their source in words.

    `classes` are the names in the order of the outputs, or a file of them (a line a class; JSON as a list or as
    {name: number}), or "imagenet" or "coco", or labelled data, whose classes are sorted as torchvision's ImageFolder
    ("imagefolder") or timm's reader ("timm") sorts them. `told` are the names in the checkpoint itself, used if no
    others are given. Raises InputError if there are none, if their number differs, or if their order is unknown.
    """
    if order is not None and order not in get_args(ClassOrder):
        known = get_args(ClassOrder)
        raise InputError(f"--class-order must be one of {', '.join(known)}; got {order!r}{nearest(order, known)}")
    if order is not None and not isinstance(classes, str | os.PathLike):
        raise InputError("--class-order is for classes of data; give the data with --classes DATA")
    if classes is None:
        if not told:
            raise InputError(
                f"{where} has {count:,} classes and does not name them; give their names in the order of the "
                "outputs (--classes names.txt, a line a class), or the data that it was trained on (--classes DATA)"
            )
        names, source = tuple(told), "the checkpoint itself"
    elif isinstance(classes, str | os.PathLike):
        names, source = _read(os.fspath(classes), count=count, order=order)
    else:
        names, source = tuple(classes), "the names given"
    _check(names, source)
    if len(names) != count:
        raise InputError(
            f"{where} has {count:,} classes, and {source} {'names' if count else 'has'} {len(names):,}; "
            "give a name to each output, in their order"
        )
    if classes is not None and told and names != tuple(told) and sorted(names) == sorted(told):
        at = next(i for i, (ours, theirs) in enumerate(zip(names, told, strict=True)) if ours != theirs)
        raise InputError(
            f"{where} has the same classes in another order than {source}: its output {at} is {printable(told[at])}, "
            f"not {printable(names[at])}; omit --classes to use its own order"
        )
    return names, source


def _read(source: str, *, count: int, order: ClassOrder | None) -> tuple[tuple[str, ...], str]:
    path = Path(source)
    if source == IMAGENET and not path.exists():
        names = imagenet_names(count)
        if names is None:
            raise InputError(f"ImageNet has 1,000 classes (or 11,821, or 21,843), and the checkpoint has {count:,}")
        return names, "ImageNet, in its usual order"
    if source == COCO and not path.exists():
        if count != len(coco_names()):
            raise InputError(f"COCO's ids are 1 to {len(coco_names())}, and the checkpoint has {count:,} classes")
        return coco_names(), "COCO, by its ids"
    if path.suffix.lower() in _NAMES and not path.is_dir():
        if order is not None:
            raise InputError("--class-order is for classes of data; a file of names has its own order")
        return _from_file(path), printable(path.name)
    return _from_data(source, order)


def _from_file(path: Path) -> tuple[str, ...]:
    try:
        text = read_bytes(path, limit_bytes=_MAX_BYTES).decode("utf-8-sig")
        if path.suffix.lower() == ".json":
            return _from_json(parse_json(text), path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--classes must be a file of names that can be read; {printable(path)}: {reason}") from error
    names = tuple(line.strip() for line in text.rstrip().split("\n"))
    _check_numbers(names, path)
    return names


def _from_json(value: object, path: Path) -> tuple[str, ...]:
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(value)
    if isinstance(value, dict):
        if all(type(number) is int for number in value.values()):
            pairs = [(number, name) for name, number in value.items()]
        else:
            pairs = [(int(key) if key.isdecimal() else -1, name) for key, name in value.items()]
        if sorted(number for number, _ in pairs) == list(range(len(pairs))):
            return tuple(name for _, name in sorted(pairs))
    raise InputError(
        f"{printable(path)} must be a list of class names in the order of the outputs, or an object {{name: number}} "
        "or {number: name} with the numbers from 0 on"
    )


def _check_numbers(names: Sequence[str], path: Path) -> None:
    """Raise InputError if every line has its own number and these are in another order than the lines."""
    matches = [_NUMBERED.fullmatch(name) for name in names]
    numbers = [int(m[1] or m[2]) for m in matches if m and len(m[1] or m[2]) < 9]
    if len(numbers) != len(names) or numbers == sorted(numbers):
        return
    if sorted(numbers) in (list(range(len(names))), list(range(1, len(names) + 1))):
        raise InputError(
            f"{printable(path)} numbers the classes in another order than its lines have; write the names alone, in "
            "the order of the outputs, or a JSON file {name: number}"
        )


def _from_data(source: str, order: ClassOrder | None) -> tuple[tuple[str, ...], str]:
    if source.startswith(HUB) and order is None:
        raise InputError(
            "a data set of the hub has its own order of classes, which its names do not show; write the names into a "
            "file in that order (--classes names.txt), or give --class-order imagefolder if they were sorted"
        )
    try:
        listing = list_source(source)
        labels = {label for part in listing.parts.values() for label in part.labels}
    except DataError as error:
        raise InputError(f"--classes must be a .txt or .json file of class names, or labelled data: {error}") from error
    if not listing.label_kind.classes:
        raise InputError(
            f"--classes must be data with one class an image; {printable(source)} has several outputs: write the names "
            "into a file"
        )
    orders = {"imagefolder": tuple(sorted(labels)), "timm": tuple(sorted(labels, key=_natural))}
    if order is None and len(set(orders.values())) > 1:
        shown = "; ".join(f"{name}: {_some(names)}" for name, names in orders.items())
        raise InputError(
            f"the classes of {printable(source)} have two orders, and the checkpoint was trained with one of them "
            f"({shown}); choose: --class-order imagefolder (torchvision, Keras, effnet) or --class-order timm"
        )
    return orders[order or "imagefolder"], f"{printable(source)}, sorted"


def _natural(name: str) -> tuple[list[object], str]:
    """Return the key that sorts numbers in names by value and letters in lower case, as timm.utils.misc.natural_key."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name.lower())], name


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(printable, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")


def _check(names: Sequence[str], source: str) -> None:
    first: dict[str, int] = {}
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise InputError(f"every class must have a name; class {number} of {source} has none")
        if first.setdefault(name, number) != number:
            raise InputError(
                f"every class must have a name of its own; classes {first[name]} and {number} of {source} are both "
                f"{printable(name)[:80]}"
            )
