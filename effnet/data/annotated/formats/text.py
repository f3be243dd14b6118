"""Read untrusted text files of limited size; errors name the file and the line."""

import os

from effnet.errors import DataError
from effnet.system.files import open_regular
from effnet.system.text import printable, reason_of


def read_limited(path: str, *, limit_bytes: int) -> bytes:
    """Return the content of a regular file; raise DataError if it cannot be read or is larger than `limit_bytes`."""
    try:
        with open_regular(path) as file:
            # Reading up to a limit would allocate the limit.
            size = os.fstat(file.fileno()).st_size
            data = file.read(size) if size <= limit_bytes else b""
    except OSError as error:
        raise DataError(f"{printable(path)}: {reason_of(error)}") from error
    if size > limit_bytes:
        raise DataError(f"{printable(path)}: it must have at most {limit_bytes:,} bytes; it has {size:,}")
    return data


def read_text(path: str, *, limit_bytes: int) -> str:
    """Return the text of a UTF-8 file, with or without a mark; raise DataError for any other."""
    data = read_limited(path, limit_bytes=limit_bytes)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{printable(path)}, line {line}: it must be UTF-8 text; save it as UTF-8") from error
