"""Checks of a recipe's fields; every message names the field, the condition and the value received."""

from typing import Any

from effnet.errors import InputError, nearest
from effnet.system.bounds import MAX_BATCH, MAX_EPOCHS, MAX_SEED, MAX_SIDE, is_number
from effnet.system.text import brief

# Beyond these bounds numbers overflow, and loops over epochs and operations take forever.
MOST = 1e6
_LEAST = 1e-30
_MOST_INTEGERS = {
    "epochs": MAX_EPOCHS,
    "seed": MAX_SEED,
    "resolution": MAX_SIDE,
    "num_ops": 100,
    "teacher_views": 10_000,
}


def check_integers(value: Any, group: str, least: dict[str, int]) -> None:
    """Raise InputError unless each field is an integer between its bound in `least` and the maximum of any recipe."""
    for name, bound in least.items():
        got, most = getattr(value, name), _MOST_INTEGERS.get(name, MAX_BATCH)
        if type(got) is not int or got < bound:
            raise InputError(f"{group}.{name} must be an integer of at least {bound}; got {brief(got)}")
        if got > most:
            raise InputError(f"{group}.{name} must be at most {most}; got {brief(got)}")


def check_positive(value: Any, group: str, *names: str) -> None:
    """Raise InputError unless each field is positive and finite, and neither tiny nor huge."""
    for name in names:
        got = getattr(value, name)
        if not (is_number(got) and got > 0):
            raise InputError(f"{group}.{name} must be positive and finite; got {brief(got)}")
        if not _LEAST <= got <= MOST:
            raise InputError(f"{group}.{name} must lie in {_LEAST:g}..{MOST:g}; got {brief(got)}")


def check_from_zero(value: Any, group: str, *names: str) -> None:
    """Raise InputError unless each field is finite, at least 0 and not huge."""
    for name in names:
        got = getattr(value, name)
        if not (is_number(got) and got >= 0):
            raise InputError(f"{group}.{name} must be finite and at least 0; got {brief(got)}")
        if got > MOST:
            raise InputError(f"{group}.{name} must be at most {MOST:g}; got {brief(got)}")


def check_shares(value: Any, group: str, *names: str) -> None:
    """Raise InputError unless each field lies in 0..1, 1 excluded."""
    for name in names:
        got = getattr(value, name)
        if not (is_number(got) and 0 <= got < 1):
            raise InputError(f"{group}.{name} must lie in 0..1, 1 excluded; got {brief(got)}")


def check_above_zero(value: Any, group: str, *names: str) -> None:
    """Raise InputError unless each field lies above 0 and is at most 1."""
    for name in names:
        got = getattr(value, name)
        if not (is_number(got) and 0 < got <= 1):
            raise InputError(f"{group}.{name} must lie above 0 and be at most 1; got {brief(got)}")


def check_range(value: Any, group: str, least: float, most: float, *names: str) -> None:
    """Raise InputError unless each field lies in `least`..`most`."""
    for name in names:
        got = getattr(value, name)
        if not (is_number(got) and least <= got <= most):
            raise InputError(f"{group}.{name} must lie in {least:g}..{most:g}; got {brief(got)}")


def check_choice(name: str, got: Any, known: tuple[str, ...]) -> None:
    """Raise InputError unless `got` is one of `known`."""
    if got not in known:
        raise InputError(f"{name} must be one of {', '.join(known)}; got {brief(got)}{nearest(str(got), known)}")
