"""The errors that a client gets: what must hold, what came, what to do."""

import math
from collections.abc import Iterable, Mapping
from typing import Literal

from effnet.errors import nearest, shown
from effnet.serving.batches.batcher import Refused

Rejection = Literal["queue", "deadline", "body", "pixels", "format", "key", "draining", "overdue"]
"""The label `reason` of effnet_rejected_total."""


class HttpError(Exception):
    """An answer with an error: `status` is its code; `rejection` is set if a limit refused the request.

    `close` ends the connection at once.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        rejection: Rejection | None = None,
        headers: Mapping[str, str] | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.rejection = status, message, rejection
        self.headers = dict(headers or {}) | ({"connection": "close"} if close else {})


class Gone(Exception):
    """The client has left: nobody reads an answer."""


def bad_request(message: str) -> HttpError:
    """Return the error for a request that is not as documented."""
    return HttpError(400, message)


def unknown(what: str, name: str, known: Iterable[str]) -> HttpError:
    """Return the error for a name that is not known, which names the nearest."""
    names = list(known)
    return HttpError(
        404, f"{what} must be one of {', '.join(names) or 'none'}; got {shown(name)}{nearest(name, names)}"
    )


def refused(error: Refused) -> HttpError:
    """Return the error for a request that the batcher does not accept."""
    retry = max(1, math.ceil(error.retry_s))
    reasons = {
        "queue": "the queue must have a free place; it is full",
        "deadline": "an answer must be expected within the deadline; too many requests wait",
        "draining": "the server must accept requests; it is shutting down",
    }
    return HttpError(
        503,
        f"{reasons[error.reason]}: send the request again in {retry} s, or to another server",
        rejection=error.reason,
        headers={"retry-after": str(retry)},
    )


def overdue() -> HttpError:
    """Return the error for a request that was accepted, and then waited longer than the deadline."""
    return HttpError(
        503,
        "an accepted request must get an engine within the deadline; too much else ran: send it again in 1 s, or to "
        "another server",
        rejection="overdue",
        headers={"retry-after": "1"},
    )
