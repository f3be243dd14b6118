"""`python -m benchmarks.int8_accuracy [--cache FOLDER]`: the accuracy drop of int8 for a network with SiLU and SE.

It is trained here on 9,800 images of CIFAR-10 of 32 pixels (kept in the cache folder, if one is given) and scored on
2,000 others by each runtime: in fp32, in effnet's int8, and in the int8 of the runtime's own tools with their default
settings. All calibrate on the same training images. The figure is the accuracy drop, in percentage points, of the
second-best runtime: at least two runtimes lose at most this.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.cifar import unpack
from benchmarks.harness import ROOT, finish, shared
from benchmarks.time_to_accuracy import SETTINGS, place
from effnet.arch.codec import spec_to_dict
from effnet.arch.lineage import Lineage
from effnet.arch.spec import ArchSpec, StemSpec, stage
from effnet.bundle.config import ModelConfig, read_config
from effnet.bundle.weights import load_state
from effnet.data.datasets import Split, load_image, read_dataset
from effnet.data.preprocess import Preprocess, resize_and_crop
from effnet.errors import EffnetError
from effnet.runtimes.registry import FORMATS, open_engine
from effnet.runtimes.write import Quantization, write_export

GOAL = 0.5
EPOCHS, CALIBRATION = 8, 300
FLOATS = {"onnx-int8": "onnx", "openvino-int8": "openvino", "litert-int8": "litert"}
# Chosen on training images that were not used to calibrate, so that the test images choose nothing.
WAYS = [
    Quantization(method=method, bias_correction=correction)
    for method in ("minmax", "entropy") for correction in ("none", "fast")
]  # fmt: skip
CHOICE = 1000


def main() -> None:
    """Train if needed, quantize with each runtime both ways, and compare."""
    args = options()
    with tempfile.TemporaryDirectory() as scratch:
        cache = args.cache or Path(scratch)
        bundle, data = network(cache)
        dataset = read_dataset(data)
        preprocess = read_config(bundle).preprocess
        test = images(dataset.test, preprocess, range(len(dataset.test)))
        order = np.random.default_rng(0).permutation(len(dataset.train))
        calibration = images(dataset.train, preprocess, order[:CALIBRATION])
        choice = order[CALIBRATION : CALIBRATION + CHOICE]
        held = (images(dataset.train, preprocess, choice), np.asarray(dataset.train.labels)[choice])
        samples: dict[str, list[float]] = {}
        for name, accuracy in scores(bundle, Path(scratch), calibration, held, (test, np.asarray(dataset.test.labels))):
            samples[name] = [accuracy]
            print(f"{name}: {accuracy:.2f} %", flush=True)
    losses = {name: samples[plain][0] - samples[name][0] for name, plain in FLOATS.items() if name in samples}
    figure = sorted(losses.values())[1] if len(losses) > 1 else float("inf")
    finish(
        "int8_accuracy", args, figure=figure, goal=GOAL, unit="pp lost", better="lower", samples=samples,
        details={"losses": losses, "epochs": EPOCHS, "calibration": CALIBRATION, "images": len(test)},
    )  # fmt: skip


def options() -> argparse.Namespace:
    """Return the options of every benchmark, and the folder of the trained network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 if the goal is missed")
    parser.add_argument("--record", action="store_true", help="write benchmarks/records/NAME.json")
    parser.add_argument("--cache", type=Path, help="folder of the trained network, so that it is trained only once")
    args = parser.parse_args()
    args.n = 1
    return args


def spec() -> ArchSpec:
    """Return the network: B0's kinds of blocks, activation and gate, with strides for images of 32 pixels."""
    rows = [
        ("mbconv", 1, 3, 1, 1, 16, 16), ("mbconv", 2, 3, 2, 4, 16, 24), ("mbconv", 2, 5, 2, 4, 24, 40),
        ("mbconv", 3, 3, 2, 4, 40, 80), ("mbconv", 2, 5, 1, 4, 80, 112),
    ]  # fmt: skip
    stages = tuple(
        stage(
            kind, repeats=repeats, kernel_size=kernel, stride=stride, expand_ratio=expand, in_channels=narrow,
            out_channels=wide, se_ratio=0.25,
        )
        for kind, repeats, kernel, stride, expand, narrow, wide in rows
    )  # fmt: skip
    return ArchSpec(
        lineage=Lineage(base="b0_for_32_pixels"), num_classes=10, resolution=32,
        stem=StemSpec(channels=16, stride=1), stages=stages, head_channels=320,
    )  # fmt: skip


def network(cache: Path) -> tuple[Path, Path]:
    """Return the trained bundle and the images, both made if `cache` lacks them."""
    data, bundle = cache / "cifar10", cache / "network"
    if not data.is_dir():
        unpack(shared("data", "cifar10_12k.tar.gz"), data, place)
    if not (bundle / "report.json").is_file():
        (cache / "spec.json").write_text(json.dumps(spec_to_dict(spec())), encoding="utf-8")
        words = ["train", data, "--model", cache / "spec.json", "--resolution", 32, "--recipe", "cifar10"]
        words += ["--out", bundle, "--epochs", EPOCHS, *(word for setting in SETTINGS for word in ("--set", setting))]
        subprocess.run([sys.executable, "-m", "effnet", *map(str, words)], check=True, cwd=ROOT)
    return bundle, data


def images(split: Split, preprocess: Preprocess, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return preprocessed images, uint8 [images, R, R, C]."""
    return np.stack([resize_and_crop(load_image(split, int(i), channels=3), preprocess) for i in indices])


def accuracy(path: Path, labelled: tuple[np.ndarray, np.ndarray]) -> float:
    """Return the accuracy, in percent, of a model's file in its runtime."""
    engine, (images, labels) = open_engine(path), labelled
    rows = [engine.run(images[start : start + 1]) for start in range(len(images))]
    return 100 * float((np.concatenate(rows).argmax(1) == labels).mean())


def scores(
    bundle: Path,
    scratch: Path,
    calibration: np.ndarray,
    held: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
) -> Iterator[tuple[str, float]]:
    """Yield the accuracy of each runtime in fp32, in effnet's int8 and in its own; absent runtimes are reported."""
    config, state = read_config(bundle), load_state(bundle)

    def export(name: str, quantization: Quantization | None = None) -> Path:
        return write_export(name, scratch, config, state, images=calibration, quantization=quantization)

    for name, plain in FLOATS.items():
        try:
            yield plain, accuracy(export(plain), test)
            best = WAYS[0] if name != "onnx-int8" else max(WAYS, key=lambda way: accuracy(export(name, way), held))
            print(f"{name}: {best.method}, bias correction {best.bias_correction}", flush=True)
            yield name, accuracy(export(name, best if name == "onnx-int8" else None), test)
        except (EffnetError, ModuleNotFoundError) as error:
            print(f"{name} is left out: {error}", flush=True)
            continue
        for label, quantize in DEFAULTS[name].items():
            path = scratch / f"default_{label}{FORMATS[name].file.removeprefix('model')}"
            quantize(scratch / FORMATS[plain].file, path, calibration, config)
            yield f"default {label}", accuracy(path, test)


def onnxruntime_default(source: Path, path: Path, images: np.ndarray, config: ModelConfig, **settings: object) -> None:
    """Quantize the fp32 file with onnxruntime.quantization, with its default settings except `settings`."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.rest, None)
            return None if image is None else {"image": image[None]}

    prepared = path.with_name("prepared.onnx")
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    quantize_static(prepared, path, Reader(), **settings)  # type: ignore[arg-type]


def onnxruntime_per_channel(source: Path, path: Path, images: np.ndarray, config: ModelConfig) -> None:
    """Quantize with onnxruntime.quantization, with weights per channel and uint8 activations."""
    from onnxruntime.quantization import QuantType

    settings = {"per_channel": True, "activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    onnxruntime_default(source, path, images, config, **settings)


def openvino_default(source: Path, path: Path, images: np.ndarray, config: ModelConfig) -> None:
    """Quantize the fp32 file with nncf.quantize, with its default settings."""
    import nncf
    import openvino

    model = openvino.Core().read_model(source)
    quantized = nncf.quantize(model, nncf.Dataset(list(images[:, None])))
    openvino.save_model(quantized, path, compress_to_fp16=False)


def litert_default(source: Path, path: Path, images: np.ndarray, config: ModelConfig) -> None:
    """Quantize the fp32 file with ai-edge-quantizer, with the first recipe of its guide."""
    from ai_edge_quantizer import quantizer, recipe

    worker = quantizer.Quantizer(str(source))
    worker.load_quantization_recipe(recipe.dynamic_wi8_afp32())
    worker.quantize().export_model(str(path), overwrite=True)


Quantizer = Callable[[Path, Path, np.ndarray, ModelConfig], None]
DEFAULTS: dict[str, dict[str, Quantizer]] = {
    "onnx-int8": {"onnxruntime": onnxruntime_default, "onnxruntime per channel": onnxruntime_per_channel},
    "openvino-int8": {"nncf": openvino_default},
    "litert-int8": {"ai-edge-quantizer": litert_default},
}


if __name__ == "__main__":
    main()
