"""PyTorch's files: the results equal torch.load's, and a pickle is data that creates nothing."""

import argparse
import collections
import datetime
import io
import pathlib
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from hostile import PEAK_BYTES, refused_cheaply

from effnet.errors import WeightsError
from effnet.weights.readers.files import read_arrays
from effnet.weights.readers.pickled import Call, read_pickle

# torch plans to drop some types in these files.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
LAYOUTS = [(True, 2), (True, 4), (True, 5), (False, 2), (False, 4)]
NUMBERS = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.int64,
    torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
]  # fmt: skip


def save(content, path, *, zipped=True, protocol=2):
    torch.save(content, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    return path


def views():
    """A state dict of every kind of number, and of tensors that share storages, are views of them or are empty."""
    base = torch.arange(24, dtype=torch.float32)
    state = {str(dtype): torch.tensor([0.0, 1.0, 1.0, 0.0]).to(dtype) for dtype in NUMBERS}
    state |= {"transposed": base.reshape(4, 6).T, "every other": base[1::2], "corner": base.reshape(4, 6)[1:3, 2:4]}
    state |= {"expanded": base[3:4].expand(5), "one": base[7], "none": torch.zeros(0, 3), "whole": base}
    return state | {"parameter": torch.nn.Parameter(base.reshape(2, 12)), "frozen": base.clone().requires_grad_()}


@pytest.mark.parametrize("zipped, protocol", LAYOUTS)
def test_what_torch_loads_is_read(tmp_path, zipped, protocol):
    state = views()
    found = read_arrays(save({"epoch": 3, "state_dict": state}, tmp_path / "w.pth", zipped=zipped, protocol=protocol))
    assert list(found) == list(state)
    for name, tensor in state.items():
        wanted = tensor.detach().float().numpy() if tensor.is_floating_point() else tensor.numpy()
        assert np.array_equal(found[name], wanted), name
        assert found[name].dtype == wanted.dtype
        assert found[name].flags.writeable


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_of_a_training_script_is_read(tmp_path, zipped):
    """timm's CheckpointSaver and torchvision's script put their arguments and an optimizer beside the weights."""
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    moments = {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(4, 3, 3, 3)}}
    optimizer = {"state": moments, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999), "params": [0]}]}
    arguments = argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("runs"), seen=collections.Counter("ab"))
    beside = {"args": arguments, "metric": np.float64(81.2), "numbers": np.arange(3), "when": datetime.date(2026, 1, 2)}
    beside |= {"optimizer": optimizer, "sizes": {torch.Size([2, 3]), 4}, "type": torch.float16}
    found = read_arrays(save({"state_dict": model.state_dict(), **beside}, tmp_path / "w.pth", zipped=zipped))
    assert found.keys() == model.state_dict().keys()
    assert all(np.array_equal(found[name], value.numpy()) for name, value in model.state_dict().items())


def test_tensors_that_hold_no_numbers_are_refused(tmp_path):
    quantized = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    ones = torch.ones(3)
    for tensor in (quantized, ones.to_sparse(), ones.to(torch.complex64), ones.to("meta")):
        with refused_cheaply(r"w\.pth: a must be an array of numbers; got \S+; use the weights before quantization"):
            read_arrays(save({"a": tensor}, tmp_path / "w.pth"))


def test_a_program_of_torchscript_is_refused(tmp_path):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "w.pt")
    with refused_cheaply(r"w\.pt must hold tensors and nothing else; it is a TorchScript program"):
        read_arrays(tmp_path / "w.pt")


class Made:
    """Pickled as the call of `function`."""

    def __init__(self, function, *arguments, items=()):
        self.call = function, arguments, None, None, iter(items) if items else None

    def __reduce__(self):
        return self.call


def expanded(count, stride=0):
    """A tensor of one number that claims `count`; the pickler of torch.save writes the claim."""
    tensor = torch.zeros(1)
    return Made(torch._utils._rebuild_tensor_v2, tensor.storage(), 0, (count,), (stride,), False, {})


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("value", ["expanded", "far", "negative", "huge", "many"])
def test_tensors_that_ask_for_more_than_the_file_has_are_refused(tmp_path, value, zipped):
    values = {
        "expanded": {"a": expanded(10**10)},
        "far": {"a": expanded(10**6, stride=1)},
        "negative": {"a": expanded(-1)},
        "huge": {"a": expanded(2**70)},
        "many": {f"a{number}": expanded(5000) for number in range(100)},
    }
    path = save({"b": torch.zeros(2000)} | values[value], tmp_path / "w.pth", zipped=zipped)
    with refused_cheaply(r"w\.pth (must hold the numbers that it declares|is cut off or damaged)"):
        read_arrays(path)


def loop():
    content = {"a": torch.zeros(2)}
    content["state_dict"] = content
    return content


def doubled(times, kind):
    value = kind(())
    for _ in range(times):
        value = kind((value, value))
    return value


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "content, words",
    [
        ({"b": Made(bytearray, 10**10)}, "it holds a dict without any tensor"),
        ({"b": Made(torch.FloatTensor, 10**10)}, "it holds a dict without any tensor"),
        ({"b": doubled(60, tuple)}, "it holds a dict without any tensor"),
        ({"a": Made(torch._utils._rebuild_parameter, 3)}, "described in another way than torch's"),
        ({"a": Made(torch._utils._rebuild_tensor_v2, 3, 4)}, "described in another way than torch's"),
        ({"a": Made(torch._utils._rebuild_tensor_v2)}, "described in another way than torch's"),
    ],
    ids=["bytes", "tensor", "doubled", "parameter of none", "tensor of none", "nothing"],
)
def test_what_a_pickle_asks_to_make_is_not_made(tmp_path, content, words, zipped):
    """torch.load(weights_only=True) allocates all of them: 10 GB for a file of 1 KB, or it never ends."""
    with refused_cheaply(words):
        read_arrays(save(content, tmp_path / "w.pth", zipped=zipped))


def nested(times, *, shared):
    value = {"t": torch.zeros(1)}
    for _ in range(times):
        value = {"a" * 100: value} | ({"b": value} if shared else {})
    return value


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "more",
    [
        loop(),
        {"b": Made(bytearray, 10**10)},
        {"b": doubled(60, tuple)},
        nested(60, shared=True),
        nested(300, shared=False),
    ],
    ids=["itself", "bytes", "doubled", "shared", "deep"],
)
def test_what_lies_beside_tensors_costs_nothing(tmp_path, more, zipped):
    path = save({"a": torch.zeros(2)} | more, tmp_path / "w.pth", zipped=zipped)
    tracemalloc.start()
    try:
        assert list(read_arrays(path)) == ["a"]
        assert tracemalloc.get_traced_memory()[1] < PEAK_BYTES
    finally:
        tracemalloc.stop()


def test_a_namespace_has_its_attributes_and_a_dictionary_none():
    value = {"args": argparse.Namespace(model="b0", lr=0.1), "d": collections.OrderedDict(a=1)}
    value["d"].metadata = {"version": 1}
    for protocol in range(6):
        found = read_pickle(io.BytesIO(pickle.dumps(value, protocol=protocol)))
        if protocol >= 2:
            assert found.value["args"] == {"model": "b0", "lr": 0.1}
        assert found.value["d"] == {"a": 1}


def test_keys_that_take_for_ever_to_hash_are_passed_over():
    pickled = pickle.dumps(doubled(60, tuple), protocol=2)[:-1]
    stream = io.BytesIO(b"\x80\x02}" + pickled[2:] + b"K\x01sX\x01\x00\x00\x00aK\x02s.")
    assert read_pickle(stream).value == {"a": 2}
    assert stream.read() == b""


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_of_any_protocol_is_read_as_data(protocol):
    value = {"a": [1, -2, 2**80, 0.5, None, True, False], "b": ("é", "", ((), (3,), (4, 5))), "c": {"d": {}}}
    found = read_pickle(io.BytesIO(pickle.dumps(value, protocol=protocol)))
    assert found.value == value
    assert not found.names
    ordered = read_pickle(io.BytesIO(pickle.dumps(collections.OrderedDict(value), protocol=protocol)))
    assert ordered.value == value
    foreign = read_pickle(io.BytesIO(pickle.dumps(pathlib.PurePosixPath("x"), protocol=protocol)))
    assert isinstance(foreign.value, Call)
    assert any(name.endswith("PurePosixPath") for name in foreign.names)


def test_one_list_does_not_become_dictionaries_without_end():
    pairs = b"(" + b"(X\x01\x00\x00\x00aK\x01l" * 1000 + b"lq\x00"
    pickled = b"\x80\x02" + pairs + b"ccollections\nOrderedDict\nq\x01(" + b"h\x01h\x00\x85R" * 2000 + b"l."
    with pytest.raises(ValueError, match="too many dictionaries"):
        read_pickle(io.BytesIO(pickled))


@pytest.mark.parametrize(
    "pickled",
    [b"", b".", b"\x80\x02", b"\x80\x02s.", b"\x80\x02(", b"\x80\x02K\x01R.", b"\x80\x02h\x05.", b"\xff", b"0."],
)
def test_a_damaged_pickle_is_a_value_error(pickled):
    with pytest.raises(ValueError):
        read_pickle(io.BytesIO(pickled))


def rezipped(source, target, *, compression=zipfile.ZIP_STORED, change=lambda name, data: data):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return target


def test_an_archive_that_torch_does_not_write_is_refused(tmp_path):
    path = save({"a": torch.zeros(10**6)}, tmp_path / "w.pth")
    packed = rezipped(path, tmp_path / "packed.pth", compression=zipfile.ZIP_DEFLATED)
    with refused_cheaply("its parts are compressed, which torch never does"):
        read_arrays(packed)
    short = rezipped(path, tmp_path / "short.pth", change=lambda n, data: data[:-4] if "/data/" in n else data)
    with refused_cheaply("a storage in it has too few bytes"):
        read_arrays(short)
    long = rezipped(path, tmp_path / "long.pth", change=lambda n, data: bytes(5 * 10**6) if n.endswith("pkl") else data)
    with refused_cheaply("must have at most 4,000,000 bytes; it has 5,000,000"):
        read_arrays(long)
    big = rezipped(path, tmp_path / "big.pth", change=lambda n, data: b"big" if n.endswith("byteorder") else data)
    with refused_cheaply("big-endian"):
        read_arrays(big)


def test_numbers_that_were_changed_on_the_way_are_noticed(tmp_path):
    path = save({"a": torch.ones(100)}, tmp_path / "w.pth")
    data = path.read_bytes()
    at = data.index(np.ones(100, np.float32).tobytes())
    path.write_bytes(data[:at] + b"\x01" + data[at + 1 :])
    with pytest.raises(WeightsError, match=r"w\.pth is cut off or damaged \(Bad CRC-32"):
        read_arrays(path)
