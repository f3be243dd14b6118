import re
import subprocess
from pathlib import Path

import pytest

from benchmarks.readme import PARTS, generate

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TREE = (ROOT / "docs" / "internals" / "index.md").read_text(encoding="utf-8")


def tree():
    """Return the paths of the annotated tree, folders with a slash at their end."""
    block = TREE.split("## The tree")[1].split("```")[1].strip("\n")
    paths, parents = set(), []
    for line in block.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        parents[depth:] = [name.rstrip("/")]
        paths.add("/".join(parents) + ("/" if name.endswith("/") else ""))
    return paths


def tracked():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.splitlines() if not name.startswith(".")]


def test_everything_in_the_tree_is_on_the_disk():
    for path in tree():
        assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file(), path


def test_every_folder_of_the_project_is_in_the_tree():
    top = {name.split("/")[0] + "/" for name in tracked() if "/" in name}
    packages = {"/".join(name.split("/")[:2]) + "/" for name in tracked() if re.match(r"effnet/\w+/", name)}
    assert top | packages <= tree()


def test_the_folder_shown_with_its_files_is_shown_with_all_of_them():
    files = {name for name in tracked() if re.fullmatch(r"effnet/arch/\w+\.py", name) and "__init__" not in name}
    assert files <= tree()


@pytest.mark.parametrize("name", PARTS)
def test_the_generated_parts_are_up_to_date(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert generate(name, text) == text, "run python -m benchmarks.readme"


def test_the_readme_is_one_page():
    assert len(README.splitlines()) <= 150
