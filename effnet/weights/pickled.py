"""Pickles read as data: what a pickle names is never looked up, imported or called.

`torch.load(weights_only=True)` runs no foreign code either, but it makes what a pickle asks for: `bytearray(10**10)`
in a file of 2 KB, tensors of any size, keys that take for ever to hash. Here a call stays a description of a call.
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
    """Something of a module's that a pickle names, such as torch.FloatStorage."""

    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A call that a pickle asks for, and that nobody makes."""

    name: str
    arguments: tuple[Any, ...]


class Namespace(dict[str, Any]):
    """The attributes of an argparse.Namespace, in which training scripts keep their options."""


@dataclass(frozen=True, slots=True, eq=False)
class Outside:
    """Something that the file around a pickle holds, such as the numbers of a tensor."""

    description: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Pickle:
    """What a pickle holds: its value, every name in it, and everything that it takes from outside."""

    value: Any
    names: tuple[str, ...]
    outside: tuple[Outside, ...]


def read_pickle(stream: BinaryIO) -> Pickle:
    """Return what the next pickle of `stream` describes; the stream then stands behind it.

    Of a dictionary those entries are kept whose keys are texts; sets become tuples. Raises ValueError if it is
    damaged. Memory and time grow with the bytes that are read alone, so `stream` must be one of bounded size.
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
        """Return what was put on the stack since the last mark, and takes it off."""
        found, self.stack = self.stack, self.below.pop()
        return found

    def gather(self, kind: type[tuple] | type[list]) -> None:
        """Put what came since the last mark on the stack as one."""
        found = self.since_mark()
        self.stack.append(kind(found))

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def put(self, place: int) -> None:
        if not 0 <= place < _MAX_PLACE:
            raise ValueError("its pickle remembers something at an impossible place")
        self.memo[place] = self.stack[-1]

    def name(self, text: str) -> None:
        self.names[text] = None
        self.stack.append(Name(text))

    def stacked_name(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("its pickle names something that is no text")
        self.name(f"{module}.{name}")

    def call(self, arguments: Any) -> None:
        """Put a description of a call in place of what is called; dictionaries alone are made."""
        called = self.stack.pop()
        if not isinstance(called, Name | Call) or not isinstance(arguments, tuple):
            raise ValueError("its pickle calls what has no name")
        if isinstance(called, Call):  # what another call returns, which nobody knows
            self.stack.append(Call("", arguments))
        elif called.text == "argparse.Namespace":
            self.stack.append(Namespace())
        elif called.text in _DICTIONARIES:
            pairs = arguments[0] if arguments and isinstance(arguments[0], list) else []
            self.pairs += len(pairs)
            if self.pairs > _MAX_PAIRS:  # one list, and dictionaries of it without end
                raise ValueError("its pickle makes too many dictionaries")
            self.stack.append({key: value for key, value in pairs if type(key) is str})
        else:
            self.stack.append(Call(called.text, arguments))

    def build(self) -> None:
        """Give a namespace its attributes; what else has a state is described only, and goes without it."""
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
        if isinstance(target, dict):  # what else has items is described only, and goes without them
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
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
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
