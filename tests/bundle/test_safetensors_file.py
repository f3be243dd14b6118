"""Files of safetensors: every number type is read exactly or refused; a damaged header is an error of one line."""

import json
import struct

import numpy as np
import pytest
import safetensors.torch
import torch
from hostile import refused_cheaply

from effnet.bundle.safetensors_file import load_safetensors
from effnet.bundle.weights import load_arrays
from effnet.errors import BundleError
from effnet.weights.readers.files import read_arrays


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.float16])
def test_every_short_number_is_what_torch_makes_of_it(tmp_path, dtype):
    """All 256 numbers of 8 bits; of 16 bits all 65,536."""
    width = torch.tensor([], dtype=dtype).element_size()
    bits = torch.from_numpy(np.arange(256**width).astype(f"u{width}"))
    numbers = bits.view(dtype).reshape(16, -1)
    safetensors.torch.save_file({"a": numbers}, tmp_path / "w.safetensors")
    found = read_arrays(tmp_path / "w.safetensors")["a"]
    assert found.dtype == np.float32
    assert np.array_equal(found, numbers.float().numpy(), equal_nan=True)


def test_whatever_safetensors_writes_is_read(tmp_path):
    kinds = (torch.float64, torch.float32, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
    state = {str(kind): torch.tensor([[0, 1, 1], [1, 0, 1]]).to(kind) for kind in kinds}
    state |= {"none": torch.zeros(0, 3), "one": torch.tensor(7.0)}
    safetensors.torch.save_file(state, tmp_path / "w", metadata={"format": "pt", "é": "猫"})
    found, metadata = load_safetensors(tmp_path / "w")
    assert metadata == {"format": "pt", "é": "猫"}
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert np.array_equal(found[name], tensor.numpy())
        assert found[name].dtype == tensor.numpy().dtype


def write(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def row(kind, shape, *place):
    return {"dtype": kind, "shape": shape, "data_offsets": list(place)}


@pytest.mark.parametrize(
    "header, words",
    [
        ({"a": row("F4", [2], 0, 1)}, "a must be an array of numbers; got F4, which is not read; save it as float32"),
        ({"a": row("C64", [1], 0, 8)}, "a must be an array of numbers; got C64"),
        ({"a": row("F32", [10**10], 0, 4 * 10**10)}, "need 40,000,000,000 bytes"),
        ({"a": row("F32", [2**62, 4], 0, 8)}, "a must have a shape"),
        ({"a": row("F32", [1] * 40, 0, 4)}, "a must have a shape"),
        ({"a": row("F32", [2], 0, 4)}, "fill it one behind the other"),
        ({"a": row("F32", [2], 4, 12)}, "fill it one behind the other"),
        ({"a": row("F32", [2], 0, 8), "b": row("F32", [2], 0, 8)}, "fill it one behind the other"),
        ({"a": row("F32", [1], 0, 4)}, "they have 4 of 8 bytes"),
        ({"a": row("F32", [-2], 0, 8)}, "lacks its type, shape or place"),
        ({"a": row("F32", [True], 0, 8)}, "lacks its type, shape or place"),
        ({"a": row("F32", [2.0], 0, 8)}, "lacks its type, shape or place"),
        ({"a": row(None, [2], 0, 8)}, "lacks its type, shape or place"),
        ({"a": row("F32", [2], 8)}, "lacks its type, shape or place"),
        ({"a": 3}, "lacks its type, shape or place"),
        ({"__metadata__": {"a": 3}}, "metadata must be texts"),
        (b'{"a": ', "Expecting value"),
        (b'{"a": NaN}', "finite numbers"),
        (b'{"a":' * 10**5, "nested too deeply"),
        (b"{\xff", "must be UTF-8"),
        (b"{" + b" " * (10**7 + 1), "at most 10,000,000 bytes"),
    ],
)
def test_a_header_that_is_damaged_or_asks_for_too_much_is_refused(tmp_path, header, words):
    path = write(tmp_path / "w.safetensors", header, bytes(8))
    with refused_cheaply(rf"w\.safetensors.*{words}"):
        read_arrays(path)
    with pytest.raises(BundleError, match=rf"w\.safetensors.*{words}") as found:
        load_arrays(path)
    assert "\n" not in str(found.value)


def test_a_header_that_is_longer_than_the_file_is_refused(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", 2**63) + b"{}")
    with refused_cheaply(r"w\.safetensors is not a complete safetensors file \(its header lies beyond its end\)"):
        read_arrays(tmp_path / "w.safetensors")


def test_arrays_that_take_more_than_any_efficientnet_are_refused(tmp_path):
    """A sparse file needs no disk space, but has its nominal size."""
    path = write(tmp_path / "w.safetensors", {"a": row("U8", [5 * 10**9], 0, 5 * 10**9)})
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size + 5 * 10**9)
    with refused_cheaply(r"must hold at most 4,000,000,000 bytes of weights"):
        read_arrays(path)
