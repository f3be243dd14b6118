"""Every verb on a device, where only the base install is, and with one package missing: it works, or names the extra.

Each case is a fork of one process that has loaded what any install has, so that a case takes milliseconds.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import captioned
import pytest
from bundles import make_bundle
from verbs import verbs

from effnet.errors import PACKAGES
from effnet.runtimes.registry import RUNTIMES

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="cases are forks")

PYPROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
# The message of each verb for a missing package, if all optional ones are absent; the others work.
NEEDS = {
    "fit": "train", "train": "train", "search": "train", "export": "train", "prune": "train", "quantize": "train",
    "align": "train", "zeroshot": "train", "suggest": "train", "pretrain": "train",
    "profile": "profile", "serve": "serve",
    "models pull": "train", "models import": "train", "models convert": "train", "data inspect hf:mnist": "hf",
    "data inspect digits": "train", "data inspect ct": "medical", "data inspect sounds": "audio",
}  # fmt: skip

_PROGRAM = """
import io, json, os, sys, traceback
import numpy, onnxruntime, PIL.Image, rich.console, rich.table, typer
from effnet.cli.main import main

class Trap:
    def __init__(self, blocked):
        self.blocked = blocked
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

def one(words, blocked, out):
    sys.meta_path.insert(0, Trap(set(blocked)))
    sys.stdout = sys.stderr = io.TextIOWrapper(open(out, "wb"), encoding="utf-8")
    sys.argv = ["effnet", *words]
    try:
        main()
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        traceback.print_exc()
        code = 70
    sys.stdout.flush()
    os._exit(code)

results = []
for words, blocked, out in json.load(sys.stdin):
    child = os.fork()
    if not child:
        one(words, blocked, out)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    results.append([code, open(out, encoding="utf-8").read()])
print(json.dumps(results))
"""


@pytest.fixture
def run_without(tmp_path) -> Callable[[list[tuple[list[str], list[str]]]], list[tuple[int, str]]]:
    """Return a runner of command lines, each without some packages: exit codes, with all that was printed."""

    def run(cases):
        places = [[[*map(str, words)], blocked, str(tmp_path / f"{i}.out")] for i, (words, blocked) in enumerate(cases)]
        command = [sys.executable, "-W", "ignore", "-c", _PROGRAM]
        done = subprocess.run(
            command, input=json.dumps(places), capture_output=True, text=True, cwd=tmp_path, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def cases(tmp_path, tiny_images, lite0_file) -> dict[str, list[str]]:
    """A command line of every verb."""
    bundle = make_bundle(tmp_path / "bundle", class_names=("dark", "light", "middle"))
    plain = shutil.copytree(bundle, tmp_path / "old")
    out, data = tmp_path / "new", tiny_images
    for name, start in (("ct/{}/{}.dcm", bytes(128) + b"DICM"), ("sounds/{}/{}.wav", b"RIFF\0\0\0\0WAVE")):
        for number in range(8):  # no more is read without the packages
            path = tmp_path / name.format(number % 2, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(start + bytes([number]) * 300)
    rows = [(str(path), "a red shirt") for path in sorted(data.rglob("*.png"))]
    captions = captioned.write_rows(tmp_path / "captions.csv", rows, header=("path", "title"))
    glove = captioned.write_glove(tmp_path / "glove.txt")
    return {
        "fit": ["fit", data, "--out", out],
        "train": ["train", data, "--out", out],
        "search": ["search", data, "--max-latency-ms", "5", "--out", out],
        "runs list": ["runs", "list", tmp_path],
        "runs compare": ["runs", "compare", tmp_path],
        "predict": ["predict", bundle, data / "dark"],
        "embed": ["embed", bundle, data / "dark", "--out", tmp_path / "vectors.npz"],
        "align": ["align", captions, "--text", "title", "--words", glove, "--weights", bundle, "--out", out],
        "zeroshot": ["zeroshot", bundle, "red,blue", "--out", out],
        "find": ["find", bundle, data / "dark", "--image", next((data / "dark").glob("*.png"))],
        "suggest": ["suggest", data, "--weights", bundle, "--n", "1"],
        "pretrain": ["pretrain", data, "--weights", bundle, "--epochs", "1", "--out", out],
        "explain": ["explain", bundle, data / "dark"],
        "evaluate": ["evaluate", bundle, data, "--unknown-from", data / "dark"],
        "monitor": ["monitor", bundle, data / "dark", "--reference", data],
        "export": ["export", bundle],
        "bench": ["bench", bundle, "--batch", "1"],
        "serve": ["serve", bundle, "--port", "0"],
        "watch": ["watch", data / "dark", "--model", bundle],
        "profile": ["profile", "--out", tmp_path / "device.json"],
        "prune": ["prune", bundle, data, "--out", out],
        "quantize": ["quantize", plain, data],
        "data inspect": ["data", "inspect", data],
        "data inspect hf:mnist": ["data", "inspect", "hf:mnist"],
        "data inspect digits": ["data", "inspect", "digits"],
        "data inspect ct": ["data", "inspect", tmp_path / "ct"],
        "data inspect sounds": ["data", "inspect", tmp_path / "sounds"],
        "data shard": ["data", "shard", data, tmp_path / "shards"],
        "models list": ["models", "list"],
        "models show": ["models", "show", bundle],
        "models cost": ["models", "cost", bundle],
        "models scale": ["models", "scale", "b0", "--phi", "-2"],
        "recipes": ["recipes", "imagenet_v2"],
        "models pull": ["models", "pull", "timm/tf_efficientnet_lite0.in1k", "--offline"],
        "models import": ["models", "import", lite0_file, "--classes", "imagenet", "--out", out],
        "models convert": ["models", "convert", bundle, "--to", "timm", "--out", out],
    }


def names_what_brings_it(text: str, extra: str = "") -> None:
    """Check that a refusal is one line whose extra contains the missing package."""
    (line,) = text.splitlines()
    found = re.fullmatch(
        r"effnet: (?:.*: )?this needs (\S+)(?: \(.*\))?, which is not installed; "
        r'install it with: pip install "effnet\[(\w+)\]"',
        line,
    )
    assert found, line
    assert not extra or found[2] == extra, line
    brought = " ".join(PYPROJECT["optional-dependencies"][found[2]])
    assert re.search(rf"(^|[\s,]){re.escape(found[1])}\b", brought), line


def test_every_verb_of_a_device_works_or_names_the_extra(run_without, cases):
    assert {name for name, _ in verbs()} <= set(cases)
    for name, (code, text) in zip(cases, run_without([(words, [*PACKAGES]) for words in cases.values()]), strict=True):
        if name in NEEDS:
            assert code == 2, (name, text)
            names_what_brings_it(text, NEEDS[name])
        elif name in (
            "runs compare",
            "embed",
            "find",
            "explain",
        ):  # no run in the folder, no export of features or maps
            assert (code, "Traceback" in text) == (2, False)
        else:
            assert code == 0, (name, text)


def test_one_missing_package_is_asked_for_by_the_extra_that_brings_it(run_without, cases):
    blocked = {
        "evaluate": ["sklearn", "scipy", "torch", "onnx"],
        "export": ["torch"],
        "models convert": ["safetensors"],
    }
    scored, *others = run_without([(cases[name], packages) for name, packages in blocked.items()])
    assert scored[0] == 0, scored
    for code, text in others:
        assert code == 2, text
        names_what_brings_it(text, "train")


def test_every_advice_names_an_extra_that_brings_the_package():
    assert {need.module for found in RUNTIMES.values() for need in found.needs} - {*PACKAGES} == {"onnxruntime"}
    for package, extra in set(PACKAGES.values()):
        assert any(re.match(rf"{re.escape(package)}\b", line) for line in PYPROJECT["optional-dependencies"][extra])
