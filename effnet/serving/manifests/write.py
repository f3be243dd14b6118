"""Write the manifests of a server, beside the Dockerfile and the bundles of its image."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from effnet.bundle.config import read_config
from effnet.bundle.names import CONFIG, ONNX, PROOF, REPORT
from effnet.errors import InputError
from effnet.runtimes.predictor import Predictor
from effnet.serving.manifests.facts import Facts, facts_of
from effnet.serving.manifests.kubernetes import documents
from effnet.serving.manifests.others import compose, dockerfile, kserve_documents
from effnet.serving.manifests.plain_yaml import to_yaml
from effnet.serving.settings import Settings
from effnet.serving.versions.version import Source
from effnet.system.files import written_whole

_FILES = {"kubernetes": "kubernetes.yaml", "kserve": "kserve.yaml", "compose": "compose.yaml"}


def write_manifests(kind: str, sources: Sequence[Source], settings: Settings, *, out: Path) -> list[Path]:
    """Write the manifest of a kind, the Dockerfile and the bundles into `out`; return the files for people.

    Raises InputError if `out` holds other files.
    """
    if out.is_dir() and any(
        path.name not in (*_FILES.values(), "Dockerfile", "models", "wheels") for path in out.iterdir()
    ):
        raise InputError(f"--out must be a new folder, or one of manifests; {out} holds other files: name another")
    facts = facts_of(sources, settings)
    out.mkdir(parents=True, exist_ok=True)
    (out / "wheels").mkdir(exist_ok=True)
    for source, place in facts.models:
        _copy(source, out / place.lstrip("/"), settings)
    found = [out / _FILES[kind], out / "Dockerfile"]
    for path, text in zip(found, (_text(kind, facts), dockerfile(facts)), strict=True):
        with written_whole(path) as beside:
            Path(beside).write_text(text, encoding="utf-8")
    return found


def _text(kind: str, facts: Facts) -> str:
    if kind == "compose":
        return to_yaml(compose(facts))
    every = documents(facts) if kind == "kubernetes" else kserve_documents(facts)
    return "---\n".join(map(to_yaml, every))


def _copy(source: Source, place: Path, settings: Settings) -> None:
    """Copy what a server reads of a bundle; config.json last."""
    target = Predictor(source.folder, threads=1, format=settings.use).format
    read_config(source.folder)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for name in (*target.files, ONNX, PROOF, REPORT, CONFIG):
        path = source.folder / name
        if path.is_dir():
            shutil.copytree(path, place / name)
        elif path.is_file():
            shutil.copyfile(path, place / name)
