"""Read words from a path: a static table, GloVe's text or array, or an ONNX sentence encoder; or from the hub."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from effnet.bundle.safetensors_file import load_safetensors
from effnet.errors import InputError, WeightsError
from effnet.system.cache import file_digest, network_forbidden
from effnet.system.files import open_regular, read_bytes
from effnet.system.text import brief, printable, reason_of
from effnet.weights.download import hub_file
from effnet.words.encoder import Encoder, Table
from effnet.words.sentence import Sentence
from effnet.words.tokens import JsonTokens, Tokens, WordTokens

Kind = Literal["table", "sentence", "tower"]

TOKENIZER, MODEL, VECTORS, VOCABULARY = "tokenizer.json", "model.onnx", "vectors.safetensors", "vocabulary.txt"

MAX_TOKENIZER_BYTES, MAX_TABLE_BYTES = 128 * 2**20, 4 * 10**9
# GloVe's largest table has 2.2 million words; longer words are no words.
_MOST_WORDS, _LONGEST_WORD, _MOST_WIDTH = 5_000_000, 1_000, 16_384
_LINES = 10_000
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_HUB_FILES = ("model.safetensors", MODEL, f"onnx/{MODEL}")
_WANTED = (
    "a folder of tokenizer.json with a table (.safetensors) or a sentence encoder (.onnx), GloVe's .txt, a .npy beside "
    "its vocabulary .txt, or an id of the hub, user/name"
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Words:
    """An encoder of texts with its identity: `source` in words, and the SHA-256 of each of its files, by name."""

    kind: Kind
    encoder: Encoder
    source: str
    sha256: dict[str, str]
    files: tuple[Path, ...]


def open_words(path: str | os.PathLike[str], *, threads: int = 1) -> Words:
    """Return the words at `path`, or of the hub's repository of that id; raise WeightsError if it holds none."""
    text = os.fspath(path)
    place = Path(text)
    try:
        if not place.exists():
            if not _HUB_ID.fullmatch(text):
                raise InputError(f"--words must be {_WANTED}; there is no {printable(text)}")
            return _open(_from_hub(text), threads=threads, source=f"hub:{text}")
        return _open(_files_in(place), threads=threads, source=place.resolve().name)
    except OSError as error:
        raise WeightsError(f"the words at {printable(text)} cannot be read: {reason_of(error)}") from error


def _files_in(place: Path) -> tuple[Path, ...]:
    """Return the file of vectors, or of the encoder, and that of its tokens, if it has one."""
    if place.is_dir():
        found = sorted(path for path in place.iterdir() if path.suffix in (".safetensors", ".onnx", ".npy"))
        found = found or sorted(place.glob("*.txt"))
        if len(found) != 1:
            names = ", ".join(printable(path.name) for path in found[:4]) or "none of these"
            raise WeightsError(f"--words must be {_WANTED}; the folder {printable(place)} has {names}")
        place = found[0]
    if place.suffix in (".safetensors", ".onnx"):
        beside = place.with_name(TOKENIZER)
        if not beside.is_file():
            raise WeightsError(f"there must be a {TOKENIZER} beside {printable(place)}; there is none: copy it there")
        return place, beside
    if place.suffix == ".npy":
        known = (place.with_suffix(".txt"), place.with_suffix(".vocab"), place.with_name(VOCABULARY))
        beside = next((path for path in known if path.is_file()), known[-1])
        if not beside.is_file():
            raise WeightsError(
                f"there must be a vocabulary beside {printable(place)}, one word a line, as {place.stem}.txt or "
                f"{VOCABULARY}; there is none"
            )
        return place, beside
    if place.suffix in (".txt", ".vec"):
        return (place,)
    raise WeightsError(f"--words must be {_WANTED}; got {printable(place)}")


def _from_hub(name: str) -> tuple[Path, ...]:
    """Return the files of a repository, in the hub's cache."""
    repo, _, revision = name.partition("@")
    last: WeightsError | None = None
    for file in _HUB_FILES:
        try:
            model = _hub_file(repo, file, revision or None, limit_bytes=MAX_TABLE_BYTES)
            return model, _hub_file(repo, TOKENIZER, revision or None, limit_bytes=MAX_TOKENIZER_BYTES)
        except WeightsError as error:
            last = last or error
    assert last is not None
    raise last


def _hub_file(repo: str, file: str, revision: str | None, *, limit_bytes: int) -> Path:
    if network_forbidden():
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(repo, file, revision=revision)
        if not isinstance(found, str):
            raise WeightsError(f"{printable(repo)} is not downloaded yet, and HF_HUB_OFFLINE forbids the network")
        return Path(found)
    hint = f"--words must be {_WANTED}"
    return hub_file(repo, file, limit_bytes=limit_bytes, hint=hint, name=f"{printable(repo)}/{file}", revision=revision)


def _open(files: Sequence[Path], *, threads: int, source: str) -> Words:
    model, *others = files
    for path in files:
        open_regular(path).close()  # a pipe would wait forever
    sha256 = {path.name: file_digest(path, "sha256") for path in files}
    if model.suffix == ".onnx":
        encoder: Encoder = Sentence(read_tokenizer(others[0]), model, threads=threads)
        return Words(kind="sentence", encoder=encoder, source=source, sha256=sha256, files=tuple(files))
    tokens: Tokens
    if model.suffix == ".safetensors":
        vectors, tokens = read_table(model), read_tokenizer(others[0])
    elif model.suffix == ".npy":
        vectors, tokens = _read_array(model), WordTokens(read_vocabulary(others[0]))
    else:
        words, vectors = _read_glove(model)
        tokens = WordTokens(words)
    with np.errstate(over="ignore"):
        vectors = vectors.astype(np.float16)  # as a bundle holds them, so that it repeats the same vectors
    check_table(vectors, tokens, where=model)
    return Words(kind="table", encoder=Table(tokens, vectors), source=source, sha256=sha256, files=tuple(files))


def read_tokenizer(path: Path) -> JsonTokens:
    """Return the tokenizer of a tokenizer.json."""
    return JsonTokens(read_bytes(path, limit_bytes=MAX_TOKENIZER_BYTES), where=printable(path))


def read_table(path: Path) -> np.ndarray:
    """Return the only table [tokens, width] of a safetensors file, of floating-point numbers."""
    try:
        arrays, _ = load_safetensors(path)
    except ValueError as error:
        raise WeightsError(f"{printable(path)} must be a safetensors file: {error}") from error
    tables = {name: array for name, array in arrays.items() if array.ndim == 2 and array.dtype.kind == "f"}
    if len(tables) != 1 or len(arrays) != 1:
        names = ", ".join(f"{name} {list(array.shape)}" for name, array in list(arrays.items())[:4]) or "nothing"
        raise WeightsError(
            f"{printable(path)} must hold one table [tokens, width] and nothing else; it has {brief(names)}; a model "
            "of several layers is read as .onnx"
        )
    return next(iter(tables.values()))


def check_table(vectors: np.ndarray, tokens: Tokens, *, where: object) -> None:
    """Raise WeightsError unless a table has a row of finite numbers for each token."""
    if len(vectors) < tokens.size:
        raise WeightsError(
            f"the table {where} must have a row for each of the {tokens.size:,} tokens of its tokenizer; it has "
            f"{len(vectors):,}: they are not of one model"
        )
    if not np.isfinite(vectors).all():
        raise WeightsError(f"the table {where} must hold finite numbers, within the range of fp16; some are not")


def _read_array(path: Path) -> np.ndarray:
    with open_regular(path) as file:
        try:
            vectors = np.load(file, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise WeightsError(f"{printable(path)} must be an array of numpy: {error}") from error
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise WeightsError(f"{printable(path)} must be a table [words, width] of floating-point numbers; it is not")
    return vectors


def read_vocabulary(path: Path) -> list[str]:
    """Return the words of a file that has one a line."""
    try:
        return read_bytes(path, limit_bytes=MAX_TABLE_BYTES).decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise WeightsError(f"{printable(path)} must be UTF-8 text, one word a line: {error}") from error


def _read_glove(path: Path) -> tuple[list[str], np.ndarray]:
    """Return the words and their vectors of a text file: a word and its numbers a line, after an optional header."""
    words: list[str] = []
    parts: list[np.ndarray] = []
    with open_regular(path) as file:
        first = file.readline(_LONGEST_WORD + 32 * _MOST_WIDTH)
        header = re.fullmatch(rb"\d+ (\d+)\s*", first)
        width = int(header[1]) if header else len(first.split()) - 1
        if not 2 <= width <= _MOST_WIDTH:
            raise WeightsError(
                f"{printable(path)} must have a word and its numbers on each line, as GloVe's files have; the first "
                f"line is {brief(first[:60].decode('utf-8', 'replace'))}"
            )
        if not header:
            file.seek(0)
        lines: list[bytes] = []
        for line in file:
            lines.append(line)
            if len(lines) == _LINES:
                _add_lines(lines, width, words, parts, path)
                lines = []
            if len(words) > _MOST_WORDS:
                raise WeightsError(f"{printable(path)} must have at most {_MOST_WORDS:,} words; it has more")
        _add_lines(lines, width, words, parts, path)
    return words, np.concatenate(parts) if parts else np.empty((0, width), np.float32)


def _add_lines(lines: Sequence[bytes], width: int, words: list[str], parts: list[np.ndarray], path: Path) -> None:
    first = len(words) + 1
    numbers: list[bytes] = []
    for place, line in enumerate(lines):
        word, *values = line.rstrip().rsplit(b" ", width)
        if len(values) != width or len(word) > _LONGEST_WORD:
            raise WeightsError(
                f"{printable(path)}, word {first + place}: a line must be a word and {width} numbers; this one has "
                f"{len(values)}"
            )
        words.append(word.decode("utf-8", "replace"))
        numbers += values
    try:
        parts.append(np.array(numbers, dtype="S").astype(np.float32).reshape(-1, width))
    except ValueError as error:
        raise WeightsError(f"{printable(path)}, after word {first}: {error}") from error
