"""Item 1: files that carry code, in every place where effnet reads a file."""

import json
import os
import pickle
import zipfile
from collections.abc import Sequence

from benchmarks.attacks.ground import Attack, Command, Ground

# A program that loads a bundle; effnet's own errors end it with their exit code.
_LOAD = """import effnet, effnet.errors, sys
try:
    effnet.load(sys.argv[1]).predict([sys.argv[2]])
except effnet.errors.EffnetError as error:
    sys.exit(error.exit_code)
"""


class _Payload:
    """Code in a pickle that runs on load: it creates the canary."""

    def __init__(self, canary: str) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.canary,)


def _pickles(ground: Ground) -> list[bytes]:
    return [pickle.dumps(_Payload(str(ground.canary)), protocol=protocol) for protocol in (0, 2, 4)]


def _zip_of(path: object, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            archive.writestr(name, content)


def _deploy(ground: Ground, name: str) -> None:
    """Change the deployed export in config.json."""
    config = json.loads((ground.bundle / "config.json").read_text())
    (ground.bundle / "config.json").write_text(json.dumps(config | {"deployed": name}))


def pt2(ground: Ground) -> Sequence[Command]:
    """An archive of torch.export whose two lists of members show each reader another archive."""
    bad = ground.path("bad.zip")
    _zip_of(bad, {"model/data/sample_inputs/model.pt": _pickles(ground)[1], "model/models/model.json": b"{}"})
    (ground.bundle / "model.pt2").write_bytes(bad.read_bytes())
    _deploy(ground, "pt2")
    return (
        Command(words=("predict", ground.bundle, ground.image)),
        Command(words=("bench", ground.bundle, "--runtimes", "all")),
        Command(words=("evaluate", ground.bundle, "digits")),
        Command(words=(_LOAD, ground.bundle, ground.image), python=True),
    )  # fmt: skip


def bench_all(ground: Ground) -> Sequence[Command]:
    """The same file beside a good bundle: nothing reads it."""
    (ground.bundle / "model.pt2").write_bytes(_pickles(ground)[1])
    return (Command(words=("bench", ground.bundle, "--runtimes", "onnxruntime"), codes=(0,)),)


def checkpoints(ground: Ground) -> Sequence[Command]:
    """Pickles under every name and in every wrapper of weights."""
    commands = []
    for number, content in enumerate(_pickles(ground)):
        for suffix in ("pth", "safetensors", "h5", "npz"):
            path = ground.path(f"plain{number}.{suffix}")
            path.write_bytes(content)
            commands.append(path)
        path = ground.path(f"zipped{number}.pth")
        _zip_of(path, {"archive/data.pkl": content, "archive/version": b"3\n", "archive/byteorder": b"little"})
        commands.append(path)
    return [
        Command(words=("fit", "digits", "--weights", path, "--model", "lite0", "--out", ground.path("out")))
        for path in commands
    ]


def images(ground: Ground) -> Sequence[Command]:
    """An array of objects as an image."""
    import numpy as np

    path = ground.path("objects.npy")
    np.save(path, np.array([_Payload(str(ground.canary))], dtype=object), allow_pickle=True)
    return (Command(words=("predict", ground.bundle, path)),)


def teachers(ground: Ground) -> Sequence[Command]:
    """Checkpoints of a run and features of a bundle that are pickles."""
    (ground.bundle / "model.safetensors").write_bytes(_pickles(ground)[1])
    return (
        Command(words=("export", ground.bundle, "--to", "litert")),
        Command(words=("train", "digits", "--model", "lite0", "--set", f"loss.teacher={ground.bundle}",
                       "--epochs", "1", "--out", ground.path("out"))),
    )  # fmt: skip


ATTACKS = (
    Attack(item=1, name="a crafted .pt2 that is deployed", prepare=pt2),
    Attack(item=1, name="a crafted .pt2 beside a good bundle", prepare=bench_all),
    Attack(item=1, name="pickles as weights", prepare=checkpoints),
    Attack(item=1, name="a pickle as an image", prepare=images),
    Attack(item=1, name="a pickle as a bundle's weights", prepare=teachers),
)
