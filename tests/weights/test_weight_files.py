"""Files of weights: every format gives the saved arrays, and other files are named."""

import base64
import os
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from checkpoints import table, write_checkpoint
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow

from effnet.errors import WeightsError
from effnet.weights.readers.crc32c import crc32c, masked_crc32c
from effnet.weights.readers.files import read_arrays
from effnet.weights.readers.tensorflow import read_bundle, read_table

# Sixty keys and values as LevelDB's own library wrote them (plyvel 1.5.1, uncompressed, blocks of 300 bytes).
LEVELDB_TABLE = (
    "c-o~`OK%ck6dekbp)V+HIk%-Pj{<!G0|NtvcJEJc*`yVchK43ub*o$b2gXF3nCQ}t3u8>&xYES6F>YO|ab@B{>$KMPl!2LHl37gVoO8eL-gD"
    "-m6qIJGwYR(1>>PHQhxwhNwzGe*+rF_~)OHU#xAbdTyLr9S-1m4C^8h?0x-)cgM-hxLY4r4#XUOaG4+qqsV3g@&j2RJ(=>!_T1R52LmkBj-8"
    "8s%Ds1PjF1vV}S8H5XW!%YanRRT_S1%?EZH9|(ZBg2Bo20^DRpp$~BI$@`+un}O0d+GfL7EJTNW-NuK1T#Fks5N?85aq(?0iRJcSU6GVF-tF"
    "<s6cq&vpoqA%<|~x`Y;4@Y=T%H%B&#9c9`$SnG?*jF&6rgVuA&>$YOt%xte>&aW)ej$@(8F1+T?WcqYCxdBGyPDsH3pf*{WRO4#8o3KHzJq%"
    "C4xkmP-&>@gF96uWH6CN(KoV!x&Ba#MmdJ1=9Kyd=o52ebCsX+f6Vxa@$Q5iGMWSDf&(fREem|1Tg|Ve73rl3y0AvI*CmDXa+A*pBNCB~}IN"
    "Y|NZfjWtEfS%kO3J<K~6H@EcKd-|++`Q)LlXnCu0?Dm55aydbPeXqHY$qO`2K+%m(K~Ur@lw1jEf)b}fcc)YY{M_u}b5a7G15$QbsU#?KR4Q"
    "(@bU}qfW4IP83k;4=)xBCpQ02hX29PrZH6GH&AbM5724|x_kYG(v=ae)CQ#5yI{zSam`W{fUhQ-6e;81N2Shp_N<alijs@VXBx#fZLqCkKfs"
    "9q=vsJzqQ#Z>`8UiS#C`>dzN-4~zFF5dh&dah_zUv9e9m*E3d(R>cy7?0GaJy?c?hu(#ssY=k-^87wIe#!^)HS#y|?c?+4_%uH#zkT_7`+ZF"
    "P7<+sA``P2T`s>d9^vx@u{s4_-W_|"
)
STATE = {
    "a.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 7,
    "b.bias": np.array([-1.5, 0.0, 3e38], dtype=np.float32),
    "scalar": np.array(4, dtype=np.float32),
}


def tensors(state=STATE):
    return {name: torch.from_numpy(array.copy()) for name, array in state.items()}


def check_equal(found, expected=STATE):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == np.float32
        assert np.array_equal(found[name], array)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "misnamed.h5", "pytorch_model.bin"])
def test_safetensors_is_read_under_any_name(tmp_path, name):
    safetensors.numpy.save_file(STATE, tmp_path / name)
    check_equal(read_arrays(tmp_path / name))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("save", [safetensors.torch.save_file, torch.save])
def test_other_precisions_become_32_bit(tmp_path, dtype, save):
    exact = {"x": torch.tensor([1.5, -2.0, 0.0078125])}
    save({"x": exact["x"].to(dtype)}, tmp_path / "w")
    check_equal(read_arrays(tmp_path / "w"), {"x": exact["x"].numpy()})


def test_arrays_outlive_their_file(tmp_path):
    torch.save(tensors(), tmp_path / "w.pth")
    found = read_arrays(tmp_path / "w.pth")
    (tmp_path / "w.pth").write_bytes(b"\0" * (tmp_path / "w.pth").stat().st_size)
    check_equal(found)


class Program:
    """Code that unpickling would run."""

    def __reduce__(self):
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_pickle_with_code_is_refused_and_never_run(tmp_path, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": tensors(), "args": Program()}, "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"w.pth must hold tensors and nothing else; .* save its state_dict\(\) as"):
        read_arrays(Path("w.pth"))
    assert not Path("ran").exists()


class Command:
    def __reduce__(self):
        return os.system, ("touch ran",)


def test_a_pickle_with_a_command_is_said_to_hold_one(tmp_path):
    """Torch has another error for modules that it never allows."""
    torch.save({"args": Command()}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"this pickle asks to run (posix|nt)\.system, and a pickle can run any"):
        read_arrays(tmp_path / "w.pth")


def test_a_pickled_module_and_other_content_are_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(WeightsError, match=r"asks to run torch.nn.modules.linear.Linear, and a pickle can run any"):
        read_arrays(tmp_path / "module.pth")
    for content, kind in (([torch.zeros(2)], "list"), ({"lr": 0.1}, "dict")):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(WeightsError, match=f"a state dict, names with tensors; it holds a {kind} without any tens"):
            read_arrays(tmp_path / "w.pth")


def test_what_is_no_tensor_is_left_out(tmp_path):
    torch.save({"a": torch.zeros(2), "lr": 0.1, "names": ["x"], "sizes": torch.Size([2])}, tmp_path / "mixed.pth")
    assert list(read_arrays(tmp_path / "mixed.pth")) == ["a"]


def save_keras_2(path, state, *, inside=""):
    with h5py.File(path, "w") as file:
        root = file.create_group(inside) if inside else file
        root.attrs["layer_names"] = [name.split("/")[0].encode() for name in state]
        for name, array in state.items():
            layer = name.split("/")[0]
            root.require_group(layer)[f"{name}:0"] = array
        if inside:
            file["optimizer_weights/rmsprop/kernel:0"] = np.ones(3)


@pytest.mark.parametrize("inside", ["", "model_weights"])
def test_keras_2_files(tmp_path, inside):
    state = {
        "stem_conv/kernel": STATE["a.weight"],
        "stem_bn/gamma": STATE["b.bias"],
        "block1a_dwconv/depthwise_kernel": STATE["a.weight"] + 1,
    }
    save_keras_2(tmp_path / "w.h5", state, inside=inside)
    check_equal(read_arrays(tmp_path / "w.h5"), state)
    # A network within a network has its layers one group further down.
    with h5py.File(tmp_path / "nested.h5", "w") as file:
        file["efficientnetb0/stem_conv/kernel:0"] = STATE["a.weight"]
    check_equal(read_arrays(tmp_path / "nested.h5"), {"stem_conv/kernel": STATE["a.weight"]})


def test_keras_3_files_without_names_are_refused(tmp_path):
    with h5py.File(tmp_path / "w.weights.h5", "w") as file:
        file["layers/conv2d/vars/0"] = STATE["a.weight"]
    with pytest.raises(WeightsError, match=r"must hold the names of its layers; /layers/conv2d/vars/0 has none; save"):
        read_arrays(tmp_path / "w.weights.h5")


def test_leveldbs_own_tables_are_read():
    pairs = list(read_table(zlib.decompress(base64.b85decode(LEVELDB_TABLE))))
    # LevelDB itself, unlike TensorFlow, puts eight bytes of its own behind a key.
    expected = {f"efficientnet-b0/blocks_{n}/conv2d/kernel".encode(): bytes(range(n)) for n in range(60)}
    assert {key[:-8]: value for key, value in pairs} == expected
    assert len(pairs) == 60


def test_the_checksum_is_the_published_one():
    # RFC 3720, appendix B.4.
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(bytes(range(31, -1, -1))) == 0x113FDB5C


@given(st.integers(0, 2000), st.integers(0, 2**32 - 1))
def test_the_checksum_is_tensorboards(length, seed):
    data = np.random.default_rng(seed).integers(0, 256, length, dtype=np.uint8).tobytes()
    assert crc32c(data) == pywrap_tensorflow.crc32c(data)
    assert masked_crc32c(data) == pywrap_tensorflow.masked_crc32c(data)


VARIABLES = {
    "net/stem/conv2d/kernel": STATE["a.weight"],
    "net/stem/conv2d/kernel/ExponentialMovingAverage": STATE["a.weight"] * 2,
    "net/stem/conv2d/kernel/RMSProp": STATE["a.weight"] * 3,
    "net/head/dense/bias": STATE["b.bias"],
    "global_step": np.array(350_000, dtype=np.int64),
    "empty": np.zeros((0, 3), np.float32),
    "double": np.array([0.5]),
    # 1.5 and -2 in bfloat16.
    "brief": np.array([0x3FC0, 0xC000], dtype=np.uint16),
}


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("per_block", [1, 2, 40])
def test_tensorflow_checkpoints(tmp_path, shards, per_block):
    write_checkpoint(tmp_path / "model.ckpt-7", VARIABLES, shards=shards, per_block=per_block)
    expected = {
        **{name: array.astype(np.float32) for name, array in VARIABLES.items() if not name.endswith("RMSProp")},
        "global_step": VARIABLES["global_step"],
        "brief": np.array([1.5, -2.0], np.float32),
    }
    for named in ("model.ckpt-7", "model.ckpt-7.index", f"model.ckpt-7.data-00000-of-{shards:05d}", "."):
        found = read_arrays(tmp_path / named)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], array) for name, array in expected.items())
        assert {array.dtype.str for array in found.values()} == {"<f4", "<i8"}


def test_a_folder_of_checkpoints_gives_the_latest_that_it_names(tmp_path):
    for step in (1, 2):
        write_checkpoint(tmp_path / f"model.ckpt-{step}", {"x": np.float32([step])})
    with pytest.raises(WeightsError, match=r"must hold one TensorFlow checkpoint.* holds model.ckpt-1.index, model.ck"):
        read_arrays(tmp_path)
    listing = 'model_checkpoint_path: "/elsewhere/model.ckpt-1"\nall_model_checkpoint_paths: "model.ckpt-2"\n'
    (tmp_path / "checkpoint").write_text(listing)
    assert read_arrays(tmp_path)["x"] == 1
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-9"\n')
    with pytest.raises(WeightsError, match="must hold one TensorFlow checkpoint"):
        read_arrays(tmp_path)


def damage(path, change):
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)


def flip(place):
    def change(data):
        data[place] ^= 4

    return change


@pytest.mark.parametrize(
    "suffix, change, words",
    [
        ("index", flip(5), "the checksum of a block is wrong; get it again"),
        ("index", flip(-1), "is cut off or|must be"),
        ("index", lambda data: data.__delitem__(slice(0, 20)), "must be the index of a TensorFlow checkpoint"),
        ("index", lambda data: data.__delitem__(slice(-30, None)), "its end is missing"),
        ("data-00000-of-00001", flip(40), "has a wrong checksum, so the file is damaged"),
        (
            "data-00000-of-00001",
            lambda data: data.__delitem__(slice(-200, None)),
            "beyond the end of the file, which is",
        ),
    ],
)
def test_damaged_checkpoints(tmp_path, suffix, change, words):
    write_checkpoint(tmp_path / "m", VARIABLES)
    damage(tmp_path / f"m.{suffix}", change)
    with pytest.raises(WeightsError, match=rf"m\.{suffix}.*({words})"):
        read_arrays(tmp_path / "m")


def test_checkpoints_that_cannot_be_read(tmp_path):
    write_checkpoint(tmp_path / "sliced", VARIABLES, sliced="double")
    with pytest.raises(WeightsError, match="double is stored in slices, which are not read; save"):
        read_arrays(tmp_path / "sliced")
    write_checkpoint(tmp_path / "big", VARIABLES, endianness=1)
    with pytest.raises(WeightsError, match="big-endian"):
        read_arrays(tmp_path / "big")
    write_checkpoint(tmp_path / "half", VARIABLES)
    (tmp_path / "half.data-00000-of-00001").unlink()
    with pytest.raises(WeightsError, match=r"its numbers in half.data-00000-of-00001, which is not beside it"):
        read_arrays(tmp_path / "half.index")
    (tmp_path / "snappy.index").write_bytes(table([(b"", b"")], compression=1))
    with pytest.raises(WeightsError, match="its blocks are compressed"):
        read_arrays(tmp_path / "snappy")
    (tmp_path / "renamed.pb").write_bytes((tmp_path / "big.index").read_bytes())
    with pytest.raises(WeightsError, match=r"renamed.pb must be named NAME.index"):
        read_arrays(tmp_path / "renamed.pb")


@given(st.data())
def test_no_damage_to_an_index_ends_in_another_error(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz")
    write_checkpoint(folder / "m", {"a/kernel": STATE["a.weight"], "a/bias": STATE["b.bias"]})
    content = bytearray((folder / "m.index").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "m.index").write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        found = read_bundle(folder / "m")
    except WeightsError:
        return
    assert all(
        np.array_equal(found[name], STATE[own]) for name, own in (("a/kernel", "a.weight"), ("a/bias", "b.bias"))
    )


@pytest.mark.parametrize("save", ["safetensors", "zip", "legacy", "h5", "keras"])
def test_files_that_are_cut_off(tmp_path, save):
    path = tmp_path / "w.bin"
    big = {"x": np.ones(5000, np.float32)}
    if save == "safetensors":
        safetensors.numpy.save_file(big, path)
    elif save == "h5":
        save_keras_2(path, {"layer/kernel": big["x"]})
    elif save == "keras":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model.weights.h5", b"\x89HDF\r\n\x1a\n" + bytes(200))
    else:
        torch.save(tensors(big), path, _use_new_zipfile_serialization=save == "zip")
    if save != "keras":
        damage(path, lambda data: data.__delitem__(slice(len(data) // 2, None)))
    with pytest.raises(
        WeightsError, match=r"w\.bin (is cut off or damaged|is not a complete safetensors file).*; get it again"
    ):
        read_arrays(path)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "it is empty; get it again"),
        (b"\n<!DOCTYPE html><html>404", "it is a web page, sent by the server instead"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer to the real file; fetch that with"),
        (b"\x1f\x8b\x08 gzip", "it is an archive; unpack it"),
        (b'{"error": 1}', r"it begins with b'{\"error\": 1}', which is none of these formats"),
        (b"PK\x05\x06" + bytes(18), "it begins with b'PK"),
    ],
)
def test_what_is_no_file_of_weights(tmp_path, content, words):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=rf"w\.pth must be a file of weights .*{words}"):
        read_arrays(tmp_path / "w.pth")


def test_what_is_not_there_or_holds_nothing(tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match=r"nope.pth must be a file of weights .* there is no such file"):
        read_arrays(tmp_path / "nope.pth")
    with pytest.raises(WeightsError, match=r"is a folder; as weights it must hold one TensorFlow .* holds none"):
        read_arrays(tmp_path)
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr("readme", "x")
    with pytest.raises(WeightsError, match="it is an archive; unpack it"):
        read_arrays(tmp_path / "w.zip")
    safetensors.numpy.save_file({}, tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match="it has no arrays"):
        read_arrays(tmp_path / "none.safetensors")

    def forbid(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("effnet.weights.readers.files.open_regular", forbid)
    with pytest.raises(WeightsError, match=r"w.zip must be a readable file .* the system says: Permission denied"):
        read_arrays(tmp_path / "w.zip")
