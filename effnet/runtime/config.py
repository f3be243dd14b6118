"""config.json of a bundle: what a model is and how a picture must reach it."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effnet.arch.codec import spec_from_dict, spec_to_dict
from effnet.arch.spec import ArchSpec
from effnet.data.preprocess import Preprocess
from effnet.errors import BundleError, InputError
from effnet.runtime.formats import find_format
from effnet.system.files import written_whole

FORMAT = 1
CONFIG, WEIGHTS, ONNX = "config.json", "model.safetensors", "model.onnx"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The architecture, its preprocessing, the names of its classes, and the versions that wrote it.

    `split_seed` is the seed that its training data were split with: a test split made with it holds no picture
    that was trained on. None where that is not known.

    The network's logits are divided by `temperature` before softmax; the ONNX file does so itself. A picture whose
    likeliest class is less probable than `threshold` is of no known class; with None every picture is of one.
    `deployed` is the format (of effnet.runtime.formats) that predicts where none is asked for.
    """

    arch: ArchSpec
    preprocess: Preprocess
    class_names: tuple[str, ...]
    versions: Mapping[str, str] = field(default_factory=dict)
    split_seed: int | None = None
    temperature: float = 1.0
    threshold: float | None = None
    deployed: str = "onnx"

    def __post_init__(self) -> None:
        if len(self.class_names) != self.arch.num_classes:
            raise BundleError(
                f"a model with {self.arch.num_classes} outputs needs as many class names; got {len(self.class_names)}: "
                "give each output its name, in their order"
            )
        if self.preprocess.channels != self.arch.in_channels:
            raise BundleError(
                f"the network takes {self.arch.in_channels} channels but preprocessing makes {self.preprocess.channels}"
            )
        if not 0 < self.temperature < math.inf:
            raise BundleError(f"temperature must be a finite number above 0; got {self.temperature}")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise BundleError(f"threshold must be a probability from 0 to 1, or null; got {self.threshold}")
        find_format(self.deployed)


def write_config(config: ModelConfig, folder: Path) -> None:
    """Writes config.json into `folder`, whole or not at all."""
    data = {
        "format": FORMAT,
        "library_name": "effnet",
        "arch": spec_to_dict(config.arch),
        "preprocess": config.preprocess.to_dict(),
        "class_names": list(config.class_names),
        "versions": dict(config.versions),
        "split_seed": config.split_seed,
        "temperature": config.temperature,
        "threshold": config.threshold,
        "deployed": config.deployed,
    }
    write_text(folder / CONFIG, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8 to `path`, whole or not at all."""
    with written_whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


def read_config(folder: str | os.PathLike[str]) -> ModelConfig:
    """Returns the config of the bundle in `folder`.

    Raises BundleError where the folder is no bundle, or its config is damaged or of another version.
    """
    path = Path(folder) / CONFIG
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(f"a bundle is a folder with a {CONFIG}; {folder} has none that can be read") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is no JSON: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise BundleError(f"this effnet reads bundle format {FORMAT}; {path} has {found!r}: upgrade effnet")
    return _parse(data, path)


def _parse(data: dict[str, Any], path: Path) -> ModelConfig:
    try:
        names, versions = data["class_names"], data.get("versions", {})
        if not isinstance(names, list) or not all(map(_is_text, names)):
            raise BundleError("class_names must be a list of texts")
        if not isinstance(versions, dict) or not all(map(_is_text, versions.values())):
            raise BundleError("versions must be a JSON object of texts")
        return ModelConfig(
            arch=spec_from_dict(data["arch"]),
            preprocess=Preprocess.from_dict(data["preprocess"]),
            class_names=tuple(names),
            versions=versions,
            split_seed=_seed(data.get("split_seed")),
            # Bundles of 0.1.0 have neither.
            temperature=_number(data.get("temperature", 1.0), "temperature"),
            threshold=None if data.get("threshold") is None else _number(data["threshold"], "threshold"),
            deployed=data.get("deployed", "onnx"),
        )
    except KeyError as error:
        raise BundleError(f"{path} lacks {error}") from error
    except (InputError, TypeError, AttributeError, OverflowError) as error:
        raise BundleError(f"{path}: {error}") from error


def _seed(value: object) -> int | None:
    if value is None or (type(value) is int and value >= 0):
        return value
    raise BundleError(f"split_seed must be a whole number of at least 0, or null; got {value!r}")


def _number(value: object, name: str) -> float:
    if type(value) in (int, float):
        return float(value)  # type: ignore[arg-type]
    raise BundleError(f"{name} must be a number; got {value!r}")


def _is_text(value: object) -> bool:
    """Returns whether `value` is a text that can be written: JSON can hold halves of characters."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)
