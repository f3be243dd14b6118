"""Write the words of an aligned bundle into its folder."""

import json
import shutil
from pathlib import Path

import numpy as np

from effnet.bundle.config import write_text
from effnet.bundle.weights import write_arrays
from effnet.system.cache import file_digest
from effnet.words.encoder import Encoder, Table
from effnet.words.kept import FOLDER, RECORD, SPACE, TOWER, Record
from effnet.words.read import MODEL, TOKENIZER, VECTORS, VOCABULARY, Words
from effnet.words.space import Space
from effnet.words.tokens import JsonTokens, Tokens, WordTokens
from effnet.words.tower import Tower


def keep_words(bundle: Path, words: Words, space: Space, *, scale: float, copied: bool = True) -> Record:
    """Write the folder of words of an aligned bundle; its encoder is that of `space`, which may have been trained.

    Without `copied` only what the words are is written, and their mean and matrix.
    """
    folder = bundle / FOLDER
    folder.mkdir()
    write_arrays({"mean": space.mean, "matrix": space.matrix}, folder / SPACE, metadata={})
    if copied:
        _copy(folder, words, space.encoder)
    names = sorted(path.name for path in folder.iterdir())
    record = Record(
        kind="tower" if isinstance(space.encoder, Tower) else words.kind,
        source=words.source,
        width=space.encoder.width,
        source_sha256=words.sha256,
        files={name: file_digest(folder / name, "sha256") for name in names},
        scale=scale,
        heads=space.encoder.heads if isinstance(space.encoder, Tower) else 0,
    )
    write_text(folder / RECORD, json.dumps(record.to_dict(), indent=1, ensure_ascii=False) + "\n")
    return record


def _copy(folder: Path, words: Words, encoder: Encoder) -> None:
    if isinstance(encoder, Tower):
        write_arrays(encoder.arrays, folder / TOWER, metadata={})
        _write_tokens(folder, encoder.tokens)
    elif isinstance(encoder, Table):
        write_arrays({"vectors": encoder.vectors.astype(np.float16)}, folder / VECTORS, metadata={})
        _write_tokens(folder, encoder.tokens)
    else:
        for path in words.files:
            shutil.copyfile(path, folder / (MODEL if path.suffix == ".onnx" else TOKENIZER))


def _write_tokens(folder: Path, tokens: Tokens) -> None:
    if isinstance(tokens, JsonTokens):
        (folder / TOKENIZER).write_bytes(tokens.data)
    elif isinstance(tokens, WordTokens):
        (folder / VOCABULARY).write_bytes(("\n".join(tokens.words) + "\n").encode())
