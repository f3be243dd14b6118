"""The keys of a server: whether a request has one."""

import hmac
from collections.abc import Iterable, Sequence


def has_key(keys: Sequence[bytes] | None, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Return whether a request with these headers may pass: its bearer key is one of `keys`, or there are none."""
    if not keys:
        return True
    kind, _, key = given_key(headers).partition(b" ")
    # All are compared, so that the time says nothing about them.
    right = [hmac.compare_digest(key.strip(), known) for known in keys]
    return kind.lower() == b"bearer" and any(right)


def given_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the header Authorization of a request, empty if it has none."""
    return next((value for name, value in headers if name == b"authorization"), b"")
