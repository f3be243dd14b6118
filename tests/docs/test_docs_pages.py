"""The README and the pages of docs/: every command and every Python snippet is run, or says why it is not."""

import ast
import re
import shutil
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated_sets import write_coins, write_terrain
from dense_bundles import write_detector, write_segmenter
from PIL import Image
from snippets import PAGES, ROOT, Block, blocks

import effnet
from effnet.tasks.boxes.points import decode_points, points

BLOCKS = [block for path in PAGES for block in blocks(path)]
RUN = [block for block in BLOCKS if block.language in ("sh", "python") and not block.not_run]
# Languages of blocks in which there is nothing to run.
SHOWN = {"", "text", "json", "console"}
# Programs beside effnet that a block which is not run may begin with.
OTHERS = {"pip", "torchrun", "make", "git", "cd", "curl", "docker", "kubectl"}


@pytest.fixture(scope="module")
def place(tmp_path_factory, small_bundle):
    """The folder in which a reader of the pages works: bundles, photographs, annotated images, a checkpoint."""
    import torch
    from sklearn.datasets import load_digits

    from effnet.bundle.weights import state_arrays
    from effnet.weights.schemes import from_effnet

    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(small_bundle, folder / "model")
    write_coins(folder / "coins", images=12)
    write_terrain(folder / "terrain", images=12)
    write_detector(folder / "detector")
    write_segmenter(folder / "segmenter")
    digits, rng = load_digits(), np.random.default_rng(0)
    for name, wanted in (("photos", range(10)), ("pet-photos", (0, 1)), ("other-photos", (2,)), ("more", (3,))):
        for number in wanted:
            label = ("cat", "dog")[number] if name == "pet-photos" else str(number)
            (folder / name / label).mkdir(parents=True)
            for i, pixels in enumerate(digits.images[digits.target == number][:12]):
                Image.fromarray(np.uint8(pixels * 15)).resize((16, 16)).save(folder / name / label / f"{i}.png")
    for name in ("cat.jpg", "a.jpg", "b.jpg", "d.png"):
        Image.fromarray(rng.integers(0, 256, (40, 50), dtype=np.uint8)).save(folder / name)
    network = effnet.create_model("lite0", num_classes=2)
    state = from_effnet(state_arrays(network), network.spec, scheme="timm")
    saved = {"state_dict": {name: torch.from_numpy(array.copy()) for name, array in state.items()}}
    torch.save(saved | {"arch": "tf_efficientnet_lite0"}, folder / "model_best.pth.tar")
    (folder / "names.txt").write_text("cat\ndog\n")
    return folder


def _of_page(page: str) -> list[Block]:
    return [block for block in RUN if block.page == page]


def _pages() -> Iterator[Any]:
    """Yield the pages with something to run; a change needs the README alone."""
    for page in sorted({block.page for block in RUN}):
        yield pytest.param(page, marks=[] if page == "README.md" else pytest.mark.elsewhere)


@pytest.mark.parametrize("page", list(_pages()))
@pytest.mark.usefixtures("weights_of_packages", "one_thread")
def test_the_commands_and_snippets_of_a_page_work(page, place, run_cli, monkeypatch):
    monkeypatch.chdir(place)
    # A page writes where no other page has written before.
    before = set(place.iterdir())
    module = types.ModuleType("page")
    try:
        for block in _of_page(page):
            if block.language == "python":
                exec(compile(block.text, f"{page}:{block.line}", "exec"), module.__dict__)
                continue
            for program, *words in block.commands():
                assert program == "effnet", f"{page}:{block.line}: {program} needs the reason why it is not run"
                ran = run_cli(*words)
                assert ran.code == 0, (f"{page}:{block.line}", words, ran)
    finally:
        for path in set(place.iterdir()) - before:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("page", sorted({block.page for block in BLOCKS}))
def test_every_block_is_known_and_every_command_is_parsed(page):
    for block in (block for block in BLOCKS if block.page == page):
        where = f"{page}:{block.line}"
        assert block.language in {"sh", "python", *SHOWN}, where
        if block.language == "python":
            names = {n.attr for n in ast.walk(ast.parse(block.text)) if _is_of_effnet(n)}
            assert names <= {*effnet.__all__, "weights"}, where
        elif block.language in ("sh", "console"):
            for program, *words in block.commands():
                if program == "effnet":
                    _parse(words, where)
                else:
                    assert program in OTHERS, where


def _is_of_effnet(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "effnet"


def _parse(words: list[str], where: str) -> None:
    """Parse the words of a command, which checks its options and the types of their values."""
    from typer.main import get_command

    from effnet.cli.main import app

    command, path = get_command(app), []
    while hasattr(command, "commands"):
        assert words, where
        assert words[0] in command.commands, f"{where}: there is no {' '.join([*path, words[0]])}"
        path.append(words[0])
        command, words = command.commands[words[0]], words[1:]
    command.make_context(" ".join(path), list(words))


def test_no_command_stands_outside_a_fence():
    for path in PAGES:
        assert not re.search(r"^    effnet ", path.read_text(encoding="utf-8"), re.MULTILINE), path


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_and_image_leads_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        found = (path.parent / name).resolve() if name else path
        assert found.is_file(), f"{path}: {target}"
        if anchor:
            assert anchor in _anchors(found), f"{path}: {target}"


def _anchors(path: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_every_page_is_in_the_navigation():
    def pages(nav):
        for entry in nav:
            for target in entry.values():
                yield from [target] if isinstance(target, str) else pages(target)

    config = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    listed = list(pages(config["project"]["nav"]))
    assert sorted(listed) == sorted(path.relative_to(ROOT / "docs").as_posix() for path in PAGES[1:])


def test_the_fields_of_the_report_are_there(small_bundle):
    import json

    report = json.loads((small_bundle / "report.json").read_text(encoding="utf-8"))
    rows = re.findall(r"^\| (`.+?) \|", (ROOT / "docs/reference/report.md").read_text(encoding="utf-8"), re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert len(names) > 10
    assert set(names) <= report.keys()


def test_every_public_name_is_in_the_reference():
    text = (ROOT / "docs/reference/python.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\w+)$", text, re.MULTILINE) == effnet.__all__


def test_the_decoding_of_the_page_is_effnets():
    """Of an input whose sides are no multiples of the strides, so that cells are not square."""
    page = ROOT / "docs" / "reference" / "boxes-and-masks.md"
    (block,) = [block for block in BLOCKS if block.page.endswith(page.name) and block.language == "python"]
    found: dict[str, Any] = {}
    exec(compile(block.text, str(page), "exec"), found)
    every = points(100, 168)
    raw = np.random.default_rng(0).normal(0, 2, (len(every), 4))
    expected = decode_points(raw, every.centres, every.strides)
    np.testing.assert_allclose(found["decode"](raw, 100, 168), expected, rtol=1e-5, atol=1e-4)
