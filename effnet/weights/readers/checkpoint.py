"""Checkpoints of torch.save as data: find the state dict, and read network name and classes from the other values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from effnet.errors import WeightsError
from effnet.weights.locate import WRAPPERS, choose_place
from effnet.weights.readers.pickled import Call
from effnet.weights.readers.torch_file import is_tensor

_MAX_DEPTH, _MAX_STATES = 8, 1_000
_MAX_CLASSES, _MAX_TEXT = 100_000, 200
# Keys of the options (timm, torchvision, Lightning) and of the class names.
_OPTIONS = ("args", "hyper_parameters")
_CLASS_INDEX, _CLASS_LISTS = "class_to_idx", ("class_names", "classes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Metadata in a checkpoint: the network's name and the classes in order; empty if absent.

    `path` is the path of its state dict, with a point at its end, `beside` are the prefixes of other networks, and
    `left` the names of the checkpoint's other values.
    """

    model: str = ""
    class_names: tuple[str, ...] = ()
    path: str = ""
    beside: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


NOTHING_TOLD = Told()


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The wanted tensors of a checkpoint by name, and the metadata in the rest."""

    tensors: dict[str, object]
    told: Told


def state_in(content: object, *, where: str) -> State:
    """Return the state dict in the value of a pickle, at any depth; averaged weights are preferred.

    Only its tensors are returned, without those of another network beside it. Raises WeightsError if there is none.
    """
    states = _states(content)
    if not states:
        kind = content.name if isinstance(content, Call) else type(content).__name__
        raise WeightsError(f"{where} must hold a state dict, names with tensors; it holds a {kind} without any tensor")
    chosen = choose_place(states, where=where)
    if chosen is None:  # no known network: `identify` reports the contents later
        path = min(states, key=lambda path: _order(path, states))
        return State(tensors=states[path], told=Told())
    path, place, beside = chosen
    inside = f"{path}." if path else ""
    own = tuple(other.removeprefix(inside) for other in beside if other.startswith(inside))
    own = tuple(other for other in own if not place.prefix.startswith(other))
    tensors = {key: value for key, value in states[path].items() if not (own and key.startswith(own))}
    told = Told(
        model=_model(content), class_names=_class_names(content), path=inside, beside=beside, left=_left(content, path)
    )
    return State(tensors=tensors, told=told)


def _states(content: object) -> dict[str, dict[str, object]]:
    """Return the tensors of every mapping that has any, by the path to it."""
    waiting: list[tuple[tuple[str, ...], object]] = [((), content)]
    seen, found = set(), {}
    for path, value in waiting:  # which grows
        if not isinstance(value, Mapping) or id(value) in seen:  # a pickle may hold itself
            continue
        seen.add(id(value))
        tensors = {key: item for key, item in value.items() if is_tensor(item)}
        if tensors:
            found[".".join(path)] = tensors
        if len(path) < _MAX_DEPTH and len(waiting) < _MAX_STATES:
            inner = ((key, item) for key, item in value.items() if isinstance(item, Mapping) and len(key) < _MAX_TEXT)
            waiting += [((*path, key), item) for key, item in inner]
    return found


def _order(path: str, states: Mapping[str, Mapping[str, object]]) -> tuple[int, int]:
    ranks = [WRAPPERS.index(word) for word in path.split(".") if word in WRAPPERS]
    return min(ranks, default=len(WRAPPERS)), -len(states[path])


def _left(content: object, path: str) -> tuple[str, ...]:
    """Return the names of a checkpoint's values beside the mapping in which the network was found."""
    if not path or not isinstance(content, Mapping):
        return ()
    return tuple(key for key in content if key != path.partition(".")[0])


def _options(content: object) -> list[Mapping[str, Any]]:
    if not isinstance(content, Mapping):
        return []
    return [content, *(content[key] for key in _OPTIONS if isinstance(content.get(key), Mapping))]


def _model(content: object) -> str:
    """Return the name of the network in the options of timm's and torchvision's scripts, or an empty text."""
    names = [options.get(key) for options in _options(content) for key in ("arch", "model")]
    return next((name for name in reversed(names) if isinstance(name, str) and len(name) < _MAX_TEXT), "")


def _class_names(content: object) -> tuple[str, ...]:
    """Return the classes in the order of the outputs, if the checkpoint has `class_to_idx` or a list of them."""
    for options in _options(content):
        index = options.get(_CLASS_INDEX)
        if isinstance(index, Mapping) and 0 < len(index) <= _MAX_CLASSES:
            numbers = list(index.values())
            if all(type(number) is int for number in numbers) and sorted(numbers) == list(range(len(index))):
                return tuple(sorted(index, key=index.__getitem__))
        for key in _CLASS_LISTS:
            names = options.get(key)
            if isinstance(names, list | tuple) and 0 < len(names) <= _MAX_CLASSES and all(map(_is_text, names)):
                return tuple(names)
    return ()


def _is_text(value: object) -> bool:
    return isinstance(value, str)
