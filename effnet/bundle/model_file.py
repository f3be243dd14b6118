"""Read the bytes of a model file once: a runtime opens exactly the bytes checked here."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from effnet.errors import BundleError
from effnet.system.files import open_regular

MAX_MODEL_BYTES = 2**31
"""The limit of Protobuf, and so of ONNX."""

_LONGEST_REASON = 400


class ChangedFileError(BundleError):
    """A model file whose digest is not the recorded one; the caller, which knows its format, adds the remedy."""


def read_model(path: Path, digests: Mapping[str, str] | None = None) -> bytes:
    """Return the content of a model file.

    Raises BundleError if it is missing, no regular file or too large, and ChangedFileError if `digests` (SHA-256 in
    hexadecimal, by file name) has another digest for it.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_MODEL_BYTES:
                raise BundleError(f"a model must have at most {MAX_MODEL_BYTES:,} bytes; {path} has {size:,}")
            data = file.read(size)
    except FileNotFoundError as error:
        raise BundleError(f"there must be a model at {path}; none is there: `effnet export` writes it") from error
    except OSError as error:
        raise BundleError(f"there must be a model at {path}; it cannot be read: {error.strerror}") from error
    expected = (digests or {}).get(path.name)
    if expected is not None and (found := sha256(data)) != expected:
        raise ChangedFileError(
            f"{path} must have the SHA-256 in config.json ({expected[:12]}...); it is another file or damaged "
            f"({found[:12]}...)"
        )
    return data


def sha256(data: bytes | bytearray) -> str:
    """Return the SHA-256 of `data` in hexadecimal, as sha256sum prints it."""
    return hashlib.sha256(data).hexdigest()


def reason(error: BaseException) -> str:
    """Return a runtime's error message, on one line of bounded length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."
