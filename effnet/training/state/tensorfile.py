"""Writes safetensors files atomically, one tensor at a time."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from effnet.errors import EffnetError
from effnet.system.files import written_whole

_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def save_tensors(tensors: Mapping[str, Tensor], path: Path, *, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors to `path` whole or not at all, and wait until they are on the disk.

    One tensor at a time is copied, while safetensors' own writer holds all of them twice. Raises EffnetError if the
    file cannot be written; the file that was at `path` then stays unchanged.
    Source: the format in the README of huggingface/safetensors.
    """
    try:
        with written_whole(path) as beside, open(beside, "wb") as file:
            order = _ordered(tensors)
            file.write(_header(tensors, order, dict(metadata or {})))
            for name in order:
                own = tensors[name].detach().cpu().contiguous()
                file.write(own.reshape(-1).view(torch.uint8).numpy().data)
    except OSError as error:
        kept = "; the previous file is intact" if path.is_file() else ""
        raise EffnetError(f"{path} could not be written: {error.strerror or error}{kept}") from error


def _ordered(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names, wider types first, so that each tensor is aligned to its element size."""
    return sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))


def _header(tensors: Mapping[str, Tensor], order: list[str], metadata: dict[str, str]) -> bytes:
    rows: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    place = 0
    for name in order:
        tensor = tensors[name]
        end = place + tensor.numel() * tensor.element_size()
        rows[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(rows, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
