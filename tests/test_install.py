"""The device install: a fresh environment with `pip install .` alone."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NO_INDEX = ("NewConnectionError", "ConnectTimeout", "Temporary failure in name resolution", "ProxyError")


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    """Return a runner of programs of an environment where effnet is installed as on a device."""
    folder = tmp_path_factory.mktemp("install")
    # A copy, because a build leaves its files beside the sources.
    source = shutil.copytree(
        ROOT / "effnet", folder / "source" / "effnet", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE", "constraints.txt"):
        shutil.copy(ROOT / name, source.parent / name)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    programs = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    pip = [str(programs / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-compile"]
    done = subprocess.run(
        [*pip, "-c", "constraints.txt", "."], cwd=source.parent, capture_output=True, text=True, check=False
    )
    if done.returncode and any(sign in done.stderr for sign in NO_INDEX):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr

    def run(program, *words):
        command = [str(programs / program), *map(str, words)]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    return run


def works(done):
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_workshop_is_not_installed(device):
    found = {row["name"] for row in json.loads(works(device("python", "-m", "pip", "list", "--format", "json")))}
    assert {"effnet", "numpy", "pillow", "onnxruntime", "typer", "rich"} <= {name.lower() for name in found}
    assert not {"torch", "onnx", "scikit-learn", "scipy", "safetensors", "matplotlib"} & found


def test_networks_as_data_work(device, tmp_path):
    assert "Usage: effnet" in works(device("effnet", "--help"))
    assert " b0 " in works(device("effnet", "models", "list"))
    assert "stem.conv" in works(device("effnet", "models", "show", "b0", "--layers"))
    assert "5,288,548" in works(device("effnet", "models", "cost", "b0"))
    works(device("effnet", "models", "scale", "b0", "--max-macs", "100M", "--out", tmp_path / "small.json"))
    works(device("effnet", "models", "cost", tmp_path / "small.json"))


def test_a_bundle_works(device, small_bundle, tiny_images):
    found = json.loads(works(device("effnet", "predict", small_bundle, tiny_images, "--format", "json")))
    assert len(found) == 60
    assert "images/s" in works(device("effnet", "bench", small_bundle, "--batch", 1))
    code = "import effnet, sys; print(effnet.load(sys.argv[1]).predict(sys.argv[2:])[0].label)"
    assert works(device("python", "-c", code, small_bundle, tiny_images / "dark" / "00.png")).strip().isdigit()


def test_images_can_be_inspected(device, tiny_images):
    assert "60 images, 3 classes" in works(device("effnet", "data", "inspect", tiny_images))


@pytest.mark.parametrize("verb", ["fit", "train"])
def test_training_says_in_one_line_what_to_install(verb, device):
    done = device("effnet", verb, "digits")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].endswith('which is not installed; install it with: pip install "effnet[train]"')


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The names of the files in the wheel that this source tree gives."""
    folder = tmp_path_factory.mktemp("wheel")
    source = shutil.copytree(
        ROOT / "effnet", folder / "source" / "effnet", ignore=shutil.ignore_patterns("__pycache__")
    )
    # What must stay outside lies beside the package, as in the repository.
    for name in ("tests", "benchmarks", "docs"):
        (source.parent / name).mkdir()
        (source.parent / name / "__init__.py").touch()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source.parent / name)
    words = ["wheel", "--disable-pip-version-check", "--quiet", "--no-deps", "--wheel-dir", str(folder), "."]
    done = subprocess.run([sys.executable, "-m", "pip", *words], cwd=source.parent, capture_output=True, text=True)
    if done.returncode and any(sign in done.stderr for sign in NO_INDEX):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_holds_the_package_with_its_data_and_nothing_else(wheel):
    assert {name.split("/")[0].split("-")[0] for name in wheel} == {"effnet"}
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "effnet").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in wheel if name.startswith("effnet/")} == sources
    assert {"effnet/py.typed", "effnet/weights/data/timm.csv"} <= set(wheel)
    assert any(name.endswith(".c") for name in wheel)
    assert any(name.endswith(".j2") for name in wheel)


def test_the_wheel_describes_itself(wheel):
    (metadata,) = (text.decode() for name, text in wheel.items() if name.endswith("/METADATA"))
    assert "Description-Content-Type: text/markdown" in metadata
    assert "License-Expression: Apache-2.0" in metadata
    assert any(name.endswith("/licenses/LICENSE") for name in wheel)


def test_the_citation_has_the_version_of_the_package():
    import yaml

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    built = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (cited["version"], cited["license"]) == (built["version"], built["license"])
