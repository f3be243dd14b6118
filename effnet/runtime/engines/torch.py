"""PyTorch, for archives of torch.export.

`torch.export.load` reads a graph as JSON and its weights as bytes, but what an archive asks for it also unpickles,
evaluates as an expression, or looks up by name anywhere in torch. So an archive is read only where it holds nothing
but what effnet writes: operators of ATen, plain tensors, and the batch as the only unknown.
"""

import io
import json
import re
import threading
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from effnet.errors import BundleError, MissingExtraError

# The number of threads belongs to the process, so that engines take turns with it.
_LOCK = threading.Lock()

_SAMPLE = "data/sample_inputs/model.pt"
_GRAPH = "models/model.json"
_MEMBERS = re.compile(
    r"archive_format|archive_version|byteorder|\.data/\w+|extra/\w+|data/weights/weight_\d+"
    r"|data/(weights/model_weights|constants/model_constants)_config\.json"
    rf"|{re.escape(_SAMPLE)}|{re.escape(_GRAPH)}"
)
_TYPES = re.compile(r'"type": "(?!builtins\.(?:tuple|dict|list)")')
_PLAIN = re.compile(r"[\w.+-]*")
# What a text under this key must look like; any other is a plain name.
_TEXTS = {
    "target": re.compile(r"torch\.ops\.aten\.\w+\.\w+"),
    "expr_str": re.compile(r"Symbol\('s\d+', positive=True, integer=True\)"),
    "nn_module_stack": re.compile(r"[\w.,;@]*"),
    "torch_fn": re.compile(r"[\w.;]*"),
    "in_spec": re.compile(r'[\w\s.\[\]{}:,"]*'),
    "out_spec": re.compile(r'[\w\s.\[\]{}:,"]*'),
}
_ARGUMENTS = {
    *("as_tensor", "as_tensors", "as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_bools", "as_none"),
    *("as_scalar_type", "as_device", "as_layout", "as_memory_format", "as_expr", "as_sym_int", "as_sym_ints"),
    *("as_name", "as_string"),
}


def preload() -> Any:
    """Imports the runtime and returns it."""
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "train") from error
    return torch


class TorchEngine:
    """An archive of torch.export, run eagerly; torch's number of threads is set for the time of a run."""

    def __init__(self, path: Path, *, threads: int) -> None:
        self._torch = torch = preload()
        if not path.is_file():
            raise BundleError(f"there must be a model at {path}; none is there: `effnet export` writes it")
        data = path.read_bytes()
        _check(data, path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                warnings.simplefilter("ignore", FutureWarning)
                program = torch.export.load(io.BytesIO(data))
            names, nodes = program.graph_signature.user_inputs, list(program.graph.nodes)
            (image,) = (node.meta["val"] for node in nodes if node.name in names)
            (output,) = next(node for node in nodes if node.op == "output").args[0]
            _, self.side, _, self.channels = map(_whole, image.shape)
            self.classes = int(output.meta["val"].shape[1])
            self._module = program.module()
        except Exception as error:  # the reader raises whatever its parts do
            raise BundleError(f"torch {torch.__version__} cannot read {path}: {error}") from error
        self._threads = threads

    def run(self, images: np.ndarray) -> np.ndarray:
        """Maps uint8 [batch, side, side, channels] to float32 [batch, classes]."""
        torch = self._torch
        with _LOCK:
            before = torch.get_num_threads()
            torch.set_num_threads(self._threads or before)
            try:
                with torch.inference_mode():
                    return self._module(torch.from_numpy(np.ascontiguousarray(images))).numpy()
            finally:
                torch.set_num_threads(before)


def _whole(size: Any) -> int:
    return size if isinstance(size, int) else 0


def _check(data: bytes, path: Path) -> None:
    """Raises BundleError where an archive holds what effnet does not write, which could run code when it is read."""
    import torch

    def refuse(what: str) -> BundleError:
        return BundleError(
            f"{path} must be an archive as `effnet export --to pt2` writes it; it has {what}, which could run code "
            "when it is read: export it anew"
        )

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [name.partition("/")[2] for name in archive.namelist()]
            root = archive.namelist()[0].partition("/")[0] if members else ""
            if len(set(archive.namelist())) < len(members) or any(
                not name.startswith(f"{root}/") for name in archive.namelist()
            ):
                raise refuse("two files of one name")
            for name in members:
                if not _MEMBERS.fullmatch(name):
                    raise refuse(f"a file {name!r}")
            for name in members:
                if name.endswith(".json"):
                    for key, text in _texts(json.loads(archive.read(f"{root}/{name}"))):
                        if not _allowed(key, text):
                            raise refuse(f"{key} {text!r}")
            sample = archive.read(f"{root}/{_SAMPLE}")
    except (zipfile.BadZipFile, KeyError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} is no whole archive of torch.export: {error}") from error
    try:
        # Where this fails, torch.export would unpickle without care.
        torch.load(io.BytesIO(sample), weights_only=True)
    except Exception as error:
        raise refuse("example inputs that are no tensors") from error


def _texts(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Yields each text within JSON with the key that it lies under, each key, and what asks for a pickle."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield "name", name
            if name == "metadata" and isinstance(inner, dict) and set(inner) - {"nn_module_stack", "torch_fn"}:
                yield "metadata", sorted(inner)
            yield from _texts(inner, name)
    elif isinstance(value, list):
        if key == "guards_code" and value:
            yield key, value
        for inner in value:
            yield from _texts(inner, key)
    elif isinstance(value, str) or key == "use_pickle":
        yield key, value


def _allowed(key: str, text: object) -> bool:
    if not isinstance(text, str):
        return key == "use_pickle" and text is False
    if key in ("in_spec", "out_spec") and _TYPES.search(text):
        return False
    if key == "name" and text.startswith("as_") and text not in _ARGUMENTS:
        return False
    return bool(_TEXTS.get(key, _PLAIN).fullmatch(text))


def open_engine(path: Path, *, threads: int) -> TorchEngine:
    """Opens an archive of torch.export; raises BundleError where it is missing, unreadable or not effnet's."""
    return TorchEngine(path, threads=threads)
