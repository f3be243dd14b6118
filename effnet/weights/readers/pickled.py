"""Pickles read as data: names in a pickle are never looked up, imported or called.

`torch.load(weights_only=True)` runs no foreign code either, but it allocates whatever a pickle requests:
`bytearray(10**10)` in a file of 2 KB, tensors of any size, keys that never finish hashing. Here a call remains a
description of a call.
Source of the format: the opcodes as Python's own pickletools describes them.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

_MAX_PLACE, _MAX_PAIRS = 2**32, 10**6
_VALUES = {
    *("BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "BINFLOAT", "FLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BINSTRING", "SHORT_BINSTRING", "STRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_NOTHING = {"PROTO", "FRAME", "STOP", "READONLY_BUFFER"}


@dataclass(frozen=True, slots=True, eq=False)
class Name:
    """A module's attribute named in a pickle, such as torch.FloatStorage."""

    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A call described in a pickle, which is never made."""

    name: str
    arguments: tuple[Any, ...]


class Namespace(dict[str, Any]):
    """The attributes of an argparse.Namespace, in which training scripts keep their options."""


@dataclass(frozen=True, slots=True, eq=False)
class Outside:
    """A reference to data in the file around a pickle, such as the numbers of a tensor."""

    description: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Pickle:
    """Contents of a pickle: its value, every name in it, and every reference to outside data."""

    value: Any
    names: tuple[str, ...]
    outside: tuple[Outside, ...]


def read_pickle(stream: BinaryIO) -> Pickle:
    """Read the next pickle of `stream`, and leave the stream behind it.

    Dictionaries keep only entries with text keys; sets become tuples. Raises ValueError if it is damaged. Memory and
    time grow only with the bytes read, so `stream` must be of bounded size.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            machine.step(opcode.name, argument)
        return Pickle(value=machine.stack.pop(), names=tuple(machine.names), outside=tuple(machine.outside))
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"its pickle is damaged: {type(error).__name__}") from error


@dataclass(slots=True)
class _Machine:
    """The stack machine of pickles."""

    stack: list[Any] = field(default_factory=list)
    below: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    names: dict[str, None] = field(default_factory=dict)
    outside: list[Outside] = field(default_factory=list)
    pairs: int = 0

    def step(self, opcode: str, argument: Any) -> None:
        if opcode in _VALUES:
            self.stack.append(argument)
        elif opcode in _STEPS:
            _STEPS[opcode](self, argument)
        elif opcode not in _NOTHING:
            raise ValueError(f"its pickle uses {opcode}, which weights never need")

    def since_mark(self) -> list[Any]:
        """Pop and return the items on the stack since the last mark."""
        found, self.stack = self.stack, self.below.pop()
        return found

    def gather(self, kind: type[tuple] | type[list]) -> None:
        """Replace the items since the last mark by one collection of them."""
        found = self.since_mark()
        self.stack.append(kind(found))

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def put(self, place: int) -> None:
        if not 0 <= place < _MAX_PLACE:
            raise ValueError("its pickle has an impossible memo index")
        self.memo[place] = self.stack[-1]

    def name(self, text: str) -> None:
        self.names[text] = None
        self.stack.append(Name(text))

    def stacked_name(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("its pickle has a name that is not text")
        self.name(f"{module}.{name}")

    def call(self, arguments: Any) -> None:
        """Replace a called name by a description of the call; only dictionaries are created."""
        called = self.stack.pop()
        if not isinstance(called, Name | Call) or not isinstance(arguments, tuple):
            raise ValueError("its pickle calls something without a name")
        if isinstance(called, Call):  # the unknown result of another call
            self.stack.append(Call("", arguments))
        elif called.text == "argparse.Namespace":
            self.stack.append(Namespace())
        elif called.text in _DICTIONARIES:
            pairs = arguments[0] if arguments and isinstance(arguments[0], list) else []
            self.pairs += len(pairs)
            if self.pairs > _MAX_PAIRS:  # one list could make any number of dictionaries
                raise ValueError("its pickle makes too many dictionaries")
            self.stack.append({key: value for key, value in pairs if type(key) is str})
        else:
            self.stack.append(Call(called.text, arguments))

    def build(self) -> None:
        """Set the attributes of a namespace; other objects are only described, without their state."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], Namespace) and isinstance(state, dict):
            self.stack[-1].update(state)

    def call_class(self) -> None:
        arguments = tuple(self.since_mark())
        self.stack.append(arguments[0])
        self.call(arguments[1:])

    def call_with_keywords(self) -> None:
        self.stack.pop()
        self.call(self.stack.pop())

    def made_of(self, text: str) -> None:
        arguments = tuple(self.since_mark())
        self.name(text)
        self.call(arguments)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):  # other objects are only described, without their items
            target.update((key, value) for key, value in zip(items[::2], items[1::2], strict=True) if type(key) is str)

    def extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def append(self) -> None:
        item = self.stack.pop()
        self.extend([item])

    def dictionary(self) -> None:
        items = self.since_mark()
        self.stack.append({})
        self.set_items(items)

    def last(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def take_from_outside(self, description: Any) -> None:
        self.outside.append(Outside(description))
        self.stack.append(self.outside[-1])


_DICTIONARIES = ("collections.OrderedDict", "collections.defaultdict", "collections.Counter")
_STEPS: dict[str, Callable[[_Machine, Any], object]] = {
    "NONE": lambda m, _: m.stack.append(None),
    "NEWTRUE": lambda m, _: m.stack.append(True),
    "NEWFALSE": lambda m, _: m.stack.append(False),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_SET": lambda m, _: m.stack.append(()),
    "MARK": lambda m, _: m.mark(),
    "POP": lambda m, _: m.stack.pop(),
    "POP_MARK": lambda m, _: m.since_mark(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "TUPLE": lambda m, _: m.gather(tuple),
    "TUPLE1": lambda m, _: m.last(1),
    "TUPLE2": lambda m, _: m.last(2),
    "TUPLE3": lambda m, _: m.last(3),
    "LIST": lambda m, _: m.gather(list),
    "DICT": lambda m, _: m.dictionary(),
    "FROZENSET": lambda m, _: m.gather(tuple),
    "APPEND": lambda m, _: m.append(),
    "APPENDS": lambda m, _: m.extend(m.since_mark()),
    "ADDITEMS": lambda m, _: m.since_mark(),
    "SETITEM": lambda m, _: m.set_item(),
    "SETITEMS": lambda m, _: m.set_items(m.since_mark()),
    "GET": lambda m, place: m.stack.append(m.memo[place]),
    "BINGET": lambda m, place: m.stack.append(m.memo[place]),
    "LONG_BINGET": lambda m, place: m.stack.append(m.memo[place]),
    "PUT": lambda m, place: m.put(place),
    "BINPUT": lambda m, place: m.put(place),
    "LONG_BINPUT": lambda m, place: m.put(place),
    "MEMOIZE": lambda m, _: m.put(len(m.memo)),
    "GLOBAL": lambda m, text: m.name(text.replace(" ", ".", 1)),
    "STACK_GLOBAL": lambda m, _: m.stacked_name(),
    "REDUCE": lambda m, _: m.call(m.stack.pop()),
    "NEWOBJ": lambda m, _: m.call(m.stack.pop()),
    "NEWOBJ_EX": lambda m, _: m.call_with_keywords(),
    "INST": lambda m, text: m.made_of(text.replace(" ", ".", 1)),
    "OBJ": lambda m, _: m.call_class(),
    "BUILD": lambda m, _: m.build(),
    "PERSID": lambda m, text: m.take_from_outside(text),
    "BINPERSID": lambda m, _: m.take_from_outside(m.stack.pop()),
}
