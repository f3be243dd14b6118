"""Find the network among the arrays of a checkpoint: its prefix, and the arrays that are not part of it.

Names alone decide: a network is under a prefix if all names of a known network are there, and no others of its stem,
blocks or head. Other arrays (a loss with weights, another head) are left out, and a note names them.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from effnet.errors import WeightsError
from effnet.system.text import printable
from effnet.weights.known import known_names, known_networks
from effnet.weights.schemes import COMPOSED, PATTERNS, Scheme, plain_arrays, root_of

Arrays = dict[str, np.ndarray]

WRAPPERS = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema", "state_dict", "model_state_dict", "model_state"),
    *("model", "module", "_orig_mod"),
)
"""Prefixes that training scripts use, the preferred first: averaged weights are those that were evaluated."""

_AVERAGED = re.compile(r"(?:.*_)?ema(?:_.*)?|averaged_model")
_COUNTERS = ("num_batches_tracked", "n_averaged")
_SLASHED = ("keras", "tensorflow")
_SHOWN = 4
# An untrusted file may have a prefix for each of its names; time must not grow with their product.
_MOST_PLACES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Names of `scheme` under one prefix; `whole` if they are a network, with or without classifier."""

    prefix: str
    scheme: Scheme
    whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The arrays of one network by plain name, the `others` of its file, and notes on how it was found."""

    arrays: Arrays
    others: Arrays
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Names:
    """The names of a known network: without classifier, of the classifier, if it has one, and of its parts."""

    body: frozenset[str]
    classifier: tuple[str, ...]
    roots: frozenset[str]


def find_network(
    arrays: Mapping[str, np.ndarray],
    *,
    where: str,
    head: str | None = None,
    path: str = "",
    beside: Sequence[str] = (),
    left: Sequence[str] = (),
) -> Found:
    """Return the network among `arrays`, under any prefix, and its classifier, if it has one.

    Averaged weights are preferred. A single linear layer below the classifier's own name (`classifier.1`) is the
    classifier; `head` names one elsewhere. If no whole network is found, all arrays are returned, for `identify` to
    report the missing ones. `path`, `beside` and `left` are as in effnet.weights.readers.checkpoint.Told, for the
    notes. Raises WeightsError if there are several networks and none is preferred, or if there is no such head.
    """
    chosen = choose_place({"": arrays}, where=where)
    if chosen is None:
        return Found(arrays=dict(arrays), others={})
    _, place, near = chosen
    prefix, scheme = place.prefix, place.scheme
    inside = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
    plain = plain_arrays(inside, scheme)
    network = _whole(plain.keys(), scheme)
    notes = _place_notes(f"{path}{prefix}", tuple(dict.fromkeys((*beside, *(f"{path}{other}" for other in near)))))
    if network is None:
        return Found(arrays=plain, others={}, notes=notes)
    others = {key: array for key, array in arrays.items() if not key.startswith(prefix)}
    others |= {key: array for key, array in plain.items() if key not in network.body}
    others = {key: others[key] for key in others if not _is_of(near, key, prefix, network, scheme)}
    name = _head_name(others, network, scheme) if head is None else _head_named(head, others, scheme, prefix, where)
    classifier = _classifier(others, network, name=name)
    taken = {name, _bias_of(name)}
    if classifier and name not in network.classifier:
        notes += (f"{printable(name)} is the classifier: a linear layer on the pooled features",)
    rest = {key: array for key, array in others.items() if key not in taken and not key.endswith(_COUNTERS)}
    names = (*rest, *left)
    notes += (f"left out, as not part of the network: {some(names)}",) if names else ()
    return Found(arrays={key: plain[key] for key in network.body} | classifier, others=rest, notes=notes)


def choose_place(states: Mapping[str, Collection[str]], *, where: str) -> tuple[str, Place, tuple[str, ...]] | None:
    """Return the key of the state, the place in it, and the prefixes of other networks; None without a network.

    `states` are the names of arrays by the path that they have in a file. The prefixes are of other whole networks, in
    other states with their paths before them. Raises WeightsError if several are whole and none is preferred.
    """
    places = [(path, place) for path, names in states.items() for place in _places(names)]
    whole = [(path, place) for path, place in places if place.whole]
    # The backbone within a detector or a U-Net is no network beside it.
    larger = [(path, place.prefix) for path, place in whole if place.scheme in COMPOSED]
    whole = [
        (path, place)
        for path, place in whole
        if not any(path == at and place.prefix != prefix and place.prefix.startswith(prefix) for at, prefix in larger)
    ]
    if not whole:
        return (*places[0], ()) if places else None
    ranked = sorted(whole, key=lambda one: _rank(_full(*one)))
    first, *rest = ranked
    if rest and _rank(_full(*rest[0])) == _rank(_full(*first)):
        names = " and ".join(sorted(_full(*one) or "no prefix" for one in (first, rest[0])))
        raise WeightsError(
            f"{where} must hold one network, or averaged weights beside it; it holds several, under {names}; save the "
            "state_dict() of the intended one only"
        )
    return (*first, tuple(_full(*one) for one in rest))


def _full(path: str, place: Place) -> str:
    return f"{path}.{place.prefix}" if path else place.prefix


def _rank(prefix: str) -> tuple[bool, int]:
    """Return the sort key of a place: averaged weights, then the prefixes of training scripts, then others."""
    words = [word for word in prefix.split(".") if word]
    known = [WRAPPERS.index(word) if word in WRAPPERS else len(WRAPPERS) for word in words[:1]]
    return not any(_AVERAGED.fullmatch(word) for word in words), min(known, default=-1)


def _places(names: Collection[str]) -> list[Place]:
    """Return the prefixes of names of a scheme, those with the most names first."""
    counts: Counter[tuple[str, Scheme]] = Counter()
    for scheme, pattern in PATTERNS.items():
        prefixed = re.compile(f"(?:{pattern})" if scheme in _SLASHED else rf"(?:.*?\.)??(?={pattern})")
        for name in names:
            if match := prefixed.match(name):
                counts["" if scheme in _SLASHED else match[0], scheme] += 1
    first: dict[str, Scheme] = {}
    for (prefix, scheme), _ in counts.most_common(_MOST_PLACES):
        first.setdefault(prefix, scheme)
    found = []
    for prefix, scheme in first.items():
        inside = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        plain = plain_arrays(dict.fromkeys(inside, np.zeros((), np.float32)), scheme)
        found.append(Place(prefix=prefix, scheme=scheme, whole=_whole(plain.keys(), scheme) is not None))
    return found


def _whole(names: Collection[str], scheme: Scheme) -> _Names | None:
    """Return the names of the known network that is complete among these and not part of a larger one; else None."""
    present = set(names)
    for name in known_networks(scheme):
        known = _names(name, scheme)
        if known and known.body <= present:
            more = {root_of(key, scheme) for key in present - known.body}
            if not more & known.roots:
                return known
    return None


def _names(name: str, scheme: Scheme) -> _Names | None:
    body, classifier = known_names(name, scheme)
    if not body:
        return None
    return _Names(body=body, classifier=classifier, roots=frozenset(root_of(key, scheme) for key in body))


def _is_of(near: Sequence[str], key: str, prefix: str, network: _Names, scheme: Scheme) -> bool:
    """Return whether an array, by its name with or without the prefix, belongs to another network, named in a note."""
    own = {*network.roots, *(root_of(name, scheme) for name in network.classifier)}
    for other in near:
        if key.startswith(other) or f"{prefix}{key}".startswith(other):
            return bool(other) or root_of(key, scheme) in own
    return False


def _bias_of(weight: str) -> str:
    return re.sub(r"(kernel|weight)$", "bias", weight)


def _head_name(others: Mapping[str, np.ndarray], network: _Names, scheme: Scheme) -> str:
    """Return the name of the only matrix of the classifier, if it has at most a bias beside it; else an empty text."""
    if not network.classifier:
        return ""
    weight, _ = network.classifier
    own = [key for key in others if root_of(key, scheme) == root_of(weight, scheme)]
    matrices = [key for key in own if key == weight or np.ndim(others[key]) == 2]
    if len(matrices) != 1 or not set(own) <= {matrices[0], _bias_of(matrices[0])}:
        return ""
    return matrices[0]


def _head_named(head: str, others: Mapping[str, np.ndarray], scheme: Scheme, prefix: str, where: str) -> str:
    name = f"{head}/kernel" if scheme in _SLASHED else f"{head}.weight"
    for key in others:
        if (name in (key, f"{prefix}{key}") or key.endswith(f"/{name}")) and np.ndim(others[key]) == 2:
            return key
    raise WeightsError(
        f"the head must be a linear layer of {where}; {printable(head)[:80]!r} is none; beside the network it has: "
        f"{_matrices(others) or 'no linear layer'}"
    )


def _classifier(others: Mapping[str, np.ndarray], network: _Names, *, name: str) -> Arrays:
    if name not in others:
        return {}
    weight, bias = network.classifier
    matrix = np.asarray(others[name])
    outputs = matrix.shape[-1 if weight.endswith("kernel") else 0] if matrix.ndim else 0
    # A linear layer without a bias is one whose bias is zero.
    return {weight: matrix, bias: others.get(_bias_of(name), np.zeros(outputs, np.float32))}


def _matrices(others: Mapping[str, np.ndarray]) -> str:
    found = {key: np.shape(array) for key, array in others.items() if np.ndim(array) == 2}
    return some(f"{key} ({rows} x {columns})" for key, (rows, columns) in found.items())


def no_classifier(found: Found, *, where: str) -> WeightsError:
    """Return the error for a network that must have a classifier and has none under its own name."""
    advice = "; if one of them classifies the pooled features, name it: --head NAME" if _matrices(found.others) else ""
    return WeightsError(
        f"{where} must hold a classifier; there is none under the network's own name; linear layers beside it: "
        f"{_matrices(found.others) or 'none'}{advice}; to train a new one: effnet fit DATA --weights {where}"
    )


def _place_notes(prefix: str, beside: Sequence[str]) -> tuple[str, ...]:
    """Return notes on the network's prefix, and on other networks that are not used."""
    averaged = " (averaged weights)" if any(map(_AVERAGED.fullmatch, prefix.split("."))) else ""
    notes: tuple[str, ...] = (f"the network is under {printable(prefix)[:80]}{averaged}",) if prefix else ()
    if beside:
        notes += (f"not used: another network under {some(other or 'no prefix' for other in beside)}",)
    return notes


def some(names: Iterable[str]) -> str:
    """Return the first of these names, escaped for a terminal, and the number of the others."""
    every = [printable(name)[:80] for name in names]
    return ", ".join(every[:_SHOWN]) + (f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else "")
