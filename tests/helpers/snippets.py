"""The commands and Python snippets of the README and of docs/, and what keeps a block from being run."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block of a page; `not_run` is the reason why it is not run, if it is not."""

    page: str
    line: int
    language: str
    text: str
    not_run: str

    def commands(self) -> list[list[str]]:
        """Return the words of the block's commands; those of a console block follow a dollar sign."""
        lines = self.text.splitlines()
        if self.language == "console":
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks(path: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    page, reason, inside = path.relative_to(ROOT).as_posix(), "", None
    start, body = 0, []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if inside is not None:
            if line.strip() == "```":
                yield Block(page=page, line=start, language=inside, text="\n".join(body), not_run=reason)
                inside, reason = None, ""
            else:
                body.append(line)
        elif line.startswith("```"):
            inside, start, body = line[3:].strip(), number, []
        elif found := _NOT_RUN.fullmatch(line.strip()):
            reason = found[1]
        elif line.strip():
            reason = ""
