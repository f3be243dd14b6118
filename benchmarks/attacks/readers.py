"""Readers for mutated files, each with its good files; effnet's own errors are valid results."""

import io
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness import ROOT
from effnet.errors import EffnetError
from effnet.runtimes.ledger import read_ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Good files by name in the folder of the mutants, and the function that reads one of them."""

    files: Mapping[str, bytes]
    read: Callable[[Path], object]


def open_reader(kind: str, folder: Path) -> Reader:
    """Return the reader of a kind; `folder` holds a bundle, `bundle`, for those that read models."""
    files, read = _KINDS[kind](folder)

    def tried(path: Path) -> object:
        with suppress(EffnetError):
            return read(path)
        return None

    return Reader(files=files, read=tried)


def _images(folder: Path) -> tuple[dict[str, bytes], Callable[[Path], object]]:
    from PIL import Image

    from effnet.data.images.decode import decode_image, image_header
    from effnet.data.images.jpeg import decode_part, read_jpeg

    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8).repeat(2, 0).repeat(2, 1))
    files = {}
    for name, mode, options in _IMAGES:
        stream = io.BytesIO()
        image = Image.fromarray(np.asarray(colour.convert("L"), np.uint16) * 257) if mode == "I;16" else None
        image = image or (colour.convert("L").convert(mode) if mode in ("I", "F", "1") else colour.convert(mode))
        image.save(stream, **options)
        files[name] = stream.getvalue()
    stream = io.BytesIO()
    np.save(stream, rng.integers(0, 256, (8, 8, 5), np.uint8))
    files["five.npy"] = stream.getvalue()

    def read(path: Path) -> None:
        for action in (lambda: image_header(path), lambda: decode_image(path)):
            with suppress(EffnetError):
                action()
        jpeg = read_jpeg(str(path))
        if jpeg is not None:
            decode_part(jpeg, box=(0, 0, jpeg.width // 2 + 1, jpeg.height // 2 + 1), reduction=2)

    return files, read


_IMAGES = (
    ("rgb.jpg", "RGB", {"format": "JPEG"}),
    ("progressive.jpg", "RGB", {"format": "JPEG", "progressive": True}),
    ("cmyk.jpg", "CMYK", {"format": "JPEG"}),
    ("rgb.png", "RGB", {"format": "PNG"}),
    ("palette.png", "P", {"format": "PNG"}),
    ("deep.png", "I;16", {"format": "PNG"}),
    ("alpha.png", "RGBA", {"format": "PNG"}),
    ("a.gif", "P", {"format": "GIF"}),
    ("a.bmp", "RGB", {"format": "BMP"}),
    ("a.webp", "RGB", {"format": "WEBP"}),
    ("lossless.webp", "RGBA", {"format": "WEBP", "lossless": True}),
    ("raw.tif", "RGB", {"format": "TIFF"}),
    ("lzw.tif", "RGB", {"format": "TIFF", "compression": "tiff_lzw"}),
    ("float.tif", "F", {"format": "TIFF"}),
    ("bits.tif", "1", {"format": "TIFF", "compression": "group4"}),
    ("a.ppm", "RGB", {"format": "PPM"}),
    ("a.jp2", "RGB", {"format": "JPEG2000"}),
    ("a.avif", "RGB", {"format": "AVIF"}),
    ("a.ico", "RGBA", {"format": "ICO"}),
)


def _texts(folder: Path) -> tuple[dict[str, bytes], Callable[[Path], object]]:
    import effnet
    from effnet.arch.codec import spec_to_dict
    from effnet.bundle.config import read_config
    from effnet.bundle.spec_of import read_spec
    from effnet.data.datasets import read_dataset
    from effnet.measurement.profile.profile import read_profile, write_profile
    from effnet.training.recipe.published import imagenet_v1
    from effnet.training.recipe.read import read_recipe

    bundle = folder / "bundle"
    readers: dict[str, Callable[[Path], object]] = {
        "config.json": lambda path: read_config(path.parent),
        "exports.json": lambda path: read_ledger(path.parent),
        "network.json": lambda path: effnet.cost(read_spec(str(path))),
        "profile.json": read_profile,
        "recipe.json": lambda path: read_recipe(str(path), effnet.get_spec("lite0")),
        "list.csv": lambda path: read_dataset(str(path)),
        "list.jsonl": lambda path: read_dataset(str(path)),
    }
    rows = [(f"good/{number}.png", "ab"[number % 2]) for number in range(12)]
    (folder / "good").mkdir(exist_ok=True)
    for path, _ in rows:
        (folder / path).write_bytes(b"no image")
    files = {name: (bundle / name).read_bytes() for name in ("config.json", "exports.json") if (bundle / name).exists()}
    recipe = imagenet_v1(effnet.get_spec("lite0")).to_dict()
    files["recipe.json"] = json.dumps(recipe).encode()
    files["network.json"] = json.dumps(spec_to_dict(effnet.get_spec("lite0"))).encode()
    files["list.csv"] = ("path,label\n" + "".join(f"{path},{label}\n" for path, label in rows)).encode()
    files["list.jsonl"] = "".join(json.dumps({"path": path, "label": label}) + "\n" for path, label in rows).encode()
    # Measuring a profile takes minutes; the tests have a device that is made up.
    sys.path.insert(0, str(ROOT / "tests" / "helpers"))
    from made_up import make_profile

    write_profile(make_profile(networks=4, mixtures=4), folder / "made.json")
    files["profile.json"] = (folder / "made.json").read_bytes()
    return files, lambda path: readers[path.name](path)


def _safetensors(folder: Path) -> tuple[dict[str, bytes], Callable[[Path], object]]:
    from effnet.bundle.weights import load_state
    from effnet.weights.readers.files import read_arrays

    content = (folder / "bundle" / "model.safetensors").read_bytes()

    def read(path: Path) -> None:
        with suppress(EffnetError):
            read_arrays(path)
        shutil.copy(path, path.with_name("model.safetensors"))
        load_state(path.parent)

    return {"a.safetensors": content}, read


def _torch(folder: Path) -> tuple[dict[str, bytes], Callable[[Path], object]]:
    import torch

    from effnet.weights.readers.files import read_arrays

    state = {f"layer{number}.weight": torch.full((8, 3, 3, 3), float(number)) for number in range(4)}
    files = {}
    for name, zipped in (("a.pth", True), ("old.pth", False)):
        stream = io.BytesIO()
        torch.save({"state_dict": state, "epoch": 3}, stream, _use_new_zipfile_serialization=zipped)
        files[name] = stream.getvalue()
    return files, read_arrays


def _keras(folder: Path) -> tuple[dict[str, bytes], Callable[[Path], object]]:
    import zipfile

    import h5py

    from effnet.weights.readers.files import read_arrays

    values = np.arange(600, dtype=np.float32).reshape(3, 200)
    old, new, archive = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with h5py.File(old, "w") as file:
        file["model_weights/conv/conv/kernel:0"] = values
        file.create_dataset("model_weights/bn/bn/gamma:0", data=values, compression="gzip")
    with h5py.File(new, "w") as file:
        layer = file.create_group("layers/conv2d/vars")
        layer.attrs["name"] = "conv2d"
        layer["0"] = values
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model.weights.h5", new.getvalue())
        file.writestr("config.json", "{}")
    return {"old.h5": old.getvalue(), "new.h5": new.getvalue(), "a.keras": archive.getvalue()}, read_arrays


def _tar(folder: Path) -> tuple[dict[str, bytes], Callable[[Path], object]]:
    import tarfile

    from effnet.data.datasets import read_dataset

    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as file:
        for number in range(12):
            for suffix, content in (("png", b"no image" * 40), ("cls", str(number % 2).encode())):
                info = tarfile.TarInfo(f"{'long/' * (number == 3) * 30}{number:06d}.{suffix}")
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    return {"train-000000.tar": stream.getvalue()}, lambda path: read_dataset(str(path))


def _tensorflow(folder: Path) -> tuple[dict[str, bytes], Callable[[Path], object]]:
    from effnet.weights.readers.files import read_arrays

    # TensorFlow is not installed; the tests have a writer of its format.
    sys.path.insert(0, str(ROOT / "tests" / "helpers"))
    from checkpoints import write_checkpoint

    write_checkpoint(
        folder / "model", {"conv/kernel": np.zeros((3, 3), np.float32), "norm/gamma": np.ones(5, np.float32)}
    )
    names = ("model.index", "model.data-00000-of-00001")
    return {name: (folder / name).read_bytes() for name in names}, lambda path: read_arrays(folder / "model.index")


def _models(names: Mapping[str, str]) -> Callable[[Path], tuple[dict[str, bytes], Callable[[Path], object]]]:
    """Return the reader of models: `names` are files of a bundle, each with the format that reads it."""

    def make(folder: Path) -> tuple[dict[str, bytes], Callable[[Path], object]]:
        from effnet.runtimes.predictor import load

        bundle = folder / "bundle"
        image = np.zeros((8, 8, 1), np.uint8)
        # An attacker also writes the matching digest: otherwise the file would be refused at once.
        config = json.loads((bundle / "config.json").read_text())
        config.pop("sha256")
        (bundle / "config.json").write_text(json.dumps(config))

        def read(path: Path) -> object:
            good = (bundle / path.name).read_bytes()
            shutil.copy(path, bundle / path.name)
            try:
                return load(bundle, format=names[path.name]).predict([image])
            finally:
                (bundle / path.name).write_bytes(good)

        return {name: (bundle / name).read_bytes() for name in names}, read

    return make


_KINDS: dict[str, Callable[[Path], tuple[dict[str, bytes], Callable[[Path], object]]]] = {
    "image": _images,
    "json": _texts,
    "safetensors": _safetensors,
    "torch": _torch,
    "keras": _keras,
    "tar": _tar,
    "tensorflow": _tensorflow,
    "onnx": _models({"model.onnx": "onnx", "model.int8.onnx": "onnx-int8"}),
    "tflite": _models({"model.tflite": "litert", "model.int8.tflite": "litert-int8"}),
    "openvino": _models({"model.xml": "openvino", "model.bin": "openvino", "model.int8.xml": "openvino-int8"}),
    "executorch": _models({"model.pte": "executorch", "model.int8.pte": "executorch-int8"}),
}
