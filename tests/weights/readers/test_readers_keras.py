"""Keras' files: files of h5py are read, and no number comes from another file or uninitialised memory."""

import struct
import zipfile

import h5py
import numpy as np
import pytest
from hostile import refused_cheaply

from effnet.weights.readers.files import read_arrays

SECRET = np.arange(100, dtype=np.float32)


@pytest.fixture
def secret(tmp_path):
    """A private file of this machine, as plain bytes and as HDF5."""
    (tmp_path / "secret").write_bytes(SECRET.tobytes())
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["conv/kernel:0"] = SECRET
    return tmp_path / "secret"


@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8", "<f2"])
@pytest.mark.parametrize("shape", [(3, 4, 5), (0, 2), ()])
def test_numbers_of_any_width_order_and_shape_are_read(tmp_path, kind, shape):
    array = np.random.default_rng(1).normal(size=shape).astype(kind)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["conv/kernel:0"] = array
        file["conv/count:0"] = np.arange(3)
        file.attrs["layer_names"] = [b"conv"]
    found = read_arrays(tmp_path / "w.h5")
    assert found.keys() == {"conv/kernel"}
    assert np.array_equal(found["conv/kernel"], array.astype(np.float32))


def test_groups_of_many_members_and_small_arrays_within_their_headers_are_read(tmp_path):
    """More than fit a node of a group's tree; compact storage is what h5py writes on demand."""
    with h5py.File(tmp_path / "w.h5", "w") as file:
        for number in range(700):
            settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            settings.set_layout(h5py.h5d.COMPACT)
            group, space = file.create_group(f"layer_{number}"), h5py.h5s.create_simple((2,))
            made = h5py.h5d.create(group.id, b"bias:0", h5py.h5t.IEEE_F32LE, space, settings)
            made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.float32([number, -1]))
            group.attrs["weight_names"] = [b"bias:0"] * 20
    found = read_arrays(tmp_path / "w.h5")
    assert len(found) == 700
    assert all(np.array_equal(found[f"layer_{n}/bias"], [n, -1]) for n in range(700))


@pytest.mark.parametrize("name", ["conv2d", np.bytes_("conv2d"), "fältet"])
def test_the_names_of_keras_3_are_attributes_of_any_kind(tmp_path, name):
    with h5py.File(tmp_path / "w.weights.h5", "w") as file:
        group = file.create_group("layers/conv/vars")
        group.attrs["other"], group.attrs["name"] = np.arange(5), name
        group["0"], group["1"] = SECRET, SECRET[:3]
    text = name.decode() if isinstance(name, bytes) else name
    assert read_arrays(tmp_path / "w.weights.h5").keys() == {f"{text}/kernel", f"{text}/bias"}


def external_storage(file, secret):
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_external(str(secret).encode(), 0, SECRET.nbytes)
    group, space = file.require_group("conv"), h5py.h5s.create_simple((100,))
    h5py.h5d.create(group.id, b"kernel:0", h5py.h5t.IEEE_F32LE, space, settings)


def virtual_data_set(file, secret):
    layout = h5py.VirtualLayout(shape=(100,), dtype="f4")
    layout[:] = h5py.VirtualSource(f"{secret}.h5", "conv/kernel:0", shape=(100,))
    file.require_group("conv").create_virtual_dataset("kernel:0", layout)


def external_link(file, secret):
    file["conv/kernel:0"] = h5py.ExternalLink(f"{secret}.h5", "/conv/kernel:0")


def external_root(file, secret):
    file["model_weights"] = h5py.ExternalLink(f"{secret}.h5", "/")


def soft_link(file, secret):
    file["model_weights/conv/kernel:0"] = h5py.SoftLink("/elsewhere")
    file["elsewhere"] = SECRET


def compressed(file, secret):
    file.create_dataset("conv/kernel:0", data=np.zeros(10**6, np.float32), compression="gzip")


def never_written(file, secret):
    file.create_dataset("conv/kernel:0", shape=(8 * 10**9,), dtype="f4")


def chunked(file, secret):
    file.create_dataset("conv/kernel:0", shape=(8 * 10**9,), dtype="f4", chunks=(10**6,), fillvalue=3)


@pytest.mark.parametrize(
    "write",
    [external_storage, virtual_data_set, external_link, external_root, soft_link, compressed, never_written, chunked],
)
@pytest.mark.parametrize("archive", [False, True], ids=["h5", "keras"])
def test_what_lies_elsewhere_or_nowhere_is_refused(tmp_path, secret, write, archive):
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        write(file, secret)
    if archive:
        with zipfile.ZipFile(tmp_path / "w.keras", "w") as packed:
            packed.write(path, "model.weights.h5")
        path = tmp_path / "w.keras"
    with refused_cheaply(r"w\.(h5|keras) must be HDF5 as Keras writes it; .*; save it with Keras again"):
        read_arrays(path)


def test_a_newer_kind_of_hdf5_is_refused(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w", libver="latest") as file:
        file["conv/kernel:0"] = SECRET
    with refused_cheaply("must be HDF5 as Keras writes it; the file is of a newer kind"):
        read_arrays(tmp_path / "w.h5")


def test_groups_that_go_round_are_gone_through_once(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["conv/kernel:0"] = SECRET
        file["conv/itself"], file["conv/again:0"] = file["conv"], file["conv/kernel:0"]
        file["all"] = file["/"]
    assert len(read_arrays(tmp_path / "w.h5")) == 1


def test_a_shape_that_does_not_fit_its_numbers_is_refused(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["conv/kernel:0"] = SECRET.reshape(10, 10)
    path, shape = tmp_path / "w.h5", struct.pack("<QQ", 10, 10)
    data = path.read_bytes()
    assert data.count(shape) == 2  # the shape, and the largest that it may grow to
    path.write_bytes(data.replace(shape, struct.pack("<QQ", 10**5, 10**5)))
    with refused_cheaply(r"w\.h5 must hold the numbers that it declares; .* need 40,000,000,000 bytes"):
        read_arrays(path)
    path.write_bytes(data.replace(shape, struct.pack("<QQ", 10, 9)))
    with refused_cheaply("the shape of an array in it does not fit its size"):
        read_arrays(path)


def test_an_archive_that_unpacks_to_many_times_its_size_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", b"\x89HDF\r\n\x1a\n" + bytes(10**7))
    with refused_cheaply(r"w\.keras must hold the weights that it declares; model\.weights\.h5 in it has 10,000,008"):
        read_arrays(tmp_path / "w.keras")
