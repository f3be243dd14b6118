"""Items 8 and 9: truncated caches, unexpected numbers and names."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.attacks.ground import Attack, Command, Ground

_ESCAPES = "\x1b[31mred\x1b]0;title\x07"
_FORMULA = '=HYPERLINK("http://127.0.0.1/","a")'


def kernels(ground: Ground) -> Sequence[Command]:
    """A kernel library in the cache that is cut off, empty, or another file."""
    words = ("train", "digits", "--model", "lite0", "--resolution", "32", "--epochs", "1", "--out", ground.path("out"))
    cut = (
        "import os, pathlib, sys\n"
        "for path in pathlib.Path(sys.argv[1]).rglob('*.so'): os.truncate(path, path.stat().st_size // 3)\n"
    )
    again = (*words[:-1], ground.path("again"))
    train = Command(words=words, codes=(0,), seconds=180)
    damage = Command(words=(cut, ground.path("cache")), python=True, codes=(0,))
    return train, damage, Command(words=again, codes=(0,), seconds=180)


def _images(ground: Ground, names: Sequence[str]) -> Path:
    root = ground.path("data")
    for name in names:
        for number in range(6):
            path = root / name / f"{number}-{name[:20].replace('/', '')}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(ground.image.read_bytes() + bytes(number))
    return root


def names(ground: Ground) -> Sequence[Command]:
    """Class and file names with control characters, markup and formulas."""
    data = _images(ground, (_ESCAPES, "<script>alert(1)</script>".replace("/", "\u2044"), "=1+1", "a\nb", "\u202eabc"))
    out = ground.path("out")
    fit = ("fit", data, "--set", "fit.max_params=20000", "--epochs", "1", "--weights", "none", "--out", out)
    lacks = ("\x1b[31m", "\x1b]", "\u202e")
    file = next((data / _ESCAPES).iterdir())
    return (
        Command(words=("data", "inspect", data), codes=(0,), lacks=lacks),
        Command(words=fit, codes=(0,), lacks=lacks),
        Command(words=("predict", out, file), codes=(0,), lacks=lacks),
        Command(words=("evaluate", out, data), codes=(0,), lacks=lacks),
        Command(words=("predict", out, data / _ESCAPES / "missing.png"), lacks=lacks),
        Command(words=("predict", _ESCAPES, ground.image), lacks=lacks),
    )


def _no_markup(ground: Ground) -> str:
    for name in ("report.html", "README.md"):
        path = ground.path("out") / name
        if path.exists() and "<script>alert(1)" in path.read_text(encoding="utf-8"):
            return f"{name} holds a script of a class name"
    return ""


def formulas(ground: Ground) -> Sequence[Command]:
    """Class and file names that a spreadsheet would evaluate."""
    config = json.loads((ground.bundle / "config.json").read_text())
    config["class_names"] = [f"{sign}1+{number}" for number, sign in enumerate("=+-@=+-@=+")]
    (ground.bundle / "config.json").write_text(json.dumps(config))
    image = ground.path(_FORMULA.replace("/", ""))
    image.write_bytes(ground.image.read_bytes())
    read = (
        "import csv, io, subprocess, sys\n"
        "done = subprocess.run([sys.executable, '-m', 'effnet', 'predict', *sys.argv[1:], '--format', 'csv'],\n"
        "                      capture_output=True, text=True)\n"
        "cells = [cell for row in csv.reader(io.StringIO(done.stdout)) for cell in row]\n"
        "print(done.stderr)\n"
        "sys.exit(not cells or any(cell[:1] in tuple('=+-@') for cell in cells))\n"
    )
    return (Command(words=(read, ground.bundle, image.name), python=True, codes=(0,)),)


def numbers(ground: Ground) -> Sequence[Command]:
    """Options with numbers that are invalid, infinite, or far too large."""
    out = ground.path("out")
    odd = ("nan", "inf", "-1", "1e308", "1" + "0" * 30)
    fits = [("--minutes", v) for v in odd[:3]] + [("--max-latency-ms", v) for v in odd[:3]]
    fits += [
        ("--epochs", odd[4]),
        ("--seed", odd[4]),
        ("--seed", "-1"),
        ("--set", f"fit.threads={odd[4]}"),
        ("--set", "fit.coverage=nan"),
    ]
    fits += [
        ("--set", "fit.max_drop=nan"),
        ("--max-size-mb", "inf"),
        ("--max-macs", "1e999"),
        ("--set", f"fit.channels={odd[4]}"),
    ]
    commands = [Command(words=("fit", "digits", *words, "--out", out)) for words in fits]
    trains = ("train.lr=nan", "train.epochs=1e308", "train.batch_size=1" + "0" * 30, "train.lr=1e999")
    start = ("train", "digits", "--model", "lite0", "--epochs", "1", "--out", out)
    commands += [Command(words=(*start, "--set", value)) for value in trains]
    commands += [Command(words=("models", "scale", "b0", "--phi", value)) for value in ("nan", "inf", "1e308")]
    commands.append(Command(words=("models", "cost", "b0", "--training", "--batch", odd[4])))
    return commands


def _deep(depth: int) -> str:
    return "[" * depth + "]" * depth


def documents(ground: Ground) -> Sequence[Command]:
    """JSON that is deep, infinite, huge or not a number, wherever JSON is read."""
    texts = {
        "deep": _deep(200_000), "nan": '{"a": NaN}', "huge": '{"format": 1' + "0" * 5000 + "}", "text": "{",
        "list": "[1]", "float": '{"format": 1e999}', "bytes": "\udcff",
    }  # fmt: skip
    commands = []
    for name, text in texts.items():
        path = ground.path(f"{name}.json")
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
        manifest = ground.path(f"{name}.jsonl")
        manifest.write_text(text + "\n", encoding="utf-8", errors="surrogateescape")
        commands += [
            Command(words=("models", "cost", path)),
            Command(words=("profile", "--show", path)),
            Command(words=("data", "inspect", manifest)),
            Command(words=("recipes", path)),
            Command(words=("fit", "digits", "--device", path, "--max-latency-ms", "5", "--out", ground.path("out"))),
        ]
    return commands


def manifests(ground: Ground) -> Sequence[Command]:
    """Manifests that are no tables."""
    contents = {
        "nul.csv": b"path,label\n\0\0\0\n", "quote.csv": b'path,label\n"a' + b"a" * 10**6, "empty.csv": b"",
        "long.csv": b"path,label\na," + b"b" * 10**7, "utf16.csv": "path,label\na,b\n".encode("utf-16"),
        "twice.csv": b"path,path\na,b\n", "number.jsonl": b'{"path": "a", "label": 1' + b"0" * 400 + b"}\n",
    }  # fmt: skip
    commands = []
    for name, content in contents.items():
        ground.path(name).write_bytes(content)
        commands.append(Command(words=("data", "inspect", ground.path(name))))
    os.mkfifo(ground.path("pipe.csv"))
    ground.path("zero.csv").symlink_to("/dev/zero")
    return (*commands, *(Command(words=("data", "inspect", ground.path(name))) for name in ("pipe.csv", "zero.csv")))


def plans(ground: Ground) -> Sequence[Command]:
    """A plan of an interrupted fit that was changed by hand."""
    commands = []
    for number, value in enumerate(("1" + "0" * 400, "NaN", "1e308", _deep(100_000))):
        out = ground.path(f"out{number}")
        (out / "run").mkdir(parents=True)
        (out / "run" / "plan.json").write_text(f'{{"format": 1, "seconds": {value}, "epochs": {value}}}')
        words = (
            "fit",
            "digits",
            "--set",
            "fit.max_params=20000",
            "--epochs",
            "1",
            "--weights",
            "none",
            "--out",
            out,
            "--resume",
        )
        commands.append(Command(words=words, says="plan.json"))
    return commands


def predictors(ground: Ground) -> Sequence[Command]:
    """A pickled predictor, and one used after a fork."""
    start = "import effnet, multiprocessing, pickle, sys\nmodel = effnet.load(sys.argv[1], format=sys.argv[3])\n"
    start += "model.predict([sys.argv[2]])\n"
    pickled = start + "print(pickle.loads(pickle.dumps(model)).predict([sys.argv[2]])[0].label)\n"
    forked = start + (
        "import threading\n"
        "enough = threading.Event()\n"
        "def predict():\n"
        "    while not enough.is_set(): model.predict([sys.argv[2]])\n"
        "thread = threading.Thread(target=predict)\n"
        "thread.start()\n"
        "context = multiprocessing.get_context('fork')\n"
        "for _ in range(10):\n"
        "    child = context.Process(target=model.predict, args=([sys.argv[2]],))\n"
        "    child.start(); child.join(300)\n"
        "    if child.exitcode != 0: child.kill(); break\n"
        "enough.set(); thread.join()\n"
        "sys.exit(child.exitcode != 0)\n"
    )
    return [
        Command(words=(code, ground.bundle, ground.image, name), python=True, codes=(0,))
        for name in ("onnx", "litert") for code in (pickled, forked)
    ]  # fmt: skip


def device(ground: Ground) -> Sequence[Command]:
    """The install of a device, without training packages: verbs work, or name the missing extra."""
    block = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {blocked!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "sys.argv[0] = 'effnet'\n"
        "from effnet.cli.main import main\n"
        "main()\n"
    )
    all_but_device = {"torch", "onnx", "safetensors", "sklearn", "scipy", "h5py", "matplotlib", "jinja2", "tensorboard",
                      "huggingface_hub", "optuna"}  # fmt: skip
    code = block.format(blocked=all_but_device)
    return (
        Command(words=(code, "evaluate", ground.bundle, _images(ground, ("0", "1"))), python=True, codes=(0,)),
        Command(words=(code, "predict", ground.bundle, ground.image), python=True, codes=(0,)),
        Command(words=(code, "profile", "--out", ground.path("p.json")), python=True, says="effnet[profile]"),
    )


_ALL: tuple[tuple[int, str, Callable[[Ground], Sequence[Command]]], ...] = (
    (8, "a kernel library that was cut off", kernels),
    (9, "formulas in CSV", formulas),
    (9, "numbers that are none, or too large", numbers),
    (9, "deep, endless and huge JSON", documents),
    (9, "manifests that are no tables", manifests),
    (9, "a plan that was changed", plans),
    (9, "a predictor pickled and forked", predictors),
    (9, "the install of a device", device),
)
ATTACKS = (
    *(Attack(item=item, name=name, prepare=prepare) for item, name, prepare in _ALL),
    Attack(item=9, name="names with escapes and markup", prepare=names, after=_no_markup),
)
