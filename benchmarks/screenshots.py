"""Draw the images of the README and docs/ from a real fit: `python -m benchmarks.screenshots`.

docs/images/report.png is the first part of its report in a browser, docs/images/terminal.svg what it printed. With
--bundle and --output a finished fit and its output are drawn, without another fit. Chromium must be on the path.
"""

import argparse
import io
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import ROOT

IMAGES = ROOT / "docs" / "images"
COMMAND = ("fit", "digits", "--max-latency-ms", "1", "--max-size-mb", "2", "--minutes", "5", "--out", "model/")
_WIDTH, _HEIGHT, _COLOURS = 1280, 745, 64
_COLUMNS = 110
# The lines of the output that the terminal shows: those up to the counts of the splits, and those after training.
_FIRST, _LAST_BEGIN = 2, "Trained"


def shoot_report(page: Path, out: Path) -> None:
    """Write the first part of a report, as a browser shows it, as a PNG of few colours."""
    from PIL import Image

    browser = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)
    if browser is None:
        raise SystemExit("chromium must be on the path; it is not: install it")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}/user")
        size = f"--window-size={_WIDTH},{_HEIGHT}"
        command = [browser, *options, size, f"--screenshot={shot}", page.absolute().as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        with Image.open(shot) as image:
            image.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(out, optimize=True)


def shown_lines(output: str) -> list[str]:
    """Return the lines of a fit's output that say what was read and what came of it."""
    lines = [line.rstrip() for line in output.splitlines()]
    first = [line for line in lines if line][:_FIRST]
    last = next(i for i, line in reversed(list(enumerate(lines))) if line.startswith(_LAST_BEGIN))
    return [*first, "[...]", *lines[last:]]


def draw_terminal(output: str, out: Path) -> None:
    """Write the command and its output as an SVG of a terminal."""
    from rich.console import Console

    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), highlight=False, emoji=False, markup=False)
    console.print(f"$ effnet {' '.join(COMMAND)}", style="bold")
    for line in shown_lines(output):
        console.print(line, style="dim" if line == "[...]" else None)
    # The font is that of the reader: the one that rich names is a download.
    text = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="effnet"), flags=re.DOTALL)
    out.write_text(text.replace("Fira Code", "monospace"), encoding="utf-8")


def main() -> None:
    """Fit, unless a finished fit is given, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="folder of a finished fit")
    parser.add_argument("--output", type=Path, help="file of what the fit printed")
    args = parser.parse_args()
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        bundle, output = args.bundle, args.output.read_text(encoding="utf-8") if args.output else ""
        if bundle is None:
            done = subprocess.run(
                [sys.executable, "-m", "effnet", *COMMAND], cwd=folder, capture_output=True, text=True, check=True
            )
            bundle, output = Path(folder) / "model", done.stdout
        shoot_report(bundle / "report.html", IMAGES / "report.png")
        draw_terminal(output, IMAGES / "terminal.svg")


if __name__ == "__main__":
    main()
