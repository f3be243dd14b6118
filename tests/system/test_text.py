"""Untrusted text: characters with an effect in a terminal, a message or a spreadsheet are escaped."""

import json
import os

import pytest

from effnet.system.text import brief, cell, harmless, harmless_json, printable, reason_of

# Colours, the window title, a line end, a C1 control sequence, the right-to-left override, a line separator.
NASTY = "a\x1b[31mb\x1b]0;owned\x07c\nd\x9b1me\u202egnp.f\u2028g\udcff"


def test_printable_keeps_letters_and_escapes_the_rest() -> None:
    assert printable("Æble/猫 1.jpg") == "Æble/猫 1.jpg"
    assert printable("a\nb\x1b[0m") == "a\\nb\\x1b[0m"
    printable(os.fsdecode(b"\xff.jpg")).encode("utf-8")
    assert printable(NASTY).isprintable()


def test_lines_keep_their_ends_and_nothing_else_that_acts() -> None:
    assert harmless("5\xa0ms\n猫 क्‍ष 👨‍👩‍👧") == "5\xa0ms\n猫 क्‍ष 👨‍👩‍👧"
    shown = harmless(NASTY)
    assert shown.count("\n") == 1
    assert all(character == "\n" or character.isprintable() for character in shown)


def test_json_says_the_same_without_a_control_character() -> None:
    text = harmless_json(json.dumps({NASTY: ["é", NASTY]}, ensure_ascii=False, indent=1))
    assert json.loads(text) == {NASTY: ["é", NASTY]}
    assert "é" in text
    assert all(character == "\n" or character.isprintable() for character in text)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\uff1d1", " =1", "\n=1"])
def test_a_cell_is_no_formula(text: str) -> None:
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["cat", "a=b", "1-2", "new\nline.png", "é 😀.png", ""])
def test_any_other_cell_is_as_it_was(text: str) -> None:
    assert cell(text) == text


def test_a_cell_begins_with_no_tab_and_holds_no_escape() -> None:
    assert cell("\t=1") == "\\t=1"
    assert "\x1b" not in cell(NASTY)


def test_brief_is_short_and_never_fails() -> None:
    assert brief("é") == "'é'"
    assert len(brief("9" * 10**6)) == 80
    assert brief(10**5000) == "a value of the type int"


def test_a_reason_is_one_line_without_the_path() -> None:
    assert reason_of(OSError(2, "No such file", "/secret")) == "No such file"
    assert reason_of(ValueError("a\nb")) == "a\\nb"
    assert reason_of(ValueError()) == "ValueError"
