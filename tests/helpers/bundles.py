"""A bundle of a tiny untrained network."""

from dataclasses import replace
from pathlib import Path

from strategies import build_trained

import effnet
from effnet.arch.scale import with_total_stride
from effnet.bundle.config import ModelConfig, read_config, read_digests, write_config
from effnet.bundle.model_file import sha256
from effnet.bundle.split_file import write_split
from effnet.bundle.weights import load_state, save_bundle, state_arrays
from effnet.data.datasets import read_dataset
from effnet.data.preprocess import Preprocess
from effnet.runtimes.onnxruntime.writer import export_onnx
from effnet.runtimes.registry import exports
from effnet.tasks.known import KnownScore
from effnet.weights.labels import split_record

DIGITS = tuple(str(digit) for digit in range(10))


def assert_files_are_known(folder: Path, *, but: tuple[str, ...] = ()) -> None:
    """Fail unless config.json has the SHA-256 of each model's file of the bundle, as it lies there, and no other."""
    every = [name for found in exports().values() for name in found.files]
    present = {name for name in every if (folder / name).is_file() and name not in but}
    assert present
    assert read_digests(folder) == {name: sha256((folder / name).read_bytes()) for name in present}


def add_score(folder: Path, score: KnownScore) -> Path:
    """Give the bundle in `folder`, and its ONNX file, a score that says which images are unknown."""
    config, state = replace(read_config(folder), known=score), load_state(folder)
    write_config(config, folder)
    export_onnx(folder, config, state)
    return folder


def make_bundle(folder: Path, *, class_names: tuple[str, ...] = DIGITS, threshold: float | None = None) -> Path:
    """Write config, weights and ONNX file of a network with SiLU and SE for grey images of 16 x 16 into `folder`."""
    spec = effnet.get_spec("b0", num_classes=len(class_names), in_channels=1)
    spec = with_total_stride(effnet.scale(spec, phi=-20, resolution=16), 8)
    config = ModelConfig(
        arch=spec,
        preprocess=Preprocess(resolution=16, mean=(0.3,), std=(0.4,)),
        class_names=class_names,
        split_seed=3,
        temperature=1.5,
        threshold=threshold,
    )
    state = state_arrays(build_trained(spec, resolution=16))
    save_bundle(folder, config, state)
    export_onnx(folder, config, state)
    if class_names == DIGITS:  # as if it were fitted on the digits
        write_split(split_record(read_dataset("digits", seed=3)), folder)
    return folder
