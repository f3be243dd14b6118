"""Read the few lines of a YOLO data.yaml that matter, without a YAML parser."""

import re

from effnet.data.annotated.formats.text import read_text
from effnet.errors import DataError
from effnet.system.text import brief, printable

_MOST_BYTES, _MOST_NAMES = 10**6, 100_000
_KEY = re.compile(r"""(?:"([^"]*)"|'([^']*)'|([^\s:#"'\[\]{},-][^:#]*?|-?[0-9]+))\s*:(?:\s+|$)(.*)""")

Value = str | list[str] | dict[str, str]


def read_flat_yaml(path: str) -> dict[str, Value]:
    """Return the keys of a YAML file with the values that are text, or lists or mappings of text, one level deep.

    Raises DataError, with file and line, for YAML that goes beyond: anchors, tags, blocks of text, deeper nesting.
    """
    text = read_text(path, limit_bytes=_MOST_BYTES)
    found: dict[str, Value] = {}
    key = ""
    lines = enumerate(text.splitlines(), start=1)
    for number, line in lines:
        try:
            bare = _without_comment(line)
            if not bare.strip() or bare.strip() in ("---", "..."):
                continue
            while _is_open(bare):  # a list in brackets over several lines
                bare += " " + _without_comment(next(lines, (0, "]"))[1]).strip()
            if bare[0] not in " \t-":
                key, value = _pair(bare)
                found[key] = _value(value)
            else:
                _add_(found, key, bare.strip())
        except ValueError as error:
            raise DataError(f"{printable(path)}, line {number}: {error}; write it as plain YAML") from error
    return found


def _add_(found: dict[str, Value], key: str, line: str) -> None:
    """Add an indented line to the list or mapping of a key."""
    before = found.get(key)
    if line == "-" or line.startswith("- "):
        before = [] if before == "" else before
        if not isinstance(before, list):
            raise ValueError("a list must follow a key without a value")
        before.append(_text(line[1:].strip()))
        found[key] = before
        return
    before = {} if before == "" else before
    if not isinstance(before, dict):
        raise ValueError("lines that are indented must follow a key without a value")
    name, value = _pair(line)
    before[name] = _text(value)
    found[key] = before


def _pair(line: str) -> tuple[str, str]:
    match = _KEY.fullmatch(line.strip())
    if match is None:
        raise ValueError(f'it must be of the form "key: value"; got {brief(line.strip())}')
    return match[1] or match[2] or (match[3] or "").strip(), match[4].strip()


def _value(text: str) -> Value:
    if text.startswith("["):
        return [_text(item) for item in _items(text, "]")]
    if text.startswith("{"):
        return {key: _text(value) for key, value in (_pair(item) for item in _items(text, "}"))}
    return _text(text)


def _items(text: str, end: str) -> list[str]:
    """Return the items of a list or mapping in brackets."""
    if not text.endswith(end):
        raise ValueError(f"a list in brackets must end with {end}; got {brief(text)}")
    items, quote, closed, start, inner = [], "", -2, 0, text[1:-1]
    for place, character in enumerate(inner):
        if quote:
            quote, closed = ("", place) if character == quote else (quote, closed)
        elif character == "'" and closed == place - 1 and inner[closed] == "'":
            quote = character  # '' is a quote within quotes
        elif character in "\"'" and not inner[start:place].strip():
            quote = character
        elif character == ",":
            items.append(inner[start:place].strip())
            start = place + 1
    items.append(inner[start:].strip())
    if len(items) > _MOST_NAMES:
        raise ValueError(f"a list must have at most {_MOST_NAMES:,} items")
    return items if items[-1] else items[:-1]


def _text(text: str) -> str:
    """Return a scalar without its quotes."""
    if text[:1] in ("'", '"'):
        if len(text) < 2 or text[-1] != text[0]:
            raise ValueError(f"text must end with the quote that it begins with; got {brief(text)}")
        return text[1:-1].replace("''", "'") if text[0] == "'" else text[1:-1]
    if text[:1] in ("&", "*", "!", "|", ">", "[", "{"):
        raise ValueError(f"a value must be plain text here; got {brief(text)}")
    return text


def _without_comment(line: str) -> str:
    quote, closed = "", -2
    for place, character in enumerate(line):
        if quote:
            quote, closed = ("", place) if character == quote else (quote, closed)
        elif character == "'" and closed == place - 1 and line[closed] == "'":
            quote = character  # '' is a quote within quotes
        elif character in "\"'" and line[:place].rstrip()[-1:] in ("", ":", "[", ",", "{", "-"):
            quote = character
        elif character == "#" and (place == 0 or line[place - 1] in " \t"):
            return line[:place].rstrip()
    return line.rstrip()


def _is_open(line: str) -> bool:
    value = line.partition(":")[2].strip()
    return (value.startswith("[") and "]" not in value) or (value.startswith("{") and "}" not in value)
