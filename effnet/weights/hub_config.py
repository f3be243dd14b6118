"""timm's config.json beside weights of the hub: their network and preprocessing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effnet.bundle.names import CONFIG
from effnet.data.preprocess import Preprocess
from effnet.errors import DataError, WeightsError
from effnet.system.files import read_json

_NEEDED = ("input_size", "crop_pct", "interpolation", "mean", "std")
_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class HubConfig:
    """Contents of timm's config.json; `network` is timm's name, `licence` is empty if absent."""

    network: str
    preprocess: Preprocess
    licence: str


def is_bundle(folder: Path) -> bool:
    """Return whether `folder` is an effnet bundle, of any format or damaged, and not a snapshot of the hub."""
    path = folder / CONFIG
    return path.is_file() and (_read(path) is None or "format" in (_read(path) or {}))


def weights_in(path: Path) -> Path:
    """Return the file of weights in a snapshot of the hub; any other path unchanged."""
    return next((path / name for name in _FILES if (path / name).is_file()), path)


def read_hub_config(path: Path) -> HubConfig | None:
    """Read timm's config.json in the folder `path`, or beside the file `path`; None if there is none.

    Raises WeightsError if effnet does not support its preprocessing.
    """
    config = (path if path.is_dir() else path.parent) / CONFIG
    values = _read(config) if config.is_file() else None
    if values is None or "format" in values or not isinstance(values.get("architecture"), str):
        return None
    inner = values.get("pretrained_cfg")
    merged = values | (inner if isinstance(inner, dict) else {})
    try:
        preprocess = _preprocess(merged)
    except (DataError, TypeError, ValueError, OverflowError) as error:
        raise WeightsError(
            f"{config} must hold preprocessing as timm writes it, of a kind that effnet supports; {error}; "
            "correct it, or pass the id of published weights with the same preprocessing with --model ID"
        ) from error
    licence = merged.get("license")
    return HubConfig(
        network=values["architecture"], preprocess=preprocess, licence=licence if isinstance(licence, str) else ""
    )


def _preprocess(values: Mapping[str, Any]) -> Preprocess:
    """Return the preprocessing for testing."""
    if missing := [key for key in _NEEDED if key not in values]:
        raise ValueError(f"it lacks {', '.join(missing)}")
    _, height, width = values.get("test_input_size") or values["input_size"]
    if height != width:
        raise ValueError(f"input_size must be square, got {height} x {width}")
    return Preprocess(
        resolution=height,
        crop=float(values.get("test_crop_pct") or values["crop_pct"]),
        mode=values.get("crop_mode") or "center",
        interpolation=values["interpolation"],
        mean=tuple(values["mean"]),
        std=tuple(values["std"]),
    )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        values = read_json(path)
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None
