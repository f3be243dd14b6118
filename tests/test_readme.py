import re
import subprocess
from pathlib import Path

import pytest

import effnet
from benchmarks.readme import generate

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def tree():
    """Return the paths of the annotated tree, folders with a slash at their end."""
    block = README.split("## The tree")[1].split("```")[1].strip("\n")
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


def test_the_generated_parts_are_up_to_date():
    assert generate(README) == README, "run python -m benchmarks.readme"


def test_names_in_the_python_example_exist():
    code = README.split("```python")[1].split("```")[0]
    compile(code, "README.md", "exec")
    for name in re.findall(r"effnet\.(\w+)", code):
        assert name in effnet.__all__
    assert len(code.strip().splitlines()) <= 15


def test_verbs_and_options_in_the_readme_exist():
    from typer.main import get_command

    from effnet.cli.main import app

    commands = get_command(app).commands
    texts = (README, *(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))))
    for line in re.findall(r"^    effnet (.+)$", "\n".join(texts), re.MULTILINE):
        verb, *words = line.split()
        command = commands[verb]
        if subverbs := getattr(command, "commands", None):
            command = subverbs[words.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


def test_every_image_in_the_readme_is_there():
    for path in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / path).is_file(), path
