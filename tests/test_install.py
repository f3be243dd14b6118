"""The device install: a fresh environment with `pip install .` alone."""

import json
import os
import shutil
import subprocess
import sys
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
