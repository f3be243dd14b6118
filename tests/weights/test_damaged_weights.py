"""Damage of every kind to a file of weights of every kind: it is read, or refused in one line."""

import io
import random
import shutil
import tarfile
import zipfile

import h5py
import numpy as np
import pytest
import safetensors.numpy
import torch
from checkpoints import write_checkpoint

from effnet.errors import WeightsError
from effnet.weights.readers.archive import unpack
from effnet.weights.readers.files import read_arrays

STATE = {f"{n}.{name}": np.full(shape, n, np.float32) for n in range(3) for name, shape in (("a", (4, 3)), ("b", (4,)))}
NAMES = ("w.safetensors", "w.pth", "w.legacy.pth", "w.h5", "w.weights.h5", "w.keras", "w.tar.gz", "m.index")
NAMES += ("m.data-00000-of-00001",)
MUTANTS = 20
NUMBERS = (b"\xff" * 8, b"\xff" * 4, b"\0\0\0\x80", (2**40).to_bytes(8, "little"), (3 * 10**9).to_bytes(4, "little"))


def write_keras(path):
    with h5py.File(path, "w") as file:
        for number in range(3):
            group = file.create_group(f"layers/conv_{number}/vars")
            group.attrs["name"], group["0"], group["1"] = f"conv_{number}", STATE[f"{number}.a"], STATE[f"{number}.b"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small file of every kind, by its name."""
    folder = tmp_path_factory.mktemp("whole")
    tensors = {name: torch.from_numpy(array) for name, array in STATE.items()}
    content = {"state_dict": tensors, "optimizer": {"state": {0: {"step": 3}}, "lr": 0.1}}
    safetensors.numpy.save_file(STATE, folder / "w.safetensors", metadata={"format": "pt"})
    torch.save(content, folder / "w.pth")
    torch.save(content, folder / "w.legacy.pth", _use_new_zipfile_serialization=False)
    with h5py.File(folder / "w.h5", "w") as file:
        for name, array in STATE.items():
            file[f"layer{name.replace('.', '/')}:0"] = array
    write_keras(folder / "w.weights.h5")
    with zipfile.ZipFile(folder / "w.keras", "w") as archive:
        archive.write(folder / "w.weights.h5", "model.weights.h5")
    write_checkpoint(folder / "m", STATE)
    with tarfile.open(folder / "w.tar.gz", "w:gz") as archive:
        for name in ("m.index", "m.data-00000-of-00001"):
            archive.add(folder / name, name)
    return folder


def damaged(data, rng):
    """Return `data` with one to four pieces cut out, doubled, zeroed, moved or made other numbers."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(min(len(data), rng.choice((600, 10**6)))) if data else 0
        end = at + rng.choice((1, 2, 8, 64, 300))
        kind = rng.randrange(6)
        if kind == 0:
            del data[at : rng.choice((end, len(data)))]
        elif kind == 1:
            data[at:end] = bytes(len(data[at:end]))
        elif kind == 2:
            data[at:at] = data[at:end]
        elif kind == 3:
            data[at : at + 8] = rng.choice(NUMBERS)
        else:
            data[at : at + 1] = rng.randbytes(1)
    return bytes(data)


def within(data, rng):
    """Return an archive with damage to one of its members, whose checksums are right."""
    new = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(new, "w") as archive:
        victim = rng.choice([name for name in old.namelist() if name.endswith((".pkl", ".h5"))])
        for name in old.namelist():
            archive.writestr(name, damaged(old.read(name), rng) if name == victim else old.read(name))
    return new.getvalue()


@pytest.mark.parametrize("name, damage", [(name, damaged) for name in NAMES] + [("w.pth", within), ("w.keras", within)])
def test_damage_ends_in_one_line(whole, tmp_path, name, damage):
    data, messages = (whole / name).read_bytes(), []
    for name_beside in ("m.index", "m.data-00000-of-00001"):
        shutil.copy(whole / name_beside, tmp_path)
    for seed in range(MUTANTS):
        (tmp_path / name).write_bytes(damage(data, random.Random(seed)))
        try:
            read_arrays(unpack(tmp_path / name, tmp_path / f"{seed}") if name == "w.tar.gz" else tmp_path / name)
        except WeightsError as error:
            messages.append(str(error))
    assert messages
    assert not [text for text in messages if "\n" in text or len(text) > 600]
