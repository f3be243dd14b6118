"""The project speaks the field's words: those of the table in CONTRIBUTING.md must not come back.

Read as text alone, without importing effnet: strings and docstrings of Python files, templates and Markdown.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Pattern -> the words to use instead. Image data may have "16 bits": only weights, files and networks may not.
BANNED = {
    r"\bpictures?\b": "image",
    r"\bfewer bits\b": "quantized, lower precision",
    r"\b(?:to|towards|against|in|at) (?:8|32) bits\b": "int8, fp32",
    r"\b(?:8|32)-bit (?:file|network|model|weights|export|original|artifact|one|logits|answers?)\b": "int8, fp32",
    r"\bweights (?:alone )?in (?:8|16) bits\b": "weight-only int8, fp16",
    r"\bpass(?:es)? over (?:the |all )?(?:training |data|images)": "epochs",
    r"\banew\b": "again, re-measured, recomputed",
    r"\bat hand\b": "available, present",
    r"\b(?:can|could|cannot|to) be had\b": "is available",
    r"\b(?:by|in|of|with|so) so many\b|\bso many\b": "the number",
    r"\b(?:is|are|was|were|be) told\b": "is given, is reported",
    r"\bhears\b": "gets",
    r"\basked for\b": "requested",
    r"\bneighbours? (?:disturb|on the machine|who)|\b(?:noisy|busy) neighbours?\b": "background load",
    r"\bcalm(?:est|er)?\b": "quiet, fastest",
    r"\b(?:keeps?|kept|breaks?|broke|honou?rs?|honou?red) (?:the|its|a|every|each|all|no) budgets?\b": "meets, exceeds",
    r"\bstands? in for\b|\bstand-?ins?\b": "replacement",
    r"\bhow sure\b|\bsureness\b|\bsure enough\b": "confidence, calibration",
    r"\bknows the classes\b": "already trained on these classes",
    r"\ba head is solved\b|\bsolved anew\b": "linear probe; re-fitted",
    r"\bthe norms\b|\bnorms' ": "BatchNorm",
}  # fmt: skip
WORDS = [(re.compile(pattern.replace(" ", r"\s+"), re.IGNORECASE), better) for pattern, better in BANNED.items()]

PACKAGES = sorted(path.name for path in (ROOT / "effnet").iterdir() if path.is_dir() and any(path.glob("**/*.py")))
PLACES = {
    **{f"effnet/{name}": ("**/*.py", "**/*.j2") for name in PACKAGES},
    "effnet": ("*.py",),
    "benchmarks": ("**/*.py",),
    "examples": ("**/*.py",),
    "docs": ("**/*.md",),
    ".": ("README.md", "CONTRIBUTING.md", "SECURITY.md"),
}


def banned(text: str) -> list[tuple[int, str, str]]:
    """Return the banned words of a text: the line, from 0, the word, and the words to use instead."""
    return [(text.count("\n", 0, m.start()), m[0], better) for word, better in WORDS for m in word.finditer(text)]


def strings(source: str) -> Iterator[tuple[int, str]]:
    """Yield the lines and texts of the string literals that are sentences, not keys or identifiers."""
    parts: set[int] = set()
    for node in ast.walk(ast.parse(source)):  # an f-string comes before its parts
        if isinstance(node, ast.JoinedStr):
            parts |= set(map(id, node.values))
            text = "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            text = node.value
        else:
            continue
        if re.search(r"\w\W*\s+\W*\w", text):
            yield node.lineno, text


def prose(page: str) -> str:
    """Return a Markdown page or a template, line by line, without code, tags and the table of words to avoid."""
    lines, code, table = [], False, False
    for line in page.splitlines():
        fence = line.lstrip().startswith("```")
        code ^= fence
        table = line.startswith("| not | but |") or (table and line.startswith("|"))
        lines.append("" if code or fence or table else re.sub(r"`[^`]*`|{%.*?%}|{{.*?}}|{#.*?#}|<[^>]*>", "", line))
    return "\n".join(lines)


def found(path: Path) -> list[str]:
    """Return the places in a file that use a banned word."""
    text = path.read_text(encoding="utf-8")
    texts = strings(text) if path.suffix == ".py" else [(1, prose(text))]
    return [
        f"{path.relative_to(ROOT)}:{start + line}: {' '.join(word.split())!r} -> {better}"
        for start, sentence in texts
        for line, word, better in banned(sentence)
    ]


@pytest.mark.parametrize("folder", PLACES)
def test_a_folder_uses_the_fields_words(folder):
    paths = sorted(path for pattern in PLACES[folder] for path in (ROOT / folder).glob(pattern))
    assert paths
    lines = [line for path in paths for line in found(path)]
    assert not lines, "\n".join(["CONTRIBUTING.md has better words for:", *lines])


def test_banned_words_are_found_in_sentences_and_not_in_keys_code_or_image_data():
    assert [(line, word) for line, word, _ in banned("trains pictures\nanew, so\nmany")] == [
        (0, "pictures"),
        (1, "anew"),
        (1, "so\nmany"),
    ]
    assert banned("lost against 32 bits")
    assert not banned("TIFF images of 16 bits; 12 bits of a pixel; 32-bit integers; 8-bit images")
    code = 'x = {"so_many": f"it is {y} told"}\ny = "told"\ndef f():\n    """Hears."""\nz = "hears it"'
    assert sorted(strings(code)) == [(1, "it is {} told"), (5, "hears it")]
    assert prose("```\nanew\n```\n`anew` | x\n| not | but |\n| anew | again |\nend") == "\n\n\n | x\n\n\nend"
