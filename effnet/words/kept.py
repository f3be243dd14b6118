"""The words of an aligned bundle, in its folder `words`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effnet.bundle.safetensors_file import load_safetensors
from effnet.errors import BundleError, InputError, shown
from effnet.system.cache import file_digest
from effnet.system.files import read_json
from effnet.system.text import printable
from effnet.words.encoder import Encoder, Table
from effnet.words.read import (
    MODEL,
    TOKENIZER,
    VECTORS,
    VOCABULARY,
    check_table,
    open_words,
    read_table,
    read_tokenizer,
    read_vocabulary,
)
from effnet.words.sentence import Sentence
from effnet.words.space import Space
from effnet.words.tokens import Tokens, WordTokens
from effnet.words.tower import HEADS, Tower

FOLDER, RECORD, SPACE, TOWER = "words", "words.json", "space.safetensors", "tower.safetensors"
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """words.json: what the words are. `source_sha256` are the digests of the files that the words were read from.

    `files` are those of the bundle's own files; without a file of vectors the words are not in the bundle. `scale` is
    the factor of the logits of a zero-shot head, as the validation captions ask for; `heads` is that of a text tower.
    """

    kind: str
    source: str
    width: int
    source_sha256: Mapping[str, str]
    files: Mapping[str, str]
    scale: float
    heads: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        names = ("kind", "source", "width", "source_sha256", "files", "scale", HEADS)
        return {"format": FORMAT} | {name: getattr(self, name) for name in names}

    @property
    def held(self) -> bool:
        """Whether the words lie in the bundle."""
        return any(name in self.files for name in (VECTORS, MODEL, TOWER))


def read_record(bundle: str | os.PathLike[str]) -> Record:
    """Return the record of a bundle's words; raise BundleError if it has none or it is damaged."""
    path = Path(bundle) / FOLDER / RECORD
    try:
        data = read_json(path)
    except FileNotFoundError as error:
        raise BundleError(
            f"texts need a bundle that `effnet align` wrote, with its folder {FOLDER}; {printable(bundle)} has none"
        ) from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} must be JSON: {error}") from error
    try:
        if data["format"] != FORMAT:
            raise ValueError(f"its format must be {FORMAT}; got {shown(data['format'])}: upgrade effnet")
        record = Record(
            kind=str(data["kind"]),
            source=str(data["source"]),
            width=_whole(data["width"]),
            source_sha256=_texts(data["source_sha256"]),
            files=_texts(data["files"]),
            scale=float(data["scale"]),
            heads=_whole(data[HEADS]),
        )
        if not 0 < record.scale < 1e6:
            raise ValueError(f"scale must be above 0; got {record.scale}")
        return record
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{path} is damaged: {error}; copy it again") from error


def open_space(bundle: str | os.PathLike[str], *, words: str | os.PathLike[str] | None = None) -> tuple[Space, Record]:
    """Return the space of an aligned bundle, and the record of its words.

    `words` are those that it was aligned with, if it does not hold them. Raises BundleError if the bundle's are missing
    or damaged, InputError if others are given.
    """
    record, folder = read_record(bundle), Path(bundle) / FOLDER
    for name, digest in record.files.items():
        path = folder / os.path.basename(name)
        if not path.is_file():
            raise BundleError(f"the bundle's words need {path}; it is missing: copy the folder {FOLDER} whole")
        if file_digest(path, "sha256") != digest:
            raise BundleError(f"{path} must have the SHA-256 in {RECORD}; it is another file or damaged: copy it again")
    encoder = _given(record, words) if not record.held else _held(record, folder)
    if encoder.width != record.width:
        raise BundleError(f"the words of {folder} must have width {record.width}; theirs is {encoder.width}")
    arrays = _arrays(folder / SPACE)
    mean, matrix = arrays.get("mean"), arrays.get("matrix")
    shapes = [None if array is None else array.shape for array in (mean, matrix)]
    if mean is None or matrix is None or shapes != [(record.width,), (record.width,) * 2]:
        raise BundleError(f"{folder / SPACE} must hold mean and matrix of width {record.width}; it has {shapes}")
    return Space(encoder=encoder, mean=mean, matrix=matrix), record


def _given(record: Record, words: str | os.PathLike[str] | None) -> Encoder:
    """Return the encoder of words that lie outside of the bundle."""
    if words is None:
        digests = ", ".join(f"{name} {digest[:12]}..." for name, digest in record.source_sha256.items())
        raise InputError(
            f"this bundle was aligned with {printable(record.source)} ({digests}) and does not hold these words: give "
            "--words PATH"
        )
    found = open_words(words)
    if found.encoder.width != record.width:
        raise InputError(
            f"--words must be those of the bundle, of width {record.width}; {printable(os.fspath(words))} has width "
            f"{found.encoder.width}"
        )
    if sorted(found.sha256.values()) != sorted(record.source_sha256.values()):
        raise InputError(
            f"--words must be those that the bundle was aligned with, {printable(record.source)}; "
            f"{printable(os.fspath(words))} has another SHA-256"
        )
    return found.encoder


def _held(record: Record, folder: Path) -> Encoder:
    """Return the encoder whose files lie in the bundle."""
    if TOKENIZER in record.files:
        tokens: Tokens = read_tokenizer(folder / TOKENIZER)
    elif VOCABULARY in record.files:
        tokens = WordTokens(read_vocabulary(folder / VOCABULARY))
    else:
        raise BundleError(f"{folder} must hold {TOKENIZER} or {VOCABULARY}; copy it again")
    if record.kind == "sentence":
        return Sentence(tokens, folder / MODEL)  # type: ignore[arg-type]
    if record.kind == "tower":
        return Tower(tokens, _arrays(folder / TOWER), heads=record.heads)
    vectors = read_table(folder / VECTORS)
    check_table(vectors, tokens, where=folder / VECTORS)
    return Table(tokens, vectors)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_safetensors(path)[0]
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} must be a whole safetensors file: {error}") from error


def _whole(value: object) -> int:
    if type(value) is int and 0 <= value < 2**31:
        return value
    raise ValueError(f"a number must be whole; got {shown(value)}")


def _texts(value: object) -> dict[str, str]:
    if isinstance(value, dict) and all(isinstance(text, str) for pair in value.items() for text in pair):
        return value
    raise ValueError(f"digests must be texts by name; got {shown(value)}")
