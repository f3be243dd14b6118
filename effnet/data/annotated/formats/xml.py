"""Read small untrusted XML files as trees with line numbers: no entities, no files from elsewhere, any encoding."""

import codecs
import re
from dataclasses import dataclass, field
from xml.parsers import expat

from effnet.data.annotated.formats.text import read_limited
from effnet.errors import DataError
from effnet.system.text import brief, printable

# An annotation of 10,000 objects has 5 MB.
_MOST_BYTES, _DEEPEST = 32 * 10**6, 50
_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._:-]{1,40})["']""")
# Python calls these text encodings too.
_NO_ENCODINGS = frozenset({"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape"})


@dataclass(slots=True)
class Element:
    """An element: its tag, the text before its first child, its children in order, and the line where it begins."""

    tag: str
    line: int
    text: str = ""
    children: list["Element"] = field(default_factory=list)

    def all(self, tag: str) -> list["Element"]:
        """Return the children of this tag."""
        return [child for child in self.children if child.tag == tag]

    def find(self, tag: str) -> "Element | None":
        """Return the first child of this tag."""
        return next((child for child in self.children if child.tag == tag), None)

    def text_of(self, tag: str) -> str:
        """Return the text of the first child of this tag, without blanks at its ends; empty if there is none."""
        child = self.find(tag)
        return "" if child is None else child.text.strip()


def read_xml(path: str) -> Element:
    """Return the root of an XML file; raise DataError, which names the file and the line, if it cannot be read."""
    return _Tree(path).read(_decoded(read_limited(path, limit_bytes=_MOST_BYTES), path))


def _decoded(data: bytes, path: str) -> str:
    encoding = next((name for bom, name in _BOMS if data.startswith(bom)), "")
    if not encoding:
        declared = _DECLARED.match(data[:500])
        encoding = declared[1].decode("ascii") if declared else "utf-8"
        if b"\0" in data[:4]:  # UTF-16 without a mark
            encoding = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
    try:
        name = codecs.lookup(encoding).name
        if name.replace("-", "_") in _NO_ENCODINGS:
            raise LookupError
        return data.decode(name)
    except LookupError:
        raise DataError(
            f"{printable(path)}, line 1: the encoding must be one that Python reads; got {brief(encoding)}. "
            "Save it as UTF-8"
        ) from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{printable(path)}, line {line}: it must be text in its encoding, {encoding}; got the byte "
            f"0x{data[error.start]:02x}. Save it as UTF-8, or declare its encoding in its first line"
        ) from error


class _Tree:
    """The state of reading one file."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.open = [Element(tag="", line=0)]
        self.parser = parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self.start
        parser.EndElementHandler = self.end
        parser.CharacterDataHandler = self.characters
        # Entities that name each other grow without bound, and others read files.
        parser.EntityDeclHandler = self.refuse
        parser.ExternalEntityRefHandler = self.refuse
        parser.SkippedEntityHandler = self.refuse

    def read(self, text: str) -> Element:
        try:
            self.parser.Parse(text, True)
        except expat.ExpatError as error:
            raise DataError(
                f"{printable(self.path)}, line {error.lineno}: not valid XML ({expat.ErrorString(error.code)})"
            ) from error
        except UnicodeEncodeError as error:  # a lone surrogate, as some encodings allow
            raise DataError(f"{printable(self.path)}: it must be text ({error.reason})") from error
        return self.open[0].children[0]

    def start(self, tag: str, _attributes: dict[str, str]) -> None:
        element = Element(tag=tag, line=self.parser.CurrentLineNumber)
        if len(self.open) > _DEEPEST:
            raise DataError(f"{printable(self.path)}, line {element.line}: it is nested too deeply")
        self.open[-1].children.append(element)
        self.open.append(element)

    def end(self, _tag: str) -> None:
        self.open.pop()

    def characters(self, text: str) -> None:
        element = self.open[-1]
        if not element.children:
            element.text += text

    def refuse(self, *_: object) -> int:
        raise DataError(
            f"{printable(self.path)}, line {self.parser.CurrentLineNumber}: an annotation must not define or use "
            "entities of its own; remove its DOCTYPE"
        )
