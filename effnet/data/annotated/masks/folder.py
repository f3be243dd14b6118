"""Read a folder of images with masks, and report what cannot be used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from effnet.data.annotated.holds import look_into
from effnet.data.annotated.index import FileIndex, list_files, suffix_of
from effnet.data.annotated.masks.codes import MaskCode, colour_of, discover_code
from effnet.data.annotated.masks.read import Mask, count_pixels, mask_sentences, read_mask
from effnet.data.annotated.record import Finding, Findings
from effnet.data.images.decode import image_header
from effnet.data.manifests.rows import place_of, read_rows
from effnet.errors import DataError, ImageError
from effnet.system.files import read_json
from effnet.system.text import brief, printable

IGNORED_NAMES = frozenset({"void", "ignore", "ignored", "unlabeled", "unlabelled"})
"""The names, in lower case, of rows of a class table whose pixels count nowhere."""

# A code of a smaller share of all pixels, in a smaller share of the masks, is no class if no table names it.
_RARE_PIXELS, _RARE_MASKS = 0.0005, 0.1

_NAMES, _VALUES, _COLOURS = (
    ("name", "class", "label", "class_name"),
    ("value", "index", "id"),
    ("colour", "color", "hex"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedImage:
    """An image and its mask, by their paths; width and height in pixels of the upright image.

    `pixels` are the number of each class, and last of those ignored.
    """

    path: str
    mask: str
    width: int
    height: int
    pixels: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskSet:
    """The images with masks by given split ("train", "val", "test"), or under "" if there are none.

    `counts` are the pixels of each class by split, int64 [classes + 1], the last of those ignored; `findings` are the
    irregularities.
    """

    parts: Mapping[str, tuple[MaskedImage, ...]]
    code: MaskCode
    counts: Mapping[str, np.ndarray]
    findings: tuple[Finding, ...] = ()


def read_mask_set(path: str, *, code: MaskCode | None = None, class_names: Sequence[str] = ()) -> MaskSet:
    """Return the images of a folder with their masks; every mask is decoded, to count its pixels.

    Without a `code`, it is found from the masks; `class_names` then belong to its codes in ascending order. Without
    these either, codes of few pixels in few masks are ignored: they are mistakes of whoever drew the masks.

    Raises:
        DataError: the folder holds no masks, none can be used, or their code cannot be found.
    """
    index = list_files(path)
    holds = look_into(index, kinds=("masks",))
    pairs = holds.masks
    if not pairs:
        raise DataError(
            f"{printable(path)} must hold images and masks of the same names, as in images/1.jpg and masks/1.png, but "
            f"it holds {holds.why}"
        )
    guessed = code is None and not class_names
    code = code or discover_code([index.absolute(mask) for mask in pairs.values()], class_names=class_names)
    found, reports = Findings(), dict[str, Mask]()
    parts: dict[str, list[MaskedImage]] = {}
    counts: dict[str, np.ndarray] = {}
    splits = {image: split for split, images in holds.parts.items() for image in images}
    for name, mask_name in pairs.items():
        split = splits.get(name, "")
        read = _read(index, name, mask_name, code, found)
        if read is None:
            continue
        image, mask = read
        parts.setdefault(split, []).append(image)
        counts[split] = counts.get(split, 0) + np.array(image.pixels, np.int64)
        reports[image.mask] = Mask(
            classes=np.empty((0, 0), np.uint8),  # the pixels of all masks would not fit into memory
            snapped=mask.snapped,
            unknown=mask.unknown,
            unknown_code=mask.unknown_code,
        )
    if not parts:
        why = " ".join(f"{each.sentence} The first: {printable(each.examples[0])}." for each in found.all())
        raise DataError(f"{printable(path)} must hold at least one image with a mask; {why}")
    every = MaskSet(parts={s: tuple(p) for s, p in parts.items()}, code=code, counts=counts)
    whole, rare = _without_rare(every) if guessed else (every, [])
    return replace(whole, findings=(*found.all(), *_sentences(reports), *rare, *_absent(whole.counts, whole.code)))


def _without_rare(found: MaskSet) -> tuple[MaskSet, list[Finding]]:
    """Return a set whose codes of very few pixels in few masks are ignored, and the finding that says so."""
    pixels = np.array([image.pixels for part in found.parts.values() for image in part])
    few = pixels.sum(0) < _RARE_PIXELS * pixels.sum()
    rare = few & ((pixels > 0).sum(0) < _RARE_MASKS * len(pixels))
    rare[-1] = False
    kept = np.flatnonzero(~rare[:-1])
    if not rare.any() or len(kept) < 2:
        return found, []
    code = found.code
    named = [code.class_names[i] for i in np.flatnonzero(rare)]
    smaller = MaskCode(
        kind=code.kind,
        class_names=tuple(code.class_names[i] for i in kept),
        codes=tuple(code.codes[i] for i in kept),
        ignored=(*code.ignored, *(code.codes[i] for i in np.flatnonzero(rare))),
    )

    def merged(counts: np.ndarray) -> np.ndarray:
        return np.append(counts[kept], counts[rare].sum() + counts[-1])

    parts = {
        split: tuple(replace(each, pixels=tuple(merged(np.array(each.pixels)).tolist())) for each in part)
        for split, part in found.parts.items()
    }
    counts = {split: merged(own) for split, own in found.counts.items()}
    holds = "1 code of masks has" if len(named) == 1 else f"{len(named):,} codes of masks have"
    masks = int((pixels[:, rare] > 0).any(1).sum())
    sentence = (
        f"{holds} too few pixels for a class, {int(pixels[:, rare].sum()):,} in {masks:,} of {len(pixels):,} masks: "
        "they are ignored. Give the table of the classes if they mean something."
    )
    finding = Finding(kind="rare code", count=len(named), sentence=sentence, examples=tuple(named[:5]))
    return replace(found, parts=parts, code=smaller, counts=counts), [finding]


def read_class_table(path: str) -> MaskCode:
    """Return the code of masks from a CSV or JSONL table: name and value, name and colour (#3C1098), or name,r,g,b.

    Or from the classes.json that `effnet predict` writes beside masks. Classes called void, ignore or unlabelled are
    ignored. Raises DataError, with the line, for another table.
    """
    if suffix_of(path) == ".json":
        return _read_class_json(path)
    names: list[str] = []
    codes: list[int] = []
    ignored: list[int] = []
    kinds = set()
    for line, row in read_rows(path):
        cells = {str(title).strip().lower(): cell for title, cell in row.items()}
        place = place_of(path, line)
        name = str(next((cells[title] for title in _NAMES if cells.get(title)), "")).strip()
        if not name:
            raise DataError(
                f"{place}: the columns name and value, or name and colour, are needed; got {brief(list(cells))}"
            )
        kind, value = _code_of(cells, place)
        kinds.add(kind)
        if name.lower() in IGNORED_NAMES:
            ignored.append(value)
        else:
            names.append(name)
            codes.append(value)
    if len(kinds) != 1:
        raise DataError(f"{printable(path)}: the classes must all have values or all have colours")
    if len(set(names)) < len(names):
        raise DataError(f"{printable(path)}: the names of classes must differ; got {brief(names)}")
    try:
        return MaskCode(
            kind="colour" if kinds == {"colour"} else "index",
            class_names=tuple(names),
            codes=tuple(codes),
            ignored=tuple(ignored),
        )
    except DataError as error:
        raise DataError(f"{printable(path)}: {error}") from error


def _read_class_json(path: str) -> MaskCode:
    """Return the code of masks from {"classes": [{"value": 0, "name": "field"}, ...], "ignored": 255}."""
    try:
        data = read_json(path)
        codes = {str(row["name"]): int(row["value"]) for row in data["classes"]}
        ignored = [int(data["ignored"])] if data.get("ignored") is not None else []
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise DataError(
            f'{printable(path)}: classes must be as in {{"classes": [{{"value": 0, "name": "field"}}], "ignored": 255}}'
        ) from error
    try:
        return MaskCode(kind="index", class_names=(*codes,), codes=(*codes.values(),), ignored=(*ignored,))
    except DataError as error:
        raise DataError(f"{printable(path)}: {error}") from error


def _code_of(cells: Mapping[str, object], place: str) -> tuple[str, int]:
    """Return the kind and the code of a row."""
    try:
        if {"r", "g", "b"} <= cells.keys():
            return "colour", colour_of(f"{cells['r']},{cells['g']},{cells['b']}")
        if title := next((title for title in _COLOURS if cells.get(title)), ""):
            return "colour", colour_of(str(cells[title]))
        title = next(title for title in _VALUES if title in cells)
        return "index", int(str(cells[title]))
    except (StopIteration, ValueError):
        raise DataError(
            f"{place}: a class must have a value, a colour, or r, g and b; got {brief(dict(cells))}"
        ) from None
    except DataError as error:
        raise DataError(f"{place}: {error}") from error


def _read(
    index: FileIndex, name: str, mask_name: str, code: MaskCode, found: Findings
) -> tuple[MaskedImage, Mask] | None:
    path, mask_path = index.absolute(name), index.absolute(mask_name)
    try:
        header = image_header(path)
    except ImageError as error:
        found.add_("damaged image", str(error))
        return None
    try:
        mask = read_mask(mask_path, code, image=header)
    except DataError as error:
        found.add_("unusable mask", str(error))
        return None
    pixels = tuple(count_pixels([mask.classes], num_classes=len(code.codes)).tolist())
    return MaskedImage(path=path, mask=mask_path, width=header.width, height=header.height, pixels=pixels), mask


def _sentences(masks: Mapping[str, Mask]) -> list[Finding]:
    counts = {
        "snapped": sum(mask.snapped > 0 for mask in masks.values()),
        "unknown code": sum(mask.unknown > 0 for mask in masks.values()),
    }
    kinds = [(kind, count) for kind, count in counts.items() if count]
    return [
        Finding(kind=kind, count=count, sentence=sentence)
        for (kind, count), sentence in zip(kinds, mask_sentences(masks), strict=True)
    ]


def _absent(counts: Mapping[str, np.ndarray], code: MaskCode) -> list[Finding]:
    """Return the findings that classes have no pixels at all, or none in train."""
    total = sum(counts.values(), np.zeros(len(code.codes) + 1, np.int64))
    train = counts.get("train", total)
    found = []
    for kind, where, which in (
        ("absent class", "anywhere", total == 0),
        ("test only", "in train, but in val or test", (train == 0) & (total > 0)),
    ):
        names = [name for name, flag in zip(code.class_names, which[:-1], strict=True) if flag]
        if names:
            classes = "1 class has" if len(names) == 1 else f"{len(names):,} classes have"
            found.append(
                Finding(
                    kind=kind, count=len(names), sentence=f"{classes} no pixels {where}.", examples=tuple(names[:5])
                )
            )
    return found
