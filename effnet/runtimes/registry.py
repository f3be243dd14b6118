"""All runtimes and their formats: the only list. Each runtime is a folder with a record, imported when needed."""

import os
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from effnet.bundle.formats import FEATURES_SUFFIX, Format, Precision
from effnet.bundle.names import CONFIG
from effnet.errors import PACKAGES, BundleError, InputError, nearest, shown
from effnet.runtimes import coreml, executorch, litert, onnxruntime, openvino
from effnet.runtimes.record import Runtime
from effnet.system.bounds import MAX_THREADS

if TYPE_CHECKING:
    from effnet.bundle.config import ModelConfig
    from effnet.runtimes.base import Engine

# A new runtime: its folder above, and its record here.
_KNOWN = (onnxruntime.RUNTIME, openvino.RUNTIME, litert.RUNTIME, executorch.RUNTIME, coreml.RUNTIME)

DEFAULT = onnxruntime.RUNTIME.name
"""The runtime that every install has; other exports are compared with its fp32 file."""

RUNTIMES: dict[str, Runtime] = {}
"""The runtimes by name."""
FORMATS: dict[str, Format] = {}
"""The formats of probabilities, by name."""
FEATURES: dict[str, Format] = {}
"""The formats of embeddings, by the name of the one with probabilities."""
# effnet has no check that lower precisions preserve the similarity of embeddings.
_EMBEDDED: tuple[Precision, ...] = ("fp32", "fp16")


def register(runtime: Runtime) -> Runtime:
    """Add a runtime and its formats to all verbs of this process, and return it; do nothing if it is known already.

    A new Python process must be able to import its `home`: measurements run in one. Raises InputError if its name, or
    the name or file of one of its formats, is another's.
    """
    if RUNTIMES.get(runtime.name) == runtime:
        return runtime
    if runtime.name in RUNTIMES:
        raise InputError(f"a runtime's name must be new; there is another {runtime.name}")
    files = [name for found in (*FORMATS.values(), *runtime.formats) for name in found.files]
    for new in runtime.formats:
        if new.runtime != runtime.name:
            raise InputError(f"the format {new.name} must be of its runtime, {runtime.name}; it is of {new.runtime}")
        if not new.file.startswith("model."):
            raise InputError(f"the file of the format {new.name} must be named model.SOMETHING; got {shown(new.file)}")
        if new.name in FORMATS or any(files.count(name) > 1 for name in new.files):
            raise InputError(f"the format {new.name} ({new.file}) must be new; another has its name or a file of it")
    RUNTIMES[runtime.name] = runtime
    for new in runtime.formats:
        FORMATS[new.name] = new
        if runtime.can_run and new.precision in _EMBEDDED:
            FEATURES[new.name] = _embedding(new)
    # Every install has the package of the default runtime.
    optional = {need for need in runtime.needs if need != onnxruntime.RUNTIME.need}
    PACKAGES.update({need.module: (need.package, need.extra) for need in optional})
    return runtime


def register_home(home: str) -> str:
    """Register the runtime of the Python package `home`, in a new process, and return its name."""
    try:
        return register(import_module(home).RUNTIME).name
    except ModuleNotFoundError as error:
        raise InputError(
            f"a new Python process must be able to import the runtime's package {home}; {error}: install it, or put "
            "its folder on PYTHONPATH"
        ) from error


def _embedding(target: Format) -> Format:
    """Return the format of embeddings for a format of probabilities."""
    file, *others = (name.replace("model", "features", 1) for name in target.files)
    return replace(target, name=target.name + FEATURES_SUFFIX, file=file, others=tuple(others), result="features")


for _runtime in _KNOWN:
    register(_runtime)


def exports() -> Mapping[str, Format]:
    """Return all formats that `effnet export` can write into a bundle, those of probabilities first."""
    return ChainMap({found.name: found for found in FEATURES.values()}, FORMATS)


def runnable() -> tuple[str, ...]:
    """Return the names of the runtimes that effnet has an engine for, installed or not."""
    return tuple(name for name, found in RUNTIMES.items() if found.can_run)


def find_runtime(name: str) -> Runtime:
    """Return the runtime called `name`; raise InputError for an unknown one, and for one that effnet cannot run."""
    if name not in RUNTIMES:
        raise InputError(f"a runtime must be one of {', '.join(RUNTIMES)}; got {shown(name)}{nearest(name, RUNTIMES)}")
    if not RUNTIMES[name].can_run:
        raise InputError(f"effnet can run {', '.join(runnable())}; it cannot run {name}, only export to it")
    return RUNTIMES[name]


def by_precision(runtime: str) -> dict[Precision, Format]:
    """Return the formats of a runtime by their precision; empty for an unknown runtime."""
    return {found.precision: found for found in FORMATS.values() if found.runtime == runtime}


def find_format(name: str) -> Format:
    """Return the format called `name`; raise InputError for an unknown name, suggesting the nearest."""
    if name not in FORMATS:
        raise InputError(f"a format must be one of {', '.join(FORMATS)}; got {shown(name)}{nearest(name, FORMATS)}")
    return FORMATS[name]


def deployed_format(config: "ModelConfig") -> Format:
    """Return the format that predicts by default; raise BundleError if the config names none that effnet knows."""
    try:
        return find_format(config.deployed)
    except InputError as error:
        raise BundleError(f"`deployed` in {CONFIG}: {error}") from error


def find_export(name: str) -> Format:
    """Return the export called `name`, of embeddings or not; raise InputError like `find_format`."""
    return exports().get(name) or find_format(name)


def features_format(name: str) -> Format:
    """Return the format of embeddings for the format `name`; raise InputError if there is none."""
    if name not in FEATURES:
        target = find_format(name)
        raise InputError(
            f"embeddings can be exported to {', '.join(FEATURES)}; got {name}, whose "
            f"{'rounding' if RUNTIMES[target.runtime].can_run else 'output'} effnet cannot check"
        )
    return FEATURES[name]


def features_beside(target: Format) -> Format:
    """Return the format of embeddings in the runtime of `target`: in its precision, or else in fp32.

    Raises InputError if the runtime has none.
    """
    if target.name in FEATURES:
        return FEATURES[target.name]
    same = (found for found in FEATURES.values() if found.runtime == target.runtime)
    return next(same, None) or features_format(target.name)


def format_of(path: str | os.PathLike[str]) -> Format:
    """Return the format of a file, by its name; raise InputError if no format has such a name.

    The longest ending counts: model.int8.onnx is onnx-int8, any other .onnx is onnx.
    """
    if found := _format_of(path):
        return found
    endings = ", ".join(found.ending for found in FORMATS.values())
    raise InputError(f"the name of a model's file must end with one of {endings}; got {path}")


def files_of(path: Path) -> tuple[Path, ...]:
    """Return the file at `path` and those that belong to it, such as the weights of a graph."""
    found = _format_of(path)
    if found is None:
        return (path,)
    stem = path.name.removesuffix(found.ending)
    return (path, *(path.with_name(stem + name.removeprefix("model")) for name in found.others))


def _format_of(path: str | os.PathLike[str]) -> Format | None:
    name = Path(path).name
    known = sorted(FORMATS.values(), key=lambda found: -len(found.ending))
    return next((found for found in known if name.endswith(found.ending)), None)


def open_engine(
    path: str | os.PathLike[str],
    *,
    threads: int = 1,
    runtime: str | None = None,
    digests: Mapping[str, str] | None = None,
) -> "Engine":
    """Open a model file with `threads` threads (0: one per core); the file's name determines the runtime.

    `digests` are the expected digests of its files (see effnet.bundle.model_file). Raises BundleError if the file is
    missing, has another digest or cannot be read, MissingExtraError if the runtime is not installed, InputError if
    effnet cannot run it. A damaged file of a fragile runtime can crash the process: see runtimes.probe.
    """
    if not 0 <= threads <= MAX_THREADS:
        raise InputError(f"threads must lie in 0..{MAX_THREADS}; got {threads}")
    module = _engine(runtime or format_of(path).runtime)
    return module.open_engine(Path(path), threads=threads, digests=digests)


def preload(runtime: str) -> None:
    """Import a runtime, so that its own memory does not count as a model's."""
    _engine(runtime).preload()


def _engine(name: str) -> ModuleType:
    return import_module(f"{find_runtime(name).home}.engine")
