"""Whether a bundle's weights are published ones: config.json keeps their origin and a digest."""

from pathlib import Path

from effnet.bundle.config import ModelConfig
from effnet.bundle.names import WEIGHTS
from effnet.system.cache import file_digest
from effnet.weights.catalog import PublishedWeights, entries


def find_origin(config: ModelConfig) -> PublishedWeights | None:
    """Return the published weights that a bundle was made of, changed since or not, or None."""
    made_of = config.origin.published if config.origin else ""
    return next((entry for entry in entries() if made_of and entry.id == made_of), None)


def published_origin(folder: Path, config: ModelConfig) -> PublishedWeights | None:
    """Return the published weights that equal a bundle's to the byte, or None if they were trained or edited since."""
    entry = find_origin(config)
    if entry is None or config.origin is None:
        return None
    return entry if file_digest(folder / WEIGHTS, "sha256") == config.origin.weights_sha256 else None


def origin_words(folder: Path, config: ModelConfig) -> str:
    """Return the origin of a bundle's weights, and whether they have changed since; empty if unknown."""
    if config.origin is None:
        return ""
    changed = file_digest(folder / WEIGHTS, "sha256") != config.origin.weights_sha256
    return f"made of {config.origin.source}, and changed since" if changed else config.origin.source
