"""What the script of the documentation's images takes from a fit's output."""

from benchmarks.screenshots import draw_terminal, shown_lines

OUTPUT = "\nReading digits\ndigits: 4 images\nmuch more\nTrained from scratch\nTest accuracy 98.51%\n"


def test_the_beginning_and_the_end_of_the_output_are_shown():
    expected = ["Reading digits", "digits: 4 images", "[...]", "Trained from scratch", "Test accuracy 98.51%"]
    assert shown_lines(OUTPUT) == expected


def test_the_terminal_is_drawn_without_a_download(tmp_path):
    draw_terminal(OUTPUT, tmp_path / "terminal.svg")
    text = (tmp_path / "terminal.svg").read_text(encoding="utf-8")
    assert "98.51%" in text
    assert "url(http" not in text
    assert "@font-face" not in text
